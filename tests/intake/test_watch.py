"""Wake-ups, with the real kernel. A test waits for an event with a deadline; none sleeps."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver

from nst_daemon.intake import watch
from nst_daemon.intake.watch import Watcher

SOON = 20.0  # seconds until an event must have come, on a busy machine
LATER = 1e6  # a monotonic time at which every patience is over


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def watcher(inbox: Path) -> Iterator[Watcher]:
    """A watch that has begun."""
    with Watcher(inbox) as watcher:
        watcher.tend(0.0)
        assert watcher.blind == ""
        assert watcher.clear()  # it wakes once for what was before
        yield watcher


def woken(watcher: Watcher, seconds: float = SOON) -> bool:
    """Whether a wake-up comes in time."""
    return bool(wait([watcher], seconds)) and watcher.clear()


def test_a_file_wakes(watcher: Watcher, inbox: Path) -> None:
    """A file that is written wakes, and one that is moved in."""
    (inbox / "dog.jpg").write_bytes(b"x")
    assert woken(watcher)
    (inbox.parent / "cat.jpg").write_bytes(b"x")
    (inbox.parent / "cat.jpg").rename(inbox / "cat.jpg")
    assert woken(watcher)


def test_a_file_in_a_new_folder_wakes(watcher: Watcher, inbox: Path) -> None:
    """A file written into a folder that came after the start wakes."""
    (inbox / "new").mkdir()
    assert woken(watcher)
    while woken(watcher, 1.0):
        pass  # the watch on the new folder is set by now
    (inbox / "new" / "dog.jpg").write_bytes(b"x")
    assert woken(watcher)


def test_looking_and_removing_do_not_wake(watcher: Watcher, inbox: Path) -> None:
    """What the scan and the claim do themselves causes no wake-up, or they would chase each other."""
    (inbox / "dog.jpg").write_bytes(b"x")
    while woken(watcher, 1.0):
        pass
    list(os.scandir(inbox))
    (inbox / "dog.jpg").read_bytes()
    (inbox / "dog.jpg").unlink()
    assert not woken(watcher, 1.0)


def test_a_watch_on_a_replaced_folder_begins_anew(watcher: Watcher, inbox: Path) -> None:
    """A folder that is moved away and made anew is watched again after the next `tend`."""
    inbox.rename(inbox.with_suffix(".old"))
    inbox.mkdir()
    watcher.tend(LATER)
    assert watcher.blind == ""
    assert watcher.clear()
    (inbox / "dog.jpg").write_bytes(b"x")
    assert woken(watcher)


def test_a_folder_that_is_gone_makes_blind_until_it_is_back(watcher: Watcher, inbox: Path) -> None:
    """Without its folder the watcher says so and does not raise; with it, it sees again."""
    shutil.rmtree(inbox)
    watcher.tend(LATER)
    assert "cannot watch the folders" in watcher.blind
    inbox.mkdir()
    watcher.tend(LATER + 1)
    assert watcher.blind != ""  # it does not try in every round
    watcher.tend(2 * LATER)
    assert watcher.blind == ""


def test_a_watch_whose_thread_has_died_begins_anew(watcher: Watcher, inbox: Path) -> None:
    """Where watchdog's thread has ended silently, the next `tend` replaces it."""
    observer = watcher._observer
    assert observer is not None
    for emitter in observer.emitters:
        emitter.stop()
        emitter.join(SOON)
    watcher.tend(LATER)
    assert watcher._observer is not observer
    watcher.clear()
    (inbox / "dog.jpg").write_bytes(b"x")
    assert woken(watcher)


def test_network_file_systems_are_not_trusted(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On a file system of the network nothing is watched, the reason names it, and the log says so once."""
    with Watcher(inbox, mounts=f"server:/x {inbox} nfs4 rw 0 0\n") as watcher:
        watcher.tend(0.0)
        watcher.tend(LATER)
        assert watcher.blind == f"{inbox} is on nfs4, which does not report all changes"
        assert watcher._observer is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "inotify watch limit reached"), RuntimeError("can't start new thread")],
)
def test_limits_of_the_kernel_make_blind(
    inbox: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel has no watches or threads left, the watcher says so and goes on without."""

    def refuse(self: BaseObserver) -> None:
        raise error

    monkeypatch.setattr(watch.Observer, "start", refuse)
    with Watcher(inbox) as watcher:
        watcher.tend(0.0)
        assert str(error) in watcher.blind


def test_a_thousand_wake_ups_are_one(watcher: Watcher) -> None:
    """However often it is woken, even beyond what a pipe holds, one `clear` forgets all."""
    for _ in range(100_000):
        watcher.wake()
    assert watcher.clear()
    assert not watcher.clear()
