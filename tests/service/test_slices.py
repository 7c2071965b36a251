"""What may be very much is done in slices, and everything else goes on in between."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from nst_daemon.intake import claim
from nst_daemon.jobs import Job, JobState
from nst_daemon.service.state import Pacing
from nst_daemon.workers.messages import Checked
from tests.bench import PNG, Bench

S = JobState
#: A slice is over when this clock is read once more.
SLICES = Pacing(slice_seconds=0.5)


def ticking() -> Callable[[], float]:
    """A clock on which each call takes a second."""
    ticks = count()
    return lambda: float(next(ticks))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A supervisor that does one step of a look in each round, and admits one drop."""
    bench = Bench(tmp_path, SLICES)
    bench.measure = ticking()
    yield bench
    gc.unfreeze()


def put(bench: Bench, *names: str) -> None:
    """Drop pairs, and let no time pass."""
    for name in names:
        for role in ("content", "style"):
            (bench.folders.inbox / f"{name}.{role}.png").write_bytes(PNG)


def rounds(bench: Bench, condition: Callable[[], object]) -> int:
    """How many rounds it takes, each of which wants the next one at once."""
    for number in range(1000):
        if condition():
            return number
        bench.supervisor.step(bench.now)
        assert condition() or bench.supervisor.due(bench.now) == 0.0
    raise AssertionError("it never came to that")


def looked(bench: Bench) -> Callable[[], bool]:
    """Whether a look has ended since."""
    before = bench.supervisor._admission.seen
    return lambda: bench.supervisor._admission.seen is not before


def test_a_look_takes_many_rounds_and_finds_the_same(bench: Bench) -> None:
    """With one step in each round, a look needs dozens of rounds, none of which waits, and finds every drop."""
    put(bench, "dog", "cat")
    assert rounds(bench, looked(bench)) > 30
    bench.time += 5.0
    rounds(bench, lambda: len(bench.ledger.jobs()) == 2)
    assert [job.name for job in bench.ledger.jobs()] == ["cat", "dog"]


def test_workers_are_answered_during_a_look(bench: Bench) -> None:
    """While the inbox is being looked at, a picture is published and archived, and the next job is handed out."""
    bench.executor.room = 1
    put(bench, "dog", "cat")
    rounds(bench, looked(bench))
    bench.time += 5.0
    rounds(bench, lambda: len(bench.ledger.jobs(S.QUEUED, S.RUNNING)) == 2)
    put(bench, *map(str, range(20)))
    bench.time += 60.0
    bench.supervisor.step(bench.now, woken=True)
    end = looked(bench)
    bench.executor.paint()
    rounds(bench, lambda: bench.ledger.counts()[S.DONE])
    bench.supervisor.step(bench.now)
    assert [task.name for task in bench.executor.tasks] == ["dog"]
    assert not end()


def test_nothing_leaves_the_inbox_during_a_look(bench: Bench) -> None:
    """A drop whose check is answered during a look joins the queue after it: no look sees half of its pair."""
    bench.check.answers["dog"] = None
    put(bench, "dog")
    rounds(bench, looked(bench))
    bench.time += 5.0
    rounds(bench, lambda: bench.ledger.jobs(S.CLAIMED))
    bench.time += 60.0
    bench.supervisor.step(bench.now, woken=True)
    bench.check.answers["dog"] = Checked(bench.job().id)
    end = looked(bench)
    while not end():
        assert bench.job().state is S.CLAIMED
        assert len(list(bench.folders.inbox.iterdir())) == 2
        bench.supervisor.step(bench.now)
    rounds(bench, lambda: bench.job().state is S.RUNNING)
    seen = bench.supervisor._admission.seen
    assert seen is not None
    assert not seen.waiting
    assert not list(bench.folders.inbox.iterdir())


def test_what_comes_during_a_look_wakes_the_next_one(bench: Bench) -> None:
    """An event that arrives during a look leads to another look at once, and not after rescan_seconds."""
    rounds(bench, looked(bench))
    bench.time += 60.0
    bench.supervisor.step(bench.now)
    end = looked(bench)
    bench.supervisor.step(bench.now, woken=True)
    rounds(bench, end)
    assert bench.supervisor.due(bench.now) < 0.5


def test_after_a_long_look_there_is_a_pause_as_long(bench: Bench) -> None:
    """A look that took nine seconds is followed by the next one after nine seconds, however much changes meanwhile."""
    rounds(bench, looked(bench))
    bench.time += 60.0
    bench.supervisor.step(bench.now)
    bench.time += 9.0
    end = looked(bench)
    rounds(bench, end)
    bench.supervisor.step(bench.now, woken=True)
    assert bench.supervisor._admission.due - bench.now.steady == pytest.approx(9.0)


def test_a_pause_of_the_queue_ends_a_look(bench: Bench) -> None:
    """While the queue is paused no folder of the inbox is open, and afterwards the look begins anew."""
    put(bench, "dog")
    bench.supervisor.step(bench.now)
    bench.folders.results.rmdir()
    bench.time += 2.0
    bench.supervisor.step(bench.now)
    assert bench.supervisor.paused
    inbox = bench.folders.inbox.resolve()
    assert inbox not in {link.resolve() for link in Path("/proc/self/fd").iterdir()}
    bench.folders.results.mkdir()
    bench.time += 60.0
    rounds(bench, looked(bench))
    bench.time += 5.0
    rounds(bench, bench.ledger.jobs)


def test_a_reload_begins_a_look_anew(bench: Bench) -> None:
    """A look that is under way when the configuration is reloaded finds nothing any more; the next one does."""
    put(bench, "dog")
    rounds(bench, looked(bench))
    bench.time += 5.0
    bench.supervisor.step(bench.now)
    bench.change(service={"settle_seconds": 3.0})
    rounds(bench, looked(bench))
    assert bench.supervisor.settling
    assert not bench.ledger.jobs()


def test_a_command_that_ends_with_the_inbox_waits_for_the_look(bench: Bench) -> None:
    """`once` does not take the inbox for empty while it is being looked at."""
    bench.drain = True
    bench.begin()
    put(bench, "dog")
    bench.supervisor.step(bench.now)
    while not (end := looked(bench))():
        assert not bench.supervisor.drained
        bench.supervisor.step(bench.now)
        if end():
            break
    assert bench.supervisor.settling


def test_few_drops_are_admitted_in_a_slice(bench: Bench) -> None:
    """A round admits no more than its time allows, and keeps the order."""
    put(bench, *"abc")
    rounds(bench, looked(bench))
    bench.time += 5.0
    for number in (1, 2, 3):
        rounds(bench, lambda number=number: len(bench.ledger.jobs()) == number)  # type: ignore[misc]
    assert [job.name for job in bench.ledger.jobs()] == ["a", "b", "c"]


def test_fewer_drops_are_admitted_at_once_on_a_slow_disk(tmp_path: Path) -> None:
    """A round that took longer than two slices is followed by half as many drops, at least 4, else by one more."""
    bench = Bench(tmp_path, Pacing(claims_a_round=8, slice_seconds=1.0))
    time = 0.0
    bench.measure = lambda: time
    put(bench, *map(str, range(8 + 4 + 4 + 5)))
    bench.step(1.5, times=2)
    real = claim.make_durable

    def flush(jobs: Sequence[Job], spool: Path, *, seconds: float) -> None:
        nonlocal time
        real(jobs, spool)
        time += seconds

    admitted = []
    with pytest.MonkeyPatch.context() as patch:
        for seconds in (3.0, 3.0, 0.1, 0.1):
            before = len(bench.ledger.jobs())
            patch.setattr(claim, "make_durable", partial(flush, seconds=seconds))
            bench.step(1.5 if not before else 0.0)
            admitted.append(len(bench.ledger.jobs()) - before)
    assert admitted == [8, 4, 4, 5]
