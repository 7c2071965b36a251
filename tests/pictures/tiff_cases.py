"""What the modules of TIFF in the corpus share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.pictures import tiff_writer as tw
from tests.pictures.corpus.case import DEEP, EXACT, Array, Case
from tests.pictures.tiff_writer import Page, Store

SIZE = (17, 27)  # not multiples of tiles and bytes
BITS = (*range(1, 33), 64)
STORES = {
    "one strip": Store(),
    "strips": Store(rows=5),
    "strips of a row": Store(rows=1),
    "tiles": Store(tile=(16, 16)),
    "wide tiles": Store(tile=(16, 48)),
    "one tile": Store(tile=(32, 32)),
    "odd tiles": Store(tile=(7, 8)),
    "planes": Store(planar=True),
    "planes in strips": Store(rows=5, planar=True),
    "planes in tiles": Store(tile=(16, 16), planar=True),
}
ORDERS = {"little-endian": "<", "big-endian": ">"}
CLIPPED = "values outside of 0 to 1 were clipped"
SIGNED = "its values are signed"
INKS = "CMYK was converted to sRGB without a profile"
PAGES = "only the first of {} frames was used"
TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


def numbers(samples: int, bits: int, seed: int = 0, size: tuple[int, int] = SIZE) -> Array:
    """(H, W, samples) of any value, with the least and the greatest ones."""
    found = np.random.default_rng(100 * seed + samples).integers(
        0, 2**bits - 1, (*size, samples), np.uint64, endpoint=True
    )
    found[0, 0], found[-1, -1] = 2**bits - 1, 0
    return found


def smooth(samples: int, size: tuple[int, int] = SIZE) -> Array:
    """uint8 without edges, for codecs that lose something."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / 30
    waves = [0.5 + 0.4 * np.sin(y * (n + 1) + x * (2 - n / 2) + n) for n in range(samples)]
    return (255 * np.stack(waves, -1)).round().astype(np.uint8)


def unit(values: Array, bits: int) -> Array:
    """In [0, 1]."""
    return values.astype(np.float64) / (2.0**bits - 1)


def rgb(colours: Array) -> Array:
    """Three channels of grey."""
    return colours.repeat(3, axis=2) if colours.shape[2] == 1 else colours


def opacity(values: Array) -> Array:
    """Values of which the last sample is not 0 everywhere, and not all opaque."""
    values[0, 0, -1] = values[0, 0, 0]
    values[1, :, -1] = 1
    return values


def deep(bits: int) -> float:
    """The tolerance."""
    return EXACT if bits <= 8 else DEEP


def case(
    name: str,
    *pages: Page,
    colours: Array | None,
    order: str = "<",
    big: bool = False,
    **options: Any,
) -> Case:
    """A file of pages."""
    return Case(name, lambda: tw.file(*pages, order=order, big=big), colours, **options)


def inks_to_rgb(inks: Array) -> Array:
    return (1 - inks[..., :3]) * (1 - inks[..., 3:4])
