"""One worker process per device on this machine, supervised: started, watched, ended, replaced.

A worker is a `child.Child` that runs `workers.process`. The daemon itself never touches CUDA: which devices there are
is what the first worker says.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path

from nst_daemon.errors import Retry
from nst_daemon.managed_process import ManagedProcess, exit_reason, own_module
from nst_daemon.workers import messages
from nst_daemon.workers.executor import worker_state
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Event,
    Failed,
    Note,
    Progress,
    Ready,
    Staged,
    Started,
    Stopped,
    Task,
    WorkerOptions,
    WorkerStatus,
)

#: Tasks per worker: one that is painted, and one that is prepared, or still written, meanwhile. Where it paints several
#: side by side, it says that it wants more.
SLOTS = 2
#: A device is lost after this many starts in a row that led nowhere …
LOST_AFTER_STARTS = 5
#: … or once this many different jobs in a row have ended with its worker's death. (A bad job ends twice at most.)
LOST_AFTER_JOBS = 3
#: The longest pause in seconds before a device that fails to start is tried again while it is not yet lost.
LONGEST_PAUSE = 60.0
#: Seconds until a process that has closed its end is killed, and until one that was killed and still exists is given
#: up: it hangs inside the kernel.
REAP_SECONDS = 30.0
#: A worker is not stuck before this many times its slowest step of the same job.
PATIENCE = 4.0


class LocalTransport:
    """One life of a process on this machine, and the socket to it.

    Args:
        module: What the process runs.
        first: Its first message.
        log: Where its output goes, truncated first; None for the daemon's stderr.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, module: str, first: messages.Message, log: Path | None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = messages.Channel(ours)
        try:
            with theirs:
                number = theirs.fileno()
                command = own_module(module, str(number))
                self._process = ManagedProcess(command, pass_fds=[number], log=log)
        except BaseException:
            self._channel.close()
            raise
        self.pid = self._process.pid
        self.send(first)

    @property
    def open(self) -> bool:
        """False once the process has closed its end."""
        return self._channel.open

    def send(self, message: messages.Message) -> None:
        """Send, without waiting."""
        self._channel.send(message)

    def messages(self) -> Iterator[messages.Message]:
        """Everything that has arrived."""
        return self._channel.messages()

    def exit_code(self) -> int | None:
        """The exit status; None while the process runs."""
        return self._process.exit_code()

    def last_output(self) -> str:
        """The end of what the process printed, if that was kept."""
        return self._process.last_output(messages.TEXT_LIMIT)

    def waitables(self) -> list[object]:
        """Ready when there are messages, or when the process has ended."""
        ended = self._process.waitables()
        return [self._channel, *ended] if self.open else ended

    def kill(self) -> None:
        """SIGKILL; harmless where the process has ended."""
        self._process.kill()

    def close(self, patience: float) -> None:
        """Wait for the end for at most `patience` seconds, and free the descriptors."""
        self._process.close(patience)
        self._channel.close()


class LocalExecutor:
    """Workers on this machine's devices (see `base.Executor`).

    devices: `auto` (every GPU, else the CPU), `cpu`, or names such as `cuda:1`; a name may come twice. lost_seconds:
    how long a lost device is left alone. clock: the same as that of the `now` that `poll` is given.

    Call it from one thread that lives as long as the workers: where the kernel offers it, they end with that thread.
    """

    def __init__(
        self,
        devices: str | Sequence[str] = "auto",
        options: WorkerOptions | None = None,
        *,
        lost_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options or WorkerOptions()
        self._lost_seconds = lost_seconds
        self._clock = clock
        self._suspects: set[str] = set()
        self._unsaid: list[Event] = []
        self._workers: list[_Worker] = []
        self._make_workers((devices,) if isinstance(devices, str) else tuple(devices))

    def start(self) -> None:
        """Begin to start the workers; each announces itself by `Ready`."""
        for worker in self._workers:
            self._unsaid += worker.spawn(self._clock())

    def capacity(self) -> int:
        """How many more tasks `submit` takes now; 0 until a worker is ready."""
        return sum(worker.room for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Hand over a task; exactly one of Staged, Failed, Stopped or Died answers it. Needs capacity."""
        free = [worker for worker in self._workers if worker.room]
        assert free, "submit needs capacity()"
        # A job that has ended a worker's life is better tried on another device: either may be the cause.
        worker = min(free, key=lambda w: (task.job_id in w.victims, len(w.jobs)))
        alone = task.alone or task.job_id in self._suspects
        self._unsaid += worker.give(replace(task, alone=alone), self._clock())

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job; `Stopped(cancelled=True)` answers, or what came before it."""
        for worker in self._workers:
            if job_id in worker.jobs:
                self._unsaid += worker.cancel(job_id)

    def poll(self, now: float) -> list[Event]:
        """All events since the last call; enforces deadlines against `now` (monotonic seconds)."""
        events, self._unsaid = self._unsaid, []
        for worker in tuple(self._workers):
            events += worker.poll(now)
            self._suspects |= worker.suspects
            worker.suspects = set()
            if worker.found:
                self._make_workers(worker.found, first=worker)
                worker.found = ()
        return [self._account(event) for event in events]

    def waitables(self) -> Sequence[object]:
        """Objects for `multiprocessing.connection.wait` that become ready when `poll` has news."""
        return [thing for worker in self._workers for thing in worker.waitables()]

    def status(self, now: float) -> Sequence[WorkerStatus]:
        """What each worker is doing."""
        return [worker.status(now) for worker in self._workers]

    def stop(self, grace: float) -> list[Event]:
        """Checkpoint and end all workers within `grace` seconds; the last events.

        Whatever has not ended by itself by then is killed, and its job is `Stopped` all the same: the checkpoint
        holds what was painted until it was last written. `start` may follow.
        """
        deadline = self._clock() + grace
        events, self._unsaid = self._unsaid, []
        for worker in self._workers:
            worker.ask_to_stop()
        while living := self.waitables():
            left = max(0.0, deadline - self._clock())
            wait(living, timeout=left)  # type: ignore[arg-type]
            for worker in self._workers:
                events += worker.finish(self._clock(), by_force=not left)
        return [self._account(event) for event in events]

    def _make_workers(self, devices: Sequence[str], first: _Worker | None = None) -> None:
        """A worker for each device; `first` is already there (as `auto`) and becomes the first of them."""
        cores = len(os.sched_getaffinity(0))
        threads = self._options.threads
        if devices != ("auto",):  # else the worker shares the cores out, once it knows the devices
            threads = threads or max(1, cores // len(devices))
        options = replace(self._options, threads=threads)
        for i, device in enumerate(devices):
            before = devices[:i].count(device)
            name = f"{device}#{before + 1}" if before else device
            if i == 0 and first is not None:
                first.name, first.device, first.options = name, device, options
                continue
            worker = _Worker(name, device, options, self._lost_seconds)
            self._workers.append(worker)
            if first is not None:
                self._unsaid += worker.spawn(self._clock())

    def _account(self, event: Event) -> Event:
        """Keep the suspects, and fill in what a single worker does not know."""
        match event:
            case Staged() | Failed(retry=Retry.NEVER):
                self._suspects.discard(event.job_id)
            case DeviceLost():
                return replace(event, left=sum(not worker.lost for worker in self._workers))
        return event


@dataclass(slots=True)
class _Given:
    """A task that a worker has been given; sent: to the process; started: the process has said so."""

    task: Task
    sent: bool = False
    started: bool = False
    cancelled: bool = False


@dataclass(slots=True)
class _Worker:
    """A device's place: its process, the jobs that it was given, and how it has fared."""

    name: str
    device: str
    options: WorkerOptions
    lost_seconds: float
    jobs: dict[str, _Given] = field(default_factory=dict)  # the one that is painted first
    process: LocalTransport | None = None
    ready: bool = False
    slots: int = SLOTS
    info: dict[str, object] = field(default_factory=dict)
    found: tuple[str, ...] = ()  # devices that it has discovered and nobody has read yet
    start_at: float = math.inf  # when to start the next process
    spawned: float = 0.0
    heard: float | None = None  # the last message of any kind
    moved: float = 0.0  # the last sign of progress
    slowest: float = 0.0  # the longest pause between two signs of progress of the job at the head
    head_since: float = 0.0
    closed: float | None = None  # when its end of the wire was found closed
    killed: tuple[float, str] | None = None  # when and why we ended it
    leaving: messages.Leaving | None = None
    failed_starts: int = 0  # in a row
    victims: set[str] = field(
        default_factory=set
    )  # jobs that ended with its death since one succeeded
    #: Jobs that were together in a process that has just died: nobody knows which of them it was, so from then on
    #: each is tried by itself.
    suspects: set[str] = field(default_factory=set)
    lost: bool = False

    @property
    def room(self) -> int:
        """How many tasks it takes now."""
        return max(0, self.slots - len(self.jobs)) if self.ready and not self.killed else 0

    def spawn(self, now: float) -> list[Event]:
        """Start a process; the events where that is impossible."""
        assert self.process is None
        self.ready, self.killed, self.leaving, self.slots = False, None, None, SLOTS
        self.heard = self.closed = None
        self.spawned, self.start_at = now, math.inf
        try:
            self.process = LocalTransport(
                "nst_daemon.workers.process.main", self._hello(), self._log()
            )
        except OSError as error:
            return self._ended(now, f"could not be started: {error.strerror}")
        return []

    def _hello(self) -> messages.Hello:
        return messages.Hello(self.name, self.device, self.options)

    def _log(self) -> Path | None:
        """Where the process's output goes."""
        folder = self.options.logs
        return folder / f"{self.name.replace(':', '-')}.log" if folder else None

    def give(self, task: Task, now: float) -> list[Event]:
        """Take a task; the events where that is impossible."""
        try:
            messages.encode(task)
        except (ValueError, TypeError) as error:
            message = f"the settings cannot be handed to a worker: {error}"
            return [Failed(self.name, task.job_id, Retry.NEVER, message)]
        if not self.jobs:
            self._new_head(now)
        self.jobs[task.job_id] = _Given(task)
        self._hand_over()
        return []

    def cancel(self, job_id: str) -> list[Event]:
        """Ask for the end of a job; the answer, where it has not even been sent."""
        given = self.jobs[job_id]
        if not given.sent:
            del self.jobs[job_id]
            return [Stopped(self.name, job_id, cancelled=True)]
        given.cancelled = True
        assert self.process is not None
        self.process.send(messages.Cancel(job_id))
        return []

    def poll(self, now: float) -> list[Event]:
        """One look at everything: messages, deadlines, the end of the process, the start of the next."""
        if self.process is None:
            return self.spawn(now) if now >= self.start_at else []
        ended = self.process.exit_code() is not None  # before draining: nothing follows this
        events = self.drain(now)
        if ended or self._stuck_in_kernel(now):
            return events + self._bury(now)
        self._enforce(now)
        self._hand_over()
        return events

    def drain(self, now: float) -> list[Event]:
        """Handle all messages that have arrived."""
        events: list[Event] = []
        if self.process is not None:
            try:
                for message in self.process.messages():
                    events += self._take(message, now)
            except ValueError as error:
                self._kill(now, f"sent what cannot be understood ({error})")
        return events

    def waitables(self) -> list[object]:
        """What `poll` should be called for."""
        return self.process.waitables() if self.process else []

    def ask_to_stop(self) -> None:
        """Ask the process to checkpoint and end; one that is still loading has nothing to lose."""
        self.start_at = math.inf
        if self.process is not None:
            self.process.send(messages.Stop())
            if not self.ready:
                self.process.kill()

    def finish(self, now: float, *, by_force: bool) -> list[Event]:
        """What came since, after `ask_to_stop`; once the process has ended, every job still here is `Stopped`."""
        if self.process is None:
            return []
        ended = self.process.exit_code() is not None
        events = self.drain(now)
        if ended or by_force:
            self.process.kill()
            self.process.close(patience=1.0)
            self.process, self.ready = None, False
            events += self._give_back()
        return events

    def status(self, now: float) -> WorkerStatus:
        """What it is doing."""
        return WorkerStatus(
            worker=self.name,
            state=worker_state(
                lost=self.lost,
                begun=self.process is not None,
                ready=self.ready,
                busy=bool(self.jobs),
            ),
            pid=self.process.pid if self.process else None,
            jobs=tuple(self.jobs),
            silent=None if self.heard is None else now - self.heard,
            info=self.info,
        )

    def _take(self, message: messages.Message, now: float) -> list[Event]:
        """Handle one message; the events that it means."""
        self.heard = now
        match message:
            case messages.Devices(names):
                self.found = names
            case messages.Room(tasks):
                self.slots = tasks
            case messages.Leaving():
                self.leaving = message
            case Ready(info=info):
                self.ready, self.lost, self.failed_starts = True, False, 0
                self.info = dict(info)
                return [message]
            case Started() | Progress() | Note():
                if message.job_id in self.jobs:
                    self.jobs[message.job_id].started |= isinstance(message, Started)
                    self._moved(now)
                    return [message]
            case Staged() | Failed() | Stopped():
                return self._answered(message, now)
        return []

    def _answered(self, answer: Staged | Failed | Stopped, now: float) -> list[Event]:
        """A job has ended."""
        if answer.job_id not in self.jobs:
            return []
        head = answer.job_id == self._head()
        del self.jobs[answer.job_id]
        if head:
            self._new_head(now)
        match answer:
            case Staged():
                self.victims.clear()
            case Failed(retry=Retry.LATER):
                self.victims.add(answer.job_id)
        self._hand_over()
        return [answer]

    def _head(self) -> str | None:
        """The job that is painted."""
        return next(iter(self.jobs), None)

    def _new_head(self, now: float) -> None:
        self.head_since = self.moved = now
        self.slowest = 0.0

    def _moved(self, now: float) -> None:
        self.slowest = max(self.slowest, now - self.moved)
        self.moved = now

    def _hand_over(self) -> None:
        """Send what may be sent: the head alone where one of them must be alone, else as many as it wants."""
        if self.process is None or not self.ready:
            return
        alone = any(given.task.alone for given in self.jobs.values())
        for given in list(self.jobs.values())[: 1 if alone else self.slots]:
            if not given.sent:
                given.sent = True
                self.process.send(given.task)

    def _enforce(self, now: float) -> None:
        """Kill a process that has passed a deadline."""
        if self.killed or self.process is None:
            return
        if not self.process.open:  # it is about to end, as a rule
            self.closed = self.closed or now
            if now - self.closed > REAP_SECONDS:
                self._kill(now, "closed its connection and did not end")
            return
        if not self.ready:
            if now - self.spawned > self.options.start_seconds:
                self._kill(now, f"did not load its model within {self.options.start_seconds:g} s")
            return
        stall = self.options.stall_seconds
        silent = now - (self.heard if self.heard is not None else self.spawned)
        if not self.jobs:
            if silent > stall:
                self._kill(now, f"did not answer for {silent:.0f} s")
            return
        # One step of a very large picture may take longer than any fixed time: its own pace tells.
        allowed = max(stall, PATIENCE * self.slowest)
        head = next(iter(self.jobs.values()))
        still, minutes = now - self.moved, head.task.limits.max_job_minutes
        if still > allowed:
            how = " and did not answer either" if silent > stall / 2 else ""
            self._kill(now, f"made no progress for {still:.0f} s{how} (service.stall_seconds)")
        elif now - self.head_since > 60 * minutes + allowed:
            # The worker ends such a job by itself between two steps; this is for one that does not.
            self._kill(now, f"painted for more than {minutes:g} minutes (limits.max_job_minutes)")

    def _kill(self, now: float, reason: str) -> None:
        if self.process is not None and not self.killed:
            self.killed = (now, reason)
            self.process.kill()

    def _stuck_in_kernel(self, now: float) -> bool:
        """It was killed long ago and is still there, which happens inside a device's driver."""
        return self.killed is not None and now - self.killed[0] > REAP_SECONDS

    def _bury(self, now: float) -> list[Event]:
        """The process is gone, or given up."""
        assert self.process is not None
        reason = self._reason(self.process.exit_code())
        detail = self.leaving.detail if self.leaving else self.process.last_output()
        self.process.close(patience=0.0)
        self.process = None
        return self._ended(now, reason, detail)

    def _reason(self, code: int | None) -> str:
        """Why it ended, for people: what we killed it for, what it said itself, or what the kernel says."""
        if self.killed:
            stuck = "; it hangs inside the kernel and cannot be ended" if code is None else ""
            return self.killed[1] + stuck
        if self.leaving:
            return self.leaving.message
        assert code is not None
        return exit_reason(code)

    def _ended(self, now: float, reason: str, detail: str = "") -> list[Event]:
        """Say that there is no process any more, give its jobs back, and see when to start the next."""
        events = [Died(self.name, self._blamed(), reason, detail), *self._give_back()]
        if not self.ready:
            self.failed_starts += 1
        permanent = self.leaving is not None and self.leaving.permanent
        failing = permanent or self._stuck_in_kernel(now)
        failing |= self.failed_starts >= LOST_AFTER_STARTS or len(self.victims) >= LOST_AFTER_JOBS
        if failing and not self.lost:
            events.append(DeviceLost(self.name, reason, left=0, permanent=permanent))
        self.lost |= failing
        self.ready = False
        self.start_at = now + self._pause()
        return events

    def _blamed(self) -> str | None:
        """The job that was begun last is what the process died of, as far as anyone can tell."""
        blamed = next((j for j, given in reversed(self.jobs.items()) if given.started), None)
        if blamed is None or self.jobs[blamed].cancelled:
            return None
        sent = {job_id for job_id, given in self.jobs.items() if given.sent}
        self.suspects = sent if len(sent) > 1 else set()
        self.victims.add(blamed)
        del self.jobs[blamed]
        return blamed

    def _give_back(self) -> list[Event]:
        """Answer all that is left, without blame."""
        jobs, self.jobs = self.jobs, {}
        return [Stopped(self.name, j, cancelled=given.cancelled) for j, given in jobs.items()]

    def _pause(self) -> float:
        """Seconds until the next start: none after a first death, then doubling."""
        if self.lost:
            return self.lost_seconds
        if self.failed_starts == 0:
            return 0.0
        return min(LONGEST_PAUSE, 2.0 ** (self.failed_starts - 1))
