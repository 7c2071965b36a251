"""A program that pauses in the middle of a picture for longer than the daemon waits; everything is real."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_daemon.errors import LedgerError, UsageError
from nst_daemon.jobs import JobState
from nst_daemon.ledger_reader import LedgerReader
from tests import corpus
from tests.e2e.conftest import Daemon


def states(root: Path) -> list[JobState]:
    """The states of all jobs; nothing before there is a ledger."""
    try:
        with LedgerReader.attach(root / "state" / "ledger.sqlite") as ledger:
            return [job.state for job in ledger.jobs()]
    except (LedgerError, UsageError):
        return []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_picture_that_is_completed_after_its_claim_is_painted_whole(daemon: Daemon) -> None:
    """A file that looks whole before its middle has arrived is claimed, but its original stays and is painted whole."""
    daemon.environment["NST_SERVICE__TRUNCATED_GRACE"] = "60"
    inbox = daemon.root / "inbox"
    inbox.mkdir()
    content = corpus.picture("PNG", seed=5)
    third = len(content) // 3
    daemon.start()
    (inbox / "dog.style.png").write_bytes(corpus.picture(seed=7))
    early = content[:third] + bytes(third) + content[2 * third :]
    (inbox / "dog.content.png").write_bytes(early)
    daemon.until(lambda: JobState.CLAIMED in states(daemon.root), "claim of the early version")
    with (inbox / "dog.content.png").open("r+b") as file:
        file.write(content)
    _expect_only(daemon, content)
    assert "its files changed after they were copied; the new version is copied" in daemon.text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_writer_that_pauses_beyond_all_limits_is_waited_for(daemon: Daemon) -> None:
    """Half a picture that a program keeps open is neither failed nor lost, however long the pause is."""
    inbox = daemon.root / "inbox"
    inbox.mkdir()
    content = corpus.picture("PNG", seed=5)
    daemon.start()
    (inbox / "dog.style.png").write_bytes(corpus.picture(seed=7))
    with (inbox / "dog.content.png").open("wb", buffering=0) as file:
        file.write(content[: len(content) // 2])
        daemon.until(lambda: "a program still has it open" in daemon.text(), "word about it")
        file.write(content[len(content) // 2 :])
    _expect_only(daemon, content)


def _expect_only(daemon: Daemon, content: bytes) -> None:
    """The picture is painted, nothing else has happened, and nothing is left."""
    daemon.until(lambda: states(daemon.root) == [JobState.DONE], "end of the only job")
    assert (daemon.root / "done" / "dog" / "dog.content.png").read_bytes() == content
    assert list((daemon.root / "inbox").iterdir()) == []
    assert not list((daemon.root / "failed").iterdir())
    assert daemon.end() == 0
