"""The meaning of the files in a folder of the inbox: from names and facts to requests and rejections, without I/O.

    dog.content.jpg + dog.style.png (+ dog.yaml)     a pair, by stem
    dog_content.jpg + dog-style.png                  the same; each alone is only a picture
    dog.content.jpg + dog.style-1.png + dog.style-2.png   several blended styles
    wedding/ with content.*, style.* (+ job.yaml)    a job folder, which settles as a whole
    starry/ with any pictures                        a hot folder, if the library has a style "starry"
    dog.jpg (+ dog.yaml)                             in the style that dog.yaml names, or the default style
    night.batch.yaml                                 a batch, which is not read here

Any other folder works like the inbox itself, and its results go to a folder of the same name. Masks are named
`dog.content.mask.png`, `dog.style.mask.png` and `dog.style-2.mask.png`, an initial image `dog.start.png`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nst_daemon.errors import SettingsError
from nst_daemon.intake.batch import SUFFIX, name_fault
from nst_daemon.intake.drops import (
    MAX_STYLE_PICTURES,
    SETTINGS_SUFFIXES,
    Drop,
    Entry,
    JobSettings,
    Outcome,
    Request,
    Source,
    Style,
    Waiting,
    empty_picture,
    not_ours,
    too_many_pictures,
    unknown_kind,
)
from nst_daemon.intake.library import merge_settings, style_problem
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.jobs import Role
from nst_daemon.names import clean_name, composed, printable
from nst_daemon.pictures.formats import IMAGE_SUFFIXES, RAW_SUFFIXES
from nst_daemon.unexpected import explain_one
from nst_daemon.units import duration

WAYS = (
    "name a pair NAME.content.jpg and NAME.style.jpg, or put content.jpg and style.jpg into a folder, "
    "or put a picture into the folder of a style, or set default_style"
)

MASK_WAYS = "drop a mask for each style, with or without one for the content, or no mask at all"

_ROLE = r"(?P<role>content|style|content[._-]mask|style(?:[-_]?(?P<number>\d{1,3}))?(?P<mask>[._-]mask)?|start)"
_IN_PAIR = re.compile(rf"(?P<stem>.+)(?P<separator>[._-]){_ROLE}", re.IGNORECASE | re.DOTALL)
_BARE = re.compile(_ROLE, re.IGNORECASE)
#: Suffixes of other kinds of files. Anything longer or with other characters is a temporary name.
_OTHER_KIND = re.compile(r"\.[a-z0-9]{1,5}")

_ORDER = {role: place for place, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Rules:
    """What the meaning of a drop depends on.

    styles: the library by name (in composed form); read_settings: reads a settled settings file, raises SettingsError
    or ChangedMeanwhile; default_style: the name of a style, or ""; pair_timeout: seconds; partner_grace: seconds that
    a picture such as free_style.jpg waits for free.jpg or free_content.jpg, before it takes the default style.
    """

    styles: Mapping[str, Style]
    read_settings: Callable[[Entry], JobSettings]
    default_style: str = ""
    pair_timeout: float = 3600.0
    partner_grace: float = 0.0
    #: What a job without a settings file has.
    without_file: JobSettings = JobSettings()


def interpret(folder: str, entries: Sequence[Entry], settled: bool, rules: Rules) -> Outcome:
    """Decide what the files directly in one folder are.

    Args:
        folder: path below the inbox, "" for the inbox itself.
        entries: the files.
        settled: whether the folder itself has settled: no name was added or removed.
        rules: what else the meaning depends on.

    Returns:
        Every file is part of exactly one request, rejection or waiting set, or is settling, or is left alone.
    """
    top = composed(folder.partition("/")[0])
    if top in rules.styles:
        return _hot_folder(folder, entries, top, rules)
    if folder and any(_marks_job_folder(entry) for entry in entries):
        return _job_folder(folder, entries, settled, rules)
    return _loose(folder, entries, rules)


@dataclass(frozen=True, slots=True)
class _Part:
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
class _Set:
    """Files that belong together. style: that of the hot folder, or the default style, or ""."""

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
    def paths(self) -> tuple[str, ...]:
        """The paths of the files, below the inbox."""
        return tuple(part.entry.path for part in self.parts)

    @property
    def masked(self) -> bool:
        """Whether there are masks."""
        return any(part.role in {Role.CONTENT_MASK, Role.STYLE_MASK} for part in self.parts)


# Three kinds of folders


def _loose(folder: str, entries: Sequence[Entry], rules: Rules) -> Outcome:
    """Pairs, single pictures and batch files."""
    outcome = Outcome()
    group = _group(folder.partition("/")[0])
    named: dict[str, list[_Part]] = defaultdict(list)
    single: dict[str, list[_Part]] = defaultdict(list)
    sets: list[_Set] = []
    for entry in entries:
        stem = entry.stem
        match = _IN_PAIR.fullmatch(stem)
        if entry.suffix in SETTINGS_SUFFIXES and stem.lower().endswith(".batch"):
            batch = [_Part(entry, Role.BATCH)]
            sets.append(_Set(_join(folder, stem[:-6]), group, "batch", batch))
        elif entry.suffix in SETTINGS_SUFFIXES:
            named[stem].append(_Part(entry, Role.SETTINGS))
        elif match and _may_be_ours(entry):
            named[composed(match["stem"])].append(_part(entry, match))
        elif entry.suffix in IMAGE_SUFFIXES:
            single[stem].append(_Part(entry, Role.CONTENT))
        else:
            _leave_alone([entry], outcome)
    # Shorter stems first: dog-start.jpg is either a part of "dog", or a picture that dog-start_style.jpg belongs to.
    for stem in sorted(named, key=len):
        parts, pictures = named[stem], single.get(stem, [])
        if not _belong_together(parts, pictures):
            for part in parts:
                if part.is_image:
                    picture = _Part(part.entry, Role.CONTENT, explicit=False)
                    single[part.entry.stem].append(picture)
                else:
                    _leave_alone([part.entry], outcome)
            continue
        single.pop(stem, None)
        # With dog.style.png or dog.yaml, dog.jpg can only be the content.
        alone = all(part.role is Role.SETTINGS for part in parts)
        style = rules.default_style if alone else ""
        parts = _with_unused([*parts, *pictures], outcome)
        sets.append(_Set(_join(folder, stem), group, "default" if alone else "pair", parts, style))
    for stem, pictures in single.items():
        name, default = _join(folder, stem), rules.default_style
        sets.extend(_Set(name, group, "default", [picture], default) for picture in pictures)
    outcome.add(_judge_all(sets, rules))
    return outcome


def _belong_together(parts: Sequence[_Part], pictures: Sequence[_Part]) -> bool:
    """Whether files whose names have this stem and a role are parts of one job, and not pictures by themselves.

    race-start.jpg and free_style.jpg are names that photos have. The role counts if it follows a dot, as in
    race.start.jpg, if another part of the same stem leaves no doubt, or if there are both a content and a style.
    """
    roles = {part.role for part in (*parts, *pictures)}
    return any(part.explicit for part in parts) or {Role.CONTENT, Role.STYLE} <= roles


def _may_be_ours(entry: Entry) -> bool:
    """Whether a file whose name has a role is of a known kind, or of another kind that is refused by name."""
    return entry.suffix in IMAGE_SUFFIXES or _OTHER_KIND.fullmatch(entry.suffix) is not None


def _with_unused(parts: Sequence[_Part], outcome: Outcome) -> list[_Part]:
    """The parts; files of another kind, and raw files, are unused beside an image file of the same role.

    Cameras write IMG_1.CR2 and IMG_1.JPG of one photo. One that cannot be copied, such as a link, is left alone.
    """
    filled = {(part.role, part.number) for part in parts if part.is_image and not part.is_raw}
    others = [
        part
        for part in parts
        if (part.is_raw or _is_other_kind(part)) and (part.role, part.number) in filled
    ]
    _leave_alone([part.entry for part in others if part.entry.problem], outcome)
    unused = [replace(part, role=Role.UNUSED) for part in others if not part.entry.problem]
    return [part for part in parts if part not in others] + unused


def _is_other_kind(part: _Part) -> bool:
    return part.role not in {Role.SETTINGS, Role.BATCH} and not part.is_image


def _leave_alone(entries: Iterable[Entry], outcome: Outcome) -> None:
    """Note files that are not ours. One that still changes is settling: it may be a copy that gets another name."""
    for entry in entries:
        if entry.settled:
            outcome.left_alone[entry.path] = not_ours(entry)
        else:
            outcome.settling.append(entry.path)


def _hot_folder(folder: str, entries: Sequence[Entry], style: str, rules: Rules) -> Outcome:
    """Every picture is a job, in the style with the name of the folder."""
    outcome = Outcome()
    by_stem: dict[str, list[_Part]] = defaultdict(list)
    for entry in entries:
        if entry.suffix in SETTINGS_SUFFIXES:
            by_stem[entry.stem].append(_Part(entry, Role.SETTINGS))
        elif entry.suffix in IMAGE_SUFFIXES:
            by_stem[entry.stem].append(_Part(entry, Role.CONTENT))
        else:
            _leave_alone([entry], outcome)
    sets: list[_Set] = []
    for stem, parts in by_stem.items():
        name, group = _join(folder, stem), _group(style)
        if any(part.role is Role.SETTINGS for part in parts):
            sets.append(_Set(name, group, "hot", _with_unused(parts, outcome), style))
        else:
            sets.extend(_Set(name, group, "hot", [part], style) for part in parts)
    outcome.add(_judge_all(sets, rules))
    return outcome


def _job_folder(folder: str, entries: Sequence[Entry], settled: bool, rules: Rules) -> Outcome:
    """One job, after everything in the folder has settled."""
    if not settled:
        return Outcome(settling=[folder])
    if unsettled := [entry.path for entry in entries if not entry.settled]:
        return Outcome(settling=unsettled)
    outcome = Outcome()
    parts = []
    for entry in entries:
        match = _BARE.fullmatch(entry.stem)
        if _is_job_settings(entry):
            parts.append(_Part(entry, Role.SETTINGS))
        elif match and _may_be_ours(entry):
            parts.append(_part(entry, match))
        elif entry.suffix in IMAGE_SUFFIXES | SETTINGS_SUFFIXES:
            parts.append(_Part(entry, Role.UNKNOWN))
        else:
            _leave_alone([entry], outcome)
    parent, _, name = folder.rpartition("/")
    group = _group(parent.partition("/")[0])
    parts = _with_unused(parts, outcome)
    outcome.add(_judge_all([_Set(_join(parent, name), group, "folder", parts)], rules))
    return outcome


# One set of files


def _judge_all(sets: Iterable[_Set], rules: Rules) -> Outcome:
    """The meaning of each set. An unexpected exception costs the set, and nothing else."""
    outcome = Outcome()
    for files in sets:
        found = Outcome()
        try:
            _judge(files, rules, found)
        except Exception as error:  # noqa: BLE001 (this drop is refused, and the next one is looked at)
            reason = explain_one(error)
            found = Outcome(rejections=[_request(files, [], JobSettings()).refuse(reason)])
        outcome.add(found)
    return outcome


def _judge(files: _Set, rules: Rules, outcome: Outcome) -> None:
    """Decide what one set is, and add that to the outcome."""
    unsettled = [part.entry.path for part in files.parts if not part.entry.settled]
    if unsettled:
        outcome.settling.extend(unsettled)
        return
    if all(part.is_image and part.entry.empty for part in files.parts):
        # Beside other parts of a job the decoder refuses it.
        for part in files.parts:
            outcome.left_alone[part.entry.path] = empty_picture(part.entry.name)
        return
    reason, job = _read_job(files, rules)
    if job is None:
        outcome.settling.extend(files.paths)
        return
    names = _style_names(files, job)
    if any(name in rules.styles and not rules.styles[name].settled for name in names):
        outcome.settling.extend(files.paths)
        return
    if files.source == "batch":
        entry = files.parts[0].entry
        reason = reason or name_fault(entry.stem[: -len(SUFFIX)], entry.name)
    reason = reason or _style_fault(files, names, rules) or _mask_fault(files, names)
    age = min(part.entry.age for part in files.parts)
    missing = "" if reason else _missing(files, bool(names))
    if missing and age < rules.pair_timeout:
        outcome.waiting.append(Waiting(files.name, files.paths, missing, rules.pair_timeout - age))
        return
    if missing:
        remedy = MASK_WAYS if files.masked else WAYS
        reason = f"{missing} after {duration(rules.pair_timeout)}; {remedy}"
    if reason:
        outcome.rejections.append(_request(files, [], job).refuse(reason))
    elif not all(part.explicit for part in files.parts if files.source == "default") and (
        age < rules.partner_grace
    ):
        outcome.waiting.append(_waiting_for_partner(files, rules.partner_grace - age))
    else:
        styles = [rules.styles[name] for name in names]
        outcome.requests.append(_request(files, styles, job))


def _read_job(files: _Set, rules: Rules) -> tuple[str, JobSettings | None]:
    """Why the files cannot be a job, "" if they can; and their settings, None while these are changing."""
    reason = _fault(files)
    job = rules.without_file
    if not reason and files.source != "batch":
        try:
            for part in files.of(Role.SETTINGS):
                job = rules.read_settings(part.entry)
        except SettingsError as error:
            reason = str(error)
        except ChangedMeanwhile:
            return "", None
    return reason, job


def _waiting_for_partner(files: _Set, left: float) -> Waiting:
    label = printable(files.parts[0].entry.name)
    return Waiting(
        files.name, files.paths, f"{label} may be half of a pair; the other half is awaited", left
    )


def _style_names(files: _Set, job: JobSettings) -> list[str]:
    """The library styles of a set: the hot folder's and those of its settings, or else the default style."""
    names = [files.style] if files.source == "hot" else []
    names += map(composed, job.styles)
    return names or ([composed(files.style)] if files.style else [])


def _request(files: _Set, styles: Sequence[Style], job: JobSettings) -> Request:
    """The request for a set: its content first, then its own styles, then those of the library."""
    own = sorted(files.parts, key=lambda part: (_ORDER[part.role], part.number))
    drops = [Drop(part.role, part.entry.path, part.entry.fingerprint) for part in own]
    source: Source = files.source
    if source == "default" and job.styles:
        source = "named"
    return Request(
        name=files.name,
        source=source,
        group=files.group,
        files=(*drops, *(picture for style in styles for picture in style.pictures)),
        settings=merge_settings(styles, job.settings, own=len(files.of(Role.STYLE))),
        priority=job.priority,
    )


def _fault(files: _Set) -> str:
    """Why these files cannot be a job, "" if they can."""
    for part in files.parts:
        if part.entry.problem:
            return part.entry.problem
    seen: dict[tuple[Role, int], Entry] = {}
    for part in files.parts:
        if part.role is Role.UNUSED:
            continue
        label = part.entry.name
        if part.role is Role.UNKNOWN and files.source == "folder":
            return (
                f"{printable(label)} has no meaning in a job folder; "
                "it may hold content.*, style.* (or style-1.*, style-2.*, …), masks, start.* and job.yaml"
            )
        if part.role not in {Role.SETTINGS, Role.BATCH} and part.entry.suffix not in IMAGE_SUFFIXES:
            return unknown_kind(label)
        other = seen.setdefault((part.role, part.number), part.entry)
        if other is not part.entry:
            what = f"style {part.number}" if part.number else part.role.value
            names = f"{printable(other.name)} and {printable(label)}"
            return f"{names} are both the {what} of {files.name}; drop only one of them"
    return ""


def _style_fault(files: _Set, names: Sequence[str], rules: Rules) -> str:
    """What is wrong with the library styles of these names, or with the number of pictures of all styles."""
    for name in names:
        if problem := style_problem(rules.styles, name):
            return problem
    number = len(files.of(Role.STYLE)) + sum(len(rules.styles[name].pictures) for name in names)
    return too_many_pictures(number, files.name) if number > MAX_STYLE_PICTURES else ""


def _mask_fault(files: _Set, named: Sequence[str]) -> str:
    """Masks belong to style pictures of the drop: styles of the library have none."""
    if not files.masked or not named:
        return ""
    return (
        f"{files.name} has masks, and its style {printable(named[0])} from the library has none; "
        "drop the style's picture with its mask"
    )


def _missing(files: _Set, style_named: bool) -> str:
    """What a set lacks, as in "dog.content.jpg has no style"; "" if it is complete."""
    label = printable(files.parts[0].entry.name)
    if files.source == "batch":
        return ""
    if not files.of(Role.CONTENT):
        return f"{label} has no content"
    if style_named:
        return ""
    if not files.of(Role.STYLE):
        return f"{label} has no style"
    return _missing_mask(files, label) if files.masked else ""


def _missing_mask(files: _Set, label: str) -> str:
    """The first style without a mask, or mask without a style, in the same words."""
    styles, masks = (
        {part.number for part in files.of(role)} for role in (Role.STYLE, Role.STYLE_MASK)
    )
    for number in sorted(styles ^ masks):
        what = "style mask" if number in styles else "style"
        return f"{label} has no {what}{f' {number}' if number else ''}"
    return ""


# Names


def _part(entry: Entry, match: re.Match[str]) -> _Part:
    word = match["role"].lower()
    # In a job folder there is no separator. Names of masks are never a coincidence.
    explicit = match.groupdict().get("separator", ".") == "." or word.endswith("mask")
    if word == "start":
        return _Part(entry, Role.START, 0, explicit)
    if word.startswith("content"):
        role = Role.CONTENT if word == "content" else Role.CONTENT_MASK
        return _Part(entry, role, 0, explicit)
    role = Role.STYLE_MASK if match["mask"] else Role.STYLE
    return _Part(entry, role, int(match["number"] or 0), explicit)


def _marks_job_folder(entry: Entry) -> bool:
    match = _BARE.fullmatch(entry.stem)
    if match and match["role"].lower() != "start":
        return entry.suffix in IMAGE_SUFFIXES
    return _is_job_settings(entry)


def _is_job_settings(entry: Entry) -> bool:
    return entry.suffix in SETTINGS_SUFFIXES and entry.stem.lower() == "job"


def _group(folder: str) -> str:
    """The group of a job: a folder of the inbox, as valid Unicode; "" for the inbox itself."""
    return clean_name(folder) if folder else ""


def _join(folder: str, stem: str) -> str:
    """The name of a job: a safe path below results/."""
    return "/".join(clean_name(part) for part in (*folder.split("/"), stem) if part)
