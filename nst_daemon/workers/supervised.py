"""Workers under supervision: deadlines, blame, restarts, lost devices, answers, over any transport.

A `SupervisedWorker` is one place where pictures are painted: a device of this machine, or room on a node of a cluster.
It holds one life of a worker process at a time, through a `Transport`. A `SupervisedExecutor` holds the workers and
answers for every task exactly once. `docs/scaling.md` describes the protocol between the two ends of a transport.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Protocol

from nst_daemon.errors import OutOfMemory, Retry
from nst_daemon.units import duration
from nst_daemon.workers import messages
from nst_daemon.workers.executor import WorkerStatus
from nst_daemon.workers.messages import (
    Cause,
    DeviceLost,
    Died,
    Ended,
    Event,
    Failed,
    JobNews,
    Loading,
    Ready,
    Staged,
    Started,
    Stopped,
    Task,
    WorkerOptions,
)

#: Tasks per worker: one that is painted, and one that is prepared or written meanwhile.
TASKS_PER_WORKER = 2
#: A device is lost after this many starts in a row that led nowhere …
LOST_AFTER_STARTS = 5
#: … or once this many different jobs in a row have ended with its worker's death. (A bad job ends twice at most.)
LOST_AFTER_JOBS = 3
#: The longest pause in seconds before a device that fails to start is tried again while it is not yet lost.
LONGEST_RESTART_PAUSE = 60.0
#: Seconds until a process that has closed its connection is killed, and until one that was killed and still exists is
#: given up: it hangs inside the kernel.
UNKILLABLE_SECONDS = 30.0
#: A worker is not stuck before this many times its slowest step of the same job.
STALL_FACTOR = 4.0
#: A step of loading that advances may take this many times service.stall_seconds: a driver may hang and use the CPU.
LOADING_FACTOR = 10.0
#: Seconds after which the log says which step of loading is slow.
SLOW_STEP_SECONDS = 15.0
#: So many machines may fail under a job before the job is blamed for the next: machines are taken away, and jobs take
#: machines down.
BLAMELESS_MACHINES = 2


class Transport(Protocol):
    """One life of a worker process, as its supervisor sees it. No method blocks, except `close`."""

    @property
    def pid(self) -> int | None:
        """The process on this machine; None for one elsewhere."""

    @property
    def running(self) -> bool:
        """False while the process still waits for room on its machine: no deadline applies yet."""

    @property
    def open(self) -> bool:
        """False once the process has closed its connection."""

    def send(self, message: messages.Message) -> None:
        """Send in order; a message to a process that is gone is dropped."""

    def messages(self) -> Iterable[messages.Message]:
        """Everything that has arrived. Raises ValueError for what is not a message."""

    def ended(self) -> Ended | None:
        """How the life ended; None while it lasts. Nothing arrives afterwards."""

    def kill(self) -> None:
        """End it at once; harmless if it has ended."""

    def close(self, patience: float) -> None:
        """Wait for the end for at most `patience` seconds, kill what is left, and free what the transport holds."""

    def waitables(self) -> list[object]:
        """Ready when there are messages, or when the life has ended."""


@dataclass(slots=True)
class _Given:
    """A task that a worker has been given; sent: to the process; started: the process has said so."""

    task: Task
    sent: bool = False
    started: bool = False
    cancelled: bool = False


@dataclass(slots=True)
class JobHistory:
    """What the workers of an executor have learnt about jobs.

    Args:
        suspects: Jobs that were together in a process that died: any of them may be the cause, so each is tried alone.
        machines: How many machines have failed under a job.
    """

    suspects: set[str] = field(default_factory=set)
    machines: Counter[str] = field(default_factory=Counter)

    def forget(self, job_id: str) -> None:
        """The job has ended for good."""
        self.suspects.discard(job_id)
        self.machines.pop(job_id, None)


@dataclass(slots=True)
class SupervisedWorker:
    """One place: its process, the jobs that it was given, and how it has fared.

    Args:
        spawn: Starts the next life; raises OSError.
        lost_seconds: How long a lost device is left alone.
    """

    name: str
    options: WorkerOptions
    spawn: Callable[[SupervisedWorker], Transport]
    history: JobHistory
    lost_seconds: float
    jobs: dict[str, _Given] = field(default_factory=dict)  # the one that is painted first
    process: Transport | None = None
    ready: bool = False
    info: dict[str, object] = field(default_factory=dict)
    found: tuple[str, ...] = ()  # devices that it has found, until the executor reads them
    start_at: float = math.inf  # when to start the next process
    spawned: float = 0.0
    last_message: float | None = None  # of any kind
    moved: float = 0.0  # the last sign of progress
    step: str = ""  # what it is loading
    step_since: float = 0.0
    slow_step: str = ""  # the last one that was reported as slow
    problem: str = ""  # why its last process ended, until it is ready again
    slowest: float = 0.0  # the longest pause between two signs of progress of the job at the head
    head_since: float = 0.0
    closed: float | None = None  # when its connection was found closed
    killed: tuple[float, str] | None = None  # when and why the supervisor ended it
    leaving: messages.Leaving | None = None
    failed_starts: int = 0  # in a row
    #: Jobs that have ended with its death since one succeeded.
    victims: set[str] = field(default_factory=set)
    lost: bool = False

    @property
    def room(self) -> int:
        """How many tasks it takes now."""
        return TASKS_PER_WORKER - len(self.jobs) if self.ready and not self.killed else 0

    def start(self, now: float) -> list[Event]:
        """Start a process; the events where that is impossible."""
        assert self.process is None
        self.ready, self.killed, self.leaving = False, None, None
        self.last_message = self.closed = None
        self.spawned = self.moved = self.step_since = now
        self.start_at = math.inf
        self.step, self.slow_step = "starting", ""
        try:
            self.process = self.spawn(self)
        except (OSError, ValueError) as error:
            return self._ended(
                now, Ended(f"could not be started: {getattr(error, 'strerror', error)}")
            )
        return []

    def give(self, task: Task, now: float) -> list[Event]:
        """Take a task; the events where that is impossible."""
        try:
            messages.encode(task)
        except (ValueError, TypeError) as error:
            message = f"the settings cannot be sent to a worker: {error}"
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
            return self.start(now) if now >= self.start_at else []
        ended = self.process.ended()  # before draining: nothing follows this
        events = self._drain(now)
        if ended is not None or self._unkillable(now):
            self.process.close(patience=0.0)
            self.process = None
            return events + self._ended(now, ended)
        self._enforce(now)
        self._hand_over()
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
        """What came since `ask_to_stop`; once the process has ended, every job that is left is `Stopped`."""
        if self.process is None:
            return []
        ended = self.process.ended()
        events = self._drain(now)
        return events + self.abandon() if ended or by_force else events

    def abandon(self) -> list[Event]:
        """Let go of the process, and answer all that is left without blame."""
        if self.process is not None:
            self.process.kill()
            self.process.close(patience=1.0)
            self.process = None
        self.ready = False
        return self._give_back()

    def status(self, now: float) -> WorkerStatus:
        """What it is doing."""
        process = self.process
        if self.lost:
            state = "lost"
        elif process is None or not process.running:
            state = "waiting"
        elif self.ready:
            state = "painting" if self.jobs else "idle"
        else:
            state = "starting"
        silent = None if self.last_message is None else now - self.last_message
        pid = process.pid if process else None
        note = self.step if state == "starting" else self.problem
        return WorkerStatus(self.name, state, pid, tuple(self.jobs), silent, self.info, note)

    # What the process says

    def _drain(self, now: float) -> list[Event]:
        """Handle all messages that have arrived."""
        assert self.process is not None
        events: list[Event] = []
        try:
            for message in self.process.messages():
                self.last_message = now
                events += self._take(message, now)
        except ValueError as error:
            self._kill(now, f"sent an invalid message ({error})")
        return events

    def _take(self, message: messages.Message, now: float) -> list[Event]:
        """Handle one message; the events that it means."""
        match message:
            case messages.Devices(names):
                self.found = names
            case messages.Leaving():
                self.leaving = message
            case Loading():
                return self._loads(message, now)
            case Ready(info=info):
                self.ready, self.lost, self.failed_starts, self.problem = True, False, 0, ""
                self.info = dict(info)
                return [message]
            case Staged() | Failed() | Stopped():
                return self._answered(message, now)
            case _ if isinstance(message, JobNews) and message.job_id in self.jobs:
                self.jobs[message.job_id].started |= isinstance(message, Started)
                self._moved(now)
                return [message]
        return []

    def _loads(self, message: Loading, now: float) -> list[Event]:
        """It advances in loading; an event once a step takes long."""
        self.moved = now
        if message.step != self.step:
            self.step, self.step_since = message.step, now
        seconds = now - self.step_since
        if seconds < SLOW_STEP_SECONDS or self.step == self.slow_step:
            return []
        self.slow_step = self.step
        return [Loading(self.name, self.step, seconds)]

    def _answered(self, answer: Staged | Failed | Stopped, now: float) -> list[Event]:
        """A job has ended."""
        if answer.job_id not in self.jobs:
            return []
        head = answer.job_id == next(iter(self.jobs))
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

    def _new_head(self, now: float) -> None:
        self.head_since = self.moved = now
        self.slowest = 0.0

    def _moved(self, now: float) -> None:
        self.slowest = max(self.slowest, now - self.moved)
        self.moved = now

    def _hand_over(self) -> None:
        """Send what may be sent: the head alone where one of them must be alone, else all."""
        if self.process is None or not self.ready:
            return
        alone = any(given.task.alone for given in self.jobs.values())
        for given in list(self.jobs.values())[: 1 if alone else None]:
            if not given.sent:
                given.sent = True
                self.process.send(given.task)

    # Deadlines

    def _enforce(self, now: float) -> None:
        """Kill a process that has passed a deadline."""
        if self.killed or self.process is None:
            return
        if not self.process.running:
            self.spawned = self.moved = self.step_since = now
        elif not self.process.open:  # it is about to end, as a rule
            self.closed = self.closed or now
            if now - self.closed > UNKILLABLE_SECONDS:
                self._kill(now, "closed its connection and did not end")
        elif reason := self._overdue(now):
            self._kill(now, reason)

    def _overdue(self, now: float) -> str:
        """Which deadline has passed, for people; "" for none."""
        stall = self.options.stall_seconds
        silent = now - (self.last_message if self.last_message is not None else self.spawned)
        if not self.ready:
            return self._slow_start(now, silent)
        if not self.jobs:
            said = f"did not answer for {duration(silent)} (service.stall_seconds)"
            return said if silent > stall else ""
        # One step of a very large picture may take longer than any fixed time: its own pace tells.
        allowed = max(stall, STALL_FACTOR * self.slowest)
        head = next(iter(self.jobs.values()))
        still, minutes = now - self.moved, head.task.limits.max_job_minutes
        if still > allowed:
            how = " and did not answer either" if silent > stall / 2 else ""
            return f"made no progress for {duration(still)}{how} (service.stall_seconds)"
        if now - self.head_since > 60 * minutes + allowed:
            # The worker ends such a job between two steps; this is for one that does not.
            return f"painted for more than {duration(60 * minutes)} (limits.max_job_minutes)"
        return ""

    def _slow_start(self, now: float, silent: float) -> str:
        """Why it will not be ready, for people; "" as long as it advances."""
        stall, still, seconds = self.options.stall_seconds, now - self.moved, now - self.step_since
        advice = "; raise service.stall_seconds if this machine is slow"
        if still > stall:
            what = "has not answered" if silent > stall / 2 else "made no progress"
            return f"{what} for {duration(still)} while {self.step}{advice}"
        if seconds > LOADING_FACTOR * stall:
            return f"was still {self.step} after {duration(seconds)}{advice}"
        return ""

    def _kill(self, now: float, reason: str) -> None:
        if self.process is not None and not self.killed:
            self.killed = (now, reason)
            self.process.kill()

    def _unkillable(self, now: float) -> bool:
        """It was killed long ago and is still there, which happens inside a device's driver."""
        return self.killed is not None and now - self.killed[0] > UNKILLABLE_SECONDS

    # The end of a process

    def _ended(self, now: float, how: Ended | None) -> list[Event]:
        """Say that there is no process any more, give its jobs back, and see when to start the next.

        how: None if the process was killed, still exists, and is given up.
        """
        how, unkillable = how or Ended("hangs"), how is None
        reason, detail = how.reason, how.detail
        if self.killed:
            reason = self.killed[1]
            if unkillable:
                reason += "; it hangs inside the kernel and cannot be ended"
        elif self.leaving:
            reason, detail = self.leaving.message, self.leaving.detail
        disk = self.leaving is not None and self.leaving.disk
        events = [*self._blame(how.cause, reason, detail, disk), *self._give_back()]
        if not self.ready:
            self.failed_starts += 1
        permanent = self.leaving is not None and self.leaving.permanent
        self.problem = reason
        failing = permanent or unkillable or len(self.victims) >= LOST_AFTER_JOBS
        failing |= self.failed_starts >= LOST_AFTER_STARTS and not disk
        if failing and not self.lost:
            events.append(DeviceLost(self.name, reason, left=0, permanent=permanent))
        self.lost |= failing
        self.ready = False
        self.start_at = now + self._pause()
        return events

    def _blame(self, cause: Cause, reason: str, detail: str, disk: bool) -> list[Event]:
        """The death, with the job that it is blamed on: the one that was begun last, if any."""
        job_id = next((j for j, given in reversed(self.jobs.items()) if given.started), None)
        if job_id is None or self.jobs[job_id].cancelled:
            return [Died(self.name, None, reason, detail, disk)]
        if cause is Cause.MACHINE:
            self.history.machines[job_id] += 1
            if self.history.machines[job_id] <= BLAMELESS_MACHINES:
                return [Died(self.name, None, reason, detail)]
        sent = {job_id for job_id, given in self.jobs.items() if given.sent}
        self.history.suspects |= sent if len(sent) > 1 else set()
        del self.jobs[job_id]
        if cause is Cause.MEMORY:
            short = OutOfMemory(f"{self.name} {reason}", remedy="choose a smaller size")
            return [
                Failed(self.name, job_id, short.retry, str(short), detail),
                Died(self.name, None, reason, detail),
            ]
        self.victims.add(job_id)
        return [Died(self.name, job_id, reason, detail)]

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
        return min(LONGEST_RESTART_PAUSE, 2.0 ** (self.failed_starts - 1))


class SupervisedExecutor:
    """Workers behind `executor.Executor`. A subclass makes the workers, and shares out what arrives for them.

    Args:
        lost_seconds: How long a lost device is left alone.
        clock: The same as that of the `now` that `poll` is given, in monotonic seconds.

    Call it from one thread that lives as long as the workers: where the kernel offers it, they end with that thread.
    """

    def __init__(
        self, options: WorkerOptions, *, lost_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._options, self._lost_seconds, self._clock = options, lost_seconds, clock
        self._history = JobHistory()
        self._unsaid: list[Event] = []
        self._workers: list[SupervisedWorker] = []

    def start(self) -> None:
        """Begin to start the workers; each announces itself by `Ready`."""
        for worker in self._workers:
            self._unsaid += worker.start(self._clock())

    def capacity(self) -> int:
        """How many more tasks `submit` takes now; 0 until a worker is ready."""
        return sum(worker.room for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Hand over a task; exactly one of Staged, Failed, Stopped or Died answers it. Needs capacity."""
        free = [worker for worker in self._workers if worker.room]
        assert free, "submit needs capacity()"
        # A job that has ended a worker's life is better tried on another device: either may be the cause.
        worker = min(free, key=lambda w: (task.job_id in w.victims, len(w.jobs)))
        alone = task.alone or task.job_id in self._history.suspects
        self._unsaid += worker.give(replace(task, alone=alone), self._clock())

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job; `Stopped(cancelled=True)` answers, or what came before it."""
        for worker in self._workers:
            if job_id in worker.jobs:
                self._unsaid += worker.cancel(job_id)

    def poll(self, now: float) -> list[Event]:
        """All events since the last call; enforces deadlines against `now` (monotonic seconds)."""
        events, self._unsaid = self._unsaid, []
        events += self._share_out(now)
        for worker in tuple(self._workers):
            events += worker.poll(now)
        return self._account(events)

    def waitables(self) -> Sequence[object]:
        """Objects for `multiprocessing.connection.wait` that become ready when `poll` has news."""
        # Several transports may share one connection.
        return list(dict.fromkeys(w for worker in self._workers for w in worker.waitables()))

    def status(self, now: float) -> Sequence[WorkerStatus]:
        """What each worker is doing."""
        return [worker.status(now) for worker in self._workers]

    def stop(self, grace: float) -> list[Event]:
        """Checkpoint and end all workers within `grace` seconds; the last events.

        What has not ended by then is killed, and its job is `Stopped` all the same: the checkpoint holds what was
        painted until it was last written. `start` may follow.
        """
        deadline = self._clock() + grace
        events, self._unsaid = self._unsaid, []
        for worker in self._workers:
            worker.ask_to_stop()
        while any(worker.process for worker in self._workers):
            left = max(0.0, deadline - self._clock())
            wait(self.waitables(), timeout=left)  # type: ignore[arg-type]
            events += self._share_out(self._clock())
            for worker in self._workers:
                events += worker.finish(self._clock(), by_force=not left)
        return self._account(events)

    def _share_out(self, now: float) -> list[Event]:
        """Take in what has arrived for several workers at once."""
        return []

    def _left(self) -> int:
        """How many devices can paint, or may soon."""
        return sum(not worker.lost for worker in self._workers)

    def _account(self, events: Sequence[Event]) -> list[Event]:
        """Keep the history, and fill in what a single worker does not know."""
        accounted = []
        for event in events:
            match event:
                case Staged() | Failed(retry=Retry.NEVER) | Stopped(cancelled=True):
                    self._history.forget(event.job_id)
                case DeviceLost():
                    event = replace(event, left=self._left())  # noqa: PLW2901
            accounted.append(event)
        return accounted
