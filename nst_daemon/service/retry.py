"""A retry is a drop: the archived inputs of an ended job go through admission once more."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from nst_daemon import files
from nst_daemon.config import Config
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.intake import archive, archived
from nst_daemon.intake.drops import JobSettings, Rejection, Request
from nst_daemon.intake.library import list_styles
from nst_daemon.intake.pairing import Rules
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.job_settings import correction, resolve_job
from nst_daemon.jobs import NO_CHANGES, Changes, Job, JobState, Role
from nst_daemon.names import composed, printable
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.containment import contained, warn
from nst_daemon.service.state import Moment, State

log = logging.getLogger(__name__)

S = JobState


def refusal(config: Config, job: Job, changes: Changes) -> InputError | None:
    """Why an ended job would be refused again if it were retried now; None if it would be admitted.

    Args:
        config: The configuration.
        job: As the ledger has it.
        changes: Of its settings, with those of earlier retries.

    If this user may not read the files of the job, only the changes are checked: the daemon checks the rest.
    """
    folders, name = config.folders, printable(job.name)
    own: Mapping[str, object] = {}
    try:
        if is_batch_file(job):
            return _refused_batch(job, folders.failed, changes)
        if not job.archive or not _may_read(folders.failed / job.archive):
            # It has just ended, or only the daemon can say more.
            resolve_job(config, JobSettings.changes(changes.written).settings)
            return None
        styles = list_styles(folders.styles, config.limits.max_bytes)
        default = composed(config.default_style)
        rules = Rules(
            styles=styles,
            read_settings=lambda entry: JobSettings(),
            default_style=default if default in styles else "",
            pair_timeout=config.service.pair_timeout,
        )
        wanted = archived.read(job, folders.failed, rules, config.limits.max_bytes, changes)
        if isinstance(wanted, Rejection):
            place = printable(str(folders.failed / job.archive))
            raise InputError(wanted.reason, remedy=f"its files are in {place}")
        own = wanted.own_settings
        resolve_job(config, wanted.settings, wanted.places)
    except ChangedMeanwhile:
        return None
    except SettingsError as error:
        remedy = _settings_remedy(job, error, changes, own)
        return SettingsError(f"{name} would be refused again: {error.message}", remedy=remedy)
    except InputError as error:
        return InputError(f"{name} would be refused again: {error.message}", remedy=error.remedy)
    return None


def _settings_remedy(
    job: Job, error: SettingsError, changes: Changes, own: Mapping[str, object]
) -> str:
    """How to correct a setting of a job. changes: of the request; own: the settings of the job and the changes."""
    if not error.key or error.key in changes.written:
        return error.remedy
    command = correction(job.name, error.key, own)
    return f"{error.remedy} ({command or '--set KEY=VALUE and --unset KEY change it'})".strip()


def _may_read(folder: Path) -> bool:
    """Whether this user may read a folder and its files; also if it does not exist."""
    try:
        return all(os.access(path, os.R_OK, follow_symlinks=False) for path in folder.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def is_batch_file(job: Job) -> bool:
    """Whether a job stands for a batch file that was refused."""
    return [file.role for file in job.inputs] == [Role.BATCH]


def _refused_batch(job: Job, failed: Path, changes: Changes) -> InputError | None:
    """Why the file of a batch is refused again."""
    place = failed / job.archive / job.inputs[0].spooled
    if changes:
        return InputError(
            f"{printable(job.name)} is a batch file, which --set does not change",
            remedy=f"correct {printable(str(place))}, and retry it without --set",
        )
    return None


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
        if job.state is S.QUEUED and job.archive:  # a crash interrupted an earlier call
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
        if is_batch_file(job):
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
