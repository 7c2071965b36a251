"""Lists of jobs: which jobs are wanted, and the order in which the queue will be painted."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger_reader import OPEN, QUEUED_GROUPS, LedgerReader
from nst_daemon.names import composed

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


#: All queued jobs, likewise.
WHOLE_QUEUE = """
    SELECT jobs."group", COALESCE(turn, 0), priority, created, id
    FROM jobs INDEXED BY jobs_in_queue LEFT JOIN turns ON turns."group" = jobs."group" WHERE state = 'queued'
    ORDER BY jobs."group", priority DESC, created, id
"""


#: The jobs of a style of the library, of a hot folder, or with a style picture whose stem is the name.
_OF_STYLE = """id IN (
    SELECT id FROM jobs WHERE batch <> 'null' AND json_extract(batch, '$.style') = ?
    UNION ALL SELECT id FROM jobs WHERE "group" = ? AND source <> 'batch'
    UNION ALL SELECT job FROM inputs WHERE role = 'style' AND name >= ? AND name < ?
        AND (name NOT LIKE ? ESCAPE '\\' OR name LIKE ? ESCAPE '\\' OR name LIKE ? ESCAPE '\\')
)"""


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
        style: The name of a style: of the library, or of a style picture without its ending.
        with_result: Only jobs with a picture in results/.
        since, before: Of the latest change, in seconds since the epoch; `before` is not included.
    """

    states: Sequence[JobState] | None = None
    part: str = ""
    batch: str = ""
    group: str = ""
    style: str = ""
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
                add("name LIKE ? ESCAPE '\\'", f"%{_escaped(part)}%")
            else:
                add("instr(casefold(name), ?)", part.casefold())
        if self.batch:
            add("\"group\" = ? AND source = 'batch'", self.batch)
        if self.group:
            add('"group" = ?', self.group)
        if self.style:
            begin, end = f"{self.style}.", f"{self.style}/"  # "/" follows "."
            like = _escaped(begin)
            pair = (f"{like}style.%", f"{like}style-%.%")  # dog.style-2.png is the style dog
            add(_OF_STYLE, self.style, self.style, begin, end, f"{like}%.%", *pair)
        if self.with_result:
            add("result <> ''")
        if self.since > -math.inf:
            add("updated >= ?", self.since)
        if self.before < math.inf:
            add("updated < ?", self.before)
        return " AND ".join(terms) or "TRUE", values


def _escaped(text: str) -> str:
    """A text for LIKE with ESCAPE '\\'."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


class JobLists(LedgerReader):
    """An open ledger, from which lists are read."""

    def count(self, wanted: JobFilter) -> int:
        """The number of jobs that a filter selects."""
        where, values = wanted.where()
        return int(self._read(f"SELECT COUNT(*) FROM jobs WHERE {where}", values)[0][0])  # noqa: S608 (our own text)

    def part(
        self,
        wanted: JobFilter,
        *,
        newest: bool = True,
        after: tuple[float, str] | None = None,
        limit: int,
    ) -> list[Job]:
        """A part of the list of jobs by their latest change.

        Args:
            wanted: Which jobs.
            newest: Whether the latest changes come first.
            after: `updated` and `id` of the last job of the part before; None for the first part.
            limit: The most jobs.
        """
        where, values = wanted.where()
        order, less = ("DESC", "<") if newest else ("ASC", ">")
        if after:
            where, values = f"{where} AND (updated, id) {less} (?, ?)", [*values, *after]
        order = f"updated {order}, id {order}"
        # The inner query needs no row of the table, only an index.
        inner = f"SELECT id FROM jobs WHERE {where} ORDER BY {order} LIMIT {limit:d}"  # noqa: S608 (our own text)
        return self._select(f"id IN ({inner})", values, order)

    def in_painting_order(self, wanted: JobFilter, limit: int) -> list[str]:
        """The ids of jobs that have not ended, in the order in which they will be finished if nothing changes.

        Args:
            wanted: Which of them.
            limit: The most ids.
        """
        states = set(OPEN if wanted.states is None else wanted.states)
        everything = wanted.selects_all()
        found: list[str] = []

        def add(state: JobState, order: str) -> None:
            if state in states:
                sql = f"SELECT id FROM jobs WHERE state = ? ORDER BY {order}, id LIMIT ?"  # noqa: S608 (our own text)
                found.extend(
                    row[0] for row in self._read(sql, (state, limit if everything else -1))
                )

        for state in (JobState.PUBLISHED, JobState.STAGED, JobState.RUNNING):
            add(state, "updated")
        if JobState.QUEUED in states:
            rows = self._read(*((QUEUE_HEADS, {"limit": limit}) if everything else (WHOLE_QUEUE,)))
            (last,) = self._read("SELECT COALESCE(MAX(turn), 0) FROM turns")
            found += painting_order((QueuedJob(*row) for row in rows), last[0])
        add(JobState.RETRYING, "not_before")
        add(JobState.CLAIMED, "created")
        if not everything:
            where, values = replace(wanted, states=tuple(states & set(OPEN))).where()
            kept = {row[0] for row in self._read(f"SELECT id FROM jobs WHERE {where}", values)}  # noqa: S608 (our own text)
            found = [job_id for job_id in found if job_id in kept]
        return found[:limit]
