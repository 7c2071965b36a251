"""The daemon's loop with a fake executor behind the real seam, the real ledger and folders, and an injected clock."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from nst_daemon import config as configuration
from nst_daemon.errors import DeviceError, Retry, StorageError
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ledger_file import back_up
from nst_daemon.publishing import publish
from nst_daemon.service import housekeeping, ledger_copy
from nst_daemon.service.housekeeping import DAY
from nst_daemon.service.state import Moment, Pacing
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Failed,
    Progress,
    Ready,
    Staged,
    Stopped,
)
from tests.bench import PNG, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A supervisor that has just started."""
    return Bench(tmp_path)


def test_pair_becomes_result(bench: Bench) -> None:
    """A pair is queued, painted, published with its sidecar, and archived; nothing is left in between."""
    bench.drop()
    assert bench.job().state is JobState.RUNNING
    bench.executor.events.append(Progress("fake", bench.job().id, 5, 10, 0.5))
    bench.executor.paint()
    bench.step(1)
    assert bench.job().state is JobState.DONE
    assert bench.job().result == "dog.png"
    assert bench.job().id in (bench.folders.results / "dog.json").read_text()
    assert (bench.folders.done / "dog" / "dog.content.png").read_bytes() == PNG
    for folder in (bench.folders.inbox, bench.folders.spool, bench.folders.stage):
        assert list(folder.iterdir()) == []


def test_settings_are_merged_for_the_worker(tmp_path: Path) -> None:
    """The worker gets the configuration's settings with the sidecar's on top."""
    bench = Bench(tmp_path, render={"size": 100, "seed": 3})
    bench.drop(yaml=b"seed: 4")
    (task,) = bench.executor.tasks
    assert (task.settings.size, task.settings.seed) == (100, 4)


def test_bad_settings_fail_before_any_work(bench: Bench) -> None:
    """A sidecar with an unknown key fails at once, names the key, and reaches no worker."""
    bench.drop(yaml=b"colour: red")
    assert bench.executor.tasks == []
    assert bench.job().state is JobState.FAILED
    assert "dog.yaml: unknown setting 'colour'" in bench.error()
    assert (bench.folders.failed / "dog" / "dog.yaml").exists()


def test_permanent_error_fails_at_once(bench: Bench) -> None:
    """An error that would come again is not tried again, and its reason stands beside the inputs."""
    bench.drop()
    bench.executor.answer(
        lambda task: Failed(
            "fake", task.job_id, Retry.NEVER, "dog.content.png is truncated", "Traceback"
        )
    )
    bench.step(1)
    assert bench.job().state is JobState.FAILED
    assert bench.error() == "dog.content.png is truncated"
    assert "Traceback" in (bench.folders.failed / "dog" / "error.txt").read_text()


def test_transient_error_backs_off(bench: Bench) -> None:
    """A transient error is tried again only after its pause, longer each time, and at most max_attempts times."""

    def fail() -> None:
        bench.executor.answer(
            lambda task: Failed("fake", task.job_id, Retry.LATER, "the device stumbled")
        )
        bench.step(1)

    bench.drop()
    fail()
    assert bench.job().state is JobState.RETRYING
    bench.step(Pacing().back_off - 3)
    assert bench.executor.tasks == []
    bench.step(3, times=2)
    assert bench.executor.tasks[0].attempt == 2
    fail()
    bench.step(Pacing().back_off + 1, times=1)
    assert bench.executor.tasks == []
    bench.step(Pacing().back_off, times=2)
    fail()
    assert bench.job().state is JobState.FAILED
    assert bench.job().attempts == bench.config.service.max_attempts == 3


def test_out_of_memory_is_tried_alone(bench: Bench) -> None:
    """A job that memory was too short for is tried once more with nothing beside it, and has then failed."""
    bench.drop()
    for alone in (False, True):
        assert bench.executor.tasks[0].alone is alone
        bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.ALONE, "too large"))
        bench.step(1)
    assert bench.job().state is JobState.FAILED
    assert bench.error() == "too large"


def test_two_deaths_quarantine(bench: Bench) -> None:
    """A job whose worker died is tried once more, and after a second death it is put aside with what is known."""
    bench.drop()
    bench.executor.answer(
        lambda task: Died("fake", task.job_id, "was killed by signal 11", "stack")
    )
    bench.step(1)
    assert bench.job().state is JobState.RUNNING
    bench.executor.answer(
        lambda task: Died("fake", task.job_id, "was killed by signal 11", "stack")
    )
    bench.step(1)
    assert bench.job().state is JobState.QUARANTINED
    assert "signal 11" in bench.error()
    assert "stack" in (bench.folders.failed / "dog" / "error.txt").read_text()
    assert bench.supervisor.failures == 1


def test_stopping_is_no_failure(bench: Bench) -> None:
    """An attempt that is interrupted by the end of the daemon is not counted, and goes on after the next start."""
    bench.drop()
    bench.supervisor.stop(bench.now)
    assert (bench.job().state, bench.job().attempts) == (JobState.QUEUED, 0)
    bench.begin()
    bench.step(1)
    assert bench.executor.tasks[0].attempt == 1


def test_killed_daemon_goes_on(bench: Bench) -> None:
    """A job that ran when the daemon was killed runs again after the next start, and the attempt is counted."""
    bench.drop()
    bench.begin()
    bench.step(1)
    assert bench.executor.tasks[0].attempt == 2


def test_daemon_that_dies_again_and_again_lets_go(bench: Bench) -> None:
    """A job in whose attempts the daemon itself keeps dying is quarantined instead of being tried for ever."""
    bench.drop()
    for _ in range(10):
        bench.begin()
        bench.step(1)
    assert bench.job().state is JobState.QUARANTINED
    assert "nst-daemon retry" in bench.error()


def test_crash_between_publishing_and_the_ledger(bench: Bench) -> None:
    """A picture that was published before the ledger heard of it is recognised, and not published twice."""
    bench.drop()
    bench.executor.paint()
    staged = bench.executor.events[-1]
    assert isinstance(staged, Staged)
    changes = {"staged_files": staged.files, "staged_sha256": staged.sha256}
    job = bench.ledger.move(bench.job().id, JobState.STAGED, now=bench.now.wall, **changes)
    publish(bench.folders.stage / job.id, job.staged_files, bench.folders.results, job.name)
    bench.begin()
    bench.step(1)
    assert bench.job().state is JobState.DONE
    assert sorted(p.name for p in bench.folders.results.iterdir()) == ["dog.json", "dog.png"]


def test_crash_before_archiving_a_failure(bench: Bench) -> None:
    """The inputs of a job that failed right before a crash are in failed/ after the next start."""
    bench.drop()
    bench.ledger.move(bench.job().id, JobState.FAILED, now=bench.now.wall, error="it was bad")
    bench.begin()
    bench.step(1)
    assert bench.error() == "it was bad"


def test_cancel_and_retry_through_the_ledger(bench: Bench) -> None:
    """Another process can cancel a queued job and have a cancelled one tried again."""
    bench.executor.room = 0
    bench.drop()
    with Ledger.attach(bench.folders.ledger) as other:
        other.request(bench.job().id, "cancel", now=bench.now.wall)
    bench.step(2)
    assert bench.job().state is JobState.CANCELLED
    assert bench.error() == "cancelled by request"
    bench.executor.room = 1
    with Ledger.attach(bench.folders.ledger) as other:
        other.request(bench.job().id, "retry", now=bench.now.wall)
    bench.step(2)
    assert bench.job().state is JobState.RUNNING
    assert not (bench.folders.failed / "dog").exists()


def test_cancelling_what_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A running job is cancelled by its worker: its inputs are kept, and nothing treats it as a failure."""
    told, numbers = tmp_path / "told", tmp_path / "nst.prom"
    bench = Bench(
        tmp_path / "nst",
        hooks=configuration.Hooks(failed=["touch", str(told)]),
        metrics=configuration.Metrics(textfile=numbers),
    )
    bench.drop()
    (task,) = bench.executor.tasks
    left = (task.checkpoint, task.preview)
    for file in left:
        assert file is not None
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"left by the worker")
    bench.ledger.request(bench.job().id, "cancel", now=bench.now.wall)
    bench.step(2)
    assert bench.executor.cancelled == [bench.job().id]
    bench.executor.answer(lambda task: Stopped("fake", task.job_id, cancelled=True))
    bench.step(1)
    assert bench.job().state is JobState.CANCELLED
    assert (bench.folders.failed / "dog" / "dog.style.png").exists()
    assert not [file for file in left if file is not None and file.exists()]
    bench.supervisor.stop(bench.now)
    assert not told.exists()
    assert 'nst_jobs_ended_total{state="failed"} 0.0' in numbers.read_text()
    assert 'nst_jobs_ended_total{state="cancelled"} 1.0' in numbers.read_text()
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


def test_too_little_space_pauses(bench: Bench) -> None:
    """With less free space than asked for nothing is taken in, and the queue goes on by itself afterwards."""
    bench.change(limits={"min_free_disk": 2**62})
    bench.drop()
    assert "min_free_disk" in bench.supervisor.paused
    assert bench.ledger.jobs() == []
    bench.change()
    bench.step(2, times=4)
    assert bench.job().state is JobState.RUNNING


def test_what_makes_room_goes_on_without_space(tmp_path: Path) -> None:
    """While too little space pauses everything else, a job is cancelled on request and old inputs are removed."""
    bench = Bench(tmp_path, keep=configuration.Keep(done_days=10))
    bench.drop("old")
    bench.executor.paint()
    bench.step(1)
    bench.drop("dog")
    bench.change(limits={"min_free_disk": 2**62})
    (dog,) = bench.executor.tasks
    bench.ledger.request(dog.job_id, "cancel", now=bench.now.wall)
    bench.step(11 * DAY)
    assert "min_free_disk" in bench.supervisor.paused
    assert bench.executor.cancelled == [dog.job_id]
    assert not (bench.folders.done / "old").exists()


def test_vanished_results_pause_and_come_back(bench: Bench) -> None:
    """A picture that cannot be published because results/ has gone is published once it is back."""
    bench.drop()
    bench.folders.results.rename(bench.folders.root / "away")
    bench.executor.paint()
    bench.step(2, times=2)
    assert bench.job().state is JobState.STAGED
    assert "results" in bench.supervisor.paused
    (bench.folders.root / "away").rename(bench.folders.results)
    bench.step(2, times=2)
    assert bench.job().state is JobState.DONE


def test_stuck_original_is_not_taken_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair whose originals cannot be removed becomes one job, also after a restart."""
    monkeypatch.setattr(
        "nst_daemon.intake.claim.remove_originals", lambda *_: ["no right to remove it"]
    )
    bench.drop()
    bench.step(2, times=4)
    assert len(bench.ledger.jobs()) == 1
    bench.begin()
    bench.step(2, times=6)
    assert len(bench.ledger.jobs()) == 1


def test_answers_about_ended_jobs_change_nothing(bench: Bench) -> None:
    """A late answer about a job that has ended is ignored."""
    bench.drop()
    task = bench.executor.paint()
    bench.step(1)
    bench.executor.events.append(Failed("fake", task.job_id, Retry.NEVER, "too late"))
    bench.step(1)
    assert bench.job().state is JobState.DONE


def test_draining_starts_no_worker_without_work(tmp_path: Path) -> None:
    """`once` on an empty inbox starts no worker and has nothing left to do."""
    bench = Bench(tmp_path)
    bench.drain = True
    bench.begin()
    bench.step(1, times=3)
    assert not bench.executor.started
    assert bench.supervisor.drained
    assert not bench.supervisor.settling


def test_draining_ends_soon_after_the_last_drop_is_checked(tmp_path: Path) -> None:
    """`once` does not wait for the next rescan if the inbox was scanned while a drop was being checked."""
    bench = Bench(tmp_path)
    bench.drain = True
    bench.begin()
    bench.check.answers["dog"] = None
    bench.drop()
    bench.step(1, times=10)
    bench.check.answers.clear()
    bench.step(1)
    bench.executor.paint()
    bench.step(1, times=3)
    assert bench.job().state is JobState.DONE
    assert bench.supervisor.drained


def test_draining_leaves_lone_halves(tmp_path: Path) -> None:
    """`once` leaves half a pair in the inbox, however long it has waited, and counts no failure."""
    bench = Bench(tmp_path)
    bench.drain = True
    bench.begin()
    (bench.folders.inbox / "dog.content.png").write_bytes(PNG)
    bench.step(1e6, times=4)
    assert bench.supervisor.drained
    assert bench.ledger.jobs() == []
    assert (bench.folders.inbox / "dog.content.png").exists()


def test_giving_up_says_why(tmp_path: Path) -> None:
    """Where `once` cannot go on it ends with what has to be mended: the disk, or the device."""
    bench = Bench(tmp_path)
    bench.executor.events.append(DeviceLost("cuda:0", "the driver is gone", 0))
    bench.step(1)
    assert bench.supervisor.stuck
    with pytest.raises(DeviceError, match="the driver is gone"):
        bench.supervisor.give_up()
    bench.folders.results.rmdir()
    bench.step(2)
    with pytest.raises(StorageError, match="results"):
        bench.supervisor.give_up()


def test_reconfiguring_keeps_what_runs(bench: Bench) -> None:
    """A new configuration changes the settings of later jobs, and neither the running one nor the folders."""
    bench.drop("first")
    folders = dataclasses.replace(bench.folders, inbox=bench.folders.root / "elsewhere")
    bench.supervisor.reconfigure(
        dataclasses.replace(bench.config, render={"seed": 9}, folders=folders)
    )
    bench.drop("second")
    assert [task.settings.seed for task in bench.executor.tasks] == [0, 9]


def test_what_needs_a_restart_is_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What workers were started with stays as it is, and the log names each such key, within its section too."""
    service = dataclasses.replace(bench.config.service, checkpoint_seconds=7.0, settle_seconds=9.0)
    bench.supervisor.reconfigure(dataclasses.replace(bench.config, service=service, threads=4))
    now = bench.supervisor.config
    assert (now.threads, now.service.checkpoint_seconds, now.service.settle_seconds) == (
        bench.config.threads,
        bench.config.service.checkpoint_seconds,
        9.0,
    )
    for key in ("threads", "service.checkpoint_seconds"):
        assert f"{key} has changed; restart the daemon to apply the change" in caplog.text


def test_the_ledger_is_copied_each_day(bench: Bench) -> None:
    """After a day the copy beside the ledger knows a job that came after the start, and not before."""
    path = bench.ledger.path
    back_up(path)
    bench.drop()
    copy = path.with_name(f"{path.name}.backup")

    def known() -> int:
        with Ledger(copy) as found:
            return len(found.jobs())

    bench.step(DAY / 2)
    assert known() == 0
    bench.step(DAY)
    bench.supervisor.stop(bench.now)  # waits for the thread
    assert known() == 1


def test_a_copy_of_the_ledger_that_fails_pauses_the_queue_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the thread is the reason of a pause, and the next round goes on."""
    copying: list[Future[None]] = []

    def fail(path: Path) -> None:
        raise StorageError("the disk is full")

    def submit(pool: object, call: Callable[..., None], *arguments: object) -> Future[None]:
        copying.append(real(pool, call, *arguments))
        return copying[-1]

    real = ThreadPoolExecutor.submit
    monkeypatch.setattr(ledger_copy, "back_up", fail)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    bench.step(DAY)
    assert not bench.supervisor.paused
    wait(copying)
    bench.step(1.0)
    assert bench.supervisor.paused == "the disk is full"
    bench.step(1.0)
    assert not bench.supervisor.paused


def test_nothing_is_removed_by_default(bench: Bench) -> None:
    """However much time passes, the inputs and the history of a finished job stay."""
    bench.drop()
    bench.executor.paint()
    bench.step(1)
    bench.begin()
    bench.step(10 * 365 * DAY, times=2)
    assert bench.job().state is JobState.DONE
    assert (bench.folders.done / "dog" / "dog.content.png").exists()


def test_old_inputs_and_history_are_removed_by_rule(tmp_path: Path) -> None:
    """Inputs go after done_days and history after ledger_days, and not before; results stay."""
    bench = Bench(tmp_path, keep=configuration.Keep(done_days=10, ledger_days=20))
    bench.drop()
    bench.executor.paint()
    bench.step(1)
    mine = bench.folders.done / "dog" / "notes.txt"
    mine.write_text("put there by a person")
    bench.step(9 * DAY)
    assert (bench.folders.done / "dog" / "dog.content.png").exists()
    bench.step(2 * DAY)
    assert [p.name for p in (bench.folders.done / "dog").iterdir()] == ["notes.txt"]
    assert bench.job().state is JobState.DONE
    bench.step(10 * DAY)
    assert bench.ledger.jobs() == []
    assert (bench.folders.results / "dog.png").exists()


def test_many_old_inputs_are_removed_in_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit of two a round, five archives and five rows go in three rounds each, and the queue goes on."""
    monkeypatch.setattr(housekeeping, "REMOVALS_A_ROUND", 2)
    bench = Bench(tmp_path, keep=configuration.Keep(done_days=10, ledger_days=10))
    for number in range(5):
        bench.drop(f"old{number}")
        bench.executor.paint()
        bench.step(1)
    left = []
    bench.step(11 * DAY)
    for _ in range(5):
        left.append((len(list(bench.folders.done.iterdir())), len(bench.ledger.jobs())))
        bench.step(1)
    assert left == [(3, 5), (1, 5), (0, 3), (0, 1), (0, 0)]


def test_what_runs_by_night_removes_old_inputs_at_its_end(tmp_path: Path) -> None:
    """Inputs whose days are over go when `once` ends, however short it was."""
    bench = Bench(tmp_path, keep=configuration.Keep(done_days=10))
    bench.drop()
    bench.executor.paint()
    bench.step(1)
    bench.time += 11 * DAY
    bench.drain = True
    bench.begin()
    bench.step(1)
    assert (bench.folders.done / "dog").exists()
    bench.supervisor.stop(bench.now)
    assert not (bench.folders.done / "dog").exists()


def test_a_clock_that_jumps_removes_nothing(tmp_path: Path) -> None:
    """A wall clock that is set forward by years makes nothing old."""
    bench = Bench(tmp_path, keep=configuration.Keep(done_days=10))
    bench.drop()
    bench.executor.paint()
    bench.step(1)
    jumped = Moment(wall=bench.now.wall + 3650 * DAY, steady=bench.now.steady + DAY)
    bench.supervisor.step(jumped)
    assert (bench.folders.done / "dog" / "dog.content.png").exists()


@pytest.mark.parametrize(
    "name", ["dog", "<script>", "Ünïcode “quotes”", "a..", "-rf", "con\x1b[2J", "x" * 240]
)
def test_previews_stay_in_their_folder(bench: Bench, name: str) -> None:
    """Whatever a drop is called, its live preview has a printable, visible name right in results/.preview."""
    bench.drop(name)
    (task,) = bench.executor.tasks
    assert task.preview is not None
    assert task.preview.resolve().parent == bench.folders.results.resolve() / ".preview"
    assert task.preview.name.isprintable()
    assert not task.preview.name.startswith(".")
    assert len(task.preview.name.encode()) < 250


def test_jobs_of_one_name_have_previews_of_their_own(bench: Bench) -> None:
    """Two jobs called dog that are with workers show themselves in two files, and each takes its own away."""
    bench.executor.room = 3
    bench.drop()
    bench.drop()
    first, second = (task.preview for task in bench.executor.tasks)
    assert first is not None
    assert second is not None
    assert [first.name, second.name] == ["dog.jpg", "dog-2.jpg"]
    first.parent.mkdir(parents=True)
    first.write_bytes(b"of the first")
    second.write_bytes(b"of the second")
    bench.executor.paint()
    bench.step(1)
    assert not first.exists()
    assert second.read_bytes() == b"of the second"
    bench.drop()
    assert bench.executor.tasks[-1].preview == first, "the name is free again"


def test_the_preview_of_a_finished_job_is_removed(bench: Bench) -> None:
    """Once the picture stands in results/ its preview is gone."""
    bench.drop()
    preview = leave_preview(bench)
    bench.executor.paint()
    bench.step(1)
    assert (bench.folders.results / "dog.png").exists()
    assert not preview.exists()


def test_the_preview_of_a_failed_job_stays_for_some_days(tmp_path: Path) -> None:
    """The last preview of a job that failed is kept for previews_days, and no longer."""
    bench = Bench(tmp_path, keep=configuration.Keep(previews_days=3))
    bench.drop()
    preview = leave_preview(bench)
    os.utime(preview, (bench.now.wall, bench.now.wall))
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "no"))
    bench.step(1)
    assert bench.job().state is JobState.FAILED
    bench.step(2 * DAY)
    assert preview.exists()
    bench.step(2 * DAY)
    assert not preview.exists()


def test_uploads_are_removed_when_the_page_is_off(tmp_path: Path) -> None:
    """The daemon removes uploads that the page should have removed a day ago, and no others."""
    bench = Bench(tmp_path)
    folder = bench.folders.uploads
    folder.mkdir()
    for name, age in (("old.png", 2.1), ("old.json", 2.1), ("used.png", 1.8), ("used.json", 1.8)):
        (folder / name).write_bytes(b"an upload")
        at = bench.now.wall - age * DAY
        os.utime(folder / name, (at, at))
    bench.step(3700)
    assert {path.name for path in folder.iterdir()} == {"used.png", "used.json"}


def test_previews_can_be_switched_off(tmp_path: Path) -> None:
    """With outputs.preview off the worker is given no place for one."""
    bench = Bench(tmp_path, outputs=configuration.Outputs(preview=False))
    bench.drop()
    assert bench.executor.tasks[0].preview is None


def leave_preview(bench: Bench) -> Path:
    """Write the preview of what is being painted, as its worker does."""
    preview = bench.executor.tasks[0].preview
    assert preview is not None
    preview.parent.mkdir(parents=True)
    preview.write_bytes(b"as it looks now")
    return preview


def test_the_gallery_is_rewritten_where_that_is_wanted(tmp_path: Path) -> None:
    """With outputs.gallery each finished job asks for the page once, and a failed one does not; without, none does."""
    for wanted in (True, False):
        bench = Bench(tmp_path / str(wanted), outputs=configuration.Outputs(gallery=wanted))
        bench.drop("good")
        bench.executor.paint()
        bench.step(1)
        assert bench.chores.requests == [("gallery",)] * wanted
        bench.drop("bad")
        bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "no"))
        bench.step(1)
        assert bench.chores.requests == [("gallery",)] * wanted
        bench.supervisor.stop(bench.now)
        assert bench.chores.finished


def test_names_that_are_not_utf8_are_painted(bench: Bench) -> None:
    """A folder and a style with names in Latin-1, as old archives hold them, become jobs, also after a restart."""
    folder = os.fsencode(bench.folders.inbox) + b"/caf\xe9"
    Path(os.fsdecode(folder)).mkdir()
    for half in (b"content", b"style"):
        Path(os.fsdecode(folder + b"/dog." + half + b".png")).write_bytes(PNG)
    Path(os.fsdecode(os.fsencode(bench.folders.styles) + b"/gr\xfcn.png")).write_bytes(PNG)
    bench.step(1.5, times=6)
    assert [task.name for task in bench.executor.tasks] == ["caf_/dog"]
    bench.begin()
    bench.step(1.5, times=2)
    bench.executor.paint()
    bench.step(1, times=2)
    assert bench.job().state is JobState.DONE


def test_a_worker_that_cannot_start_says_why_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has each reason once, whatever seconds it names, until the worker is ready; the status has it, too."""
    caplog.set_level("INFO")
    bench.drop()
    for seconds in (301, 302, 303):
        why = f"made no progress for {seconds} s while loading the weights"
        bench.executor.events.append(Died("gpu", None, why))
        bench.step(1)
    bench.executor.events.append(DeviceLost("gpu", why, left=0))
    bench.step(1)
    lines = [m for m in caplog.messages if "gpu" in m]
    assert lines == [
        "worker gpu made no progress for 301 s while loading the weights",
        "gpu is not used now (devices left: 0)",
    ]
    assert why in bench.supervisor.headline
    bench.executor.events.append(Ready("gpu", {"device_name": "EPYC", "threads": 1}))
    bench.executor.events.append(Died("gpu", None, why))
    with caplog.at_level("INFO"):
        bench.step(1)
    assert sum("made no progress" in message for message in caplog.messages) == 2
    assert "worker gpu is ready: EPYC, 1 thread" in caplog.messages
