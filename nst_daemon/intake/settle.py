"""Has a file been quiet for long enough? A tracker of what was seen, which never looks at a clock itself."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import NamedTuple

from nst_daemon.errors import InputError, Retry
from nst_daemon.jobs import Fingerprint


class ChangedMeanwhile(InputError):  # noqa: N818 (not an error of anybody: look again later)
    """A file is no longer what the scan saw: it has to settle again."""

    retry = Retry.LATER


class Look(NamedTuple):
    """What one look at a path tells. quiet: seconds without a change; age: seconds since the ctime."""

    settled: bool
    quiet: float
    age: float


@dataclass(slots=True)
class _Track:
    fingerprint: Fingerprint
    since: float  # monotonic time of the first look at this version
    age: float  # of this version at that look, by the wall clock
    whole: bool | None = None  # what `looks_whole` said about this version, once it was asked


class Settler:
    """Remembers every path between scans and says which ones have settled.

    A version of a file has settled when it was seen unchanged (device, inode, size, mtime, ctime) in at least two
    scans that are `settle_seconds` apart; where it does not look whole (empty, truncated), only after
    `truncated_grace` seconds.

    The wall clock is asked once per version, for its age at first sight; from there monotonic time counts. So a clock
    that is set neither hurries nor delays anything, and a restart does not make a file younger.
    """

    def __init__(self, settle_seconds: float, truncated_grace: float) -> None:
        self._settle_seconds = settle_seconds
        self._truncated_grace = truncated_grace
        self._tracks: dict[str, _Track] = {}

    def look(
        self,
        path: str,
        fingerprint: Fingerprint,
        looks_whole: Callable[[], bool],
        *,
        now: float,
        wall: float,
    ) -> Look:
        """Note one look at a path. `looks_whole` is asked once per version, when all else is quiet.

        now: monotonic seconds; wall: seconds since the epoch.
        """
        track = self._tracks.get(path)
        if track is None or track.fingerprint != fingerprint:
            age = max(0.0, wall - fingerprint.ctime_ns / 1e9)
            self._tracks[path] = _Track(fingerprint, now, age)
            return Look(False, 0.0, age)
        quiet = now - track.since
        settled = quiet >= self._settle_seconds
        if settled:
            if track.whole is None:
                track.whole = looks_whole()
            settled = track.whole or quiet >= self._truncated_grace
        return Look(settled, quiet, track.age + quiet)

    def forget_all_but(self, paths: Container[str]) -> None:
        """Drop what was not seen in this scan, so that a path that comes back begins anew."""
        for path in [path for path in self._tracks if path not in paths]:
            del self._tracks[path]
