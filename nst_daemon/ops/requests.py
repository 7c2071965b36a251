"""Requests to retry or cancel jobs. They are stored in the ledger; only the daemon changes the state of a job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from nst_daemon import rights
from nst_daemon.errors import UsageError
from nst_daemon.jobs import TRANSITIONS, Job, JobState
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.ops.status import find_job

Verb = Literal["retry", "cancel"]


def request(
    ledger: LedgerReader, verb: Verb, named: Sequence[str], states: Sequence[JobState] = ()
) -> list[Job]:
    """Store a request for each job that is named or in one of the states, and return these jobs.

    Raises:
        StorageError: This user may not change the ledger.
        UsageError: A name matches no job or several, or a job cannot be retried or cancelled. No request is stored.
    """
    rights.check_member(ledger.path, write=True)
    jobs = [find_job(ledger, text) for text in named]
    jobs += ledger.jobs(*states) if states else []
    for job in jobs:
        ended = job.state.terminal
        possible = ended and TRANSITIONS[job.state] if verb == "retry" else not ended
        if not possible:
            raise UsageError(
                f"{job.name} is {job.state}: cannot {verb} it",
                remedy=f"see `nst-daemon history {job.id[:8]}`",
            )
    for job in jobs:
        ledger.request(job.id, verb, now=time.time())
    return jobs
