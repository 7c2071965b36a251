"""The history of a painting: samples of its losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """The losses after an iteration.

    Attributes:
        iteration: number of the iteration, from 1.
        seconds: painting time until then.
        side: the longer side of the picture at that scale, in pixels.
        losses: unweighted terms by name, and `total`.
    """

    iteration: int
    seconds: float
    side: int
    losses: Mapping[str, float]


def columns(history: Sequence[Sample]) -> dict[str, list[float]]:
    """The samples as columns of equal length for JSON: iteration, seconds, side, then each loss with six digits."""
    names = list(history[0].losses) if history else []
    return {
        "iteration": [sample.iteration for sample in history],
        "seconds": [round(sample.seconds, 3) for sample in history],
        "side": [sample.side for sample in history],
        **{name: [float(f"{s.losses[name]:.6g}") for s in history] for name in names},
    }


def thinned(history: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` samples. Every second one is removed, repeatedly if needed; the last one is kept."""
    while len(history) > most:
        history = [*history[:-1:2], history[-1]]
    return list(history)


def sides(history: Iterable[Sample]) -> list[tuple[int, float, int]]:
    """The beginning of each scale: (iteration, seconds, side)."""
    found: list[tuple[int, float, int]] = []
    for sample in history:
        if not found or found[-1][2] != sample.side:
            found.append((sample.iteration, sample.seconds, sample.side))
    return found
