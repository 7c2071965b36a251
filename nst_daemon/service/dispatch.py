"""Hands queued jobs to the workers and answers the workers' events."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

from nst_daemon import active_hours, files
from nst_daemon.config import Outputs
from nst_daemon.engine.settings import RenderSettings, restore
from nst_daemon.errors import InputError, Retry, StorageError
from nst_daemon.job_settings import with_overrides
from nst_daemon.jobs import TRANSITIONS, Job, JobState
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.completion import Completion
from nst_daemon.service.containment import contained
from nst_daemon.service.previews import Previews
from nst_daemon.service.progress_estimate import ProgressEstimate
from nst_daemon.service.reuse import find_reusable
from nst_daemon.service.state import Moment, State
from nst_daemon.units import duration
from nst_daemon.workers.executor import Executor
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Event,
    Failed,
    Loading,
    Note,
    Progress,
    Ready,
    Staged,
    Started,
    Stopped,
    Task,
)

log = logging.getLogger(__name__)

S = JobState
JobEvent = Started | Progress | Staged | Failed | Stopped | Died | Note
#: A job is quarantined after its worker has died this often.
MOST_DEATHS = 2
#: Seconds between two log lines about one job's progress.
PROGRESS_LOG_SECONDS = 30.0
#: The longest pause before the job that met a disk error is tried again: the disk may be all right by then.
LONGEST_DISK_PAUSE = 60.0
#: How far down the queue to look for a job that may start, where others wait for the same picture. Mostly the first
#: job may start, so it is read alone before.
LOOK_AHEAD = 16


class Observer(Protocol):
    """Shows progress to people (`ops.progress_bars.Bars`)."""

    def update(self, key: str, name: str, done: int, total: int, loss: float | None = None) -> None:
        """The job `key` has painted `done` of `total` iterations."""

    def end(self, key: str) -> None:
        """The job `key` is no longer being painted."""


@dataclass(frozen=True, slots=True)
class _Blocked:
    """A disk error that a worker has reported. due: when to try the same job again, in monotonic seconds."""

    job_id: str
    reason: str
    due: float
    pause: float


class DeviceNews:
    """What the workers have said about themselves, and not about a job."""

    def __init__(self) -> None:
        #: Why there is no device to paint on; "" if there is one.
        self.lost = ""
        #: Why workers could not load because of the disk, by their names, until they are ready.
        self._not_loaded: dict[str, str] = {}
        #: Why each worker that is not ready has ended, as the log has it, without numbers.
        self._logged: dict[str, str] = {}

    def answer(self, event: Loading | Ready | DeviceLost | Died) -> None:
        """Log what it says: each reason once, and not if the pause that follows is logged."""
        self._not_loaded.pop(event.worker, None)
        match event:
            case Loading():
                seconds = duration(event.seconds)
                log.info("worker %s is still %s after %s", event.worker, event.step, seconds)
            case Ready():
                self.lost = ""
                self._logged.pop(event.worker, None)
                log.info("worker %s is ready: %s", event.worker, _facts(event.info))
                if why := event.info.get("no_gpu"):
                    level = logging.WARNING if event.info.get("unused_gpu") else logging.INFO
                    log.log(level, "%s", why)
                if warning := event.info.get("weights_warning"):
                    log.warning("%s", warning)
            case DeviceLost():
                self.lost = "" if event.left else f"no device is left to paint on: {event.reason}"
                why = f": {event.reason}" if self._is_new(event) else ""
                log.error("%s is not used now%s (devices left: %d)", event.worker, why, event.left)
            case Died(disk=True):
                self._not_loaded[event.worker] = f"worker {event.worker} {event.reason}"
            case Died():
                if self._is_new(event):
                    log.warning("worker %s %s", event.worker, event.reason)

    def _is_new(self, event: DeviceLost | Died) -> bool:
        """Whether the reason is not in the log yet. Numbers, such as seconds, do not make it another one."""
        reason = re.sub(r"\d+(\.\d+)?", "", event.reason)
        before, self._logged[event.worker] = self._logged.get(event.worker), reason
        return reason != before

    def check_disk(self) -> None:
        """Raise StorageError as long as a worker cannot load because of the disk."""
        for reason in self._not_loaded.values():
            raise StorageError(reason)

    def stop(self) -> None:
        """No worker tries to load."""
        self._not_loaded.clear()


class Dispatch:
    """Owns the executor and the jobs that are with it.

    Args:
        state: What the parts share.
        executor: Not started yet.
        completion: Takes the jobs that are staged or have failed.
        previews: Where the live previews go.
        observer: Shows progress, or None.
    """

    def __init__(
        self,
        state: State,
        executor: Executor,
        completion: Completion,
        previews: Previews,
        observer: Observer | None = None,
    ) -> None:
        self._state, self._completion, self._previews = state, completion, previews
        self.executor = executor
        self._observer = observer
        #: When painting continues, for people, outside of `service.active_hours`; "" while painting is allowed.
        self.resting = ""
        self.devices = DeviceNews()
        #: A job that a worker could not continue with because of the disk, until an attempt at it ends otherwise.
        self._blocked: _Blocked | None = None
        self._due: dict[str, float] = {}  # when to retry a job, in seconds of the monotonic clock
        self.running: dict[str, Job] = {}
        #: Ids of running jobs that may still wait in their worker: if the daemon ends then, they are not the cause.
        self._uncounted: set[str] = set()
        self.estimates: dict[str, ProgressEstimate] = {}
        #: Bytes that each worker holds on its device.
        self.device_memory: dict[str, int] = {}
        self._started = False
        self._events: list[Event] = []
        self._short_of_memory: set[str] = set()  # ids of jobs that once did not fit beside others
        self._logged: dict[str, float] = {}
        self.reconfigure()

    def reconfigure(self) -> None:
        """Take over what a reload may have changed."""
        self._hours = active_hours.parse(self._state.config.service.active_hours)

    # Events

    def listen(self, now: Moment) -> None:
        """Answer the workers' events.

        Raises:
            StorageError: The ledger could not record an answer. The event is answered again in the next round.
        """
        news = self.executor.poll(now.steady)
        self._state.count_deaths(event.worker for event in news if isinstance(event, Died))
        self._events += news
        while self._events:
            event = self._events[0]
            with contained(type(event).__name__, partial(self._fail_event, event, now)):
                self._answer(event, now)
            del self._events[0]

    def _fail_event(self, event: Event, now: Moment, reason: str, detail: str) -> None:
        """An event cannot be answered: where it ends an attempt, the job fails."""
        job_id = getattr(event, "job_id", None)
        if isinstance(event, Staged | Failed | Stopped | Died) and job_id in self.running:
            self._fail(self.running[job_id], now, reason, detail)

    def _fail(self, job: Job, now: Moment, reason: str, detail: str) -> None:
        """A job that is or should be with a worker ends without a picture."""
        if job.id in self.running:
            self._release(job)
        found = self._state.ledger.get(job.id)
        if found is not None and S.FAILED in TRANSITIONS[found.state]:
            self._completion.fail(found, S.FAILED, now, error=reason, detail=detail)

    def stop(self, now: Moment) -> None:
        """Let the workers write their checkpoints and end. Raises StorageError as `listen` does."""
        self._events += self.executor.stop(self._state.config.service.stop_seconds)
        self._started = False
        self.listen(now)
        self.devices.stop()

    def _answer(self, event: Event, now: Moment) -> None:
        match event:
            case Loading() | Ready() | DeviceLost() | Died(job_id=None):
                self.devices.answer(event)
            case _:
                self._answer_for_job(event, now)

    def _answer_for_job(self, event: JobEvent, now: Moment) -> None:
        job = self.running.get(event.job_id or "")
        if job is None:  # the job has ended meanwhile: nothing changes
            log.debug("%s about a job that is not running", type(event).__name__)
            return
        match event:
            case Started():
                job_logger(log, job.name, job.id).info("painting on %s", event.worker)
                self._count_attempt(job, now, note=f"painting on {event.worker}")
            case Note():
                job_logger(log, job.name, job.id).info("%s", event.message)
            case Progress():
                self._show(job, event, now)
            case _:
                self._attempt_ended(self._count_attempt(job, now), event, now)
                self._release(job)

    def _count_attempt(self, job: Job, now: Moment, *, note: str = "") -> Job:
        """Count the attempt at a job that has waited in its worker, once. Returns the job as it is then."""
        if job.id in self._uncounted:
            ledger, attempts = self._state.ledger, job.attempts + 1
            job = ledger.note(job.id, now=now.wall, note=note, attempts=attempts)
            self.running[job.id] = job
            self._uncounted.remove(job.id)
        return job

    def _attempt_ended(
        self, job: Job, event: Staged | Failed | Stopped | Died, now: Moment
    ) -> None:
        match event:
            case Staged():
                self._staged(job, event, now)
            case Stopped(cancelled=True):
                self._completion.fail(job, S.CANCELLED, now, error="cancelled by request")
            case Stopped():
                # An attempt that was interrupted on request says nothing about the job.
                self._requeue(job, now, note="interrupted", attempts=job.attempts - 1)
            case Failed():
                self._failed(job, event, now)
            case Died():
                self._died(job, event, now)

    def _staged(self, job: Job, event: Staged, now: Moment) -> None:
        if self._state.metrics:
            document = Path(event.files[-1]).with_suffix(".json")
            self._state.metrics.staged(self._state.folders.stage / job.id / document)
        changes = {"staged_files": event.files, "staged_sha256": event.sha256}
        self._completion.add(self._state.move(job, S.STAGED, now, **changes))
        self._state.note_progress(now)
        self._short_of_memory.discard(job.id)

    def _failed(self, job: Job, event: Failed, now: Moment) -> None:
        said = job_logger(log, job.name, job.id)
        if event.retry is Retry.PAUSED:
            self._requeue(job, now, note=event.message, attempts=job.attempts - 1)
            self._block(job, event.message, now)
        elif event.retry is Retry.ALONE and job.id not in self._short_of_memory:
            self._short_of_memory.add(job.id)
            said.warning("%s; trying once more, with no other job in the worker", event.message)
            self._state.count_retry("memory")
            self._requeue(job, now, note=event.message)
        elif event.retry is Retry.LATER and job.attempts < self._state.config.service.max_attempts:
            pacing = self._state.pacing
            pause = min(pacing.back_off * 2 ** (job.attempts - 1), pacing.longest_back_off)
            said.warning(
                "%s; attempt %d follows in %s", event.message, job.attempts + 1, duration(pause)
            )
            not_before = now.wall + pause  # for people, and for the next start
            self._state.move(job, S.RETRYING, now, note=event.message, not_before=not_before)
            self._due[job.id] = now.steady + pause
            self._state.count_retry("transient")
        else:
            self._short_of_memory.discard(job.id)
            self._completion.fail(job, S.FAILED, now, error=event.message, detail=event.detail)

    def _block(self, job: Job, reason: str, now: Moment) -> None:
        """Hand out nothing but this job from now on, after a pause that doubles."""
        before, pacing = self._blocked, self._state.pacing
        pause = pacing.back_off
        if before is not None and before.job_id == job.id:
            pause = min(2 * before.pause, LONGEST_DISK_PAUSE)
        self._blocked = _Blocked(job.id, reason, now.steady + pause, pause)

    def _died(self, job: Job, event: Died, now: Moment) -> None:
        deaths = job.deaths + 1
        why = f"the worker that painted it {event.reason}"
        if deaths < MOST_DEATHS:
            job_logger(log, job.name, job.id).warning("%s; trying once more", why)
            self._requeue(job, now, note=why, deaths=deaths)
            self._state.count_retry("death")
        else:
            error = f"{why}, {deaths} times; read the detail below, then `nst-daemon retry`"
            detail = event.detail
            self._completion.fail(
                job, S.QUARANTINED, now, error=error, detail=detail, deaths=deaths
            )

    def _requeue(self, job: Job, now: Moment, **changes: object) -> None:
        self._state.move(job, S.QUEUED, now, **changes)

    def _show(self, job: Job, progress: Progress, now: Moment) -> None:
        self._state.note_progress(now)
        self.device_memory[progress.worker] = progress.memory
        estimate = self.estimates[job.id]
        estimate.update(now.steady, progress.done, progress.total, progress.loss)
        if self._observer:
            self._observer.update(job.id, job.name, progress.done, progress.total, progress.loss)
        if now.steady - self._logged.get(job.id, -PROGRESS_LOG_SECONDS) >= PROGRESS_LOG_SECONDS:
            self._logged[job.id] = now.steady
            said = job_logger(log, job.name, job.id)
            said.info("%d %%, loss %.4g", estimate.percent, progress.loss)

    def _release(self, job: Job) -> None:
        """The job is no longer with a worker."""
        del self.running[job.id]
        self._uncounted.discard(job.id)
        self.estimates.pop(job.id, None)
        self._logged.pop(job.id, None)
        if self._observer:
            self._observer.end(job.id)

    # From the queue to the workers

    def resume_retry(self, job: Job, now: Moment) -> None:
        """At the start: wait with a job in `retrying` as long as the ledger says, but no longer than any job waits."""
        left = min(max(0.0, job.not_before - now.wall), self._state.pacing.longest_back_off)
        self._due[job.id] = now.steady + left

    def release_due(self, now: Moment) -> None:
        """Queue the jobs whose pause is over. The monotonic clock counts: setting the clock changes nothing."""
        for job_id in [job_id for job_id, due in self._due.items() if now.steady >= due]:
            job = self._state.ledger.get(job_id)
            if job is not None and job.state is S.RETRYING:
                with contained(job.name, partial(self._fail, job, now)):
                    self._state.move(job, S.QUEUED, now, note="the pause is over")
            del self._due[job_id]

    def keep_hours(self, now: Moment) -> None:
        """Release the devices outside of `service.active_hours`. `once` and `batch` paint at any time."""
        if self._state.drain or self._hours.active(now.wall):
            if self.resting:
                log.info("painting again (service.active_hours)")
            self.resting = ""
        elif not self.resting:
            change = self._hours.change(now.wall)
            self.resting = (
                f"until {change:%a %H:%M %Z}".rstrip()
                if change
                else "until the configuration changes"
            )
            log.info("not painting %s (service.active_hours)", self.resting)
            if self._started:
                self.stop(now)

    def hand_out(self, now: Moment) -> None:
        """Give queued jobs to the workers that have room.

        Raises StorageError, also as long as a worker could not load or continue because of the disk.
        """
        ledger = self._state.ledger
        if self.resting:
            return
        if not self._started and not (self._state.drain and not ledger.next_queued()):
            self.executor.start()
            self._started = True
        self.devices.check_disk()
        if self._blocked is not None:
            self._try_blocked(self._blocked, now)
        copies = self._state.pacing.claims_a_round
        while self._started and self.executor.capacity() > 0 and (job := self._next()):
            copied = job.batch is not None
            with contained(job.name, partial(self._fail, job, now)):
                if not (copied := copied and self._reuse(job, now)):
                    self._hand_out_one(job, now)
            if copied and (copies := copies - 1) == 0:  # the rest follows in the next round
                return

    def _try_blocked(self, blocked: _Blocked, now: Moment) -> None:
        """Try the job again that met a disk error; all others wait for its end. Raises StorageError meanwhile."""
        job = self._state.ledger.get(blocked.job_id)
        if job is None or job.state not in {S.QUEUED, S.RUNNING, S.RETRYING}:
            self._blocked = None
            return
        if job.state is S.QUEUED and now.steady >= blocked.due and self.executor.capacity() > 0:
            with contained(job.name, partial(self._fail, job, now)):
                self._hand_out_one(job, now)
        raise StorageError(blocked.reason)

    def _next(self) -> Job | None:
        """The next job in the queue, without the pictures of batches that another job is painting right now."""
        painting = {_file_identity(job) for job in self.running.values()}
        queued = chain.from_iterable(map(self._state.ledger.queue, (1, LOOK_AHEAD)))
        free = (job for job in queued if job.batch is None or _file_identity(job) not in painting)
        return next(free, None)

    def _hand_out_one(self, job: Job, now: Moment) -> None:
        stage = _emptied(self._state.folders.stage / job.id)
        waiting = {"attempts": job.attempts, "note": "next in a worker that is painting"}
        job = self._state.move(job, S.RUNNING, now, **(waiting if self.running else {}))
        if self.running:
            self._uncounted.add(job.id)
        try:
            settings = restore(job.settings)
        except InputError as error:  # the ledger was written by another version of this program
            self._completion.fail(job, S.FAILED, now, error=str(error))
            return
        self.running[job.id] = job
        self.estimates[job.id] = ProgressEstimate(
            settings.scales, settings.iterations, passes=settings.layer_passes
        )
        self.executor.submit(self._task(job, settings, stage))

    def _reuse(self, job: Job, now: Moment) -> bool:
        """Stage the same picture from another job; False if there is no such result. Raises StorageError."""
        results = self._state.folders.results
        found = find_reusable(job, self._state.ledger, results, self._outputs(job))
        if found is None:
            return False
        names = found.stage(job, _emptied(self._state.folders.stage / job.id))
        note = f"the same picture as {found.name}"
        changes = {"staged_files": names, "staged_sha256": found.sha256, "note": note}
        self._completion.add(self._state.move(job, S.STAGED, now, **changes))
        return True

    def _outputs(self, job: Job) -> Outputs:
        """How a job's files are written. Raises SettingsError where another version wrote the ledger."""
        return with_overrides(self._state.config.outputs, job.outputs)

    def _task(self, job: Job, settings: RenderSettings, stage: Path) -> Task:
        config, folders = self._state.config, self._state.folders
        return Task(
            job_id=job.id,
            name=job.name,
            attempt=job.attempts + (job.id in self._uncounted),
            inputs=job.inputs,
            spool=folders.spool / job.id,
            stage=stage,
            checkpoint=folders.checkpoints / job.id,
            settings=settings,
            outputs=self._outputs(job),
            limits=config.limits,
            batch=job.batch.published() if job.batch else None,
            preview=self._previews.path(job) if config.outputs.preview else None,
            alone=job.deaths > 0 or job.id in self._short_of_memory,
        )

    # Steering

    def cancel(self, job: Job) -> bool:
        """Ask the worker that has the job to end it. False if no worker has it."""
        if job.id not in self.running:
            return False
        self.executor.cancel(job.id)
        return True


def _emptied(stage: Path) -> Path:
    """A job's stage folder, without what an earlier attempt has left there. Whoever fills it makes it durable."""
    files.remove_tree(stage)
    with files.storage(stage):
        stage.mkdir(parents=True)
    return stage


def _file_identity(job: Job) -> tuple[object, ...]:
    """Equal for two jobs that paint the same picture into equal files."""
    return (job.identity, *sorted(job.outputs.items()))


def _facts(info: Mapping[str, object]) -> str:
    """The short facts of a worker in one line."""
    wanted = {"device_name": "{}", "threads": "{} threads", "weights_description": "{}"}
    told = ", ".join(form.format(info[key]) for key, form in wanted.items() if info.get(key))
    return told.replace(", 1 threads", ", 1 thread")
