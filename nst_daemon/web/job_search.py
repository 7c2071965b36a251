"""Jobs by their ids: of the ledger, or still in the inbox."""

from __future__ import annotations

from nst_daemon.jobs import Job, short_id
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import printable
from nst_daemon.ops import requests
from nst_daemon.ops.job_names import LISTED
from nst_daemon.web import inbox_jobs, job_bodies
from nst_daemon.web.context import Context
from nst_daemon.web.error_bodies import NotFoundError
from nst_daemon.web.models import JobDetails, JobInfo


def get_job(shared: Context, job_id: str) -> Job:
    """The job of the ledger with this id. Raises NotFoundError."""
    found = None
    if shared.folders.ledger.exists():
        with LedgerReader.attach(shared.folders.ledger) as ledger:
            found = ledger.get(job_id)
    if found is None and (waiting := inbox_jobs.find(shared, job_id)):
        name = f"{printable(waiting.name)} ({short_id(job_id)})"
        raise NotFoundError(
            f"{name} is still in the inbox", remedy="wait until the daemon takes it"
        )
    if found is None:
        raise NotFoundError(f"there is no job {job_id}", remedy=LISTED)
    return found


def get_info(shared: Context, job_id: str) -> JobInfo:
    """A job of the ledger or of the inbox. Raises NotFoundError."""
    ledger_file = shared.folders.ledger
    if ledger_file.exists():
        with LedgerReader.attach(ledger_file) as ledger:
            if job := ledger.get(job_id):
                return job_bodies.describe(job, requests.pending(ledger, [job_id]).get(job_id, ()))
    return get_details(shared, job_id)


def get_details(shared: Context, job_id: str) -> JobDetails:
    """Everything about a job. Raises NotFoundError."""
    if found := _in_ledger(shared, job_id):
        return found
    if waiting := inbox_jobs.find(shared, job_id):
        return inbox_jobs.details(waiting, shared)
    if found := _in_ledger(shared, job_id):  # the daemon has just taken it
        return found
    raise NotFoundError(f"there is no job {job_id}", remedy=LISTED)


def _in_ledger(shared: Context, job_id: str) -> JobDetails | None:
    folders = shared.folders
    if not folders.ledger.exists():
        return None
    with LedgerReader.attach(folders.ledger) as ledger:
        found = ledger.get(job_id)
        events = ledger.events(job_id)
        asked = requests.pending(ledger, [job_id]).get(job_id, ())
    if found is None:
        return None
    return job_bodies.details(found, asked, events, shared.config)
