"""Workers on this machine: one process per device, under the supervision of `supervised`.

The daemon itself never touches CUDA: which devices there are is what the first worker says.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nst_daemon.engine.device_names import OPEN
from nst_daemon.machine import threads_per_worker
from nst_daemon.managed_process import (
    ManagedProcess,
    child_environment,
    crashed,
    exit_reason,
    own_module,
)
from nst_daemon.workers import messages
from nst_daemon.workers.messages import Ended, Event, Hello, WorkerOptions
from nst_daemon.workers.supervised import SupervisedExecutor, SupervisedWorker

WORKER_MODULE = "nst_daemon.workers.process.main"


class LocalTransport:
    """One life of a process on this machine, and the socket to it (see `supervised.Transport`).

    Args:
        module: What the process runs.
        first: Its first message.
        log: Where its output goes, truncated first; None for the daemon's stderr.
        keep: Variables that it inherits although they hold secrets.

    Raises:
        OSError: The process cannot be started.
        ValueError: The first message cannot be encoded.
    """

    running = True

    def __init__(
        self, module: str, first: messages.Message, log: Path | None, *, keep: Sequence[str] = ()
    ) -> None:
        messages.encode(
            first
        )  # before anything is open: raises ValueError for settings that are too large
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = messages.Channel(ours)
        try:
            with theirs:
                number = theirs.fileno()
                command = own_module(module, str(number))
                environment = child_environment(keep=keep)
                self._process = ManagedProcess(
                    command, environment=environment, pass_fds=[number], log=log
                )
        except BaseException:
            self._channel.close()
            raise
        self._channel.send(first)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def open(self) -> bool:
        """False once the process has closed its end."""
        return self._channel.open

    def send(self, message: messages.Message | messages.Addressed) -> None:
        """Send in order, without waiting."""
        self._channel.send(message)

    def received(self) -> Iterator[messages.Message | messages.Addressed]:
        """Everything that has arrived, with addresses where the process has given them."""
        return self._channel.messages()

    def messages(self) -> Iterator[messages.Message]:
        """Everything that has arrived. Raises ValueError for what is not a message."""
        for message in self.received():
            if isinstance(message, messages.Addressed):
                raise ValueError("a message with an address")
            yield message

    def ended(self) -> Ended | None:
        """How the process ended; None while it runs."""
        code = self._process.exit_code()
        if code is None:
            return None
        output = self._process.last_output(messages.TEXT_LIMIT)
        return Ended(exit_reason(code), output, crashed=crashed(code))

    def waitables(self) -> list[object]:
        """Ready when there are messages, or when the process has ended."""
        ended = self._process.waitables()
        return [self._channel, *ended] if self.open else ended

    def kill(self) -> None:
        """SIGKILL; harmless if the process has ended."""
        self._process.kill()

    def close(self, patience: float) -> None:
        """Wait for the end for at most `patience` seconds, kill what is left, and free the descriptors."""
        self._process.wait(patience)
        self._process.kill()
        self._process.close()
        self._channel.close()


class LocalExecutor(SupervisedExecutor):
    """Workers on this machine's devices (see `executor.Executor`).

    Args:
        devices: See `engine.device_names`; a name may come twice.
        lost_seconds: How long a lost device is left alone.
        clock: The same as that of the `now` that `poll` is given, in monotonic seconds.
    """

    def __init__(
        self,
        devices: str | Sequence[str] = "auto",
        options: WorkerOptions | None = None,
        *,
        lost_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(options or WorkerOptions(), lost_seconds=lost_seconds, clock=clock)
        self._make_workers((devices,) if isinstance(devices, str) else tuple(devices))

    def poll(self, now: float) -> list[Event]:
        """All events since the last call; enforces deadlines against `now` (monotonic seconds)."""
        return [*super().poll(now), *self._account(self._start_found(now))]

    def _start_found(self, now: float) -> list[Event]:
        """Start the workers of the devices that the first one has found."""
        events: list[Event] = []
        for first in tuple(self._workers):
            if first.found:
                for worker in self._make_workers(first.found, first):
                    events += worker.start(now)
                first.found = ()
        return events

    def _make_workers(
        self, devices: Sequence[str], first: SupervisedWorker | None = None
    ) -> list[SupervisedWorker]:
        """A worker for each device; `first` is already there (as `auto`) and becomes the first of them."""
        threads = self._options.threads
        # With an open name the worker divides the CPUs, once it knows the devices.
        if len(devices) > 1 or devices[0] not in OPEN:
            threads = threads or threads_per_worker(len(devices))
        options = replace(self._options, threads=threads)
        made = []
        for i, device in enumerate(devices):
            before = devices[:i].count(device)
            name = f"{device}#{before + 1}" if before else device
            start = _starter(device)
            if i == 0 and first is not None:
                first.name, first.options, first.spawn = name, options, start
                continue
            made.append(SupervisedWorker(name, options, start, self._history, self._lost_seconds))
        self._workers += made
        return made


def _starter(device: str) -> Callable[[SupervisedWorker], LocalTransport]:
    """What starts a worker process on a device."""

    def start(worker: SupervisedWorker) -> LocalTransport:
        folder = worker.options.logs
        log = folder / f"{worker.name.replace(':', '-')}.log" if folder else None
        return LocalTransport(WORKER_MODULE, Hello(worker.name, device, worker.options), log)

    return start
