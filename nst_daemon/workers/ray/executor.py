"""Workers on the machines of a Ray cluster, under the same supervision as those of this machine.

Everything of Ray is in a process of its own, the driver. Each place of the cluster has a `SupervisedWorker` here, whose
transport is the driver's connection. Where the driver ends, or the cluster is away, every job goes back into the queue
without blame, and another driver is started after a pause.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from nst_daemon import extras
from nst_daemon.config import Ray
from nst_daemon.errors import ConfigError
from nst_daemon.units import duration
from nst_daemon.workers import messages
from nst_daemon.workers.executor import WorkerStatus
from nst_daemon.workers.local import LocalTransport
from nst_daemon.workers.messages import (
    Addressed,
    DeviceLost,
    Ended,
    Event,
    Hello,
    Join,
    Kill,
    Leaving,
    Loading,
    Places,
    Ready,
    Spawn,
    Stop,
    WorkerOptions,
)
from nst_daemon.workers.supervised import SupervisedExecutor, SupervisedWorker, Transport

#: The variables with which Ray proves that this machine belongs to the cluster.
CREDENTIALS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
#: What events and the status call the driver.
DRIVER = "ray"
#: Seconds of silence after which the driver is replaced. (It reports once a second.)
DRIVER_SILENCE = 60.0


class Connection(Transport, Protocol):
    """The driver's process, as the executor sees it."""

    def send(self, message: messages.Message | Addressed) -> None:
        """Send in order."""

    def received(self) -> Iterator[messages.Message | Addressed]:
        """Everything that has arrived, with the addresses that the driver gave."""


class ClusterTransport:
    """One life of a worker on a cluster (see `supervised.Transport`): its packets travel through the driver.

    Args:
        number: Of this life: the address of its packets.
    """

    pid = None
    open = True

    def __init__(self, driver: Connection, number: int) -> None:
        self._driver, self._number = driver, number
        self._inbox: deque[messages.Message] = deque()
        self._ended: Ended | None = None
        #: False until the actor has answered: it may have to wait for room.
        self.running = False

    def put(self, message: messages.Message) -> None:
        """Take a message from the driver."""
        self.running = True
        if isinstance(message, Ended):
            self._ended = message
        else:
            self._inbox.append(message)

    def send(self, message: messages.Message) -> None:
        """Send in order."""
        self._driver.send(Addressed(self._number, message))

    def messages(self) -> Iterator[messages.Message]:
        """Everything that has arrived."""
        while self._inbox:
            yield self._inbox.popleft()

    def ended(self) -> Ended | None:
        """How the life ended; None while it lasts."""
        return self._ended

    def kill(self) -> None:
        """End the actor."""
        if self._ended is None:
            self.send(Kill())

    def close(self, patience: float) -> None:
        """Nothing is held here."""

    def waitables(self) -> list[object]:
        """The driver's connection."""
        return self._driver.waitables()


@dataclass(slots=True)
class _Link:
    """One life of the driver, and the lives of workers that it carries."""

    driver: Connection
    since: float
    transports: dict[int, ClusterTransport] = field(default_factory=dict)
    last_message: float | None = None
    step: str = "connecting"  # what it does before that
    reports: bool = False  # it has reported places, which it does once a second
    leaving: Leaving | None = None
    killed: str = ""

    def kill(self, reason: str) -> None:
        if not self.killed:
            self.killed = reason
            self.driver.kill()


class RayExecutor(SupervisedExecutor):
    """Workers on a Ray cluster (see `executor.Executor`).

    Args:
        retry_seconds: When a cluster that is away is tried again.
        retry_permanent_seconds: When it is tried again where a person must act first.
        clock: The same as that of the `now` that `poll` is given, in monotonic seconds.
        connect: Starts the driver; raises OSError.
        installed: Whether Ray is there.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(
        self,
        cluster: Ray,
        options: WorkerOptions | None = None,
        *,
        lost_seconds: float = 600.0,
        retry_seconds: float = 10.0,
        retry_permanent_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        connect: Callable[[Join], Connection] | None = None,
        installed: Callable[[], bool] = lambda: not extras.missing("ray"),
    ) -> None:
        if not installed():
            raise ConfigError(
                "executor: ray needs Ray, which is not installed", remedy=extras.install("ray")
            )
        super().__init__(options or WorkerOptions(), lost_seconds=lost_seconds, clock=clock)
        self._cluster = cluster
        self._retry, self._retry_permanent = retry_seconds, retry_permanent_seconds
        self._connect = connect or self._start_driver
        self._numbers = itertools.count(1)
        self._link: _Link | None = None
        self._stopping = False
        self._start_at = math.inf
        self._places: frozenset[str] = frozenset()
        self._away = ""  # why there is no cluster, as it was said

    def start(self) -> None:
        """Begin to join the cluster; each of its workers announces itself by `Ready`."""
        self._stopping = False
        self._unsaid += self._join(self._clock())

    def capacity(self) -> int:
        """How many more tasks `submit` takes now; 0 until a worker is ready."""
        given = sum(len(worker.jobs) for worker in self._workers)
        return max(0, min(super().capacity(), self._cluster.max_in_flight - given))

    def poll(self, now: float) -> list[Event]:
        """All events since the last call; enforces deadlines against `now` (monotonic seconds)."""
        events = super().poll(now)
        # A worker whose place is gone stays until its life has ended and its jobs are answered for.
        self._workers = [w for w in self._workers if w.process or w.name in self._places]
        if any(isinstance(event, Ready) for event in events):
            self._away = ""
        return events

    def waitables(self) -> Sequence[object]:
        """Objects for `multiprocessing.connection.wait` that become ready when `poll` has news."""
        return self._link.driver.waitables() if self._link else []

    def status(self, now: float) -> Sequence[WorkerStatus]:
        """What the driver does, and then each worker."""
        link = self._link
        last = link.last_message if link else None
        state = "waiting" if link is None else "starting" if last is None else "idle"
        info = {"device_name": f"the Ray cluster {self._cluster.address}"}
        ours = WorkerStatus(
            DRIVER,
            state,
            link.driver.pid if link else None,
            (),
            None if last is None else now - last,
            info,
        )
        return [ours, *super().status(now)]

    def stop(self, grace: float) -> list[Event]:
        """Let all workers checkpoint and end within `grace` seconds; the last events. `start` may follow."""
        self._stopping = True  # a node that joins now gets no worker
        events = super().stop(grace)
        if self._link is not None:
            self._link.driver.send(Stop())
            self._link.driver.close(patience=1.0)
            self._link = None
        self._workers.clear()
        self._start_at = math.inf
        return events

    def _left(self) -> int:
        """How many workers have a place in the cluster, and can paint or may soon."""
        return sum(not w.lost and w.name in self._places for w in self._workers)

    # The driver

    def _start_driver(self, join: Join) -> LocalTransport:
        log = self._options.logs / f"{DRIVER}.log" if self._options.logs else None
        return LocalTransport("nst_daemon.workers.ray.driver", join, log, keep=CREDENTIALS)

    def _join(self, now: float) -> list[Event]:
        self._start_at = math.inf
        try:
            driver = self._connect(Join(self._cluster, self._options))
        except (OSError, ValueError) as error:
            return self._is_away(now, f"could not be started: {getattr(error, 'strerror', error)}")
        self._link = _Link(driver, now)
        return []

    def _share_out(self, now: float) -> list[Event]:
        """Give the driver's messages to the workers that they are for; enforce the driver's own deadlines."""
        if self._link is None:
            return self._join(now) if now >= self._start_at else []
        link = self._link
        ended = link.driver.ended()  # before draining: nothing follows this
        events: list[Event] = []
        try:
            for message in link.driver.received():
                link.last_message = now
                events += self._take(link, message)
        except ValueError as error:
            link.kill(f"the process that speaks with Ray sent an invalid message ({error})")
        if ended is not None:
            return events + self._bury(link, ended, now)
        since = link.since if link.last_message is None else link.last_message
        patience = DRIVER_SILENCE if link.reports else self._options.stall_seconds
        if now - since > patience:
            doing = "" if link.reports else f" while {link.step} (service.stall_seconds)"
            where = f"the Ray cluster ({self._cluster.address})"
            link.kill(f"{where} did not answer for {duration(patience)}{doing}")
        return events

    def _take(self, link: _Link, message: messages.Message | Addressed) -> list[Event]:
        """Handle one message of the driver; the events that it means."""
        match message:
            case Addressed(number, inner):
                if transport := link.transports.get(number):
                    transport.put(inner)
                    if isinstance(inner, Ended):
                        del link.transports[number]
            case Leaving():
                link.leaving = message
            case Loading():
                link.step = message.step
            case Places(names, why_none):
                link.reports = True
                return self._place_workers(names, why_none)
        return []

    def _place_workers(self, names: Sequence[str], why_none: str) -> list[Event]:
        """Start a worker in every new place of the cluster; report once why there is none."""
        self._places = frozenset(names)
        there = {worker.name for worker in self._workers}
        events: list[Event] = []
        for name in () if self._stopping else names:
            if name not in there:
                worker = self._new_worker(name)
                self._workers.append(worker)
                events += worker.start(self._clock())
        return events + (self._say_away(why_none, permanent=False) if why_none else [])

    def _new_worker(self, name: str) -> SupervisedWorker:
        threads = self._options.threads or max(1, int(self._cluster.cpus_per_job))
        options = replace(self._options, threads=threads, cache_dir=None, logs=None)
        return SupervisedWorker(name, options, self._spawn, self._history, self._lost_seconds)

    def _spawn(self, worker: SupervisedWorker) -> ClusterTransport:
        """Ask the driver for the next life of a worker."""
        assert self._link is not None, "without a driver there are no workers"
        number = next(self._numbers)
        transport = ClusterTransport(self._link.driver, number)
        self._link.transports[number] = transport
        device = "cuda:0" if self._cluster.gpus_per_job else "cpu"  # Ray shows an actor its own GPU
        transport.send(Spawn(worker.name, Hello(worker.name, device, worker.options)))
        return transport

    def _bury(self, link: _Link, ended: Ended, now: float) -> list[Event]:
        """The driver is gone, and with it the cluster: all jobs go back without blame."""
        link.driver.close(patience=0.0)
        self._link = None
        events: list[Event] = []
        for worker in self._workers:
            # With what had arrived before.
            events += worker.finish(now, by_force=True)
        self._workers.clear()
        # Ray ends a process whose head or node is gone.
        lost = f"the connection to the Ray cluster ({self._cluster.address}) was lost"
        reason = f"{lost}: its driver process {ended.reason}"
        if link.killed:
            return events + self._is_away(now, link.killed)
        if link.leaving:
            return events + self._is_away(now, link.leaving.message, link.leaving.permanent)
        return events + self._is_away(now, f"{reason}; see ray.log")

    def _is_away(self, now: float, reason: str, permanent: bool = False) -> list[Event]:
        """Set the time of the next try, and report once why there is no cluster."""
        self._start_at = now + (self._retry_permanent if permanent else self._retry)
        return self._say_away(reason, permanent=permanent)

    def _say_away(self, reason: str, *, permanent: bool) -> list[Event]:
        if reason == self._away:
            return []
        self._away = reason
        return [DeviceLost(DRIVER, reason, left=0, permanent=permanent)]
