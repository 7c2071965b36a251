"""Priorities that are changed by request."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nst_daemon.jobs import Changes, JobState
from nst_daemon.ops.job_names import find_job
from nst_daemon.ops.requests import priority_of
from nst_daemon.service.state import Pacing
from nst_daemon.workers.messages import Failed, Retry
from tests.bench import Bench

S = JobState


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A root whose workers have no room."""
    bench = Bench(tmp_path)
    bench.executor.room = 0
    return bench


def request(bench: Bench, name: str, priority: int) -> None:
    """Request a priority, and let the daemon do it."""
    bench.ledger.request(
        find_job(bench.ledger, name).id,
        "priority",
        now=bench.now.wall,
        changes=priority_of(priority),
    )
    bench.step(2)
    assert bench.ledger.pending_requests() == []


def order(bench: Bench) -> list[str]:
    """The names of the queue in its order."""
    return [job.name for job in bench.ledger.queue(-1)]


def test_a_priority_changes_the_order_of_the_queue(bench: Bench) -> None:
    """Jobs of equal priority keep their order, also after a priority was changed and changed back."""
    for name in ("a", "b", "c", "d"):
        bench.drop(name)
    request(bench, "c", 5)
    assert order(bench) == ["c", "a", "b", "d"]
    request(bench, "d", 5)
    assert order(bench) == ["c", "d", "a", "b"]
    request(bench, "a", -1)
    request(bench, "c", 0)
    assert order(bench) == ["d", "b", "c", "a"]
    request(bench, "a", 0)
    request(bench, "d", 0)
    assert order(bench) == ["a", "b", "c", "d"]
    notes = [event.note for event in bench.ledger.events(find_job(bench.ledger, "c").id)]
    assert notes[-2:] == ["priority 5 by request", "priority 0 by request"]


def test_the_last_of_two_requests_counts(bench: Bench) -> None:
    """Two priorities that the daemon has not handled yet are one request, with the later value."""
    bench.drop()
    for priority in (3, 7):
        bench.ledger.request(bench.job().id, "priority", now=1.0, changes=priority_of(priority))
    assert len(bench.ledger.pending_requests()) == 1
    bench.step(2)
    assert bench.job().priority == 7


def test_a_running_job_takes_a_priority(tmp_path: Path) -> None:
    """A job that is painted gets the priority for its next turn in the queue, and its attempt goes on."""
    bench = Bench(tmp_path)
    bench.drop()
    request(bench, "dog", 4)
    assert (bench.job().state, bench.job().priority, bench.job().attempts) == (S.RUNNING, 4, 1)


def test_a_retry_keeps_the_priority(tmp_path: Path) -> None:
    """A retry reads the settings file again, and the priority that was requested still counts."""
    bench = Bench(tmp_path)
    bench.drop(yaml=b"priority: 2")
    request(bench, "dog", 9)
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "bad luck"))
    bench.step(1, times=2)
    bench.ledger.request(bench.job().id, "retry", now=bench.now.wall)
    bench.step(2, times=2)
    assert (bench.job().state, bench.job().priority) == (S.RUNNING, 9)


def test_an_ended_job_has_no_priority_to_change(tmp_path: Path) -> None:
    """The request for a job that has ended meanwhile does nothing."""
    bench = Bench(tmp_path)
    bench.drop()
    bench.executor.paint()
    bench.step(1, times=2)
    request(bench, "dog", 9)
    assert bench.job().priority == 0


@pytest.mark.parametrize("changes", [Changes(), Changes({"priority": "high"})])
def test_a_request_that_is_no_priority_is_refused(
    bench: Bench, changes: Changes, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged request is logged and removed, and the daemon continues."""
    bench.drop()
    bench.ledger.request(bench.job().id, "priority", now=1.0, changes=changes)
    bench.step(2)
    assert bench.ledger.pending_requests() == []
    assert "priority must be a whole number" in caplog.text


def test_a_priority_is_no_progress_of_an_attempt(tmp_path: Path) -> None:
    """After a crash, a checkpoint of this attempt counts as progress also if the priority was changed after it."""
    bench = Bench(tmp_path)
    bench.drop()
    checkpoint = bench.folders.checkpoints / bench.job().id
    checkpoint.touch()
    os.utime(checkpoint, (bench.now.wall + 1,) * 2)
    bench.time += 10
    request(bench, "dog", 4)
    bench.begin()
    notes = [event.note for event in bench.ledger.events(bench.job().id)]
    assert any("painting continues from the checkpoint" in note for note in notes)


def test_many_requests_are_done_in_portions(tmp_path: Path) -> None:
    """A round does a portion of the requests; the next round follows at once; requests that wait do not stop others."""
    bench = Bench(tmp_path, Pacing(priorities_a_round=2, cancels_a_round=1))
    bench.executor.room = 1
    for name in "abcde":
        bench.drop(name)
    bench.step(2)
    jobs = {job.name: job.id for job in bench.ledger.jobs()}
    bench.ledger.request_all(jobs.values(), "priority", now=1.0, changes=priority_of(3))
    left = []
    for _ in range(3):
        bench.step(0 if left else 2)
        left.append(len(bench.ledger.pending_requests()))
    assert left == [3, 1, 0]
    bench.ledger.request_all([jobs["a"], jobs["b"]], "cancel", now=1.0)
    bench.step(2, times=3)
    (running,) = bench.executor.cancelled
    assert [request.job_id for request in bench.ledger.pending_requests()] == [running]
    assert {bench.ledger.jobs(S.CANCELLED)[0].id, running} == {jobs["a"], jobs["b"]}
