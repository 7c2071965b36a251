"""One look at the whole inbox. The scan decides; events only say when to look.

`Intake.scan` walks the inbox and the library by descriptor, follows no link, notes each file with the settler, and
lets `pairing.interpret` say what every folder means. What it remembers between scans is only how long things have
been as they are; a restart loses nothing but a few seconds of patience.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

from nst_daemon import files
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.intake.claim import remove_if_empty
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.pairing import (
    PICTURES,
    SETTINGS,
    Drop,
    Entry,
    Outcome,
    Rejection,
    Request,
    Rules,
    Style,
    Waiting,
    interpret,
)
from nst_daemon.intake.settle import ChangedMeanwhile, Look, Settler
from nst_daemon.intake.sidecar import MAX_BYTES, Sidecar, parse_sidecar, read_mapping
from nst_daemon.intake.truncation import looks_whole
from nst_daemon.jobs import Fingerprint, Role
from nst_daemon.names import clean_name, composed, printable

MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Scan:
    """What one look at the inbox has found.

    requests: jobs to claim, in fair turns between groups; rejections: drops that can never be jobs; waiting: halves
    of something; settling: paths that are still being written; problems: what could not be looked at, for the log.
    """

    requests: tuple[Request, ...]
    rejections: tuple[Rejection, ...]
    waiting: tuple[Waiting, ...]
    settling: tuple[str, ...]
    problems: tuple[str, ...]


class Intake:
    """The inbox and the library of styles, seen again and again.

    inbox, styles: the folders; settle_seconds, truncated_grace, pair_timeout: seconds (`math.inf` never gives a lone
    half up); max_bytes: of one file; default_style: name of a library style, or "".
    """

    def __init__(
        self,
        inbox: Path,
        styles: Path,
        *,
        settle_seconds: float,
        truncated_grace: float,
        pair_timeout: float,
        max_bytes: int,
        default_style: str = "",
    ) -> None:
        self.inbox = inbox
        self.styles = styles
        self.pair_timeout = pair_timeout
        self.max_bytes = max_bytes
        self.default_style = default_style
        self._settler = Settler(settle_seconds, truncated_grace)
        self._settings: dict[str, tuple[Fingerprint, dict[str, Any] | SettingsError]] = {}
        self._muted: dict[str, Fingerprint] = {}
        self._filled: set[str] = (
            set()
        )  # folders that have held files, which may go when they are empty

    def scan(self, now: float, wall: float) -> Scan:
        """Look at everything once. now: monotonic seconds; wall: seconds since the epoch.

        Creates the hot folders that are missing. Raises StorageError where the inbox or the library is not there;
        anything else that is wrong inside them ends up in the result.
        """
        visit = _Visit(now, wall)
        styles, unsettled = self._library(visit)
        self._make_hot_folders(styles, visit)
        rules = Rules(
            styles=styles,
            read_sidecar=self._read_sidecar,
            unsettled=frozenset(unsettled),
            default_style=self._default(styles.keys() | unsettled, visit),
            pair_timeout=self.pair_timeout,
        )
        outcome = Outcome()
        with files.storage(self.inbox):
            root = os.open(self.inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in self._walk(root, "", visit):
                found = interpret(folder.path, folder.entries, folder.look.settled, rules)
                outcome.requests += found.requests
                outcome.rejections += found.rejections
                outcome.waiting += found.waiting
                outcome.settling += found.settling
                self._tidy(folder, rules)
        finally:
            os.close(root)
        self._forget(visit.seen)
        return Scan(
            requests=tuple(_in_turns(outcome.requests)),
            rejections=(*outcome.rejections, *visit.rejections),
            waiting=tuple(outcome.waiting),
            settling=tuple(outcome.settling),
            problems=tuple(visit.problems),
        )

    def mute(self, drops: Iterable[Drop]) -> None:
        """Pass these versions of these files over from now on: they were dealt with but cannot be taken away."""
        self._muted.update({drop.path: drop.fingerprint for drop in drops if drop.root == "inbox"})

    # The inbox

    def _walk(self, descriptor: int, path: str, visit: _Visit) -> Iterator[_Folder]:
        """Every folder below an open one, itself first. `path`: its path below the inbox."""
        own = self._look(f"inbox/{path}/", files.fingerprint(os.fstat(descriptor)), _always, visit)
        prefix = f"{path}/" if path else ""
        entries: list[Entry] = []
        inner: list[str] = []
        for name, status in _list(descriptor, visit, path):
            below = prefix + name
            mark = files.fingerprint(status)
            if stat.S_ISDIR(status.st_mode):
                inner.append(name)
            elif self._muted.get(below) == mark:
                visit.seen.add(f"inbox/{below}")
            else:
                entries.append(
                    self._entry(below, name, status, mark, folder=descriptor, visit=visit)
                )
        yield _Folder(path, entries, own, empty=not entries and not inner)
        for name in inner:
            yield from self._walk_into(descriptor, name, prefix + name, visit)

    def _walk_into(self, parent: int, name: str, path: str, visit: _Visit) -> Iterator[_Folder]:
        try:
            descriptor = files.open_folder(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                visit.problems.append(
                    f"the folder {printable(path)} cannot be looked into: {error.strerror}; "
                    "give the daemon's group the right to read and enter it"
                )
            return
        try:
            if path.count("/") < MAX_DEPTH:
                yield from self._walk(descriptor, path, visit)
            else:
                self._refuse_depth(path, files.fingerprint(os.fstat(descriptor)), visit)
        finally:
            os.close(descriptor)

    def _refuse_depth(self, path: str, mark: Fingerprint, visit: _Visit) -> None:
        if self._look(f"inbox/{path}/", mark, _always, visit).settled:
            name = "/".join(clean_name(part) for part in path.split("/"))
            drop = Drop(Role.UNKNOWN, path, mark)
            reason = (
                f"{printable(path)} lies more than {MAX_DEPTH} folders deep; drop it further up"
            )
            visit.rejections.append(Rejection(name, "refused", "", (drop,), reason))

    def _entry(
        self,
        path: str,
        name: str,
        status: os.stat_result,
        mark: Fingerprint,
        *,
        folder: int,
        visit: _Visit,
    ) -> Entry:
        problem = ""
        try:
            files.check_droppable(status, name, self.max_bytes)
        except InputError as error:
            problem = str(error)
        check = _always if problem else partial(_looks_whole, name, folder, status.st_size)
        look = self._look(f"inbox/{path}", mark, check, visit)
        return Entry(path, mark, look.settled, look.age, problem)

    def _tidy(self, folder: _Folder, rules: Rules) -> None:
        """Remove a dropped folder that has been emptied and then left alone; hot folders stay."""
        hot = folder.path in rules.styles or folder.path in rules.unsettled
        if not folder.empty:
            self._filled.add(folder.path)
        elif (
            folder.path in self._filled - {""} and not hot and folder.look.quiet > self.pair_timeout
        ):
            remove_if_empty(self.inbox / folder.path)

    def _read_sidecar(self, entry: Entry) -> Sidecar:
        return parse_sidecar(
            self._read_settings("inbox", entry.path, entry.fingerprint), entry.name
        )

    # The library

    def _library(self, visit: _Visit) -> tuple[dict[str, Style], set[str]]:
        """The settled styles by name, and the names of those that are still being copied."""
        pictures: dict[str, dict[str, list[Drop]]] = defaultdict(dict)
        settings: dict[str, list[Drop]] = defaultdict(list)
        problems: dict[str, str] = {}
        unsettled: set[str] = set()
        with files.storage(self.styles):
            root = os.open(self.styles, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, status in _list(root, visit, "styles"):
                if stat.S_ISDIR(status.st_mode):
                    style = composed(name)
                    found, whole, problem = self._style_folder(root, name, visit)
                    if found:
                        pictures[style][name] = found
                else:
                    path = PurePosixPath(name)
                    style, suffix = composed(path.stem), path.suffix.lower()
                    if suffix not in PICTURES | SETTINGS:
                        continue
                    drop, whole, problem = self._style_file(root, name, name, status, visit)
                    if suffix in PICTURES:
                        pictures[style][name] = [drop]
                    else:
                        settings[style].append(drop)
                if problem:
                    problems[style] = problem
                if not whole:
                    unsettled.add(style)
        finally:
            os.close(root)
        styles = {
            style: self._style(found, settings[style], problems.get(style, ""))
            for style, found in pictures.items()
            if style not in unsettled
        }
        return styles, unsettled & pictures.keys()

    def _style_folder(
        self, library: int, folder: str, visit: _Visit
    ) -> tuple[list[Drop], bool, str]:
        """The pictures directly in a folder of the library by name; has it settled as a whole; what is wrong."""
        found: list[Drop] = []
        problem = ""
        try:
            descriptor = files.open_folder(folder, dir_fd=library)
        except OSError as error:
            visit.problems.append(
                f"the style {printable(folder)} cannot be looked into: {error.strerror}"
            )
            return [], True, ""
        try:
            mark = files.fingerprint(os.fstat(descriptor))
            settled = self._look(f"styles/{folder}/", mark, _always, visit).settled
            for name, status in sorted(_list(descriptor, visit, f"styles/{folder}")):
                if PurePosixPath(name).suffix.lower() in PICTURES:
                    path = f"{folder}/{name}"
                    drop, whole, wrong = self._style_file(descriptor, name, path, status, visit)
                    found.append(drop)
                    settled, problem = settled and whole, problem or wrong
        finally:
            os.close(descriptor)
        return found, settled, problem

    def _style_file(
        self, folder: int, name: str, path: str, status: os.stat_result, visit: _Visit
    ) -> tuple[Drop, bool, str]:
        """A file of the library; has it settled; what is wrong with it. path: below the library."""
        problem = ""
        try:
            files.check_droppable(status, name, self.max_bytes)
        except InputError as error:
            problem = str(error)
        check = partial(_looks_whole, name, folder, status.st_size)
        mark = files.fingerprint(status)
        look = self._look(f"styles/{path}", mark, check, visit)
        role = Role.STYLE if PurePosixPath(name).suffix.lower() in PICTURES else Role.SETTINGS
        return Drop(role, path, mark, "styles"), look.settled, problem

    def _style(
        self, pictures: Mapping[str, list[Drop]], settings: list[Drop], problem: str
    ) -> Style:
        """pictures: those of one style, by the file or the folder that they are in; there should be one."""
        values: dict[str, Any] = {}
        if len(pictures) > 1 or len(settings) > 1:
            names = sorted(pictures if len(pictures) > 1 else (drop.path for drop in settings))
            problem = problem or f"{' and '.join(map(printable, names))} have the same name"
        elif settings and not problem:
            try:
                values = self._read_settings("styles", settings[0].path, settings[0].fingerprint)
            except (SettingsError, ChangedMeanwhile) as error:
                problem = str(error)
        return Style(tuple(next(iter(pictures.values()))), values, problem)

    def _default(self, known: Set[str], visit: _Visit) -> str:
        """The default style; none where it is not in the library, because that is not the picture's fault."""
        if not self.default_style or composed(self.default_style) in known:
            return self.default_style
        visit.problems.append(
            f"default_style is {printable(self.default_style)}, which is not in {self.styles}; "
            "put it there or change the configuration"
        )
        return ""

    def _make_hot_folders(self, styles: Iterable[str], visit: _Visit) -> None:
        for style in styles:
            folder = self.inbox / style
            if not folder.is_dir():
                try:
                    folder.mkdir()
                except OSError as error:
                    label = printable(style)
                    visit.problems.append(
                        f"no folder {label} can be made in the inbox: {error.strerror}"
                    )

    # Both

    def _look(
        self, key: str, mark: Fingerprint, looks_whole: Callable[[], bool], visit: _Visit
    ) -> Look:
        visit.seen.add(key)
        return self._settler.look(key, mark, looks_whole, now=visit.now, wall=visit.wall)

    def _read_settings(self, root: str, path: str, mark: Fingerprint) -> dict[str, Any]:
        """Read a settings file once per version. Raises SettingsError, ChangedMeanwhile."""
        key = f"{root}/{path}"
        version, result = self._settings.get(key, (None, {}))
        if version != mark:
            try:
                result = load_settings(
                    self.inbox if root == "inbox" else self.styles, path, mark, self.max_bytes
                )
            except SettingsError as error:
                result = error
            self._settings[key] = (mark, result)
        if isinstance(result, SettingsError):
            raise result
        return result

    def _forget(self, seen: set[str]) -> None:
        self._settler.forget_all_but(seen)
        self._settings = {key: value for key, value in self._settings.items() if key in seen}
        self._muted = {path: mark for path, mark in self._muted.items() if f"inbox/{path}" in seen}
        self._filled = {path for path in self._filled if f"inbox/{path}/" in seen}


@dataclass(slots=True)
class _Folder:
    path: str
    entries: list[Entry]
    look: Look
    empty: bool  # of everything that is not ignored


@dataclass(slots=True)
class _Visit:
    """What one scan carries along."""

    now: float
    wall: float
    seen: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


def _list(descriptor: int, visit: _Visit, path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Names and facts in a folder, without what is ignored; what vanishes meanwhile is left out."""
    try:
        with os.scandir(descriptor) as items:
            for item in items:
                if not ignored(item.name):
                    with suppress(FileNotFoundError):
                        yield item.name, item.stat(follow_symlinks=False)
    except OSError as error:
        visit.problems.append(
            f"the folder {printable(path) or 'inbox'} cannot be read: {error.strerror}"
        )


def _always() -> bool:
    """What is not a picture's file is always whole."""
    return True


def _looks_whole(name: str, folder: int, size: int) -> bool:
    """Ask `completeness`; what cannot be opened is left for the claim to complain about."""
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError:
        return True
    try:
        return looks_whole(descriptor, size)
    except OSError:
        return True
    finally:
        os.close(descriptor)


def load_settings(root: Path, path: str, mark: Fingerprint, max_bytes: int) -> dict[str, Any]:
    """Read a settings file, if it still is that version. Raises SettingsError, ChangedMeanwhile."""
    label = printable(path)
    try:
        with files.folder_of(root, path) as (folder, name):
            descriptor, status = files.open_regular(name, folder, max_bytes)
            with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, not a path)
                data = file.read(MAX_BYTES + 1)
    except PermissionError as error:
        raise SettingsError(
            f"{label} cannot be read: {error.strerror}",
            remedy="give the daemon's group the right to read it",
        ) from error
    except (OSError, InputError) as error:  # a plain file, when the scan saw it
        raise ChangedMeanwhile(f"{label} is not there any more") from error
    if files.fingerprint(status) != mark:
        raise ChangedMeanwhile(f"{label} has changed")
    return read_mapping(data, printable(name))


def _in_turns(requests: Iterable[Request]) -> Iterator[Request]:
    """One of each group, then the next of each, so that a full folder does not hold up the others."""
    groups: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        groups[request.group].append(request)
    for turn in zip_longest(*groups.values()):
        yield from (request for request in turn if request is not None)
