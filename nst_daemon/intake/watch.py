"""Something may have changed: a wake-up for the scan, and never more than that.

The kernel's events are lost in overflows, are not sent by network file systems for what other machines do, and end
silently with the watch. So nobody asks here *what* happened; the scan looks by itself, at the latest every
`rescan_seconds`.
"""

from __future__ import annotations

import logging
import math
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from nst_daemon.mounts import network_file_system
from nst_daemon.names import printable

log = logging.getLogger(__name__)

#: Not "opened" and "deleted": those are the scan's and the claim's own doing.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
#: Seconds between two attempts to watch what could not be watched.
_PATIENCE = 30.0


class Watcher(FileSystemEventHandler):
    """Becomes readable (`fileno`, for select and multiprocessing.connection.wait) when something may have changed.

    folders: watched with everything below them; mounts: the mount table, read anew where it is None. Call `tend` now
    and then: it starts the watch, and starts it anew where it has died. Nothing here raises: where watching is not
    possible, `blind` says why, the log does once, and the caller's periodic scans have to do.
    """

    def __init__(self, *folders: Path, mounts: str | None = None) -> None:
        self._folders = folders
        self._mounts = mounts
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._observer: BaseObserver | None = None
        self._identities: list[tuple[int, int]] = []
        self._last_try = -math.inf
        #: Why nothing is watched, for people; "" while events come.
        self.blind = "not started"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def tend(self, now: float) -> None:
        """Start to watch, or start anew where the watch has died or a folder was replaced. now: monotonic seconds."""
        if self._alive() or now - self._last_try < _PATIENCE:
            return
        self._last_try = now
        self._stop()
        blind = self._start()
        if blind and blind != self.blind:
            log.warning("%s; the folders are scanned periodically", blind)
        self.blind = blind

    def _start(self) -> str:
        """Begin to watch; why that is not possible, "" where it is."""
        for folder in self._folders:
            kind = network_file_system(folder, self._mounts)
            if kind:
                return f"{printable(str(folder))} is on {kind}, which does not report all changes"
        try:
            self._identities = [_identity(folder) for folder in self._folders]
            self._observer = Observer()
            for folder in self._folders:
                self._observer.schedule(self, str(folder), recursive=True, event_filter=_EVENTS)
            self._observer.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            self._stop()
            return f"the kernel cannot watch the folders: {error}"
        self.wake()  # for whatever happened before the watch began
        return ""

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread."""
        self.wake()

    def wake(self) -> None:
        """Become readable."""
        with suppress(BlockingIOError):  # full of wake-ups already
            os.write(self._write_end, b"!")

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._read_end

    def clear(self) -> bool:
        """Forget all wake-ups so far; whether there were any."""
        woken = False
        with suppress(BlockingIOError):
            while os.read(self._read_end, 4096):
                woken = True
        return woken

    def close(self) -> None:
        """Stop watching."""
        self._stop()
        os.close(self._read_end)
        os.close(self._write_end)

    def _alive(self) -> bool:
        """Whether every thread of watchdog runs, and every folder is still the one that it watches."""
        if self._observer is None or not self._observer.is_alive():
            return False
        try:
            same = [_identity(folder) for folder in self._folders] == self._identities
        except OSError:
            same = False
        return same and all(emitter.is_alive() for emitter in self._observer.emitters)

    def _stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            if observer.is_alive():
                observer.join()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
