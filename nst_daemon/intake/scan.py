"""One look at the whole inbox. The scan decides; events only say when to look.

`Intake.scan` walks the inbox and the library by descriptor, follows no link, notes each file with the settler, and
lets `pairing.interpret` say what every folder means. What it remembers between scans is only how long things have
been as they are; a restart loses nothing but a few seconds of patience.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

from nst_daemon import files
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.intake import completeness, sidecar
from nst_daemon.intake.ignore import ignored, is_litter
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
from nst_daemon.intake.settle import Settler
from nst_daemon.intake.sidecar import Sidecar
from nst_daemon.jobs import Fingerprint, Role

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


@dataclass(slots=True)
class _Folder:
    path: str
    entries: list[Entry]
    settled: bool
    empty: bool  # holds nothing but litter
    quiet: float  # seconds since a name came or went


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
        self._first_age: dict[str, tuple[Fingerprint, float]] = {}
        self._sidecars: dict[str, tuple[Fingerprint, Sidecar | SettingsError]] = {}
        self._muted: dict[str, Fingerprint] = {}
        self._filled: set[str] = set()  # folders that have held files

    def scan(self, now: float, wall: float) -> Scan:
        """Look at everything once. now: monotonic seconds; wall: seconds since the epoch.

        Creates the hot folders that are missing. Raises StorageError where the inbox or the library is not there;
        anything else that is wrong inside them ends up in the result.
        """
        walk = _Walk(self, now, wall)
        library, unsettled = walk.library()
        self._make_hot_folders(library)
        rules = Rules(
            styles=library,
            read_sidecar=self._read_sidecar,
            unsettled=frozenset(unsettled),
            default_style=self.default_style,
            pair_timeout=self.pair_timeout,
        )
        outcome = Outcome(rejections=walk.rejections)
        for folder in walk.inbox():
            found = interpret(folder.path, folder.entries, folder.settled, rules)
            outcome.requests += found.requests
            outcome.rejections += found.rejections
            outcome.waiting += found.waiting
            outcome.settling += found.settling
            self._tidy(folder, library)
        self._forget_all_but(walk.seen)
        return Scan(
            requests=tuple(_in_turns(outcome.requests)),
            rejections=tuple(outcome.rejections),
            waiting=tuple(outcome.waiting),
            settling=tuple(outcome.settling),
            problems=tuple(walk.problems),
        )

    def mute(self, drops: Iterable[Drop]) -> None:
        """Pass these versions of these files over from now on: they were dealt with but cannot be taken away."""
        self._muted.update({drop.path: drop.fingerprint for drop in drops if drop.root == "inbox"})

    # Inside

    def _read_sidecar(self, entry: Entry) -> Sidecar:
        """Read a settled settings file of the inbox, once per version. Raises SettingsError."""
        return self._cached_sidecar(self.inbox, entry.path, entry.fingerprint)

    def _cached_sidecar(self, root: Path, path: str, mark: Fingerprint) -> Sidecar:
        key = f"{root.name}/{path}"
        cached = self._sidecars.get(key)
        if cached is None or cached[0] != mark:
            cached = self._sidecars[key] = (mark, _load_sidecar(root, path))
        if isinstance(cached[1], SettingsError):
            raise cached[1]
        return cached[1]
