"""What other processes request through the ledger: to cancel and retry jobs, to delete their files, new priorities."""

from __future__ import annotations

import logging
from functools import partial

from nst_daemon.intake.drops import checked_priority
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.jobs import Changes, Job, JobState
from nst_daemon.ledger_reader import SteeringRequest, Verb
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.completion import Completion
from nst_daemon.service.containment import contained
from nst_daemon.service.deletion import Deletions
from nst_daemon.service.dispatch import Dispatch
from nst_daemon.service.previews import Previews
from nst_daemon.service.retry import Claims, Retries
from nst_daemon.service.state import Moment, State

log = logging.getLogger(__name__)

S = JobState


class Steering:
    """Does what was requested, in the order of the requests of each job.

    Args:
        state: What the parts share.
        completion: Has the jobs that are not archived yet.
        dispatch: Has the jobs that are with a worker.
        claims: Takes in the files of a retry.
        previews: The previews of current paintings.
    """

    def __init__(
        self,
        state: State,
        completion: Completion,
        dispatch: Dispatch,
        claims: Claims,
        previews: Previews,
    ) -> None:
        self._state, self._completion, self._dispatch = state, completion, dispatch
        self._retries = Retries(state, claims)
        self._deletions = Deletions(state, completion, previews)
        #: Whether a request waits for files, for a worker, or for the next round.
        self.waits = False
        #: Whether more can be done at once.
        self.busy = False
        #: The number of the last request of a full portion, by its verbs.
        self._last: dict[tuple[Verb, ...], int] = {}
        #: Jobs whose workers were asked to end them.
        self._cancelling: set[str] = set()

    def steer(self, now: Moment) -> None:
        """Do a portion of what other processes have requested through the ledger."""
        self.waits = self.busy = False
        if not self._state.ledger.has_requests():
            return
        pacing = self._state.pacing
        with self._state.ledger.together():  # each transaction waits for the disk
            more = self._do_portion(("priority",), pacing.priorities_a_round, now)
        # These copy or remove files, so the workers are answered before the rest follows. A job that is retried and
        # then cancelled must not reach a worker in between, so cancels come last.
        more |= self._do_portion(("retry", "delete"), pacing.claims_a_round, now)
        more |= self._do_portion(("cancel",), pacing.cancels_a_round, now)
        self.busy = more
        self.waits = self._state.ledger.has_requests()

    def _do_portion(self, verbs: tuple[Verb, ...], limit: int, now: Moment) -> bool:
        """Do at most `limit` requests with these verbs. Returns whether more can be done at once.

        A full portion begins after that of the round before: those that have to wait do not stop the others.
        """
        ledger = self._state.ledger
        portion = ledger.first_requests(verbs, after=self._last.get(verbs, 0), limit=limit)
        full = len(portion) == limit > 0
        self._last[verbs] = portion[-1].number if full else 0
        finished = False
        for request in portion:
            with contained(
                f"the {request.verb} of {request.job_id}", partial(self._refuse, request)
            ):
                if self._obey(request, now):
                    ledger.finish_request(request.number)
                    finished = True
        return full and finished

    def _obey(self, request: SteeringRequest, now: Moment) -> bool:
        """Do what one request says; False if it has to wait."""
        job = self._state.ledger.get(request.job_id)
        if job is None:
            return True
        if request.verb in {"retry", "delete"} and self._completion.holds(job.id):
            return False  # until its inputs are in done/ or failed/
        match request.verb:
            case "retry":
                try:
                    self._retries.readmit(job, now, request.changes)
                except ChangedMeanwhile as error:
                    log.debug("the retry of %s has to wait: %s", job.name, error)
                    return False
            case "delete":
                self._deletions.delete(job, now)
            case "priority":
                self._set_priority(job, request.changes, now)
            case _:
                return self._cancel(job, now)
        return True

    def _set_priority(self, job: Job, changes: Changes, now: Moment) -> None:
        """Change a job's place in the queue; a later retry keeps it."""
        said = job_logger(log, job.name, job.id)
        priority = checked_priority(changes.written.get("priority"), "the request")
        if job.state.terminal:
            said.warning("it has ended: its priority is not changed")
        elif job.priority != priority:
            note = f"priority {priority} by request"
            changes = job.changes.then(changes)
            self._state.ledger.note(
                job.id, now=now.wall, note=note, priority=priority, changes=changes
            )
            said.info("%s", note)

    def _cancel(self, job: Job, now: Moment) -> bool:
        """Cancel a job; False while its pictures are checked, or its worker has not ended it yet."""
        if job.state.terminal:
            self._cancelling.discard(job.id)
            return True
        if job.state is S.CLAIMED or job.id in self._cancelling & self._dispatch.running.keys():
            return False
        if self._dispatch.cancel(job):
            self._cancelling.add(job.id)
            return False
        self._cancelling.discard(job.id)
        self._completion.cancel(job, now)
        return True

    def _refuse(self, request: SteeringRequest, reason: str, detail: str) -> None:
        """A request cannot be done."""
        log.warning("the %s of %s failed: %s", request.verb, request.job_id, reason)
        self._state.ledger.finish_request(request.number)
