"""From the end of an attempt to the end of the job: publish, archive the inputs, tell hooks, metrics and people."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial

from nst_daemon import files
from nst_daemon.intake import archive
from nst_daemon.jobs import TRANSITIONS, Job, JobState
from nst_daemon.ops.logs import job_logger
from nst_daemon.publishing import SHEET, publish
from nst_daemon.service.chores import Chores
from nst_daemon.service.containment import contained, warn
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
        self._hooks = HookRunner()

    @property
    def busy(self) -> bool:
        """Whether there are jobs to finish."""
        return bool(self._jobs)

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
        """Publish what is staged and archive what has ended.

        Raises StorageError if the disk fails; the rest stays for the next round.
        """
        for job in list(self._jobs.values()):
            with contained(job.name, partial(self._give_up, job.id, now)):
                published = self._publish(job, now) if job.state is S.STAGED else job
                if published is not None:
                    self._archive(published, now)
                del self._jobs[job.id]

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
            self._ended(self._state.move(job, S.DONE, now))
        elif job.state is not S.DONE:
            self._ended(job)

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

    def _publish(self, job: Job, now: Moment) -> Job | None:
        """Move the staged files to results/. None if they are missing and the job is painted again."""
        folders = self._state.folders
        stage = folders.stage / job.id
        if not all((stage / name).is_file() for name in job.staged_files):
            self._state.move(
                job,
                S.QUEUED,
                now,
                note="its finished picture was lost before it was published; painting it again",
            )
            return None
        picture = publish(
            stage,
            job.staged_files,
            folders.results,
            job.name,
            overwrite=self._state.config.outputs.overwrite,
        )
        result = str(picture.relative_to(folders.results))
        self._jobs[job.id] = self._state.move(job, S.PUBLISHED, now, result=result)
        return self._jobs[job.id]

    def _archive(self, job: Job, now: Moment) -> None:
        """Move the inputs to done/ or failed/, and remove what only the work needed."""
        folders, painted = self._state.folders, job.state in {S.PUBLISHED, S.DONE}
        stage = folders.stage / job.id
        place = archive.archive(
            job,
            folders.spool,
            folders.done if painted else folders.failed,
            error=job.error,
            detail=self._details.get(job.id, ""),
            # A finished picture that cannot be published is kept with the inputs.
            pictures=[stage / name for name in job.staged_files] if job.state is S.FAILED else (),
        )
        said = job_logger(log, job.name, job.id)
        # The job has ended, even if something that only the work needed cannot be removed.
        with contained(job.name, warn(said, "its temporary files cannot be removed: %s")):
            self._previews.forget(job, remove=painted or job.state is S.CANCELLED)
            files.remove_tree(stage)
            (folders.checkpoints / job.id).unlink(missing_ok=True)
        ended_before = job.state is S.DONE or job.deleted or (job.archive and not painted)
        if ended_before:  # only some inputs could not be moved then
            self._state.ledger.note(job.id, now=now.wall, archive=place, deleted=False)
        elif painted:
            self._ended(self._state.move(job, S.DONE, now, archive=place))
        else:
            self._ended(self._state.ledger.note(job.id, now=now.wall, archive=place))

    def _ended(self, job: Job) -> None:
        """Nothing more happens to the job: tell the log, the gallery, the batch, metrics and hooks."""
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
        if job.source == "batch":
            self._sum_up(job.group)
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
