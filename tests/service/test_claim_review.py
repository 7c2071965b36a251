"""Originals stay in the inbox until the check of their copies is there: a fake check, the real ledger and folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nst_daemon.jobs import JobState
from nst_daemon.service.claim_review import ROUNDS_AHEAD
from nst_daemon.service.state import Moment, Pacing
from nst_daemon.workers.messages import Checked
from tests.bench import PNG, Bench

DAMAGED = Checked("", "dog.content.png is damaged or truncated; copy it again", incomplete=True)
TOO_LARGE = Checked("", "dog.content.png has too many pixels")
WHOLE = Checked("")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A supervisor whose check does not answer for `dog` yet."""
    made = Bench(tmp_path)
    made.check.answers["dog"] = None
    return made


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_originals_stay_until_the_answer(bench: Bench) -> None:
    """While the check goes on, the files stay, are not claimed again, and the root is not drained."""
    bench.drop()
    bench.step(5, times=10)
    assert bench.job().state is JobState.CLAIMED
    assert names(bench.folders.inbox) == ["dog.content.png", "dog.style.png"]
    assert not bench.supervisor.drained
    bench.check.answers["dog"] = WHOLE
    bench.step()
    assert bench.job().state is JobState.RUNNING
    assert names(bench.folders.inbox) == []


def test_bad_picture_fails_before_the_queue(bench: Bench) -> None:
    """A picture that cannot be decoded fails with that reason, its files move to failed/, and no worker sees it."""
    bench.drop()
    inode = (bench.folders.inbox / "dog.content.png").stat().st_ino
    bench.check.answers["dog"] = TOO_LARGE
    bench.step(times=2)
    assert bench.job().state is JobState.FAILED
    assert bench.error() == TOO_LARGE.reason
    assert (bench.folders.failed / "dog" / "dog.content.png").stat().st_ino == inode
    assert (names(bench.folders.inbox), names(bench.folders.spool)) == ([], [])
    assert bench.executor.tasks == []


@pytest.mark.parametrize("answer", [DAMAGED, TOO_LARGE, WHOLE])
def test_changed_original_is_claimed_anew(bench: Bench, answer: Checked) -> None:
    """When an original has changed since it was copied, the copy is dropped, and the new version is the only job."""
    bench.drop()
    first = bench.job().id
    with (bench.folders.inbox / "dog.content.png").open("ab") as file:
        file.write(b"the rest")
    bench.check.answers["dog"] = answer
    bench.step()
    assert (bench.ledger.jobs(), names(bench.folders.spool)) == ([], [])
    bench.check.answers["dog"] = WHOLE
    bench.step(1.5, times=4)
    assert bench.job().id != first
    (task,) = bench.executor.tasks
    assert (task.spool / "dog.content.png").read_bytes() == PNG + b"the rest"
    assert names(bench.folders.inbox) == []


def test_copy_counts_where_an_original_is_gone(bench: Bench) -> None:
    """The copies are not dropped where they are the last of a file: the job goes on with them."""
    bench.drop()
    with (bench.folders.inbox / "dog.content.png").open("ab") as file:
        file.write(b"the rest")
    (bench.folders.inbox / "dog.style.png").unlink()
    bench.check.answers["dog"] = WHOLE
    bench.step()
    (task,) = bench.executor.tasks
    assert (task.spool / "dog.content.png").read_bytes() == PNG
    assert names(bench.folders.inbox) == ["dog.content.png"]


def test_damaged_picture_has_time_to_arrive(bench: Bench) -> None:
    """A damaged file that has just changed waits for `truncated_grace`; a job that waits blocks no other."""
    bench.drop()
    bench.check.answers["dog"] = DAMAGED
    changed = (bench.folders.inbox / "dog.style.png").stat().st_ctime
    grace = bench.config.service.truncated_grace
    for seconds, state in ((3.0, JobState.CLAIMED), (grace + 1, JobState.FAILED)):
        now = Moment(changed + seconds, bench.time + seconds)
        bench.supervisor.step(now)
        assert bench.job().state is state
        waits = any("damaged" in drop.text for drop in bench.supervisor.live(now).inbox.waiting)
        assert waits is (state is JobState.CLAIMED)
    bench.time += grace + 1
    bench.drop("cat")
    assert [task.name for task in bench.executor.tasks] == ["cat"]


def test_damaged_picture_fails_at_once_in_once(tmp_path: Path) -> None:
    """`once` does not wait for the rest of a damaged file."""
    bench = Bench(tmp_path)
    bench.drain = True
    bench.begin()
    bench.check.answers["dog"] = None
    bench.drop()
    bench.check.answers["dog"] = DAMAGED
    changed = (bench.folders.inbox / "dog.style.png").stat().st_ctime
    bench.supervisor.step(Moment(changed + 3.0, bench.time))
    assert bench.job().state is JobState.FAILED


def test_incomplete_picture_waits_for_its_writer(bench: Bench) -> None:
    """While a program has an incomplete picture open, the job waits however long that takes, and takes the whole."""
    bench.check.answers["dog"] = DAMAGED
    with (bench.folders.inbox / "dog.content.png").open("wb", buffering=0) as file:
        bench.drop()
        bench.step(3600, times=4)
        assert bench.job().state is JobState.CLAIMED
        file.seek(0, os.SEEK_END)
        file.write(b"the rest")
    bench.step()
    bench.check.answers["dog"] = WHOLE
    bench.step(1.5, times=4)
    (task,) = bench.executor.tasks
    assert (task.spool / "dog.content.png").read_bytes() == PNG + b"the rest"
    assert names(bench.folders.failed) == []


def test_incomplete_picture_fails_when_its_writer_gives_up(bench: Bench) -> None:
    """An incomplete picture that its writer closes without a change fails."""
    bench.check.answers["dog"] = DAMAGED
    with (bench.folders.inbox / "dog.content.png").open("wb"):
        bench.drop()
        bench.step(3600, times=4)
        assert bench.job().state is JobState.CLAIMED
    bench.step(3600, times=2)
    assert bench.job().state is JobState.FAILED


def test_rest_of_a_failed_picture_reaches_failed(bench: Bench) -> None:
    """What a program still writes to the original of a failed job arrives in failed/, and `retry` takes the whole."""
    bench.drop()
    with (bench.folders.inbox / "dog.content.png").open("ab", buffering=0) as file:
        bench.step(3600, times=2)
        bench.check.answers["dog"] = TOO_LARGE
        bench.step(times=2)
        assert bench.job().state is JobState.FAILED
        file.write(b"the rest")
    bench.step(1.5, times=4)
    bench.ledger.request(bench.job().id, "retry", now=bench.now.wall)
    bench.step(1.5, times=8)
    (task,) = bench.executor.tasks
    assert (task.spool / "dog.content.png").read_bytes() == PNG + b"the rest"


def test_undecided_picture_joins_the_queue(bench: Bench) -> None:
    """Where the check could not be made, the worker decides."""
    bench.drop()
    bench.check.answers["dog"] = Checked("", undecided="the process ended")
    bench.step()
    assert bench.job().state is JobState.RUNNING


def test_cancel_waits_for_the_check(bench: Bench) -> None:
    """A request to cancel a job that is being checked is kept until the check has ended."""
    bench.drop()
    bench.ledger.request(bench.job().id, "cancel", now=bench.now.wall)
    bench.step(2)
    assert bench.job().state is JobState.CLAIMED
    bench.executor.room = 0
    bench.check.answers["dog"] = WHOLE
    bench.step(2, times=2)
    assert bench.job().state is JobState.CANCELLED


def test_check_is_repeated_after_a_restart(bench: Bench) -> None:
    """A daemon that ends during a check asks again at its next start, and the check is ended with it."""
    bench.drop()
    job_id = bench.job().id
    bench.supervisor.stop(bench.now)
    assert bench.check.stopped
    bench.begin()
    bench.step(1)
    assert bench.check.asked == {"dog"}
    assert (bench.job().id, bench.job().state) == (job_id, JobState.RUNNING)


def test_copy_that_was_dropped_before_a_crash_is_no_job(bench: Bench) -> None:
    """A crash between dropping the copy and its row leads to the same end: the new version is claimed."""
    bench.drop()
    with (bench.folders.inbox / "dog.content.png").open("ab") as file:
        file.write(b"the rest")
    for path in (bench.folders.spool / bench.job().id).iterdir():
        path.unlink()
    bench.begin()
    bench.check.answers["dog"] = TOO_LARGE  # "cannot be read" in truth
    bench.step(1)
    assert bench.ledger.jobs() == []
    del bench.check.answers["dog"]
    bench.step(1.5, times=4)
    assert bench.job().state is JobState.RUNNING


def test_claims_wait_for_a_slow_check(tmp_path: Path) -> None:
    """Only some drops are claimed ahead of the check, and the loop sleeps meanwhile instead of asking again at once."""
    bench = Bench(tmp_path, Pacing(claims_a_round=2))
    for name in (drops := [f"d{i}" for i in range(20)]):
        for role in ("content", "style"):
            (bench.folders.inbox / f"{name}.{role}.png").write_bytes(PNG + name.encode())
    bench.check.answers = dict.fromkeys(drops)
    bench.step(1.5, times=4)
    bench.step(times=20)
    assert bench.ledger.counts()[JobState.CLAIMED] == 2 * ROUNDS_AHEAD
    assert bench.supervisor.due(bench.now) > 0
    bench.check.answers = {}
    bench.step(times=20)
    assert len(bench.ledger.jobs()) == 20


def test_pictures_from_elsewhere_are_not_delayed(bench: Bench) -> None:
    """A retry, whose files are not in the inbox, joins the queue without a check."""
    bench.check.answers["dog"] = TOO_LARGE
    bench.drop()
    bench.step(1.5, times=2)
    assert bench.job().state is JobState.FAILED
    bench.check.asked.clear()
    bench.ledger.request(bench.job().id, "retry", now=bench.now.wall)
    bench.step(1.5, times=8)
    assert bench.job().state is JobState.RUNNING
    assert bench.check.asked == set()
