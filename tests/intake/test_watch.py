"""Wake-ups, with the real kernel. A test waits for an event with a deadline; none sleeps."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyObserver

from nst_daemon.intake.watch import Watcher

SOON = 20.0  # seconds until an event must have come, on a busy machine
LATER = 1e6  # a monotonic time after every pause between attempts


class Made(list[BaseObserver]):
    """Makes observers, and remembers them."""

    def __call__(self) -> BaseObserver:
        self.append(Observer())
        return self[-1]


@pytest.fixture
def watcher(inbox: Path) -> Iterator[Watcher]:
    """A watch that has begun."""
    with Watcher(inbox) as watcher:
        watcher.tend(0.0)
        assert watcher.problem == ""
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
    assert watcher.problem == ""
    assert watcher.clear()
    (inbox / "dog.jpg").write_bytes(b"x")
    assert woken(watcher)


def test_a_folder_that_is_gone_is_a_problem_until_it_is_back(watcher: Watcher, inbox: Path) -> None:
    """Without its folder `tend` does not raise, and `problem` says so; the folder is watched again once it is back."""
    shutil.rmtree(inbox)
    watcher.tend(LATER)
    assert "cannot watch the folders" in watcher.problem
    inbox.mkdir()
    watcher.tend(LATER + 1)
    assert watcher.problem != ""  # it does not try in every round
    watcher.tend(2 * LATER)
    assert watcher.problem == ""


def test_a_watch_whose_thread_has_ended_is_restarted(inbox: Path) -> None:
    """After watchdog's thread has ended without notice, the next `tend` replaces the observer."""
    made = Made()
    with Watcher(inbox, make_observer=made) as watcher:
        watcher.tend(0.0)
        for emitter in made[0].emitters:
            emitter.stop()
            emitter.join(SOON)
        watcher.tend(LATER)
        assert len(made) == 2
        watcher.clear()
        (inbox / "dog.jpg").write_bytes(b"x")
        assert woken(watcher)


def test_folders_that_are_moved_about_do_not_prevent_the_end(inbox: Path) -> None:
    """A watch ends without an exception after a folder was moved out, made anew and moved over another one."""
    watcher = Watcher(inbox)
    watcher.tend(0.0)
    first, second = inbox / "first", inbox / "second"
    for folder in (first, second):
        folder.mkdir()
        assert woken(watcher)
    first.rename(inbox.parent / "out")
    first.mkdir()
    assert woken(watcher)
    first.rename(second)
    assert woken(watcher)
    watcher.close()


def test_a_watch_that_cannot_be_ended_is_replaced(inbox: Path) -> None:
    """If watchdog raises at the end of a watch, `tend` begins a new one, and `close` does not raise."""

    class Confused(InotifyObserver):
        def on_thread_stop(self) -> None:
            super().on_thread_stop()
            raise KeyError(b"inbox/first")

    with Watcher(inbox, make_observer=Confused) as watcher:
        watcher.tend(0.0)
        inbox.rename(inbox.with_suffix(".old"))
        inbox.mkdir()
        watcher.tend(LATER)
        assert watcher.problem == ""
        watcher.clear()
        (inbox / "dog.jpg").write_bytes(b"x")
        assert woken(watcher)


def test_network_file_systems_are_not_trusted(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On a network file system no observer is made, the reason names its type, and the log has it once."""
    made = Made()
    mounts = f"server:/x {inbox} nfs4 rw 0 0\n"
    with Watcher(inbox, mounts=mounts, make_observer=made) as watcher:
        watcher.tend(0.0)
        watcher.tend(LATER)
        assert watcher.problem == f"{inbox} is on nfs4, which does not report all changes"
    assert (made, len(caplog.records)) == ([], 1)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "inotify watch limit reached"),
        RuntimeError("can't start new thread"),
        KeyError("inbox/first"),
    ],
)
def test_limits_of_the_kernel_are_a_problem_and_no_exception(inbox: Path, error: Exception) -> None:
    """If the kernel has no watches or threads left, `tend` does not raise, and `problem` has the reason."""

    class Refusing(InotifyObserver):
        def start(self) -> None:
            raise error

    with Watcher(inbox, make_observer=Refusing) as watcher:
        watcher.tend(0.0)
        assert str(error) in watcher.problem


def test_an_event_during_the_end_is_not_logged(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread of watchdog that finds itself stopped logs no error."""
    made = Made()
    watcher = Watcher(inbox, make_observer=made)
    watcher.tend(0.0)
    (emitter,) = made[0].emitters
    watcher.close()
    emitter.queue_events(0.0)
    assert caplog.records == []


def test_a_thousand_wake_ups_are_one(watcher: Watcher) -> None:
    """However often it is woken, even beyond what a pipe holds, one `clear` forgets all."""
    for _ in range(100_000):
        watcher.wake()
    assert watcher.clear()
    assert not watcher.clear()
