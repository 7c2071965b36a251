"""Loss curves: when they reach a target, and their plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Curve = list[tuple[float, float]]  # (seconds, total), in the order of time


def reaches(curve: Curve, target: float) -> tuple[int, float] | None:
    """The first point at which the total is at most `target`: (number of the point, seconds)."""
    return next(((i, t) for i, (t, total) in enumerate(curve, 1) if total <= target), None)


def draw(curves: Mapping[str, Curve], path: Path, *, against: Sequence[str] = ("seconds",)) -> None:
    """Plot the totals on a log scale, against seconds or evaluations (the points of a curve), side by side."""
    figure, axes = plt.subplots(
        1, len(against), figsize=(5.5 * len(against) + 1, 4), sharey=True, squeeze=False
    )
    for axis, quantity in zip(axes[0], against, strict=True):
        for name, curve in curves.items():
            seconds = [t for t, _ in curve]
            x = seconds if quantity == "seconds" else range(1, len(curve) + 1)
            axis.plot(x, [total for _, total in curve], label=name)
        axis.set(xlabel=quantity, yscale="log")
    lowest = min(total for curve in curves.values() for _, total in curve)
    axes[0][0].set(ylabel="total loss", ylim=(0.9 * lowest, 10 * lowest))
    axes[0][0].legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
