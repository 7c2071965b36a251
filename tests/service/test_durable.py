"""What is on the disk before the ledger says so: flushes and transactions are watched as they happen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nst_daemon.errors import StorageError
from nst_daemon.intake import archive
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.workers.messages import Checked
from tests.bench import PNG, Bench

S = JobState


class Watched:
    """A supervisor, what it flushes, and what the ledger commits.

    flushed: every path so far, below the root; commits: the transitions of each transaction, and what was flushed
    before.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = Bench(root)
        self.root = root.resolve()
        self.flushed: list[str] = []
        self.commits: list[tuple[list[str], set[str]]] = []
        self._moves: list[str] = []
        real_flush, real_transaction = os.fsync, Ledger._transaction

        def flush(descriptor: int) -> None:
            real_flush(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").resolve()
            self.flushed.append(str(path.relative_to(self.root)))

        @contextmanager
        def transaction(ledger: Ledger) -> Iterator[None]:
            outermost = not ledger._db.in_transaction
            with real_transaction(ledger):
                yield
            if outermost and self._moves:
                self.commits.append((self._moves, set(self.flushed)))
                self._moves = []

        def noting(name: str) -> None:
            real = getattr(Ledger, name)

            def call(ledger: Ledger, subject: Any, *arguments: Any, **options: Any) -> Any:
                to = arguments[0] if name == "move" else S.CLAIMED
                self._moves.append(f"{to}")
                return real(ledger, subject, *arguments, **options)

            monkeypatch.setattr(Ledger, name, call)

        monkeypatch.setattr(os, "fsync", flush)
        monkeypatch.setattr(Ledger, "_transaction", transaction)
        noting("add")
        noting("move")

    def put(self, *names: str) -> None:
        """Drop pairs."""
        for name in names:
            for role in ("content", "style"):
                (self.bench.folders.inbox / f"{name}.{role}.png").write_bytes(PNG)

    def before(self, to: JobState) -> set[str]:
        """What was flushed before the first transaction with a move to this state."""
        return next(flushed for moves, flushed in self.commits if to in moves)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def test_every_copy_is_flushed_before_its_job_is_in_the_ledger(watched: Watched) -> None:
    """Copies, card, the job's folder and the spool are durable before the row, and the originals are still there."""
    watched.put("dog", "cat")
    watched.bench.check.answers = {"dog": None, "cat": None}
    watched.bench.step(1.5, times=4)
    jobs = watched.bench.ledger.jobs(S.CLAIMED)
    assert len(jobs) == 2
    wanted = {"state/spool"}
    for job in jobs:
        folder = f"state/spool/{job.id}"
        wanted |= {folder, f"{folder}/{archive.CARD}"}
        wanted |= {f"{folder}/{file.spooled}" for file in job.inputs}
    assert watched.before(S.CLAIMED) >= wanted
    assert len(list(watched.bench.folders.inbox.iterdir())) == 4


def test_results_and_archives_are_flushed_before_a_job_is_done(watched: Watched) -> None:
    """The names in results/ and done/ are durable before the ledger has the job as published or done."""
    watched.put("dog", "trip")
    watched.bench.step(1.5, times=4)
    watched.flushed.clear()
    watched.bench.executor.paint()
    watched.bench.step()
    assert "results" not in watched.before(S.STAGED)
    assert watched.before(S.PUBLISHED) >= {"results", "done"}


def test_the_stage_stays_until_the_job_is_done(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the transaction after a publication fails, the picture is still staged, and is published once in the end."""
    watched.put("dog")
    watched.bench.step(1.5, times=4)
    real = Ledger.move

    def fail(ledger: Ledger, job_id: str, to: JobState, **options: Any) -> Any:
        if to is S.PUBLISHED:
            raise StorageError("the disk is full")
        return real(ledger, job_id, to, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "move", fail)
        watched.bench.executor.paint()
        watched.bench.step()
        assert watched.bench.supervisor.paused
        assert (watched.bench.folders.results / "dog.png").exists()
        assert list((watched.bench.folders.stage / watched.bench.job().id).iterdir())
    watched.bench.step(20.0, times=2)
    assert watched.bench.job().state is S.DONE
    assert sorted(path.name for path in watched.bench.folders.results.glob("*.png")) == ["dog.png"]
    assert not list(watched.bench.folders.stage.iterdir())


def test_many_drops_share_flushes_and_transactions(watched: Watched) -> None:
    """Sixteen pairs that are claimed together take one transaction for a step, and four flushes each and one more."""
    watched.put(*(f"p{number}" for number in range(16)))
    watched.bench.step(1.5, times=4)
    moves = [sorted(set(moves)) for moves, _ in watched.commits if S.RUNNING not in moves]
    assert moves == [[S.CLAIMED], [S.QUEUED]]
    spooled = [path for path in watched.flushed if path.startswith("state/spool")]
    assert len(spooled) == 16 * 4 + 1


def test_a_drop_that_the_ledger_refuses_costs_the_others_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one job of a transaction cannot be entered, it fails with the reason, and the others are queued."""
    real = Ledger.add

    def add(ledger: Ledger, job: Any, **options: Any) -> None:
        if job.name == "p1" and not job.error:
            raise ValueError("a number is too large")
        real(ledger, job, **options)

    monkeypatch.setattr(Ledger, "add", add)
    watched.put("p0", "p1", "p2")
    watched.bench.step(1.5, times=5)
    states = {job.name: job.state for job in watched.bench.ledger.jobs()}
    assert states == {"p0": S.RUNNING, "p1": S.FAILED, "p2": S.RUNNING}
    assert "a number is too large" in watched.bench.error("p1")
    assert len(list(watched.bench.folders.spool.iterdir())) == 2


def test_a_full_disk_during_the_flush_loses_no_drop(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If copies cannot be made durable, nothing of them stays, the queue is paused, and they are copied again later."""
    watched.put("dog", "cat")
    with monkeypatch.context() as patch:

        def full(descriptor: int) -> None:
            raise OSError(28, os.strerror(28))

        patch.setattr(os, "fsync", full)
        watched.bench.step(1.5, times=4)
        assert "No space left" in watched.bench.supervisor.paused
        assert not watched.bench.ledger.jobs()
        assert not list(watched.bench.folders.spool.iterdir())
    watched.bench.step(20.0, times=4)
    assert {job.name: job.state for job in watched.bench.ledger.jobs()} == {
        "dog": S.RUNNING,
        "cat": S.RUNNING,
    }


def test_two_drops_with_one_id_are_two_jobs(watched: Watched) -> None:
    """Of two settings files with the same id in one look, the first gets it, and the second gets another one."""
    watched.put("a", "b")
    for name in "ab":
        (watched.bench.folders.inbox / f"{name}.yaml").write_text(f"id: {'0f' * 16}\n")
    watched.bench.step(1.5, times=5)
    jobs = {job.name: job for job in watched.bench.ledger.jobs()}
    assert jobs["a"].id == "0f" * 16
    assert jobs["b"].id != jobs["a"].id
    assert {job.state for job in jobs.values()} == {S.RUNNING}


def test_pictures_that_end_soon_after_another_are_finished_together(watched: Watched) -> None:
    """The first picture is published at once; two that follow within 0.1 s share one transaction when that is over."""
    bench = watched.bench
    bench.group_seconds, bench.executor.room = 0.1, 3
    bench.begin()
    bench.executor.room = 3
    watched.put("a", "b", "c")
    bench.step(1.5, times=4)
    watched.commits.clear()
    bench.executor.paint()
    bench.step(0.01)
    assert bench.ledger.counts()[S.DONE] == 1
    for _ in range(2):
        bench.executor.paint()
        bench.step(0.01)
    assert bench.ledger.counts()[S.STAGED] == 2
    assert 0.0 < bench.supervisor.due(bench.now) <= 0.1
    bench.step(0.1)
    assert [moves for moves, _ in watched.commits if S.DONE in moves] == [
        [S.PUBLISHED, S.DONE],
        [S.PUBLISHED, S.DONE] * 2,
    ]


def test_the_end_of_the_daemon_waits_for_no_group(watched: Watched) -> None:
    """A picture that would be finished a moment later is published before the daemon ends."""
    bench = watched.bench
    bench.group_seconds = 0.1
    bench.begin()
    watched.put("a", "b")
    bench.step(1.5, times=4)
    for _ in range(2):
        bench.executor.paint()
        bench.step(0.01)
    assert bench.ledger.counts()[S.STAGED] == 1
    bench.supervisor.stop(bench.now)
    assert bench.ledger.counts()[S.DONE] == 2


def test_jobs_whose_checks_are_answered_one_by_one_are_queued_together(watched: Watched) -> None:
    """While checks are under way, answered jobs are queued every 0.1 s; with the last answer all are, at once."""
    bench = watched.bench
    bench.group_seconds = 0.1
    bench.begin()
    names = ("a", "b", "c", "d")
    bench.check.answers = dict.fromkeys(names)
    watched.put(*names)
    bench.step(1.5, times=4)
    ids = {job.name: job.id for job in bench.ledger.jobs(S.CLAIMED)}

    def answer(name: str) -> int:
        """How many jobs wait for the others after this one is answered, 10 ms later."""
        bench.check.answers[name] = Checked(ids[name])
        bench.step(0.01)
        return bench.ledger.counts()[S.CLAIMED]

    bench.step(0.1)
    assert [answer("a"), answer("b")] == [4, 4]
    assert 0.0 < bench.supervisor.due(bench.now) <= 0.1
    bench.step(0.1)
    assert bench.ledger.counts()[S.CLAIMED] == 2
    assert [answer("c"), answer("d")] == [2, 0]
