"""Checks the pictures of drops by decoding them in a process of its own (`workers.process.picture_check`).

The process is started when there is something to check, and ended after some idle time, so that an idle daemon stays
small. Decoders may crash or hang there. A job whose pictures crash it twice fails. If it hangs, or ends in another way,
a worker decodes them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nst_daemon.config import Limits
from nst_daemon.jobs import PICTURE_ROLES, Job
from nst_daemon.names import printable
from nst_daemon.units import duration
from nst_daemon.workers.local import LocalTransport
from nst_daemon.workers.messages import Alive, Check, Checked, encode
from nst_daemon.workers.supervised import Transport

log = logging.getLogger(__name__)

CHECKING_MODULE = "nst_daemon.workers.process.picture_check"
#: A job is not checked again after its check has ended the process, or has taken too long, this many times.
MOST_FAILURES = 2
#: Seconds until the next attempt where the process could not be started.
RESTART_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class CheckDeadlines:
    """Limits of the process, in seconds: to load, for each file of a job, and without work."""

    start: float = 120.0
    file: float = 60.0
    idle: float = 60.0


class PictureCheck(Protocol):
    """Decodes the pictures of jobs. No method blocks, except `stop`."""

    @property
    def waiting(self) -> int:
        """How many jobs are not answered yet."""

    def ask(self, job: Job, spool: Path, limits: Limits, now: float) -> Checked | None:
        """The answer for a job, None as long as there is none.

        Args:
            job: It has its inputs in `spool`.
            spool: The job's folder.
            limits: For its pictures.
            now: Monotonic seconds.
        """

    def forget(self, job_id: str) -> None:
        """The answer for this job is not needed any more."""

    def poll(self, now: float) -> None:
        """Take answers, enforce deadlines, start and end the process. now: monotonic seconds."""

    def waitables(self) -> list[object]:
        """Objects for `multiprocessing.connection.wait` that become ready when `poll` has something to do."""

    def stop(self) -> None:
        """End the process at once; what is not answered is sent again when it is asked for."""


@dataclass(slots=True)
class _Pending:
    check: Check
    failures: int = 0


class DecodingCheck:
    """The real `PictureCheck`.

    Args:
        spawn: Starts the process with its first message; raises OSError.
        deadlines: How long it may take.
    """

    def __init__(
        self, spawn: Callable[[Check], Transport], deadlines: CheckDeadlines = CheckDeadlines()
    ) -> None:
        self._spawn, self._deadlines = spawn, deadlines
        self._process: Transport | None = None
        self._loaded = False
        #: When the process began to load, began with its present job, or became idle, in monotonic seconds.
        self._since = 0.0
        self._pending: dict[str, _Pending] = {}  # the one that is being checked first
        self._answers: dict[str, Checked] = {}
        self._failed_starts = 0  # in a row
        self._start_at = -math.inf
        self._broken = ""  # why the process cannot be started, once that is logged

    @classmethod
    def on_this_machine(cls, logs: Path) -> DecodingCheck:
        """The process as a child of this one. logs: the folder for what it prints."""
        log_file = logs / "decoding.log"
        return cls(lambda first: LocalTransport(CHECKING_MODULE, first, log_file))

    @property
    def waiting(self) -> int:
        """How many jobs are not answered yet."""
        return len(self._pending)

    def ask(self, job: Job, spool: Path, limits: Limits, now: float) -> Checked | None:
        """The answer for a job, None as long as there is none (see `PictureCheck`)."""
        if job.id in self._answers or job.id in self._pending:
            return self._answers.get(job.id)
        check = Check(
            job.id, spool, tuple(f for f in job.inputs if f.role in PICTURE_ROLES), limits
        )
        try:
            encode(check)
        except ValueError as error:
            self._answers[job.id] = Checked(job.id, undecided=str(error))
            return self._answers[job.id]
        if not self._pending and self._loaded:
            self._since = now
        self._pending[job.id] = _Pending(check)
        if self._process is not None:
            self._process.send(check)
        else:
            self._start(now)
        return self._answers.get(job.id)

    def forget(self, job_id: str) -> None:
        """The answer for this job is not needed any more."""
        self._answers.pop(job_id, None)
        self._pending.pop(job_id, None)

    def poll(self, now: float) -> None:
        """Take answers, enforce deadlines, start and end the process. now: monotonic seconds."""
        if self._process is not None:
            ended = self._process.ended()  # before the messages: none follows the end
            fault = self._receive(now) or (ended.reason if ended else self._overdue(now))
            if fault:
                self._lost(fault, now, crashed=ended is not None and ended.crashed)
            elif not self._pending and now - self._since > self._deadlines.idle:
                self._end()
        if self._process is None and self._pending:
            self._start(now)

    def waitables(self) -> list[object]:
        """Ready when there are answers, or when the process has ended."""
        return self._process.waitables() if self._process else []

    def stop(self) -> None:
        """End the process at once, and forget what was asked."""
        self._pending.clear()
        self._answers.clear()
        self._end()

    def _start(self, now: float) -> None:
        """Start the process and send it all that is pending; without a process, all of that is undecided."""
        if now < self._start_at:
            self._give_up(self._broken, now)
            return
        first, *rest = (pending.check for pending in self._pending.values())
        try:
            self._process = self._spawn(first)
        except OSError as error:
            self._give_up(f"could not be started: {error.strerror or error}", now)
            return
        self._loaded, self._since = False, now
        for check in rest:
            self._process.send(check)

    def _receive(self, now: float) -> str:
        """Take what has arrived; what is wrong with it, for people."""
        assert self._process is not None
        try:
            for message in self._process.messages():
                if isinstance(message, Alive):
                    self._loaded, self._since = True, now
                    self._failed_starts, self._broken = 0, ""
                elif isinstance(message, Checked):
                    self._since = now
                    self._answer(message)
        except (OSError, ValueError) as error:
            return f"sent an invalid message ({error})"
        return ""

    def _answer(self, answer: Checked) -> None:
        if self._pending.pop(answer.job_id, None):
            self._answers[answer.job_id] = answer
            if answer.undecided:
                said = "the pictures of job %s were not checked before it was queued: %s"
                log.info(said, answer.job_id, answer.undecided)

    def _overdue(self, now: float) -> str:
        """Which deadline has passed, for people; "" for none."""
        waited = now - self._since
        if not self._loaded:
            late = waited > self._deadlines.start
            return f"did not start within {duration(waited)}" if late else ""
        for head in self._pending.values():
            if waited > self._deadlines.file * max(1, len(head.check.inputs)):
                return f"did not finish a check within {duration(waited)}"
            break
        return ""

    def _lost(self, fault: str, now: float, *, crashed: bool) -> None:
        """The process has ended or must end: blame the job that it was checking.

        A file that crashes its decoder would crash a worker, too: such a job fails.
        """
        self._end()
        if not self._loaded:
            self._failed_starts += 1
            if self._failed_starts >= MOST_FAILURES:
                self._give_up(fault, now)
            return
        if not self._pending:
            log.info("the process that checks pictures %s", fault)
            return
        job_id, head = next(iter(self._pending.items()))
        head.failures += 1
        names = ", ".join(printable(file.name) for file in head.check.inputs)
        said = f"decoding {names} crashes: the process {fault}, {head.failures} times"
        fault = f"the process that checks them {fault}"
        if head.failures >= MOST_FAILURES and crashed:
            self._answer(Checked(job_id, reason=f"{said}; save the picture in another format"))
        elif head.failures >= MOST_FAILURES:
            self._answer(Checked(job_id, undecided=fault))
        else:  # the others first
            log.info("the pictures of job %s are checked again: %s", job_id, fault)
            self._pending[job_id] = self._pending.pop(job_id)

    def _give_up(self, reason: str, now: float) -> None:
        """Leave everything to the workers, and try to start the process again later."""
        if not self._broken:
            said = "pictures are queued without a check: the process that checks them %s"
            log.warning(said, reason)
        if now >= self._start_at:
            self._start_at = now + RESTART_SECONDS
        self._broken, self._failed_starts = reason, 0
        for job_id in self._pending:
            self._answers[job_id] = Checked(job_id, undecided=reason)
        self._pending.clear()

    def _end(self) -> None:
        """Kill the process; it keeps nothing that would be lost."""
        if self._process is not None:
            self._process.kill()
            self._process.close(patience=1.0)
            self._process = None
