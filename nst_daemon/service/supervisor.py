"""The daemon's loop: `Supervisor.step` does one round, and everything that matters is in the ledger between rounds.

A round takes in what has settled, hands queued jobs to free workers, answers the workers' events, and finishes what is
staged or ended. It never blocks for long and never paints. `service.serve` calls it again and again, and waits in
between for whatever may bring news: a worker, the kernel, a signal, the clock.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nst_daemon import active_hours, files
from nst_daemon.config import Config
from nst_daemon.errors import ConfigError, DeviceError, InputError, Retry, StorageError
from nst_daemon.intake import batch as batches
from nst_daemon.intake import claim
from nst_daemon.intake.drops import ANYWHERE, Rejection, Request
from nst_daemon.intake.expansion import Expansion, Reach
from nst_daemon.intake.scan import Intake, NoInbox, Scan
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.intake.walk import read_settings
from nst_daemon.jobs import TRANSITIONS, Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.mounts import free_bytes
from nst_daemon.names import numbered, printable
from nst_daemon.ops.logs import job_logger
from nst_daemon.publishing import publish
from nst_daemon.service.chores import Chores
from nst_daemon.service.hooks import HookRunner
from nst_daemon.service.live_status import LiveStatus, PaintingStatus
from nst_daemon.service.progress_estimate import ProgressEstimate
from nst_daemon.service.status_page import StatusPage
from nst_daemon.web.options import PageOptions
from nst_daemon.workers.executor import Executor
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
)

if TYPE_CHECKING:
    from nst_daemon.service.metrics import PrometheusMetrics

log = logging.getLogger(__name__)

S = JobState
MiB = 1024 * 1024
JobEvent = Started | Progress | Staged | Failed | Stopped | Died | Note
#: What the folders, the workers and the log are built from.
NEEDS_RESTART = (
    "folders", "model", "devices", "batch", "executor", "ray", "cache", "metrics", "log",
    "service.checkpoint_seconds", "service.stall_seconds", "limits.max_memory",
)  # fmt: skip
#: Seconds that hooks still get when the daemon ends.
HOOKS_GRACE = 10.0
#: Seconds before a transient error is tried again, doubled with each attempt.
BACK_OFF = 15.0
LONGEST_BACK_OFF = 1800.0
#: So many deaths of its worker, and a job is quarantined.
MOST_DEATHS = 2
#: Claims in one round: copying 10,000 files must not keep the workers waiting.
CLAIMS_A_ROUND = 16
#: Seconds between two scans, however much is going on in the inbox.
SHORTEST_LOOK = 0.2
#: Seconds between two looks for what has been kept for long enough, and for how many jobs at most each time.
RETENTION_SECONDS = 3600.0
DAY = 86400.0
#: Seconds between two log lines about one job's progress.
PROGRESS_SECONDS = 30.0
#: Seconds between two looks at what else may have changed: requests, free space, folders.
HOUSEKEEPING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks: `wall` (seconds since the epoch) is for the ledger and people, `steady` for waiting."""

    wall: float
    steady: float

    @classmethod
    def now(cls) -> Moment:
        """The real time."""
        return cls(time.time(), time.monotonic())


class Observer(Protocol):
    """Whoever shows progress to people (`ops.progress.Bars`)."""

    def update(self, key: str, name: str, done: int, total: int, loss: float | None = None) -> None:
        """The job `key` has painted `done` of `total` iterations."""

    def end(self, key: str) -> None:
        """The job `key` is not painted any more."""


class Supervisor:
    """One root, one ledger, one executor. `recover` comes first, then `step` does one round after the other.

    executor: not started yet; observer: shows progress, or None; drain: end when the inbox is empty, and then start
    workers only once there is work; batch: paint this in the place of what is in the inbox.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        executor: Executor,
        *,
        observer: Observer | None = None,
        drain: bool = False,
        batch: Expansion | None = None,
    ) -> None:
        self.config = config
        self.ledger = ledger
        self.executor = executor
        self.observer = observer
        self.chores = Chores.of(config.source)
        self.drain = drain
        self._batch = batch
        self._expansions: list[Expansion] = [batch] if batch else []
        self.intake: Intake | NoInbox = self._make_intake()
        #: Why nothing is taken in or handed out at the moment ("" where all is well), for people.
        self.paused = ""
        #: When painting goes on, for people, where this is not the time for it; "" while it is.
        self.resting = ""
        #: How many jobs have ended in each state since the start.
        self.ended: Counter[JobState] = Counter()
        #: What the last scan saw; None before the first.
        self.seen: Scan | None = None
        self._hours = active_hours.parse(config.service.active_hours)
        self._hooks = HookRunner()
        self._metrics = _make_metrics(config)
        # `once` and batches end too soon for a page.
        self._page = StatusPage(PageOptions.of(config, serve=not drain))
        self._started = False
        self._events: list[Event] = []
        self._wanted: list[Request | Rejection] = []
        self._running: dict[str, Job] = {}
        self._unfinished: dict[str, Job] = {}
        self._details: dict[str, str] = {}
        self._short_of_memory: set[str] = set()  # jobs, by id, that once did not fit beside others
        self._paces: dict[str, ProgressEstimate] = {}
        self._memory: dict[str, int] = {}  # bytes that each worker holds on its device
        self._previews: dict[str, Path] = {}  # of the jobs that have been with a worker
        self._logged: dict[str, float] = {}
        self._lost = ""  # why there is no device to paint on
        self._last_scan = self._next_scan = self._next_housekeeping = -math.inf
        self._last_intake = self._last_housekeeping = math.inf
        #: What is going on, in one line for people.
        self.headline = "starting"
        self._next_retention = self._next_backup = math.inf
        self._removed_until: dict[Path, float] = {}

    def _make_intake(self) -> Intake | NoInbox:
        config = self.config
        if self._batch:
            return NoInbox()
        return Intake(
            config.folders.inbox,
            config.folders.styles,
            settle_seconds=config.service.settle_seconds,
            truncated_grace=config.service.truncated_grace,
            # `once` leaves lone halves where they are: their other half may come with the next batch.
            pair_timeout=math.inf if self.drain else config.service.pair_timeout,
            max_bytes=config.limits.max_bytes,
            default_style=config.default_style,
        )

    def reconfigure(self, config: Config) -> None:
        """Go on with another configuration; what only a restart can change stays, and is said."""
        old, self.config = self.config, config
        for key in NEEDS_RESTART:
            before = attrgetter(key)(old)
            if before != attrgetter(key)(config):
                log.warning("%s has changed: that takes effect with the next start", key)
                self.config = _with_value(self.config, key, before)
        self._hours = active_hours.parse(self.config.service.active_hours)
        self.intake = self._make_intake()  # what was settling settles again
        self._wanted.clear()
        self._next_scan = -math.inf
        try:
            self._page.change(PageOptions.of(self.config, serve=not self.drain))
        except ConfigError as error:
            log.error("the status page stays as it was: %s", error)
        log.info("going on with the new configuration")

    # One round

    def step(self, now: Moment, *, woken: bool = False) -> None:
        """Do one round: workers' events, what has ended, the inbox, the queue. `woken`: look at the inbox now."""
        self._events += self.executor.poll(now.steady)
        self._listen(now)
        if now.steady >= self._next_housekeeping:
            self._next_housekeeping = now.steady + HOUSEKEEPING_SECONDS
            self._keep_house(now)
            self._last_housekeeping = now.steady
            self._publish_status(now)
        if self.paused:
            return
        if woken:
            self._next_scan = min(self._next_scan, self._last_scan + SHORTEST_LOOK)
        try:
            self._finish(now)
            self._take_in(now)
            self._hand_out(now)
        except StorageError as error:
            self._pause(str(error))

    def due(self, now: Moment) -> float:
        """Seconds until `step` has something to do, if no news comes before."""
        if (self._wanted or self._expansions) and not self.paused:
            return 0.0
        return max(0.0, min(self._next_scan, self._next_housekeeping) - now.steady)

    def _keep_house(self, now: Moment) -> None:
        """What need not happen in every round: requests of people, due retries, room on the disk."""
        self.chores.tend()
        self._hooks.tend()
        self._page.tend(now.steady)
        self._keep_hours(now)
        try:
            self.ledger.check()
            self._check_folders()
            # Before space is asked for: some of this makes room.
            self._steer(now)
            if now.steady >= self._next_retention:
                self._retain(now)
            self._check_space()
            self.ledger.release_due(now.wall)
            if now.steady >= self._next_backup:
                self._back_up(now)
        except StorageError as error:
            self._pause(str(error))
        else:
            self._resume()

    # What the workers say

    def _listen(self, now: Moment) -> None:
        """Answer the workers' events; what the ledger cannot take down now is answered again in the next round."""
        try:
            while self._events:
                self._answer(self._events[0], now)
                del self._events[0]
        except StorageError as error:
            self._pause(str(error))

    def _answer(self, event: Event, now: Moment) -> None:
        match event:
            case Ready():
                self._lost = ""
                log.info("worker %s is ready: %s", event.worker, _facts(event.info))
            case DeviceLost():
                self._lost = "" if event.left else f"no device is left: {event.reason}"
                log.error("%s is taken out: %s (%d left)", event.worker, event.reason, event.left)
            case Died(job_id=None):
                log.warning("worker %s %s", event.worker, event.reason)
            case _:
                self._answer_for_job(event, now)

    def _answer_for_job(self, event: JobEvent, now: Moment) -> None:
        job = self._running.get(event.job_id or "")
        if job is None:  # an answer about a job that has ended meanwhile changes nothing
            log.debug("%s about a job that is not running", type(event).__name__)
            return
        said = job_logger(log, job.name, job.id)
        match event:
            case Started():
                said.info("painting on %s", event.worker)
            case Note():
                said.info("%s", event.message)
            case Progress():
                self._show(job, event, now)
            case Staged():
                changes = {"staged_files": event.files, "staged_sha256": event.sha256}
                if self._metrics:
                    beside = Path(event.files[-1]).with_suffix(".json")
                    self._metrics.staged(self.config.folders.stage / job.id / beside)
                self._unfinished[job.id] = self._move(job, S.STAGED, now, **changes)
            case Stopped(cancelled=True):
                self._end(job, S.CANCELLED, now, error="cancelled by request")
            case Stopped():
                # An attempt that was interrupted on request says nothing about the job.
                self._move(job, S.QUEUED, now, note="interrupted", attempts=job.attempts - 1)
            case Failed():
                self._failed(job, event, now)
            case Died():
                self._died(job, event, now)
        if isinstance(event, Staged | Stopped | Failed | Died):
            self._leave(job)

    def _failed(self, job: Job, event: Failed, now: Moment) -> None:
        said = job_logger(log, job.name, job.id)
        if event.retry is Retry.PAUSED:
            self._move(job, S.QUEUED, now, note=event.message, attempts=job.attempts - 1)
            self._pause(event.message)
        elif event.retry is Retry.ALONE and job.id not in self._short_of_memory:
            self._short_of_memory.add(job.id)
            said.warning("%s; trying once more, with nothing beside it", event.message)
            self._count_retry("memory")
            self._move(job, S.QUEUED, now, note=event.message)
        elif event.retry is Retry.LATER and job.attempts < self.config.service.max_attempts:
            pause = min(BACK_OFF * 2 ** (job.attempts - 1), LONGEST_BACK_OFF)
            said.warning("%s; attempt %d follows in %.0f s", event.message, job.attempts + 1, pause)
            self._move(job, S.RETRYING, now, note=event.message, not_before=now.wall + pause)
            self._count_retry("transient")
        else:
            self._end(job, S.FAILED, now, error=event.message, detail=event.detail)

    def _died(self, job: Job, event: Died, now: Moment) -> None:
        deaths = job.deaths + 1
        why = f"the worker that painted it {event.reason}"
        if deaths < MOST_DEATHS:
            job_logger(log, job.name, job.id).warning("%s; it is tried once more", why)
            self._move(job, S.QUEUED, now, note=why, deaths=deaths)
            self._count_retry("death")
        else:
            error = f"{why}, {deaths} times; look into the detail below, then `nst-daemon retry`"
            self._end(job, S.QUARANTINED, now, error=error, detail=event.detail, deaths=deaths)

    def _count_retry(self, why: str) -> None:
        if self._metrics:
            self._metrics.retries.labels(why).inc()

    def _show(self, job: Job, progress: Progress, now: Moment) -> None:
        self._memory[progress.worker] = progress.memory
        pace = self._paces[job.id]
        pace.update(now.steady, progress.done, progress.total, progress.loss)
        if self.observer:
            self.observer.update(job.id, job.name, progress.done, progress.total, progress.loss)
        if now.steady - self._logged.get(job.id, now.steady - PROGRESS_SECONDS) >= PROGRESS_SECONDS:
            self._logged[job.id] = now.steady
            job_logger(log, job.name, job.id).info("%d %%, loss %.4g", pace.percent, progress.loss)

    def _leave(self, job: Job) -> None:
        """The job is with no worker any more."""
        del self._running[job.id]
        del self._paces[job.id]
        self._logged.pop(job.id, None)
        if self.observer:
            self.observer.end(job.id)

    # From the inbox into the queue

    def _take_in(self, now: Moment) -> None:
        """Claim what has settled, a few at a time."""
        if not self._wanted and now.steady >= self._next_scan:
            self._scan(now)
        batch = self._wanted[:CLAIMS_A_ROUND]
        del self._wanted[:CLAIMS_A_ROUND]
        for wanted in batch:
            if isinstance(wanted, Request) and wanted.source == "batch":
                self._open_batch(wanted, now)
            else:
                self._claim(wanted, now)
        if not self._wanted:
            self._expand(now)
        self._last_intake = now.steady

    def _scan(self, now: Moment) -> None:
        seen = self.intake.scan(now.steady, now.wall)
        for problem in set(seen.problems) - (set(self.seen.problems) if self.seen else set()):
            log.warning("%s", problem)
        self._wanted = [*seen.rejections, *seen.requests]
        self.seen, self._last_scan = seen, now.steady
        pause = self.config.service.rescan_seconds
        if seen.settling or seen.requests:
            # A second look is all that a file needs that has come to rest.
            pause = min(pause, max(self.config.service.settle_seconds / 2, SHORTEST_LOOK))
        self._next_scan = now.steady + pause

    def _claim(self, wanted: Request | Rejection, now: Moment) -> None:
        """Copy into the spool, enter into the ledger, take out of the inbox; in this order."""
        if self._claimed_before(wanted):
            return
        folders = self.config.folders
        if isinstance(wanted, Request):
            try:
                self.config.render_settings(wanted.settings)
                job = claim.claim(
                    wanted,
                    self.config.folders.spool,
                    {
                        "inbox": folders.inbox,
                        "styles": folders.styles,
                        "failed": folders.failed,
                        "anywhere": ANYWHERE,
                    },
                    max_bytes=self.config.limits.max_bytes,
                    now=now.wall,
                )
            except ChangedMeanwhile as error:
                if not wanted.identity:  # the next scan sees it as it is then
                    log.debug("%s", error)
                    return
                again = f"{error}; run the batch again"
                job = claim.refuse(wanted.refuse(again), now=now.wall)
            except InputError as error:
                job = claim.refuse(wanted.refuse(str(error)), now=now.wall)
        else:
            job = claim.refuse(wanted, now=now.wall)
        self.ledger.add(job)
        self._unfinished[job.id] = job
        self._enter(job, now)

    def _open_batch(self, wanted: Request, now: Moment) -> None:
        """Begin with a batch file of the inbox, which stays there until all that it asks for is in the ledger."""
        (file,) = wanted.files
        if any(expansion.file == file for expansion in self._expansions):
            return
        reach = batch_reach(self.config, self.config.batch_roots)
        try:
            label = printable(file.path)
            values = read_settings(
                self.config.folders.inbox,
                file.path,
                file.fingerprint,
                self.config.limits.max_bytes,
            )
            asked = batches.parse(values, label)
            since = file.fingerprint.ctime_ns / 1e9
            expansion = Expansion(wanted.name, asked, reach, since=since, file=file)
        except ChangedMeanwhile as error:
            log.debug("%s", error)
        except InputError as error:
            self._claim(wanted.refuse(str(error)), now)
        else:
            log.info("batch %s asks for %d pictures", wanted.name, len(expansion.combinations))
            self._expansions.append(expansion)

    def _expand(self, now: Moment) -> None:
        """Claim the next pictures of the batches, a few at a time, but for those that are there already."""
        for expansion in self._expansions[:1]:
            for _ in range(CLAIMS_A_ROUND):
                wanted = expansion.current()
                if wanted is None:
                    self._close_batch(expansion)
                    return
                known = self._known(wanted, expansion.since)
                if known:
                    expansion.skipped[wanted.name] = known.id
                else:
                    self._claim(wanted, now)
                expansion.advance()

    def _known(self, wanted: Request | Rejection, since: float) -> Job | None:
        """The job that has painted the same picture, or is about to."""
        if isinstance(wanted, Rejection):
            return None
        for job in self.ledger.alike(wanted.identity):
            if not job.state.terminal or (job.state is not S.DONE and job.created >= since):
                return job
            if job.state is S.DONE and (self.config.folders.results / job.result).exists():
                return job
        return None

    def _close_batch(self, expansion: Expansion) -> None:
        if expansion.file:
            folders = self.config.folders
            claim.put_away(expansion.file, folders.inbox, folders.done, expansion.name)
        self._expansions.remove(expansion)
        log.info(
            "batch %s is in the queue; %d of its %d pictures were there already",
            expansion.name,
            len(expansion.skipped),
            len(expansion.combinations),
        )

    def _claimed_before(self, wanted: Request | Rejection) -> bool:
        """True for what was claimed already, and is still there: it could not be removed, or a power cut undid that."""
        folders = self.config.folders
        own = [file for file in wanted.files if file.root == "inbox"]
        jobs = [self.ledger.claimed_before(file.path, file.fingerprint) for file in own]
        if not own or not all(jobs):
            return False
        for job in jobs:
            assert job is not None
            if claim.remove_originals(job, folders.inbox, folders.spool):
                self.intake.mute(own)
            elif job.state.terminal and (folders.spool / job.id).is_dir():
                self._unfinished[job.id] = job  # something refused that can be moved at last
        return True

    def _enter(self, job: Job, now: Moment) -> None:
        """From `claimed` on: the originals leave the inbox, and the job joins the queue or has failed already."""
        said = job_logger(log, job.name, job.id)
        for problem in claim.remove_originals(
            job, self.config.folders.inbox, self.config.folders.spool
        ):
            said.warning("%s", problem)
        if job.error:
            self._end(job, S.FAILED, now, error=job.error)
        else:
            said.info("taken in: %s", ", ".join(file.name for file in job.inputs))
            self._move(job, S.QUEUED, now)
            del self._unfinished[job.id]

    # From the queue to the workers

    def _keep_hours(self, now: Moment) -> None:
        """Let go of the devices when it is not the time to paint. `once` and batches paint whenever they are asked."""
        if self.drain or self._hours.active(now.wall):
            if self.resting:
                log.info("painting goes on")
            self.resting = ""
        elif not self.resting:
            change = self._hours.change(now.wall)
            self.resting = f"until {change:%a %H:%M %Z}".rstrip() if change else "for ever"
            log.info("resting %s (service.active_hours)", self.resting)
            if self._started:
                self._events += self.executor.stop(self.config.service.stop_seconds)
                self._started = False
                self._listen(now)

    def _hand_out(self, now: Moment) -> None:
        if self.resting:
            return
        if not self._started and not (self.drain and not self.ledger.next_queued()):
            self.executor.start()
            self._started = True
        while self._started and self.executor.capacity() > 0 and (job := self.ledger.next_queued()):
            stage = self.config.folders.stage / job.id
            files.remove_tree(stage)
            files.make_folder(stage)
            job = self._move(job, S.RUNNING, now)
            try:
                task = self._task(job, stage)
            except (
                InputError
            ) as error:  # settings that the configuration, reloaded, does not go with
                self._end(job, S.FAILED, now, error=str(error))
                continue
            self._running[job.id] = job
            settings = self.config.render_settings(job.settings)
            self._paces[job.id] = ProgressEstimate(settings.scales, settings.iterations)
            self.executor.submit(task)

    def _task(self, job: Job, stage: Path) -> Task:
        return Task(
            job_id=job.id,
            name=job.name,
            attempt=job.attempts,
            inputs=job.inputs,
            spool=self.config.folders.spool / job.id,
            stage=stage,
            checkpoint=self.config.folders.checkpoints / job.id,
            settings=self.config.render_settings(job.settings),
            outputs=self.config.outputs,
            limits=self.config.limits,
            preview=self._preview(job) if self.config.outputs.preview else None,
            alone=job.deaths > 0 or job.id in self._short_of_memory,
        )

    def _preview(self, job: Job) -> Path:
        """Where the live preview goes: NAME.jpg, or a numbered one where another job of that name is under way.

        Every part of a job's name has gone through `clean_name`.
        """
        if job.id not in self._previews:
            taken = self._previews.values()
            paths = (self.config.folders.previews / f"{n}.jpg" for n in numbered(job.name))
            self._previews[job.id] = next(path for path in paths if path not in taken)
        return self._previews[job.id]

    def _shown_preview(self, job_id: str) -> str:
        """The preview's path below results/, "" where there is to be none."""
        path = self._previews.get(job_id)
        return str(path.relative_to(self.config.folders.results)) if path else ""

    # From the stage to the end

    def _finish(self, now: Moment) -> None:
        """Enter what is claimed, publish what is staged, archive what has ended.

        What cannot be finished now stays for the next round.
        """
        for job in list(self._unfinished.values()):
            if job.state is S.CLAIMED:
                self._enter(job, now)
            elif job.state is S.STAGED:
                self._publish(job, now)
            ended = self._unfinished.get(job.id)
            if ended:
                self._archive(ended, now)
                del self._unfinished[job.id]

    def _publish(self, job: Job, now: Moment) -> None:
        folders = self.config.folders
        if not all((folders.stage / job.id / name).is_file() for name in job.staged_files):
            self._move(job, S.QUEUED, now, note="its staged picture has gone; it is painted again")
            del self._unfinished[job.id]
            return
        picture = publish(
            folders.stage / job.id,
            job.staged_files,
            folders.results,
            job.name,
            overwrite=self.config.outputs.overwrite,
        )
        result = str(picture.relative_to(folders.results))
        self._unfinished[job.id] = self._move(job, S.PUBLISHED, now, result=result)

    def _archive(self, job: Job, now: Moment) -> None:
        """Move the inputs to done/ or failed/, and forget what only the work needed."""
        folders = self.config.folders
        well = job.state is S.PUBLISHED
        if well:
            with suppress(OSError):  # it is hidden, and `_retain` comes by again
                self._preview(job).unlink(missing_ok=True)
        archive = claim.archive(
            job,
            folders.spool,
            folders.done if well else folders.failed,
            error=job.error,
            detail=self._details.get(job.id, ""),
        )
        files.remove_tree(folders.stage / job.id)
        (folders.checkpoints / job.id).unlink(missing_ok=True)
        said = job_logger(log, job.name, job.id)
        if well:
            job = self._move(job, S.DONE, now, archive=archive)
            if self.config.outputs.gallery:
                self.chores.request("gallery")
            said.info("done: %s", folders.results / job.result)
        else:
            job = self.ledger.note(job.id, now=now.wall, archive=archive)
            said.error("%s: %s", job.state, job.error)
        if job.source == "batch":
            self._sum_up(job.group)
        self._tell(job)
        self.ended[job.state] += 1
        self._details.pop(job.id, None)
        self._previews.pop(job.id, None)
        self._short_of_memory.discard(job.id)

    def _tell(self, job: Job) -> None:
        """Tell metrics and hooks how a job has ended."""
        folders, hooks = self.config.folders, self.config.hooks
        if self._metrics:
            self._metrics.ended.labels(job.state.value).inc()
        if job.state is not S.CANCELLED:
            well = job.state is S.DONE
            self._hooks.add(
                hooks.done if well else hooks.failed,
                job,
                result=folders.results / job.result if well else None,
                inputs=(folders.done if well else folders.failed) / job.archive,
                timeout=hooks.timeout,
            )

    def _sum_up(self, batch: str) -> None:
        """Say how a batch went, once its last job has ended."""
        counts = self.ledger.batch_counts(batch)
        coming = any(expansion.name == batch for expansion in self._expansions)
        if not coming and all(state.terminal for state in counts):
            said = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
            log.info("batch %s has ended: %s", batch, said)
            if self.config.outputs.contact_sheet and counts.get(S.DONE) and not self._batch:
                self.chores.request("contact-sheet", str(self.config.folders.results / batch))

    def _end(
        self,
        job: Job,
        state: JobState,
        now: Moment,
        *,
        error: str,
        detail: str = "",
        **changes: object,
    ) -> None:
        """The job ends without a picture; its inputs go to failed/ in `_finish`."""
        self._details[job.id] = detail
        self._unfinished[job.id] = self._move(job, state, now, error=error, **changes)

    def _move(self, job: Job, to: JobState, now: Moment, **changes: Any) -> Job:
        return self.ledger.move(job.id, to, now=now.wall, **changes)

    # Steering

    def _steer(self, now: Moment) -> None:
        """Do what other processes have asked for through the ledger."""
        for request in self.ledger.pending_requests():
            job = self.ledger.get(request.job_id)
            if job is not None and request.verb == "cancel":
                self._cancel(job, now)
            elif job is not None and request.verb == "retry":
                self._retry(job, now)
            self.ledger.finish_request(request.number)

    def _cancel(self, job: Job, now: Moment) -> None:
        if job.id in self._running:
            self.executor.cancel(job.id)
        elif S.CANCELLED in TRANSITIONS[job.state]:
            self._end(job, S.CANCELLED, now, error="cancelled by request")

    def _retry(self, job: Job, now: Moment) -> None:
        said = job_logger(log, job.name, job.id)
        if S.QUEUED not in TRANSITIONS[job.state] or not job.state.terminal:
            said.warning("only what has ended without a picture can be tried again")
            return
        try:
            claim.unarchive(job, self.config.folders.spool, self.config.folders.failed)
        except InputError as error:
            said.warning("%s", error)
        else:
            self._move(job, S.QUEUED, now, archive="", note="tried again by request")

    # What others see of it

    def _publish_status(self, now: Moment) -> None:
        """Leave the status where `nst-daemon status` finds it; no room on the disk is no reason to stop."""
        with suppress(StorageError):
            live = self.live(now)
            self.headline = live.headline
            live.write(self.config.folders.status)
            if self._metrics:
                folders = self.config.folders
                free = {f.name: free_bytes(f) for f in (folders.state, folders.results)}
                oldest = self.ledger.oldest(S.CLAIMED, S.QUEUED, S.RETRYING)
                self._metrics.update(live, self.ledger.counts(), oldest, free)

    def live(self, now: Moment) -> LiveStatus:
        """What only this process knows."""
        statuses = self.executor.status(now.steady)
        # The first of a worker's jobs, and what is painted beside it and has told so.
        where = {
            job_id: status.worker
            for status in statuses
            for i, job_id in enumerate(status.jobs)
            if i == 0 or (job_id in self._paces and self._paces[job_id].total)
        }
        paintings = [
            PaintingStatus(
                id=job_id,
                name=self._running[job_id].name,
                worker=worker,
                done=pace.done,
                total=pace.total,
                percent=pace.percent,
                speed=pace.speed,
                left=pace.left,
                curve=pace.curve,
                preview=self._shown_preview(job_id),
            )
            for job_id, worker in where.items()
            if (pace := self._paces.get(job_id))
        ]
        loading = any(status.state == "starting" for status in statuses)
        state, reason = self._condition(painting=bool(self._running), loading=loading)
        return LiveStatus(
            pid=os.getpid(),
            since=self._began.wall,
            at=now.wall,
            state=state,
            reason=reason,
            headline=self._headline(state, reason, paintings),
            paintings=paintings,
            workers=[
                {
                    "worker": status.worker,
                    "state": status.state,
                    "pid": status.pid,
                    "device_memory": self._memory.get(status.worker, 0) if status.pid else 0,
                    "info": dict(status.info),
                }
                for status in statuses
            ],
            settling=self.seen.settling if self.seen else (),
            waiting={w.name: w.reason for w in self.seen.waiting} if self.seen else {},
        )

    def ailment(self, now: Moment, patience: float) -> str:
        """Why this is not alive although the process is, "" where it is; `patience`: seconds of silence allowed.

        What waits for something to be mended is alive.
        """
        if now.steady - self._last_housekeeping > patience:
            return "the ledger has not been looked at"
        scanned = now.steady - self._last_intake
        if not self.paused and scanned > self.config.service.rescan_seconds + patience:
            return "the inbox has not been looked at"
        for worker in self.executor.status(now.steady):
            if worker.pid and worker.silent is not None and worker.silent > patience:
                return f"worker {worker.worker} has not answered for {worker.silent:.0f} s"
        return ""

    def _condition(self, *, painting: bool, loading: bool) -> tuple[str, str]:
        """The state of the whole in one word, and why it is not at work."""
        if self.paused:
            return "paused", self.paused
        if self.resting:
            return "resting", self.resting
        if self._lost:
            return "lost", self._lost
        if loading:
            return "loading", ""
        return ("painting" if painting else "idle"), ""

    def _headline(self, state: str, reason: str, paintings: Sequence[PaintingStatus]) -> str:
        """The status in one line: "painting dog 42 %, 7 waiting"."""
        counts = self.ledger.counts()
        queued = counts[S.QUEUED] + counts[S.RETRYING] + counts[S.RUNNING] - len(paintings)
        what = ", ".join(f"{job.name} {job.percent} %" for job in paintings)
        line = f"{state} {what}".rstrip() + (f": {reason}" if reason else "")
        return f"{line}, {queued} waiting" if queued else line

    # What has been kept for long enough

    def _retain(self, now: Moment) -> None:
        """Remove archived inputs and forget history as `keep` says, and nothing that is not the daemon's."""
        self._next_retention = now.steady + RETENTION_SECONDS
        drift = (now.wall - self._began.wall) - (now.steady - self._began.steady)
        if abs(drift) > RETENTION_SECONDS:
            log.warning(
                "the clock was set by %.0f s: nothing is removed by age until the next start", drift
            )
            return
        keep, folders = self.config.keep, self.config.folders
        for days, root, states in (
            (keep.done_days, folders.done, (S.DONE,)),
            (keep.failed_days, folders.failed, (S.FAILED, S.QUARANTINED, S.CANCELLED)),
        ):
            if days is not None:
                self._remove_archives(root, states, now.wall - days * DAY)
        if keep.previews_days is not None:
            files.remove_older(folders.previews, now.wall - keep.previews_days * DAY)
        if keep.ledger_days is not None:
            forgotten = self.ledger.prune(now.wall - keep.ledger_days * DAY)
            log.info("forgot %d jobs that ended %g days ago", len(forgotten), keep.ledger_days)

    def _back_up(self, now: Moment) -> None:
        """Renew the copy of the ledger. Raises StorageError."""
        self._next_backup = now.steady + DAY
        self.ledger.back_up()

    def _remove_archives(self, root: Path, states: Sequence[JobState], before: float) -> None:
        since = self._removed_until.get(root, 0.0)
        for job in self.ledger.history(*states, since=since, before=before, limit=-1):
            if claim.prune_archive(job, root):
                job_logger(log, job.name, job.id).info("removed its inputs from %s", root)
        self._removed_until[root] = before

    # Trouble with the disk

    def _check_folders(self) -> None:
        """Raise StorageError where a folder has gone."""
        folders = self.config.folders
        for folder in (folders.inbox, folders.results, folders.done, folders.failed, folders.state):
            if not folder.is_dir():
                raise StorageError(f"{folder} is not there", remedy="mount it or create it")

    def _check_space(self) -> None:
        """Raise StorageError where there is too little space."""
        folders = self.config.folders
        for folder in (folders.state, folders.results):
            free, least = free_bytes(folder), self.config.limits.min_free_disk
            if free < least:
                raise StorageError(
                    f"{folder} has {free // MiB:,} MiB of free space, "
                    f"and limits.min_free_disk asks for {least // MiB:,} MiB",
                    remedy="free some space",
                )

    def _pause(self, reason: str) -> None:
        if reason != self.paused:
            log.error("paused: %s; the queue goes on by itself when that is mended", reason)
        self.paused = reason

    def _resume(self) -> None:
        if self.paused:
            log.info("going on: it is mended")
        self.paused = ""

    # Beginning and end

    def recover(self, now: Moment) -> None:
        """Bring every job that a crash or a shutdown has left behind to where it can go on."""
        folders = self.config.folders
        self._began = now
        self._last_intake = self._last_housekeeping = now.steady
        # Not at once: right after a boot the clock may still be wrong.
        self._next_retention = now.steady + RETENTION_SECONDS
        self._next_backup = now.steady + DAY  # opening has made one
        for job in claim.recover_spool(folders.spool, self.ledger.ids(), folders.inbox):
            self.ledger.add(job, note="found in the spool, unknown to the ledger")
        for job in self.ledger.jobs(S.RUNNING):
            self._recover_running(job, now)
        for job in self.ledger.jobs(S.CLAIMED, S.STAGED, S.PUBLISHED):
            self._unfinished[job.id] = job
        for job in self.ledger.jobs(S.FAILED, S.QUARANTINED, S.CANCELLED):
            if not job.archive:
                self._unfinished[job.id] = job

    def _recover_running(self, job: Job, now: Moment) -> None:
        """The daemon itself ended in the middle of an attempt, so nobody knows whether the job was the reason."""
        if job.attempts < self.config.service.max_attempts + MOST_DEATHS:
            self._move(job, S.QUEUED, now, note="the daemon ended in the middle of this attempt")
        else:
            error = f"the daemon ended {job.attempts} times while this was painted; `nst-daemon retry` tries it again"
            self._end(job, S.QUARANTINED, now, error=error)

    def stop(self, now: Moment) -> None:
        """Let the workers write their checkpoints and end; what is staged is still published."""
        self._events += self.executor.stop(self.config.service.stop_seconds)
        self._listen(now)
        with suppress(StorageError):
            self._finish(now)
            if self.drain:  # it seldom lives until the time for that comes
                self._retain(now)
        self._page.close()
        self.chores.finish(self.config.service.stop_seconds)
        timeout = self.config.hooks.timeout
        self._hooks.close(timeout if self.drain else min(timeout, HOOKS_GRACE))

    # What `once` asks

    @property
    def failures(self) -> int:
        """How many jobs have ended badly since the start."""
        return self.ended[S.FAILED] + self.ended[S.QUARANTINED]

    @property
    def settling(self) -> bool:
        """True where something in the inbox is still being written."""
        return self.seen is None or bool(self.seen.settling)

    @property
    def drained(self) -> bool:
        """True where nothing is left to do but wait for files that are being written, or for new ones."""
        if self._wanted or self._unfinished or self._expansions or self.seen is None:
            return False
        if self.seen.requests or self.seen.rejections:
            return False
        counts = self.ledger.counts()
        return not any(counts[state] for state in JobState if not state.terminal)

    @property
    def stuck(self) -> bool:
        """True where the work that is left waits for something to be mended."""
        return bool(self.paused or self._lost)

    def give_up(self) -> None:
        """Say what stays undone when patience has ended. Raises what keeps it from being done, if anything does."""
        if self.paused:
            raise StorageError(self.paused)
        if self._lost:
            raise DeviceError(self._lost)
        assert self.seen is not None
        for path in self.seen.settling:
            log.warning("%s is still being written, and stays for the next time", path)


def _with_value(config: Config, key: str, value: Any) -> Config:
    """The same but for one key, which may be one of a section (`section.key`)."""
    section, _, name = key.rpartition(".")
    if section:
        return replace(config, **{section: replace(getattr(config, section), **{name: value})})
    return replace(config, **{name: value})


def batch_reach(config: Config, roots: Sequence[Path]) -> Reach:
    """What a batch may read on this root; roots: the folders that its globs look into."""
    return Reach(
        roots=tuple(roots),
        library=config.folders.styles,
        resolve=config.render_settings,
        network=config.model.network,
        weights_sha256=config.model.weights,
        max_bytes=config.limits.max_bytes,
    )


def _make_metrics(config: Config) -> PrometheusMetrics | None:
    if config.metrics.textfile is None and not config.metrics.port:
        return None
    from nst_daemon.service.metrics import PrometheusMetrics  # noqa: PLC0415 (its library is not needed otherwise)

    return PrometheusMetrics(config.metrics)


def _facts(info: Mapping[str, object]) -> str:
    """The short facts of a worker in one line."""
    wanted = ("device_name", "threads", "weights_description")
    return ", ".join(f"{info[key]}" for key in wanted if info.get(key))
