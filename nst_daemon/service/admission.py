"""From the inbox into the queue: scan, claim, and open batches.

Every way in goes through `Admission.admit`: a drop, a picture of a batch and a retry are checked, copied, hashed and
resolved by the same code.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

from nst_daemon import files
from nst_daemon.errors import StorageError
from nst_daemon.intake import claim
from nst_daemon.intake.drops import Drop, Rejection, Request
from nst_daemon.intake.expansion import Expansion
from nst_daemon.intake.pairing import Rules
from nst_daemon.intake.scan import Intake, Scan
from nst_daemon.intake.steps import Steps, release
from nst_daemon.intake.strays import Strays
from nst_daemon.jobs import Job
from nst_daemon.names import printable
from nst_daemon.service.batches import Batches
from nst_daemon.service.claimed import ClaimedJobs
from nst_daemon.service.claimer import Claimer, Postponed
from nst_daemon.service.completion import Completion
from nst_daemon.service.containment import concerns_all, contained, together_or_each
from nst_daemon.service.looks import Looks
from nst_daemon.service.notices import WaitingLog
from nst_daemon.service.state import Moment, State
from nst_daemon.service.unremovable import Unremovable
from nst_daemon.workers.picture_check import PictureCheck

log = logging.getLogger(__name__)

#: However slow the disk is, it is faster with so many drops at once than with each alone.
LEAST_GROUP = 4


@dataclass(frozen=True, slots=True)
class _Copied:
    """A drop whose files are copied. note: for the history."""

    wanted: Request | Rejection
    job: Job
    note: str


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
        self._unremovable = Unremovable(state)
        self._claimer = Claimer(state)
        self._claimed = ClaimedJobs(state, completion, check, self._unremovable, self.wake)
        self._waiting_log = WaitingLog()
        folders = state.folders
        self._strays = Strays(folders.root, folders.results, folders.inbox)
        #: What the last scan saw; None before the first.
        self.seen: Scan | None = None
        #: When the last round ended, in seconds of the monotonic clock.
        self.last_round = state.began.steady
        self._looks = Looks(state)
        self._wanted: deque[Request | Rejection] = deque()
        #: How many drops are admitted in a round: the disk decides how long they take.
        self._group = state.pacing.claims_a_round
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
        return self._claimed.review.has_room and bool(self._wanted or self._batches.busy)

    @property
    def postponed(self) -> Mapping[str, Postponed]:
        """Drops that stay in the inbox for a while because they cannot be read at the moment, by name."""
        return self._claimer.postponed

    @property
    def held(self) -> dict[str, str]:
        """Claimed jobs that wait for the rest of a picture, by name, and why."""
        return self._claimed.review.held

    @property
    def due(self) -> float:
        """When there is more to do, in seconds of the monotonic clock. What a look has found comes before the next."""
        return min(self._claimed.due, math.inf if self._wanted else self._looks.due)

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
        self._claimed.add(job)

    def take_in(self, now: Moment) -> None:
        """Do one round: look at the inbox when it is time, and admit a few jobs. Raises StorageError."""
        self._looks.now = now
        looking = self._looks.under_way
        if not looking:  # nothing leaves the inbox during a look
            self._claimed.tend(now)
        if looking or (not self._wanted and now.steady >= self._looks.due):
            with contained("the scan of the inbox", partial(self._scan_failed, now)):
                if not looking:
                    self._looks.begin(self._look())
                self._looks.go_on()
        if looking and not self._looks.under_way:
            self._claimed.tend(now)
        self._admit_some(now)
        if not self._wanted and not self._looks.under_way:
            self._batches.expand(now)
        self.last_round = now.steady

    def _admit_some(self, now: Moment) -> None:
        """Admit what the last look has found, for a short time. Raises StorageError."""
        room = self._group if self._claimed.review.has_room else 0
        began = self._state.clock()
        end = began + self._state.pacing.slice_seconds
        copied: list[_Copied] = []
        try:
            while self._wanted and room > 0:
                wanted = self._wanted[0]
                if wanted.job_id:  # the ledger says whether another job has this id
                    self._add_or_put_back(copied, now)
                with contained(wanted.name, partial(self.refuse, wanted, now)):
                    if isinstance(wanted, Request) and wanted.is_batch_file:
                        self._batches.open(wanted, now)
                    elif one := self._copy(wanted, now):
                        copied.append(one)
                self._wanted.popleft()
                room = room - 1 if self._state.clock() < end else 0
        finally:
            many = bool(copied)
            self._add_or_put_back(copied, now)
        if many:
            self._adapt(self._state.clock() - began)

    def _adapt(self, took: float) -> None:
        """Admit fewer drops in the next round if this one took longer than two slices, else one more."""
        fewer = took > 2 * self._state.pacing.slice_seconds
        wanted = max(LEAST_GROUP, self._group // 2) if fewer else self._group + 1
        self._group = min(wanted, self._state.pacing.claims_a_round)

    def _add_or_put_back(self, copied: list[_Copied], now: Moment) -> None:
        """Do `_add`, and empty the list. Where the disk prevents that, the next round copies the files again."""
        some = copied.copy()
        copied.clear()
        try:
            self._add(some, now)
        except StorageError:
            self._wanted.extendleft(one.wanted for one in reversed(some))
            raise

    def _look(self) -> Steps[None]:
        """Look at the inbox, and note what is to be admitted. Raises StorageError."""
        looks = self._looks
        # Drops with a file, in this version or another, whose copy is being checked wait for the answer.
        checked = self._claimed.origins
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
            if not self._claimer.is_postponed(one, looks.now) and not _has_any(one, checked):
                wanted.append(one)
            yield
        yield from self._waiting_log.report(seen.waiting, seen.settling, looks.now.steady)
        before = self.seen or Scan()
        self._wanted, self._claimer.postponed = wanted, postponed
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

    # One job

    def admit(self, wanted: Request | Rejection, now: Moment) -> None:
        """Copy into the spool, add to the ledger, take out of the inbox; in this order."""
        if one := self._copy(wanted, now):
            self._add([one], now)

    def claim(self, wanted: Request | Rejection, now: Moment, job_id: str = "") -> Job | None:
        """The job for what is wanted, with durable copies; see `Claimer.claim`. Raises StorageError."""
        job = self._claimer.claim(wanted, now, job_id)
        if job is not None:
            claim.make_durable([job], self._state.folders.spool)
        return job

    def _copy(self, wanted: Request | Rejection, now: Moment) -> _Copied | None:
        """Copy into the spool; None if there is nothing to admit, or not now."""
        if self._claimed_before(wanted):
            return None
        job_id, note = self._id_for(wanted)
        job = self._claimer.claim(wanted, now, job_id)
        return _Copied(wanted, job, note) if job else None

    def _add(self, copied: Sequence[_Copied], now: Moment) -> None:
        """Make the copies durable, add the jobs to the ledger in one transaction, and go on with them.

        Raises StorageError; what is not in the ledger then has no copy.
        """
        ledger, refused = self._state.ledger, set[str]()

        def refuse(one: _Copied, reason: str, detail: str) -> None:
            refused.add(one.job.id)
            files.remove_tree(self._state.folders.spool / one.job.id)
            self.refuse(one.wanted, now, reason, detail)

        try:
            claim.make_durable([one.job for one in copied], self._state.folders.spool)
            together_or_each(
                ledger,
                copied,
                lambda one: ledger.add(one.job, note=one.note),
                lambda one: contained(one.wanted.name, partial(refuse, one)),
            )
        except StorageError:
            for one in copied:
                if ledger.get(one.job.id) is None:
                    files.remove_tree(self._state.folders.spool / one.job.id)
                else:
                    self._claimed.add(one.job)
            raise
        jobs = [one.job for one in copied if one.job.id not in refused]
        for job in jobs:
            self._claimed.add(job)
        self._claimed.enter(jobs, now)

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


def _has_any(wanted: Request | Rejection, paths: Set[str]) -> bool:
    """Whether a drop has one of these files of the inbox."""
    return bool(paths) and any(file.root == "inbox" and file.path in paths for file in wanted.files)
