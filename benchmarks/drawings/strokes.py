"""Strokes of brushes and knives, and the fields that they follow.

A stroke is a path through a field of directions. Its bristles are drawn as lines beside the path, each with a tone and
a height of its own; the heights are lit afterwards, which is what makes the paint look thick. Lengths are in mean sides
of the picture: the square root of width times height.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.drawings.raster import Array, grid, noise, smoothstep, to_array, to_image

LATTICE = 160  # cells to a mean side in the fields of directions and tones: finer than any stroke


@dataclass(frozen=True)
class Brush:
    """A brush or a knife."""

    length: float  # of a stroke
    width: float
    bristles: int
    streak: float  # standard deviation of the tone from bristle to bristle, as a part of the tone
    ragged: float  # the part of its run that a bristle may lack at either end
    cover: float  # strokes over each point, on average


class Canvas:
    """Paint, and its height as the fourth channel, while strokes are laid on it."""

    def __init__(self, width: int, height: int) -> None:
        self.unit = sqrt(width * height)  # pixels
        self.extent = (width / self.unit, height / self.unit)
        self.image = Image.new("RGBA", (width, height))
        self._draw = ImageDraw.Draw(self.image)

    def prime(self, colours: Array) -> None:
        """Cover the canvas thinly with `colours` (rows, columns, 3), so that no gap between strokes is bare."""
        ground = to_image(colours).resize(self.image.size, Image.Resampling.BICUBIC)
        ground.putalpha(40)
        self.image.paste(ground)

    def scatter(self, rng: np.random.Generator, brush: Brush) -> Array:
        """Middles of strokes, (n, 2): one at random in each cell of a lattice, in random order."""
        cell = sqrt(brush.length * brush.width / brush.cover)
        columns, rows = (max(2, round(side / cell)) for side in self.extent)
        cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
        points = (cells + rng.random(cells.shape)) / (columns, rows)
        return rng.permutation(points * self.extent)

    def lay(self, rng: np.random.Generator, brush: Brush, paths: Array, colours: Array) -> None:
        """Draw strokes along `paths` (n, points, 2), the first one undermost.

        `colours` (n, 2, 3) are those at a stroke's two edges; they mix across it.
        """
        runs = _bristle_runs(rng, brush, paths) * self.unit
        strokes, bristles, points, _ = runs.shape
        paints = _bristle_paints(rng, brush, colours)
        lacking = rng.random((2, strokes, bristles)) * brush.ragged * points
        first, last = lacking[0].astype(int), points - lacking[1].astype(int)
        thickness = max(1, round(1.4 * brush.width * self.unit / bristles))
        for stroke in range(strokes):
            for bristle in range(bristles):
                run = runs[stroke, bristle, first[stroke, bristle] : last[stroke, bristle]]
                paint = tuple(paints[stroke, bristle].tolist())
                self._draw.line(run.ravel().tolist(), fill=paint, width=thickness)

    def lit(self, relief: float, gloss: float) -> Array:
        """The painting under a lamp at the upper left: (H, W, 3)."""
        blurred = self.image.filter(ImageFilter.GaussianBlur(self.unit / 1100))
        down, right = np.gradient(to_array(blurred)[..., 3])
        slope = np.asarray((down + right) * self.unit / 1000)
        light = 1 + relief * np.tanh(4 * slope)
        shine = gloss * smoothstep(0.05, 0.25, slope)
        paint = to_array(self.image)[..., :3]
        return np.asarray(paint * light[..., None] + shine[..., None])


def _bristle_runs(rng: np.random.Generator, brush: Brush, paths: Array) -> Array:
    """Lines of the bristles along each path, (n, bristles, points, 2), under varying pressure."""
    along = np.gradient(paths, axis=1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    widths = brush.width * rng.uniform(0.7, 1.15, (len(paths), 1))
    offsets = widths * np.linspace(-0.5, 0.5, brush.bristles)
    return np.asarray(paths[:, None] + across[:, None] * offsets[..., None, None])


def _bristle_paints(
    rng: np.random.Generator, brush: Brush, colours: Array
) -> npt.NDArray[np.uint8]:
    """Red, green, blue and height in 0–255 for each bristle of each stroke: (n, bristles, 4)."""
    shape = (len(colours), brush.bristles)
    across = np.linspace(0, 1, brush.bristles)[:, None]
    mixed = colours[:, :1] * (1 - across) + colours[:, 1:] * across
    tone = 1 + brush.streak * rng.normal(0, 1, (*shape, 1))
    shift = 0.06 * brush.streak * rng.normal(0, 1, (*shape, 3))
    # Paint is pushed to the edges of a stroke, and no two strokes carry the same load.
    ridge = np.abs(np.linspace(-1, 1, brush.bristles)) ** 3
    load = rng.uniform(0.2, 0.6, (shape[0], 1))
    heights = load + 0.3 * ridge + rng.normal(0, 0.1, shape)
    paints = np.concatenate([mixed * tone + shift, heights[..., None]], axis=-1)
    return (paints.clip(0, 1) * 255).astype(np.uint8)


def lattice(canvas: Canvas) -> tuple[Array, Array]:
    """x (1, columns) and y (rows, 1) of the lattice on which fields of directions and tones are kept."""
    columns, rows = (round(side * LATTICE) for side in canvas.extent)
    return grid(columns, rows, LATTICE)


def sample(field: Array, points: Array, cells: float = LATTICE) -> Array:
    """Values of a field (rows, columns, …) of `cells` to a mean side at `points` (…, 2): the nearest cell, clamped."""
    rows, columns = field.shape[:2]
    column = (points[..., 0] * cells).astype(int).clip(0, columns - 1)
    row = (points[..., 1] * cells).astype(int).clip(0, rows - 1)
    return np.asarray(field[row, column])


def trace(
    flow: Array, middles: Array, lengths: Array | float, points: int, cells: float = LATTICE
) -> Array:
    """Follow unit vectors (rows, columns, 2) both ways from `middles` (n, 2): paths (n, points, 2), `points` odd.

    `lengths` is one for all or (n, 1).
    """
    step = lengths / (points - 1)
    back, forth = [middles], [middles]
    for _ in range(points // 2):
        back.append(back[-1] - step * sample(flow, back[-1], cells))
        forth.append(forth[-1] + step * sample(flow, forth[-1], cells))
    return np.stack([*reversed(back[1:]), *forth], axis=1)


def along_flow(rng: np.random.Generator, flow: Array) -> Array:
    """Noise smeared along the flow (Cabral and Leedom 1993), (rows, columns) in [0, 1]: tones follow the strokes."""
    rows, columns = flow.shape[:2]
    grains = noise(rng, columns, rows, 26.0, octaves=2)
    points = np.stack(np.broadcast_arrays(*grid(columns, rows, LATTICE)), axis=-1)
    paths = trace(flow, points.reshape(-1, 2), 0.5, 41)
    smeared = sample(grains, paths).mean(axis=1).reshape(rows, columns)
    standard = (smeared - smeared.mean()) / (smeared.std() + 1e-6)
    return np.asarray((0.5 + 0.27 * standard).clip(0, 1))
