"""`NAME.loss.png`: the loss curve, against iterations and against seconds."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nst_daemon.report.history import Sample, sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Size in pixels, and dots per inch. The text is large, so that a thumbnail remains readable.
PLOT_WIDTH, PLOT_HEIGHT, DPI = 1200, 560, 100


def load() -> None:
    """Import matplotlib. It takes a second, so callers that will need a plot can do it early."""
    # Without a usable home it makes a temporary folder and says so at length.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib.figure  # noqa: F401, PLC0415 (see above)


def draw(history: Sequence[Sample], weights: Mapping[str, float]) -> bytes:
    """The plot as PNG; see `plot`."""
    buffer = io.BytesIO()
    plot(history, weights).savefig(buffer, format="png")
    return buffer.getvalue()


def plot(history: Sequence[Sample], weights: Mapping[str, float]) -> Figure:
    """Plot the total and the contribution of each term.

    Args:
        history: the samples.
        weights: weight of each term by name, in the order of the legend. Terms of weight 0 are left out. A term is
            multiplied by its weight, so that the curves add up to the total.
    """
    load()
    from matplotlib.figure import Figure  # noqa: PLC0415 (as in `load`)

    # Not pyplot: it looks for a display and keeps every figure. A plain Figure is drawn by Agg.
    figure = Figure(figsize=(PLOT_WIDTH / DPI, PLOT_HEIGHT / DPI), dpi=DPI)
    left, right = figure.subplots(1, 2, sharey=True)
    # An automatic layout would draw everything twice.
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
    return figure


def _curves(
    axes: Axes, x: Sequence[float], history: Sequence[Sample], weights: Mapping[str, float]
) -> None:
    terms = [name for name, weight in weights.items() if weight and name in history[0].losses]
    styles = [name for name in terms if name.startswith("style")]
    colours = _colours(styles) | {"tv": "#8c8c8c"}
    mark = "o" if len(history) == 1 else None  # a line of one point is invisible
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
    """The lowest loss to show. (A painting that starts with the content has almost no content loss at first.)"""
    later = history[len(history) // 2 :]
    values = [
        weights.get(name, 0.0) * loss for sample in later for name, loss in sample.losses.items()
    ]
    lowest = min((value for value in values if value > 0), default=None)
    return lowest and lowest / 2


def _colours(layers: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Colours from yellow for the layer nearest to the pixels to dark red for the deepest."""
    last = max(len(layers) - 1, 1)
    return {
        layer: (0.95 - 0.45 * i / last, 0.7 - 0.7 * i / last, 0.1 + 0.15 * i / last)
        for i, layer in enumerate(layers)
    }


def _mark(axes: Axes, x: float, text: str) -> None:
    """Mark the beginning of a scale."""
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
