"""Hands queued jobs to the workers and answers the workers' events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from nst_daemon import active_hours, files
from nst_daemon.engine.settings import RenderSettings, restore
from nst_daemon.errors import InputError, Retry
from nst_daemon.jobs import Job, JobState
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.completion import Completion
from nst_daemon.service.previews import Previews
from nst_daemon.service.progress_estimate import ProgressEstimate
from nst_daemon.service.reuse import find_reusable
from nst_daemon.service.state import Moment, State
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

log = logging.getLogger(__name__)

S = JobState
JobEvent = Started | Progress | Staged | Failed | Stopped | Died | Note
#: A job is quarantined after its worker has died this often.
MOST_DEATHS = 2
#: Seconds between two log lines about one job's progress.
PROGRESS_LOG_SECONDS = 30.0
#: How far down the queue to look for a job that may start, where others wait for the same picture.
LOOK_AHEAD = 16


class Observer(Protocol):
    """Shows progress to people (`ops.progress_bars.Bars`)."""

    def update(self, key: str, name: str, done: int, total: int, loss: float | None = None) -> None:
        """The job `key` has painted `done` of `total` iterations."""

    def end(self, key: str) -> None:
        """The job `key` is no longer being painted."""


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
        #: When painting goes on, for people, outside of `service.active_hours`; "" while painting is allowed.
        self.resting = ""
        #: Why there is no device to paint on; "" where there is one.
        self.lost = ""
        #: Why the queue has to wait, as a worker found out; "" where it need not. The supervisor takes it.
        self.blocked = ""
        self.running: dict[str, Job] = {}
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
        self._events += self.executor.poll(now.steady)
        while self._events:
            self._answer(self._events[0], now)
            del self._events[0]

    def stop(self, now: Moment) -> None:
        """Let the workers write their checkpoints and end. Raises StorageError as `listen` does."""
        self._events += self.executor.stop(self._state.config.service.stop_seconds)
        self._started = False
        self.listen(now)

    def _answer(self, event: Event, now: Moment) -> None:
        match event:
            case Ready():
                self.lost = ""
                log.info("worker %s is ready: %s", event.worker, _facts(event.info))
                if warning := event.info.get("weights_warning"):
                    log.warning("%s", warning)
            case DeviceLost():
                self.lost = "" if event.left else f"no device is left: {event.reason}"
                log.error(
                    "%s is out of use: %s (%d devices left)", event.worker, event.reason, event.left
                )
            case Died(job_id=None):
                log.warning("worker %s %s", event.worker, event.reason)
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
            case Note():
                job_logger(log, job.name, job.id).info("%s", event.message)
            case Progress():
                self._show(job, event, now)
            case _:
                self._attempt_ended(job, event, now)
                self._release(job)

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
        self._short_of_memory.discard(job.id)

    def _failed(self, job: Job, event: Failed, now: Moment) -> None:
        said = job_logger(log, job.name, job.id)
        if event.retry is Retry.PAUSED:
            self._requeue(job, now, note=event.message, attempts=job.attempts - 1)
            self.blocked = event.message
        elif event.retry is Retry.ALONE and job.id not in self._short_of_memory:
            self._short_of_memory.add(job.id)
            said.warning("%s; trying once more, with no other job in the worker", event.message)
            self._state.count_retry("memory")
            self._requeue(job, now, note=event.message)
        elif event.retry is Retry.LATER and job.attempts < self._state.config.service.max_attempts:
            pacing = self._state.pacing
            pause = min(pacing.back_off * 2 ** (job.attempts - 1), pacing.longest_back_off)
            said.warning("%s; attempt %d follows in %.0f s", event.message, job.attempts + 1, pause)
            not_before = now.wall + pause
            self._state.move(job, S.RETRYING, now, note=event.message, not_before=not_before)
            self._state.count_retry("transient")
        else:
            self._short_of_memory.discard(job.id)
            self._completion.fail(job, S.FAILED, now, error=event.message, detail=event.detail)

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
        del self.estimates[job.id]
        self._logged.pop(job.id, None)
        if self._observer:
            self._observer.end(job.id)

    # From the queue to the workers

    def keep_hours(self, now: Moment) -> None:
        """Release the devices outside of `service.active_hours`. `once` and `batch` paint at any time."""
        if self._state.drain or self._hours.active(now.wall):
            if self.resting:
                log.info("painting goes on")
            self.resting = ""
        elif not self.resting:
            change = self._hours.change(now.wall)
            self.resting = (
                f"until {change:%a %H:%M %Z}".rstrip()
                if change
                else "until the configuration changes"
            )
            log.info("resting %s (service.active_hours)", self.resting)
            if self._started:
                self.stop(now)

    def hand_out(self, now: Moment) -> None:
        """Give queued jobs to the workers that have room. Raises StorageError."""
        ledger = self._state.ledger
        if self.resting:
            return
        if not self._started and not (self._state.drain and not ledger.next_queued()):
            self.executor.start()
            self._started = True
        copies = self._state.pacing.claims_a_round
        while self._started and self.executor.capacity() > 0 and (job := self._next()):
            if job.batch is None or not self._reuse(job, now):
                self._hand_out_one(job, now)
            elif (copies := copies - 1) == 0:  # the rest follows in the next round
                return

    def _next(self) -> Job | None:
        """The next job in the queue, without the pictures of batches that another job is painting right now."""
        painting = {job.identity for job in self.running.values()}
        queued = self._state.ledger.queue(1 + LOOK_AHEAD * bool(painting))
        free = (job for job in queued if job.batch is None or job.identity not in painting)
        return next(free, None)

    def _hand_out_one(self, job: Job, now: Moment) -> None:
        stage = self._empty_stage(job)
        job = self._state.move(job, S.RUNNING, now)
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
        suffix = f".{self._state.config.outputs.format}"
        found = find_reusable(job, self._state.ledger, results, suffix)
        if found is None:
            return False
        names = found.stage(job, self._empty_stage(job))
        note = f"the same picture as {found.name}"
        changes = {"staged_files": names, "staged_sha256": found.sha256, "note": note}
        self._completion.add(self._state.move(job, S.STAGED, now, **changes))
        return True

    def _empty_stage(self, job: Job) -> Path:
        """The job's stage folder, without what an earlier attempt has left there."""
        stage = self._state.folders.stage / job.id
        files.remove_tree(stage)
        files.make_folder(stage)
        return stage

    def _task(self, job: Job, settings: RenderSettings, stage: Path) -> Task:
        config, folders = self._state.config, self._state.folders
        return Task(
            job_id=job.id,
            name=job.name,
            attempt=job.attempts,
            inputs=job.inputs,
            spool=folders.spool / job.id,
            stage=stage,
            checkpoint=folders.checkpoints / job.id,
            settings=settings,
            outputs=config.outputs,
            limits=config.limits,
            batch=asdict(job.batch) if job.batch else None,
            preview=self._previews.path(job) if config.outputs.preview else None,
            alone=job.deaths > 0 or job.id in self._short_of_memory,
        )

    # Steering

    def cancel(self, job: Job) -> bool:
        """Ask the worker that has the job to end it. False where no worker has it."""
        if job.id not in self.running:
            return False
        self.executor.cancel(job.id)
        return True


def _facts(info: Mapping[str, object]) -> str:
    """The short facts of a worker in one line."""
    wanted = ("device_name", "threads", "weights_description")
    return ", ".join(f"{info[key]}" for key in wanted if info.get(key))
