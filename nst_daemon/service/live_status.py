"""What only the running daemon knows: state/status.json, replaced once a second at most, for `nst-daemon status`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from nst_daemon.files import read_file, storage

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
class LiveStatus:
    """What only the running daemon knows.

    since, at: when it started and when this was written, seconds since the epoch; state: `painting`, `loading`,
    `idle`, `paused`, `resting` (outside of its hours), `lost` (no device is left) or `stopped`; reason: why, for
    `loading`, `paused`, `resting` and `lost`; headline: all of it in one line; paused_since: seconds since the epoch,
    None if the queue is not paused; workers: name, state, pid, facts and note of each; settling: files that are still
    being written; waiting: names of drops that lack a part or cannot be read at the moment, with the reason;
    left_alone: the first files of the inbox that are not drops, with the reasons.
    """

    pid: int
    since: float
    at: float
    state: str
    reason: str
    headline: str
    paintings: Sequence[PaintingStatus] = ()
    workers: Sequence[Mapping[str, Any]] = ()
    settling: Sequence[str] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    paused_since: float | None = None
    left_alone: Mapping[str, str] = field(default_factory=dict)

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
        except (OSError, ValueError):
            return None
        sound = all(w.keys() >= WORKER_KEYS and isinstance(w["info"], dict) for w in found.workers)
        return found if sound else None
