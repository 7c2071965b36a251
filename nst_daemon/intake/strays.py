"""Pictures that were dropped beside the inbox: into the root itself, or with a role into the folder of results."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nst_daemon.intake.drops import stem_of, suffix_of
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.parts import IN_PAIR
from nst_daemon.names import printable
from nst_daemon.pictures.formats import IMAGE_SUFFIXES

#: The most names that are looked at in one folder, and the most lines about it.
MOST_NAMES, MOST_LINES = 5000, 3
#: A file that changed less than this many seconds ago may be on its way to the inbox.
QUIET_SECONDS = 10.0


class Strays:
    """Finds pictures in the root and in the results that their owners probably meant for the inbox.

    Args:
        root: every picture directly in it is one, unless it is one of the other folders.
        results: pictures with a role after a dot, such as dog.content.jpg, are.
        inbox: where they belong.
    """

    def __init__(self, root: Path, results: Path, inbox: Path) -> None:
        self._root, self._results, self._inbox = root, results, inbox
        #: Of each folder: its version, and the lines about it.
        self._known: dict[Path, tuple[int, list[str]]] = {}

    def lines(self, wall: float) -> list[str]:
        """A line for each of the first such pictures. wall: seconds since the epoch."""
        lines: list[str] = []
        for folder in dict.fromkeys((self._root, self._results)):
            if folder != self._inbox:
                lines += self._lines_of(folder, wall)
        return lines

    def _lines_of(self, folder: Path, wall: float) -> list[str]:
        """The lines about one folder, which is listed again only after it has changed."""
        try:
            changed = folder.stat().st_mtime_ns
            version, lines = self._known.get(folder, (0, []))
            if version != changed:
                found = list(islice(self._found(folder, wall), MOST_LINES + 1))
                lines = [self._line(folder, name) for name in found[:MOST_LINES]]
                if len(found) > MOST_LINES:
                    lines.append(
                        f"there are more pictures in {printable(str(folder))}; move them as well"
                    )
                settled = wall - changed / 1e9 >= QUIET_SECONDS
                self._known[folder] = (changed if settled else 0, lines)
        except OSError:
            return []
        return lines

    def _line(self, folder: Path, name: str) -> str:
        place, inbox = printable(str(folder)), printable(str(self._inbox))
        return f"{printable(name)} is in {place}, where nothing is picked up; move it into {inbox}"

    def _found(self, folder: Path, wall: float) -> Iterator[str]:
        with os.scandir(folder) as items:
            for item in islice(items, MOST_NAMES):
                if suffix_of(item.name) not in IMAGE_SUFFIXES or ignored(item.name):
                    continue
                match = IN_PAIR.fullmatch(stem_of(item.name))
                if folder != self._root and not (match and match["separator"] == "."):
                    continue
                if (folder / f"{item.name.rpartition('.')[0]}.json").exists():
                    continue  # a result
                status = item.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and wall - status.st_ctime >= QUIET_SECONDS:
                    yield item.name
