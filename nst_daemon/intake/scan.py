"""One look at the whole inbox. The scan decides; events only say when to look.

`Intake.look` walks the inbox and the library by descriptor, follows no link, notes each file with the settler, and
lets `pairing.interpretation` decide what every folder means. It does so in short steps, because there may be hundreds
of thousands of files; `Intake.scan` does all of them. Between scans it remembers only since when files have been
unchanged; after a restart they settle again.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nst_daemon import files
from nst_daemon.errors import SettingsError
from nst_daemon.intake.claim import remove_if_empty
from nst_daemon.intake.drops import (
    SETTINGS_SUFFIXES,
    Drop,
    Entry,
    JobSettings,
    Outcome,
    Rejection,
    Request,
    Style,
    Waiting,
    suffix_of,
)
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.library import read_library, style_problem
from nst_daemon.intake.pairing import Rules, interpretation
from nst_daemon.intake.role_words import close_name
from nst_daemon.intake.settle import Arrival, Look, Settler
from nst_daemon.intake.steps import (
    Steps,
    finish,
    first_in_order,
    in_order,
    in_turns,
    keep_only,
    release,
)
from nst_daemon.intake.walk import (
    MAX_FOLDER_DEPTH,
    WalkedFolder,
    always_complete,
    file_arrival,
    file_problem,
    read_settings,
    walk,
)
from nst_daemon.intake.writers import Writers
from nst_daemon.jobs import Fingerprint, Role
from nst_daemon.names import clean_name, composed, natural_key, printable
from nst_daemon.pictures.formats import IMAGE_SUFFIXES
from nst_daemon.unexpected import explain_one
from nst_daemon.units import count

#: The time in monotonic seconds, and in seconds since the epoch.
Times = Callable[[], tuple[float, float]]
#: Files of one folder that the log mentions one by one, because they are left alone; also the most such folders.
MAX_MENTIONED = 20
#: How long a file may arrive before the log mentions it.
ARRIVAL_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of one look at the inbox.

    requests: jobs to claim, in natural order of their names within a group and in turns between groups; rejections:
    drops that cannot become jobs; waiting: incomplete sets, in natural order and in turns between folders; settling:
    paths that may still change; left_alone: paths of files that are not drops and stay where they are, with the
    reasons; problems: what could not be read and what is left alone, for the log; notes: the first of these problems,
    without the files that are left alone.
    """

    requests: tuple[Request, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    settling: tuple[str, ...] = ()
    left_alone: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def with_notes(self, lines: Iterable[str]) -> Scan:
        """The same with more problems, which are notes, too."""
        more = tuple(lines)
        return replace(self, problems=(*self.problems, *more), notes=(*self.notes, *more))


@dataclass(slots=True)
class _Visit:
    """The state of one scan: the time, the keys of what it saw, what it found, and what it could not read."""

    times: Times
    seen: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    writers: Writers = field(default_factory=Writers)


class Intake:
    """The inbox and the library of styles, scanned again and again.

    Args:
        inbox: the folder.
        styles: the library.
        settle_seconds: how long a file must be unchanged.
        truncated_grace: the same for a file that is incomplete or still open for writing.
        pair_timeout: seconds until an incomplete set is rejected; `math.inf` for never.
        rescan_seconds: the longest time between two scans.
        max_bytes: of one file.
        default_style: name of a library style, or "".
        partner_grace: how long a picture whose name may be half of a pair waits for the other half, in seconds.
        order_window: seconds within which two pictures without roles must arrive to be a pair; None: never.
        read_only: whether a scan changes nothing: it creates no hot folders and removes no empty ones.
        had_jobs: whether files of a folder, given by its path below the inbox, became jobs before this start.
    """

    def __init__(
        self,
        inbox: Path,
        styles: Path,
        *,
        settle_seconds: float,
        truncated_grace: float,
        pair_timeout: float,
        rescan_seconds: float,
        max_bytes: int,
        default_style: str = "",
        partner_grace: float = 0.0,
        order_window: float | None = None,
        read_only: bool = False,
        had_jobs: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self.inbox = inbox
        self.styles = styles
        self.pair_timeout = pair_timeout
        #: An incomplete set is not rejected sooner after its files were first seen, however old they are.
        self._first_grace = min(settle_seconds + rescan_seconds, pair_timeout)
        self.max_bytes = max_bytes
        self.default_style = default_style
        self.partner_grace = partner_grace
        self.order_window = order_window
        self.read_only = read_only
        self._had_jobs = had_jobs
        self._settler = Settler(settle_seconds, truncated_grace)
        self._settings: dict[str, tuple[Fingerprint, dict[str, Any] | SettingsError]] = {}
        self._left: dict[str, Fingerprint] = {}
        #: Folders that have held files, and may be removed when they are empty; and those that have held none.
        self._filled: set[str] = set()
        self._never_filled: set[str] = set()
        #: Since when paths have been arriving, in monotonic seconds.
        self._arriving: dict[str, float] = {}

    def scan(self, now: float, wall: float) -> Scan:
        """Do all of a look at once.

        Args:
            now: monotonic seconds.
            wall: seconds since the epoch.

        Raises:
            StorageError: the inbox or the library is not there. Any other problem is part of the result.
        """
        return finish(self.look(lambda: (now, wall)))

    def look(self, times: Times) -> Steps[Scan]:
        """Look at everything once, and create missing hot folders.

        Files may come, change and disappear between two steps, as they may during a step: what is claimed later is the
        version that was seen here, or nothing. Only one look may be under way, and nothing of this program may take
        files out of the inbox meanwhile, or a pair would be seen as half of one.

        Args:
            times: the present time.

        Raises:
            StorageError: the inbox or the library is not there. Any other problem is part of the result.
        """
        visit = _Visit(times)
        rules = self._rules(visit)
        if not self.read_only:
            self._make_hot_folders(rules.styles.values(), visit)
        for folder in walk(self.inbox, visit.problems):
            if folder is not None:
                yield from self._visit_folder(folder, rules, visit)
            yield
        yield from self._forget(visit.seen)
        outcome = visit.outcome
        yield from self._note_slow_arrivals(outcome.settling, visit)
        requests = yield from in_order(outcome.requests, _by_name)
        rejections = yield from in_order(outcome.rejections, _by_name)
        waiting = yield from in_order(outcome.waiting, _by_name)
        about = yield from _about(outcome.left_alone)
        yield from release(visit.seen)
        return Scan(
            requests=(yield from in_turns(requests, lambda found: found.group)),
            rejections=tuple(rejections),
            waiting=(yield from in_turns(waiting, _folder)),
            settling=tuple(outcome.settling),
            left_alone=outcome.left_alone,
            problems=(*visit.problems, *about),
            notes=tuple(visit.problems[:MAX_MENTIONED]),
        )

    def rules(self, now: float, wall: float) -> Rules:
        """The rules for files that do not come from the inbox, like those of a retry. Raises StorageError."""
        return self._rules(_Visit(lambda: (now, wall)))

    def leave(self, drops: Iterable[Drop]) -> None:
        """Ignore these versions of these files until they change or the daemon starts again."""
        self._left.update({drop.path: drop.fingerprint for drop in drops if drop.root == "inbox"})

    # The library

    def _rules(self, visit: _Visit) -> Rules:
        styles = read_library(
            self.styles,
            self.max_bytes,
            has_settled=lambda path, mark, arrival: self._style_settled(path, mark, arrival, visit),
            read=partial(self._read_settings, self.styles),
            problems=visit.problems,
        )
        visit.problems += filter(None, (style_problem(styles, name) for name in styles))
        return Rules(
            styles=styles,
            read_settings=self._read_job_settings,
            default_style=self._default(styles.keys(), visit),
            pair_timeout=self.pair_timeout,
            partner_grace=self.partner_grace,
            order_window=self.order_window,
        )

    def _style_settled(
        self,
        path: str,
        mark: Fingerprint,
        arrival: Callable[[Writers], Arrival],
        visit: _Visit,
    ) -> bool:
        """Whether a file or folder of the library has settled. A picture that ends early is noted."""
        look = self._look(f"styles/{path}", mark, arrival, visit)
        if look.settled and look.arrival is Arrival.INCOMPLETE and mark.size:
            visit.problems.append(f"styles/{printable(path)} is incomplete; copy it again")
        return look.settled

    def _default(self, known: Set[str], visit: _Visit) -> str:
        """The default style; "" if the library does not have it, because that is not the picture's fault."""
        if not self.default_style or composed(self.default_style) in known:
            return self.default_style
        close = close_name(self.default_style, known)
        visit.problems.append(
            f"default_style is {printable(self.default_style)}, which is not in {self.styles}; "
            + (f"did you mean {printable(close)}? " if close else "")
            + "put it there or change the configuration"
        )
        return ""

    def _make_hot_folders(self, styles: Iterable[Style], visit: _Visit) -> None:
        for style in styles:
            folder = self.inbox / style.name
            if style.settled and not ignored(style.name, folder=True):
                try:
                    if not folder.is_dir():
                        folder.mkdir()
                except OSError as error:
                    label = printable(style.name)
                    visit.problems.append(
                        f"the folder {label} cannot be created in the inbox: {error.strerror}"
                    )

    # The inbox

    def _visit_folder(self, folder: WalkedFolder, rules: Rules, visit: _Visit) -> Steps[None]:
        """Note the files of one folder of the inbox and add their meaning to the outcome."""
        look = self._look(f"inbox/{folder.path}/", folder.fingerprint, always_complete, visit)
        if folder.too_deep:
            if look.settled:
                visit.outcome.rejections.append(_too_deep(folder))
            return
        entries: list[Entry] = []
        for entry in self._entries(folder, visit):
            if entry is not None:
                entries.append(entry)
            yield
        try:
            found = yield from interpretation(folder.path, entries, look.settled, rules)
            visit.outcome.add(found)
        except Exception as error:  # noqa: BLE001 (the other folders are looked at)
            where = printable(folder.path or "inbox")
            visit.problems.append(f"the files in {where} stay there: {explain_one(error)}")
        if entries or folder.folders:
            self._filled.add(folder.path)
        elif folder.path and composed(folder.path.partition("/")[0]) not in rules.styles:
            self._visit_empty(folder, look, rules, visit)
        yield from release(entries, folder.files)

    def _visit_empty(self, folder: WalkedFolder, look: Look, rules: Rules, visit: _Visit) -> None:
        """Remove a folder whose files were taken long ago; mention one that never had any."""
        if folder.path not in self._filled | self._never_filled:
            known = self._filled if self._had_jobs(folder.path) else self._never_filled
            known.add(folder.path)
        if folder.path in self._filled:
            if look.quiet > self.pair_timeout and not self.read_only:
                remove_if_empty(self.inbox / folder.path)
        elif look.settled and not os.listdir(folder.descriptor):  # noqa: PTH208 (a descriptor)
            close = close_name(folder.path, rules.styles)
            remedy = (
                f"did you mean {printable(close)}?"
                if close
                else "put content.jpg and style.jpg into it"
            )
            visit.problems.append(f"inbox/{printable(folder.path)} is an empty folder; {remedy}")

    def _note_slow_arrivals(self, settling: Sequence[str], visit: _Visit) -> Steps[None]:
        """A line for each of the first files that have been arriving for minutes."""
        now, _ = visit.times()
        arriving, mentioned = dict[str, float](), 0
        for path in settling:
            since = arriving[path] = self._arriving.get(path, now)
            if now - since > ARRIVAL_SECONDS and mentioned < MAX_MENTIONED:
                mentioned += 1
                visit.problems.append(
                    f"inbox/{printable(path)} has been arriving for more than {ARRIVAL_SECONDS / 60:.0f} minutes; "
                    "it is picked up once it is complete and does not change any more"
                )
            yield
        self._arriving = arriving

    def _entries(self, folder: WalkedFolder, visit: _Visit) -> Iterator[Entry | None]:
        """The files of a folder, and None for each that is left in the inbox."""
        for name, status in folder.files:
            path, mark = folder.below(name), files.fingerprint(status)
            if self._left.get(path) == mark:
                visit.seen.add(f"inbox/{path}")
                yield None
                continue
            problem = file_problem(status, name, self.max_bytes)
            arrival: Callable[[Writers], Arrival]
            arrival = partial(file_arrival, name, folder.descriptor, status.st_size)
            if problem or suffix_of(name) not in IMAGE_SUFFIXES | SETTINGS_SUFFIXES:
                arrival = always_complete
            look = self._look(f"inbox/{path}", mark, arrival, visit)
            oldest = self.pair_timeout - self._first_grace + look.quiet
            yield Entry(path, mark, look.settled, min(look.age, oldest), problem)

    def _look(
        self, key: str, mark: Fingerprint, arrival: Callable[[Writers], Arrival], visit: _Visit
    ) -> Look:
        visit.seen.add(key)
        ask = partial(arrival_or_complete, arrival, visit.writers)
        now, wall = visit.times()
        return self._settler.look(key, mark, ask, now=now, wall=wall)

    def _read_job_settings(self, entry: Entry) -> JobSettings:
        drop = Drop(Role.SETTINGS, entry.path, entry.fingerprint)
        return JobSettings.parse(self._read_settings(self.inbox, drop), printable(entry.name))

    def _read_settings(self, root: Path, drop: Drop) -> dict[str, Any]:
        """Read a settings file once per version. Raises SettingsError, ChangedMeanwhile."""
        key = f"{drop.root}/{drop.path}"
        version, result = self._settings.get(key, (None, {}))
        if version != drop.fingerprint:
            try:
                result = read_settings(root, drop.path, drop.fingerprint, self.max_bytes)
            except SettingsError as error:
                result = error
            self._settings[key] = (drop.fingerprint, result)
        if isinstance(result, SettingsError):
            raise result
        return result

    def _forget(self, seen: set[str]) -> Steps[None]:
        """Forget files that the scan did not see any more."""
        yield from self._settler.forget_all_but(seen)
        yield from keep_only(self._settings, seen)
        self._left = {path: mark for path, mark in self._left.items() if f"inbox/{path}" in seen}
        yield
        self._filled = {path for path in self._filled if f"inbox/{path}/" in seen}
        self._never_filled = {path for path in self._never_filled if f"inbox/{path}/" in seen}


def look_once(
    inbox: Path,
    styles: Path,
    *,
    max_bytes: int,
    default_style: str,
    order_window: float | None,
    wall: float,
    had_jobs: Callable[[str], bool] = lambda path: False,
) -> Scan:
    """What the inbox holds at the moment, as if every file had settled. Nothing is changed.

    Args:
        inbox: the folder.
        styles: the library.
        max_bytes: of one file.
        default_style: name of a library style, or "".
        order_window: see `Intake`.
        wall: seconds since the epoch.
        had_jobs: see `Intake`.

    Raises:
        StorageError: the inbox or the library is not there.
    """
    intake = Intake(
        inbox,
        styles,
        settle_seconds=0.0,
        truncated_grace=0.0,
        pair_timeout=math.inf,
        rescan_seconds=0.0,
        max_bytes=max_bytes,
        default_style=default_style,
        order_window=order_window,
        read_only=True,
        had_jobs=had_jobs,
    )
    intake.scan(0.0, wall)
    return intake.scan(0.0, wall)


def arrival_or_complete(arrival: Callable[[Writers], Arrival], writers: Writers) -> Arrival:
    """What `arrival` says about a file. A file that raises an unexpected exception is complete: the decoder judges."""
    try:
        return arrival(writers)
    except Exception as error:  # noqa: BLE001 (the other files are looked at)
        explain_one(error)  # for the log
        return always_complete(writers)


def _about(left_alone: Mapping[str, str]) -> Steps[list[str]]:
    """A line for each of the first files of the first folders that are left alone, and lines for the others."""
    lines: list[str] = []
    folders: dict[str, list[str]] = defaultdict(list)
    for path in left_alone:
        folders[path.rpartition("/")[0]].append(path)
        yield
    for folder in (yield from first_in_order(folders, MAX_MENTIONED, natural_key)):
        paths = folders.pop(folder)
        for path in (yield from first_in_order(paths, MAX_MENTIONED, natural_key)):
            # The reason begins with the name of the file.
            above, _, name = printable(path).rpartition("/")
            reason = left_alone[path]
            place = f"inbox/{above}/" if above else "inbox/"
            lines.append(
                f"left alone: {place}{reason if reason.startswith(name) else f'{name}: {reason}'}"
            )
        lines += _about_more(len(paths) - MAX_MENTIONED, printable(f"inbox/{folder}".rstrip("/")))
    return [*lines, *_about_more(sum(map(len, folders.values())), "other folders of the inbox")]


def _about_more(number: int, where: str) -> Iterator[str]:
    """A line about further files, which stays the same while their number grows a little."""
    if number > 0:
        least = 10 ** (len(str(number)) - 1)
        yield f"at least {count(least, 'more file')} in {where} stay where they are: they are not image files"


def _too_deep(folder: WalkedFolder) -> Rejection:
    path = folder.path
    name = "/".join(clean_name(part) for part in path.split("/"))
    reason = f"{printable(path)} is more than {MAX_FOLDER_DEPTH} folders deep; drop it further up"
    drop = Drop(Role.UNKNOWN, path, folder.fingerprint)
    return Rejection(name, "refused", "", (drop,), reason)


def _folder(found: Waiting) -> str:
    """The folder of a drop that waits. A status that lists only the first drops then has some of each folder."""
    return found.paths[0].rpartition("/")[0]


def _by_name(found: Request | Rejection | Waiting) -> list[tuple[bool, int, str]]:
    return natural_key(found.name)
