"""Folders that must not contain one another.

The inbox is scanned with everything in it, styles and results are listed, and the daemon removes unknown files from its
own folders. So these must be apart: with the results in the inbox, for example, each result would be painted again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from nst_daemon.config import Config
from nst_daemon.errors import ConfigError
from nst_daemon.mounts import location, mounted_below
from nst_daemon.names import printable

_FOLDERS = frozenset({"inbox", "styles", "results", "done", "failed", "state"})
#: The daemon's own folders in the state folder.
_OWN = frozenset({"spool", "stage", "checkpoints", "logs", "cache"})
_OTHERS = frozenset({"root", "previews", "batch_roots", "textfile", "weights", "source"})
#: What must not be in a place, nor be the same: {place: others}. `state` may contain others, but not be one of them.
_FORBIDDEN = {
    "inbox": _FOLDERS | _OWN | _OTHERS,
    "styles": _FOLDERS | _OWN | {"previews"},
    "results": _FOLDERS | _OWN,
    "done": (_FOLDERS | _OWN) - {"failed"},
    "failed": (_FOLDERS | _OWN) - {"done"},
    "state": _FOLDERS,
    **dict.fromkeys(_OWN, _FOLDERS | _OWN | {"previews", "textfile", "weights", "source"}),
}


@dataclass(frozen=True, slots=True)
class _Place:
    """A configured file or folder. kind: as in `_FORBIDDEN`; key: for messages."""

    kind: str
    key: str
    path: Path
    device: str
    real: Path  # below the top of its file system
    mounted: tuple[tuple[str, Path], ...]  # what is mounted inside it, in the same form

    def __str__(self) -> str:
        return f"{self.key} ({printable(str(self.path))})"

    def is_in(self, other: _Place) -> bool:
        """True for the same place and for one inside it, through links, mounts and other spellings."""
        if self.device == other.device and self.real.is_relative_to(other.real):
            return True
        for device, top in other.mounted:
            within = self.real.is_relative_to(top) or top.is_relative_to(self.real)
            if device == self.device and within:
                return True
        # File systems without upper and lower case know one folder by several names.
        real = Path(os.path.realpath(self.path))
        mark = _mark(other.path)
        return mark is not None and any(_mark(path) == mark for path in (real, *real.parents))


def check_separate(config: Config) -> None:
    """Raise ConfigError if folders contain one another in a way that does harm."""
    for message, remedy in overlaps(config):
        raise ConfigError(message, remedy=remedy)


def overlaps(config: Config) -> Iterator[tuple[str, str]]:
    """Each pair of places that must be apart and is not: one line with both keys and paths, and the remedy.

    Places that do not exist yet are compared by their paths.
    """
    places = tuple(_places(config))
    parents = dict.fromkeys(_OWN, "state") | {"previews": "results"}
    found: set[frozenset[str]] = set()
    for inner, outer in permutations(places, 2):
        pair = frozenset({inner.key, outer.key})
        if inner.kind not in _FORBIDDEN.get(outer.kind, ()) or not inner.is_in(outer):
            continue
        same = outer.is_in(inner)
        if pair in found or (outer.kind == "state" and not same):
            continue
        if any(p.kind == parents.get(inner.kind) and p.is_in(outer) for p in places):
            continue  # the pair of its parent is listed
        found.add(pair)
        remedy = f"choose another place for {inner.key}, outside {printable(str(outer.path))}"
        if inner.kind == "root":
            remedy = f"choose a folder inside it for {outer.key}"
        yield f"{inner} {'is the same as' if same else 'is inside'} {outer}", remedy


def _places(config: Config) -> Iterator[_Place]:
    folders = config.folders
    for name in ("root", "inbox", "styles", "results", "done", "failed", "state"):
        yield _place(name, f"folders.{name}", getattr(folders, name))
    for path in config.batch_roots:
        yield _place("batch_roots", "batch_roots", path)
    if config.metrics.textfile:
        yield _place("textfile", "metrics.textfile", config.metrics.textfile)
    if Path(config.model.weights).is_absolute():
        yield _place("weights", "model.weights", Path(config.model.weights))
    if config.source:
        yield _place("source", "the configuration file", config.source)
    yield _place("previews", "the previews of folders.results", folders.previews)
    for name in sorted(_OWN):
        yield _place(name, f"the {name} of folders.state", getattr(folders, name))


def _place(kind: str, key: str, path: Path) -> _Place:
    return _Place(kind, key, path, *location(path), tuple(mounted_below(path)))


def _mark(path: Path) -> tuple[int, int] | None:
    """Device and inode; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
