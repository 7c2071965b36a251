"""From `claimed` on: the originals leave the inbox when the copies are checked, and the jobs join the queue."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from functools import partial

from nst_daemon import files
from nst_daemon.jobs import Job, JobState, Role
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.claim_review import ClaimReview, Decision
from nst_daemon.service.completion import Completion
from nst_daemon.service.containment import contained, together_or_each
from nst_daemon.service.state import Moment, State
from nst_daemon.service.unremovable import Unremovable
from nst_daemon.workers.picture_check import PictureCheck

log = logging.getLogger(__name__)

S = JobState
PAIR = frozenset({Role.CONTENT, Role.STYLE})


class ClaimedJobs:
    """Owns the jobs that are in the ledger and not in the queue yet.

    Args:
        state: What the parts share.
        completion: Takes what has failed.
        check: Decodes the pictures of drops before they join the queue.
        unremovable: Removes originals.
        wake: Called when the inbox has to be looked at again.
    """

    def __init__(
        self,
        state: State,
        completion: Completion,
        check: PictureCheck,
        unremovable: Unremovable,
        wake: Callable[[], None],
    ) -> None:
        self._state, self._completion, self._unremovable = state, completion, unremovable
        self._wake = wake
        self._jobs: dict[str, Job] = {}
        self._entered = -math.inf
        #: When to go on at the latest, in seconds of the monotonic clock, although no more checks are answered.
        self.due = math.inf
        self.review = ClaimReview(state, check)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, job: Job) -> None:
        """This part owns the job now."""
        self._jobs[job.id] = job

    @property
    def origins(self) -> frozenset[str]:
        """The paths of their originals below the inbox."""
        inputs = (file for job in self._jobs.values() for file in job.inputs)
        return frozenset(file.origin for file in inputs if file.fingerprint)

    def tend(self, now: Moment) -> None:
        """Go on with all jobs, but not with each alone while others are being checked. Raises StorageError."""
        due = self._entered + self._state.pacing.group_seconds
        if self.review.unanswered and now.steady < due:
            self.due = due
        else:
            self._entered, self.due = now.steady, math.inf
            self.enter(list(self._jobs.values()), now)

    def enter(self, jobs: Iterable[Job], now: Moment) -> None:
        """Go on with these jobs as far as their checks are answered. Raises StorageError.

        Those that join the queue do so in one transaction. Their originals are gone then: a job whose originals are
        gone is queued at the next start.
        """
        ready = []
        for job in jobs:
            with contained(job.name, partial(self._fail, job.id, now)):
                if self._decide(job, now):
                    ready.append(job)
        together_or_each(
            self._state.ledger,
            ready,
            lambda job: self._state.move(job, S.QUEUED, now),
            lambda job: contained(job.name, partial(self._fail, job.id, now)),
        )
        for job in ready:
            if job.id in self._jobs:  # it has not failed
                self._say_queued(job)
                self._decided(job.id)

    def _decide(self, job: Job, now: Moment) -> bool:
        """Whether the job joins the queue now; its originals have left the inbox then. It may wait, or has failed."""
        folders = self._state.folders
        verdict = self.review.decide(job, now)
        if verdict.decision is Decision.WAIT:
            return False
        said = job_logger(log, job.name, job.id)
        if verdict.decision is Decision.RELEASE:
            # The copy goes first: a copy that the ledger does not know would be recovered as a job at the next start.
            files.remove_tree(folders.spool / job.id)
            self._state.ledger.forget(job.id)
            self._decided(job.id)
            self._wake()
            said.info("its files changed after they were copied; the new version is copied")
            return False
        failed = verdict.decision is Decision.FAIL
        for problem in self._unremovable.remove(job, keep=failed):
            said.warning("%s", problem)
        if error := job.error or verdict.reason:
            self._completion.fail(job, S.FAILED, now, error=error)
            self._decided(job.id)
            return False
        return True

    def _say_queued(self, job: Job) -> None:
        said = job_logger(log, job.name, job.id)
        said.info("picked up: %s", ", ".join(file.name for file in job.inputs))
        if job.source == "order":
            names = (f"{file.name} is the {file.role}" for file in job.inputs if file.role in PAIR)
            said.info("paired by order: %s", ", ".join(names))

    def _fail(self, job_id: str, now: Moment, reason: str, detail: str) -> None:
        """A claimed job cannot join the queue: it fails, or waits for the next start."""
        self._decided(job_id)
        job = self._state.ledger.get(job_id)
        if job is not None and job.state is S.CLAIMED:
            self._completion.fail(job, S.FAILED, now, error=reason, detail=detail)

    def _decided(self, job_id: str) -> None:
        """The job is queued, has failed or is forgotten: this part no longer owns it."""
        del self._jobs[job_id]
        self.review.forget(job_id)
        if not self._jobs:
            self._wake()  # the last look saw the files, and the watch does not report that they were removed
