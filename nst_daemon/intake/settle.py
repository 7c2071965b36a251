"""Has a file arrived completely? Tracks what scans have seen, without a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from nst_daemon.errors import InputError, Retry
from nst_daemon.intake.steps import Steps, keep_only
from nst_daemon.jobs import Fingerprint


class ChangedMeanwhile(InputError):  # noqa: N818 (a state of the file, not an error)
    """A file is not the version that the scan saw: it must settle again."""

    retry = Retry.LATER


class Arrival(Enum):
    """What the contents of a version of a file show."""

    COMPLETE = auto()
    INCOMPLETE = auto()  # empty, or its structure ends early
    OPEN = auto()  # a process has it open for writing


class Look(NamedTuple):
    """The result of one look at a path.

    quiet: seconds without a change; age: seconds since the ctime; arrival: what its contents show, OPEN if unknown.
    """

    settled: bool
    quiet: float
    age: float
    arrival: Arrival = Arrival.OPEN


@dataclass(slots=True)
class _Track:
    fingerprint: Fingerprint
    since: float  # monotonic time of the first look at this version
    age: float  # age of this version at that look, by the wall clock
    arrival: Arrival = Arrival.OPEN  # until it is asked for


class Settler:
    """Remembers every path between scans and decides which files have settled.

    A version of a file has settled when two scans at least `settle_seconds` apart have seen it unchanged (inode, size,
    mtime, ctime), its structure is complete, and no process is known to have it open for writing. Otherwise it settles
    after `truncated_grace` seconds without a change.

    The wall clock gives the age of a version at first sight; from then on monotonic time counts. So setting the clock
    changes nothing, and a restart does not make a file younger.
    """

    def __init__(self, settle_seconds: float, truncated_grace: float) -> None:
        self._settle_seconds = settle_seconds
        self._truncated_grace = truncated_grace
        self._tracks: dict[str, _Track] = {}

    def look(
        self,
        path: str,
        fingerprint: Fingerprint,
        arrival: Callable[[], Arrival],
        *,
        now: float,
        wall: float,
    ) -> Look:
        """Note one look at a path.

        Args:
            path: any key for the file.
            fingerprint: its version now.
            arrival: called after `settle_seconds` without a change, and once more at each look while it is OPEN.
            now: monotonic seconds.
            wall: seconds since the epoch.
        """
        track = self._tracks.get(path)
        if track is None or track.fingerprint != fingerprint:
            age = max(0.0, wall - fingerprint.ctime_ns / 1e9)
            self._tracks[path] = _Track(fingerprint, now, age)
            return Look(False, 0.0, age)
        quiet = now - track.since
        settled = quiet >= max(self._settle_seconds, self._truncated_grace)
        if not settled and quiet >= self._settle_seconds:
            if track.arrival is Arrival.OPEN:
                track.arrival = arrival()
            settled = track.arrival is Arrival.COMPLETE
        return Look(settled, quiet, track.age + quiet, track.arrival)

    def forget_all_but(self, paths: Container[str]) -> Steps[None]:
        """Forget paths that this scan did not see, so that a path that comes back must settle again."""
        return keep_only(self._tracks, paths)
