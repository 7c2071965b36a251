"""A worker: one process, one device, a resident model, picture after picture.

It has four threads. The main thread paints. `_listen` receives messages and sends `Alive`. `_prepare` loads the model
and prepares the next job while this one is painted. `_stage` writes a finished picture while the next one is painted.
Only the main thread reports progress, so that a process that lives but does not paint is noticed.
"""

from __future__ import annotations

import importlib
import logging
import os
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

from nst_daemon import machine, managed_process
from nst_daemon.config import MINIMUM_MEMORY
from nst_daemon.engine.device_names import OPEN
from nst_daemon.errors import (
    Cancelled,
    DeviceError,
    InputError,
    NoDevice,
    NstError,
    OutOfMemory,
    Retry,
)
from nst_daemon.unexpected import kind_and_message
from nst_daemon.units import size
from nst_daemon.workers import messages
from nst_daemon.workers.messages import Failed, Ready, Staged, Started, Stopped, Task
from nst_daemon.workers.process.attempt import Attempt
from nst_daemon.workers.process.loading import LoadingReports
from nst_daemon.workers.process.protocols import (
    PreparedProtocol,
    RendererFactory,
    RendererProtocol,
)
from nst_daemon.workers.process.staging import FinishedAttempt

#: Seconds between two `Alive` messages.
ALIVE_SECONDS = 1.0
#: The exit status when the daemon is gone.
ORPHANED = 1


@dataclass(eq=False, slots=True)
class _Job:
    """A task on its way through this process."""

    task: Task
    prepared: PreparedProtocol | None = None
    prepare_seconds: float = 0.0
    taken: bool = False  # by the thread that paints
    announced: bool = False
    cancelled: bool = False


class Worker:
    """One worker, from `Hello` to its end. end: the worker's end of the daemon's socket."""

    def __init__(self, end: socket.socket, hello: messages.Hello) -> None:
        self._end = end
        self._name = hello.worker
        self._device = hello.device
        self._options = hello.options
        self._sending = threading.Lock()
        self._changed = threading.Condition()  # guards _jobs and the flags of its jobs
        # First those that are staged, then the one that is painted, the one that is prepared, and those that wait.
        self._jobs: list[_Job] = []
        self._stager = ThreadPoolExecutor(1, "stage")
        self._stopping = False
        self._ready = False
        self._leaving: messages.Leaving | None = None  # why this process must be replaced
        self._device_note: dict[str, object] = {}  # why the CPU is used, if no device was named
        self._loading = LoadingReports(self._name, self._say)

    def run(self) -> None:
        """Load, then paint until told to stop, or until the device fails."""
        for target in (self._listen, self._prepare):
            threading.Thread(target=target, name=target.__name__[1:], daemon=True).start()
        while (job := self._next()) is not None:
            self._work(job)
        self._release()

    def stop(self) -> None:
        """Checkpoint what is being painted, then end. May be called from a signal handler."""
        if not self._ready:
            os._exit(0)
        self._stopping = True
        with self._changed:
            self._changed.notify_all()

    # The threads besides the one that paints

    def _listen(self) -> None:
        """Receive the daemon's messages; send `Alive`, and `Loading` as long as that advances."""
        while True:
            readable, _, _ = select.select([self._end], [], [], ALIVE_SECONDS)
            if not readable:
                self._say(messages.Alive())
                if not self._ready:
                    self._loading.beat()
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
                    # The daemon is gone. A new one may already have given the job to another worker, and two workers
                    # must not write the same files.
                    os._exit(ORPHANED)

    def _prepare(self) -> None:
        """Load the model, then prepare jobs, one after the other."""
        thread = threading.get_native_id()
        with suppress(OSError):
            # On Linux a niceness applies to the thread and the threads that it starts: onnxruntime's. Painting has
            # precedence; preparing has as much time as a whole picture takes.
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + 10)
        try:
            self._renderer: RendererProtocol = self._load()
            self._info = {**self._renderer.info(), **self._device_note}
        except Exception as error:  # noqa: BLE001 (the daemon must be told of any error)
            self._leave(_no_start(error, await_device=self._options.await_device))
            return
        self._say(Ready(self._name, self._info))
        self._ready = True
        while True:
            job = self._wait_for_unprepared()
            began = time.monotonic()
            try:
                prepared = self._renderer.prepare(job.task)
            except Exception as error:  # noqa: BLE001 (an error of a job does not end the worker)
                self._fail(job, error)
            else:
                with self._changed:
                    job.prepare_seconds = time.monotonic() - began
                    job.prepared = prepared
                    self._changed.notify_all()

    def _wait_for_unprepared(self) -> _Job:
        """The next job to prepare, once no prepared one waits to be painted: each takes memory."""
        with self._changed:
            while (job := self._first_waiting()) is None or job.prepared is not None:
                self._changed.wait()
            return job

    def _cancel(self, job_id: str) -> None:
        """End the job: at once if it is not painted yet, else after the current step."""
        with self._changed:
            job = next((job for job in self._jobs if job.task.job_id == job_id), None)
            if job is None:
                return
            job.cancelled = True
            if not job.taken:
                self._answer(job, Stopped(self._name, job_id, cancelled=True))

    # The thread that paints

    def _load(self) -> RendererProtocol:
        """Make the renderer, on the device that was named or is found."""
        options, device = self._options, self._device
        if options.cache_dir:
            # matplotlib's search for fonts takes seconds; a service has no home folder to keep the result in.
            os.environ.setdefault("MPLCONFIGDIR", str(options.cache_dir / "matplotlib"))
        self._loading.report("importing torch")
        if device in OPEN:
            from nst_daemon.engine.device import find_devices, has_nvidia_gpu, no_gpu_reason  # noqa: PLC0415 (torch)

            devices = find_devices(device)
            if devices == ("cpu",):
                why = f"the CPU is used, because no GPU is available: {no_gpu_reason()}"
                self._device_note = {"no_gpu": why, "unused_gpu": has_nvidia_gpu()}
            self._say(messages.Devices(devices))
            device = self._name = devices[0]
            threads = options.threads or machine.threads_per_worker(len(devices))
            options = replace(options, threads=threads)
        if device == "cpu":
            machine.limit_memory(options.max_memory)
        return load_factory(options.renderer)(options, device, self._loading.report)

    def _next(self) -> _Job | None:
        """The next job, once it can be painted; None when it is time to end."""
        with self._changed:
            while not self._stopping and self._leaving is None:
                job = self._first_waiting()
                if job is not None and job.prepared is not None:
                    job.taken = True
                    self._announce(job)
                    return job
                # A signal may set _stopping just before this.
                notified = self._changed.wait(ALIVE_SECONDS)
                if not notified and not self._jobs:
                    machine.trim_heap()  # the last picture is written by now
        return None

    def _first_waiting(self) -> _Job | None:
        """The first job that is not taken yet; of those that follow, none is prepared."""
        return next((job for job in self._jobs if not job.taken), None)

    def _work(self, job: _Job) -> None:
        """Paint one job. It is answered in any case, here or in `_stage`."""
        try:
            end = self._paint(job)
        except Exception as error:  # noqa: BLE001 (an error of a job does not end the worker)
            self._fail(job, error)
        else:
            if isinstance(end, FinishedAttempt):
                self._stager.submit(self._stage, job, end)
            else:
                self._answer(job, end)

    def _stage(self, job: _Job, finished: FinishedAttempt) -> None:
        """Write the picture, and answer in any case."""
        try:
            self._answer(job, finished.stage())
        except Exception as error:  # noqa: BLE001 (an error of a job does not end the worker)
            self._fail(job, error)

    def _paint(self, job: _Job) -> FinishedAttempt | Stopped:
        """Paint a prepared job; Stopped if it was interrupted."""
        assert job.prepared is not None
        attempt = Attempt(
            self._renderer,
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
        return attempt.run()

    def _release(self) -> None:
        """Return what is left, without blame, and say why the worker ends if the daemon did not ask for it."""
        self._stager.shutdown(wait=True)
        with self._changed:
            for job in tuple(self._jobs):
                self._answer(job, Stopped(self._name, job.task.job_id, cancelled=job.cancelled))
        if self._leaving is not None:
            self._say(self._leaving)

    def _leave(self, why: messages.Leaving) -> None:
        """End after the picture that is being painted."""
        with self._changed:
            self._leaving = why
            self._changed.notify_all()

    def _fail(self, job: _Job, error: Exception) -> None:
        """Answer for a job that ended with an exception."""
        if isinstance(error, Cancelled):
            self._answer(job, Stopped(self._name, job.task.job_id, cancelled=True))
            return
        known = error if isinstance(error, NstError) else self._renderer.explain(error)
        if known is None:
            message = f"unexpected error: {kind_and_message(error)}"
            failed = Failed(self._name, job.task.job_id, Retry.NEVER, message, _trace(error))
        else:
            detail = "" if isinstance(known, InputError) else _trace(error)
            failed = Failed(self._name, job.task.job_id, known.retry, str(known), detail)
        if isinstance(known, DeviceError) and not isinstance(known, OutOfMemory):
            self._leave(messages.Leaving(str(known), permanent=False))
        self._answer(job, failed)

    # Messages to the daemon

    def _answer(self, job: _Job, answer: Staged | Failed | Stopped) -> None:
        """Say how a job ended, once."""
        with self._changed:
            if job not in self._jobs:
                return
            self._jobs.remove(job)
            self._say(answer)
            if self._jobs:
                self._announce(self._jobs[0])

    def _announce(self, job: _Job) -> None:
        """Say that work on a job begins, before it does, so that a crash can be blamed on it."""
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


def _no_start(error: Exception, *, await_device: bool) -> messages.Leaving:
    """Why the worker cannot start. An error that no retry changes is permanent."""
    message = str(error) if isinstance(error, NstError) else kind_and_message(error)
    if machine.lacks_memory(error):
        message = (
            f"there is not enough memory: it needs at least {size(MINIMUM_MEMORY)} and may use "
            f"{size(machine.memory_limit())}; raise limits.max_memory or the control group's limit"
        )
    retry = error.retry if isinstance(error, NstError) else None
    return messages.Leaving(
        f"could not start: {message}",
        permanent=retry is Retry.NEVER or (isinstance(error, NoDevice) and not await_device),
        detail=_trace(error),
        disk=retry is Retry.PAUSED,
    )


def _trace(error: BaseException) -> str:
    """The end of its traceback."""
    return "".join(traceback.format_exception(error))[-messages.TEXT_LIMIT :]


def load_factory(path: str) -> RendererFactory:
    """What `module:factory` names."""
    module, _, name = path.partition(":")
    found: RendererFactory = getattr(importlib.import_module(module), name)
    return found


def main() -> None:
    """Serve the daemon at the other end of the descriptor that the first argument names."""
    end = managed_process.begin()
    machine.end_first()
    machine.wait_briefly()  # before torch is imported
    machine.keep_freed_memory()
    hello = messages.receive(end)
    if not isinstance(hello, messages.Hello):
        sys.exit("only nst-daemon itself starts this")
    worker = Worker(end, hello)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()
    logging.shutdown()
    # Threads may be in native code, and destructors of libraries have crashed then.
    os._exit(0)


if __name__ == "__main__":
    main()
