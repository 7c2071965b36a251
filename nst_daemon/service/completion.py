"""From the end of an attempt to the end of the job: publish, archive the inputs, tell hooks, metrics and people."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nst_daemon import files
from nst_daemon.intake import archive
from nst_daemon.jobs import TRANSITIONS, Job, JobState
from nst_daemon.ops.logs import job_logger
from nst_daemon.publishing import SHEET, publish
from nst_daemon.service.chores import Chores
from nst_daemon.service.containment import contained, together_or_each, warn
from nst_daemon.service.hooks import HookRunner
from nst_daemon.service.notifications import Notifications
from nst_daemon.service.previews import Previews
from nst_daemon.service.state import Moment, State
from nst_daemon.units import count

log = logging.getLogger(__name__)

S = JobState
#: Seconds that hooks still get when the daemon ends.
HOOKS_GRACE = 10.0


def ended_jobs(ended: Mapping[JobState, int]) -> str:
    """How many jobs have ended in each state: "3 painted, 1 failed", or "1 job failed" for a single state."""
    found = [
        (number, "painted" if state is S.DONE else state.value)
        for state, number in sorted(ended.items())
    ]
    if len(found) == 1:
        ((number, what),) = found
        return f"{count(number, 'picture' if what == 'painted' else 'job')} {what}"
    return ", ".join(f"{number:,} {what}" for number, what in found)


@dataclass(slots=True)
class _Placed:
    """A job whose files are in their place, and not noted in the ledger yet.

    result: its picture, if it has just been published; root, archive: the folder of its inputs; ended: the job as the
    ledger has it then, None if it had ended before.
    """

    job: Job
    result: Path | None
    root: Path
    archive: str
    ended: Job | None = None

    @property
    def folders(self) -> Iterator[Path]:
        """The folders with new names."""
        if self.result is not None:
            yield self.result.parent
        yield (self.root / self.archive).parent


class Completion:
    """Owns the jobs that are staged, published or ended and not archived yet.

    Args:
        state: What the parts share.
        chores: Runs the gallery and the contact sheets.
        previews: The previews to remove.
        notifications: Messages about what has ended.
        sheets: Whether a batch that has ended gets a contact sheet. (The command `batch` makes its own: only it knows
            where the contents are.)
    """

    def __init__(
        self,
        state: State,
        chores: Chores,
        previews: Previews,
        notifications: Notifications,
        *,
        sheets: bool,
    ) -> None:
        self._state, self._previews, self._sheets = state, previews, sheets
        self._notifications = notifications
        self.chores = chores
        #: How many jobs have ended in each state since the start.
        self.ended: Counter[JobState] = Counter()
        self._jobs: dict[str, Job] = {}
        self._details: dict[str, str] = {}  # what follows the reason in error.txt, by job
        self._open_batches: set[str] = set()
        self._finished = (
            -math.inf
        )  # when jobs were finished last, in seconds of the monotonic clock
        self._hooks = HookRunner()

    @property
    def busy(self) -> bool:
        """Whether there are jobs to finish."""
        return bool(self._jobs)

    @property
    def due(self) -> float:
        """When there are jobs to finish, in seconds of the monotonic clock: not each alone where many end."""
        return self._finished + self._state.pacing.group_seconds if self._jobs else math.inf

    @property
    def summary(self) -> str:
        """How many jobs have ended in each state since the start."""
        return ended_jobs(self.ended)

    def holds(self, job_id: str) -> bool:
        """Whether a job is still to be finished."""
        return job_id in self._jobs

    def add(self, job: Job) -> None:
        """Finish this job in the next round. It is staged, published, or has ended without a picture."""
        self._jobs[job.id] = job

    def fail(
        self,
        job: Job,
        to: JobState,
        now: Moment,
        *,
        error: str,
        detail: str = "",
        **changes: object,
    ) -> None:
        """End a job without a picture; the next round moves its inputs to failed/.

        Args:
            job: As the ledger has it.
            to: `failed`, `quarantined` or `cancelled`.
            now: The time.
            error: One line for people.
            detail: What follows it in error.txt, such as a traceback.
            changes: Other fields of the job that change.
        """
        self._details[job.id] = detail
        self.add(self._state.move(job, to, now, error=error, **changes))

    def cancel(self, job: Job, now: Moment) -> None:
        """End a job that is with no worker, where it may still be cancelled."""
        if S.CANCELLED in TRANSITIONS[job.state]:
            self.fail(job, S.CANCELLED, now, error="cancelled by request")

    def finish(self, now: Moment) -> None:
        """Publish what is staged and archive what has ended when it is time. Raises StorageError if the disk fails."""
        if now.steady >= self.due:
            self._finished = now.steady
            self.finish_some(now)

    def finish_some(self, now: Moment) -> None:
        """Publish and archive for a short time; the rest stays for the next round. Raises StorageError."""
        placed: list[_Placed] = []
        try:
            end = self._state.clock() + self._state.pacing.slice_seconds
            for job in list(self._jobs.values()):
                with contained(job.name, partial(self._give_up, job.id, now)):
                    if one := self._place(job, now):
                        placed.append(one)
                if self._state.clock() >= end:
                    break
        finally:
            self._note_placed(placed, now)

    def _give_up(self, job_id: str, now: Moment, reason: str, detail: str) -> None:
        """A job cannot be finished as it should be: a staged one fails, an ended one keeps its inputs in the spool."""
        del self._jobs[job_id]
        job = self._state.ledger.get(job_id)
        if job is None:
            return
        said = job_logger(log, job.name, job.id)
        if job.state is S.STAGED:
            error = f"the picture cannot be moved to results/: {reason}"
            self.fail(job, S.FAILED, now, error=error, detail=detail)
            return
        said.error("its inputs stay in %s: %s", self._state.folders.spool / job.id, reason)
        if job.state is S.PUBLISHED:
            self._ended([self._state.move(job, S.DONE, now)])
        elif job.state is not S.DONE:
            self._ended([job])

    def tend(self) -> None:
        """Look after hooks and chores; never waits."""
        self.chores.tend()
        self._hooks.tend()

    def close(self) -> None:
        """Wait for chores and hooks, within their limits."""
        self.chores.finish(self._state.config.service.stop_seconds)
        timeout = self._state.config.hooks.timeout
        self._hooks.close(timeout if self._state.drain else min(timeout, HOOKS_GRACE))

    # Batches

    def batch_opened(self, name: str) -> None:
        """More jobs of this batch will come."""
        self._open_batches.add(name)

    def batch_closed(self, name: str) -> None:
        """All jobs of this batch are in the ledger."""
        self._open_batches.discard(name)
        self._sum_up(name)

    def _sum_up(self, batch: str) -> None:
        """Log how a batch went, and have its sheet made, once its last job has ended."""
        if batch in self._open_batches:
            return
        counts = self._state.ledger.batch_counts(batch)
        if not counts or not all(state.terminal for state in counts):
            return
        said = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        log.info("batch %s has ended: %s", batch, said)
        self._notifications.batch_ended(batch, counts)
        if self._sheets and self._state.config.outputs.contact_sheet and counts.get(S.DONE):
            self.chores.request("contact-sheet", str(self._state.folders.results / batch))

    def results_changed(self, job: Job) -> None:
        """The files of a job were deleted: have the gallery and the sheet of its batch written without them."""
        outputs, batch = self._state.config.outputs, self._state.folders.results / job.group
        if outputs.gallery and job.state is S.DONE:
            self.chores.request("gallery")
        if job.source != "batch" or not outputs.contact_sheet or not (batch / SHEET).exists():
            return
        if self._state.ledger.batch_has_results(job.group):
            self.chores.request("contact-sheet", str(batch))

    # One job

    def _place(self, job: Job, now: Moment) -> _Placed | None:
        """Put the files of a job where they belong. None if its finished picture is missing: it is painted again."""
        folders = self._state.folders
        painted, result = job.state in {S.STAGED, S.PUBLISHED, S.DONE}, None
        stage = folders.stage / job.id
        if job.state is S.STAGED:
            if not all((stage / name).is_file() for name in job.staged_files):
                note = "its finished picture was lost before it was published; painting it again"
                self._state.move(job, S.QUEUED, now, note=note)
                del self._jobs[job.id]
                return None
            overwrite = self._state.config.outputs.overwrite
            result = publish(
                stage, job.staged_files, folders.results, job.name, overwrite=overwrite
            )
        root = folders.done if painted else folders.failed
        try:
            place = archive.archive(
                job,
                folders.spool,
                root,
                error=job.error,
                detail=self._details.get(job.id, ""),
                # A finished picture that cannot be published is kept with the inputs.
                pictures=[stage / n for n in job.staged_files] if job.state is S.FAILED else (),
            )
        except BaseException:
            if (
                result is not None
            ):  # or it would be published again if somebody has moved it meanwhile
                files.flush((), [result.parent])
                self._jobs[job.id] = self._note_published(job, result, now)
            raise
        return _Placed(job, result, root, place)

    def _note_placed(self, placed: Sequence[_Placed], now: Moment) -> None:
        """Make the new names durable, and note in one transaction what has ended. Raises StorageError.

        The stage keeps the pictures until then: after a crash they are found in results/ by their contents.
        """
        if not placed:
            return
        files.flush((), list(dict.fromkeys(folder for one in placed for folder in one.folders)))
        together_or_each(
            self._state.ledger,
            placed,
            lambda one: self._note(one, now),
            lambda one: contained(one.job.name, partial(self._give_up, one.job.id, now)),
        )
        ended = []
        for one in placed:
            if self._jobs.get(one.job.id) is one.job:  # the ledger has taken it
                del self._jobs[one.job.id]
                self._clean_up(one.job)
                if one.ended is not None:
                    ended.append(one.ended)
        self._ended(ended)

    def _note_published(self, job: Job, result: Path, now: Moment) -> Job:
        place = str(result.relative_to(self._state.folders.results))
        return self._state.move(job, S.PUBLISHED, now, result=place)

    def _note(self, one: _Placed, now: Moment) -> None:
        """Change the ledger after the files of a job are in their place."""
        job, one.ended = one.job, None
        if one.result is not None:
            job = self._note_published(job, one.result, now)
        painted = job.state in {S.PUBLISHED, S.DONE}
        ended_before = job.state is S.DONE or job.deleted or (job.archive and not painted)
        if ended_before:  # only some inputs could not be moved then
            self._state.ledger.note(job.id, now=now.wall, archive=one.archive, deleted=False)
        elif painted:
            one.ended = self._state.move(job, S.DONE, now, archive=one.archive)
        else:
            one.ended = self._state.ledger.note(job.id, now=now.wall, archive=one.archive)

    def _clean_up(self, job: Job) -> None:
        """Remove what only the work needed. The job has ended, even if that is not possible."""
        folders, said = self._state.folders, job_logger(log, job.name, job.id)
        with contained(job.name, warn(said, "its temporary files cannot be removed: %s")):
            keep = job.state in {S.FAILED, S.QUARANTINED}
            self._previews.forget(job, remove=not keep)
            files.remove_tree(folders.stage / job.id)
            (folders.checkpoints / job.id).unlink(missing_ok=True)

    def _ended(self, jobs: Sequence[Job]) -> None:
        """Nothing more happens to the jobs: tell the log, the gallery, the batches, metrics and hooks."""
        for job in jobs:
            self._announce(job)
        for batch in dict.fromkeys(job.group for job in jobs if job.source == "batch"):
            self._sum_up(batch)

    def _announce(self, job: Job) -> None:
        said = job_logger(log, job.name, job.id)
        if job.state is S.DONE:
            if self._state.config.outputs.gallery:
                self.chores.request("gallery")
            said.info("done: %s", self._state.folders.results / job.result)
        elif job.state is S.CANCELLED:
            said.info(
                "%s; its files are in %s", job.error, self._state.folders.failed / job.archive
            )
        else:
            said.error("%s: %s", job.state, job.error)
        self._tell(job)
        self.ended[job.state] += 1
        self._details.pop(job.id, None)

    def _tell(self, job: Job) -> None:
        """Tell metrics, notifications and hooks how a job has ended."""
        folders, hooks = self._state.folders, self._state.config.hooks
        if self._state.metrics:
            self._state.metrics.ended.labels(job.state.value).inc()
        self._notifications.job_ended(job)
        if job.state is not S.CANCELLED:
            painted = job.state is S.DONE
            self._hooks.add(
                hooks.done if painted else hooks.failed,
                job,
                result=folders.results / job.result if painted else None,
                inputs=(folders.done if painted else folders.failed) / job.archive,
                timeout=hooks.timeout,
                keep=hooks.pass_environment,
            )
