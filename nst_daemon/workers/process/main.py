"""A worker: one process, one device, a resident model, picture after picture.

Four threads, or more. The main thread paints; where pictures of one size are painted side by side, others do so too.
`_listen` hears what the daemon says, and tells it that the process lives. `_prepare` loads the model, and makes the
next job ready while this one is painted. `_stage` writes a finished picture while the next one is painted. Only those
that paint report progress: a process that lives and paints nothing must not look well.
"""

from __future__ import annotations

import importlib
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from nst_daemon import managed_process
from nst_daemon.errors import Cancelled, DeviceError, NstError, OutOfMemory, Retry
from nst_daemon.workers import messages
from nst_daemon.workers.messages import Failed, Ready, Staged, Started, Stopped, Task, WorkerOptions
from nst_daemon.workers.process.attempt import Company, Painting, Prepared, Studio
from nst_daemon.workers.process.staging import Finished

#: Seconds between two signs of life.
HEARTBEAT = 1.0
#: The daemon is gone. Nobody reads this status.
ORPHANED = 1


class Factory(Protocol):
    """What makes a `Studio` for a device."""

    def __call__(self, options: WorkerOptions, device: str, /) -> Studio:
        """Load everything that is resident. Raises NstError."""

    def provisioning(self, options: WorkerOptions, /) -> messages.Provisioning:
        """What the same studio needs on another machine. Raises NstError."""


@dataclass(eq=False, slots=True)
class _Job:
    """A task on its way through this process."""

    task: Task
    prepared: Prepared | None = None
    prepare_seconds: float = 0.0
    company: Company = Company()  # what it may be painted beside
    taken: bool = False  # to be painted
    painting: bool = False
    announced: bool = False
    cancelled: bool = False


class Worker:
    """The life of a worker, from the daemon's greeting to its end. end: our end of the wire."""

    def __init__(self, end: socket.socket, hello: messages.Hello) -> None:
        self._end = end
        self._name = hello.worker
        self._device = hello.device
        self._options = hello.options
        self._sending = threading.Lock()
        self._changed = threading.Condition()  # guards _jobs and the flags of its jobs
        # Staged, painted, prepared: in this order, and as far as there are so many.
        self._jobs: list[_Job] = []
        self._stager = ThreadPoolExecutor(1, "stage")
        self._painters: list[threading.Thread] = []  # beside the main thread
        self._wanted = 2  # tasks at once, as the daemon knows
        self._stopping = False
        self._ready = False
        self._leaving: messages.Leaving | None = None  # why this process must be replaced

    def run(self) -> None:
        """Load, then paint until told to stop, or until the device fails."""
        for target in (self._listen, self._prepare):
            threading.Thread(target=target, name=target.__name__[1:], daemon=True).start()
        self._paint_all()
        for painter in self._painters:
            painter.join()
        self._release()

    def stop(self) -> None:
        """Checkpoint what is being painted, then end. May be called from a signal handler."""
        if not self._ready:
            os._exit(0)
        self._stopping = True
        with self._changed:
            self._changed.notify_all()

    # The threads beside the painting

    def _listen(self) -> None:
        """Hear what the daemon says; tell it that we live."""
        while True:
            heard, _, _ = select.select([self._end], [], [], HEARTBEAT)
            if not heard:
                self._say(messages.Alive())
                continue
            match messages.receive(self._end):
                case Task() as task:
                    with self._changed:
                        self._jobs.append(_Job(task))
                        self._announce(self._jobs[0])
                case messages.Cancel(job_id):
                    self._cancel(job_id)
                case messages.Stop():
                    self.stop()
                case None:
                    # The daemon is gone, and a new one may already have given our job to another worker: whatever we
                    # still wrote would be in its way.
                    os._exit(ORPHANED)

    def _prepare(self) -> None:
        """Load the model, then make jobs ready, one after the other."""
        thread = threading.get_native_id()
        with suppress(OSError):
            # On Linux the niceness belongs to the thread, and to those that it starts: onnxruntime's. Painting, in the
            # main thread, goes first; preparing has a whole picture's time.
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 10)
        try:
            self._studio: Studio = self._load()
            self._info = dict(self._studio.info())
        except Exception as error:  # noqa: BLE001 (whatever it is, the daemon has to hear of it)
            self._leave(_no_start(error))
            return
        self._say(Ready(self._name, self._info))
        self._ready = True
        while True:
            job = self._wait_for_unprepared()
            began = time.monotonic()
            try:
                prepared = self._studio.prepare(job.task)
                company = self._studio.company(prepared)
            except Exception as error:  # noqa: BLE001 (any failure is the job's, not the worker's)
                self._fail(job, error)
            else:
                with self._changed:
                    job.prepare_seconds = time.monotonic() - began
                    job.company, job.prepared = company, prepared
                    self._changed.notify_all()

    def _wait_for_unprepared(self) -> _Job:
        with self._changed:
            while True:
                ready = [job for job in self._jobs if job.prepared is not None and not job.taken]
                # No more than are painted at a time: each takes memory.
                if len(ready) < max((job.company.most for job in ready), default=1):
                    for job in self._jobs:
                        if job.prepared is None:
                            return job
                self._changed.wait()

    def _cancel(self, job_id: str) -> None:
        """End the job: at once where it is not painted yet, else after the step that is being taken."""
        with self._changed:
            job = next((job for job in self._jobs if job.task.job_id == job_id), None)
            if job is None:
                return
            job.cancelled = True
            if not job.taken:
                self._answer(job, Stopped(self._name, job_id, cancelled=True))

    # The main thread

    def _load(self) -> Studio:
        """Make the studio, on the device that was named or is found."""
        options, device = self._options, self._device
        if options.cache_dir:
            # matplotlib looks for fonts once, which takes seconds; a service has no home to remember them in.
            os.environ.setdefault("MPLCONFIGDIR", str(options.cache_dir / "matplotlib"))
        if device == "auto":
            from nst_daemon.engine.device import all_devices  # noqa: PLC0415 (torch is slow to import)

            devices = all_devices()
            self._say(messages.Devices(devices))
            device = self._name = devices[0]
            cores = len(os.sched_getaffinity(0))
            threads = options.threads or max(1, cores // len(devices))
            options = replace(options, threads=threads)
        if device == "cpu":
            # Not RLIMIT_AS, which counts what is merely mapped; and not for a GPU, whose driver maps all of its memory.
            limit = options.max_memory or _machine_memory()
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        return factory(options.painter)(options, device)

    def _paint_all(self) -> None:
        """Paint job after job until it is time to end."""
        while (job := self._next()) is not None:
            self._work(job)

    def _next(self) -> _Job | None:
        """The next job, once it can be painted; None when it is time to end."""
        with self._changed:
            while not self._stopping and self._leaving is None:
                job = next((job for job in self._jobs if not job.taken), None)
                if job is not None and self._goes_along(job):
                    job.taken = job.painting = True
                    self._announce(job)
                    self._make_room(job.company.most)
                    return job
                self._changed.wait(
                    HEARTBEAT
                )  # a signal may set _stopping between the test and this
        return None

    def _goes_along(self, job: _Job) -> bool:
        """Is it prepared, and may it be painted beside what is being painted?"""
        beside = [other for other in self._jobs if other.painting]
        if job.prepared is None or len(beside) >= job.company.most:
            return False
        return all(other.company == job.company for other in beside)

    def _make_room(self, most: int) -> None:
        """So many are painted side by side now: have a painter for each, and ask for tasks, one of them to prepare."""
        while len(self._painters) < most - 1:
            painter = threading.Thread(target=self._paint_all, name="paint", daemon=True)
            self._painters.append(painter)
            painter.start()
        if self._wanted != most + 1:
            self._wanted = most + 1
            self._say(messages.Room(self._wanted))

    def _work(self, job: _Job) -> None:
        """Paint one job; whatever happens, it is answered for, here or once it is staged."""
        try:
            end = self._paint(job)
        except Exception as error:  # noqa: BLE001 (any failure is the job's, not the worker's)
            self._fail(job, error)
        else:
            if isinstance(end, Finished):
                self._stager.submit(self._stage, job, end)
            else:
                self._answer(job, end)
        with self._changed:
            job.painting = False
            self._changed.notify_all()

    def _stage(self, job: _Job, finished: Finished) -> None:
        """Write the picture, and answer for it whatever happens."""
        try:
            self._answer(job, finished.stage())
        except Exception as error:  # noqa: BLE001 (any failure is the job's, not the worker's)
            self._fail(job, error)

    def _paint(self, job: _Job) -> Finished | Stopped:
        """From the prepared job to the finished picture, or to the checkpoint where it is interrupted."""
        assert job.prepared is not None
        painting = Painting(
            self._studio,
            job.task,
            job.prepared,
            worker=self._name,
            info=self._info,
            checkpoint_seconds=self._options.checkpoint_seconds,
            prepare_seconds=job.prepare_seconds,
            say=self._say,
            cancelled=lambda: job.cancelled,
            stopping=lambda: self._stopping,
        )
        return painting.run()

    def _release(self) -> None:
        """Give back what is left, without blame, and say why we leave where nobody asked for it."""
        self._stager.shutdown(wait=True)
        with self._changed:
            for job in tuple(self._jobs):
                self._answer(job, Stopped(self._name, job.task.job_id, cancelled=job.cancelled))
        if self._leaving is not None:
            self._say(self._leaving)

    def _leave(self, why: messages.Leaving) -> None:
        """End once the main thread is done with what it paints."""
        with self._changed:
            self._leaving = why
            self._changed.notify_all()

    def _fail(self, job: _Job, error: Exception) -> None:
        """Answer for a job that ended with an exception."""
        if isinstance(error, Cancelled):
            self._answer(job, Stopped(self._name, job.task.job_id, cancelled=True))
            return
        known = error if isinstance(error, NstError) else self._studio.explain(error)
        if known is None:
            message = f"unexpected error: {_line(error)}"
            failed = Failed(self._name, job.task.job_id, Retry.NEVER, message, _trace(error))
        else:
            failed = Failed(self._name, job.task.job_id, known.retry, str(known), _trace(error))
        if isinstance(known, DeviceError) and not isinstance(known, OutOfMemory):
            self._leave(messages.Leaving(str(known), permanent=False))
        self._answer(job, failed)

    # Speaking

    def _answer(self, job: _Job, answer: Staged | Failed | Stopped) -> None:
        """Say how a job ended, once; it is no longer ours."""
        with self._changed:
            if job not in self._jobs:
                return
            self._jobs.remove(job)
            self._say(answer)
            if self._jobs:
                self._announce(self._jobs[0])

    def _announce(self, job: _Job) -> None:
        """Say that a job has come to the head or is painted: before, so that it can be blamed for a crash."""
        if not job.announced:
            job.announced = True
            self._say(Started(self._name, job.task.job_id))
        self._changed.notify_all()

    def _say(self, message: messages.Message) -> None:
        try:
            with self._sending:
                messages.send(self._end, message)
        except OSError:
            os._exit(ORPHANED)


def _no_start(error: Exception) -> messages.Leaving:
    """Why nothing can be painted. What an NstError calls permanent is not mended by another start."""
    message = str(error) if isinstance(error, NstError) else _line(error)
    permanent = isinstance(error, NstError) and error.retry is Retry.NEVER
    return messages.Leaving(f"could not start: {message}", permanent, _trace(error))


def _line(error: BaseException) -> str:
    """Its type and the first line of what it says."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:500]


def _trace(error: BaseException) -> str:
    """The end of its traceback."""
    return "".join(traceback.format_exception(error))[-messages.TEXT_LIMIT :]


def _machine_memory() -> int:
    """Bytes of memory that this machine has, or that the control groups which this process is in may use."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        folder = Path("/sys/fs/cgroup") / group
        for place in (folder, *folder.parents):
            with suppress(
                OSError, ValueError
            ):  # no such file at the top, "max" where there is no limit
                limits.append(int((place / "memory.max").read_text()))
    return min(limits)


def factory(path: str) -> Factory:
    """What `module:factory` names."""
    module, _, name = path.partition(":")
    found: Factory = getattr(importlib.import_module(module), name)
    return found


def main() -> None:
    """Serve the daemon at the other end of the descriptor that the first argument names."""
    end = managed_process.begin()
    hello = messages.receive(end)
    if not isinstance(hello, messages.Hello):
        sys.exit("this is started by nst-daemon itself")
    worker = Worker(end, hello)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()
    logging.shutdown()
    # Threads may be deep in native code, and libraries' own destructors have crashed over that; nothing is left to do.
    os._exit(0)


if __name__ == "__main__":
    main()
