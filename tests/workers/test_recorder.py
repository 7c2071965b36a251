"""What a painting leaves behind, on a clock that the test holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image

from nst_daemon.config import Outputs
from nst_daemon.report import loss_plot
from nst_daemon.workers.messages import Staged, Stopped
from nst_daemon.workers.process import recorder
from nst_daemon.workers.process.recorder import Recorder
from tests import fakes
from tests.workers.conftest import Jobs
from tests.workers.test_attempt import Trial

OUTPUTS = Outputs()


@dataclass
class Watched:
    """A record of a painting whose every look takes as long as the test says."""

    folder: Path
    look_seconds: float = 0.0
    now: float = 0.0
    looks: list[tuple[float, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.preview = self.folder / "previews" / "starry" / "dog.jpg"
        self.recorder = Recorder(
            self.sketch,
            outputs=OUTPUTS,
            preview=self.preview,
            clock=lambda: self.now,
            note=self.notes.append,
        )

    def sketch(self, step: fakes.Step, side: int) -> Image.Image:
        """A picture whose colour is the time."""
        self.looks.append((self.now, side))
        self.now += self.look_seconds
        return Image.new("RGB", (8, 6), (int(self.now) % 256, 0, 0))

    def paint(self, iterations: int, step_seconds: float, total: int = 10**6) -> None:
        """So many steps of a painting of `total`."""
        for i in range(1, iterations + 1):
            self.now += step_seconds
            self.recorder.see(fakes.Step(i, total, "00" * 32, 1 / i), self.now)


def test_looking_takes_two_per_cent_at_most(tmp_path: Path) -> None:
    """However long a look takes, time-lapse and preview together leave the painting 95 % of the time."""
    for look_seconds in (0.01, 0.3, 5.0):
        watched = Watched(tmp_path, look_seconds)
        watched.paint(5000, 0.2)
        assert len(watched.looks) > 4
        assert watched.recorder.seconds == pytest.approx(len(watched.looks) * look_seconds)
        assert watched.recorder.seconds < 0.05 * watched.now + 2 * look_seconds


def test_the_preview_is_replaced_every_few_seconds(tmp_path: Path) -> None:
    """In a minute of painting the preview is written 20 times, and no part of one is left."""
    watched = Watched(tmp_path)
    watched.paint(600, 0.1)
    previews = [when for when, side in watched.looks if side == recorder.PREVIEW_SIDE]
    assert len(previews) == pytest.approx(60 / recorder.PREVIEW_SECONDS, abs=1)
    assert [path.name for path in watched.preview.parent.iterdir()] == ["dog.jpg"]
    with Image.open(watched.preview) as image:
        image.load()
        assert image.format == "JPEG"


def test_a_preview_that_cannot_be_written_is_one_note(tmp_path: Path) -> None:
    """Where the preview's folder cannot be made people hear of it once, and the painting goes on."""
    (tmp_path / "previews").write_text("in the way")
    watched = Watched(tmp_path)
    watched.paint(600, 0.1)
    assert watched.notes == ["the live preview cannot be written: Not a directory"]


def test_a_loss_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    """A sample with NaN, after which the engine goes back, is not in the history."""
    watched = Watched(tmp_path)
    for i, loss in ((1, 2.0), (2, float("nan")), (3, 1.0)):
        watched.now += 1
        watched.recorder.see(fakes.Step(i, 10, "00" * 32, loss), watched.now)
    assert [sample.iteration for sample in watched.recorder.history] == [1, 3]


def test_early_iterations_of_each_scale_are_in_the_history(tmp_path: Path) -> None:
    """Without half a second between steps, the curve has iterations 1, 2, 4, 8, … of each scale and each pass."""
    watched = Watched(tmp_path)
    for i in range(1, 41):
        scale = 1 + (i > 20) + (i > 30)
        size = (32, 24) if scale == 1 else (64, 48)
        watched.recorder.see(fakes.Step(i, 40, "00" * 32, 1 / i, size, scale), i * 0.001)
    found = [(sample.iteration, sample.scale) for sample in watched.recorder.history]
    assert [i for i, scale in found if scale == 1] == [1, 2, 4, 8, 16]
    assert [i for i, scale in found if scale == 2] == [21, 22, 24, 28]
    assert [i for i, scale in found if scale == 3] == [31, 32, 34, 38, 40]


def test_curve_and_time_lapse_stand_beside_the_picture(jobs: Jobs) -> None:
    """The set holds JSON, loss.png and progress.webp, the picture last; a name with dots keeps them."""
    task = replace(jobs("dog.v2", iterations=30), outputs=OUTPUTS)
    answer = Trial(task)()
    assert isinstance(answer, Staged)
    names = ["dog.v2.json", "dog.v2.loss.png", "dog.v2.progress.webp", "dog.v2.png"]
    assert list(answer.files) == names
    assert sorted(path.name for path in task.stage.iterdir()) == sorted(names)
    with Image.open(task.stage / "dog.v2.progress.webp") as image:
        assert getattr(image, "n_frames", 1) == 30


def test_each_can_be_switched_off(jobs: Jobs) -> None:
    """Without loss_plot and progress there are only JSON and picture."""
    answer = Trial(replace(jobs("dog"), outputs=Outputs(loss_plot=False, progress=False)))()
    assert isinstance(answer, Staged)
    assert answer.files == ("dog.json", "dog.png")


def test_a_curve_that_cannot_be_drawn_costs_nothing_else(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where matplotlib fails the picture is staged with a note, also in its sidecar."""

    def fail(*_: object) -> bytes:
        raise RuntimeError("no font")

    monkeypatch.setattr(loss_plot, "draw", fail)
    attempt = Trial(replace(jobs("dog"), outputs=OUTPUTS))
    answer = attempt()
    assert isinstance(answer, Staged)
    assert "dog.loss.png" not in answer.files
    note = "dog.loss.png could not be written: no font"
    assert attempt.notes() == [note]
    assert note in attempt.sidecar()["notes"]


def test_a_resumed_painting_keeps_its_curve_and_its_frames(jobs: Jobs) -> None:
    """What was sampled and shown before an interruption is in the curve and the time-lapse of the whole."""
    attempt = Trial(replace(jobs("dog", iterations=30), outputs=OUTPUTS))
    attempt.before_step = lambda step: setattr(attempt, "stopping", step.iteration == 12)
    assert isinstance(attempt(), Stopped)
    attempt.stopping = False
    attempt.before_step = lambda step: None
    assert isinstance(attempt(), Staged)
    assert attempt.sidecar()["loss_history"]["iteration"] == list(range(1, 31))
    assert attempt.sidecar()["loss_history"]["seconds"] == [float(i) for i in range(1, 31)]
    with Image.open(attempt.task.stage / "dog.progress.webp") as image:
        assert getattr(image, "n_frames", 1) == 30
    assert json.loads((attempt.task.stage / "dog.json").read_bytes())["iterations"] == {
        "done": 30, "planned": 30, "resumed_after": [12]
    }  # fmt: skip
