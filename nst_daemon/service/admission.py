"""From the inbox into the queue: scan, claim, and open batches.

Every way in goes through `Admission.admit`: a drop, a picture of a batch and a retry are checked, copied, hashed and
resolved by the same code.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass, replace
from functools import partial

from nst_daemon import files
from nst_daemon.errors import InputError, SettingsError, StorageError
from nst_daemon.identity import picture_identity
from nst_daemon.intake import claim
from nst_daemon.intake.drops import ANYWHERE, Drop, Rejection, Request
from nst_daemon.intake.expansion import Expansion
from nst_daemon.intake.pairing import Rules
from nst_daemon.intake.scan import Intake, Scan
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.intake.steps import Steps, release
from nst_daemon.intake.strays import Strays
from nst_daemon.job_settings import correction, resolve_job
from nst_daemon.jobs import Job, JobState, Role
from nst_daemon.names import printable
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.batches import Batches, weights_digest
from nst_daemon.service.claim_review import ClaimReview, Decision
from nst_daemon.service.completion import Completion
from nst_daemon.service.containment import concerns_all, contained
from nst_daemon.service.looks import Looks
from nst_daemon.service.notices import WaitingLog
from nst_daemon.service.state import Moment, State
from nst_daemon.service.unremovable import Unremovable
from nst_daemon.workers.picture_check import PictureCheck

log = logging.getLogger(__name__)

S = JobState
PAIR = frozenset({Role.CONTENT, Role.STYLE})
#: Two jobs are created at least this many seconds apart, so that the queue keeps the order of one scan.
CREATION_STEP = 1e-5


@dataclass(frozen=True, slots=True)
class Postponed:
    """Why a drop is left in the inbox, and until when, in seconds of the monotonic clock."""

    reason: str
    until: float


class Admission:
    """Owns the inbox, the batches that are being read, and the jobs that are claimed and not in the queue yet.

    Args:
        state: What the parts share.
        completion: Takes what is refused.
        check: Decodes the pictures of drops before they join the queue.
        batch: Paint this instead of what is in the inbox.
    """

    def __init__(
        self,
        state: State,
        completion: Completion,
        check: PictureCheck,
        batch: Expansion | None = None,
    ) -> None:
        self._state, self._completion, self._batch = state, completion, batch
        self._review = ClaimReview(state, check)
        self._unremovable = Unremovable(state)
        self._waiting_log = WaitingLog()
        folders = state.folders
        self._strays = Strays(folders.root, folders.results, folders.inbox)
        #: What the last scan saw; None before the first.
        self.seen: Scan | None = None
        #: When the last round ended, in seconds of the monotonic clock.
        self.last_round = state.began.steady
        self._looks = Looks(state)
        self._last_created = 0.0
        #: Drops that stay in the inbox for a while because they cannot be read at the moment, by name.
        self.postponed: dict[str, Postponed] = {}
        self._wanted: deque[Request | Rejection] = deque()
        self._claimed: dict[str, Job] = {}
        self._batches = Batches(state, completion, self)
        self.reconfigure()
        if batch:
            self._batches.begin(batch)

    def reconfigure(self) -> None:
        """Take over what a reload may have changed; what was settling settles again."""
        config = self._state.config
        self._wanted.clear()
        self._looks.stop()
        self._looks.due = -math.inf
        self._inbox = Intake(
            config.folders.inbox,
            config.folders.styles,
            settle_seconds=config.service.settle_seconds,
            truncated_grace=config.service.truncated_grace,
            # `once` leaves incomplete pairs in the inbox: the other half may come with the next drop.
            pair_timeout=math.inf if self._state.drain else config.service.pair_timeout,
            rescan_seconds=config.service.rescan_seconds,
            max_bytes=config.limits.max_bytes,
            default_style=config.default_style,
            partner_grace=0.0 if self._state.drain else config.service.truncated_grace,
            order_window=config.service.order_window,
            had_jobs=self._state.ledger.has_jobs_in,
        )

    @property
    def busy(self) -> bool:
        """Whether there is more to look at or to admit at once."""
        if self._looks.under_way:
            return True
        return self._review.has_room and bool(self._wanted or self._batches.busy)

    @property
    def held(self) -> dict[str, str]:
        """Claimed jobs that wait for the rest of a picture, by name, and why."""
        return self._review.held

    @property
    def due(self) -> float:
        """When the inbox is scanned next, in seconds of the monotonic clock: after what the last scan has found."""
        return math.inf if self._wanted else self._looks.due

    @property
    def drained(self) -> bool:
        """Whether the last scan found nothing to admit, and everything that was claimed is in the queue."""
        if self.busy or self._claimed or self.seen is None:
            return False
        found: list[Request | Rejection] = [*self.seen.requests, *self.seen.rejections]
        return all(wanted.name in self.postponed for wanted in found)

    def wake(self) -> None:
        """Something has changed in the inbox: look soon."""
        self._looks.wake()

    def stop_looking(self) -> None:
        """End a look that is under way. The next one begins anew."""
        self._looks.stop()

    def rules(self, now: Moment) -> Rules:
        """What the meaning of files depends on now. Raises StorageError."""
        return self._inbox.rules(now.steady, now.wall)

    def resume(self, job: Job) -> None:
        """Continue with a job that an earlier process has claimed."""
        self._claimed[job.id] = job

    def take_in(self, now: Moment) -> None:
        """Do one round: look at the inbox when it is time, and admit a few jobs. Raises StorageError."""
        self._looks.now = now
        looking = self._looks.under_way
        if not looking:
            self._enter_claimed(now)
        if looking or (not self._wanted and now.steady >= self._looks.due):
            with contained("the scan of the inbox", partial(self._scan_failed, now)):
                if not looking:
                    self._looks.begin(self._look())
                self._looks.go_on()
        if looking and not self._looks.under_way:
            self._enter_claimed(now)
        self._admit_some(now)
        if not self._wanted and not self._looks.under_way:
            self._batches.expand(now)
        self.last_round = now.steady

    def _enter_claimed(self, now: Moment) -> None:
        """Go on with the claimed jobs whose check is answered. Not during a look: nothing leaves the inbox then."""
        for job in list(self._claimed.values()):
            with contained(job.name, partial(self._fail_claimed, job.id, now)):
                self._enter(job, now)

    def _admit_some(self, now: Moment) -> None:
        """Admit what the last look has found, for a short time. Raises StorageError."""
        room = self._state.pacing.claims_a_round if self._review.has_room else 0
        end = self._state.clock() + self._state.pacing.slice_seconds
        while self._wanted and room > 0:
            wanted = self._wanted[0]
            with contained(wanted.name, partial(self.refuse, wanted, now)):
                if isinstance(wanted, Request) and wanted.is_batch_file:
                    self._batches.open(wanted, now)
                else:
                    self.admit(wanted, now)
            self._wanted.popleft()
            room = room - 1 if self._state.clock() < end else 0

    def _look(self) -> Steps[None]:
        """Look at the inbox, and note what is to be admitted. Raises StorageError."""
        looks = self._looks
        # Drops with a file, in this version or another, whose copy is being checked wait for the answer.
        inputs = [file for job in self._claimed.values() for file in job.inputs]
        checked = {file.origin for file in inputs if file.fingerprint}
        seen = Scan()
        if not self._batch:
            seen = yield from self._inbox.look(looks.times)
            if strays := self._strays.lines(looks.now.wall):
                seen = seen.with_notes(strays)
        for problem in set(seen.problems) - (set(self.seen.problems) if self.seen else set()):
            log.warning("%s", problem)
        wanted: deque[Request | Rejection] = deque()
        postponed = {}
        found: list[Request | Rejection] = [*seen.rejections, *seen.requests]
        for one in found:
            if one.name in self.postponed:
                postponed[one.name] = self.postponed[one.name]
            if not self._is_postponed(one, looks.now) and not _has_any(one, checked):
                wanted.append(one)
            yield
        yield from self._waiting_log.report(seen.waiting, seen.settling, looks.now.steady)
        before = self.seen or Scan()
        self._wanted, self.postponed = wanted, postponed
        self.seen = seen
        self._unremovable.forget_removed()
        pause = self._state.config.service.rescan_seconds
        if seen.settling or self._wanted:
            # A file that has stopped changing needs only one more scan.
            settle = self._state.config.service.settle_seconds
            pause = min(pause, settle / 2)
        looks.end(pause)
        leaving = [*before.requests, *before.rejections, *before.waiting]
        del before, seen, found, wanted
        yield from release(leaving)

    def _scan_failed(self, now: Moment, reason: str, detail: str) -> None:
        """The log has the reason; what was seen before still counts."""
        self.seen = replace(self.seen or Scan(), problems=(reason,))
        self._looks.end(self._state.config.service.rescan_seconds)

    # What cannot be admitted

    def leave(self, drops: Iterable[Drop]) -> None:
        """Leave these versions of these files in the inbox until they change or the daemon starts again."""
        self._inbox.leave(drops)

    def _is_postponed(self, wanted: Request | Rejection, now: Moment) -> bool:
        later = self.postponed.get(wanted.name)
        return later is not None and now.steady < later.until

    def _postpone(self, wanted: Request | Rejection, now: Moment, reason: str) -> None:
        """Leave a drop in the inbox that cannot be read at the moment, and try it again later."""
        before = self.postponed.get(wanted.name)
        if before is None or before.reason != reason:
            log.warning(
                "%s stays in the inbox and is tried again: %s", printable(wanted.name), reason
            )
        until = now.steady + self._state.config.service.rescan_seconds
        self.postponed[wanted.name] = Postponed(reason, until)

    def refuse(self, wanted: Request | Rejection, now: Moment, reason: str, detail: str) -> None:
        """Fail a drop after an error that is not one of the disk; if that is impossible, it stays in the inbox."""
        refused = wanted.refuse(reason) if isinstance(wanted, Request) else wanted
        try:
            self.admit(replace(refused, reason=reason), now)
        except Exception as error:
            if not concerns_all(error):
                self.leave(wanted.files)
                log.error("%s stays in the inbox: %s", printable(wanted.name), reason)
            raise

    def _fail_claimed(self, job_id: str, now: Moment, reason: str, detail: str) -> None:
        """A claimed job cannot join the queue: it fails, or waits for the next start."""
        self._decided(job_id)
        job = self._state.ledger.get(job_id)
        if job is not None and job.state is S.CLAIMED:
            self._completion.fail(job, S.FAILED, now, error=reason, detail=detail)

    # One job

    def admit(self, wanted: Request | Rejection, now: Moment) -> None:
        """Copy into the spool, add to the ledger, take out of the inbox; in this order."""
        if self._claimed_before(wanted):
            return
        job_id, note = self._id_for(wanted)
        job = self.claim(wanted, now, job_id)
        if job is None:
            return
        try:
            self._state.ledger.add(job, note=note)
        except StorageError:
            if self._state.ledger.get(job.id) is None:  # the next round claims the files again
                files.remove_tree(self._state.folders.spool / job.id)
            raise
        self._claimed[job.id] = job
        self._enter(job, now)

    def claim(self, wanted: Request | Rejection, now: Moment, job_id: str = "") -> Job | None:
        """The job for what is wanted: with an error if it is refused; None if its files have just changed.

        job_id: of the job; "" for a new one.
        """
        created = self._last_created = max(now.wall, self._last_created + CREATION_STEP)
        if isinstance(wanted, Rejection):
            return claim.refuse(wanted, now=created, job_id=job_id)
        folders, config = self._state.folders, self._state.config
        try:
            settings, outputs = resolve_job(
                config, wanted.settings, wanted.places, wanted.style_pictures
            )
            weights = weights_digest(
                config
            )  # before the copies, which an unexpected error would leave behind
            job = claim.claim(
                replace(wanted, settings=asdict(settings), outputs=outputs.picture),
                folders.spool,
                {
                    "inbox": folders.inbox,
                    "styles": folders.styles,
                    "failed": folders.failed,
                    "anywhere": ANYWHERE,
                },
                max_bytes=config.limits.max_bytes,
                now=created,
                job_id=job_id,
            )
            digests = [(file.role.value, file.sha256) for file in job.inputs]
            identity = picture_identity(digests, settings, config.model.network, weights)
            return replace(job, identity=identity, weights=weights)
        except ChangedMeanwhile as error:
            if wanted.batch is None:  # the next scan sees it as it is then
                log.debug("%s", error)
                return None
            reason = f"{error}; run the batch again"
        except claim.UnreadableNow as error:
            if wanted.batch is None:
                self._postpone(wanted, now, str(error))
                return None
            reason = f"{error}; run the batch again"
        except SettingsError as error:
            command = correction(wanted.name, error.key, wanted.own_settings)
            reason = f"{error} To do that: {command}" if command else str(error)
        except InputError as error:
            reason = str(error)
        return claim.refuse(wanted.refuse(reason), now=created, job_id=job_id)

    def _id_for(self, wanted: Request | Rejection) -> tuple[str, str]:
        """The id that a settings file asks for, "" for a new one; and a note for the history. Raises StorageError."""
        job_id, folders = wanted.job_id, self._state.folders
        if not job_id:
            return "", ""
        if not self._state.ledger.get(job_id) and claim.is_free(
            job_id, folders.spool, folders.inbox
        ):
            return job_id, ""
        return "", f"its settings file has the id of another job ({job_id}): it got a new id"

    def _claimed_before(self, wanted: Request | Rejection) -> bool:
        """Whether the files were claimed already and are still there: not removable, or back after a power cut."""
        folders = self._state.folders
        own = [file for file in wanted.files if file.root == "inbox"]
        jobs = [self._unremovable.job_of(file) for file in own]
        if not own or not all(jobs):
            return False
        for job in jobs:
            assert job is not None
            if self._unremovable.remove(job):
                self._inbox.leave(own)
            elif job.state.terminal and (folders.spool / job.id).is_dir():
                self._completion.add(job)  # a refused file, which could be moved now
        return True

    def _enter(self, job: Job, now: Moment) -> None:
        """From `claimed` on: the originals leave the inbox, and the job joins the queue or has failed.

        It waits for the check of its pictures; the next rounds continue.
        """
        said = job_logger(log, job.name, job.id)
        folders = self._state.folders
        verdict = self._review.decide(job, now)
        if verdict.decision is Decision.WAIT:
            return
        if verdict.decision is Decision.RELEASE:
            # The copy goes first: a copy that the ledger does not know would be recovered as a job at the next start.
            files.remove_tree(folders.spool / job.id)
            self._state.ledger.forget(job.id)
            self._decided(job.id)
            self.wake()
            said.info("its files changed after they were copied; the new version is copied")
            return
        failed = verdict.decision is Decision.FAIL
        for problem in self._unremovable.remove(job, keep=failed):
            said.warning("%s", problem)
        if error := job.error or verdict.reason:
            self._completion.fail(job, S.FAILED, now, error=error)
        else:
            said.info("picked up: %s", ", ".join(file.name for file in job.inputs))
            if job.source == "order":
                names = (
                    f"{file.name} is the {file.role}" for file in job.inputs if file.role in PAIR
                )
                said.info("paired by order: %s", ", ".join(names))
            self._state.move(job, S.QUEUED, now)
        self._decided(job.id)

    def _decided(self, job_id: str) -> None:
        """The job is queued, has failed or is forgotten: this part no longer owns it."""
        del self._claimed[job_id]
        self._review.forget(job_id)
        if not self._claimed:
            self.wake()  # the last scan saw the files, and the watch does not report that they were removed


def _has_any(wanted: Request | Rejection, paths: Set[str]) -> bool:
    """Whether a drop has one of these files of the inbox."""
    return bool(paths) and any(file.root == "inbox" and file.path in paths for file in wanted.files)
