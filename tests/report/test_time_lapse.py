"""The time-lapse and the loss curve."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.report import loss_plot, time_lapse
from nst_daemon.report.history import Sample, columns, sides, thinned
from nst_daemon.report.time_lapse import TimeLapse

SCENE, PAINTING = draw_scene(80, 60), draw_painting(80, 60)


def shown(data: bytes) -> list[Image.Image]:
    """The frames of an animation."""
    with Image.open(io.BytesIO(data)) as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(image.convert("RGB"))
        return frames


def steps(frames: Sequence[Image.Image]) -> list[float]:
    """The difference of each frame from the previous one, 0–255."""
    arrays = [np.asarray(f, dtype=np.float64) for f in frames]
    return [float(np.sqrt(np.square(a - b).mean())) for a, b in pairwise(arrays)]


def test_frames_are_spaced_by_change() -> None:
    """If a painting changes more and more slowly, the frames still differ by similar amounts."""
    lapse = TimeLapse()
    shares = [1 - 0.5 ** (i / 40) for i in range(400)]
    for share in shares:
        lapse.add(Image.blend(SCENE, PAINTING, share))
    kept = steps(shown(lapse.encode()))
    even = steps([Image.blend(SCENE, PAINTING, share) for share in shares[::10]])
    assert len(kept) == time_lapse.FRAMES - 1
    assert max(kept) < 3 * np.median(kept), "spaced by count it would be more"
    assert max(even) > 10 * np.median(even)


def test_it_begins_and_ends_with_the_picture() -> None:
    """The first frame is the first picture, and the last frame is the last picture."""
    lapse = TimeLapse()
    for i in range(200):
        lapse.add(Image.blend(SCENE, PAINTING, i / 199))
    assert len(lapse.frames) == time_lapse.FRAMES
    for picture, frame in ((SCENE, lapse.frames[0]), (PAINTING, lapse.frames[-1])):
        alone = TimeLapse()
        alone.add(picture)
        assert (frame,) == alone.frames


def test_what_does_not_change_takes_no_frame() -> None:
    """A hundred equal pictures make one frame."""
    lapse = TimeLapse()
    for _ in range(100):
        lapse.add(SCENE)
    assert len(lapse.frames) == 1
    assert len(shown(lapse.encode())) == 1


def test_it_goes_on_where_it_was_interrupted() -> None:
    """A resumed time-lapse begins with the first picture of the first attempt."""
    first = TimeLapse()
    for i in range(50):
        first.add(Image.blend(SCENE, PAINTING, i / 99))
    second = TimeLapse(first.frames)
    for i in range(50, 100):
        second.add(Image.blend(SCENE, PAINTING, i / 99))
    frames = shown(second.encode())
    assert steps([SCENE, frames[0]])[0] < 20
    assert max(steps(frames)) < 3 * np.median(steps(frames))


def test_the_worst_pictures_stay_below_two_megabytes() -> None:
    """Forty frames of noise, at the full size, are encoded within the limit."""
    noise = np.random.default_rng(0)
    lapse = TimeLapse()
    size = (time_lapse.SIDE, time_lapse.SIDE, 3)
    for _ in range(time_lapse.FRAMES):
        lapse.add(Image.fromarray(noise.integers(0, 256, size, dtype=np.uint8)))
        # Noise is grey when it is small: only a change of brightness tells the frames apart.
        lapse.add(Image.fromarray(noise.integers(0, 100, size, dtype=np.uint8)))
    data = lapse.encode()
    assert len(shown(data)) == time_lapse.FRAMES
    assert len(data) <= time_lapse.SIZE_LIMIT


HISTORY = tuple(
    Sample(
        i, i * 0.1, 64 if i < 30 else 128, {"total": 3 / i, "content relu4_2": 1 / i, "tv": 2 / i}
    )
    for i in range(1, 60)
)


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:1]], ids=["many", "one"])
def test_the_plot_has_a_curve_for_each_term_that_counts(history: tuple[Sample, ...]) -> None:
    """Both axes have the total and each term of positive weight, multiplied by its weight."""
    weights = {"content relu4_2": 0.5, "style relu1_1": 0.0, "tv": 2.0}
    figure = loss_plot.plot(history, weights)
    data = loss_plot.draw(history, weights)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (loss_plot.PLOT_WIDTH, loss_plot.PLOT_HEIGHT)
    for axes in figure.axes:
        curves = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert {name for name in curves if not str(name).startswith("_")} == {
            "total", "content relu4_2", "tv"
        }  # fmt: skip
        assert list(curves["tv"]) == [2 * sample.losses["tv"] for sample in history]
        assert axes.get_yscale() == "log"
    iterations, seconds = figure.axes
    assert list(iterations.lines[0].get_xdata()) == [sample.iteration for sample in history]
    assert list(seconds.lines[0].get_xdata()) == [sample.seconds for sample in history]
    marks = [text.get_text() for text in iterations.texts]
    assert marks == [f"{side} px" for _, _, side in sides(history)]


def test_the_plot_leaves_out_where_nothing_is_to_be_seen() -> None:
    """A content loss of 1e-13 at the start does not set the lower limit of the plot."""
    samples = [
        Sample(1, 0.1, 64, {"total": 1.0, "tv": 1e-13}),
        Sample(2, 0.2, 64, {"total": 1.0, "tv": 0.1}),
    ]
    for axes in loss_plot.plot(samples, {"tv": 2.0}).axes:
        assert axes.get_ylim()[0] == pytest.approx(0.1)


def test_passes_of_one_size_are_marked() -> None:
    """A pass at the size of the scale before it has a mark of its own, as its losses are of another kind."""
    samples = [Sample(i, i / 10, 64, {"total": 1.0}, scale=1 + i // 3) for i in range(7)]
    assert sides(samples) == [(0, 0.0, 64), (3, 0.3, 64), (6, 0.6, 64)]
    assert columns(samples)["scale"] == [1, 1, 1, 2, 2, 2, 3]


def test_a_thinned_history_keeps_its_ends() -> None:
    """Thinning keeps the first and the last sample, and the order."""
    for most in (2, 10, 58):
        kept = thinned(HISTORY, most)
        assert 2 <= len(kept) <= most
        assert (kept[0], kept[-1]) == (HISTORY[0], HISTORY[-1])
        assert kept == sorted(kept)


def test_columns_are_of_one_length() -> None:
    """The sidecar's columns have one number of six digits for each sample."""
    table = columns(HISTORY)
    assert {len(values) for values in table.values()} == {len(HISTORY)}
    assert table["iteration"] == [s.iteration for s in HISTORY]
    assert table["total"][6] == 0.428571
    assert columns(()) == {"iteration": [], "seconds": [], "side": [], "scale": []}
