"""Lists of jobs in parts. A cursor says where the next part begins, so that new jobs do not move it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from nst_daemon.errors import UsageError
from nst_daemon.intake.dropped import InboxJob
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger_listing import JobFilter, JobLists
from nst_daemon.ops import requests
from nst_daemon.web import inbox_jobs, job_bodies
from nst_daemon.web.context import Context
from nst_daemon.web.models import JobInfo, JobPage, Order


class Position(NamedTuple):
    """A place in a list: after the job with this id.

    Attributes:
        number: The time of its latest change, when it came into the inbox, or its place in the queue.
        id: Of the job.
    """

    number: float
    id: str


class Cursor(NamedTuple):
    """Where the next part of a list begins, in the jobs of the ledger and in those of the inbox; None: at the first."""

    ledger: Position | None = None
    inbox: Position | None = None

    @classmethod
    def parse(cls, text: str, order: Order) -> Cursor:
        """Read `next` of a part; "": the beginning. Raises UsageError if it is invalid, or of another order."""
        if not text:
            return cls()
        found = _CURSOR.fullmatch(text)
        if found and found["order"] == order and (found["number"] or found["dropped"]):
            ledger = Position(float(found["number"]), found["id"]) if found["number"] else None
            inbox = Position(float(found["dropped"]), found["file"]) if found["dropped"] else None
            return cls(ledger, inbox)
        raise UsageError(
            f"cursor is not `next` of an earlier part of the list with order={order}",
            remedy="leave it out",
        )

    def text(self, order: Order) -> str:
        """The cursor as `next` of a part."""
        ledger = f"_{self.ledger.number!r}_{self.ledger.id}" if self.ledger else ""
        return (
            order + ledger + (f"_inbox_{self.inbox.number!r}_{self.inbox.id}" if self.inbox else "")
        )


_NUMBER, _ID = r"\d{1,15}(?:\.\d{1,20})?(?:e-\d{1,3})?", r"[0-9a-f]{32}"
_CURSOR = re.compile(
    rf"(?P<order>[a-z]+)(?:_(?P<number>{_NUMBER})_(?P<id>{_ID}))?(?:_inbox_(?P<dropped>{_NUMBER})_(?P<file>{_ID}))?",
    re.ASCII,
)


class _LedgerPart(NamedTuple):
    """A part of the jobs of the ledger. end: its last job, if it has one; more: whether others follow."""

    jobs: Sequence[JobInfo] = ()
    end: Position | None = None
    more: bool = False
    total: int = 0


def list_part(
    shared: Context,
    wanted: JobFilter,
    order: Order,
    *,
    after: Cursor,
    limit: int,
    with_inbox: bool,
) -> JobPage:
    """A part of a list of jobs.

    Args:
        shared: The folders.
        wanted: Which jobs.
        order: The order.
        after: Where the part begins.
        limit: The most jobs.
        with_inbox: Whether jobs of the inbox that the filter selects are in the list: first in the list of the newest,
            and last in the others.
    """
    # The inbox comes before the ledger: a job leaves it after the ledger has it.
    dropped = inbox_jobs.waiting(shared, wanted) if with_inbox else []
    newest = order == "newest"
    with shared.ledger(JobLists) as ledger:
        dropped = [job for job in dropped if ledger.get(job.id) is None]
        inbox = _inbox_part(dropped, after, newest=newest)
        room = max(0, limit - len(inbox)) if newest else limit
        find = _queue_part if order == "queue" else _part
        found = find(ledger, wanted, order, after.ledger, room)
    shown = (
        [] if found.more and not newest else inbox[: limit if newest else limit - len(found.jobs)]
    )
    place = Position(shown[-1].appeared, shown[-1].id) if shown else after.inbox
    end = found.end or after.ledger
    described = [inbox_jobs.describe(job, shared) for job in shown]
    return JobPage(
        jobs=[*described, *found.jobs] if newest else [*found.jobs, *described],
        next=Cursor(end, place).text(order) if found.more or len(inbox) > len(shown) else "",
        total=found.total + len(dropped),
    )


def _inbox_part(dropped: Sequence[InboxJob], after: Cursor, *, newest: bool) -> list[InboxJob]:
    """The jobs of the inbox from a place on."""
    if newest and after.ledger:
        return []
    jobs = sorted(dropped, key=lambda job: (job.appeared, job.id), reverse=newest)
    if (place := after.inbox) is None:
        return jobs
    return [
        job for job in jobs if ((job.appeared, job.id) < place) is newest and job.id != place.id
    ]


def _part(
    ledger: JobLists, wanted: JobFilter, order: Order, after: Position | None, limit: int
) -> _LedgerPart:
    jobs = ledger.part(wanted, newest=order == "newest", after=after, limit=limit + 1)
    part = jobs[:limit]
    end = Position(part[-1].updated, part[-1].id) if part else None
    return _LedgerPart(_described(ledger, part), end, len(jobs) > limit, ledger.count(wanted))


def _queue_part(
    ledger: JobLists, wanted: JobFilter, _order: Order, after: Position | None, limit: int
) -> _LedgerPart:
    """A part of the queue. It begins after the job that was last, wherever that is now."""
    begin, last_id = (int(after.number), after.id) if after else (0, "")
    ids = ledger.in_painting_order(wanted, begin + limit + 1)
    if last_id in ids:
        begin = ids.index(last_id) + 1
    part = ids[begin : begin + limit]
    jobs = [job for job in map(ledger.get, part) if job is not None]
    states = [
        s for s in JobState if not s.terminal and (wanted.states is None or s in wanted.states)
    ]
    end = Position(begin + len(part), part[-1]) if part else None
    total = ledger.count(replace(wanted, states=states))
    return _LedgerPart(_described(ledger, jobs), end, len(ids) > begin + limit, total)


def _described(ledger: JobLists, jobs: Sequence[Job]) -> list[JobInfo]:
    asked = requests.pending(ledger, [job.id for job in jobs])
    return [job_bodies.describe(job, asked.get(job.id, ())) for job in jobs]
