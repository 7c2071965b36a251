"""The real daemon is killed before removals of files while it deletes the files of jobs, and started again."""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from tests.torture.disks import TORTURE
from tests.torture.root import Root
from tests.torture.victim import SOME_FAILED

S = JobState
#: How many removals are tried except in `make torture`.
PART = 6


def deletions_requested(folder: Path) -> Root:
    """A root with three jobs that have ended, of which two are to be deleted."""
    root = Root(folder)
    root.pair("cat")
    root.pair("dog")
    root.pair("bad", S.FAILED, do="raise", at=2)
    assert root.run() == SOME_FAILED, root.text()
    with Ledger.attach(root.ledger_path) as ledger:
        for name in ("dog", "bad"):
            (job,) = ledger.find(name)
            ledger.request(job.id, "delete", now=1.0)
    return root


def check(root: Root) -> None:
    """Nothing of the deleted jobs is left but their rows, and the other job has everything."""
    with Ledger.attach(root.ledger_path) as ledger:
        assert ledger.pending_requests() == []
        jobs = {job.name: job for job in ledger.jobs()}
        notes = [event.note for event in ledger.events(jobs["dog"].id)]
    assert {name: (job.state, job.deleted) for name, job in jobs.items()} == {
        "cat": (S.DONE, False),
        "dog": (S.DONE, True),
        "bad": (S.FAILED, True),
    }
    assert notes.count("deleted by request") == 1
    assert root.pictures().keys() == {"cat"}
    left = {
        str(path.relative_to(root.path))
        for folder in ("results", "done", "failed", "state/spool", "state/stage")
        for path in (root.path / folder).rglob("*")
        if not path.is_dir() and ".preview" not in path.parts
    }
    assert left == {
        "results/cat.png",
        "results/cat.json",
        "done/cat/.job.json",
        "done/cat/cat.content.png",
        "done/cat/cat.style.png",
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_anywhere_a_deletion_is_finished_by_the_next_start(tmp_path: Path) -> None:
    """Killed before any removal and started again, the daemon has removed all files of the jobs and no other.

    Except in `make torture`, a part of the removals is tried, another one each time.
    """
    beginning = deletions_requested(tmp_path / "beginning")
    undisturbed, record = beginning.copy(tmp_path / "undisturbed"), tmp_path / "points"
    assert undisturbed.run(record=record) == 0, undisturbed.text()
    check(undisturbed)
    points = record.read_text().splitlines()
    removals = [n for n, name in enumerate(points, 1) if name.startswith(("os.remove", "os.rmdir"))]
    assert len(removals) >= 10
    if TORTURE not in os.environ:
        removals = random.sample(removals, PART)

    def kill_at(number: int) -> bool:
        root = beginning.copy(tmp_path / str(number))
        died = root.run(die_at=number) == -signal.SIGKILL
        assert root.run() == 0, root.text()[-3000:]
        check(root)
        return died

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        assert sum(pool.map(kill_at, removals)) >= 0.8 * len(removals)
