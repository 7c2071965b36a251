"""Waiting for the end of a job that was just dropped: `nst-daemon submit --wait`."""

from __future__ import annotations

import time
from collections.abc import Callable

from nst_daemon.config import Folders
from nst_daemon.errors import UsageError
from nst_daemon.intake import dropped
from nst_daemon.jobs import Job
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import printable
from nst_daemon.ops.status import read_live, served

#: Seconds between two looks.
PAUSE = 0.5
#: Looks without the files and without the job after which the files were removed.
PATIENCE = 6


def wait_for(
    folders: Folders,
    job_id: str,
    name: str,
    tell: Callable[[str], object],
    pause: Callable[[float], object] = time.sleep,
) -> Job:
    """Wait until a job has ended, and return it.

    Args:
        folders: The folders of the root.
        job_id: The id of the job.
        name: The name of the job, for messages.
        tell: Told each new reason why nothing happens.
        pause: Sleeps for a number of seconds.

    Raises:
        UsageError: The files were removed from the inbox before the daemon took them.
    """
    said, missing = "", 0
    while True:
        job = _find(folders, job_id)
        if job is not None and job.state.terminal and (job.archive or job.result or job.deleted):
            return job
        is_missing = job is None and not dropped.find(folders.inbox, job_id, name)
        missing = missing + 1 if is_missing else 0
        if missing > PATIENCE:
            raise UsageError(f"the files of {printable(name)} were removed from the inbox")
        reason = _reason(folders, name)
        if reason and reason != said:
            tell(reason)
        said = reason
        pause(PAUSE)


def _find(folders: Folders, job_id: str) -> Job | None:
    if not folders.ledger.exists():
        return None
    with LedgerReader.attach(folders.ledger) as ledger:
        return ledger.get(job_id)


def _reason(folders: Folders, name: str) -> str:
    """Why the job does not go on; "" if nothing is known."""
    if not served(folders.state):
        return "no daemon is running; waiting until one starts"
    live = read_live(folders)
    if live is None:
        return ""
    if live.state in {"paused", "resting", "lost"} and live.reason:
        return f"{live.state}: {live.reason}"
    return next((drop.text for drop in live.inbox.waiting if drop.name == name), "")
