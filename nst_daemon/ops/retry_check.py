"""Whether a retry would be refused again, before it is requested. For `nst-daemon retry` and the REST API."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nst_daemon.config import Config
from nst_daemon.errors import InputError, SettingsError, StorageError, UsageError
from nst_daemon.intake import archived
from nst_daemon.intake.drops import JobSettings, Rejection, Style
from nst_daemon.intake.library import list_styles
from nst_daemon.intake.pairing import Rules
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.job_settings import correction, resolve_job
from nst_daemon.jobs import NO_CHANGES, Changes, Job
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import composed, printable


def changes_of(
    written: Mapping[str, object], removed: Sequence[str], priority: int | None = None
) -> Changes:
    """The changes that a retry asks for.

    Args:
        written: Keys of the settings file.
        removed: Keys that do not count any more.
        priority: The new one; None for no change.

    Raises:
        UsageError: A key is both written and removed.
    """
    new = {} if priority is None else {"priority": priority}
    written = {**written, **new}
    if both := written.keys() & set(removed):
        raise UsageError(
            f"{', '.join(sorted(both))} is both set and unset", remedy="use one of them"
        )
    return Changes(written, tuple(removed))


def refused(
    config: Config, ledger: LedgerReader, jobs: Sequence[Job], changes: Changes
) -> dict[str, InputError]:
    """The jobs that would be refused again if they were retried now, by their ids, each with the reason.

    Args:
        config: The configuration.
        ledger: The ledger.
        jobs: That can be retried.
        changes: Of their settings, after those of retries that the daemon has not handled yet.
    """
    asked = {r.job_id: r.changes for r in ledger.pending_requests() if r.verb == "retry"}
    styles = list_styles(config.folders.styles, config.limits.max_bytes)
    found = {}
    for job in jobs:
        wanted = job.changes.then(asked.get(job.id, NO_CHANGES)).then(changes)
        problem = refusal(config, job, wanted, styles)
        if problem and ledger.get(job.id) == job:  # else the daemon has just changed it
            found[job.id] = problem
    return found


def not_set(config: Config, job: Job, changes: Changes) -> list[str]:
    """The keys that a retry removes although the settings file of the job does not have them.

    Args:
        config: The configuration.
        job: As the ledger has it.
        changes: Of its settings, with those of earlier retries.
    """
    if not changes.removed:
        return []
    try:
        keys = archived.settings_keys(job, config.folders.failed, config.limits.max_bytes)
    except (InputError, StorageError, ChangedMeanwhile):  # only the daemon can tell
        return []
    return [key for key in changes.removed if key not in keys | job.changes.written.keys()]


def refusal(
    config: Config, job: Job, changes: Changes, styles: Mapping[str, Style]
) -> InputError | None:
    """Why an ended job would be refused again if it were retried now; None if it would be admitted.

    Args:
        config: The configuration.
        job: As the ledger has it.
        changes: Of its settings, with those of earlier retries.
        styles: The library.

    If this user may not read the files of the job, only the changes are checked: the daemon checks the rest.
    """
    folders, name = config.folders, printable(job.name)
    own: Mapping[str, object] = {}
    try:
        if archived.is_batch_file(job):
            return _refused_batch(job, folders.failed, changes)
        if not job.archive or not _may_read(folders.failed / job.archive):
            # It has just ended, or only the daemon can say more.
            resolve_job(config, JobSettings.changes(changes.written).settings)
            return None
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
        resolve_job(config, wanted.settings, wanted.places, wanted.style_pictures)
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
    how = f", for example with `{command}`" if command else ""
    return f"{error.remedy} (change or remove it in the retry{how})".strip()


def _may_read(folder: Path) -> bool:
    """Whether this user may read a folder and its files; also if it does not exist."""
    try:
        return all(os.access(path, os.R_OK, follow_symlinks=False) for path in folder.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _refused_batch(job: Job, failed: Path, changes: Changes) -> InputError | None:
    """Why the file of a batch is refused again."""
    place = failed / job.archive / job.inputs[0].spooled
    if changes:
        return InputError(
            f"{printable(job.name)} is a batch file, which a retry does not change",
            remedy=f"correct {printable(str(place))}, and retry it without changes",
        )
    return None
