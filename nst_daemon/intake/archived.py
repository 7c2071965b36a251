"""An archived job as a drop: its files in failed/ mean what they would mean in the inbox today."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nst_daemon import files
from nst_daemon.engine.settings import own_settings
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.intake.archive import CARD, ERROR_FILE, RESULT, card_id
from nst_daemon.intake.claim import move_original
from nst_daemon.intake.drops import (
    SETTINGS_SUFFIXES,
    Drop,
    Entry,
    JobSettings,
    Rejection,
    Request,
    suffix_of,
)
from nst_daemon.intake.pairing import Rules, interpret
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.intake.walk import file_problem, list_folder, opened, read_settings
from nst_daemon.jobs import NO_CHANGES, Changes, Job, JobInput, Role
from nst_daemon.names import numbered, printable


def read(
    job: Job, failed: Path, rules: Rules, max_bytes: int, changes: Changes = NO_CHANGES
) -> Request | Rejection:
    """What the files of an ended job ask for now.

    Their names count as they were in the inbox, and the settings files as they are now. A file that a person has
    added to the folder counts as if it had been dropped with them. Styles of the library come from the library.

    Args:
        job: Its inputs are in failed/.
        failed: The folder.
        rules: What the meaning of a drop depends on; `read_settings` is replaced.
        max_bytes: Of one file.
        changes: Of the settings file, or of a job without one.

    Raises:
        InputError: The inputs are gone, or they are of more than one job.
        SettingsError: The changes cannot be those of this job.
        ChangedMeanwhile: A style of the library is still being copied.
    """
    folder = _Archive(job, failed, max_bytes, changes)
    if job.source == "batch":
        return folder.cell()
    own = JobSettings.changes(changes.written)
    rules = replace(rules, read_settings=folder.settings, without_file=own, order_window=None)
    outcome = interpret(folder.top, list(folder.entries.values()), True, rules)
    if outcome.settling:
        raise ChangedMeanwhile(f"a style of {job.name} is still being copied")
    found: list[Request | Rejection] = [*outcome.requests, *outcome.rejections]
    if not found and outcome.left_alone:
        raise InputError(next(iter(outcome.left_alone.values())))
    if len(found) != 1:
        raise InputError(
            f"{printable(str(folder.path))} holds the files of {len(found)} jobs",
            remedy="leave those of one job there, or drop them into the inbox",
        )
    (wanted,) = found
    if job.source == "order":  # their names still do not say their roles
        wanted = replace(wanted, source="order")
    if isinstance(wanted, Request):
        places = {**wanted.places, **dict.fromkeys(own.settings, own.label)}
        wanted = replace(wanted, places=places)
    return replace(wanted, files=tuple(map(folder.archived, wanted.files)))


def is_batch_file(job: Job) -> bool:
    """Whether a job stands for a batch file that was refused."""
    return job.source == "batch-file"


def settings_keys(job: Job, failed: Path, max_bytes: int) -> frozenset[str]:
    """The keys of the settings file of an ended job as it is now; for a picture of a batch, all settings.

    Raises:
        InputError: The inputs are gone, or the file cannot be read.
        ChangedMeanwhile: The file is being changed.
    """
    values = settings_values(job, failed, max_bytes)
    if job.source == "batch":
        return frozenset({*job.settings, *job.outputs, "priority"})
    return frozenset(values)


def settings_values(job: Job, failed: Path, max_bytes: int) -> dict[str, Any]:
    """What the settings file of an ended job says now, without the changes of retries.

    Raises:
        InputError: The inputs are gone, or the file cannot be read.
        ChangedMeanwhile: The file is being changed.
    """
    folder, values = _Archive(job, failed, max_bytes, NO_CHANGES), dict[str, Any]()
    for path, drop in folder.drops.items():
        if suffix_of(path) in SETTINGS_SUFFIXES:
            values |= read_settings(failed, drop.path, drop.fingerprint, max_bytes)
    return values


def put_back(job: Job, failed: Path, inbox: Path) -> None:
    """Move the file of a batch from failed/ to where it was in the inbox; may be called again.

    Raises:
        InputError: The file is neither in failed/ nor in the inbox.
        StorageError: It cannot be moved.
    """
    (file,) = job.inputs
    source, place = failed / job.archive / file.spooled, inbox / file.origin
    if os.path.lexists(source) and card_id(source.parent) == job.id:
        files.make_folder(place.parent)
        stem, dot, suffix = place.name.partition(".")
        names = (place.with_name(name + dot + suffix) for name in numbered(stem))
        with files.storage(place), opened(source.parent) as descriptor:
            target = next(path for path in names if not os.path.lexists(path))
            status = os.stat(source.name, dir_fd=descriptor, follow_symlinks=False)
            move_original(source.name, descriptor, status, target)
    elif not os.path.lexists(place):
        raise InputError(f"{source} is gone", remedy="drop the batch file again")


class _Archive:
    """The files of one job below failed/, by the paths that they had in the inbox."""

    def __init__(self, job: Job, failed: Path, max_bytes: int, changes: Changes) -> None:
        self.path = failed / job.archive
        if not job.archive or card_id(self.path) != job.id:
            raise InputError(
                f"the inputs of {job.name} are gone from {failed}", remedy="drop them again"
            )
        self._job, self._failed, self._max_bytes = job, failed, max_bytes
        self._changes = changes
        origins = [file.origin for file in job.inputs if file.origin]
        #: The folder of the inbox that they were in.
        self.top = origins[0].rpartition("/")[0] if origins else ""
        self.entries: dict[str, Entry] = {}
        self.drops: dict[str, Drop] = {}
        self._list()

    def _list(self) -> None:
        known = {file.spooled: file for file in self._job.inputs}
        with opened(self.path) as descriptor:
            listing = list_folder(descriptor, str(self.path), [])
        for name, status in sorted(listing):
            file = known.get(name)
            if name in {CARD, ERROR_FILE, RESULT} or (
                file and not file.origin and self._job.source != "batch"
            ):
                continue  # a copy of a library file: the library itself counts
            path = self._path(file, name)
            mark = files.fingerprint(status)
            problem = file_problem(status, name, self._max_bytes)
            role = file.role if file else Role.UNKNOWN
            self.entries[path] = Entry(path, mark, settled=True, age=math.inf, problem=problem)
            origin = file.origin if file and file.origin else path
            self.drops[path] = Drop(role, f"{self._job.archive}/{name}", mark, "failed", origin)

    def _path(self, file: JobInput | None, name: str) -> str:
        if file and file.origin and self._job.source == "order":
            return self._with_role(file)
        if file and file.origin:
            return file.origin
        return f"{self.top}/{name}" if self.top else name

    def _with_role(self, file: JobInput) -> str:
        """The path that a file of a pair by order would have with its role in its name: its name does not say it."""
        content = next(f for f in self._job.inputs if f.role is Role.CONTENT)
        stem = content.origin.removesuffix(suffix_of(content.origin))
        role = "" if file.role is Role.SETTINGS else f".{file.role.replace('-', '.')}"
        return f"{stem}{role}{suffix_of(file.origin)}"

    def archived(self, drop: Drop) -> Drop:
        """A drop of the inbox as the file in failed/, with the role that it has now; others as they are."""
        if drop.root != "inbox":
            return drop
        return replace(self.drops[drop.path], role=drop.role)

    def settings(self, entry: Entry) -> JobSettings:
        """What a settings file says now. Raises SettingsError, ChangedMeanwhile."""
        drop = self.drops[entry.path]
        values = read_settings(self._failed, drop.path, drop.fingerprint, self._max_bytes)
        return JobSettings.parse(self._changes.apply(values), printable(entry.name))

    def cell(self) -> Request:
        """The picture of a batch once more: its settings come from the batch, its sources from their copies.

        Raises:
            InputError: A copy is gone.
            SettingsError: The changes name a style.
        """
        job = self._job
        missing = [file.name for file in job.inputs if file.spooled not in self.drops]
        if missing or not job.inputs:
            raise InputError(
                f"{', '.join(missing) or 'the inputs'} of {job.name} cannot be found in {self.path}",
                remedy="run the batch again",
            )
        changed = JobSettings.changes(
            self._changes.apply(
                {
                    **open_settings(job.settings, job.outputs, self._changes),
                    "priority": job.priority,
                }
            )
        )
        if changed.styles:
            raise SettingsError(
                f"{job.name} is a picture of a batch, whose style cannot be changed",
                remedy="change the batch file, and run it again",
            )
        return Request(
            name=job.name,
            source="batch",
            group=job.group,
            files=tuple(
                replace(self.drops[file.spooled], role=file.role, origin="") for file in job.inputs
            ),
            settings=changed.settings,
            priority=changed.priority,
            batch=job.batch,
        )


def open_settings(
    settings: Mapping[str, Any], outputs: Mapping[str, Any], changes: Changes
) -> dict[str, Any]:
    """The resolved settings of a job, without those that would contradict the changes."""
    found = {**settings, **outputs}
    written = changes.written
    if "preset" in written:  # the values of the old one do not count
        found = {**own_settings(settings), **outputs}
    if written.get("content_style_ratio") is not None:
        found.pop("content_weight", None)
    if "format" in written:
        found.pop("depth", None)
    return found
