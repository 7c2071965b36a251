"""What only the running daemon knows: state/status.json, replaced once a second at most, for `nst-daemon status`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from nst_daemon.files import read_file, storage
from nst_daemon.intake.drops import Waiting
from nst_daemon.intake.scan import Scan
from nst_daemon.names import printable

#: The most drops, and files of one kind, that the status lists.
LISTED = 20
#: What the daemon may be doing: `LiveStatus.state`.
STATES = ("painting", "loading", "idle", "paused", "resting", "lost", "stopped")
#: What is known about each worker.
WORKER_KEYS = frozenset({"worker", "state", "pid", "device_memory", "info", "note"})


@dataclass(frozen=True, slots=True)
class PaintingStatus:
    """A job that is with a worker.

    speed: iterations per second; left: seconds; None while they are unknown; curve: (iteration, total loss) of this
    attempt so far; preview: its file below results/, "" if there is none.
    """

    id: str
    name: str
    worker: str
    done: int
    total: int
    percent: int
    speed: float | None
    left: float | None
    curve: Sequence[tuple[int, float]] = ()
    preview: str = ""


@dataclass(frozen=True, slots=True)
class WaitingStatus:
    """A drop that waits in the inbox.

    name: of the job; cause, remedy: for people, remedy may be ""; files: the first of its files; left: seconds until it
    is given up, None if it is not.
    """

    name: str
    cause: str
    remedy: str = ""
    files: Sequence[str] = ()
    left: float | None = None

    @property
    def text(self) -> str:
        """Cause and remedy in one line."""
        return f"{self.cause}: {self.remedy}" if self.remedy else self.cause


@dataclass(frozen=True, slots=True)
class InboxStatus:
    """What is in the inbox. Lists end after `LISTED` items.

    ready: number of drops that are complete and not picked up yet; waiting: drops that cannot be painted yet;
    settling: files that are still being written; left_alone: files that are not drops, with the reasons; notes: what
    else a person should look at; more: the number of items that are not listed, by the name of their list.
    """

    ready: int = 0
    waiting: Sequence[WaitingStatus] = ()
    settling: Sequence[str] = ()
    left_alone: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    more: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, seen: Scan, others: Sequence[WaitingStatus] = ()) -> Self:
        """What a scan has found. others: drops that wait for another reason than a missing file."""
        numbers = {
            "waiting": len(seen.waiting) + len(others),
            "settling": len(seen.settling),
            "left_alone": len(seen.left_alone),
        }
        waiting = [*others, *map(_waiting, seen.waiting[:LISTED])]
        return cls(
            ready=len(seen.requests),
            waiting=waiting[:LISTED],
            settling=tuple(map(printable, seen.settling[:LISTED])),
            left_alone={
                printable(path): why for path, why in islice(seen.left_alone.items(), LISTED)
            },
            notes=seen.notes,
            more={name: number - LISTED for name, number in numbers.items() if number > LISTED},
        )

    @property
    def left_over(self) -> int:
        """The number of drops and files that are not painted, without those that are ready."""
        listed = len(self.waiting) + len(self.settling) + len(self.left_alone)
        return listed + sum(self.more.values())

    def lines(self) -> list[str]:
        """All of it for people, one line for each drop or file."""
        lines = [f"waiting: {drop.text}" for drop in self.waiting]
        lines += [f"still arriving: {path}" for path in self.settling]
        lines += [f"left alone: {why}" for why in self.left_alone.values()]
        more = sum(self.more.values())
        return [*lines, *([f"… and {more:,} more"] if more else []), *self.notes]


def _waiting(drop: Waiting) -> WaitingStatus:
    left = drop.left if math.isfinite(drop.left) else None
    files = [printable(path) for path in drop.paths[:LISTED]]
    return WaitingStatus(drop.name, drop.cause, drop.remedy, files, left)


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """What only the running daemon knows.

    since, at: when it started and when this was written, seconds since the epoch; state: `painting`, `loading`,
    `idle`, `paused`, `resting` (outside of its hours), `lost` (no device is left) or `stopped`; reason: why, for
    `loading`, `paused`, `resting` and `lost`; headline: all of it in one line; paused_since: seconds since the epoch,
    None if the queue is not paused; workers: name, state, pid, facts and note of each; inbox: what is in the inbox.
    """

    pid: int
    since: float
    at: float
    state: str
    reason: str
    headline: str
    paintings: Sequence[PaintingStatus] = ()
    workers: Sequence[Mapping[str, Any]] = ()
    inbox: InboxStatus = InboxStatus()
    paused_since: float | None = None

    def write(self, path: Path) -> None:
        """Replace the file atomically. It need not outlive a crash, so nothing is fsynced. Raises StorageError."""
        temporary = path.with_suffix(".part")
        with storage(path):
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
            temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What the file says; None if there is none, or where another version has written it."""
        try:
            found = TypeAdapter(cls).validate_python(json.loads(read_file(path)))
        except (OSError, ValueError, RecursionError):
            return None
        sound = all(w.keys() >= WORKER_KEYS and isinstance(w["info"], dict) for w in found.workers)
        return found if sound else None
