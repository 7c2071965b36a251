"""Figures about many jobs: batches, changes, painting times."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nst_daemon.jobs import Changes, Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ledger_figures import BatchCounts, LedgerFigures, RefusedBatch
from nst_daemon.ledger_file import connect_reader

S = JobState


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


def add(
    ledger: Ledger, batch: str, *states: JobState, source: str = "batch", at: float = 1.0
) -> Job:
    """Add a job of a batch, and move it through these states, one a second."""
    number = f"{len(ledger.ids()) + 1:032x}"
    job = Job(number, number, source, S.CLAIMED, (), at, at, group=batch)
    ledger.add(job)
    for state in states:
        at += 1
        ledger.move(number, state, now=at)
    return job


def steps(path: Path, act: Callable[[LedgerFigures], object]) -> int:
    """The number of instructions of SQLite's virtual machine for a query."""
    counted = itertools.count()

    def connect(file: Path, busy_seconds: float) -> sqlite3.Connection:
        database = connect_reader(file, busy_seconds)
        database.set_progress_handler(lambda: next(counted) < 0, 1)
        return database

    with LedgerFigures(path, connect=connect) as figures:
        before = next(counted)
        act(figures)
        return next(counted) - before


def test_batches_are_summed_up(ledger: Ledger) -> None:
    """Each batch has its jobs by state, their first creation and latest change; the one that began last comes first."""
    add(ledger, "old", S.QUEUED, S.RUNNING)
    add(ledger, "old", S.QUEUED, at=3.0)
    add(ledger, "new", at=5.0)
    add(ledger, "folder", source="pair", at=6.0)
    with LedgerFigures.attach(ledger.path) as figures:
        new, old = figures.batches()
        assert new == BatchCounts("new", 5.0, 5.0, {S.CLAIMED: 1})
        assert old == BatchCounts("old", 1.0, 4.0, {S.RUNNING: 1, S.QUEUED: 1})
        assert figures.batches("old") == [old]
        assert figures.batches("folder") == []
    assert ledger.batch_counts("old") == old.counts
    assert (ledger.batch_changed("old"), ledger.batch_changed("folder")) == (4.0, 0.0)


def test_refused_batch_files_are_apart(ledger: Ledger) -> None:
    """A batch file that was refused is no picture of a batch; the last one that was not deleted counts."""
    for at in (1.0, 5.0, 9.0):
        job = Job(f"{at:032}", "night", "batch-file", S.CLAIMED, (), at, at, group="holiday")
        ledger.add(job)
        ledger.move(job.id, S.FAILED, now=at + 1)
    ledger.note(job.id, now=12.0, deleted=True)
    with LedgerFigures.attach(ledger.path) as figures:
        assert figures.batches() == []
        assert figures.refused_batches() == {"night": RefusedBatch("night", f"{5.0:032}", 5.0, 6.0)}
        assert figures.refused_batches("night") == figures.refused_batches()
        assert figures.refused_batches("day") == {}


@pytest.mark.parametrize(
    "act",
    [
        lambda ledger: ledger.batch_counts("mine"),
        lambda ledger: ledger.batch_changed("mine"),
        lambda ledger: ledger.batches("mine"),
        lambda ledger: ledger.changed(),
        lambda ledger: ledger.painting_times(3),
    ],
    ids=["counts", "changed", "batches", "ledger changed", "painting times"],
)
def test_other_jobs_cost_nothing(ledger: Ledger, act: Callable[[LedgerFigures], object]) -> None:
    """The figures of a batch, the latest change and the last painting times take no longer beside 100 more jobs."""
    way = (S.QUEUED, S.RUNNING, S.STAGED, S.PUBLISHED, S.DONE)
    for _ in range(5):
        add(ledger, "mine", *way)
    few = steps(ledger.path, act)
    for number in range(100):
        add(ledger, f"other {number % 3}", *way, source="batch" if number % 2 else "pair")
    assert steps(ledger.path, act) < 1.1 * few + 20


@pytest.mark.parametrize(
    "act",
    [
        lambda ledger: ledger.batches(),
        lambda ledger: ledger.batches("mine"),
        lambda ledger: ledger.batch_counts("mine"),
        lambda ledger: ledger.batch_changed("mine"),
    ],
    ids=["all", "one", "counts", "changed"],
)
def test_batches_are_read_from_an_index(
    ledger: Ledger, act: Callable[[LedgerFigures], object]
) -> None:
    """No row of a job, with its settings, is read to sum up batches: an index has everything."""
    add(ledger, "mine", S.QUEUED)
    read: list[str] = []

    def connect(file: Path, busy_seconds: float) -> sqlite3.Connection:
        database = connect_reader(file, busy_seconds)
        database.set_trace_callback(read.append)
        return database

    with LedgerFigures(ledger.path, connect=connect) as figures:
        read.clear()
        act(figures)
    (query,) = read
    with closing(sqlite3.connect(ledger.path)) as database:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert "USING COVERING INDEX jobs_by_batch" in plan[0]


def test_the_latest_change(ledger: Ledger) -> None:
    """It is that of any job in any state, also without an event, or the latest request."""
    assert ledger.changed() == 0.0
    first = add(ledger, "a", at=3.0)
    add(ledger, "a", S.QUEUED, S.RUNNING, at=1.0)
    assert ledger.changed() == 3.0
    ledger.note(first.id, now=8.0, priority=3)
    assert ledger.changed() == 8.0
    ledger.request(first.id, "priority", now=9.0, changes=Changes({"priority": 1}))
    assert ledger.changed() == 9.0


def test_requests_for_many_jobs_are_all_or_none(ledger: Ledger) -> None:
    """One unknown job prevents all requests; otherwise each job has one, with the changes of an equal one before."""
    jobs = [add(ledger, "a", S.QUEUED) for _ in range(3)]
    ids = [job.id for job in jobs]
    with pytest.raises(Exception, match="there is no job"):
        ledger.request_all([*ids, "0" * 32], "cancel", now=1.0)
    assert ledger.pending_requests() == []
    ledger.request(ids[1], "priority", now=2.0, changes=Changes({"priority": 1}))
    ledger.request_all(ids, "priority", now=3.0, changes=Changes({"priority": 2}))
    assert [(r.job_id, r.at, r.changes.written) for r in ledger.pending_requests()] == [
        (job_id, 3.0, {"priority": 2}) for job_id in ids
    ]
