"""Wake the scan when something in a folder may have changed.

The kernel loses events when its queue overflows, sends none for changes that other machines make on a network file
system, and stops without notice when the watch ends. So events say only *that* something changed; the scan finds out
what, at the latest every `rescan_seconds`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
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
from nst_daemon.unexpected import kind_and_message

log = logging.getLogger(__name__)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """False for the error that watchdog logs if an event arrives while its thread is stopped, which is no error."""
    return "called when the thread is inactive" not in record.getMessage()


logging.getLogger("watchdog.observers.inotify").addFilter(_is_worth_logging)

#: Without "opened" and "deleted", which the scan and the claim cause themselves.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
#: Seconds between two attempts to start the watch.
_RETRY_SECONDS = 30.0
#: Seconds in which the thread of a watch that has ended must end.
_STOP_SECONDS = 5.0


class Watcher(FileSystemEventHandler):
    """Becomes readable (`fileno`, for select and multiprocessing.connection.wait) when something may have changed.

    Call `tend` regularly: it starts the watch, and restarts it after it has ended. No method raises: if watching is not
    possible, `problem` has the reason, the log has it once, and the caller depends on its periodic scans.

    Args:
        folders: watched with everything below them.
        mounts: the mount table as in /proc/self/mounts, which is read each time if this is None.
        make_observer: makes watchdog's observer.
    """

    def __init__(
        self,
        *folders: Path,
        mounts: str | None = None,
        make_observer: Callable[[], BaseObserver] = Observer,
    ) -> None:
        self._folders = folders
        self._mounts = mounts
        self._make_observer = make_observer
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._observer: BaseObserver | None = None
        self._identities: list[tuple[int, int]] = []
        self._last_try = -math.inf
        #: Why the folders are not watched, in one line; "" while they are.
        self.problem = "not started"

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
        """Start the watch, or restart it after it has ended or a folder was replaced. now: monotonic seconds."""
        if self._alive() or now - self._last_try < _RETRY_SECONDS:
            return
        self._last_try = now
        self._stop()
        problem = self._start()
        if problem and problem != self.problem:
            log.warning("%s; the folders are scanned periodically", problem)
        self.problem = problem

    def _start(self) -> str:
        """Start the watch; returns why that is not possible, or ""."""
        for folder in self._folders:
            kind = network_file_system(folder, self._mounts)
            if kind:
                return f"{printable(str(folder))} is on {kind}, which does not report all changes"
        try:
            self._identities = [_identity(folder) for folder in self._folders]
            self._observer = self._make_observer()
            for folder in self._folders:
                self._observer.schedule(self, str(folder), recursive=True, event_filter=_EVENTS)
            self._observer.start()
        except Exception as error:  # noqa: BLE001 (RuntimeError: no more threads; watchdog may raise any other)
            self._stop()
            return f"the kernel cannot watch the folders: {error}"
        self.wake()  # for changes before the watch began
        return ""

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread."""
        self.wake()

    def wake(self) -> None:
        """Become readable."""
        with suppress(BlockingIOError):  # the pipe is full of wake-ups
            os.write(self._write_end, b"!")

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._read_end

    def clear(self) -> bool:
        """Forget all wake-ups so far; returns whether there were any."""
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
        """Whether all threads of watchdog run, and every folder is still the one that is watched."""
        if self._observer is None or not self._observer.is_alive():
            return False
        try:
            same = [_identity(folder) for folder in self._folders] == self._identities
        except OSError:
            same = False
        return same and all(emitter.is_alive() for emitter in self._observer.emitters)

    def _stop(self) -> None:
        """End the watch. watchdog raises KeyError if a folder was moved away, made anew and moved again."""
        observer, self._observer = self._observer, None
        if observer is None:
            return
        try:
            observer.stop()
        except Exception as error:  # noqa: BLE001 (a thread of watchdog is left over, which keeps nothing from ending)
            log.debug("the watch could not be ended cleanly: %s", kind_and_message(error))
        if observer.is_alive():
            observer.join(_STOP_SECONDS)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
