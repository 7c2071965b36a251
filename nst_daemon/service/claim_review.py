"""Decides about a claimed drop: the originals stay in the inbox until the copies of its pictures have been decoded.

A file that stops changing may still be half written. Its copy cannot be decoded then, and when the rest arrives, the
copy is dropped and the new version is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nst_daemon.intake import claim
from nst_daemon.intake.claim import Original
from nst_daemon.jobs import Job
from nst_daemon.service.state import Moment, State
from nst_daemon.workers.decoding import PictureCheck

#: No more drops are claimed while so many rounds' claims wait for the check.
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


class ClaimReview:
    """Asks for the check of claimed drops. Pictures from other places than the inbox are left to the worker.

    Args:
        state: What the parts share.
        check: Decodes the pictures.
    """

    def __init__(self, state: State, check: PictureCheck) -> None:
        self._state, self._check = state, check
        self._held: dict[
            str, float
        ] = {}  # damaged pictures that may still become whole: until when

    @property
    def has_room(self) -> bool:
        """Whether more drops may be claimed."""
        return self._check.waiting < ROUNDS_AHEAD * self._state.pacing.claims_a_round

    def decide(self, job: Job, now: Moment) -> Verdict:
        """What happens to a claimed job now. It may be called again at any time."""
        dropped = [file.fingerprint for file in job.inputs if file.fingerprint is not None]
        if job.error or not dropped:
            return Verdict(Decision.QUEUE)
        folders, config = self._state.folders, self._state.config
        answer = self._check.ask(job, folders.spool / job.id, config.limits, now.steady)
        if answer is None:
            return Verdict(Decision.WAIT)
        found = claim.find_originals(job, folders.inbox)
        if Original.CHANGED in found and Original.GONE not in found:
            return Verdict(Decision.RELEASE)
        if not answer.reason:
            return Verdict(Decision.QUEUE)
        # A file may look whole before it is: it has as much time to arrive as a truncated one. `once` ends too soon.
        if answer.incomplete and not self._state.drain:
            if job.id not in self._held:
                grace = config.service.truncated_grace
                age = now.wall - max(mark.ctime_ns for mark in dropped) / 1e9
                self._held[job.id] = now.steady + grace - max(0.0, age)
            if now.steady < self._held[job.id]:
                return Verdict(Decision.WAIT)
        return Verdict(Decision.FAIL, answer.reason)

    def forget(self, job_id: str) -> None:
        """The job is decided."""
        self._held.pop(job_id, None)
        self._check.forget(job_id)
