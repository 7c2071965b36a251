"""Workers on the machines of a Ray cluster, behind the same seam as those of this machine.

Everything of Ray is in a process of its own (`cluster`), which is supervised here as a worker is: where it ends, or the
cluster is away, every job goes back into the queue without blame, and another is started after a pause.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing.connection import wait

from nst_daemon.config import Ray
from nst_daemon.errors import ConfigError, Retry
from nst_daemon.managed_process import exit_reason
from nst_daemon.workers import messages
from nst_daemon.workers.local import LocalTransport
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

#: What events and the status call the process that speaks with the cluster.
NAME = "ray"
#: Seconds before the cluster is tried again, and where a person must mend something first.
RETRY, RETRY_PERMANENT = 10.0, 600.0
#: Seconds of silence after which that process is replaced. (It speaks every second.)
SILENCE = 60.0


class RayExecutor:
    """Workers on a Ray cluster (see `base.Executor`). clock: the same as that of the `now` that `poll` is given.

    Raises ConfigError where Ray is not installed. Call it from one thread that lives as long as the workers.
    """

    def __init__(
        self,
        cluster: Ray,
        options: WorkerOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if find_spec("ray") is None:
            raise ConfigError(
                "executor: ray needs Ray, which is not installed",
                remedy="run `pip install 'nst-daemon[ray]'` in the daemon's environment",
            )
        self._cluster, self._options, self._clock = cluster, options or WorkerOptions(), clock
        self._jobs: dict[str, bool] = {}  # whether somebody asked for the end
        self._unsaid: list[Event] = []
        self._process: LocalTransport | None = None
        self._start_at = math.inf
        self._away = ""  # why there is no cluster
        self._forget()

    def _forget(self) -> None:
        """What the last process said counts no more."""
        self._slots = 0
        self._workers: tuple[WorkerStatus, ...] = ()
        self._infos: dict[str, dict[str, object]] = {}
        self._heard: float | None = None
        self._leaving: messages.Leaving | None = None
        self._killed = ""

    def start(self) -> None:
        """Begin to join the cluster; each of its workers announces itself by `Ready`."""
        self._spawn(self._clock())

    def capacity(self) -> int:
        """How many more tasks `submit` takes now; 0 until a worker is ready."""
        return max(0, min(self._slots, self._cluster.max_in_flight) - len(self._jobs))

    def submit(self, task: Task) -> None:
        """Hand over a task; exactly one of Staged, Failed, Stopped or Died answers it. Needs capacity."""
        assert self.capacity(), "submit needs capacity()"
        try:
            messages.encode(task)
        except (ValueError, TypeError) as error:
            message = f"the settings cannot be handed to a worker: {error}"
            self._unsaid.append(Failed(NAME, task.job_id, Retry.NEVER, message))
            return
        self._jobs[task.job_id] = False
        self._send(task)

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job; `Stopped(cancelled=True)` answers, or what came before it."""
        if job_id in self._jobs:
            self._jobs[job_id] = True
            self._send(messages.Cancel(job_id))

    def poll(self, now: float) -> list[Event]:
        """All events since the last call; enforces deadlines against `now` (monotonic seconds)."""
        if self._process is None and now >= self._start_at:
            self._spawn(now)
        events, self._unsaid = self._unsaid, []
        if self._process is not None:
            ended = self._process.exit_code() is not None  # before draining: nothing follows this
            events += self._drain(now)
            if ended:
                events += self._bury(now)
            else:
                self._enforce(now)
        return events

    def waitables(self) -> Sequence[object]:
        """Objects for `multiprocessing.connection.wait` that become ready when `poll` has news."""
        return self._process.waitables() if self._process else []

    def status(self, now: float) -> Sequence[WorkerStatus]:
        """What the process that speaks with the cluster does, and then each worker."""
        joined = "starting" if self._heard is None else "idle"
        state = joined if self._process else "waiting"
        silent = None if self._heard is None else now - self._heard
        pid = self._process.pid if self._process else None
        info = {"device_name": f"the Ray cluster {self._cluster.address}"}
        ours = WorkerStatus(NAME, state, pid, (), silent, info)
        theirs = [replace(w, info=self._infos.get(w.worker, {})) for w in self._workers]
        return [ours, *theirs]

    def stop(self, grace: float) -> list[Event]:
        """Let all workers checkpoint and end within `grace` seconds; the last events. `start` may follow."""
        self._start_at = math.inf
        events, self._unsaid = self._unsaid, []
        deadline = self._clock() + grace
        if self._process is not None:
            if self._heard is None:  # it has not even joined, and has nothing to lose
                self._process.kill()
            # A little less for those at the other end, so that their last words still arrive.
            self._send(messages.Stop(0.8 * grace))
            while (left := deadline - self._clock()) > 0 and self._process.exit_code() is None:
                wait(self._process.waitables(), timeout=left)  # type: ignore[arg-type]
                events += self._drain(self._clock())
            self._process.kill()
            self._process.close(patience=1.0)
            self._process = None
        self._forget()
        return events + self._give_back()

    # The process that speaks with the cluster

    def _spawn(self, now: float) -> None:
        self._forget()
        self._start_at, self._spawned = math.inf, now
        join = messages.Join(self._cluster, self._options)
        log = self._options.logs / f"{NAME}.log" if self._options.logs else None
        try:
            self._process = LocalTransport("nst_daemon.workers.ray.driver", join, log)
        except OSError as error:
            self._unsaid += self._ended(now, f"could not be started: {error.strerror}")

    def _send(self, message: messages.Message) -> None:
        if self._process:
            self._process.send(message)

    def _drain(self, now: float) -> list[Event]:
        """Handle all messages that have arrived."""
        assert self._process is not None
        events: list[Event] = []
        try:
            for message in self._process.messages():
                self._heard = now
                events += self._take(message)
        except ValueError as error:
            self._kill(f"sent what cannot be understood ({error})")
        return events

    def _take(self, message: messages.Message) -> list[Event]:
        """Handle one message; the events that it means."""
        match message:
            case messages.Places(slots, workers):
                self._slots, self._workers = slots, workers
            case messages.Leaving():
                self._leaving = message
            case Ready(worker, info):
                self._away, self._infos[worker] = "", dict(info)
                return [message]
            case DeviceLost() | Died(job_id=None):
                return [message]
            case Started() | Progress() | Note() if message.job_id in self._jobs:
                return [message]
            case Staged() | Failed() | Stopped() | Died() if message.job_id in self._jobs:
                del self._jobs[message.job_id]
                return [message]
        return []

    def _enforce(self, now: float) -> None:
        """Replace a process that is silent; it says itself where the cluster is."""
        since = self._spawned if self._heard is None else self._heard
        patience = self._options.start_seconds if self._heard is None else SILENCE
        if now - since > patience:
            self._kill(f"the Ray cluster ({self._cluster.address}): no answer for {patience:g} s")

    def _kill(self, reason: str) -> None:
        if self._process is not None and not self._killed:
            self._killed = reason
            self._process.kill()

    def _bury(self, now: float) -> list[Event]:
        """The process is gone: so is the cluster, for us."""
        assert self._process is not None
        code = self._process.exit_code()
        assert code is not None
        # Ray ends a process whose head or node is gone.
        gone = f"the Ray cluster ({self._cluster.address}) is gone: the process that speaks with it"
        reason = self._killed or f"{gone} {exit_reason(code)}; see ray.log"
        if self._leaving and not self._killed:
            reason = self._leaving.message
        self._process.close(patience=0.0)
        self._process = None
        return self._ended(now, reason)

    def _ended(self, now: float, reason: str) -> list[Event]:
        """Give all jobs back without blame, say once why the cluster is away, and see when to try again."""
        permanent = self._leaving is not None and self._leaving.permanent
        self._start_at = now + (RETRY_PERMANENT if permanent else RETRY)
        self._forget()
        events = self._give_back()
        if reason != self._away:
            self._away = reason
            events.append(DeviceLost(NAME, reason, left=0, permanent=permanent))
        return events

    def _give_back(self) -> list[Event]:
        """Answer all that is left, without blame."""
        jobs, self._jobs = self._jobs, {}
        return [Stopped(NAME, job_id, cancelled=asked) for job_id, asked in jobs.items()]
