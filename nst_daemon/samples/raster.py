"""What scenes and paintings are made with: float pictures, noise, colour ramps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]  # red, green, blue in 0–255
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
    """x (1, W) and y (H, 1) of the pixels' centres, in `unit`s of so many pixels."""
    x = (np.arange(width, dtype=np.float32) + 0.5) / unit
    y = (np.arange(height, dtype=np.float32) + 0.5) / unit
    return x[None, :], y[:, None]
