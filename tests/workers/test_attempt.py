"""One attempt at a picture, step by step, on a clock that the test holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import PaintingError
from nst_daemon.workers import messages
from nst_daemon.workers.messages import Note, Progress, Staged, Stopped, Task, WorkerOptions
from nst_daemon.workers.process import attempt as module
from nst_daemon.workers.process import recorder
from nst_daemon.workers.process.attempt import Attempt
from nst_daemon.workers.process.staging import FinishedAttempt
from tests import fakes
from tests.workers.conftest import Jobs

T = TypeVar("T")


class AtOnce(ThreadPoolExecutor):
    """Nothing goes on until what was handed over is done: the clock of these tests is not the disk's."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future = super().submit(fn, *args, **kwargs)
        wait([future])
        return future


@dataclass
class Trial:
    """A painting by a renderer whose steps and copies of its state take as long as the test says."""

    task: Task
    step_seconds: float = 1.0
    dump_seconds: float = 0.0
    checkpoint_seconds: float = 30.0
    now: float = 0.0
    said: list[messages.Message] = field(default_factory=list)
    dumped: list[float] = field(default_factory=list)
    before_step: Callable[[fakes.Step], object] = lambda step: None
    cancelled: bool = False
    stopping: bool = False
    info: Mapping[str, object] = field(default_factory=dict)
    writer: type[ThreadPoolExecutor] = AtOnce

    def __call__(self) -> Staged | Stopped:
        outer = self

        class Slow(fakes.Renderer):
            def paint(
                self, prepared: fakes.Prepared, state: bytes | memoryview | None
            ) -> Generator[fakes.Step]:
                for step in super().paint(prepared, state):
                    outer.now += outer.step_seconds
                    outer.before_step(step)
                    yield step

            def dump(self, step: fakes.Step) -> bytes:
                outer.dumped.append(outer.now)
                outer.now += outer.dump_seconds
                return super().dump(step)

        renderer = Slow(WorkerOptions(), "cpu", lambda step: None)
        end = Attempt(
            renderer,
            self.task,
            renderer.prepare(self.task),
            worker="cpu",
            info={**renderer.info(), **self.info},
            checkpoint_seconds=self.checkpoint_seconds,
            prepare_seconds=2.5,
            say=self.said.append,
            cancelled=lambda: self.cancelled,
            stopping=lambda: self.stopping,
            clock=lambda: self.now,
            writer=self.writer(1),
        ).run()
        return end.stage() if isinstance(end, FinishedAttempt) else end

    def sidecar(self) -> dict[str, Any]:
        """The staged sidecar."""
        found: dict[str, Any] = json.loads(
            (self.task.stage / f"{self.task.name}.json").read_bytes()
        )
        return found

    def notes(self) -> list[str]:
        """What people were told."""
        return [m.message for m in self.said if isinstance(m, Note)]


def test_checkpoints_come_in_their_interval(jobs: Jobs) -> None:
    """A state is copied every checkpoint_seconds, and never at the last iteration."""
    attempt = Trial(jobs("dog", iterations=90))
    attempt()
    assert attempt.dumped == [30.0, 60.0]


def test_checkpoints_take_two_per_cent_at_most(jobs: Jobs) -> None:
    """Where copying the state takes long the interval grows: after the first, painting has 98 % of the time."""
    attempt = Trial(jobs("dog", iterations=1000), dump_seconds=3.0)
    attempt()
    first, *later = attempt.dumped
    assert len(later) * 3.0 <= 0.02 * (attempt.now - first)
    assert len(attempt.dumped) >= 5
    assert attempt.sidecar()["seconds"]["checkpoints"] == len(attempt.dumped) * 3.0


def test_progress_is_rate_limited(jobs: Jobs) -> None:
    """Of 1000 steps that take 10 ms each, one in PROGRESS_SECONDS is reported, and the last."""
    attempt = Trial(jobs("dog", iterations=1000), step_seconds=0.01)
    attempt()
    reported = [m.done for m in attempt.said if isinstance(m, Progress)]
    assert len(reported) == pytest.approx(10.0 / module.PROGRESS_SECONDS, abs=2)
    assert reported[-1] == 1000


def test_the_loss_history_stays_short(jobs: Jobs) -> None:
    """The curve in the sidecar has at most HISTORY points, from the first iteration to the last."""
    attempt = Trial(jobs("dog", iterations=3000))
    attempt()
    curve = attempt.sidecar()["loss_history"]["iteration"]
    assert recorder.HISTORY_POINTS / 2 <= len(curve) <= recorder.HISTORY_POINTS
    assert (curve[0], curve[-1]) == (1, 3000)
    assert curve == sorted(curve)


def test_the_sidecar_names_the_cell_of_a_batch(jobs: Jobs) -> None:
    """A batch's picture has its batch, style and swept keys in its sidecar; any other picture has no such entry."""
    cell = {"name": "night", "style": "starry", "swept": {"tv_weight": 0.5}}
    swept = Trial(replace(jobs("swept"), batch=cell))
    single = Trial(jobs("single"))
    for attempt in (swept, single):
        attempt()
    assert swept.sidecar()["batch"] == cell
    assert "batch" not in single.sidecar()


def test_a_job_past_its_time_fails_for_good(jobs: Jobs) -> None:
    """A painting that is not finished after max_job_minutes ends with what it had reached and what to do."""
    attempt = Trial(jobs("dog", iterations=500, limits={"max_job_minutes": 2}))
    with pytest.raises(
        PaintingError, match="after 2 min, at iteration 121 of 500; choose a smaller"
    ):
        attempt()


def test_stopping_keeps_the_step_that_was_taken(jobs: Jobs) -> None:
    """A painting that is stopped goes on with the very next iteration and counts its seconds on."""
    attempt = Trial(jobs("dog", iterations=100))
    attempt.before_step = lambda step: setattr(attempt, "stopping", step.iteration == 40)
    assert attempt() == Stopped("cpu", "dog-id")
    attempt.stopping = False
    steps: list[int] = []
    attempt.before_step = lambda step: steps.append(step.iteration)
    assert isinstance(attempt(), Staged)
    assert steps == list(range(41, 101))
    sidecar = attempt.sidecar()
    assert sidecar["iterations"] == {"done": 100, "planned": 100, "resumed_after": [40]}
    assert sidecar["seconds"]["paint"] == 100.0
    curve = sidecar["loss_history"]["iteration"]
    assert curve == sorted(set(curve))


def test_stopping_at_the_last_iteration_finishes(jobs: Jobs) -> None:
    """A painting that has taken its last step is staged, even if somebody wants the end."""
    attempt = Trial(jobs("dog", iterations=20))
    attempt.before_step = lambda step: setattr(attempt, "stopping", step.iteration == 20)
    assert isinstance(attempt(), Staged)


def test_cancelling_leaves_no_new_checkpoint(jobs: Jobs) -> None:
    """A cancelled painting ends after its step and writes nothing."""
    attempt = Trial(jobs("dog"))
    attempt.before_step = lambda step: setattr(attempt, "cancelled", step.iteration == 5)
    assert attempt() == Stopped("cpu", "dog-id", cancelled=True)
    assert not attempt.task.checkpoint.exists()
    assert list(attempt.task.stage.iterdir()) == []


def test_a_damaged_checkpoint_is_ignored_and_said(jobs: Jobs) -> None:
    """A checkpoint with a wrong digest leads to a painting from the beginning, a note and the same in the sidecar."""
    attempt = Trial(jobs("dog"))
    attempt.task.checkpoint.write_bytes(b"nst-daemon checkpoint 1 0000\n{}")
    attempt()
    note = "the checkpoint is damaged; painting from the beginning"
    assert attempt.notes() == [note]
    assert note in attempt.sidecar()["notes"]
    assert attempt.sidecar()["iterations"]["resumed_after"] == []


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"settings": RenderSettings(seed=5)}, "settings"),
        ({"inputs": ()}, "inputs"),
    ],
)
def test_a_foreign_checkpoint_is_ignored_and_said(
    jobs: Jobs, change: dict[str, Any], differs: str
) -> None:
    """A checkpoint of other inputs or settings is not taken up, and people hear what differs."""
    attempt = Trial(jobs("dog"))
    attempt.before_step = lambda step: setattr(attempt, "stopping", step.iteration == 5)
    attempt()
    if "inputs" in change:
        change = {"inputs": tuple(replace(i, sha256="1" * 64) for i in attempt.task.inputs)}
    other = Trial(replace(attempt.task, **change))
    assert isinstance(other(), Staged)
    assert other.notes() == [
        f"the checkpoint belongs to a painting with other {differs}; painting from the beginning"
    ]


def test_another_number_of_threads_matters_only_where_bits_count(jobs: Jobs) -> None:
    """A deterministic painting begins anew with another number of threads; any other goes on."""
    for deterministic in (False, True):
        task = jobs.of(f"dog{deterministic}", b"{}", settings={"deterministic": deterministic})
        attempt = Trial(task)
        attempt.before_step = lambda step, a=attempt: setattr(a, "stopping", step.iteration == 5)  # type: ignore[misc]
        attempt()
        other = Trial(task, info={"threads": 7})
        other()
        assert bool(other.notes()) == deterministic


def test_a_checkpoint_that_cannot_be_written_costs_nothing_else(jobs: Jobs, tmp_path: Path) -> None:
    """Without room for a checkpoint people are told, and the picture is painted all the same."""
    attempt = Trial(replace(jobs("dog", iterations=40), checkpoint=tmp_path / "none" / "c"))
    assert isinstance(attempt(), Staged)
    assert "no checkpoint could be written" in attempt.notes()[0]


def test_nothing_is_written_after_the_answer(jobs: Jobs) -> None:
    """A checkpoint whose writing has begun is finished before the painting is said to be staged."""
    begun: list[str] = []
    finished: list[str] = []

    class Slow(ThreadPoolExecutor):
        """Takes its time over everything."""

        def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
            def slowly() -> T:
                time.sleep(0.05)  # slower than what follows, on the real clock
                done = fn(*args, **kwargs)
                finished.append(fn.__name__)
                return done

            begun.append(fn.__name__)
            return super().submit(slowly)

    Trial(jobs("dog", iterations=31), writer=Slow)()
    assert len(begun) > 2
    assert finished == begun


def test_the_sidecar_tells_the_whole_story(jobs: Jobs) -> None:
    """The sidecar holds inputs with digests, all settings, model, machine, timings, losses, divisors and notes."""
    attempt = Trial(jobs("dog", iterations=10))
    answer = attempt()
    sidecar = attempt.sidecar()
    assert isinstance(answer, Staged)
    assert sidecar["picture"]["sha256"] == answer.sha256
    assert [i["sha256"] for i in sidecar["inputs"]] == [i.sha256 for i in attempt.task.inputs]
    assert sidecar["settings"]["preset"] == "painting"
    assert sidecar["model"]["weights_sha256"] == "0" * 64
    assert sidecar["machine"]["device_name"] == "fake"
    assert sidecar["seconds"] == {
        "prepare": 2.5,
        "paint": 10.0,
        "checkpoints": 0.0,
        "looking": 0.0,
        "save": 0.0,
    }
    assert sidecar["losses"] == {"total": 0.1}
    assert sidecar["calibration"] == [{"tv": 3.0}]
    assert sidecar["notes"] == ["a fake"]
