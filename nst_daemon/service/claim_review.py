"""Decides about a claimed drop: the originals stay in the inbox until the copies of its pictures have been decoded.

A file that stops changing may still be half written. Its copy cannot be decoded then, and when the rest arrives, the
copy is dropped and the new version is claimed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum

from nst_daemon.intake import claim
from nst_daemon.intake.claim import Original
from nst_daemon.jobs import Job
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.state import Moment, State
from nst_daemon.workers.picture_check import PictureCheck

log = logging.getLogger(__name__)

#: Seconds between two checks whether a program still has an incomplete picture open.
WRITER_SECONDS = 1.0
#: No more drops are claimed while the claims of this many rounds wait for the check.
ROUNDS_AHEAD = 4


class Decision(StrEnum):
    """What happens to a claimed drop."""

    WAIT = "wait"
    QUEUE = "queue"
    FAIL = "fail"
    RELEASE = "release"  # forget the copy: the originals have changed


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision. reason: why the job fails, in one line."""

    decision: Decision
    reason: str = ""


@dataclass(slots=True)
class _Held:
    """A job with a damaged picture that may still become whole.

    reason: for people; until: monotonic seconds; written: a program is known to have the picture open.
    """

    job: Job
    reason: str
    until: float
    written: bool = False


class ClaimReview:
    """Asks for the check of claimed drops. Pictures from other places than the inbox are left to the worker.

    Args:
        state: What the parts share.
        check: Decodes the pictures.
    """

    def __init__(self, state: State, check: PictureCheck) -> None:
        self._state, self._check = state, check
        self._held: dict[str, _Held] = {}

    @property
    def has_room(self) -> bool:
        """Whether more drops may be claimed."""
        return self._check.waiting < ROUNDS_AHEAD * self._state.pacing.claims_a_round

    @property
    def unanswered(self) -> int:
        """How many checks are under way."""
        return self._check.waiting

    @property
    def held(self) -> dict[str, str]:
        """Jobs that wait for the rest of a picture, by name, and why."""
        return {held.job.name: held.reason for held in self._held.values()}

    def decide(self, job: Job, now: Moment) -> Verdict:
        """What happens to a claimed job now. It may be called again at any time."""
        if job.error or not any(file.fingerprint for file in job.inputs):
            return Verdict(Decision.QUEUE)
        folders, limits = self._state.folders, self._state.config.limits
        answer = self._check.ask(job, folders.spool / job.id, limits, now.steady)
        if answer is None:
            return Verdict(Decision.WAIT)
        found = claim.find_originals(job, folders.inbox)
        if Original.CHANGED in found and Original.GONE not in found:
            return Verdict(Decision.RELEASE)
        if not answer.reason:
            return Verdict(Decision.QUEUE)
        waits = answer.incomplete and not self._state.drain  # `once` does not wait for the rest
        if waits and self._may_become_whole(job, answer.reason, now):
            return Verdict(Decision.WAIT)
        return Verdict(Decision.FAIL, answer.reason)

    def _may_become_whole(self, job: Job, reason: str, now: Moment) -> bool:
        """Whether a damaged file has changed within `truncated_grace`, or a program has it open for writing."""
        held = self._held.get(job.id)
        if held is None:
            changed = max(f.fingerprint.ctime_ns for f in job.inputs if f.fingerprint) / 1e9
            grace = self._state.config.service.truncated_grace
            until = now.steady + grace - max(0.0, now.wall - changed)
            held = self._held[job.id] = _Held(job, f"{reason} (waiting for the rest)", until)
        if now.steady < held.until:
            return True
        if not claim.have_writers(job, self._state.folders.inbox):
            return False
        if not held.written:
            held.written = True
            held.reason = f"{reason} (a program still has it open: waiting for it)"
            job_logger(log, job.name, job.id).warning("%s", held.reason)
        held.until = now.steady + WRITER_SECONDS
        return True

    def forget(self, job_id: str) -> None:
        """The job is decided."""
        self._held.pop(job_id, None)
        self._check.forget(job_id)
