"""The daemon's loop: `Supervisor.step` does one round, and between rounds everything that matters is in the ledger.

A round answers the workers' events, finishes what is staged or has ended, takes in what has settled, and hands queued
jobs to the workers that have room. It never blocks for long and never paints. `loop.serve` calls it again and again,
and waits in between for news from a worker, the kernel, a signal or the clock.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

from nst_daemon.config import Config
from nst_daemon.errors import (
    ConfigError,
    DamagedLedger,
    DeviceError,
    StorageError,
)
from nst_daemon.intake.expansion import Expansion
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.service.admission import Admission
from nst_daemon.service.chores import Chores
from nst_daemon.service.completion import Completion
from nst_daemon.service.dispatch import Dispatch, Observer
from nst_daemon.service.housekeeping import Housekeeping
from nst_daemon.service.live_status import InboxStatus, LiveStatus
from nst_daemon.service.notifications import Notifications
from nst_daemon.service.outbox import Outbox
from nst_daemon.service.previews import Previews
from nst_daemon.service.recovery import recover
from nst_daemon.service.reporting import Reporting
from nst_daemon.service.state import Moment, Pacing, Pause, State, make_metrics
from nst_daemon.service.status_page import StatusPage
from nst_daemon.service.steering import Steering
from nst_daemon.unexpected import explain
from nst_daemon.web.options import PageOptions
from nst_daemon.workers.executor import Executor
from nst_daemon.workers.picture_check import PictureCheck

log = logging.getLogger(__name__)

S = JobState
#: What the folders, the workers and the log are built from.
NEEDS_RESTART = (
    "folders", "model", "devices", "threads", "executor", "ray", "cache", "metrics", "log",
    "service.checkpoint_seconds", "service.stall_seconds", "limits.max_memory",
)  # fmt: skip
#: Seconds between two looks for what else may have changed: requests, free space, folders.
HOUSEKEEPING_SECONDS = 1.0
#: Seconds that notifications still get when the daemon ends, and when `once` or a batch does.
NOTIFY_GRACE, NOTIFY_GRACE_DRAIN = 5.0, 20.0
#: The longest time in seconds between two attempts to continue while the queue is paused.
LONGEST_WAIT = 16.0


class Supervisor:
    """One root, one ledger, one executor. `recover` comes first, then `step` does one round after the other.

    Args:
        config: The configuration.
        ledger: Open.
        executor: Not started yet.
        check: Decodes the pictures of drops before they join the queue.
        now: The time of the start.
        observer: Shows progress, or None.
        drain: End when the inbox is empty, and start the workers only once there is work.
        batch: Paint this instead of what is in the inbox.
        chores: Runs the gallery and the contact sheets; commands of this program unless given.
        outbox: Sends the messages of `notify`.
        pacing: How much is done at once, and how soon again.
        clock: Measures how long something takes, in seconds.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        executor: Executor,
        check: PictureCheck,
        *,
        now: Moment,
        observer: Observer | None = None,
        drain: bool = False,
        batch: Expansion | None = None,
        chores: Chores | None = None,
        outbox: Outbox | None = None,
        pacing: Pacing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        metrics = make_metrics(config, now)
        self._state = State(config, ledger, now, drain, metrics, pacing or Pacing(), clock)
        previews = Previews(config.folders.previews)
        chores = chores or Chores.of(config.source)
        self._notifications = Notifications(config, outbox or Outbox())
        self._completion = Completion(
            self._state, chores, previews, self._notifications, sheets=batch is None
        )
        self._check = check
        self._admission = Admission(self._state, self._completion, check, batch)
        self._dispatch = Dispatch(self._state, executor, self._completion, previews, observer)
        self._steering = Steering(
            self._state, self._completion, self._dispatch, self._admission, previews
        )
        self._housekeeping = Housekeeping(self._state)
        self._reporting = Reporting(self._state, self._admission, self._dispatch, previews)
        # `once` and batches end too soon for a page.
        self._page = StatusPage(PageOptions.of(config, serve=not drain))
        #: Why nothing is taken in or handed out at the moment; None if nothing is wrong.
        self.pause: Pause | None = None
        # While paused: when to copy and publish again, in seconds of the monotonic clock, and the pause before that.
        self._next_try, self._wait = -math.inf, 0.0
        self._recovered = False
        self._next_housekeeping = -math.inf
        self._last_housekeeping = now.steady

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self._state.config

    @property
    def executor(self) -> Executor:
        """The executor."""
        return self._dispatch.executor

    def waitables(self) -> list[object]:
        """Objects for `multiprocessing.connection.wait` that become ready when a process has news."""
        return [*self.executor.waitables(), *self._check.waitables()]

    @property
    def headline(self) -> str:
        """What is going on, in one line for people."""
        return self._reporting.headline

    @property
    def paused(self) -> str:
        """Why nothing is taken in or handed out at the moment, for people; "" if nothing is wrong."""
        return self.pause.reason if self.pause else ""

    def recover(self, now: Moment) -> None:
        """Bring every job that a crash or a shutdown has left behind to where it can continue.

        Where the disk prevents that, the queue is paused, and `step` tries it again.
        """
        self._try(self._recover, now)

    def _recover(self, now: Moment) -> None:
        if not self._recovered:
            recover(self._state, self._admission, self._completion, self._dispatch, now)
            self._recovered = True

    def copy_ledger(self) -> None:
        """Begin to renew the copy of the ledger; the rounds go on meanwhile."""
        self._housekeeping.ledger_copy.renew()

    def reconfigure(self, config: Config) -> None:
        """Continue with another configuration. What needs a restart stays as it was, and the log names it."""
        old = self._state.config
        for key in NEEDS_RESTART:
            before = attrgetter(key)(old)
            if before != attrgetter(key)(config):
                log.warning("%s has changed; restart the daemon to apply the change", key)
                config = _with_value(config, key, before)
        self._state.config = config
        self._dispatch.reconfigure()
        self._admission.reconfigure()
        self._notifications.reconfigure(config)
        try:
            self._page.change(PageOptions.of(config, serve=not self._state.drain))
        except ConfigError as error:
            log.error("the status page keeps its old settings: %s", error)
        log.info("using the new configuration")

    # One round

    def step(self, now: Moment, *, woken: bool = False) -> None:
        """Do one round. woken: something has changed in the inbox.

        The parts of a round come in a fixed order. A part that fails ends the round and pauses the queue; each further
        round tries the same work again, and the pause ends once a whole round has succeeded.
        """
        if woken:
            self._admission.wake()
        tidy = now.steady >= self._next_housekeeping
        if tidy:
            self._next_housekeeping = now.steady + HOUSEKEEPING_SECONDS
            # Before all that may fail: the page shows why the queue is paused.
            self._contained(lambda: self._page.tend(now.steady))
        if self._work(now, tidy):
            self._resume()
        if tidy:
            self._last_housekeeping = now.steady
            self._report(now, lambda now: self._reporting.publish(now, self.pause))
            trouble = self.paused or self._dispatch.devices.lost
            self._contained(lambda: self._notifications.tend(now.steady, trouble))

    def _work(self, now: Moment, tidy: bool) -> bool:
        """Do the parts of a round until one fails; whether all of them were done."""
        if not self._try(self._listen, now):
            return False
        # Only a whole round ends a pause.
        if (self.pause and not tidy) or not self._try(self._recover, now):
            return False
        if tidy and not self._try(self._keep_house, now):
            return False
        if self.pause and now.steady < self._next_try:
            return False
        for part in (self._completion.finish, self._admission.take_in, self._dispatch.hand_out):
            if not self._try(part, now):
                self._wait = min(2 * self._wait or HOUSEKEEPING_SECONDS, LONGEST_WAIT)
                self._next_try = now.steady + self._wait
                return False
        return True

    def _listen(self, now: Moment) -> None:
        """Take the answers of the processes. Raises StorageError."""
        self._check.poll(now.steady)
        self._dispatch.listen(now)

    def _try(self, part: Callable[[Moment], object], now: Moment) -> bool:
        """Do one part; False if it has failed, which pauses the queue. Raises DamagedLedger."""
        try:
            part(now)
        except DamagedLedger:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, the daemon continues)
            self._pause(explain(error), now)
            return False
        return True

    def due(self, now: Moment) -> float:
        """Seconds until `step` has something to do, if no news comes before."""
        if self.pause:
            return max(0.0, self._next_housekeeping - now.steady)
        if self._admission.busy:
            return 0.0
        due = min(self._admission.due, self._completion.due, self._next_housekeeping)
        return max(0.0, due - now.steady)

    def _report(self, now: Moment, publish: Callable[[Moment], None]) -> None:
        """Write the status; a full disk is no reason to stop."""
        try:
            publish(now)
        except Exception as error:
            if isinstance(error, DamagedLedger):
                raise
            log.debug("the status cannot be written: %s", error)

    def _contained(self, part: Callable[[], None]) -> None:
        """Do a part of the page or of the notifications; none of their problems stops the daemon."""
        try:
            part()
        except Exception as error:  # noqa: BLE001
            explain(error)  # the traceback goes to the log, once

    def _keep_house(self, now: Moment) -> None:
        """Do what need not happen in every round. Raises StorageError."""
        self._completion.tend()
        self._dispatch.keep_hours(now)
        self._housekeeping.check_folders()
        # Before space is asked for: some of this frees some.
        self._steering.steer(now)
        self._housekeeping.retain_when_due(now)
        if self._steering.busy or self._housekeeping.busy:
            self._next_housekeeping = now.steady
        self._housekeeping.check_space()
        self._dispatch.release_due(now)
        self._housekeeping.ledger_copy.tend(now.steady)

    def _pause(self, reason: str, now: Moment) -> None:
        """The queue waits. The log has the first reason only; the status has the present one."""
        self._admission.stop_looking()
        if self.pause is None:
            log.error("paused: %s; the queue continues when that is fixed", reason)
            self._next_try = self._wait = 0.0
        self.pause = Pause(reason, self.pause.since if self.pause else now.wall)

    def _resume(self) -> None:
        if self.pause:
            log.info("resumed")
        self.pause = None

    def stop(self, now: Moment) -> None:
        """Let the workers write their checkpoints and end; what is staged is still published."""
        self._try(lambda _: self._check.stop(), now)
        self._try(self._dispatch.stop, now)
        finished = True
        while finished and self._completion.busy:
            finished = self._try(self._completion.finish_some, now)
        if finished and self._state.drain:
            # `once` seldom runs until the time for that comes.
            self._try(self._housekeeping.retain, now)
        self._housekeeping.ledger_copy.close()
        self._report(now, self._reporting.publish_end)
        self._page.close()
        self._completion.close()
        grace = NOTIFY_GRACE_DRAIN if self._state.drain else NOTIFY_GRACE
        self._contained(lambda: self._notifications.close(now.steady, grace))
        if self._state.drain and self._completion.ended:
            log.info("%s", self._completion.summary)

    # For `loop.serve`

    def live(self, now: Moment) -> LiveStatus:
        """What only this process knows."""
        return self._reporting.live(now, self.pause)

    def ailment(self, now: Moment, patience: float) -> str:
        """Why the daemon is not healthy although its process runs, "" if it is; patience: seconds of silence."""
        return self._reporting.ailment(now, self.paused, patience, self._last_housekeeping)

    @property
    def inbox(self) -> InboxStatus:
        """What is in the inbox, by the last scan."""
        return self._reporting.inbox()

    @property
    def ended(self) -> int:
        """How many jobs have ended since the start."""
        return self._completion.ended.total()

    @property
    def failures(self) -> int:
        """How many jobs have failed or were quarantined since the start."""
        return self._completion.ended[S.FAILED] + self._completion.ended[S.QUARANTINED]

    @property
    def settling(self) -> bool:
        """Whether something in the inbox, or what a request needs, is still being written."""
        seen = self._admission.seen
        return seen is None or bool(seen.settling) or self._steering.waits

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
        return bool(self.paused) or self.lost

    @property
    def lost(self) -> bool:
        """Whether no device is left to paint on."""
        return bool(self._dispatch.devices.lost)

    def give_up(self) -> None:
        """Log what stays undone when the time to wait is over. Raises the error that prevents the rest, if any."""
        if self.paused:
            raise StorageError(self.paused)
        if self._dispatch.devices.lost:
            raise DeviceError(self._dispatch.devices.lost)
        for path in self.inbox.settling:
            log.warning("%s is still being written; it stays in the inbox", path)


def _with_value(config: Config, key: str, value: Any) -> Config:
    """The same configuration but for one key, which may be in a section (`section.key`)."""
    section, _, name = key.rpartition(".")
    if section:
        return replace(config, **{section: replace(getattr(config, section), **{name: value})})
    return replace(config, **{name: value})
