"""Lists of jobs in parts. A cursor says where the next part begins, so that new jobs do not move it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from nst_daemon.errors import UsageError
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger_listing import JobFilter, JobLists
from nst_daemon.ops import requests
from nst_daemon.web import inbox_jobs, job_bodies
from nst_daemon.web.context import Context
from nst_daemon.web.models import JobInfo, JobPage, Order

#: A number and the id of a job: the time of its latest change, or its place in the queue.
Position = tuple[float, str]
_CURSOR = re.compile(r"([a-z]+)_(\d{1,15}(?:\.\d{1,20})?(?:e-\d{1,3})?)_([0-9a-f]{32})", re.ASCII)


def position(cursor: str, order: Order) -> Position | None:
    """The position that a cursor means. Raises UsageError if it is invalid, or of a list in another order."""
    if not cursor:
        return None
    found = _CURSOR.fullmatch(cursor)
    if found and found[1] == order:
        return float(found[2]), found[3]
    raise UsageError(
        f"cursor is not `next` of an earlier part of the list with order={order}",
        remedy="leave it out",
    )


def list_part(
    shared: Context,
    wanted: JobFilter,
    order: Order,
    *,
    after: Position | None,
    limit: int,
    with_inbox: bool,
) -> JobPage:
    """A part of a list of jobs.

    Args:
        shared: The folders.
        wanted: Which jobs.
        order: The order.
        after: Where the part begins; None for the first part.
        limit: The most jobs of the ledger.
        with_inbox: Whether jobs of the inbox that the filter selects are in the list: first in the list of the newest,
            and last in the others.
    """
    # The inbox comes before the ledger: a job leaves it after the ledger has it.
    dropped = inbox_jobs.waiting(shared, wanted) if with_inbox else []
    page = JobPage(jobs=[], total=0)
    if shared.folders.ledger.exists():
        with JobLists.attach(shared.folders.ledger) as ledger:
            dropped = [job for job in dropped if ledger.get(job.id) is None]
            find = _queue_part if order == "queue" else _part
            page = find(ledger, wanted, order, after, limit)
    if not dropped:
        return page
    described = [inbox_jobs.describe(job, shared) for job in dropped]
    if order == "newest":
        shown = page.jobs if after else [*described, *page.jobs]
    else:
        shown = page.jobs if page.next else [*page.jobs, *described]
    return JobPage(jobs=shown, next=page.next, total=page.total + len(dropped))


def _part(
    ledger: JobLists, wanted: JobFilter, order: Order, after: Position | None, limit: int
) -> JobPage:
    jobs = ledger.part(wanted, newest=order == "newest", after=after, limit=limit + 1)
    last = jobs[limit - 1] if len(jobs) > limit else None
    return JobPage(
        jobs=_described(ledger, jobs[:limit]),
        next=f"{order}_{last.updated!r}_{last.id}" if last else "",
        total=ledger.count(wanted),
    )


def _queue_part(
    ledger: JobLists, wanted: JobFilter, order: Order, after: Position | None, limit: int
) -> JobPage:
    """A part of the queue. It begins after the job that was last, wherever that is now."""
    begin, last_id = (int(after[0]), after[1]) if after else (0, "")
    ids = ledger.in_painting_order(wanted, begin + limit + 1)
    if last_id in ids:
        begin = ids.index(last_id) + 1
    part = ids[begin : begin + limit]
    jobs = [job for job in map(ledger.get, part) if job is not None]
    states = [
        s for s in JobState if not s.terminal and (wanted.states is None or s in wanted.states)
    ]
    return JobPage(
        jobs=_described(ledger, jobs),
        next=f"{order}_{begin + len(part)}_{part[-1]}" if len(ids) > begin + limit else "",
        total=ledger.count(replace(wanted, states=states)),
    )


def _described(ledger: JobLists, jobs: Sequence[Job]) -> list[JobInfo]:
    asked = requests.pending(ledger, [job.id for job in jobs])
    return [job_bodies.describe(job, asked.get(job.id, ())) for job in jobs]
