"""A retry is a drop: the archived inputs of an ended job go through admission once more."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Protocol

from nst_daemon import files
from nst_daemon.errors import InputError
from nst_daemon.intake import archive, archived
from nst_daemon.intake.drops import Rejection, Request
from nst_daemon.intake.pairing import Rules
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.jobs import NO_CHANGES, Changes, Job, JobState
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.containment import contained, warn
from nst_daemon.service.state import Moment, State

log = logging.getLogger(__name__)

S = JobState


class Claims(Protocol):
    """What reads and copies the files of a drop (`admission.Admission`)."""

    def rules(self, now: Moment) -> Rules:
        """What the meaning of files depends on now."""

    def claim(self, wanted: Request | Rejection, now: Moment, job_id: str = "") -> Job | None:
        """The job for what is wanted; with its reason if it is refused, None if its files have just changed."""


class Retries:
    """Takes in archived jobs again.

    Args:
        state: What the parts share.
        admission: Reads and copies the files.
    """

    def __init__(self, state: State, admission: Claims) -> None:
        self._state, self._admission = state, admission

    def readmit(self, job: Job, now: Moment, changes: Changes = NO_CHANGES) -> None:
        """Admit the archived inputs of an ended job once more, as if they had been dropped now.

        They are read as a drop, checked, copied and hashed anew, with the settings that are beside them now. What is
        refused again stays in failed/ with the new reason. May be called again after a crash.

        Args:
            job: As the ledger has it.
            now: The time.
            changes: Of its settings, after those of earlier retries.

        Raises:
            ChangedMeanwhile: A file or a style of the library has not settled; call it again later.
            StorageError: The disk.
        """
        said = job_logger(log, job.name, job.id)
        if job.deleted:
            reason = "its files were deleted by request; drop its pictures again"
            said.warning("the retry failed: %s", reason)
            self._state.ledger.note(job.id, now=now.wall, note=f"the retry failed: {reason}")
        elif job.state is S.QUEUED and job.archive:  # a crash interrupted an earlier call
            self._leave_archive(job, now)
        elif job.state.terminal and not job.archive and job.state is not S.DONE:
            raise ChangedMeanwhile(f"{job.name} is not in failed/ yet")
        elif not job.state.terminal or job.state is S.DONE:
            said.warning("only a job that has ended without a picture can be tried again")
        else:
            try:
                self._readmit(job, now, job.changes.then(changes))
            except ChangedMeanwhile:
                raise
            except InputError as error:
                said.warning("the retry failed: %s", error)
                self._state.ledger.note(job.id, now=now.wall, note=f"the retry failed: {error}")

    def _readmit(self, job: Job, now: Moment, changes: Changes) -> None:
        """Do what `readmit` says. Raises InputError if the inputs are gone."""
        folders, config = self._state.folders, self._state.config
        if archived.is_batch_file(job):
            self._put_batch_back(job)
            return
        rules = self._admission.rules(now)
        rules = replace(rules, pair_timeout=config.service.pair_timeout)
        wanted = archived.read(job, folders.failed, rules, config.limits.max_bytes, changes)
        files.remove_tree(folders.spool / job.id)  # of an earlier call that was interrupted
        again = self._admission.claim(wanted, now, job.id)
        if again is None:
            raise ChangedMeanwhile(f"files in {folders.failed / job.archive} are changing")
        if again.error:
            self._refuse_again(job, again.error, now)
        else:
            again = replace(again, changes=changes)
            note = f"retried by request {'with ' if changes.written else ''}{changes}".strip()
            job = self._state.ledger.readmit(again, now=now.wall, note=note)
            job_logger(log, job.name, job.id).info("%s", note)
            self._leave_archive(job, now)

    def _put_batch_back(self, job: Job) -> None:
        """Move the file of a batch back into the inbox, and forget that it was refused. Raises InputError."""
        folders = self._state.folders
        archived.put_back(job, folders.failed, folders.inbox)
        self._state.ledger.forget(job.id)
        self._prune(job)
        job_logger(log, job.name, job.id).info("retried by request: it is in the inbox again")

    def _refuse_again(self, job: Job, reason: str, now: Moment) -> None:
        """The job stays in failed/, with the reason of today."""
        archive.write_error(self._state.folders.failed / job.archive, reason, name=job.name)
        note = f"retried by request: {reason}"
        self._state.ledger.note(job.id, now=now.wall, note=note, error=reason)
        job_logger(log, job.name, job.id).error("refused again: %s", reason)

    def _prune(self, job: Job) -> None:
        """Remove the files of a job from failed/; those that cannot be removed stay there. Raises StorageError."""
        said = job_logger(log, job.name, job.id)
        with contained(job.name, warn(said, "files stay in failed/: %s")):
            archive.prune_archive(job, self._state.folders.failed)

    def _leave_archive(self, job: Job, now: Moment) -> None:
        """The inputs are in the spool and in the ledger again: remove them from failed/."""
        self._prune(job)
        self._state.ledger.note(job.id, now=now.wall, archive="")
