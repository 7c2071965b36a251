"""What ends one drop or one job, what pauses the queue, and what does neither."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from nst_daemon.errors import DamagedLedger, PathError, Retry, StorageError
from nst_daemon.files import storage_error
from nst_daemon.intake.claim import remove_originals
from nst_daemon.jobs import JobState
from nst_daemon.names import PORTABLE_BYTES, portable, spellings
from nst_daemon.publishing import move_folder, publish
from nst_daemon.service.containment import contained
from nst_daemon.service.state import Moment, Pacing
from nst_daemon.workers.messages import Died, Event, Failed, Progress, Ready, Staged, Started, Task
from tests.bench import PNG, Bench, FakeExecutor

S = JobState


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A supervisor on an empty root."""
    return Bench(tmp_path)


def pauses(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says about the beginning and the end of pauses."""
    said = [record.getMessage() for record in caplog.records]
    return [line for line in said if line.startswith(("paused", "resumed"))]


# One drop, one job


class Fragile(FakeExecutor):
    """Raises for jobs of some names."""

    def submit(self, task: Task) -> None:
        """Fail for one job."""
        if task.name == "bad":
            raise RuntimeError("no idea how to paint this")
        super().submit(task)


def test_an_exception_while_a_job_is_handed_out_ends_only_that_job(tmp_path: Path) -> None:
    """A job that makes the executor raise is failed with the exception's words, and the next one is handed out."""
    bench = Bench(tmp_path, executor=Fragile())
    for name in ("bad", "good"):
        bench.drop(name)
    bench.step(1)
    assert [task.name for task in bench.executor.tasks] == ["good"]
    assert "no idea how to paint this" in bench.error("bad")
    assert bench.supervisor.pause is None


def test_an_event_that_cannot_be_answered_ends_only_its_job(bench: Bench) -> None:
    """An answer with impossible values fails its job with the reason, and the daemon answers the next event."""
    bench.drop("bad")
    bench.drop("good")
    bad, good = bench.executor.tasks
    no_names: Any = (object(),)
    bench.executor.tasks.clear()
    bench.executor.events.append(Progress("fake", bad.job_id, 1, "many", 0.5, 0))  # type: ignore[arg-type]
    bench.executor.events.append(Staged("fake", bad.job_id, no_names, "digest"))
    bench.executor.events.append(Failed("fake", good.job_id, Retry.NEVER, "an honest reason"))
    bench.step(1, times=2)
    assert bench.error("good") == "an honest reason"
    job = bench.ledger.get(bad.job_id)
    assert job is not None
    assert job.state is S.FAILED
    assert "unexpected error" in job.error


def test_a_damaged_card_in_the_spool_does_not_stop_the_start(bench: Bench) -> None:
    """A start with spool folders whose card holds anything at all goes on, and leaves no such folder."""
    for number, text in enumerate(
        ("[]", "1", '{"inputs": [[]]}', '"', "{}" * 9, '{"inputs": {"a": 1}}')
    ):
        folder = bench.folders.spool / f"{number:032x}"
        folder.mkdir()
        (folder / ".job.json").write_text(text)
    bench.begin()
    bench.step(1)
    assert bench.supervisor.pause is None
    assert list(bench.folders.spool.iterdir()) == []


def test_what_concerns_all_is_not_blamed_on_one_job() -> None:
    """A disk error and a damaged ledger leave `contained`; a path error and any other exception go to `fail`."""
    blamed: list[str] = []

    def work(error: Exception) -> None:
        with contained("dog", lambda reason, _: blamed.append(reason)):
            raise error

    for general in (StorageError("the disk is full"), DamagedLedger("damaged")):
        with pytest.raises(type(general)):
            work(general)
    work(PathError("the name is refused"))
    work(KeyError("colour"))
    assert blamed[0] == "the name is refused"
    assert "KeyError" in blamed[1]
    assert len(blamed) == 2


def test_a_fault_of_the_failure_itself_is_contained() -> None:
    """Where even `fail` raises, nothing leaves `contained` but what concerns all jobs."""

    def fail(reason: str, detail: str) -> None:
        raise ValueError(detail)

    with contained("dog", fail):
        raise RuntimeError("first")
    with (
        pytest.raises(StorageError, match="full"),
        contained("dog", lambda *_: _raise(StorageError("full"))),
    ):
        raise RuntimeError("first")


def _raise(error: Exception) -> None:
    raise error


def test_a_drop_that_cannot_be_read_now_stays_and_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file whose disk reports an error stays in the inbox, is said once, and is painted once it can be read."""
    real, broken = os.read, [True]

    def read(descriptor: int, length: int) -> bytes:
        name = os.path.realpath(f"/proc/self/fd/{descriptor}")
        if broken[0] and name.endswith("inbox/bad.content.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, length)

    monkeypatch.setattr("nst_daemon.intake.claim.os.read", read)
    bench.drop("bad")
    bench.drop("good")
    bench.step(31, times=3)
    assert [task.name for task in bench.executor.tasks] == ["good"]
    assert (bench.folders.inbox / "bad.content.png").exists()
    (bad,) = bench.supervisor.live(bench.now).inbox.waiting
    assert bad.name == "bad" and "Input/output error" in bad.text
    assert sum("bad stays in the inbox" in r.getMessage() for r in caplog.records) == 1
    assert bench.supervisor.pause is None
    broken[0] = False
    bench.step(31, times=2)
    assert [task.name for task in bench.executor.tasks] == ["good", "bad"]
    assert bench.supervisor.live(bench.now).inbox.waiting == []


# Names


def test_a_result_whose_folder_is_a_file_is_published_beside_it(bench: Bench) -> None:
    """With a file named like the folder of a result, the picture gets a flat name, and no other job waits."""
    (bench.folders.results / "trip").write_bytes(b"a person's file")
    (bench.folders.inbox / "trip").mkdir()
    for role in ("content", "style"):
        (bench.folders.inbox / "trip" / f"dog.{role}.png").write_bytes(PNG)
    bench.step(1.5, times=4)
    bench.executor.paint()
    bench.step(1)
    assert bench.job().state is S.DONE
    assert bench.job().result == "trip_dog.png"
    assert (bench.folders.results / "trip").read_bytes() == b"a person's file"


def refusing(monkeypatch: pytest.MonkeyPatch, refused: str, number: int) -> None:
    """Let `link` and `rename` refuse targets with some text in their names, as other file systems do."""

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(source: Any, target: Any, *args: Any, **options: Any) -> Any:
            if refused in Path(target).name:
                raise OSError(number, os.strerror(number), str(target))
            return real(source, target, *args, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("link", "rename", "replace"):
        wrap(name)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EILSEQ, errno.EPERM, errno.ENAMETOOLONG])
def test_a_refused_name_is_replaced_by_a_portable_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """On a file system that refuses "?", a result and an archive named "now?" are published as "now_"."""
    for folder in ("stage", "results", "spool"):
        (tmp_path / folder).mkdir()
    (tmp_path / "stage" / "picture.png").write_bytes(PNG)
    refusing(monkeypatch, "?", number)
    results = tmp_path / "results"
    assert publish(tmp_path / "stage", ["picture.png"], results, "now?") == results / "now_.png"
    assert move_folder(tmp_path / "spool", results, "now?") == results / "now_"


def test_a_picture_without_any_possible_name_is_kept_with_its_inputs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every name in results/ is refused, the job fails, and failed/dog/result/ holds the finished picture."""
    bench.drop()
    refusing(monkeypatch, "dog.", errno.EINVAL)
    bench.executor.paint()
    bench.step(1, times=3)
    assert bench.job().state is S.FAILED
    kept = bench.folders.failed / "dog" / "result" / "picture.png"
    assert kept.read_bytes().startswith(PNG)
    assert "choose another name" in bench.error()
    assert bench.supervisor.pause is None
    monkeypatch.undo()
    bench.ledger.request(bench.job().id, "retry", now=bench.now.wall)
    bench.step(1, times=2)
    assert bench.job().state is S.RUNNING


def test_a_folder_that_cannot_be_synced_is_published_to_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a folder of results may be written and not opened, a picture is there once, and its inputs are in done/."""
    bench.drop()
    real = os.open
    unreadable = {str(bench.folders.results), str(bench.folders.done)}

    def open_(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if str(path) in unreadable and flags & os.O_DIRECTORY:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", open_)
    bench.executor.paint()
    bench.step(1)
    assert bench.job().state is S.DONE
    assert bench.job().archive == "dog"
    assert len(list(bench.folders.results.rglob("*.png"))) == 1


def test_an_original_that_can_be_moved_later_joins_its_archive(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused file that could not be moved joins its error.txt, also if the daemon ends in between."""
    real = os.rename

    def rename(source: Any, target: Any, **options: Any) -> None:
        if str(source) == "dog.yaml":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), source)
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    bench.drop(yaml=b"colour: red")
    assert (bench.folders.inbox / "dog.yaml").exists()
    assert "colour" in bench.error()
    monkeypatch.undo()
    job = bench.job()
    remove_originals(job, bench.folders.inbox, bench.folders.spool)  # and the daemon ends
    bench.begin()
    bench.step(1, times=2)
    assert bench.job().archive == "dog"
    names = {path.name for path in (bench.folders.failed / "dog").iterdir()}
    assert names >= {"dog.yaml", "dog.content.png", "dog.style.png", "error.txt"}
    assert list(bench.folders.spool.iterdir()) == []


def test_temporary_files_of_ended_jobs_are_removed_at_the_start(bench: Bench) -> None:
    """A start removes stage folders and checkpoints of jobs that have ended or are unknown, and keeps those in use."""
    bench.drop("old")
    bench.executor.paint()
    bench.step(1)
    bench.drop("dog")
    (old,) = bench.ledger.jobs(S.DONE)
    (dog,) = bench.ledger.jobs(S.RUNNING)
    for name in (old.id, dog.id, "0" * 32, ".dog.1234.part"):
        (bench.folders.checkpoints / name).write_bytes(b"a checkpoint")
    (bench.folders.stage / old.id).mkdir()
    bench.begin()
    assert [path.name for path in bench.folders.checkpoints.iterdir()] == [dog.id]
    assert not (bench.folders.stage / old.id).exists()


def test_portable_names_fit_everywhere() -> None:
    """No part of a portable name is longer than the limit, holds a reserved character, or ends in a dot or space."""
    for name in ('a:b*c?"d<e>f|g', "ends. ", "é" * 99, "folder?/x" + "y" * 200 + ".jpeg"):
        made = portable(name)
        assert made.count("/") == name.count("/")
        for part in made.split("/"):
            assert len(part.encode()) <= PORTABLE_BYTES
            assert not set(part) & set('\\:*?"<>|')
            assert not part.endswith((".", " "))
    assert portable("plain name.jpg") == "plain name.jpg"


def test_the_last_spelling_of_a_name_is_ascii() -> None:
    """A name that no other spelling helps is tried without accents, and without letters that ASCII does not have."""
    assert spellings("été/café? 犬") == [
        "été/café? 犬",
        "été/café_ 犬",
        "été_café_ 犬",
        "ete_cafe_ _",
    ]
    assert spellings("dog") == ["dog"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_disk_errors_pause(tmp_path: Path, number: int) -> None:
    """An error of the disk is a StorageError although the folder can be written."""
    error = storage_error(OSError(number, os.strerror(number)), tmp_path / "dog.png")
    assert type(error) is StorageError
    assert error.retry is Retry.PAUSED


def test_other_errors_are_of_the_file_unless_the_folder_cannot_be_used(tmp_path: Path) -> None:
    """EINVAL is a PathError in a folder that can be written, and a StorageError where the folder is missing."""
    odd = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    assert type(storage_error(odd, tmp_path / "dog.png")) is PathError
    assert type(storage_error(odd, tmp_path / "away" / "dog.png")) is StorageError
    assert list(tmp_path.iterdir()) == []


# Pauses


def test_a_pause_is_said_once_at_each_end(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """While results/ is missing the log has one line; status, headline and metrics have the reason and the time."""
    caplog.set_level(logging.INFO)
    bench.drop()
    bench.folders.results.rename(bench.folders.root / "away")
    bench.executor.paint()
    began = bench.now.wall
    bench.step(1, times=40)
    assert bench.supervisor.pause is not None
    assert began <= bench.supervisor.pause.since <= began + 1
    live = bench.supervisor.live(bench.now)
    assert live.state == "paused"
    assert live.paused_since == bench.supervisor.pause.since
    assert "results" in live.headline
    assert "since 20" in live.headline
    assert len(pauses(caplog)) == 1
    (bench.folders.root / "away").rename(bench.folders.results)
    bench.step(1, times=20)
    assert bench.job().state is S.DONE
    assert [line.split(":")[0] for line in pauses(caplog)] == ["paused", "resumed"]


def test_a_pause_lasts_until_the_same_work_succeeds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A picture that does not fit keeps the queue paused although other checks succeed, and nothing is said twice."""
    caplog.set_level(logging.INFO)
    bench.drop()
    bench.executor.paint()
    real, full, tries = os.link, [True], []

    def link(source: Path, target: Path) -> None:
        tries.append(bench.time)
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    bench.step(1, times=60)
    assert bench.job().state is S.STAGED
    assert len(pauses(caplog)) == 1
    assert len(tries) < 10  # a large file is not written again each second
    full[0] = False
    bench.step(1, times=17)
    assert bench.job().state is S.DONE
    assert len(pauses(caplog)) == 2


def test_a_disk_error_of_a_worker_is_tried_with_the_same_job(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """After a worker's disk error only that job is handed out, with longer and longer pauses, until it is staged."""
    caplog.set_level(logging.INFO)
    bench.executor.room = 1
    bench.drop("first")
    bench.drop("second")

    def fail() -> None:
        bench.executor.answer(
            lambda task: Failed("fake", task.job_id, Retry.PAUSED, "the stage is full")
        )

    fail()
    bench.step(1)
    assert bench.supervisor.paused == "the stage is full"
    assert bench.executor.tasks == []
    bench.step(1, times=32)
    assert [task.name for task in bench.executor.tasks] == ["first"]
    assert bench.supervisor.paused == "the stage is full"
    fail()
    bench.step(1, times=20)
    assert bench.executor.tasks == []
    bench.step(1, times=40)
    assert [task.name for task in bench.executor.tasks] == ["first"]
    assert bench.ledger.jobs(S.RUNNING)[0].attempts == 1
    bench.executor.paint()
    bench.step(1, times=20)
    assert [task.name for task in bench.executor.tasks] == ["second"]
    assert [line.split(":")[0] for line in pauses(caplog)] == ["paused", "resumed"]


def test_a_worker_that_cannot_load_because_of_the_disk_pauses_the_queue(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """However often a worker fails to load because of the disk, the log says it once, until the worker is ready."""
    caplog.set_level(logging.INFO)
    bench.step(1)
    for _ in range(8):
        bench.executor.events.append(Died("fake", None, "could not start: no space", disk=True))
        bench.step(1, times=20)
        assert bench.supervisor.paused == "worker fake could not start: no space"
    bench.drop()
    assert bench.executor.tasks == []
    bench.executor.events.append(Ready("fake", {}))
    bench.step(1, times=20)
    assert [task.name for task in bench.executor.tasks] == ["dog"]
    assert [line.split(":")[0] for line in pauses(caplog)] == ["paused", "resumed"]
    assert not [line for line in caplog.messages if "no space" in line][1:]


def test_a_disk_error_of_a_worker_is_tried_every_minute(bench: Bench) -> None:
    """After many attempts that met a full disk, the next one follows within a minute."""
    bench.drop()
    for _ in range(8):
        bench.executor.answer(
            lambda task: Failed("fake", task.job_id, Retry.PAUSED, "the stage is full")
        )
        bench.step(1, times=80)
        assert len(bench.executor.tasks) == 1


def test_a_cancelled_job_does_not_block_the_queue(bench: Bench) -> None:
    """Cancelling the job that met a disk error lets the others go on."""
    bench.executor.room = 1
    bench.drop("first")
    bench.drop("second")
    first = bench.executor.answer(
        lambda task: Failed("fake", task.job_id, Retry.PAUSED, "the stage is full")
    )
    bench.step(1)
    bench.ledger.request(first.job_id, "cancel", now=bench.now.wall)
    bench.step(1, times=20)
    assert [task.name for task in bench.executor.tasks] == ["second"]
    assert bench.supervisor.pause is None


class Broken(FakeExecutor):
    """Cannot be polled for some time."""

    broken = True

    def poll(self, now: float) -> list[Event]:
        """Raise while broken."""
        if self.broken:
            raise RuntimeError("the transport is in pieces")
        return super().poll(now)


def test_an_unexpected_error_of_the_service_pauses_and_never_ends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that belongs to no job pauses the queue, with its words and one traceback, until it is gone."""
    executor = Broken()
    bench = Bench(tmp_path, executor=executor)
    bench.step(1, times=5)
    assert "the transport is in pieces" in bench.supervisor.paused
    assert sum("Traceback" in record.getMessage() for record in caplog.records) == 1
    executor.broken = False
    bench.drop()
    assert bench.supervisor.pause is None
    assert len(executor.tasks) == 1


# Clocks and deaths


def test_retries_wait_by_the_monotonic_clock(bench: Bench) -> None:
    """A wall clock that jumps by a year either way neither shortens nor lengthens the pause of a retry."""
    for jump in (3e7, -3e7):
        name = f"jump{jump:g}"
        bench.drop(name)
        bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.LATER, "stumbled"))
        bench.step(1)
        for seconds, tasks in ((Pacing().back_off - 3, 0), (5, 1)):
            bench.time += seconds
            now = Moment(bench.now.wall + jump, bench.now.steady)
            bench.supervisor.step(now)
            bench.supervisor.step(now)
            assert len(bench.executor.tasks) == tasks
        bench.executor.paint()
        bench.step(1)


def test_a_start_waits_no_longer_than_any_retry(bench: Bench) -> None:
    """A job whose retry lies years ahead, because the clock was wrong, is tried after the longest pause at a start."""
    bench.drop()
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.LATER, "stumbled"))
    bench.step(1)
    bench.ledger.note(bench.job().id, now=bench.now.wall, not_before=bench.now.wall + 3e8)
    bench.begin()
    bench.step(Pacing().longest_back_off - 1)
    assert bench.job().state is S.RETRYING
    bench.step(2, times=2)
    assert bench.job().state is S.RUNNING


def test_an_attempt_with_a_checkpoint_does_not_count_when_the_daemon_ends(bench: Bench) -> None:
    """A job that wrote a checkpoint in each of many attempts that the daemon's end cut short is still painted."""
    bench.drop()
    for _ in range(12):
        path = bench.folders.checkpoints / bench.job().id
        path.write_bytes(b"progress")
        os.utime(path, (bench.now.wall + 1, bench.now.wall + 1))
        bench.time += 2
        bench.begin()
        bench.step(1)
        assert bench.job().state is S.RUNNING
        assert bench.job().attempts == 1


def test_an_attempt_without_progress_counts_when_the_daemon_ends(bench: Bench) -> None:
    """A job that stays at the same checkpoint whenever the daemon ends is put aside in the end."""
    bench.drop()
    path = bench.folders.checkpoints / bench.job().id
    path.write_bytes(b"progress")
    os.utime(path, (bench.now.wall - 60, bench.now.wall - 60))
    for _ in range(6):
        bench.time += 2
        bench.begin()
        bench.step(1)
    assert bench.job().state is S.QUARANTINED


def test_waiting_behind_another_job_does_not_count_when_the_daemon_ends(bench: Bench) -> None:
    """A job that its worker had not begun whenever the daemon ended is still painted, however often that was."""
    bench.drop("first")
    bench.drop("second")
    for _ in range(12):
        first = bench.executor.tasks[0].job_id
        begun = Started("fake", first)
        bench.executor.events = [event for event in bench.executor.events if event == begun]
        path = bench.folders.checkpoints / first
        path.write_bytes(b"progress")
        os.utime(path, (bench.now.wall + 1, bench.now.wall + 1))
        bench.time += 2
        bench.begin()
        bench.supervisor.step(bench.now)
        assert {job.state for job in bench.ledger.jobs()} == {S.RUNNING}


def test_a_job_that_was_begun_counts_although_it_waited_before(bench: Bench) -> None:
    """A job that waits behind another one is suspected as soon as its worker has begun with it."""
    bench.drop("first")
    bench.drop("second")
    for _ in range(6):
        bench.step(0)
        bench.begin()
        bench.step(1)
    assert {job.state for job in bench.ledger.jobs()} == {S.QUARANTINED}


def test_a_lasting_cause_gives_one_line_however_often_the_daemon_looks(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """While space is short, rounds between two looks at the disk neither end the pause nor hand anything out."""
    bench.change(limits={"min_free_disk": 1 << 60})
    bench.step(1)
    bench.drop()
    for _ in range(20):
        bench.step(0.25)
        assert bench.supervisor.due(bench.now) > 0
    assert bench.executor.tasks == []
    assert [line for line in caplog.messages if "paused: " in line or "resumed: " in line] == [
        line for line in caplog.messages if "paused: " in line
    ][:1]
    bench.change(limits={"min_free_disk": 0})
    bench.step(1)
    assert bench.supervisor.pause is None


def test_inputs_that_stayed_in_the_spool_are_archived_by_the_next_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture whose inputs cannot be moved to done/ is done all the same, and the next start moves them."""
    bench.drop()
    done = str(bench.folders.done)
    rename = os.rename

    def call(source: Any, target: Any, **options: Any) -> None:
        if str(target).startswith(done):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", call)
    bench.executor.paint()
    bench.step(1, times=2)
    assert (bench.job().state, bench.job().archive) == (S.DONE, "")
    assert len(list(bench.folders.spool.iterdir())) == 1
    monkeypatch.undo()
    bench.begin()
    bench.step(1)
    assert (bench.job().state, bench.job().archive) == (S.DONE, "dog")
    assert list(bench.folders.spool.iterdir()) == []
    assert (bench.folders.done / "dog" / "dog.content.png").is_file()


def test_temporary_files_that_stay_do_not_keep_a_job_from_ending(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose stage cannot be removed is done, with its inputs in done/ and the archive in the ledger."""
    bench.drop()
    bench.executor.paint()
    rmdir = os.rmdir

    def call(path: Any, **options: Any) -> None:
        if str(path).startswith(str(bench.folders.stage)):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", call)
    bench.step(1, times=2)
    assert (bench.job().state, bench.job().archive) == (S.DONE, "dog")
