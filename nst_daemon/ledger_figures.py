"""Figures about many jobs of the ledger: painting times, the queue by its settings, batches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nst_daemon.jobs import JobState
from nst_daemon.ledger_reader import BATCHES, LedgerReader, marks


@dataclass(frozen=True, slots=True)
class PaintingTime:
    """When a finished picture was painted: from `began` to `ended`, seconds since the epoch."""

    settings: Mapping[str, Any]
    result: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """The jobs of all batches of one name.

    created: of the first job; updated: the latest change; seconds since the epoch. counts: the jobs in each state,
    without states that have none.
    """

    name: str
    created: float
    updated: float
    counts: Mapping[JobState, int]

    def with_more(self, other: BatchCounts) -> BatchCounts:
        """These jobs and others in other states."""
        created, updated = min(self.created, other.created), max(self.updated, other.updated)
        return BatchCounts(self.name, created, updated, {**self.counts, **other.counts})


@dataclass(frozen=True, slots=True)
class RefusedBatch:
    """The job that stands for a batch file that was refused; times in seconds since the epoch."""

    name: str
    job_id: str
    created: float
    updated: float


class LedgerFigures(LedgerReader):
    """A ledger that is open for figures."""

    def painting_times(self, limit: int) -> list[PaintingTime]:
        """The latest finished pictures that were painted in one attempt without interruption, newest first."""
        rows = self._read(
            """
            SELECT settings, result, began, ended FROM (
                SELECT settings, result, updated,
                    (SELECT COUNT(*) FROM events WHERE job = jobs.id AND state = 'queued') AS queued,
                    (SELECT MAX(at) FROM events WHERE job = jobs.id AND state = 'running') AS began,
                    (SELECT MAX(at) FROM events WHERE job = jobs.id AND state = 'staged') AS ended
                FROM jobs WHERE state = 'done' ORDER BY updated DESC LIMIT ?
            ) WHERE queued = 1 AND ended > began ORDER BY updated DESC
            """,
            (limit,),
        )
        return [
            PaintingTime(json.loads(settings), *others) for settings, *others in map(tuple, rows)
        ]

    def queued_settings(self) -> list[tuple[dict[str, Any], int]]:
        """The settings of the jobs that will be painted, and how many jobs have each."""
        states = (JobState.CLAIMED, JobState.QUEUED, JobState.RETRYING)
        rows = self._read(
            f"SELECT settings, COUNT(*) FROM jobs WHERE state IN ({marks(states)}) AND error = '' GROUP BY settings",  # noqa: S608 (question marks)
            states,
        )
        return [(json.loads(settings), number) for settings, number in rows]

    def batches(self, name: str | None = None) -> list[BatchCounts]:
        """The batches with jobs, or those of this name, the one that began last first."""
        named = "" if name is None else 'AND "group" = :name'
        rows = self._read(
            f"""
            SELECT "group", state, COUNT(*), MIN(created), MAX(updated)
            FROM {BATCHES} {named} GROUP BY "group", state
            """,  # noqa: S608 (our own text)
            {"name": name},
        )
        found: dict[str, BatchCounts] = {}
        for group, state, number, created, updated in rows:
            new = BatchCounts(group, created, updated, {JobState(state): number})
            found[group] = found[group].with_more(new) if group in found else new
        return sorted(found.values(), key=lambda batch: batch.created, reverse=True)

    def refused_batches(self, name: str | None = None) -> dict[str, RefusedBatch]:
        """The batch files that were refused, or that of this name, by their names; the last one of each."""
        named = "" if name is None else "AND name = :name"
        rows = self._read(
            f"""
            SELECT name, id, created, updated FROM jobs INDEXED BY batch_files
            WHERE source = 'batch-file' AND state = 'failed' AND NOT deleted {named} ORDER BY created, id
            """,  # noqa: S608 (our own text)
            {"name": name},
        )
        return {row[0]: RefusedBatch(*row) for row in rows}
