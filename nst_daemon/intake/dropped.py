"""Jobs that are still in the inbox, by the id in their settings files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nst_daemon import files
from nst_daemon.errors import InputError
from nst_daemon.intake.drops import SETTINGS_SUFFIXES, JobSettings, stem_of, suffix_of
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.parts import IN_PAIR, job_name
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.intake.walk import opened, read_settings
from nst_daemon.jobs import Role
from nst_daemon.names import natural_key
from nst_daemon.pictures.formats import IMAGE_SUFFIXES

#: The most settings files that `find` opens.
MOST_OPENED = 50_000
#: So much of each file is read: `submit` writes the id into the first line.
_HEAD_BYTES = 1024
_ID = re.compile(
    rb"^id:[ \t]+(?P<quote>['\"]?)(?P<id>[0-9a-f]{32})(?P=quote)[ \t]*(?:#|\r?$)", re.MULTILINE
)
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class InboxJob:
    """A job in the inbox.

    Attributes:
        id: of the job.
        name: of the job.
        file: the name of its settings file.
        appeared: when this file came into the inbox, in seconds since the epoch.
    """

    id: str
    name: str
    file: str
    appeared: float


def find(inbox: Path, job_id: str, likely: str = "") -> str:
    """The name of the job with this id whose files are directly in the inbox; "" if there is none.

    A job leaves the inbox after the ledger has it: look into the ledger again if nothing was found.

    Args:
        inbox: The inbox.
        job_id: The id.
        likely: The name that the job probably has: it is looked for first, without listing the inbox.

    Raises:
        StorageError: The inbox cannot be read.
    """
    if likely:
        with opened(inbox) as folder:
            found = _ID.search(_head(f"{likely}.yaml", folder)[0])
        if found and found["id"].decode() == job_id:
            return likely
    return next((job.name for job in jobs(inbox) if job.id == job_id), "")


def get(inbox: Path, job_id: str) -> InboxJob | None:
    """The job with this id, if it is in the inbox. Raises StorageError, also if the inbox is missing."""
    return next((job for job in jobs(inbox) if job.id == job_id), None)


def jobs(inbox: Path) -> Iterator[InboxJob]:
    """The jobs with an id whose files are directly in the inbox. Links are not followed.

    Raises:
        StorageError: The inbox cannot be read.
    """
    looked = 0
    with opened(inbox) as folder, files.storage(inbox), os.scandir(folder) as items:
        for item in items:
            if suffix_of(item.name) not in SETTINGS_SUFFIXES:
                continue
            looked += 1
            if looked > MOST_OPENED:
                break
            if not item.is_file(follow_symlinks=False):
                continue
            head, appeared = _head(item.name, folder)
            found = _ID.search(head)
            if found and not ignored(item.name):
                name = job_name("", stem_of(item.name))
                yield InboxJob(found["id"].decode(), name, item.name, appeared)


def settings_of(job: InboxJob, inbox: Path, max_bytes: int) -> JobSettings:
    """What the settings file of a job says; nothing if it is invalid or has just been taken."""
    try:
        with files.folder_of(inbox, job.file) as (folder, name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        values = read_settings(inbox, job.file, files.fingerprint(status), max_bytes)
        return JobSettings.parse(values, job.file)
    except (OSError, InputError, ChangedMeanwhile):
        return JobSettings()


def pictures_of(job: InboxJob, inbox: Path) -> list[tuple[Role, str]]:
    """The role and the name of each picture of a job in the inbox, as in the ledger later. Raises StorageError."""
    stem = stem_of(job.file)
    found = []
    with files.storage(inbox):
        names = [path.name for path in inbox.iterdir()]
    for name in names:
        part = IN_PAIR.fullmatch(stem_of(name))
        if part and part["stem"] == stem and suffix_of(name) in IMAGE_SUFFIXES:
            word = re.sub(r"[-_]?\d+", "", part.group(0)[len(stem) + 1 :].lower())
            found.append((Role(re.sub("[._]", "-", word)), name))
    return sorted(found, key=lambda file: (list(Role).index(file[0]), natural_key(file[1])))


def _head(name: str, folder: int) -> tuple[bytes, float]:
    """The first bytes of a regular file and when it came into the folder; b"" and 0.0 if it cannot be read."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=folder)
        try:
            return os.read(descriptor, _HEAD_BYTES), os.fstat(descriptor).st_ctime
        finally:
            os.close(descriptor)
    except OSError:
        return b"", 0.0
