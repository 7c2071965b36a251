"""What the name of a dropped file says: its stem and its role, and the set of files that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nst_daemon.intake.drops import SETTINGS_SUFFIXES, Entry, Source
from nst_daemon.jobs import Role
from nst_daemon.names import clean_name
from nst_daemon.pictures.formats import IMAGE_SUFFIXES, RAW_SUFFIXES

_ROLE = r"(?P<role>content|style|content[._-]mask|style(?:[-_]?(?P<number>\d{1,3}))?(?P<mask>[._-]mask)?|start)"
#: The stem of a file of a pair, and of a file in a job folder.
IN_PAIR = re.compile(rf"(?P<stem>.+)(?P<separator>[._-]){_ROLE}", re.IGNORECASE | re.DOTALL)
BARE = re.compile(_ROLE, re.IGNORECASE)
#: Suffixes of other kinds of files. Anything longer or with other characters is a temporary name.
_OTHER_KIND = re.compile(r"\.[a-z0-9]{1,5}")
MASKS = frozenset({Role.CONTENT_MASK, Role.STYLE_MASK})


@dataclass(frozen=True, slots=True)
class DropPart:
    """A file and what its name says.

    number: of its style, 0 for none; explicit: False if the role follows "_" or "-", as in free_style.jpg, so that
    it may as well be a part of the picture's own name.
    """

    entry: Entry
    role: Role
    number: int = 0
    explicit: bool = True

    @property
    def is_image(self) -> bool:
        """Whether the file has the suffix of an image file."""
        return self.entry.suffix in IMAGE_SUFFIXES

    @property
    def is_raw(self) -> bool:
        """Whether the file has the suffix of a camera raw file."""
        return self.entry.suffix in RAW_SUFFIXES


@dataclass(slots=True)
class DropSet:
    """Files that belong together.

    Attributes:
        name: of the job.
        group: of the job.
        source: how the files were dropped.
        parts: the files.
        style: that of the hot folder, or the default style, or "".
        folder: path below the inbox; of a job folder, its own path.
        stem: what the names of the files have in common; "" in a job folder.
        plain: whether the name of its picture has no role, as in dog.jpg.
    """

    name: str
    group: str
    source: Source
    parts: list[DropPart]
    style: str = ""
    folder: str = ""
    stem: str = ""
    plain: bool = False

    def of(self, role: Role) -> list[DropPart]:
        """The files of a role, in the order of their numbers."""
        found = [part for part in self.parts if part.role is role]
        return sorted(found, key=lambda part: part.number) if len(found) > 1 else found

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the files, below the inbox."""
        return tuple(part.entry.path for part in self.parts)

    @property
    def masked(self) -> bool:
        """Whether there are masks."""
        return any(part.role in MASKS for part in self.parts)

    @property
    def age(self) -> float:
        """Seconds since the newest of the files changed."""
        return min([part.entry.age for part in self.parts])


def part_of(entry: Entry, match: re.Match[str]) -> DropPart:
    """A file whose stem matches `IN_PAIR` or `BARE`."""
    word = match["role"].lower()
    # In a job folder there is no separator. Names of masks are never a coincidence.
    explicit = match.groupdict().get("separator", ".") == "." or word.endswith("mask")
    if word == "start":
        return DropPart(entry, Role.START, 0, explicit)
    if word.startswith("content"):
        role = Role.CONTENT if word == "content" else Role.CONTENT_MASK
        return DropPart(entry, role, 0, explicit)
    role = Role.STYLE_MASK if match["mask"] else Role.STYLE
    return DropPart(entry, role, int(match["number"] or 0), explicit)


def may_be_ours(entry: Entry) -> bool:
    """Whether a file whose name has a role is of a known kind, or of another kind that is refused by name."""
    return entry.suffix in IMAGE_SUFFIXES or _OTHER_KIND.fullmatch(entry.suffix) is not None


def marks_job_folder(entry: Entry) -> bool:
    """Whether a folder that contains this file is a job folder."""
    match = BARE.fullmatch(entry.stem)
    if match and match["role"].lower() != "start":
        return entry.suffix in IMAGE_SUFFIXES
    return is_job_settings(entry)


def is_job_settings(entry: Entry) -> bool:
    """Whether the file is the job.yaml of a job folder."""
    return entry.suffix in SETTINGS_SUFFIXES and entry.stem.lower() == "job"


def belong_together(parts: Iterable[DropPart], pictures: Iterable[DropPart]) -> bool:
    """Whether files whose names have this stem and a role are parts of one job, and not pictures by themselves.

    race-start.jpg and free_style.jpg are names that photos have. The role counts if it follows a dot, as in
    race.start.jpg, if another part of the same stem leaves no doubt, or if there are both a content and a style.
    """
    parts = list(parts)
    roles = {part.role for part in (*parts, *pictures)}
    return any(part.explicit for part in parts) or {Role.CONTENT, Role.STYLE} <= roles


def group_of(folder: str) -> str:
    """The group of a job: a folder of the inbox, as valid Unicode; "" for the inbox itself."""
    return clean_name(folder) if folder else ""


def job_name(folder: str, stem: str) -> str:
    """The name of a job: a safe path below results/."""
    return "/".join(clean_name(part) for part in (*folder.split("/"), stem) if part)
