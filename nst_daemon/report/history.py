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
        losses: unweighted terms by name, and `total`; comparable only within a scale.
        scale: number of the scale or pass, from 1; several may have one size.
    """

    iteration: int
    seconds: float
    side: int
    losses: Mapping[str, float]
    scale: int = 1


def columns(history: Sequence[Sample]) -> dict[str, list[float]]:
    """The samples as equal columns for JSON: iteration, seconds, side, scale, then each loss with six digits."""
    names = list(history[0].losses) if history else []
    return {
        "iteration": [sample.iteration for sample in history],
        "seconds": [round(sample.seconds, 3) for sample in history],
        "side": [sample.side for sample in history],
        "scale": [sample.scale for sample in history],
        **{name: [float(f"{s.losses[name]:.6g}") for s in history] for name in names},
    }


def thinned(history: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` samples. Every second one is removed, repeatedly if needed; the last one is kept."""
    while len(history) > most:
        history = [*history[:-1:2], history[-1]]
    return list(history)


def sides(history: Iterable[Sample]) -> list[tuple[int, float, int]]:
    """The beginning of each scale or pass: (iteration, seconds, side)."""
    found: list[tuple[int, float, int]] = []
    before = None
    for sample in history:
        if before != (sample.scale, sample.side):
            found.append((sample.iteration, sample.seconds, sample.side))
        before = (sample.scale, sample.side)
    return found
