"""How fast a picture comes along, and when it will be done.

Iterations are a bad measure of time where a picture is painted coarse to fine: one at half the size costs a quarter.
So the work done is counted in iterations at the full size, and speed is measured in that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

#: Seconds of the past that the speed is measured over.
WINDOW = 60.0
#: So many points of the loss curve are kept at most.
MOST_POINTS = 120
#: More than any picture has: the square root of 2 to this power is 2,896.
MOST_SCALES = 23


class ProgressEstimate:
    """The progress of one attempt at a picture.

    scales, iterations: those of the job's RenderSettings; total, done: iterations over all scales, 0 before the first
    `update`, whose clock only goes forward; curve: (iteration, total loss), so far.
    """

    def __init__(self, scales: str | Sequence[float], iterations: Sequence[int]) -> None:
        self._scales = scales
        self._iterations = iterations
        self._samples: deque[tuple[float, int, float]] = deque()  # seconds, iteration, work
        self.total = 0
        self.curve: list[tuple[int, float]] = []

    def update(self, now: float, done: int, total: int, loss: float = math.nan) -> None:
        """At `now` (seconds) `done` of `total` iterations are painted; loss: the newest, if it is known and finite."""
        self.total = total
        if math.isfinite(loss):
            self.curve.append((done, float(f"{loss:.4g}")))
            if len(self.curve) > MOST_POINTS:
                del self.curve[1:-1:2]
        self._samples.append((now, done, self._work(done)))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW:
            self._samples.popleft()

    @property
    def done(self) -> int:
        """Iterations that are painted."""
        return self._samples[-1][1] if self._samples else 0

    @property
    def percent(self) -> int:
        """How much of the work is done."""
        return int(100 * self._work(self.done) / self._work(self.total)) if self.total else 0

    @property
    def speed(self) -> float | None:
        """Iterations per second of late; None before there are two samples."""
        if len(self._samples) < 2:
            return None
        (began, first, _), (now, last, _) = self._samples[0], self._samples[-1]
        return (last - first) / (now - began) if now > began else None

    @property
    def left(self) -> float | None:
        """Seconds until the end at the speed of late; None while that is unknown."""
        if len(self._samples) < 2:
            return None
        (began, _, first), (now, _, last) = self._samples[0], self._samples[-1]
        if now <= began or last <= first:
            return None
        return (self._work(self.total) - last) * (now - began) / (last - first)

    def _work(self, done: int) -> float:
        """What so many iterations cost, in iterations at the full size."""
        counts = self._counts()
        sides = self._sides(len(counts))
        starts = [0, *accumulate(counts)]
        spent = [max(0, min(done - start, n)) for start, n in zip(starts, counts, strict=False)]
        return sum(n * side**2 for n, side in zip(spent, sides, strict=True))

    def _counts(self) -> list[int]:
        """Iterations at each scale. How many scales there are follows from the total, which is their sum."""
        counts: list[int] = []
        while sum(counts) < self.total and len(counts) <= MOST_SCALES:
            counts.append(self._iterations[min(len(counts), len(self._iterations) - 1)])
        # A painter with a plan of its own is taken to paint at one scale.
        return counts if sum(counts) == self.total else [self.total]

    def _sides(self, scales: int) -> list[float]:
        """The side of each scale, as a fraction of the full one's."""
        if isinstance(self._scales, str):
            ratio = 2.0 if self._scales == "halves" else 2.0**0.5
            return [ratio ** (i - scales + 1) for i in range(scales)]
        sides = list(self._scales)[-scales:]
        return [1.0] * (scales - len(sides)) + sides
