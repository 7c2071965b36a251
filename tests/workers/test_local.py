"""The executor and its processes, with a renderer that paints in milliseconds and misbehaves on demand."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import Retry
from nst_daemon.machine import WORKER_OOM_SCORE, usable_cpus
from nst_daemon.workers import supervised
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Failed,
    Progress,
    Ready,
    Staged,
    Started,
    Stopped,
)
from tests.workers.conftest import ROOT, Harness, Jobs

Harnesses = Callable[..., Harness]


def test_a_task_becomes_a_staged_picture(harness: Harnesses, jobs: Jobs) -> None:
    """A worker announces itself, starts the task, reports progress and stages the picture with its sidecar."""
    b = harness()
    assert b.executor.capacity() == 0
    b.ready()
    assert b.executor.capacity() == 2
    task = jobs("dog")
    answer = b.paint(task)
    assert answer.files == ("dog.json", "dog.png")
    kinds = [type(event) for event in b.events]
    assert kinds[:2] == [Ready, Started]
    assert kinds[-1] is Staged
    last = b.of(Progress)[-1]
    assert (last.done, last.total) == (20, 20)
    sidecar = json.loads((task.stage / "dog.json").read_bytes())
    assert sidecar["picture"]["sha256"] == answer.sha256


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_threads_follow_the_environment_and_the_options(
    harness: Harnesses, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """A worker has as many threads as OMP_NUM_THREADS says; without it, one for each CPU; the options win."""
    for value, threads, expected in (
        ("7", 0, 7),
        ("", 0, usable_cpus()),
        ("7", 3, 3),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        b = harness(devices=device, threads=threads)
        b.ready()
        assert b.of(Ready)[0].info["threads"] == expected


def test_the_kernel_ends_a_worker_before_the_daemon(harness: Harnesses) -> None:
    """A worker has a higher oom_score_adj than the process that starts it."""
    b = harness()
    b.ready()
    score = int(Path(f"/proc/{b.pid()}/oom_score_adj").read_text())
    assert score >= WORKER_OOM_SCORE


def test_leftovers_in_the_stage_are_removed(harness: Harnesses, jobs: Jobs) -> None:
    """What an earlier attempt left in the stage folder is not there after the next one."""
    b, task = harness(), jobs("dog")
    (task.stage / "dog.png").write_bytes(b"half a picture")
    (task.stage / "other").write_bytes(b"rubbish")
    b.ready()
    b.paint(task)
    assert sorted(path.name for path in task.stage.iterdir()) == ["dog.json", "dog.png"]


def test_the_next_job_is_prepared_while_one_is_painted(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """The preparation of a second job ends while the first one is still being painted."""
    b = harness()
    b.ready()
    first = jobs("first", gate=str(tmp_path / "gate"), gate_at=5)
    # Preparing the second job opens the gate that the first one waits at: else both wait for ever.
    second = jobs("second", do="touch", at=0, once=str(tmp_path / "gate"))
    b.executor.submit(first)
    b.executor.submit(second)
    assert b.executor.capacity() == 0
    assert isinstance(b.answer("first-id"), Staged)
    assert isinstance(b.answer("second-id"), Staged)
    assert b.executor.capacity() == 2


def progress(b: Harness, job: str) -> Callable[[], list[Progress]]:
    """The reports on a job so far."""
    return lambda: [p for p in b.of(Progress) if p.job_id == job]


def test_the_next_job_is_painted_while_one_is_written(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """A second job can be painted to its end before the first one's picture is written; both become pictures."""
    b = harness()
    b.ready()
    b.executor.submit(jobs("first", gate=str(tmp_path / "gate"), gate_at="save"))
    b.executor.submit(jobs("second", iterations=7))
    b.until(lambda: [p for p in progress(b, "second-id")() if p.done == 7])
    assert not b.of(Staged)
    (tmp_path / "gate").touch()
    assert isinstance(b.answer("first-id"), Staged)
    assert isinstance(b.answer("second-id"), Staged)


def test_what_cannot_be_written_harms_no_neighbour(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """A picture whose writing fails is a failed job; the one that is painted meanwhile becomes a picture."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    b.executor.submit(jobs("bad", gate=str(gate), gate_at="save", do="raise", at="save"))
    b.executor.submit(jobs("good"))
    b.until(progress(b, "good-id"))
    gate.touch()
    assert "a fault in the engine" in b.answer("bad-id").message
    assert isinstance(b.answer("good-id"), Staged)
    assert len(b.of(Ready)) == 1


def test_a_crash_in_writing_is_found_out(harness: Harnesses, jobs: Jobs, tmp_path: Path) -> None:
    """A job whose writing kills the worker costs the one that is painted beside it one attempt: then each is alone."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    guilty = jobs("guilty", gate=str(gate), gate_at="save", do="kill", at="save")
    innocent = jobs("innocent", gate=str(tmp_path / "never"), gate_at=2)
    b.executor.submit(guilty)
    b.executor.submit(innocent)
    b.until(progress(b, "innocent-id"))
    gate.touch()
    assert isinstance(b.answer("innocent-id"), Died)  # nobody can know better, the first time
    assert b.answer("guilty-id") == Stopped("cpu", "guilty-id")
    (tmp_path / "never").touch()
    b.until(b.executor.capacity)
    b.executor.submit(innocent)
    b.executor.submit(guilty)
    assert isinstance(b.answer("innocent-id"), Staged)
    assert isinstance(b.answer("guilty-id"), Died)


def test_stop_waits_for_what_is_written(harness: Harnesses, jobs: Jobs, tmp_path: Path) -> None:
    """A picture that is being written when the worker is told to end is staged; the one painted leaves a checkpoint."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    b.executor.submit(jobs("first", gate=str(gate), gate_at="save"))
    second = jobs("second", iterations=10**6, do="touch", at=50, once=str(tmp_path / "painted"))
    b.executor.submit(second)
    b.until((tmp_path / "painted").exists)
    os.kill(b.pid(), signal.SIGTERM)
    b.until(second.checkpoint.exists)
    gate.touch()
    assert isinstance(b.answer("first-id"), Staged)
    assert b.answer("second-id") == Stopped("cpu", "second-id")


def test_cancelling_what_is_painted_beside_writing(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """Cancelling the job that is painted is answered while the one before it is still being written."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    b.executor.submit(jobs("first", gate=str(gate), gate_at="save"))
    b.executor.submit(jobs("second", iterations=10**6))
    b.until(progress(b, "second-id"))
    b.executor.cancel("second-id")
    assert b.answer("second-id") == Stopped("cpu", "second-id", cancelled=True)
    assert not b.answers("first-id")
    gate.touch()
    assert isinstance(b.answer("first-id"), Staged)


CRASHES = {"kill": "was killed by signal 9 (SIGKILL)", "segv": "was killed by signal 11 (SIGSEGV)"}


@pytest.mark.parametrize("at", [0, 7])
@pytest.mark.parametrize("mischief", CRASHES)
def test_a_crash_costs_one_worker_and_no_job(
    harness: Harnesses, jobs: Jobs, tmp_path: Path, mischief: str, at: int
) -> None:
    """A worker that crashes over a job is said to have died of it, is replaced, and paints it on the next attempt."""
    b = harness()
    b.ready()
    task = jobs("dog", do=mischief, at=at, once=str(tmp_path / "marker"))
    died = b.paint(task)
    assert isinstance(died, Died)
    assert died.reason.startswith(CRASHES[mischief])
    assert isinstance(b.paint(task), Staged)
    assert len(b.of(Ready)) == 2


def test_a_crash_in_native_code_leaves_a_stack(harness: Harnesses, jobs: Jobs) -> None:
    """What a worker printed last, such as Python's stack at a segmentation fault, comes with its death."""
    b = harness()
    b.ready()
    died = b.paint(jobs("dog", do="segv", at=3))
    assert "Segmentation fault" in died.detail
    assert "in paint" in died.detail


def test_the_neighbour_of_a_crash_is_not_blamed(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """A job that was merely being prepared when the worker died is given back as stopped."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    b.executor.submit(jobs("bad", gate=str(gate), gate_at=1, do="kill", at=2))
    b.executor.submit(jobs("good", do="touch", at=0, once=str(gate)))
    assert isinstance(b.answer("bad-id"), Died)
    assert b.answers("good-id") == [Stopped("cpu", "good-id")]


def test_a_job_that_never_started_is_not_blamed(harness: Harnesses, jobs: Jobs) -> None:
    """A task that was handed to a process which was already dead comes back without blame."""
    b = harness()
    b.ready()
    os.kill(b.pid(), signal.SIGKILL)
    b.executor.submit(jobs("dog"))
    assert b.answer("dog-id") == Stopped("cpu", "dog-id")
    assert [died.job_id for died in b.of(Died)] == [None]


def test_jobs_that_died_together_are_tried_alone(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """A job whose preparation kills the worker twice harms its neighbour once at most: then each is tried alone."""
    b = harness()
    b.ready()
    innocent = jobs("innocent", gate=str(tmp_path / "never"), gate_at=1)
    guilty = jobs("guilty", do="kill", at=0)
    b.executor.submit(innocent)
    b.executor.submit(guilty)
    assert isinstance(b.answer("innocent-id"), Died)  # nobody can know better, the first time
    assert isinstance(b.answer("guilty-id"), Stopped)
    (tmp_path / "never").touch()
    b.until(b.executor.capacity)
    b.executor.submit(innocent)
    b.executor.submit(guilty)
    assert isinstance(b.answer("innocent-id"), Staged)
    assert isinstance(b.answer("guilty-id"), Died)


def test_a_task_marked_alone_has_no_neighbour(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """Beside a task that shall be alone nothing is prepared, even where the daemon has been started anew."""
    b = harness()
    b.ready()
    b.executor.submit(replace(jobs("guilty", do="kill", at=5), alone=True))
    marker = tmp_path / "prepared"
    b.executor.submit(jobs("other", do="touch", at=0, once=str(marker)))
    assert isinstance(b.answer("guilty-id"), Died)
    assert not marker.exists()


def test_a_frozen_worker_is_replaced(harness: Harnesses, jobs: Jobs, tmp_path: Path) -> None:
    """A stopped process (SIGSTOP) is killed once stall_seconds have passed, and people are told why."""
    b = harness(stall_seconds=50)
    b.ready()
    b.executor.submit(jobs("dog", do="freeze", at=5, once=str(tmp_path / "marker")))
    b.until((tmp_path / "marker").exists)
    died = b.answer("dog-id", ahead=60)
    assert "made no progress for" in died.reason
    assert "did not answer either" in died.reason


def test_a_stuck_worker_is_replaced(harness: Harnesses, jobs: Jobs, tmp_path: Path) -> None:
    """A worker that lives and answers but makes no progress for stall_seconds is killed."""
    b = harness(stall_seconds=50)
    b.ready()
    b.executor.submit(jobs("dog", do="hang", at=5, once=str(tmp_path / "marker")))
    b.until((tmp_path / "marker").exists)
    b.poll(40)
    assert not b.answers("dog-id")
    # It still answers, in this future too: nothing but the progress is missing.
    b.until(lambda: (b.executor.status(b.now())[0].silent or 99) < 5, ahead=40)
    died = b.answer("dog-id", ahead=60)
    assert died.reason.startswith("made no progress for")
    assert died.reason.endswith(" s (service.stall_seconds)")
    b.until(b.executor.capacity, ahead=60)


def test_an_idle_worker_that_freezes_is_replaced(harness: Harnesses) -> None:
    """A worker without a job is killed when it does not answer for stall_seconds."""
    b = harness(stall_seconds=50)
    b.ready()
    pid = b.pid()
    os.kill(pid, signal.SIGSTOP)
    b.until(lambda: b.of(Died), ahead=60)
    assert b.of(Died)[0].job_id is None
    b.until(lambda: len(b.of(Ready)) == 2, ahead=60)
    assert b.pid() != pid


def test_a_slow_picture_is_given_time_by_its_own_pace(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """A worker whose steps take nearly stall_seconds is killed only after PATIENCE times its slowest step."""
    gate, hung = tmp_path / "gate", tmp_path / "hung"
    b = harness(stall_seconds=50)
    b.ready()
    b.executor.submit(
        jobs("dog", seconds=0.3, gate=str(gate), gate_at=3, do="hang", at=8, once=str(hung))
    )
    b.until(lambda: b.of(Progress))
    before = len(b.of(Progress))
    gate.touch()
    b.until(lambda: len(b.of(Progress)) > before, ahead=45)  # 45 s after the one before
    b.until(hung.exists, ahead=45)
    b.poll(45 + 3.5 * 45)
    assert not b.answers("dog-id")
    assert isinstance(b.answer("dog-id", ahead=45 + 4.5 * 45), Died)


def test_a_job_that_moves_for_ever_is_ended(harness: Harnesses, jobs: Jobs) -> None:
    """A job that makes progress past max_job_minutes, in a worker that does not end it, is killed with its worker."""
    b = harness(stall_seconds=50)
    b.ready()
    # The worker's clock is the real one: for the worker it has only just begun.
    b.executor.submit(jobs("dog", limits={"max_job_minutes": 1}, iterations=10**6, seconds=0.01))
    for ahead in range(0, 240, 40):
        before = len(b.of(Progress))
        b.until(lambda n=before: len(b.of(Progress)) > n, ahead=ahead)  # type: ignore[misc]
    died = b.answer("dog-id", ahead=240)
    assert died.reason == "painted for more than 60 s (limits.max_job_minutes)"


def test_an_engine_that_raises_fails_the_job_alone(harness: Harnesses, jobs: Jobs) -> None:
    """An unforeseen exception fails its job for good, with a traceback, and the same worker paints the next."""
    b = harness()
    b.ready()
    failed = b.paint(jobs("bad", do="raise", at=4))
    assert (failed.retry, failed.message) == (
        Retry.NEVER,
        "unexpected error: RuntimeError: a fault in the engine",
    )
    assert "in paint" in failed.detail
    assert isinstance(b.paint(jobs("good")), Staged)
    assert not b.of(Died)


def test_an_error_of_many_words_is_told_in_one_line(harness: Harnesses, jobs: Jobs) -> None:
    """An exception with a megabyte of text still fails its job, with its first line and the end of its traceback."""
    b = harness()
    b.ready()
    failed = b.paint(jobs("bad", do="rant", at=4))
    assert failed.message == "unexpected error: RuntimeError: a fault"
    assert failed.detail.endswith("and more\n\n")


def test_a_failure_in_preparation_is_told_at_once(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """A job that cannot be prepared fails while its neighbour is still being painted."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    b.executor.submit(jobs("good", gate=str(gate), gate_at=3))
    b.executor.submit(jobs("bad", do="memory", at=0))
    failed = b.answer("bad-id")
    assert failed.message.startswith("the fake device is full")
    assert not b.answers("good-id")
    gate.touch()
    assert isinstance(b.answer("good-id"), Staged)


def test_a_painting_without_a_finite_picture_fails(harness: Harnesses, jobs: Jobs) -> None:
    """A painting that ends without a finite loss fails for good and stages nothing."""
    b = harness()
    b.ready()
    task = jobs("dog", do="nan", at=10)
    failed = b.paint(task)
    assert failed.retry is Retry.NEVER
    assert "no finite loss" in failed.message
    assert list(task.stage.iterdir()) == []


def test_an_impossible_allocation_is_out_of_memory(harness: Harnesses, jobs: Jobs) -> None:
    """Asking for more memory than the limit fails the job as out of memory, and the worker survives."""
    b = harness(max_memory=2 << 30)
    b.ready()
    failed = b.paint(jobs("large", do="allocate", at=2))
    assert failed.retry is Retry.ALONE
    assert isinstance(b.paint(jobs("small")), Staged)
    assert not b.of(Died)


def test_a_device_error_replaces_the_worker(harness: Harnesses, jobs: Jobs, tmp_path: Path) -> None:
    """After a device error the job is to be tried again, its neighbour comes back, and the worker is a new one."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    b.executor.submit(jobs("bad", gate=str(gate), do="device", at=2))
    b.executor.submit(jobs("good"))
    gate.touch()
    failed = b.answer("bad-id")
    assert failed.retry is Retry.LATER
    assert "fell off the bus" in failed.message
    assert isinstance(b.answer("good-id"), Stopped)
    b.until(lambda: len(b.of(Ready)) == 2)
    assert [died.job_id for died in b.of(Died)] == [None]
    assert "fell off the bus" in b.of(Died)[0].reason


def test_missing_weights_take_the_device_out_at_once(harness: Harnesses) -> None:
    """A worker that says that another start would fail as well is lost after the first, and says what to do."""
    b = harness(renderer="tests.fakes:no_renderer")
    b.executor.start()
    b.until(lambda: b.of(DeviceLost))
    lost = b.of(DeviceLost)[0]
    assert (lost.left, lost.permanent) == (0, True)
    assert "the fake weights are not there; fetch them" in lost.reason
    assert len(b.of(Died)) == 1


@pytest.mark.parametrize("await_device", [True, False])
def test_a_missing_device_is_awaited_only_on_request(
    harness: Harnesses, await_device: bool
) -> None:
    """A device that is missing at the first start is lost at once, unless its driver may load late."""
    b = harness(renderer="tests.fakes:no_device_renderer", await_device=await_device)
    b.executor.start()
    b.until(lambda: b.of(Died))
    assert [lost.permanent for lost in b.of(DeviceLost)] == ([] if await_device else [True])
    assert "cpu cannot be used: found no driver; name another device" in b.of(Died)[0].reason


def test_a_device_that_never_starts_is_backed_off_and_taken_out(harness: Harnesses) -> None:
    """A worker that dies at each start is started again after 1, 2, 4 and 8 s, and then lost."""
    b = harness(renderer="tests.fakes:crashing_renderer", lost_seconds=1000)
    b.executor.start()
    ahead = 0.0
    for deaths, pause in enumerate((1.0, 2.0, 4.0, 8.0, 1000.0), start=1):
        b.until(lambda n=deaths: len(b.of(Died)) == n, ahead=ahead)  # type: ignore[misc]
        assert bool(b.of(DeviceLost)) == (deaths == supervised.LOST_AFTER_STARTS)
        b.poll(ahead + 0.5 * pause)
        assert b.executor.status(0.0)[0].pid is None
        ahead += 1.1 * pause
    assert [lost.left for lost in b.of(DeviceLost)] == [0]
    assert b.executor.status(0.0)[0].state == "lost"
    b.poll(ahead)
    assert b.executor.status(0.0)[0].pid is not None


def test_a_full_disk_takes_no_device_out(harness: Harnesses) -> None:
    """A worker that cannot load because of the disk says so, and is started again however often that happens."""
    b = harness(renderer="tests.fakes:no_space_renderer")
    b.executor.start()
    for deaths in range(1, supervised.LOST_AFTER_STARTS + 2):
        b.until(lambda n=deaths: len(b.of(Died)) == n, ahead=100.0 * deaths)  # type: ignore[misc]
    assert all(died.disk for died in b.of(Died))
    assert b.of(Died)[0].reason == (
        "could not start: cache: No space left on device; free some space"
    )
    assert not b.of(DeviceLost)


def test_a_worker_that_hangs_while_it_loads_is_killed(harness: Harnesses) -> None:
    """A worker that makes no progress for stall_seconds while it loads is killed; the reason names step and key."""
    b = harness(renderer="tests.fakes:hanging_renderer", stall_seconds=30)
    b.executor.start()
    b.until(lambda: b.executor.status(b.now())[0].note == "waiting for the fake")
    b.until(lambda: b.of(Died), ahead=40)
    reason = b.of(Died)[0].reason
    assert " s while waiting for the fake; raise service.stall_seconds" in reason
    assert b.executor.status(b.now())[0].note == reason


def test_a_device_over_which_several_jobs_died_is_taken_out(harness: Harnesses, jobs: Jobs) -> None:
    """Three different jobs that died in a row on one device take it out; the other one goes on."""
    b = harness(["cpu", "cpu"])
    b.ready(2)
    for i in range(supervised.LOST_AFTER_JOBS):
        # Both workers are idle, and the first of them is preferred.
        b.until(lambda: b.executor.capacity() == 4)
        assert isinstance(b.paint(jobs(f"bad{i}", do="kill", at=1)), Died)
    b.until(lambda: b.of(DeviceLost))
    assert [(lost.worker, lost.left) for lost in b.of(DeviceLost)] == [("cpu", 1)]
    assert b.paint(jobs("good")).worker == "cpu#2"


def test_a_job_that_died_is_tried_on_another_device(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """The second attempt at a job goes to a device that it has not died on."""
    b = harness(["cpu", "cpu"])
    b.ready(2)
    task = jobs("dog", do="kill", at=1, once=str(tmp_path / "marker"))
    assert b.paint(task).worker == "cpu"
    b.until(lambda: b.executor.capacity() == 4)
    assert b.paint(task).worker == "cpu#2"


def test_two_workers_share_a_queue(harness: Harnesses, jobs: Jobs) -> None:
    """Ten jobs on two workers are all painted, and both workers take part."""
    b = harness(["cpu", "cpu"])
    b.ready(2)
    waiting = [jobs(f"job{i}", seconds=0.005) for i in range(10)]

    def done() -> bool:
        while waiting and b.executor.capacity():
            b.executor.submit(waiting.pop())
        return len(b.of(Staged)) == 10

    b.until(done)
    assert {staged.worker for staged in b.of(Staged)} == {"cpu", "cpu#2"}


def test_auto_finds_the_devices_in_the_worker(harness: Harnesses) -> None:
    """`auto` is resolved by the first worker: every GPU, or the CPU where torch sees none."""
    import torch

    expected = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    b = harness("auto")
    b.ready(len(expected))
    assert sorted(ready.worker for ready in b.of(Ready)) == sorted(expected)
    assert [s.worker for s in b.executor.status(0.0)] == expected


def test_cancelling_what_is_painted(harness: Harnesses, jobs: Jobs, tmp_path: Path) -> None:
    """Cancelling a running job ends it after its current step, and the worker goes on to the next."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    task = jobs("dog", iterations=10**6, gate=str(gate))
    b.executor.submit(task)
    b.until(lambda: b.of(Started))
    b.executor.cancel("dog-id")
    gate.touch()
    assert b.answer("dog-id") == Stopped("cpu", "dog-id", cancelled=True)
    assert list(task.stage.iterdir()) == []
    assert isinstance(b.paint(jobs("next")), Staged)


def test_cancelling_what_waits(harness: Harnesses, jobs: Jobs, tmp_path: Path) -> None:
    """Cancelling a job that waits behind another is answered while that one is still being painted."""
    b = harness()
    b.ready()
    gate = tmp_path / "gate"
    b.executor.submit(jobs("first", gate=str(gate)))
    b.executor.submit(jobs("second"))
    b.executor.cancel("second-id")
    assert b.answer("second-id") == Stopped("cpu", "second-id", cancelled=True)
    assert not b.answers("first-id")
    gate.touch()
    assert isinstance(b.answer("first-id"), Staged)


def test_a_cancelled_job_whose_worker_dies_is_cancelled(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """A job that was cancelled and then hung is answered as cancelled, not as a death."""
    b = harness(stall_seconds=50)
    b.ready()
    b.executor.submit(jobs("dog", do="hang", at=2, once=str(tmp_path / "marker")))
    b.until((tmp_path / "marker").exists)
    b.executor.cancel("dog-id")
    assert b.answer("dog-id", ahead=60) == Stopped("cpu", "dog-id", cancelled=True)


def test_stop_writes_a_checkpoint_and_gives_all_back(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """Stopping answers every job, leaves a checkpoint of the running one, and no process."""
    b = harness()
    b.ready()
    task = jobs("dog", iterations=10**6)
    b.executor.submit(task)
    b.executor.submit(jobs("next"))
    b.until(lambda: b.of(Progress))
    pid = b.pid()
    events = b.executor.stop(20.0)
    assert {(type(e), e.job_id) for e in events if not isinstance(e, Progress | Started)} == {  # type: ignore[union-attr]
        (Stopped, "dog-id"),
        (Stopped, "next-id"),
    }
    assert task.checkpoint.exists()
    assert not exists(pid)
    assert b.executor.capacity() == 0
    assert b.executor.poll(time.monotonic() + 10000) == []


def test_a_stopped_painting_ends_in_the_same_picture(harness: Harnesses, jobs: Jobs) -> None:
    """A painting that was stopped and taken up again equals the one that was not, and says where it was taken up."""
    b = harness()
    b.ready()
    whole = b.paint(jobs("whole", iterations=300, seconds=0.005))
    script = json.dumps({"iterations": 300, "seconds": 0.005}).encode()
    task = jobs.of("halves", script)
    b.executor.submit(task)
    b.until(lambda: [p for p in b.of(Progress) if p.job_id == "halves-id" and p.done > 1])
    assert Stopped("cpu", "halves-id") in b.executor.stop(20.0)
    b.executor.start()
    again = b.paint(task)
    assert again.sha256 == whole.sha256
    sidecar = json.loads((task.stage / "halves.json").read_bytes())
    assert 0 < sidecar["iterations"]["resumed_after"][0] < 300


def test_stop_ends_within_its_grace_even_if_stuck(
    harness: Harnesses, jobs: Jobs, tmp_path: Path
) -> None:
    """Stopping a worker that is stuck in one operator takes the grace and no longer, and gives its job back."""
    b = harness()
    b.ready()
    b.executor.submit(jobs("dog", do="hang", at=2, once=str(tmp_path / "marker")))
    b.until((tmp_path / "marker").exists)
    pid, began = b.pid(), time.monotonic()
    events = b.executor.stop(0.5)
    assert 0.4 < time.monotonic() - began < 3.0
    assert events[-1] == Stopped("cpu", "dog-id")
    assert not exists(pid)


def test_stop_without_grace_keeps_the_last_checkpoint(harness: Harnesses, jobs: Jobs) -> None:
    """`stop(0)` ends at once, and the checkpoint that was written before is whole and used."""
    b = harness(checkpoint_seconds=0.0)
    b.ready()
    task = jobs("dog", iterations=600, seconds=0.002)
    b.executor.submit(task)
    b.until(task.checkpoint.exists)
    began = time.monotonic()
    b.executor.stop(0.0)
    assert time.monotonic() - began < 2.0
    b.executor.start()
    b.paint(task)
    assert json.loads((task.stage / "dog.json").read_bytes())["iterations"]["resumed_after"]


def test_a_worker_that_is_loading_stops_at_once(harness: Harnesses) -> None:
    """Stopping does not wait for a worker that is still loading its model."""
    b = harness(renderer="tests.fakes:hanging_renderer")
    b.executor.start()
    pid, began = b.pid(), time.monotonic()
    b.executor.stop(30.0)
    assert time.monotonic() - began < 5.0
    assert not exists(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_terminal_does_not_end_a_worker(
    harness: Harnesses, jobs: Jobs, number: signal.Signals
) -> None:
    """What a terminal sends (Ctrl-C, hanging up) does not touch a worker: the daemon decides."""
    b = harness()
    b.ready()
    os.kill(b.pid(), number)
    assert isinstance(b.paint(jobs("dog")), Staged)
    assert not b.of(Died)
    assert os.getpgid(b.pid()) != os.getpgid(0)


def test_a_worker_that_is_told_to_end_checkpoints_first(harness: Harnesses, jobs: Jobs) -> None:
    """SIGTERM to a worker, as systemd may send to all, makes it checkpoint, give its job back and end."""
    b = harness()
    b.ready()
    task = jobs("dog", iterations=10**6)
    b.executor.submit(task)
    b.until(lambda: b.of(Progress))
    os.kill(b.pid(), signal.SIGTERM)
    assert b.answer("dog-id") == Stopped("cpu", "dog-id")
    assert task.checkpoint.exists()
    b.until(lambda: len(b.of(Ready)) == 2)


def test_workers_do_not_outlive_the_daemon(tmp_path: Path) -> None:
    """When the daemon is killed, its worker ends within seconds, in the middle of an operator too."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.workers.conftest import Harness, Jobs, local\n"
        "from nst_daemon.workers.messages import WorkerOptions\n"
        "folder = Path(sys.argv[1])\n"
        "b = Harness(local('cpu', WorkerOptions(renderer='tests.fakes:Renderer')))\n"
        "b.ready()\n"
        "b.executor.submit(Jobs(folder)('dog', do='hang', at=1, once=str(folder / 'marker')))\n"
        "b.until((folder / 'marker').exists)\n"
        "print(b.pid(), flush=True)\n"
        "time.sleep(100)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as daemon:
        assert daemon.stdout is not None
        worker = os.pidfd_open(int(daemon.stdout.readline()))
        daemon.kill()
        assert select.select([worker], [], [], 10.0)[0]
        os.close(worker)


def test_poll_is_called_for_by_waitables(harness: Harnesses, jobs: Jobs) -> None:
    """An idle executor's waitables stay quiet but for signs of life, and a message or a death makes one ready."""
    b = harness()
    b.ready()
    b.paint(jobs("dog"))
    os.kill(b.pid(), signal.SIGSTOP)
    while wait(b.executor.waitables(), timeout=0):
        b.poll()
    os.kill(b.pid(), signal.SIGKILL)
    assert wait(b.executor.waitables(), timeout=10)


def test_settings_that_cannot_be_sent_fail_the_job(harness: Harnesses, jobs: Jobs) -> None:
    """A task too large for a message fails by itself and does not disturb the executor."""
    b = harness()
    b.ready()
    task = replace(jobs("dog"), settings=RenderSettings(preset="x" * 10**6))
    failed = b.paint(task)
    assert isinstance(failed, Failed)
    assert failed.retry is Retry.NEVER
    assert isinstance(b.paint(jobs("next")), Staged)


def test_a_worker_that_cannot_be_started_at_all(
    harness: Harnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system starts no process the executor says so and tries again later."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    b = harness()
    b.executor.start()
    b.until(lambda: b.of(Died))
    assert b.of(Died)[0].reason == "could not be started: No such file or directory"
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    b.until(lambda: b.of(Ready), ahead=2.0)


def exists(pid: int) -> bool:
    """Is there such a process?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
