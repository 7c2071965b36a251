"""What do the files in a folder of the inbox mean? Names and facts in, requests and rejections out; no disk, no clock.

    dog.content.jpg + dog.style.png (+ dog.yaml)     a pair, by stem; "_" and "-" separate as well
    dog.content.jpg + dog.style-1.png + dog.style-2.png   several styles blended
    wedding/ with content.*, style.* (+ job.yaml)    a job folder, which settles as a whole
    starry/ with any pictures                        a hot folder, where the library has a style "starry": a picture of
                                                     that name, or a folder whose pictures are blended
    dog.jpg (+ dog.yaml)                             in the style that dog.yaml names, or the default style
    night.batch.yaml                                 a batch, handed on

Any other folder is an inbox of its own, whose results go to a folder of the same name. Masks are named
`dog.content.mask.png`, `dog.style.mask.png` and `dog.style-2.mask.png`, a given start `dog.start.png`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nst_daemon.errors import SettingsError
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.intake.sidecar import Sidecar
from nst_daemon.jobs import Fingerprint, Role
from nst_daemon.names import clean_name, composed, printable

#: Suffixes of the formats that the decoder takes.
PICTURES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
        *(".heic", ".heif", ".hif", ".avif"),
    }
)
SETTINGS = frozenset({".yaml", ".yml"})
#: The most pictures that are blended into the style of one job.
MOST_STYLES = 32

WAYS = (
    "name a pair NAME.content.jpg and NAME.style.jpg, or put content.jpg and style.jpg into a folder, "
    "or put a picture into the folder of a style, or set default_style"
)

MASK_WAYS = "drop a mask for each style, with or without one for the content, or no mask at all"

_ROLE = r"(?P<role>content|style|content[._-]mask|style(?:[-_]?(?P<number>\d{1,3}))?(?P<mask>[._-]mask)?|start)"
_IN_PAIR = re.compile(rf"(?P<stem>.+)[._-]{_ROLE}", re.IGNORECASE | re.DOTALL)
_BARE = re.compile(_ROLE, re.IGNORECASE)

_ORDER = {role: place for place, role in enumerate(Role)}

Source = Literal["pair", "folder", "hot", "default", "named", "batch", "refused"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the inbox as a scan saw it.

    path: below the inbox, "/" between its parts, undecodable bytes as surrogates; age: seconds since it was changed
    (its ctime), for the timeout of pairs; problem: why it can never be taken, for people, "" in the normal case.
    """

    path: str
    fingerprint: Fingerprint
    settled: bool
    age: float
    problem: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix, composed (`composed`)."""
        stem, dot, suffix = self.name.rpartition(".")
        return composed(stem if dot else suffix)

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot; "" where there is none."""
        _, dot, suffix = self.name.rpartition(".")
        return (dot + suffix).lower() if dot else ""


@dataclass(frozen=True, slots=True)
class Drop:
    """A file of a request. root: what `path` is below; only what is in the inbox leaves it ("anywhere" is "/")."""

    role: Role
    path: str
    fingerprint: Fingerprint
    root: Literal["inbox", "styles", "anywhere"] = "inbox"


@dataclass(frozen=True, slots=True)
class Style:
    """A style of the library: its picture, or those of its folder by name, the settings beside it, and why it cannot
    be used, if so.
    """

    pictures: tuple[Drop, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Files that will never be a job. name: where they go below failed/; reason: one line with the remedy."""

    name: str
    source: Source
    group: str
    files: tuple[Drop, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Request:
    """A job that the inbox, or a batch, asks for. The fields are those of `Job`; `files` are what to claim."""

    name: str
    source: Source
    group: str
    files: tuple[Drop, ...]
    settings: Mapping[str, object] = field(default_factory=dict)
    priority: int = 0
    identity: str = ""

    def refuse(self, reason: str) -> Rejection:
        """The same files as something that cannot be done; what is in the library is not touched."""
        own = tuple(file for file in self.files if file.root == "inbox")
        return Rejection(self.name, self.source, self.group, own, reason)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Settled files that need another one. left: seconds until they are given up."""

    name: str
    paths: tuple[str, ...]
    reason: str
    left: float


@dataclass(slots=True)
class Outcome:
    """What the files of one folder, or of many, amount to. settling: paths that are still being written."""

    requests: list[Request] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    settling: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the meaning of a drop depends on.

    styles: the settled library by name (`composed`); unsettled: names of styles that are still being copied;
    pair_timeout: seconds; read_sidecar: reads a settled settings file, raises SettingsError or ChangedMeanwhile.
    """

    styles: Mapping[str, Style]
    read_sidecar: Callable[[Entry], Sidecar]
    unsettled: frozenset[str] = frozenset()
    default_style: str = ""
    pair_timeout: float = 3600.0


def interpret(folder: str, entries: Sequence[Entry], settled: bool, rules: Rules) -> Outcome:
    """Interpret the files directly in one folder of the inbox ("" for the inbox itself).

    settled: whether the folder itself has been quiet (no name came or went).
    """
    top = composed(folder.partition("/")[0])
    if top and (top in rules.styles or top in rules.unsettled):
        return _hot_folder(folder, entries, top, rules)
    if folder and any(_marks_job_folder(entry) for entry in entries):
        return _job_folder(folder, entries, settled, rules)
    return _loose(folder, entries, rules)


@dataclass(frozen=True, slots=True)
class _Part:
    """A file and what its name says: its role, the number of its style (0 where it has none)."""

    entry: Entry
    role: Role
    number: int = 0


@dataclass(slots=True)
class _Set:
    """Files that belong together. style: the hot folder's, or the default one, "" where neither applies."""

    name: str
    group: str
    source: Source
    parts: list[_Part]
    style: str = ""

    def of(self, role: Role) -> list[_Part]:
        return sorted(
            (part for part in self.parts if part.role is role), key=lambda part: part.number
        )

    @property
    def masked(self) -> bool:
        """Whether there are masks."""
        return any(part.role in {Role.CONTENT_MASK, Role.STYLE_MASK} for part in self.parts)


# Three kinds of folders


def _loose(folder: str, entries: Sequence[Entry], rules: Rules) -> Outcome:
    """Pairs, lone pictures and batch files."""
    group = folder.partition("/")[0]
    by_stem: dict[str, list[_Part]] = defaultdict(list)
    lone: dict[str, list[_Part]] = defaultdict(list)
    sets: list[_Set] = []
    for entry in entries:
        stem = entry.stem
        match = _IN_PAIR.fullmatch(stem)
        if entry.suffix in SETTINGS:
            if stem.lower().endswith(".batch"):
                sets.append(
                    _Set(_join(folder, stem[:-6]), group, "batch", [_Part(entry, Role.BATCH)])
                )
            else:
                by_stem[stem].append(_Part(entry, Role.SETTINGS))
        elif match:
            by_stem[composed(match["stem"])].append(_part(entry, match))
        elif entry.suffix in PICTURES or entry.problem:
            lone[stem].append(_Part(entry, Role.CONTENT))
        else:
            sets.append(_Set(_join(folder, stem), group, "refused", [_Part(entry, Role.UNKNOWN)]))
    for stem, pictures in lone.items():
        companions = by_stem.get(stem, [])
        if companions:
            # dog.jpg beside dog.style.png or dog.yaml can only be the content.
            companions.extend(pictures)
        else:
            name, default = _join(folder, stem), rules.default_style
            sets.extend(_Set(name, group, "default", [picture], default) for picture in pictures)
    for stem, parts in by_stem.items():
        alone = all(part.role is Role.SETTINGS or part in lone.get(stem, []) for part in parts)
        style = rules.default_style if alone else ""
        sets.append(_Set(_join(folder, stem), group, "default" if alone else "pair", parts, style))
    return _judge_all(sets, rules)


def _hot_folder(folder: str, entries: Sequence[Entry], style: str, rules: Rules) -> Outcome:
    """Every picture is a job of its own, in the style that the folder is named after."""
    by_stem: dict[str, list[_Part]] = defaultdict(list)
    for entry in entries:
        settings = entry.suffix in SETTINGS
        by_stem[entry.stem].append(_Part(entry, Role.SETTINGS if settings else Role.CONTENT))
    sets: list[_Set] = []
    for stem, parts in by_stem.items():
        name = _join(folder, stem)
        if any(part.role is Role.SETTINGS for part in parts):
            sets.append(_Set(name, style, "hot", parts, style))
        else:
            sets.extend(_Set(name, style, "hot", [part], style) for part in parts)
    return _judge_all(sets, rules)


def _job_folder(folder: str, entries: Sequence[Entry], settled: bool, rules: Rules) -> Outcome:
    """One job, which begins when everything in the folder is quiet."""
    if not settled:
        return Outcome(settling=[folder])
    parts = []
    for entry in entries:
        match = _BARE.fullmatch(entry.stem)
        if _is_job_settings(entry):
            parts.append(_Part(entry, Role.SETTINGS))
        elif match:
            parts.append(_part(entry, match))
        else:
            parts.append(_Part(entry, Role.UNKNOWN))
    parent, _, name = folder.rpartition("/")
    group = parent.partition("/")[0]
    return _judge_all([_Set(_join(parent, name), group, "folder", parts)], rules)


# One set of files


def _judge_all(sets: Iterable[_Set], rules: Rules) -> Outcome:
    outcome = Outcome()
    for files in sets:
        _judge(files, rules, outcome)
    return outcome


def _judge(files: _Set, rules: Rules, outcome: Outcome) -> None:
    """Decide what one set amounts to, and add that to the outcome."""
    unsettled = [part.entry.path for part in files.parts if not part.entry.settled]
    if unsettled:
        outcome.settling.extend(unsettled)
        return
    reason = _fault(files)
    sidecar = Sidecar()
    if not reason and files.source != "batch":
        try:
            for part in files.of(Role.SETTINGS):
                sidecar = rules.read_sidecar(part.entry)
        except SettingsError as error:
            reason = str(error)
        except ChangedMeanwhile:
            outcome.settling.extend(part.entry.path for part in files.parts)
            return
    names = [files.style] if files.source == "hot" else []
    names += map(composed, sidecar.styles)
    if not names and files.style:
        names = [composed(files.style)]
    if any(name in rules.unsettled for name in names):
        outcome.settling.extend(part.entry.path for part in files.parts)
        return
    reason = reason or _style_fault(files, names, rules) or _mask_fault(files, names)
    if reason:
        outcome.rejections.append(_request(files, [], sidecar).refuse(reason))
        return
    missing = _missing(files, bool(names))
    if not missing:
        styles = [rules.styles[name] for name in names]
        outcome.requests.append(_request(files, styles, sidecar))
        return
    left = rules.pair_timeout - min(part.entry.age for part in files.parts)
    if left > 0:
        paths = tuple(part.entry.path for part in files.parts)
        outcome.waiting.append(Waiting(files.name, paths, missing, left))
    else:
        remedy = MASK_WAYS if files.masked else WAYS
        refusal = f"{missing} within {rules.pair_timeout / 60:g} minutes; {remedy}"
        outcome.rejections.append(_request(files, [], sidecar).refuse(refusal))


def _request(files: _Set, styles: Sequence[Style], sidecar: Sidecar) -> Request:
    """The request for a set, its content first, then its own styles, then those of the library."""
    own = sorted(files.parts, key=lambda part: (_ORDER[part.role], part.number))
    drops = [Drop(part.role, part.entry.path, part.entry.fingerprint) for part in own]
    settings: dict[str, object] = {}
    for style in styles:
        settings |= style.settings
    settings |= sidecar.settings
    counts = [1] * len(files.of(Role.STYLE)) + [len(style.pictures) for style in styles]
    settings |= _spread(settings.get("style_weights"), counts)
    source: Source = files.source
    if source == "default" and sidecar.styles:
        source = "named"
    return Request(
        name=files.name,
        source=source,
        group=files.group,
        files=(*drops, *(picture for style in styles for picture in style.pictures)),
        settings=settings,
        priority=sidecar.priority,
    )


def _spread(weights: object, counts: Sequence[int]) -> Mapping[str, object]:
    """`style_weights` picture by picture, where styles of so many pictures each were given theirs, or equal ones.

    What fits neither the styles nor anything else is left for the engine to refuse.
    """
    if len(counts) > 1 and max(counts) > 1:
        weights = weights or [1.0] * len(counts)
    numbers = isinstance(weights, list) and all(isinstance(w, int | float) for w in weights)
    if not isinstance(weights, list) or not numbers or len(weights) != len(counts):
        return {}
    shares = zip(weights, counts, strict=True)
    return {"style_weights": [w / count for w, count in shares for _ in range(count)]}


def _fault(files: _Set) -> str:
    """Why these files can never be a job, "" where they can."""
    for part in files.parts:
        if part.entry.problem:
            return part.entry.problem
    seen: dict[tuple[Role, int], Entry] = {}
    for part in files.parts:
        label = part.entry.name
        if part.role is Role.UNKNOWN and files.source == "folder":
            return (
                f"{printable(label)} has no meaning in a job folder; "
                "it holds content.*, style.* (or style-1.*, style-2.*, …) and job.yaml"
            )
        if part.role not in {Role.SETTINGS, Role.BATCH} and part.entry.suffix not in PICTURES:
            known = ", ".join(sorted(suffix[1:] for suffix in PICTURES))
            return f"{printable(label)} is no picture by its name; known are {known}"
        other = seen.setdefault((part.role, part.number), part.entry)
        if other is not part.entry:
            what = f"style {part.number}" if part.number else part.role.value
            names = f"{printable(other.name)} and {printable(label)}"
            return f"{names} are both the {what} of {files.name}; drop only one of them"
    return ""


def _style_fault(files: _Set, names: Sequence[str], rules: Rules) -> str:
    """What is wrong with the library's styles of these names, or with the number of pictures of all styles."""
    for name in names:
        if name not in rules.styles:
            known = ", ".join(sorted(map(printable, rules.styles))) or "none"
            return f"there is no style {printable(name)!r} in the library; there are: {known}"
        if rules.styles[name].problem:
            return f"the style {printable(name)} cannot be used: {rules.styles[name].problem}"
    number = len(files.of(Role.STYLE)) + sum(len(rules.styles[name].pictures) for name in names)
    if number > MOST_STYLES:
        return (
            f"{number} pictures are the style of {files.name}, and at most {MOST_STYLES} are blended; "
            "choose some of them"
        )
    return ""


def _mask_fault(files: _Set, named: Sequence[str]) -> str:
    """Masks belong to styles that come with them: of those in the library nobody has drawn any."""
    if not files.masked or not named:
        return ""
    return (
        f"{files.name} has masks, and its style {printable(named[0])} from the library has none; "
        "drop the style with its mask beside them"
    )


def _missing(files: _Set, style_named: bool) -> str:
    """What a set still lacks, in words that "within 60 minutes" can follow."""
    label = printable(files.parts[0].entry.name)
    if files.source == "batch":
        return ""
    if not files.of(Role.CONTENT):
        return f"no content came for {label}"
    if style_named:
        return ""
    if not files.of(Role.STYLE):
        if files.source == "default":
            return f"nothing said in which style {label} is to be painted"
        return f"no style came for {label}"
    return _missing_mask(files, label) if files.masked else ""


def _missing_mask(files: _Set, label: str) -> str:
    """The first style without a mask, or mask without a style, in the same words."""
    styles, masks = (
        {part.number for part in files.of(role)} for role in (Role.STYLE, Role.STYLE_MASK)
    )
    for number in sorted(styles ^ masks):
        what = "style mask" if number in styles else "style"
        return f"no {what}{f' {number}' if number else ''} came for {label}"
    return ""


# Names


def _part(entry: Entry, match: re.Match[str]) -> _Part:
    word = match["role"].lower()
    if word == "start":
        return _Part(entry, Role.START)
    if word.startswith("content"):
        return _Part(entry, Role.CONTENT if word == "content" else Role.CONTENT_MASK)
    return _Part(entry, Role.STYLE_MASK if match["mask"] else Role.STYLE, int(match["number"] or 0))


def _marks_job_folder(entry: Entry) -> bool:
    match = _BARE.fullmatch(entry.stem)
    is_half = match is not None and entry.suffix in PICTURES and match["role"].lower() != "start"
    return is_half or _is_job_settings(entry)


def _is_job_settings(entry: Entry) -> bool:
    return entry.suffix in SETTINGS and entry.stem.lower() == "job"


def _join(folder: str, stem: str) -> str:
    """The name of a job: its path below the inbox, made safe for use below results/."""
    return "/".join(clean_name(part) for part in (*folder.split("/"), stem) if part)
