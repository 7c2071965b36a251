"""Originals that the daemon may not remove, in a folder of the inbox without write permission."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nst_daemon.jobs import JobState
from nst_daemon.workers.messages import Stopped
from tests.bench import PNG, Bench
from tests.users import User

NAMES = ("dog.content.png", "dog.style.png")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that an unprivileged user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="nst-unremovable-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("trip"):
        path.chmod(0o777)
    shutil.rmtree(folder)


def stuck(test: Callable[[Bench, Path], None]) -> Callable[[Path, Path], None]:
    """Run a test as an unprivileged user, after a pair in the folder `trip` was taken that could not be removed."""

    def run(place: Path, tmp_path: Path) -> None:
        Bench(tmp_path).drop()  # imports everything: the other user may have no right to read it

        def part() -> None:
            bench = Bench(place)
            trip = bench.folders.inbox / "trip"
            trip.mkdir()
            for name in NAMES:
                (trip / name).write_bytes(PNG)
            trip.chmod(0o555)
            bench.step(2, times=6)
            assert len(bench.ledger.jobs()) == 1
            test(bench, trip)

        User(65534, 65534).run(part)

    run.__doc__ = test.__doc__
    return run


def change(trip: Path) -> None:
    """Change everything about the files except their contents."""
    for name in NAMES:
        path = trip / name
        path.chmod(0o640)
        os.utime(path, ns=(1, 1))


@stuck
def test_other_times_and_modes_are_not_a_new_drop(bench: Bench, trip: Path) -> None:
    """A stuck pair is not painted again after a chmod and a touch, neither at once nor after a restart."""
    change(trip)
    bench.step(2, times=6)
    bench.begin()
    bench.step(2, times=6)
    assert len(bench.ledger.jobs()) == 1


@stuck
def test_changes_while_the_daemon_is_stopped_are_not_a_new_drop(bench: Bench, trip: Path) -> None:
    """A stuck pair that is touched and gets other inodes before the daemon starts again is not painted again."""
    change(trip)
    trip.chmod(0o755)
    for name in NAMES:
        (trip / name).rename(trip / f"{name}.part")
        shutil.copy(trip / f"{name}.part", trip / name)
        (trip / f"{name}.part").unlink()
    trip.chmod(0o555)
    bench.begin()
    bench.step(2, times=6)
    assert len(bench.ledger.jobs()) == 1


@stuck
def test_a_folder_that_is_opened_later_is_emptied(bench: Bench, trip: Path) -> None:
    """When folder and files get other modes at once, the stuck files are removed without being painted again."""
    trip.chmod(0o755)
    change(trip)
    bench.step(2, times=6)
    assert len(bench.ledger.jobs()) == 1
    assert not list(trip.glob("*"))


@stuck
def test_other_contents_are_a_new_drop(bench: Bench, trip: Path) -> None:
    """A stuck pair with new contents is painted."""
    for name in NAMES:
        (trip / name).write_bytes(PNG + b"new")
    bench.step(2, times=6)
    assert len(bench.ledger.jobs()) == 2


@stuck
def test_the_same_contents_are_a_new_drop_after_the_file_was_away(bench: Bench, trip: Path) -> None:
    """When a stuck pair was removed by hand, the same pictures under the same names are painted again."""
    trip.chmod(0o755)
    for name in NAMES:
        (trip / name).unlink()
    bench.step(2)
    for name in NAMES:
        (trip / name).write_bytes(PNG)
    bench.step(2, times=6)
    assert len(bench.ledger.jobs()) == 2


def test_the_same_picture_is_painted_each_time_it_is_dropped(tmp_path: Path) -> None:
    """A pair that was removed is a new drop when it comes back with the same contents, times and names."""
    bench = Bench(tmp_path)
    for number in (1, 2, 3):
        for name in NAMES:
            (bench.folders.inbox / name).write_bytes(PNG)
            os.utime(bench.folders.inbox / name, ns=(1, 1))
        bench.step(2, times=6)
        assert len(bench.ledger.jobs()) == number


@stuck
def test_a_retry_does_not_take_the_originals_again(bench: Bench, trip: Path) -> None:
    """After a job of such originals was cancelled and tried again, they are still no new drop at the next start."""
    for verb in ("cancel", "retry"):
        bench.ledger.request(bench.job().id, verb, now=bench.now.wall)
        for _ in range(3):
            bench.step(2)
            while bench.executor.cancelled and bench.executor.tasks:
                bench.executor.cancelled.clear()
                bench.executor.answer(lambda task: Stopped("fake", task.job_id, cancelled=True))
    assert bench.job().state is JobState.RUNNING
    bench.begin()
    change(trip)
    bench.step(4000, times=4)
    assert bench.job().state is JobState.RUNNING
