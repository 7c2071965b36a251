"""At the start: bring every job that a crash or a shutdown has left behind into a state from which it can continue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path

from nst_daemon import files
from nst_daemon.intake import claim
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.admission import Admission
from nst_daemon.service.completion import Completion
from nst_daemon.service.containment import contained, warn
from nst_daemon.service.dispatch import MOST_DEATHS, Dispatch
from nst_daemon.service.state import Moment, State

log = logging.getLogger(__name__)

S = JobState


def recover(
    state: State, admission: Admission, completion: Completion, dispatch: Dispatch, now: Moment
) -> None:
    """Put the spool and the ledger in order, and hand each unfinished job to the part that continues with it.

    It may be called again after an error. Raises StorageError.
    """
    folders, ledger = state.folders, state.ledger
    for job in claim.recover_spool(folders.spool, ledger.ids(), folders.inbox):
        with contained(job.name, _leave(job)):
            ledger.add(job, note="found in the spool, unknown to the ledger")
    _resolve_old_settings(state, now)
    for job in ledger.jobs(S.RUNNING):
        with contained(job.name, _leave(job)):
            _recover_running(state, completion, job, now)
    for job in ledger.jobs(S.RETRYING):
        dispatch.resume_retry(job, now)
    for job in ledger.jobs(S.CLAIMED):
        admission.resume(job)
    for job in ledger.jobs(S.STAGED, S.PUBLISHED):
        completion.add(job)
    for job in ledger.not_archived():
        completion.add(job)
    in_use = ledger.open_ids()
    ended = (ledger.get(job_id) for job_id in claim.spooled(folders.spool) if job_id not in in_use)
    for job in filter(None, ended):  # some of its inputs could not be moved before
        completion.add(job)
    for root in (folders.stage, folders.checkpoints):
        _sweep(root, in_use, ledger)


def _sweep(root: Path, in_use: Set[str], ledger: Ledger) -> None:
    """Remove the temporary files of jobs that have ended. in_use: the ids of the others. Raises StorageError."""
    with files.storage(root):
        paths = [path for path in root.iterdir() if path.name not in in_use]
    for path in paths:
        job = ledger.get(path.name)
        if job is None or job.archive or job.deleted:
            with contained(path.name, warn(log, "a temporary file cannot be removed: %s")):
                files.remove(path)


def _leave(job: Job) -> Callable[[str, str], None]:
    """The job stays as it is."""
    return warn(job_logger(log, job.name, job.id), "the next start tries it again: %s")


def _recover_running(state: State, completion: Completion, job: Job, now: Moment) -> None:
    """The daemon itself ended in the middle of an attempt: whether the job was the cause is unknown.

    An attempt that has written a checkpoint made progress, so neither it nor those before it count. (An attempt that
    makes the daemon end over and over again gets no further than its last checkpoint.) `Dispatch` has not counted an
    attempt that no worker had begun.
    """
    if _made_progress(state, job):
        note = "the daemon stopped during this attempt; painting continues from the checkpoint"
        state.move(job, S.QUEUED, now, note=note, attempts=0)
    elif job.attempts < state.config.service.max_attempts + MOST_DEATHS:
        state.move(job, S.QUEUED, now, note="the daemon stopped during this attempt")
    else:
        error = f"the daemon stopped {job.attempts} times while this was painted; to try again, run `nst-daemon retry`"
        completion.fail(job, S.QUARANTINED, now, error=error)


def _made_progress(state: State, job: Job) -> bool:
    """Whether there is a checkpoint that was written after the attempt began."""
    try:
        written = (state.folders.checkpoints / job.id).stat().st_mtime
    except OSError:
        return False
    # A new priority is an event, too.
    events = takewhile(
        lambda event: event.state is S.RUNNING, reversed(state.ledger.events(job.id))
    )
    return written >= min((event.at for event in events), default=job.updated)


def _resolve_old_settings(state: State, now: Moment) -> None:
    """Resolve the settings of jobs that release 0.1.0 has queued: it kept only what differs from the configuration."""
    for job in state.ledger.with_partial_settings():
        said = job_logger(log, job.name, job.id)
        with contained(
            job.name, warn(said, "its settings are not valid any more and stay as they are: %s")
        ):
            settings = asdict(state.config.render_settings(job.settings))
            state.ledger.note(job.id, now=now.wall, settings=settings)
