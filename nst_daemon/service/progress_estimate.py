"""How fast a picture is painted, and when it will be finished.

Iterations do not cost the same: where a picture is painted coarse to fine, one at half the size costs a quarter. So
work is counted in iterations at the full size.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

#: The speed is measured over this many seconds.
SPEED_WINDOW = 60.0
#: A longer time left, in seconds, is that of a picture that has just begun or hardly continues: it is unknown.
LONGEST_LEFT = 7 * 86400.0
#: The loss curve keeps at most this many points.
MAX_CURVE_POINTS = 120
#: More scales than any picture has: the square root of 2 to this power is 2,896.
MAX_SCALES = 23


class ProgressEstimate:
    """The progress of one attempt at a picture.

    Args:
        scales: `RenderSettings.scales`.
        iterations: `RenderSettings.iterations`.
        passes: `RenderSettings.layer_passes`.

    Attributes:
        total: Iterations over all scales; 0 before the first `update`.
        curve: The points (iteration, total loss) so far.
    """

    def __init__(
        self, scales: str | Sequence[float], iterations: Sequence[int], *, passes: int = 0
    ) -> None:
        self._scales = scales
        self._passes = passes
        self._iterations = iterations
        self._samples: deque[tuple[float, int, float]] = deque()  # seconds, iteration, work
        self.total = 0
        self.curve: list[tuple[int, float]] = []

    def update(self, now: float, done: int, total: int, loss: float = math.nan) -> None:
        """Record progress.

        Args:
            now: Monotonic seconds.
            done: Iterations that are painted.
            total: Iterations over all scales.
            loss: The newest total loss; NaN if it is unknown.
        """
        self.total = total
        if math.isfinite(loss):
            self.curve.append((done, float(f"{loss:.4g}")))
            if len(self.curve) > MAX_CURVE_POINTS:
                del self.curve[1:-1:2]
        self._samples.append((now, done, self._work(done)))
        while len(self._samples) > 2 and now - self._samples[1][0] >= SPEED_WINDOW:
            self._samples.popleft()

    @property
    def done(self) -> int:
        """Iterations that are painted so far."""
        return self._samples[-1][1] if self._samples else 0

    @property
    def percent(self) -> int:
        """The share of the work that is done, in percent."""
        return int(100 * self._work(self.done) / self._work(self.total)) if self.total else 0

    @property
    def speed(self) -> float | None:
        """Recent iterations per second; None before there are two samples."""
        if len(self._samples) < 2:
            return None
        (began, first, _), (now, last, _) = self._samples[0], self._samples[-1]
        return (last - first) / (now - began) if now > began else None

    @property
    def left(self) -> float | None:
        """Seconds until the end at the recent speed; None while it is unknown."""
        if len(self._samples) < 2:
            return None
        (began, _, first), (now, _, last) = self._samples[0], self._samples[-1]
        if now <= began or last <= first:
            return None
        left = (self._work(self.total) - last) * (now - began) / (last - first)
        return left if left <= LONGEST_LEFT else None

    def _work(self, done: int) -> float:
        """The cost of the first `done` iterations, in iterations at the full size."""
        counts = self._counts()
        sides = self._sides(len(counts))
        starts = [0, *accumulate(counts)]
        spent = [max(0, min(done - start, n)) for start, n in zip(starts, counts, strict=False)]
        return sum(n * side**2 for n, side in zip(spent, sides, strict=True))

    def _counts(self) -> list[int]:
        """Iterations at each scale and pass: as many as it takes to reach the total."""
        counts: list[int] = []
        while sum(counts) < self.total and len(counts) <= MAX_SCALES + self._passes:
            counts.append(self._iterations[min(len(counts), len(self._iterations) - 1)])
        # A renderer with other scales than these is treated as if it had one.
        return counts if sum(counts) == self.total else [self.total]

    def _sides(self, count: int) -> list[float]:
        """The side of each scale and pass, as a fraction of the full size."""
        passes = max(0, min(self._passes, count - 1))
        scales = count - passes
        if isinstance(self._scales, str):
            ratio = 2.0 if self._scales == "halves" else 2.0**0.5
            sides = [ratio ** (i - scales + 1) for i in range(scales)]
        else:
            sides = list(self._scales)[-scales:]
            sides = [1.0] * (scales - len(sides)) + sides
        return sides + [1.0] * passes
