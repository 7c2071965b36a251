"""What runs tasks, as the daemon sees it: the protocol, and the executor that the configuration selects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from nst_daemon.config import Config
from nst_daemon.workers.messages import Event, Task, WorkerOptions


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What one worker is doing, for status pages and watchdogs.

    Args:
        state: `starting`, `idle`, `painting`, `waiting` (for the next start, or for room) or `lost`.
        pid: Of a process on this machine, else None.
        jobs: Their ids, in the order of their hand-over.
        silent: Seconds since its last message; None before the first.
        info: As in `messages.Ready`.
        note: What it is loading, or why it is not at work; "" while it is.
    """

    worker: str
    state: str
    pid: int | None
    jobs: tuple[str, ...]
    silent: float | None
    info: Mapping[str, object]
    note: str = ""


class Executor(Protocol):
    """What runs tasks. No method blocks, except `stop`, for at most its grace."""

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


def make_executor(config: Config, *, await_device: bool = True) -> Executor:
    """The workers of this machine or of a cluster.

    Args:
        config: The configuration.
        await_device: Whether a device that is missing may still appear, because its driver loads late.

    Raises:
        ConfigError: Ray is asked for and not installed.
    """
    options = WorkerOptions(
        network=config.model.network,
        weights=config.model.weights,
        settings=config.render_settings(),
        cache_dir=config.folders.cache,
        cache_bytes=config.cache.max_bytes,
        logs=config.folders.logs,
        checkpoint_seconds=config.service.checkpoint_seconds,
        stall_seconds=config.service.stall_seconds,
        await_device=await_device,
        max_memory=config.limits.max_memory,
    )
    if config.executor == "ray":
        from nst_daemon.workers.ray.executor import RayExecutor  # noqa: PLC0415 (an extra)

        return RayExecutor(config.ray, options)
    from nst_daemon.workers.local import LocalExecutor  # noqa: PLC0415 (only where it is used)

    threads = 0 if config.threads == "auto" else config.threads
    return LocalExecutor(config.devices, replace(options, threads=threads))
