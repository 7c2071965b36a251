"""The data types of the intake: files that were seen, what they mean, and what is requested from them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nst_daemon.errors import SettingsError
from nst_daemon.jobs import BatchCell, Fingerprint, Role
from nst_daemon.names import composed, printable
from nst_daemon.pictures.formats import titles
from nst_daemon.suggestions import similar

SETTINGS_SUFFIXES = frozenset({".yaml", ".yml"})
#: Suffixes of placeholders: cloud clients show them for files that are not on the computer.
PLACEHOLDER_SUFFIXES = frozenset(
    {
        *(".nextcloud", ".owncloud", ".icloud", ".rsls", ".rslsv", ".cloud", ".cloudf"),
        *(".gdoc", ".gsheet", ".gslides", ".gdraw", ".gform", ".gmap", ".gsite", ".glink"),
    }
)
#: The most pictures that are blended into the style of one job.
MAX_STYLE_PICTURES = 32
#: Limits of `priority`.
MAX_PRIORITY = 1000

#: How a job came about; "order": two pictures without roles, paired by their order (`service.pair_by_order`).
Source = Literal[
    "pair", "order", "folder", "hot", "default", "named", "batch", "batch-file", "refused"
]
#: What the path of a `Drop` is relative to. Only originals in "inbox" are removed; "anywhere" is `ANYWHERE`.
Root = Literal["inbox", "styles", "failed", "anywhere"]
ANYWHERE = Path("/")


def suffix_of(name: str) -> str:
    """The suffix of a file name in lower case, with its dot; "" if there is none."""
    _, dot, suffix = name.rpartition(".")
    return (dot + suffix).lower() if dot else ""


def stem_of(name: str) -> str:
    """A file name without its suffix, in composed form (NFC)."""
    stem, dot, suffix = name.rpartition(".")
    return composed(stem if dot else suffix)


#: What other kinds of files are, and how to get a picture from them.
_KINDS = {
    "an archive; unpack it and drop the pictures": "zip rar 7z tar gz tgz bz2 xz zst",
    "a video; save one of its frames as a picture": "mp4 mov avi mkv webm m4v mpg mpeg wmv flv mts 3gp",
    "a document; save the page as a picture": "pdf doc docx odt ppt pptx odp xls xlsx ods rtf pages key",
    "a vector drawing; export it as PNG": "svg svgz eps ai cdr wmf emf ps",
    "a JSON file; settings are written in NAME.yaml": "json",
}
_KIND_OF = {f".{suffix}": what for what, suffixes in _KINDS.items() for suffix in suffixes.split()}
_USUAL_SUFFIXES = ("jpeg", "tiff", "webp", "heic", "avif", "png", "jpg")


def unknown_kind(name: str) -> str:
    """The message for a file whose suffix is not that of an image."""
    label, suffix, stem = printable(name), suffix_of(name), stem_of(name)
    if not suffix:
        return f"{label} has no suffix; add the one of its format, such as .jpg"
    if what := _KIND_OF.get(suffix, ""):
        return f"{label} is {what}"
    if suffix == ".txt" and suffix_of(stem) in SETTINGS_SUFFIXES:
        return f"{label} is a text file; did you mean {printable(stem)}?"
    if suffix == ".batch":
        return f"{label} is not an image file; did you mean {label}.yaml?"
    close = similar(suffix[1:], _USUAL_SUFFIXES, cutoff=0.75) if len(suffix) > 4 else ()
    if close:
        return f"{label} is not an image file; did you mean {printable(stem)}.{close[0]}?"
    return f"{label} is not an image file; known formats are {titles()}"


def not_ours(entry: Entry) -> str:
    """Why a file is left in the inbox, in one line."""
    if entry.problem:
        return entry.problem
    if entry.suffix in PLACEHOLDER_SUFFIXES:
        label = printable(entry.name)
        return (
            f"{label} is a placeholder of a cloud client; make the file available on this computer"
        )
    return unknown_kind(entry.name)


def empty_picture(name: str) -> str:
    """The message for an image file without any bytes."""
    return (
        f"{printable(name)} is empty: an interrupted copy, or a placeholder of a cloud client; "
        "copy the file again"
    )


def too_many_pictures(number: int, name: str) -> str:
    """The message for a job with more than MAX_STYLE_PICTURES style pictures."""
    return (
        f"the style of {name} has {number} pictures, and at most {MAX_STYLE_PICTURES} are blended; "
        "remove some of them"
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the inbox as a scan saw it.

    path: below the inbox, with "/" between its parts and undecodable bytes as surrogates; age: seconds since the
    file's ctime, for `pair_timeout`, less for old files that were first seen a moment ago; problem: why the file can
    never be used, "" in the normal case; name: the last part of the path; suffix: in lower case, with its dot.
    """

    path: str
    fingerprint: Fingerprint
    settled: bool
    age: float
    problem: str = ""
    name: str = field(init=False, compare=False)
    suffix: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        name = self.path.rpartition("/")[2]
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "suffix", suffix_of(name))

    @property
    def stem(self) -> str:
        """The name without its suffix, in composed form."""
        return stem_of(self.name)

    @property
    def empty(self) -> bool:
        """Whether it is a regular file without bytes."""
        return self.fingerprint.size == 0 and not self.problem


@dataclass(frozen=True, slots=True)
class Drop:
    """A file of a request.

    path: relative to `root`; fingerprint: of the version that may be copied; origin: for a file in failed/ the path
    that it had in the inbox.
    """

    role: Role
    path: str
    fingerprint: Fingerprint
    root: Root = "inbox"
    origin: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Style:
    """A style of the library.

    name: as requests name it; pictures: one, or those of a folder in natural order of their names; settings: those of
    NAME.yaml; problem: why the style cannot be used, "" in the normal case; settled: False while files still change;
    settings_file: NAME.yaml, or "" if it has none.
    """

    name: str
    pictures: tuple[Drop, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""
    settled: bool = True
    settings_file: str = ""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The contents of `NAME.yaml` or `job.yaml`: library styles by name, a priority, an id and settings.

    The settings are those of the painting, and format, depth and quality of the picture. label: the printable name of
    the file, for messages; job_id: the id that the job gets, "" for a new one.
    """

    styles: tuple[str, ...] = ()
    priority: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    job_id: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any], label: str) -> JobSettings:
        """Split a settings file into the inbox's own keys (`style`, `priority`, `id`) and the other settings.

        Raises SettingsError. The other settings are checked by `job_settings.resolve_job`. label: printable file name.
        """
        settings = dict(values)
        styles = settings.pop("style", [])
        styles = [styles] if isinstance(styles, str) else styles
        if not isinstance(styles, list) or not all(isinstance(style, str) for style in styles):
            raise SettingsError(
                f"{label}: style must be the name of a style in the library, or a list of names"
            )
        priority = checked_priority(settings.pop("priority", 0), label)
        job_id = settings.pop("id", "")
        if "id" in values and not is_job_id(job_id):
            raise SettingsError(
                f"{label}: id must be 32 hex digits (0-9, a-f)",
                remedy="remove it: the job gets a new id; quote an id that has no letter",
            )
        return cls(tuple(styles), priority, settings, label, job_id)

    @classmethod
    def changes(cls, values: Mapping[str, Any]) -> JobSettings:
        """The changed settings of a retry. Raises SettingsError."""
        if "id" in values:
            raise SettingsError("the changes: a job keeps its id", remedy="remove id")
        return cls.parse(values, "the changes")


def new_job_id() -> str:
    """An id that no other job has."""
    return uuid.uuid4().hex


def is_job_id(value: object) -> bool:
    """Whether a value has the form of a job's id."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


def checked_priority(value: object, label: str) -> int:
    """`value` if it is a valid priority. Raises SettingsError."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_PRIORITY:
        raise SettingsError(
            f"{label}: priority must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    return value


@dataclass(frozen=True, slots=True)
class Rejection:
    """Files that cannot become a job. name: where they go below failed/; reason: one line with the remedy.

    job_id: as in `Request`.
    """

    name: str
    source: Source
    group: str
    files: tuple[Drop, ...]
    reason: str
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A job to be claimed. The fields are those of `Job`; `files` are the files to copy.

    settings: of the drop, or resolved; those of the drop hold the outputs too (`OUTPUT_KEYS`); places: the settings
    file of each, for messages; job_id: the id that the settings file asks for, "" for a new one.
    """

    name: str
    source: Source
    group: str
    files: tuple[Drop, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    priority: int = 0
    identity: str = ""
    batch: BatchCell | None = None
    outputs: Mapping[str, object] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    job_id: str = ""

    @property
    def own_settings(self) -> Mapping[str, object]:
        """The settings of the job's own file, without those of the library's styles."""
        styles = {key for key, place in self.places.items() if place.startswith("styles/")}
        return {key: value for key, value in self.settings.items() if key not in styles}

    @property
    def style_pictures(self) -> int:
        """The number of style pictures."""
        return sum(file.role is Role.STYLE for file in self.files)

    @property
    def is_batch_file(self) -> bool:
        """Whether this asks for all pictures of a batch."""
        return self.source == "batch-file"

    def refuse(self, reason: str) -> Rejection:
        """The rejection of this request; files outside of the inbox are not part of it."""
        own = tuple(file for file in self.files if file.root == "inbox")
        return Rejection(self.name, self.source, self.group, own, reason, self.job_id)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Settled files that cannot be painted yet.

    Attributes:
        name: of the job.
        paths: of the files, below the inbox.
        cause: what is missing or wrong, in one clause.
        remedy: what to do about it, with the exact names of files.
        left: seconds until they are rejected, or painted without the missing file.
        announced: False while the log does not mention them: another file may arrive at any moment.
    """

    name: str
    paths: tuple[str, ...]
    cause: str
    remedy: str
    left: float
    announced: bool = True

    @property
    def text(self) -> str:
        """Cause and remedy in one line."""
        return f"{self.cause}: {self.remedy}"


@dataclass(slots=True)
class Outcome:
    """The meaning of the files of one or more folders.

    settling: paths that may still change; left_alone: paths of files that stay where they are, each with the reason.
    """

    requests: list[Request] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    settling: list[str] = field(default_factory=list)
    left_alone: dict[str, str] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Append the contents of another outcome."""
        self.requests += other.requests
        self.rejections += other.rejections
        self.waiting += other.waiting
        self.settling += other.settling
        self.left_alone |= other.left_alone
