"""The seam between the daemon and whatever paints: submit a task, poll events, stop.

Everything that crosses it is a small frozen dataclass of plain values, so that it can cross a process border, and
nothing here imports torch. A fake executor that obeys this protocol is how the supervisor is tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nst_daemon.errors import Retry
from nst_daemon.jobs import JobInput


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at one job.

    spool: the job's folder, holding every input under `JobInput.spooled`; stage: an empty folder on the same file
    system as the spool, into which the worker writes the picture and everything beside it; checkpoint: the file that
    the worker may write and resume from; settings: merged, not yet validated (the worker validates them again, with
    the pictures at hand); outputs and limits: those sections of the configuration as plain mappings; preview: the
    JPEG that shows the painting as it is, replaced now and then, None for none.
    """

    job_id: str
    name: str
    attempt: int
    inputs: tuple[JobInput, ...]
    spool: Path
    stage: Path
    checkpoint: Path
    settings: Mapping[str, object]
    outputs: Mapping[str, object] = field(default_factory=dict)
    limits: Mapping[str, object] = field(default_factory=dict)
    preview: Path | None = None
    #: It was in a worker that died, and blame shall be certain, or out of memory: nothing is prepared beside it.
    alone: bool = False


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What every worker of an executor is started with: plain values, checked by whoever read the configuration.

    network, weights: as in the configuration (`vgg19`; `auto`, `imagenet`, `bundled` or a file); settings: the
    render settings that most jobs will have, for which a worker makes itself ready before it says so; cache_dir,
    cache_bytes: where prepared styles are kept and how much room they may take; logs: a folder for what the workers
    print, one file each, begun anew with each start (None: they print to the daemon's own stderr); threads: CPU
    threads per worker, 0 for this machine's cores shared out evenly; checkpoint_seconds: how much painting may be
    lost; stall_seconds: how long a worker may go without progress; start_seconds: how long one may take to load;
    batch: pictures of one size that a worker paints at the same time, 0 for what suits its device and their size;
    max_memory: bytes that a worker on the CPU may use, 0 for what the machine (or its control group) has: asking for
    more is then an error that the worker survives, and not the kernel's reason to kill it; painter: `module:factory`
    of what paints (a `painting.Studio`).
    """

    network: str = "vgg19"
    weights: str = "auto"
    settings: Mapping[str, object] = field(default_factory=dict)
    cache_dir: Path | None = None
    cache_bytes: int = 2 << 30
    logs: Path | None = None
    threads: int = 0
    checkpoint_seconds: float = 60.0
    stall_seconds: float = 300.0
    start_seconds: float = 300.0
    batch: int = 0
    max_memory: int = 0
    painter: str = "nst_daemon.workers.process.renderer:Studio"


@dataclass(frozen=True, slots=True)
class RayOptions:
    """A Ray cluster, and what each worker takes of it; `config.Ray` explains the keys."""

    address: str = "auto"
    gpus_per_job: float = 1.0
    cpus_per_job: float = 2.0
    max_in_flight: int = 64


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its model. `info`: device, precision, weights, versions."""

    worker: str
    info: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun to work on the job (loading it or painting it)."""

    worker: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The painting went on: `done` of `total` iterations, `loss` the newest total loss.

    memory: bytes of its own memory that the device has given to this worker, 0 for the CPU.
    """

    worker: str
    job_id: str
    done: int
    total: int
    loss: float
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Staged:
    """The picture is durable in the stage folder.

    files: names inside it, the picture last; sha256: digest of the picture.
    """

    worker: str
    job_id: str
    files: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt ended without a picture. message: one line for people; detail: a traceback."""

    worker: str
    job_id: str
    retry: Retry
    message: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The attempt was interrupted on request; what was painted so far is in the checkpoint."""

    worker: str
    job_id: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Died:
    """A worker ended without being asked: job_id is what it was working on, if anything.

    What it was merely preparing is answered by `Stopped`: it goes back into the queue without blame.
    """

    worker: str
    job_id: str | None
    reason: str  # for people: "was killed by signal 9 (SIGKILL)", "made no progress for 120 s"
    detail: str = ""  # the end of what it printed: a crash's Python stack, a library's last words


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the job that people may want to know, in one line; the sidecar says it as well."""

    worker: str
    job_id: str
    message: str


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """A device has failed again and again and gets no jobs; it is tried again now and then (`Ready` if it works).

    left: how many devices still work; 0 means that nothing can be painted. permanent: another start fails in the
    same way until a person mends something (the weights are missing, say).
    """

    worker: str
    reason: str
    left: int
    permanent: bool = False


Event = Ready | Started | Progress | Staged | Failed | Stopped | Died | Note | DeviceLost


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What one worker is doing, for status pages and watchdogs.

    state: `starting`, `idle`, `painting`, `waiting` (ended, to be started again after a pause) or `lost`;
    jobs: in the order of their beginning; silent: seconds since it last answered, None before it ever did.
    """

    worker: str
    state: str
    pid: int | None
    jobs: tuple[str, ...]
    silent: float | None
    info: Mapping[str, object]


def state_of(*, lost: bool, begun: bool, ready: bool, busy: bool) -> str:
    """The `WorkerStatus.state` of a worker that is given up, has begun to start, can paint, and has jobs."""
    if lost:
        return "lost"
    if not begun:
        return "waiting"
    if not ready:
        return "starting"
    return "painting" if busy else "idle"


class Executor(Protocol):
    """Whatever runs tasks. No method blocks, except `stop`, for at most its grace."""

    def start(self) -> None:
        """Begin to start the workers; each announces itself by `Ready`."""

    def capacity(self) -> int:
        """How many more tasks `submit` takes now (one that runs and one to prepare, per worker)."""

    def submit(self, task: Task) -> None:
        """Hand over a task; exactly one of Staged, Failed, Stopped or Died answers it."""

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job; `Stopped(cancelled=True)` answers, or what came before it."""

    def poll(self, now: float) -> list[Event]:
        """All events since the last call; enforces deadlines against `now` (monotonic seconds)."""

    def waitables(self) -> Sequence[object]:
        """Objects for `multiprocessing.connection.wait` that become ready when `poll` has news."""

    def status(self, now: float) -> Sequence[WorkerStatus]:
        """What each worker is doing."""

    def stop(self, grace: float) -> list[Event]:
        """Checkpoint and end all workers within `grace` seconds; the last events."""
