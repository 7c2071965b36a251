"""Lists of jobs: which jobs are wanted, and the order in which the queue will be painted."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from nst_daemon.jobs import JobState
from nst_daemon.names import composed

# The names of the groups with queued jobs. Each step uses the index `jobs_in_queue`, so that the cost grows with the
# groups and not with the jobs; SQLite does not choose the index for MIN without INDEXED BY.
QUEUED_GROUPS = """
    WITH RECURSIVE groups (name) AS (
        SELECT MIN("group") FROM jobs INDEXED BY jobs_in_queue WHERE state = 'queued'
        UNION ALL
        SELECT (SELECT MIN("group") FROM jobs INDEXED BY jobs_in_queue
                WHERE state = 'queued' AND "group" > groups.name)
        FROM groups WHERE groups.name IS NOT NULL
    )
"""
#: The first queued jobs of each group, as `QueuedJob`, in the order that `painting_order` needs.
QUEUE_HEADS = f"""
    {QUEUED_GROUPS}
    SELECT groups.name, COALESCE(turn, 0), priority, created, jobs.id
    FROM groups CROSS JOIN jobs LEFT JOIN turns ON turns."group" = groups.name
    WHERE jobs.id IN (
        SELECT id FROM jobs WHERE state = 'queued' AND "group" = groups.name
        ORDER BY priority DESC, created, id LIMIT :limit
    )
    ORDER BY groups.name, priority DESC, created, jobs.id
"""  # noqa: S608 (our own text)


class QueuedJob(NamedTuple):
    """What the order of the queue depends on. turn: of the group; the lowest is next."""

    group: str
    turn: int
    priority: int
    created: float
    id: str


def painting_order(queued: Iterable[QueuedJob], last_turn: int) -> Iterator[str]:
    """The ids of queued jobs in the order in which they will be painted, if nothing changes.

    The next job is the one with the highest priority, then of the group that was served longest ago, then the oldest.
    Its group is served last then.

    Args:
        queued: Jobs by group, each group by priority and age.
        last_turn: The highest turn of any group.
    """
    groups = [list(jobs) for _, jobs in groupby(queued, key=lambda job: job.group)]
    heads = [(-jobs[0].priority, jobs[0].turn, *jobs[0][3:], n, 0) for n, jobs in enumerate(groups)]
    heapq.heapify(heads)
    while heads:
        *_, job_id, number, position = heads[0]
        yield job_id
        last_turn += 1
        if position + 1 < len(groups[number]):
            job = groups[number][position + 1]
            following = (-job.priority, last_turn, job.created, job.id, number, position + 1)
            heapq.heapreplace(heads, following)
        else:
            heapq.heappop(heads)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are wanted.

    Attributes:
        states: Any of these; None for all.
        part: Of the name; case is ignored.
        batch: The name of the batch.
        group: The folder of the inbox, or the name of the batch.
        with_result: Only jobs with a picture in results/.
        since, before: Of the latest change, in seconds since the epoch; `before` is not included.
    """

    states: Sequence[JobState] | None = None
    part: str = ""
    batch: str = ""
    group: str = ""
    with_result: bool = False
    since: float = -math.inf
    before: float = math.inf

    def selects_all(self) -> bool:
        """Whether no job is excluded, except by its state."""
        return replace(self, states=None) == JobFilter()

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values."""
        terms: list[str] = []
        values: list[Any] = []

        def add(term: str, *given: Any) -> None:
            terms.append(term)
            values.extend(given)

        if self.states is not None:
            add(f"state IN ({', '.join('?' * len(self.states))})", *self.states)
        if part := composed(self.part):
            if part.isascii():  # LIKE ignores the case of ASCII letters only
                escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
                add("name LIKE ? ESCAPE '\\'", f"%{escaped}%")
            else:
                add("instr(casefold(name), ?)", part.casefold())
        if self.batch:
            add("\"group\" = ? AND source = 'batch'", self.batch)
        if self.group:
            add('"group" = ?', self.group)
        if self.with_result:
            add("result <> ''")
        if self.since > -math.inf:
            add("updated >= ?", self.since)
        if self.before < math.inf:
            add("updated < ?", self.before)
        return " AND ".join(terms) or "TRUE", values
