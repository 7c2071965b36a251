"""Speed and the time left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from nst_daemon.service.progress_estimate import MAX_CURVE_POINTS, SPEED_WINDOW, ProgressEstimate


def paint(
    pace: ProgressEstimate, iterations: Sequence[int], sides: Sequence[float], cost: float
) -> list[float]:
    """Report after every iteration, each taking cost·side² seconds; the real time left at each report."""
    now, done, total = 0.0, 0, sum(iterations)
    whole = sum(n * cost * side**2 for n, side in zip(iterations, sides, strict=True))
    left = []
    for n, side in zip(iterations, sides, strict=True):
        for _ in range(n):
            now += cost * side**2
            done += 1
            pace.update(now, done, total)
            left.append(whole - now)
            if done == total // 2:
                assert pace.left == pytest.approx(whole - now, rel=1e-6)
                assert pace.percent == pytest.approx(100 * now / whole, abs=1)
    return left


@pytest.mark.parametrize(
    ("scales", "iterations", "passes", "counts", "sides"),
    [
        ("halves", (120, 80, 60), 0, (120, 80, 60), (0.25, 0.5, 1.0)),
        ("roots", (50, 20), 0, (50, 20, 20), (0.5, 0.5**0.5, 1.0)),
        ((0.64, 1.0), (500, 200), 0, (500, 200), (0.64, 1.0)),
        ((1.0,), (30,), 0, (30,), (1.0,)),
        ("halves", (30, 20), 2, (30, 20, 20, 20), (0.5, 1.0, 1.0, 1.0)),
        ((0.64, 1.0), (50, 20), 2, (50, 20, 20, 20), (0.64, 1.0, 1.0, 1.0)),
    ],
)
def test_time_left_counts_what_finer_scales_cost(
    scales: str | tuple[float, ...],
    iterations: tuple[int, ...],
    passes: int,
    counts: tuple[int, ...],
    sides: tuple[float, ...],
) -> None:
    """Where an iteration costs its area, the time left is right from the coarsest scale on."""
    pace = ProgressEstimate(scales, iterations, passes=passes)
    left = paint(pace, counts, sides, cost=0.2)
    assert left[-1] == pytest.approx(0, abs=1e-9)
    assert pace.left == pytest.approx(0, abs=1e-9)
    assert pace.percent == 100


def test_speed_forgets_the_distant_past() -> None:
    """The speed is that of the last minute, so a picture that is taken up again does not count as fast."""
    pace = ProgressEstimate((1.0,), (1000,))
    pace.update(0, 0, 1000)
    pace.update(1, 400, 1000)
    for i in range(1, 200):
        pace.update(1 + i, 400 + 2 * i, 1000)
    assert pace.speed == pytest.approx(2.0)
    assert pace.left == pytest.approx((1000 - 798) / 2)
    assert SPEED_WINDOW < 199


def test_nothing_is_claimed_before_it_is_known() -> None:
    """Before the first report there is nothing, and after a single one neither speed nor time left."""
    pace = ProgressEstimate("halves", (10,))
    assert (pace.done, pace.total, pace.percent, pace.speed, pace.left) == (0, 0, 0, None, None)
    pace.update(0, 3, 20)
    assert pace.speed is None
    assert pace.left is None


def test_a_time_beyond_a_week_is_unknown() -> None:
    """At one iteration in 1000 seconds, 605 more are more than a week, and 604 are not."""
    pace = ProgressEstimate((1.0,), (606,))
    pace.update(0, 0, 606)
    pace.update(1000, 1, 606)
    assert pace.left is None
    pace.update(2000, 2, 606)
    assert pace.left == pytest.approx(604_000)


def test_another_plan_does_no_harm() -> None:
    """A painter whose plan is not that of the settings still gets a percentage from 0 to 100."""
    pace = ProgressEstimate((0.5, 1.0), (7, 3))
    for done in range(26):
        pace.update(done, done, 25)
        assert 0 <= pace.percent <= 100


def test_the_curve_stays_small() -> None:
    """However long a painting takes its curve has few points, the first and the newest among them; NaN is none."""
    pace = ProgressEstimate("halves", (1000,))
    for done in range(1, 1001):
        pace.update(float(done), done, 1000, math.nan if done == 500 else 1 / done)
    assert MAX_CURVE_POINTS / 3 < len(pace.curve) <= MAX_CURVE_POINTS
    assert pace.curve[0] == (1, 1.0)
    assert pace.curve[-1] == (1000, 0.001)
    assert all(math.isfinite(loss) for _, loss in pace.curve)
