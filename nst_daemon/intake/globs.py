"""Search folders for the image files that the globs of a batch match, within limits.

`*`, `?` and `[…]` match within one name, `**` matches any folders. Names are compared in composed form (NFC), and the
suffixes of files without regard to case. `IMG [1].jpg` also matches the file of that very name. Hidden and ignored
names, symbolic links and what is behind them are left out. Every folder is listed at most once for a glob.
"""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from nst_daemon.errors import InputError
from nst_daemon.intake.drops import SETTINGS_SUFFIXES, suffix_of
from nst_daemon.intake.ignore import ignored
from nst_daemon.names import composed, natural_key, printable, shortened
from nst_daemon.pictures.formats import IMAGE_SUFFIXES
from nst_daemon.units import duration

#: Characters of a glob.
MAX_GLOB = 1000
#: Matches a name that is in composed form; None is `**`.
_Matcher = Callable[[str], bool] | None


class Search:
    """A search for the files of one batch. Its limits hold for all of its globs together.

    Args:
        roots: folders that globs are relative to, and outside of which nothing is read.
        max_found: image files that may be found.
        max_names: names of files and folders that may be looked at.
        max_seconds: how long the search may take.
        clock: monotonic seconds.

    Attributes:
        passed_over: the number of files that a glob matched and that are not image files, by suffix.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        max_found: int,
        max_names: int,
        max_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.passed_over: Counter[str] = Counter()
        self._roots = tuple(dict.fromkeys(roots))
        self._max_found, self._max_names, self._max_seconds = max_found, max_names, max_seconds
        self._clock, self._began = clock, clock()
        self._names = 0

    def find(self, globs: Iterable[str]) -> list[Path]:
        """The image files that these globs match: each once, in the order of the globs, and in natural order in each.

        Raises:
            InputError: a glob is not valid, leaves the roots or matches nothing, or a limit is exceeded.
        """
        found: dict[Path, None] = {}
        for glob in globs:
            before = self.passed_over.copy()
            matches = [path for root in self._roots for path in self._in_root(root, glob)]
            if not matches:
                raise self._no_match(glob, self.passed_over - before)
            found |= dict.fromkeys(matches)
            self._check_number(len(found), glob)
        return list(found)

    def _no_match(self, glob: str, passed_over: Counter[str]) -> InputError:
        folders = ", ".join(printable(str(root)) for root in self._roots)
        where = f"no image file in {folders}" if folders else "nothing: batch_roots is empty"
        these = "this folder" if len(self._roots) == 1 else "one of these folders"
        remedy = f"write a path relative to {these}, or add its folder to batch_roots"
        if "{" in glob:
            return InputError(
                f"{_shown(glob)} matches {where}",
                remedy="write each of the alternatives in {} as a glob of its own",
            )
        if passed_over:
            return InputError(
                f"{_shown(glob)} matches {where}: {describe(passed_over)}",
                remedy="name image files",
            )
        return InputError(
            f"{_shown(glob)} matches {where}",
            remedy=remedy if folders else "set it to the folders that batches may read",
        )

    def _in_root(self, root: Path, glob: str) -> list[Path]:
        """Image files below one root that a glob matches, in natural order."""
        parts = _parts(glob, root)
        if parts is None:
            return []
        found = list(self._walk(root, parts, glob))
        if not found and "\\" in glob:  # as it is written on Windows
            found = list(self._walk(root, _parts(glob.replace("\\", "/"), root) or [], glob))
        return sorted(found, key=lambda path: natural_key(str(path)))

    def _walk(self, root: Path, parts: Sequence[str], glob: str) -> Iterator[Path]:
        matchers = [
            _matcher(part, last=number == len(parts)) for number, part in enumerate(parts, 1)
        ]
        try:
            start = str(root.resolve())
        except (OSError, RuntimeError):  # a loop of links
            return
        found = 0
        folders = [(start, _reached({0}, matchers))]
        while folders:
            folder, positions = folders.pop()
            for item in self._list(folder, glob):
                name = composed(item.name)
                if item.is_dir(follow_symlinks=False):
                    inner = {
                        n + (matchers[n] is not None) for n in positions if _fits(matchers[n], name)
                    }
                    inner = _reached(inner, matchers)
                    if inner:
                        folders.append((item.path, inner))
                elif item.is_file(follow_symlinks=False) and any(
                    n == len(matchers) - 1 and _fits(matchers[n], name) for n in positions
                ):
                    suffix = suffix_of(name)
                    if suffix in IMAGE_SUFFIXES:
                        found += 1
                        self._check_number(found, glob)
                        yield Path(item.path)
                    elif suffix not in SETTINGS_SUFFIXES:
                        self.passed_over[suffix] += 1

    def _list(self, folder: str, glob: str) -> Iterator[os.DirEntry[str]]:
        """The names in a folder that are not ignored; none if it cannot be read. Raises InputError at a limit."""
        try:
            with os.scandir(folder) as items:
                for item in items:
                    self._names += 1
                    if self._names > self._max_names:
                        raise self._limit_exceeded(f"{self._max_names:,} names", glob)
                    if self._clock() - self._began > self._max_seconds:
                        raise self._limit_exceeded(duration(self._max_seconds), glob)
                    if not ignored(item.name, folder=item.is_dir(follow_symlinks=False)):
                        yield item
        except OSError:
            return

    def _limit_exceeded(self, limit: str, glob: str) -> InputError:
        return InputError(
            f"the search for {_shown(glob)} was ended after {limit}",
            remedy="write a glob that matches in fewer folders",
        )

    def _check_number(self, number: int, glob: str) -> None:
        if number > self._max_found:
            raise InputError(
                f"{_shown(glob)} matches more than {self._max_found:,} image files, and at most "
                f"{self._max_found:,} pictures are painted in one batch",
                remedy="split it",
            )


def describe(passed_over: Counter[str]) -> str:
    """The files that were passed over, as in "3 files are not image files (2 .cdr, 1 .txt)"."""
    number = passed_over.total()
    most = passed_over.most_common(8)
    kinds = [
        f"{count:,} {shortened(printable(suffix), 20) or 'without suffix'}"
        for suffix, count in most
    ]
    kinds += ["…"] if len(passed_over) > len(most) else []
    what = "file is not an image file" if number == 1 else "files are not image files"
    return f"{number:,} {what} ({', '.join(kinds)})"


def _parts(glob: str, root: Path) -> list[str] | None:
    """The parts of a glob below a root; None if it is absolute and leads elsewhere. Raises InputError."""
    path = PurePath(composed(glob))
    if path.is_absolute():
        bases = (PurePath(composed(str(base))) for base in (root, Path(os.path.realpath(root))))
        base = next((base for base in bases if path.is_relative_to(base)), None)
        if base is None:
            return None
        path = path.relative_to(base)
    parts = list(path.parts)
    if not parts or ".." in parts or parts.count("**") > 1 or len(glob) > MAX_GLOB:
        raise InputError(
            f"{_shown(glob)} is not a valid glob for a batch",
            remedy="it may not be empty, longer than "
            f"{MAX_GLOB:,} characters, contain `..`, or contain `**` more than once",
        )
    if any("**" in part and part != "**" for part in parts):
        raise InputError(
            f"{_shown(glob)} is not a valid glob for a batch",
            remedy="write `**` as a part of its own, such as **/*.jpg",
        )
    return parts


def _matcher(part: str, *, last: bool) -> _Matcher:
    """What matches one part of a glob. last: whether it is for files, whose suffixes are compared in lower case."""
    if part == "**":
        return None
    part = composed(part)
    exact = _pattern(part).match
    if not last:
        return lambda name: exact(name) is not None
    lowered = _pattern(_with_lower_suffix(part)).match
    return lambda name: bool(exact(name) or lowered(_with_lower_suffix(name)))


def _pattern(part: str) -> re.Pattern[str]:
    """What matches names as the shell does, and the very name that is written, such as "IMG [1].jpg"."""
    return re.compile(rf"{fnmatch.translate(part)}|{re.escape(part)}\Z")


def _with_lower_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem + dot + suffix.lower() if dot else name


def _fits(matcher: _Matcher, name: str) -> bool:
    return matcher is None or matcher(name)


def _reached(positions: set[int], matchers: Sequence[_Matcher]) -> set[int]:
    """The parts of a glob that the names in a folder may match: `**` may also match no folder at all."""
    further = {n + 1 for n in positions if n < len(matchers) and matchers[n] is None}
    return {n for n in positions | further if n < len(matchers)}


def _shown(glob: str) -> str:
    return shortened(printable(glob)) or "an empty text"
