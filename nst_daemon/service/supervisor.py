"""The daemon's loop: `Supervisor.step` does one round, and between rounds everything that matters is in the ledger.

A round answers the workers' events, finishes what is staged or has ended, takes in what has settled, and hands queued
jobs to the workers that have room. It never blocks for long and never paints. `loop.serve` calls it again and again,
and waits in between for news from a worker, the kernel, a signal or the clock.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from typing import Any

from nst_daemon.config import Config
from nst_daemon.errors import ConfigError, DeviceError, StorageError
from nst_daemon.intake.expansion import Expansion
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.service.admission import Admission
from nst_daemon.service.chores import Chores
from nst_daemon.service.completion import Completion
from nst_daemon.service.dispatch import Dispatch, Observer
from nst_daemon.service.housekeeping import Housekeeping
from nst_daemon.service.live_status import LiveStatus
from nst_daemon.service.previews import Previews
from nst_daemon.service.recovery import recover
from nst_daemon.service.reporting import Reporting
from nst_daemon.service.state import Moment, Pacing, State, make_metrics
from nst_daemon.service.status_page import StatusPage
from nst_daemon.web.options import PageOptions
from nst_daemon.workers.executor import Executor

log = logging.getLogger(__name__)

S = JobState
#: What the folders, the workers and the log are built from.
NEEDS_RESTART = (
    "folders", "model", "devices", "batch", "executor", "ray", "cache", "metrics", "log",
    "service.checkpoint_seconds", "service.stall_seconds", "limits.max_memory",
)  # fmt: skip
#: Seconds between two looks for what else may have changed: requests, free space, folders.
HOUSEKEEPING_SECONDS = 1.0


class Supervisor:
    """One root, one ledger, one executor. `recover` comes first, then `step` does one round after the other.

    Args:
        config: The configuration.
        ledger: Open.
        executor: Not started yet.
        now: The time of the start.
        observer: Shows progress, or None.
        drain: End when the inbox is empty, and start the workers only once there is work.
        batch: Paint this instead of what is in the inbox.
        chores: Runs the gallery and the contact sheets; commands of this program unless given.
        pacing: How much is done at once, and how soon again.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        executor: Executor,
        *,
        now: Moment,
        observer: Observer | None = None,
        drain: bool = False,
        batch: Expansion | None = None,
        chores: Chores | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        metrics = make_metrics(config)
        self._state = State(config, ledger, now, drain, metrics, pacing or Pacing())
        previews = Previews(config.folders.previews)
        chores = chores or Chores.of(config.source)
        self._completion = Completion(self._state, chores, previews, sheets=batch is None)
        self._admission = Admission(self._state, self._completion, batch)
        self._dispatch = Dispatch(self._state, executor, self._completion, previews, observer)
        self._housekeeping = Housekeeping(self._state)
        self._reporting = Reporting(self._state, self._admission, self._dispatch, previews)
        # `once` and batches end too soon for a page.
        self._page = StatusPage(PageOptions.of(config, serve=not drain))
        #: Why nothing is taken in or handed out at the moment, for people; "" where nothing is wrong.
        self.paused = ""
        self._retry_waits = False
        self._next_housekeeping = -math.inf
        self._last_housekeeping = now.steady

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self._state.config

    @property
    def executor(self) -> Executor:
        """The executor, for its waitables."""
        return self._dispatch.executor

    @property
    def headline(self) -> str:
        """What is going on, in one line for people."""
        return self._reporting.headline

    def recover(self, now: Moment) -> None:
        """Bring every job that a crash or a shutdown has left behind to where it can go on. Raises StorageError."""
        recover(self._state, self._admission, self._completion, now)

    def reconfigure(self, config: Config) -> None:
        """Go on with another configuration. What needs a restart stays as it was, and the log names it."""
        old = self._state.config
        for key in NEEDS_RESTART:
            before = attrgetter(key)(old)
            if before != attrgetter(key)(config):
                log.warning("%s has changed: that takes effect with the next start", key)
                config = _with_value(config, key, before)
        self._state.config = config
        self._dispatch.reconfigure()
        self._admission.reconfigure()
        try:
            self._page.change(PageOptions.of(config, serve=not self._state.drain))
        except ConfigError as error:
            log.error("the status page stays as it was: %s", error)
        log.info("going on with the new configuration")

    # One round

    def step(self, now: Moment, *, woken: bool = False) -> None:
        """Do one round. woken: something has changed in the inbox."""
        self._listen(now)
        if now.steady >= self._next_housekeeping:
            self._next_housekeeping = now.steady + HOUSEKEEPING_SECONDS
            self._keep_house(now)
            self._last_housekeeping = now.steady
            with suppress(StorageError):  # a full disk is no reason to stop
                self._reporting.publish(now, self.paused)
        if self.paused:
            return
        if woken:
            self._admission.wake()
        try:
            self._completion.finish(now)
            self._admission.take_in(now)
            self._dispatch.hand_out(now)
        except StorageError as error:
            self._pause(str(error))

    def due(self, now: Moment) -> float:
        """Seconds until `step` has something to do, if no news comes before."""
        if (self._admission.busy or self._completion.busy) and not self.paused:
            return 0.0
        return max(0.0, min(self._admission.next_scan, self._next_housekeeping) - now.steady)

    def _listen(self, now: Moment) -> None:
        try:
            self._dispatch.listen(now)
        except StorageError as error:
            self._pause(str(error))
        if self._dispatch.blocked:
            self._pause(self._dispatch.blocked)
            self._dispatch.blocked = ""

    def _keep_house(self, now: Moment) -> None:
        """Do what need not happen in every round."""
        self._completion.tend()
        self._page.tend(now.steady)
        try:
            self._dispatch.keep_hours(now)
            self._housekeeping.check_folders()
            # Before space is asked for: some of this frees some.
            self._steer(now)
            self._housekeeping.retain_when_due(now)
            self._housekeeping.check_space()
            self._state.ledger.release_due(now.wall)
            self._housekeeping.back_up(now)
        except StorageError as error:
            self._pause(str(error))
        else:
            self._resume()

    def _steer(self, now: Moment) -> None:
        """Do what other processes have requested through the ledger."""
        ledger = self._state.ledger
        self._retry_waits = False
        retries = 0
        for request in ledger.pending_requests():
            job = ledger.get(request.job_id)
            if job is not None and request.verb == "retry":
                retries += 1
                if (
                    retries > self._state.pacing.claims_a_round
                ):  # each copies files; the rest follows in a second
                    self._retry_waits = True
                    continue
                try:
                    self._admission.readmit(job, now)
                except ChangedMeanwhile as error:
                    log.debug("the retry of %s waits: %s", job.name, error)
                    self._retry_waits = True
                    continue
            elif job is not None and not self._dispatch.cancel(job):
                self._completion.cancel(job, now)
            ledger.finish_request(request.number)

    def _pause(self, reason: str) -> None:
        if reason != self.paused:
            log.error("paused: %s; the queue goes on by itself when that is fixed", reason)
        self.paused = reason

    def _resume(self) -> None:
        if self.paused:
            log.info("going on: the cause of the pause is gone")
        self.paused = ""

    def stop(self, now: Moment) -> None:
        """Let the workers write their checkpoints and end; what is staged is still published."""
        with suppress(StorageError):
            self._dispatch.stop(now)
        with suppress(StorageError):
            self._completion.finish(now)
            if self._state.drain:  # it seldom runs until the time for that comes
                self._housekeeping.retain(now)
        self._page.close()
        self._completion.close()

    # For `loop.serve`

    def live(self, now: Moment) -> LiveStatus:
        """What only this process knows."""
        return self._reporting.live(now, self.paused)

    def ailment(self, now: Moment, patience: float) -> str:
        """Why the daemon is not healthy although its process runs, "" where it is; patience: seconds of silence."""
        return self._reporting.ailment(now, self.paused, patience, self._last_housekeeping)

    @property
    def failures(self) -> int:
        """How many jobs have failed or were quarantined since the start."""
        return self._completion.ended[S.FAILED] + self._completion.ended[S.QUARANTINED]

    @property
    def settling(self) -> bool:
        """Whether something in the inbox, or what a retry needs, is still being written."""
        seen = self._admission.seen
        return seen is None or bool(seen.settling) or self._retry_waits

    @property
    def drained(self) -> bool:
        """Whether there is nothing left to do but to wait for files that are being written, or for new ones."""
        if self._completion.busy or not self._admission.drained:
            return False
        counts = self._state.ledger.counts()
        return not any(counts[state] for state in JobState if not state.terminal)

    @property
    def stuck(self) -> bool:
        """Whether the work that is left waits for a person to fix something."""
        return bool(self.paused or self._dispatch.lost)

    def give_up(self) -> None:
        """Log what stays undone when the time to wait is over. Raises the error that prevents the rest, if any."""
        if self.paused:
            raise StorageError(self.paused)
        if self._dispatch.lost:
            raise DeviceError(self._dispatch.lost)
        assert self._admission.seen is not None
        for path in self._admission.seen.settling:
            log.warning("%s is still being written; it stays in the inbox", path)


def _with_value(config: Config, key: str, value: Any) -> Config:
    """The same configuration but for one key, which may be in a section (`section.key`)."""
    section, _, name = key.rpartition(".")
    if section:
        return replace(config, **{section: replace(getattr(config, section), **{name: value})})
    return replace(config, **{name: value})
