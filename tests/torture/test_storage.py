"""Disks that fill up and folders that go away and come back, under the real daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nst_daemon.jobs import JobState
from tests.torture.root import DEADLINE, Root, Victim

S = JobState


def says(victim: Victim, words: str, times: int = 1) -> None:
    """Wait until the daemon has said that."""
    assert victim.until(lambda: victim.root.text().count(words) >= times), victim.root.text()


def is_done(victim: Victim, name: str) -> None:
    """Wait until a job is done."""
    assert victim.until(lambda: victim.state(name) is S.DONE), victim.root.text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes; skipped where none may be mounted (RLIMIT_FSIZE is tested in any case)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("may not mount a small tmpfs here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_makes_the_queue_wait(small_disk: Path, victims: list[Victim]) -> None:
    """On a disk that is really full the daemon says so, loses nothing, and goes on by itself when there is room."""
    root = Root(small_disk / "root")
    root.pair("first")
    victims.append(root.start(once=False))
    is_done(victims[0], "first")
    root.pair("second", padding="x" * 1_000_000)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == 28  # No space left on device
    says(victims[0], "No space left on device")
    says(victims[0], "paused: ")
    root.check_now()
    filler.unlink()
    is_done(victims[0], "second")
    says(victims[0], "resumed")
    victims[0].process.terminate()
    assert victims[0].wait() == 0
    assert root.check_end() == {"first": S.DONE, "second": S.DONE}


@pytest.mark.slow
def test_a_root_that_goes_away_comes_back(tmp_path: Path, victims: list[Victim]) -> None:
    """While its root is gone, or an empty folder stands in its place, the daemon waits and makes nothing there."""
    root = Root(tmp_path / "mount" / "root")
    root.pair("first")
    victims.append(root.start(once=False))
    is_done(victims[0], "first")
    log = tmp_path / "log"
    os.link(root.path / "log", log)  # the daemon's words stay readable
    away = tmp_path / "away"
    root.path.rename(away)
    assert victims[0].until(lambda: "paused: " in log.read_text())
    root.path.mkdir()  # an empty mount point
    several_rounds = time.monotonic() + 3.0
    assert victims[0].until(lambda: time.monotonic() > several_rounds)
    assert list(root.path.iterdir()) == []
    root.path.rmdir()
    away.rename(root.path)
    root.pair("second")
    is_done(victims[0], "second")
    victims[0].process.terminate()
    assert victims[0].wait() == 0
    assert root.check_end() == {"first": S.DONE, "second": S.DONE}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["destroyed", "restored from a backup"])
def test_a_ledger_that_is_lost_loses_no_job(tmp_path: Path, how: str) -> None:
    """Where the ledger is damaged while jobs wait in the spool, they are entered again and finished."""
    root = Root(tmp_path / "root")
    root.pair("old")
    root.run()
    root.pair("dog")
    root.pair("cat")
    assert root.run(die_at="queued>running") == -9
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (root.path / "state" / name).unlink()
    root.ledger_path.write_bytes(b"damaged" * 1000)
    if how == "destroyed":
        (root.path / "state" / "ledger.sqlite.backup").write_bytes(b"damaged" * 1000)
        del root.drops["old"]  # its history is gone with the ledger; its result is not
    assert root.run() == 0, root.text()
    assert "the ledger was damaged" in root.text()
    old = root.path / "results" / "old.png"
    assert old.is_file()
    if how == "destroyed":
        old.unlink()
        shutil.rmtree(root.path / "done" / "old")
    assert set(root.check_end().values()) == {S.DONE}


@pytest.mark.slow
def test_five_daemons_on_one_root_are_one(tmp_path: Path, victims: list[Victim]) -> None:
    """Of five daemons that start at once on one root one serves, the others end, and every job is done once."""
    root = Root(tmp_path / "root")
    for number in range(5):
        root.pair(f"n{number}")
    victims += [root.start(once=False) for _ in range(5)]
    deadline = time.monotonic() + DEADLINE
    while len(serving := [victim for victim in victims if victim.process.poll() is None]) > 1:
        assert time.monotonic() < deadline, root.text()
        time.sleep(0.05)  # other processes are watched from outside: there is no clock to inject
    for number in range(5):
        is_done(serving[0], f"n{number}")
    serving[0].process.terminate()
    assert serving[0].wait() == 0
    assert root.text().count("serves") >= 4
    assert set(root.check_end().values()) == {S.DONE}
