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

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nst_daemon.errors import SettingsError
from nst_daemon.intake.advice import Advice, Lack, advise
from nst_daemon.intake.batch import SUFFIX, is_batch_file, name_fault
from nst_daemon.intake.by_order import paired_by_order
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
    suffix_of,
    too_many_pictures,
    unknown_kind,
)
from nst_daemon.intake.library import merge_settings, setting_places, style_problem
from nst_daemon.intake.parts import (
    BARE,
    IN_PAIR,
    DropPart,
    DropSet,
    belong_together,
    group_of,
    is_job_settings,
    job_name,
    marks_job_folder,
    may_be_ours,
    part_of,
)
from nst_daemon.intake.role_words import close_name
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.intake.steps import Steps, finish, release
from nst_daemon.jobs import Role
from nst_daemon.names import composed, printable
from nst_daemon.pictures.formats import IMAGE_SUFFIXES
from nst_daemon.unexpected import explain_one
from nst_daemon.units import duration

#: The places of roles in a request.
_ORDER = {role: place for place, role in enumerate(Role)}
#: Seconds for which the log does not mention an incomplete drop while other pictures arrive in its folder.
PARTNER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the meaning of a drop depends on.

    styles: the library by name (in composed form); read_settings: reads a settled settings file, raises SettingsError
    or ChangedMeanwhile; default_style: the name of a style, or ""; pair_timeout: seconds; partner_grace: seconds that
    a picture such as free_style.jpg waits for free.jpg or free_content.jpg, before it takes the default style;
    order_window: seconds within which two pictures without roles must arrive to be a pair, None if they are not one.
    """

    styles: Mapping[str, Style]
    read_settings: Callable[[Entry], JobSettings]
    default_style: str = ""
    pair_timeout: float = 3600.0
    partner_grace: float = 0.0
    order_window: float | None = None
    #: What a job without a settings file has.
    without_file: JobSettings = JobSettings()


def interpret(folder: str, entries: Sequence[Entry], settled: bool, rules: Rules) -> Outcome:
    """Do all of `interpretation` at once."""
    return finish(interpretation(folder, entries, settled, rules))


def interpretation(
    folder: str, entries: Sequence[Entry], settled: bool, rules: Rules
) -> Steps[Outcome]:
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
        return (yield from _hot_folder(folder, entries, top, rules))
    if folder and (yield from _is_job_folder(entries)):
        return (yield from _job_folder(folder, entries, settled, rules))
    return (yield from _loose(folder, entries, rules))


# Three kinds of folders


def _is_job_folder(entries: Iterable[Entry]) -> Steps[bool]:
    for entry in entries:
        if marks_job_folder(entry):
            return True
        yield
    return False


def _loose(folder: str, entries: Sequence[Entry], rules: Rules) -> Steps[Outcome]:
    """Pairs, single pictures and batch files."""
    outcome = Outcome()
    group = group_of(folder.partition("/")[0])
    named: dict[str, list[DropPart]] = defaultdict(list)
    single: dict[str, list[DropPart]] = defaultdict(list)
    sets: list[DropSet] = []
    for entry in entries:
        stem = entry.stem
        match = IN_PAIR.fullmatch(stem)
        if is_batch_file(entry.name):
            batch = [DropPart(entry, Role.BATCH)]
            sets.append(_in(folder, stem[: -len(SUFFIX)], group, "batch-file", batch))
        elif entry.suffix in SETTINGS_SUFFIXES:
            named[stem].append(DropPart(entry, Role.SETTINGS))
        elif match and may_be_ours(entry):
            named[composed(match["stem"])].append(part_of(entry, match))
        elif entry.suffix in IMAGE_SUFFIXES:
            single[stem].append(DropPart(entry, Role.CONTENT))
        else:
            _leave_alone([entry], outcome)
        yield
    # Shorter stems first: dog-start.jpg is either a part of "dog", or a picture that dog-start_style.jpg belongs to.
    for stem in sorted(named, key=len):
        yield
        parts, pictures = named[stem], single.get(stem, [])
        if not belong_together(parts, pictures):
            for part in parts:
                if part.is_image:
                    picture = DropPart(part.entry, Role.CONTENT, explicit=False)
                    single[part.entry.stem].append(picture)
                else:
                    _leave_alone([part.entry], outcome)
            continue
        single.pop(stem, None)
        # With dog.style.png or dog.yaml, dog.jpg can only be the content.
        alone = all(part.role is Role.SETTINGS for part in parts)
        style = rules.default_style if alone else ""
        plain = bool(pictures) and all(part.role is not Role.CONTENT for part in parts)
        parts = _with_unused([*parts, *pictures], outcome)
        source: Source = "default" if alone else "pair"
        sets.append(_in(folder, stem, group, source, parts, style, plain=plain))
    for stem, pictures in single.items():
        sets.extend(
            _in(folder, stem, group, "default", [picture], rules.default_style, plain=True)
            for picture in pictures
        )
        yield
    outcome.add((yield from _judge_all(sets, rules)))
    yield from release(named, single, sets)
    return outcome


def _with_unused(parts: Sequence[DropPart], outcome: Outcome) -> list[DropPart]:
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


def _is_other_kind(part: DropPart) -> bool:
    return part.role not in {Role.SETTINGS, Role.BATCH} and not part.is_image


def _leave_alone(entries: Iterable[Entry], outcome: Outcome) -> None:
    """Note files that are not ours. One that still changes is settling: it may be a copy that gets another name."""
    for entry in entries:
        if entry.settled:
            outcome.left_alone[entry.path] = not_ours(entry)
        else:
            outcome.settling.append(entry.path)


def _hot_folder(folder: str, entries: Sequence[Entry], style: str, rules: Rules) -> Steps[Outcome]:
    """Every picture is a job, in the style with the name of the folder."""
    outcome = Outcome()
    by_stem: dict[str, list[DropPart]] = defaultdict(list)
    for entry in entries:
        if entry.suffix in SETTINGS_SUFFIXES:
            by_stem[entry.stem].append(DropPart(entry, Role.SETTINGS))
        elif entry.suffix in IMAGE_SUFFIXES:
            by_stem[entry.stem].append(DropPart(entry, Role.CONTENT))
        else:
            _leave_alone([entry], outcome)
        yield
    sets: list[DropSet] = []
    for stem, parts in by_stem.items():
        group = group_of(style)
        if any(part.role is Role.SETTINGS for part in parts):
            used = _with_unused(parts, outcome)
            sets.append(_in(folder, stem, group, "hot", used, style))
        else:
            sets.extend(_in(folder, stem, group, "hot", [part], style) for part in parts)
        yield
    outcome.add((yield from _judge_all(sets, rules)))
    yield from release(by_stem, sets)
    return outcome


def _job_folder(
    folder: str, entries: Sequence[Entry], settled: bool, rules: Rules
) -> Steps[Outcome]:
    """One job, after everything in the folder has settled."""
    if not settled:
        return Outcome(settling=[folder])
    if unsettled := [entry.path for entry in entries if not entry.settled]:
        return Outcome(settling=unsettled)
    outcome = Outcome()
    parts = []
    for entry in entries:
        match = BARE.fullmatch(entry.stem)
        if is_job_settings(entry):
            parts.append(DropPart(entry, Role.SETTINGS))
        elif match and may_be_ours(entry):
            parts.append(part_of(entry, match))
        elif entry.suffix in IMAGE_SUFFIXES | SETTINGS_SUFFIXES:
            parts.append(DropPart(entry, Role.UNKNOWN))
        else:
            _leave_alone([entry], outcome)
        yield
    parent, _, name = folder.rpartition("/")
    group = group_of(parent.partition("/")[0])
    parts = _with_unused(parts, outcome)
    job = DropSet(job_name(parent, name), group, "folder", parts, folder=folder)
    outcome.add((yield from _judge_all([job], rules)))
    return outcome


def _in(  # noqa: PLR0917 (the fields of a DropSet)
    folder: str,
    stem: str,
    group: str,
    source: Source,
    parts: list[DropPart],
    style: str = "",
    *,
    plain: bool = False,
) -> DropSet:
    """A set in a folder that is not a job folder."""
    return DropSet(job_name(folder, stem), group, source, parts, style, folder, stem, plain)


# One set of files


def _judge_all(sets: Iterable[DropSet], rules: Rules) -> Steps[Outcome]:
    """The meaning of all sets of a folder. An unexpected exception costs a set, and nothing else."""
    outcome = Outcome()
    lacks: list[Lack] = []
    for files in sets:
        if lack := _judge_contained(files, rules, outcome):
            lacks.append(lack)
        yield
    arriving = any(suffix_of(path) in IMAGE_SUFFIXES for path in outcome.settling)
    if rules.order_window is not None and not arriving:
        pair = paired_by_order(lacks, rules.order_window)
        if pair and _judge_contained(pair, rules, outcome) is None:
            return outcome
    if lacks:
        yield from _add_lacks(lacks, rules, outcome, arriving)
    return outcome


def _judge_contained(files: DropSet, rules: Rules, outcome: Outcome) -> Lack | None:
    """Do `_judge`, or refuse the set after an unexpected exception."""
    try:
        return _judge(files, rules, outcome)
    except Exception as error:  # noqa: BLE001 (this drop is refused, and the next one is looked at)
        request = _request(files, [], JobSettings())
        outcome.rejections.append(request.refuse(explain_one(error)))
    return None


def _judge(files: DropSet, rules: Rules, outcome: Outcome) -> Lack | None:
    """Decide what one set is, and add that to the outcome; what is incomplete is returned instead.

    If it raises an exception, the outcome is unchanged.
    """
    unsettled = [part.entry.path for part in files.parts if not part.entry.settled]
    if unsettled:
        outcome.settling.extend(unsettled)
        return None
    if all(part.is_image and part.entry.empty for part in files.parts):
        # Beside other parts of a job the decoder refuses it.
        outcome.left_alone |= {
            part.entry.path: empty_picture(part.entry.name) for part in files.parts
        }
        return None
    reason, job = _read_job(files, rules)
    if job is None:
        outcome.settling.extend(files.paths)
        return None
    names = _style_names(files, job)
    if any(name in rules.styles and not rules.styles[name].settled for name in names):
        outcome.settling.extend(files.paths)
        return None
    if files.source == "batch-file":
        entry = files.parts[0].entry
        reason = reason or name_fault(entry.stem[: -len(SUFFIX)], entry.name)
    reason = reason or _style_fault(files, names, rules) or _mask_fault(files, names)
    if not reason and (missing := _missing(files, bool(names))):
        return Lack(files, *missing, job=job)
    if reason:
        outcome.rejections.append(_request(files, [], job).refuse(reason))
    elif not all(part.explicit for part in files.parts if files.source == "default") and (
        files.age < rules.partner_grace
    ):
        outcome.waiting.append(_waiting_for_partner(files, rules.partner_grace - files.age))
    else:
        styles = [rules.styles[name] for name in names]
        outcome.requests.append(_request(files, styles, job))
    return None


def _add_lacks(
    lacks: Sequence[Lack], rules: Rules, outcome: Outcome, arriving: bool
) -> Steps[None]:
    """The incomplete sets of a folder wait, with what to do about it, or are rejected when their time is over."""
    usable = [name for name, style in rules.styles.items() if not style.problem]
    by_order = rules.order_window is not None
    lones = [lack.files.age for lack in lacks if lack.lone] if by_order else []
    # Pictures that may be paired by order leave together: two that remain would become a pair.
    together = min(lones) if len(lones) > 2 else None
    waiting: dict[Advice, list[tuple[DropSet, float]]] = {}
    advices = yield from advise(lacks, usable, by_order=by_order)
    for lack, advice in zip(lacks, advices, strict=True):
        yield
        age = lack.files.age
        if together is not None and lack.lone:
            age = together
        if age < rules.pair_timeout:
            waiting.setdefault(advice, []).append((lack.files, age))
        else:
            waited = f"(waited for {duration(rules.pair_timeout)})"
            reason = f"{advice.cause}: {advice.remedy} {waited}"
            request = _request(lack.files, [], lack.job)
            outcome.rejections.append(request.refuse(reason))
    for advice, alike in waiting.items():
        outcome.waiting.append(_waiting(advice, alike, rules.pair_timeout, arriving))
        yield


def _waiting(
    advice: Advice, alike: Sequence[tuple[DropSet, float]], timeout: float, arriving: bool
) -> Waiting:
    """The entry for sets that wait for the same. alike: each with its age; arriving: whether other pictures are."""
    first, age = alike[0]
    paths = first.paths
    if len(alike) > 1:
        paths = tuple(path for files, _ in alike for path in files.paths)
        age = max(age for _, age in alike)
    announced = not arriving or age >= PARTNER_SECONDS
    return Waiting(first.name, paths, advice.cause, advice.remedy, timeout - age, announced)


def _read_job(files: DropSet, rules: Rules) -> tuple[str, JobSettings | None]:
    """Why the files cannot be a job, "" if they can; and their settings, None while these are changing."""
    reason = _fault(files)
    job = rules.without_file
    # Settings are read for the id of a job that is refused, too.
    readable = [part.entry for part in files.of(Role.SETTINGS) if not part.entry.problem]
    if files.source != "batch-file":
        try:
            for entry in readable:
                job = rules.read_settings(entry)
        except SettingsError as error:
            reason = reason or str(error)
        except ChangedMeanwhile:
            return "", None
    return reason, job


def _waiting_for_partner(files: DropSet, left: float) -> Waiting:
    label = printable(files.parts[0].entry.path)
    cause, remedy = f"{label} may be half of a pair", "the other half is awaited"
    return Waiting(files.name, files.paths, cause, remedy, left, announced=False)


def _style_names(files: DropSet, job: JobSettings) -> list[str]:
    """The library styles of a set: the hot folder's and those of its settings, or else the default style."""
    names = [files.style] if files.source == "hot" else []
    names += map(composed, job.styles)
    return names or ([composed(files.style)] if files.style else [])


def _request(files: DropSet, styles: Sequence[Style], job: JobSettings) -> Request:
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
        places=setting_places(styles, job.settings, job.label),
        job_id=job.job_id,
    )


def _fault(files: DropSet) -> str:
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
            return _unknown_role(part.entry)
        if part.role not in {Role.SETTINGS, Role.BATCH} and part.entry.suffix not in IMAGE_SUFFIXES:
            return unknown_kind(label)
        other = seen.setdefault((part.role, part.number), part.entry)
        if other is not part.entry:
            what = f"style {part.number}" if part.number else part.role.value
            names = f"{printable(other.name)} and {printable(label)}"
            return f"{names} are both the {what} of {files.name}; drop only one of them"
    return ""


def _unknown_role(entry: Entry) -> str:
    """The message for a file of a job folder whose name is not one of its roles."""
    words = ["job"] if entry.suffix in SETTINGS_SUFFIXES else ["content", "style", "start"]
    close = close_name(entry.stem, words)
    return (
        f"{printable(entry.name)} has no meaning in a job folder; "
        + (f"did you mean {close}{entry.suffix}? " if close else "")
        + "it may hold content.*, style.* (or style-1.*, style-2.*, …), masks, start.* and job.yaml"
    )


def _style_fault(files: DropSet, names: Sequence[str], rules: Rules) -> str:
    """What is wrong with the library styles of these names, or with the number of pictures of all styles."""
    for name in names:
        if problem := style_problem(rules.styles, name):
            return problem
    number = len(files.of(Role.STYLE)) + sum(len(rules.styles[name].pictures) for name in names)
    return too_many_pictures(number, files.name) if number > MAX_STYLE_PICTURES else ""


def _mask_fault(files: DropSet, named: Sequence[str]) -> str:
    """Masks belong to style pictures of the drop: styles of the library have none."""
    if not files.masked or not named:
        return ""
    return (
        f"{files.name} has masks, and its style {printable(named[0])} from the library has none; "
        "drop the style's picture with its mask"
    )


def _missing(files: DropSet, style_named: bool) -> tuple[Role, int] | None:
    """The role and the number of the file that a set lacks, None if it is complete."""
    if files.source == "batch-file":
        return None
    if not files.of(Role.CONTENT):
        return Role.CONTENT, 0
    if not style_named and not files.of(Role.STYLE):
        return Role.STYLE, 0
    if style_named or not files.masked:
        return None
    styles, masks = (
        {part.number for part in files.of(role)} for role in (Role.STYLE, Role.STYLE_MASK)
    )
    for number in sorted(styles ^ masks):
        return Role.STYLE_MASK if number in styles else Role.STYLE, number
    return None
