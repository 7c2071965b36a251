"""Has a file been quiet for long enough? A tracker of what was seen, which never looks at a clock itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nst_daemon.jobs import Fingerprint


@dataclass(slots=True)
class _Track:
    fingerprint: Fingerprint
    since: float  # when this version was seen first
    whole: bool | None = None  # what `looks_whole` said about this version, once it was asked


class Settler:
    """Remembers every path between scans and says which ones have settled.

    A version of a file has settled when it was seen unchanged (device, inode, size, mtime, ctime) in at least two
    scans that are `settle_seconds` apart; where it does not look whole (empty, truncated), only after
    `truncated_grace` seconds. Times are monotonic seconds, so that a clock that is set does not matter.
    """

    def __init__(self, settle_seconds: float, truncated_grace: float) -> None:
        self.settle_seconds = settle_seconds
        self.truncated_grace = truncated_grace
        self._tracks: dict[str, _Track] = {}

    def settled(
        self, path: str, fingerprint: Fingerprint, now: float, looks_whole: Callable[[], bool]
    ) -> bool:
        """Note one look at a path and say whether it has settled. `looks_whole` is asked once per version."""
        track = self._tracks.get(path)
        if track is None or track.fingerprint != fingerprint:
            self._tracks[path] = _Track(fingerprint, now)
            return False
        quiet = now - track.since
        if quiet < self.settle_seconds:
            return False
        if track.whole is None:
            track.whole = looks_whole()
        return track.whole or quiet >= self.truncated_grace

    def forget_all_but(self, paths: Iterable[str]) -> None:
        """Drop what was not seen in this scan, so that a path that comes back begins anew."""
        kept = set(paths)
        self._tracks = {path: track for path, track in self._tracks.items() if path in kept}
