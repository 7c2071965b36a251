"""Runs the configured command after each result or failure, for example to send mail.

It is started from a list of arguments and never by a shell, so nothing in a file name can become a command. The job is
described in its environment. The daemon does not wait for it. If the daemon crashes at that moment, it is skipped.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nst_daemon.jobs import Job
from nst_daemon.managed_process import ManagedProcess, child_environment
from nst_daemon.names import printable
from nst_daemon.ops.logs import job_logger

log = logging.getLogger(__name__)

#: At most this many hooks run at once; the others wait.
MAX_RUNNING = 4
#: The log gets this many bytes of what a failed hook has printed.
LOGGED_BYTES = 500
#: Seconds in which the kernel ends a killed process.
REAP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    job: Job
    command: Sequence[str]
    environment: Mapping[str, str]
    timeout: float


@dataclass(slots=True)
class _Running:
    wanted: _Wanted
    process: ManagedProcess


class HookRunner:
    """The hooks that run, and those that wait. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[_Wanted] = deque()
        self._running: list[_Running] = []

    def add(
        self,
        command: Sequence[str],
        job: Job,
        *,
        result: Path | None,
        inputs: Path,
        timeout: float,
        keep: Sequence[str] = (),
    ) -> None:
        """Run a command for a job that has ended; an empty command does nothing.

        Args:
            command: Its arguments.
            job: The job.
            result: The picture, or None.
            inputs: The folder that holds the inputs now.
            timeout: Seconds until the command is killed.
            keep: Variables that it inherits although they look like secrets.
        """
        if command:
            environment = child_environment(keep=keep) | {
                "JOB_ID": job.id,
                "JOB_NAME": printable(job.name),
                "JOB_STATE": job.state.value,
                "JOB_RESULT": str(result) if result else "",
                "JOB_INPUTS": str(inputs),
                "JOB_ERROR": printable(job.error),
            }
            self._waiting.append(_Wanted(job, command, environment, timeout))
            self.tend()

    def tend(self) -> None:
        """Check which hooks have ended, kill those that take too long, and start those that wait."""
        for running in tuple(self._running):
            self._look_after(running)
        while self._waiting and len(self._running) < MAX_RUNNING:
            self._start(self._waiting.popleft())

    def close(self, grace: float) -> None:
        """Wait for all hooks for at most `grace` seconds, then kill those that are left."""
        until = self._clock() + grace
        self.tend()
        while self._running and (left := until - self._clock()) > 0:
            self._running[0].process.wait(min(left, 0.2))
            self.tend()
        if self._waiting:
            log.warning("%d hooks were not run before the daemon stopped", len(self._waiting))
            self._waiting.clear()
        for running in self._running:
            running.process.deadline = -math.inf
        self.tend()

    def _start(self, wanted: _Wanted) -> None:
        deadline = self._clock() + wanted.timeout
        try:
            process = ManagedProcess(
                wanted.command, environment=wanted.environment, capture=True, deadline=deadline
            )
        except (OSError, ValueError) as error:
            _say(wanted, f"could not be started: {error}")
        else:
            self._running.append(_Running(wanted, process))

    def _look_after(self, running: _Running) -> None:
        process = running.process
        if process.overdue(self._clock()):
            process.kill()
            _say(running.wanted, "was killed: it took too long (hooks.timeout)")
        elif (code := process.exit_code()) is None:
            return
        elif code != 0:
            words = " ".join(process.last_output(LOGGED_BYTES).split())
            _say(running.wanted, f"ended with {code}: {words}")
        process.close(REAP_SECONDS)
        self._running.remove(running)


def _say(wanted: _Wanted, what: str) -> None:
    said = job_logger(log, wanted.job.name, wanted.job.id)
    said.warning("the hook %s %s", wanted.command[0], what)
