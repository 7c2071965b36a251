"""Jobs by their ids: of the ledger, or still in the inbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from nst_daemon.errors import NotFoundError
from nst_daemon.intake.dropped import InboxJob
from nst_daemon.jobs import Job, short_id
from nst_daemon.ledger_reader import LedgerReader, Verb
from nst_daemon.names import printable
from nst_daemon.ops import requests
from nst_daemon.ops.job_names import LISTED
from nst_daemon.web import inbox_jobs, job_bodies
from nst_daemon.web.context import Context
from nst_daemon.web.models import JobDetails, JobInfo

T = TypeVar("T")


def get_job(shared: Context, job_id: str) -> Job:
    """The job of the ledger with this id. Raises NotFoundError."""
    return _find(shared, job_id, lambda _, job: job, _not_taken)


def get_info(shared: Context, job_id: str) -> JobInfo:
    """A job of the ledger or of the inbox. Raises NotFoundError."""
    return _find(
        shared,
        job_id,
        lambda ledger, job: job_bodies.describe(job, _asked(ledger, job)),
        inbox_jobs.describe,
    )


def get_details(shared: Context, job_id: str) -> JobDetails:
    """Everything about a job. Raises NotFoundError."""
    return _find(
        shared,
        job_id,
        lambda ledger, job: job_bodies.details(
            job, _asked(ledger, job), ledger.events(job.id), shared
        ),
        inbox_jobs.details,
    )


def _find(
    shared: Context,
    job_id: str,
    in_ledger: Callable[[LedgerReader, Job], T],
    in_inbox: Callable[[InboxJob, Context], T],
) -> T:
    """What one of the functions makes of a job. Raises NotFoundError."""

    def look() -> T | None:
        with shared.ledger(LedgerReader) as ledger:
            job = ledger.get(job_id)
            return None if job is None else in_ledger(ledger, job)

    if (found := look()) is not None:
        return found
    if waiting := inbox_jobs.find(shared, job_id):
        return in_inbox(waiting, shared)
    if (found := look()) is not None:  # the daemon has just taken it
        return found
    raise NotFoundError(f"there is no job {job_id}", remedy=LISTED)


def _asked(ledger: LedgerReader, job: Job) -> Sequence[Verb]:
    """The requests for a job that the daemon has not handled yet."""
    return requests.pending(ledger, [job.id]).get(job.id, ())


def _not_taken(waiting: InboxJob, _: Context) -> NoReturn:
    name = f"{printable(waiting.name)} ({short_id(waiting.id)})"
    raise NotFoundError(f"{name} is still in the inbox", remedy="wait until the daemon takes it")
