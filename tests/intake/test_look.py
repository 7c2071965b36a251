"""A look in steps, between which anything may happen in the inbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from nst_daemon import files
from nst_daemon.errors import StorageError
from nst_daemon.intake.scan import Intake, Scan
from nst_daemon.intake.steps import Steps, finish
from nst_daemon.jobs import Fingerprint
from tests.intake.conftest import MAX_BYTES, PNG

DROPS = ("dog.content.png", "dog.style.png", "cat.content.png", "cat.style.png", "notes.txt")
STEPS = 90
DESCRIPTORS = Path("/proc/self/fd")


class Inbox:
    """An inbox, what looks at it, and a clock."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "inbox"
        for folder in (self.folder, root / "styles"):
            folder.mkdir(parents=True)
        self.now, self.wall = 1000.0, root.stat().st_ctime + 1
        self.intake = Intake(
            self.folder,
            root / "styles",
            settle_seconds=2.0,
            truncated_grace=60.0,
            pair_timeout=3600.0,
            rescan_seconds=5.0,
            max_bytes=MAX_BYTES,
        )

    def drop(self, *paths: str) -> None:
        """Write pictures."""
        for path in paths:
            (self.folder / path).parent.mkdir(exist_ok=True)
            (self.folder / path).write_bytes(PNG)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.wall += seconds

    def look(self) -> Steps[Scan]:
        """A look that has not begun."""
        return self.intake.look(lambda: (self.now, self.wall))

    def scan(self, later: float = 0.0) -> Scan:
        """A whole look, after so many seconds."""
        self.wait(later)
        return finish(self.look())

    def settled(self) -> Scan:
        """Two looks, between which everything settles."""
        self.scan()
        return self.scan(3.0)


def interrupted(inbox: Inbox, step: int, act: Callable[[], object]) -> Scan:
    """Do a look, and do something else before one of its steps, or after the last."""
    look = inbox.look()
    done = 0
    while True:
        if done == step:
            act()
        try:
            next(look)
        except StopIteration as end:
            assert isinstance(end.value, Scan)
            if done < step:
                act()
            return end.value
        done += 1


def marks(inbox: Inbox) -> dict[str, Fingerprint]:
    """The files of the inbox and their versions."""
    return {path.name: files.fingerprint(path.lstat()) for path in inbox.folder.iterdir()}


def ready(root: Path) -> Inbox:
    """An inbox with two pairs, which are asked for at the next look."""
    inbox = Inbox(root)
    inbox.drop(*DROPS)
    inbox.scan()
    inbox.wait(3.0)
    return inbox


def places(root: Path) -> Iterator[tuple[Inbox, int]]:
    """A new inbox for every third step of a look."""
    for step in range(0, STEPS, 3):
        yield ready(root / str(step)), step


def test_a_look_has_as_many_steps_as_are_interrupted_here(tmp_path: Path) -> None:
    """The other tests of this file interrupt a look from its first step to its end."""
    inbox = ready(tmp_path)
    taken = len(list(inbox.look()))
    assert STEPS / 2 < taken < STEPS


def test_a_file_that_disappears_costs_its_pair_only(tmp_path: Path) -> None:
    """Whenever a file is removed during a look, the other pair is asked for, and half a pair never becomes a job."""
    for inbox, step in places(tmp_path):
        scan = interrupted(inbox, step, (inbox.folder / "dog.style.png").unlink)
        assert "cat" in {request.name for request in scan.requests}
        assert not scan.rejections
        assert {request.name for request in inbox.settled().requests} == {"cat"}


def test_a_file_that_is_replaced_is_asked_for_as_it_was_seen(tmp_path: Path) -> None:
    """Whenever a file is replaced during a look, a request has the old version, which cannot be claimed, or none."""
    for inbox, step in places(tmp_path):
        before = marks(inbox)

        def replace(inbox: Inbox = inbox) -> None:
            (inbox.folder / "new").write_bytes(PNG + b"new")
            os.replace(inbox.folder / "new", inbox.folder / "dog.style.png")  # noqa: PTH105

        scan = interrupted(inbox, step, replace)
        asked = {drop.path: drop.fingerprint for r in scan.requests for drop in r.files}
        assert asked.keys() >= {"cat.content.png", "cat.style.png"}
        assert all(before[path] == mark for path, mark in asked.items())
        asked = {drop.path: drop.fingerprint for r in inbox.settled().requests for drop in r.files}
        assert asked == {path: mark for path, mark in marks(inbox).items() if path in asked}
        assert len(asked) == 4


def test_a_pair_that_comes_during_a_look_settles_after_it(tmp_path: Path) -> None:
    """Whenever a pair arrives during a look, that look does not ask for it, and a later one does."""
    for inbox, step in places(tmp_path):
        scan = interrupted(inbox, step, partial(inbox.drop, "fox.content.png", "fox.style.png"))
        assert {request.name for request in scan.requests} == {"cat", "dog"}
        inbox.scan()
        assert "fox" in {request.name for request in inbox.scan(3).requests}


def test_a_file_has_its_own_time_in_a_long_look(tmp_path: Path) -> None:
    """A file that is seen late in a look is quiet from then on, and not from the beginning of the look."""
    inbox = Inbox(tmp_path)
    for number in range(20):
        inbox.drop(f"{number}/content.png", f"{number}/style.png")
    look = inbox.look()
    tracks = inbox.intake._settler._tracks
    for _ in look:
        if len(tracks) < 61:  # with the folders
            inbox.wait(0.1)  # settle_seconds are 2
    asked = {request.name for request in inbox.scan(0).requests}
    assert 0 < len(asked) < 20
    assert len(inbox.scan(2).requests) == 20


def test_a_look_that_is_given_up_leaves_nothing_open(tmp_path: Path) -> None:
    """After each step the look can be given up: no descriptor stays open, and the next look sees everything."""
    for inbox, step in places(tmp_path):
        before = len(list(DESCRIPTORS.iterdir()))
        look = inbox.look()
        for _, _ in zip(range(step), look, strict=False):
            pass
        look.close()
        assert len(list(DESCRIPTORS.iterdir())) == before
        assert {request.name for request in inbox.settled().requests} == {"cat", "dog"}


def test_a_look_ends_with_an_error_where_the_inbox_is_gone(tmp_path: Path) -> None:
    """Without the inbox the first step raises, as the whole scan does."""
    inbox = Inbox(tmp_path)
    inbox.folder.rmdir()
    with pytest.raises(StorageError):
        next(inbox.look())
