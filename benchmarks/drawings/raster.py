"""Tools for scenes and paintings: float pictures, noise, colour ramps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[np.floating[Any]]
Colour = tuple[int, int, int]  # red, green, blue in 0–255
Point = tuple[float, float]
Fill = tuple[int, ...]  # a colour, or a colour and its opacity, all in 0–255
Drawing = Callable[[int, int, np.random.Generator], Array]
"""(width, height, rng) to an RGB picture (height, width, 3) in [0, 1]."""


def to_image(array: Array) -> Image.Image:
    """(H, W, 3) in [0, 1] to an RGB picture, rounded and clipped."""
    return Image.fromarray((array * 255 + 0.5).clip(0, 255).astype(np.uint8))


def to_array(image: Image.Image) -> Array:
    """A picture to (H, W, channels) in [0, 1]."""
    return np.asarray(image, dtype=np.float32) / 255


def resize(array: Array, width: int, height: int) -> Array:
    """(h, w) to (height, width), bicubic."""
    image = Image.fromarray(array.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def noise(
    rng: np.random.Generator,
    width: int,
    height: int,
    cells: float,
    *,
    octaves: int = 5,
    stretch: float = 1.0,
) -> Array:
    """Fractal value noise: (height, width) in [0, 1], mean 0.5.

    `cells` lattice cells span the height in the first octave; each is `stretch` times as long as high. The lattice does
    not depend on the resolution, so a larger picture has the same noise.
    """
    # A separate generator, so that the size of the lattice does not change later drawings.
    rng = rng.spawn(1)[0]
    total = np.zeros((height, width), dtype=np.float32)
    gain = 0.5
    for _ in range(octaves):
        rows = max(2, round(cells) + 1)
        columns = max(2, round(cells * width / height / stretch) + 1)
        total += gain * resize(rng.uniform(-1, 1, (rows, columns)), width, height)
        cells, gain = cells * 2, gain / 2
    return (0.5 + 0.8 * total).clip(0, 1)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between; falling where low > high."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def ramp(palette: Sequence[Colour], t: Array) -> Array:
    """The colours of `palette`, evenly spaced over t in [0, 1]: shape (…) to (…, 3) in [0, 1]."""
    stops = np.linspace(0, 1, len(palette))
    colours = np.asarray(palette, dtype=np.float32) / 255
    channels = [np.interp(t, stops, colours[:, i]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def rgb(colour: Colour) -> Array:
    """A colour in 0–255 to (3,) in [0, 1]."""
    return np.asarray(colour, dtype=np.float32) / 255


def mix(below: Array, above: Array, amount: Array | float) -> Array:
    """Blend (…, 3) pictures or colours; `amount` is a number or (…) in [0, 1]."""
    weight = np.asarray(amount, dtype=np.float32)[..., None]
    return np.asarray(below + (above - below) * weight)


def grid(width: int, height: int, unit: float) -> tuple[Array, Array]:
    """x (1, W) and y (H, 1) of the pixels' centres, in units of `unit` pixels."""
    x = (np.arange(width, dtype=np.float32) + 0.5) / unit
    y = (np.arange(height, dtype=np.float32) + 0.5) / unit
    return x[None, :], y[:, None]


class Pencil:
    """Draws on an RGB picture, in picture heights from its upper left corner.

    `at` gives a pencil for other measures; `aspect` is the whole picture's width in its heights.
    """

    def __init__(self, image: Image.Image) -> None:
        self.aspect = image.width / image.height
        self._draw = ImageDraw.Draw(image, "RGBA")
        self._unit = float(image.height)
        self._origin = (0.0, 0.0)

    def at(self, x: float, y: float, scale: float) -> Pencil:
        """The same pencil with its origin at (x, y) and a unit of `scale`: for drawing a thing in its own measures."""
        moved = copy(self)
        moved._origin = (self._origin[0] + x * self._unit, self._origin[1] + y * self._unit)
        moved._unit = self._unit * scale
        return moved

    def polygon(self, points: Sequence[Point], fill: Fill) -> None:
        self._draw.polygon(self._pixels(points), fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, *, fill: Fill) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def line(self, points: Sequence[Point], width: float, fill: Fill) -> None:
        self._draw.line(self._pixels(points), fill=fill, width=max(1, round(width * self._unit)))

    def disc(self, x: float, y: float, rx: float, ry: float, *, fill: Fill) -> None:
        self._draw.ellipse(self._pixels([(x - rx, y - ry), (x + rx, y + ry)]), fill=fill)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        left, top = self._origin
        return [(left + x * self._unit, top + y * self._unit) for x, y in points]


def pick(rng: np.random.Generator, palette: Sequence[Colour]) -> Colour:
    """One of the colours."""
    return palette[int(rng.integers(len(palette)))]
