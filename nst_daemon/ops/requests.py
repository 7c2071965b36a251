"""Requests to retry or cancel jobs. They are stored in the ledger; only the daemon changes the state of a job."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nst_daemon import rights
from nst_daemon.errors import UsageError
from nst_daemon.jobs import NO_CHANGES, TRANSITIONS, Changes, Job, JobState
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import printable
from nst_daemon.ops.job_names import find_jobs

Verb = Literal["retry", "cancel"]

S = JobState
#: States of jobs that no worker has.
QUEUED = (S.CLAIMED, S.QUEUED, S.RETRYING)


def selected(
    ledger: LedgerReader,
    verb: Verb,
    named: Sequence[str],
    states: Sequence[JobState],
    results: Path,
) -> list[Job]:
    """The jobs that are named or in one of the states, each once.

    Args:
        ledger: The ledger.
        verb: What is requested.
        named: Ids, prefixes of ids, names or patterns.
        states: Of jobs that need no name.
        results: The folder of results, for messages.

    Raises:
        StorageError: This user may not change the ledger.
        UsageError: A name matches no job or several, or a job cannot be retried or cancelled.
    """
    rights.check_member(ledger.path, write=True)
    cancelled = {r.job_id for r in ledger.pending_requests() if r.verb == "cancel"}

    def wanted(job: Job) -> bool:
        return possible(verb, job) or (verb == "retry" and job.id in cancelled)

    jobs = [job for text in named for job in find_jobs(ledger, text, wanted)]
    jobs += ledger.jobs(*states) if states else []
    for job in jobs:
        if not wanted(job):
            raise _impossible(verb, job, results)
    return list({job.id: job for job in jobs}.values())


def possible(verb: Verb, job: Job) -> bool:
    """Whether a job can be retried or cancelled in its state. A cancelled one may be cancelled again."""
    if verb == "retry":
        return job.state.terminal and bool(TRANSITIONS[job.state])
    return not job.state.terminal or job.state is S.CANCELLED


def store(
    ledger: LedgerReader, verb: Verb, jobs: Sequence[Job], changes: Changes = NO_CHANGES
) -> None:
    """Store a request for each job that is not cancelled already. changes: of the settings, for a retry."""
    for job in jobs:
        if verb == "retry" or job.state is not S.CANCELLED:
            ledger.request(job.id, verb, now=time.time(), changes=changes)


def _impossible(verb: Verb, job: Job, results: Path) -> UsageError:
    name = f"{printable(job.name)} ({job.short_id})"
    if verb == "cancel":
        return UsageError(f"{name} has ended already ({job.state}): there is nothing to cancel")
    if job.state is S.DONE:
        picture = shlex.quote(printable(str(results / job.result)))
        return UsageError(
            f"{name} is done; only a job without a picture can be retried",
            remedy=f"to paint it again: nst-daemon rerun {picture}",
        )
    return UsageError(
        f"{name} has not ended ({job.state}); only a job that has ended can be retried",
        remedy=f"to change its settings, cancel it first: nst-daemon cancel {job.short_id}",
    )
