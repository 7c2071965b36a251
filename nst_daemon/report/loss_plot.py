"""`NAME.loss.png`: how the loss fell, against iterations and against seconds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nst_daemon.report.history import Sample, sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Pixels; the letters are large, so that a thumbnail can still be read.
WIDTH, HEIGHT, DPI = 1200, 560, 100


def load() -> None:
    """Import matplotlib, which takes a second; whoever can foresee a plot may do it beforehand."""
    import matplotlib.figure  # noqa: F401, PLC0415 (see above)


def draw(history: Sequence[Sample], weights: Mapping[str, float]) -> bytes:
    """A PNG of the total and of what each term contributes to it.

    weights: of the terms to show, by name, in the order of the legend; those with weight 0 are left out. A term is
    drawn multiplied by its weight, so that the curves add up to the total.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 (as in `load`)

    # Figure, and not pyplot, which looks for a display and keeps every figure: without one this is Agg.
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI)
    left, right = figure.subplots(1, 2, sharey=True)
    # Set by hand: an automatic layout draws everything twice.
    figure.subplots_adjust(left=0.075, right=0.82, bottom=0.12, top=0.97, wspace=0.06)
    _curves(left, [sample.iteration for sample in history], history, weights)
    _curves(right, [sample.seconds for sample in history], history, weights)
    for iteration, seconds, side in sides(history):
        _mark(left, iteration, f"{side} px")
        _mark(right, seconds, f"{side} px")
    left.set_xlabel("iterations", fontsize=15)
    right.set_xlabel("seconds", fontsize=15)
    left.set_ylabel("loss", fontsize=15)
    left.set_ylim(bottom=_floor(history, weights))
    _legend(figure, left)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _curves(
    axes: Axes, x: Sequence[float], history: Sequence[Sample], weights: Mapping[str, float]
) -> None:
    terms = [name for name, weight in weights.items() if weight and name in history[0].losses]
    styles = [name for name in terms if name.startswith("style")]
    colours = _colours(styles) | {"tv": "#8c8c8c"}
    mark = "o" if len(history) == 1 else None  # a line of one point cannot be seen
    for name in terms:
        y = [weights[name] * sample.losses[name] for sample in history]
        axes.plot(x, y, marker=mark, lw=1.8, color=colours.get(name, "#1f77b4"), label=name)
    total = [sample.losses["total"] for sample in history]
    axes.plot(x, total, marker=mark, lw=3, color="black", label="total")
    axes.set_yscale("log")
    axes.tick_params(labelsize=13)
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)


def _floor(history: Sequence[Sample], weights: Mapping[str, float]) -> float | None:
    """The lowest loss to show: painting that begins with the content has next to no content loss at first."""
    later = history[len(history) // 2 :]
    values = [
        weights.get(name, 0.0) * loss for sample in later for name, loss in sample.losses.items()
    ]
    lowest = min((value for value in values if value > 0), default=None)
    return lowest and lowest / 2


def _colours(layers: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """From yellow for what is nearest to the pixels to dark red for the deepest layer."""
    last = max(len(layers) - 1, 1)
    return {
        layer: (0.95 - 0.45 * i / last, 0.7 - 0.7 * i / last, 0.1 + 0.15 * i / last)
        for i, layer in enumerate(layers)
    }


def _mark(axes: Axes, x: float, text: str) -> None:
    """Where a scale begins."""
    axes.axvline(x, color="#4d4d4d", lw=1, ls=":")
    axes.annotate(
        text,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        fontsize=12,
        color="#4d4d4d",
    )


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(0.825, 0.98),
        fontsize=13,
        frameon=False,
    )
