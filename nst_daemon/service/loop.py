"""The daemon's process around the supervisor: the lock of the root, signals, systemd, and waiting for events."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any, Self, TextIO

from nst_daemon import files, rights
from nst_daemon.config import Config
from nst_daemon.errors import BusyError, NstError
from nst_daemon.intake.expansion import Expansion
from nst_daemon.intake.watch import Watcher
from nst_daemon.ledger import Ledger
from nst_daemon.overlaps import check_separate
from nst_daemon.service.dispatch import Observer
from nst_daemon.service.live_status import InboxStatus
from nst_daemon.service.root_readme import lay_readme
from nst_daemon.service.sd_notify import Notifier
from nst_daemon.service.state import Moment, Pacing
from nst_daemon.service.supervisor import Supervisor
from nst_daemon.workers.executor import Executor
from nst_daemon.workers.picture_check import PictureCheck

log = logging.getLogger(__name__)

#: How often the lock of a root is asked for, within half a second.
LOCK_TRIES = 10


@dataclass(frozen=True, slots=True)
class Served:
    """The end of `serve`.

    ended: number of jobs that have ended; failures: how many of them failed or were quarantined; inbox: what is left;
    interrupted: whether SIGINT (Ctrl-C) ended it.
    """

    ended: int
    failures: int
    inbox: InboxStatus
    interrupted: bool


def serve(
    config: Config,
    executor: Executor,
    check: PictureCheck,
    *,
    drain: bool = False,
    patience: float = 0.0,
    observer: Observer | None = None,
    reload: Callable[[], Config] | None = None,
    batch: Expansion | None = None,
    pacing: Pacing | None = None,
) -> Served:
    """Serve a root until SIGTERM or SIGINT; with `drain`, until the inbox is empty.

    A second SIGINT ends at once; checkpoints that were written stay.

    Args:
        config: The configuration.
        executor: Not started yet.
        check: Decodes the pictures of drops before they join the queue.
        drain: End when the inbox is empty.
        patience: With `drain`: seconds to wait for files that are still arriving, or for space on the disk.
        observer: Shows progress, or None.
        reload: Reads the configuration again on SIGHUP. If it raises, the old configuration stays in use.
        batch: With `drain`: paint this instead of what is in the inbox.
        pacing: How much is done at once, and how soon again.

    Returns:
        How many jobs failed, and what is left in the inbox.

    Raises:
        BusyError: Another process serves the root.
        LedgerError: The ledger was written by a newer version.
        StorageError: A folder cannot be used.
        ConfigError: Folders contain one another.
        UsageError: This is root, and the state folder belongs to another user.
        DeviceError: With `drain`: no device is left.
    """
    folders = config.folders
    check_separate(config)
    rights.check_start(folders)
    rights.share_with_group(folders)
    for folder in (folders.inbox, folders.styles, folders.results, folders.done, folders.failed):
        files.make_folder(folder)
    for folder in (folders.spool, folders.stage, folders.checkpoints, folders.cache, folders.logs):
        files.make_folder(folder)
    with ExitStack() as stack:
        stack.enter_context(_sole_owner(folders.state))
        lay_readme(folders)
        ledger = stack.enter_context(Ledger.open(folders.ledger))
        if ledger.repaired:
            log.error("%s", ledger.repaired)
        signals = stack.enter_context(_Signals())
        watcher = stack.enter_context(Watcher(folders.inbox, folders.styles))
        now = Moment.now()
        supervisor = Supervisor(
            config,
            ledger,
            executor,
            check,
            now=now,
            observer=observer,
            drain=drain,
            batch=batch,
            pacing=pacing,
        )
        supervisor.recover(now)
        supervisor.copy_ledger()
        notifier = Notifier(os.environ)
        if 0 < notifier.patience <= config.service.stall_seconds:
            log.warning(
                "WatchdogSec is less than twice service.stall_seconds: "
                "systemd may restart the daemon when the daemon would only replace a worker"
            )
        log.info("serving %s", folders.root)
        notifier.ready()
        try:
            limit = patience if drain else math.inf
            _loop(supervisor, signals, watcher, notifier, patience=limit, reload=reload)
        finally:
            log.info("stopping")
            notifier.stopping()
            supervisor.stop(Moment.now())
        return Served(supervisor.ended, supervisor.failures, supervisor.inbox, signals.interrupted)


def _loop(
    supervisor: Supervisor,
    signals: _Signals,
    watcher: Watcher,
    notifier: Notifier,
    *,
    patience: float,
    reload: Callable[[], Config] | None,
) -> None:
    """Step until a signal comes or, where `patience` is finite, nothing is left to do."""
    busy_until = time.monotonic()
    woken = True
    while not signals.end:
        if signals.take_reload() and reload:
            notifier.reloading()
            _reload(supervisor, reload)
            notifier.ready()
        now = Moment.now()
        watcher.tend(now.steady)
        supervisor.step(now, woken=woken)
        _ping_watchdog(supervisor, notifier, now)
        if patience < math.inf:
            if not supervisor.stuck and not supervisor.drained:
                busy_until = now.steady
            elif supervisor.drained and not supervisor.settling:
                return
            elif supervisor.lost or now.steady - busy_until >= patience:
                supervisor.give_up()
                return
        sources: list[Any] = [*supervisor.waitables(), watcher, signals]
        news: list[Any] = wait(sources, supervisor.due(now))
        woken = watcher in news and watcher.clear()


def _ping_watchdog(supervisor: Supervisor, notifier: Notifier, now: Moment) -> None:
    """Reset systemd's watchdog only while scanner, ledger and workers respond."""
    ailment = supervisor.ailment(now, notifier.patience) if notifier.watchdog else ""
    notifier.status(ailment or supervisor.headline)
    if not ailment:
        notifier.alive(now.steady)


def _reload(supervisor: Supervisor, reload: Callable[[], Config]) -> None:
    try:
        config = reload()
        check_separate(config)
    except NstError as error:
        log.error("the new configuration is not used: %s", error)
    else:
        supervisor.reconfigure(config)


@contextmanager
def _sole_owner(state: Path) -> Iterator[None]:
    """Hold the lock of a root. The kernel releases it however this process ends."""
    path = state / "lock"
    with files.storage(path):
        file = os.fdopen(files.open_file(path, os.O_RDWR | os.O_CREAT), "r+")
    with file:
        _lock(file, state)
        files.share(path)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _lock(file: TextIO, state: Path) -> None:
    """Take the lock. `ops.status.served` holds it for an instant, so it is asked for several times."""
    for _ in range(LOCK_TRIES):
        with files.storage(state / "lock"):
            if files.lock(file):
                return
        time.sleep(0.05)  # another process holds the lock, and nothing tells when it releases it
    file.seek(0)
    raise BusyError(
        f"process {file.read().strip() or '?'} already serves {state.parent}",
        remedy="drop files into its inbox, or stop it first",
    )


class _Signals:
    """Makes SIGTERM, SIGINT and SIGHUP something to wait for. The handlers only set flags."""

    def __enter__(self) -> Self:
        self.end = self.interrupted = False
        self._reload = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        self._fd_before = signal.set_wakeup_fd(self._write.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._read.close()
        self._write.close()

    def fileno(self) -> int:
        return self._read.fileno()

    def take_reload(self) -> bool:
        """Whether a SIGHUP has come since the last call. Also empties the socket that wakes `wait`."""
        with suppress(BlockingIOError):
            self._read.recv(4096)
        wanted, self._reload = self._reload, False
        return wanted

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
            return
        self.end = True
        self.interrupted |= number == signal.SIGINT
        # The second SIGINT raises KeyboardInterrupt, wherever the shutdown is.
        signal.signal(signal.SIGINT, signal.default_int_handler)
