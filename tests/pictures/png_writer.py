"""PNG written by hand, with pixels of every kind."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tests.corpus import chunk
from tests.pictures.corpus.case import DEEP, EXACT, Array, Case

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
KINDS = {
    GREY: "grey",
    RGB: "RGB",
    PALETTE: "palette",
    GREY_ALPHA: "grey with alpha",
    RGB_ALPHA: "RGB with alpha",
}
DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGB_ALPHA: (8, 16),
}
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # fmt: skip
FILTERS = ("none", "sub", "up", "average", "Paeth", "all filters")
#: One step of 8 bits, and a quarter, for conversions of 8 and of 16 bits.
CONVERTED, CONVERTED_DEEP = 1 / 255, 0.25 / 255
UNREADABLE = "its colour profile cannot be read and was not used"

IEND = chunk(b"IEND", b"")


@dataclass(frozen=True)
class Pixels:
    """A picture of some kind, before it is compressed.

    Attributes:
        values: (H, W, samples), the numbers that are stored.
        palette: (entries, 3) of 8 bits.
        transparent: What tRNS has: opacities of a palette, or the transparent colour.
    """

    kind: int
    depth: int
    values: Array
    palette: Array | None = None
    transparent: Array | None = None

    @property
    def unit(self) -> Array:
        """(H, W, samples) in [0, 1]; colours of a palette."""
        if self.palette is not None:
            return self.palette[self.values[..., 0]] / 255
        return self.values / (2.0**self.depth - 1)

    @property
    def colours(self) -> Array:
        """(H, W, 3) in [0, 1]."""
        unit = self.unit
        return unit[..., :3] if unit.shape[2] >= 3 else unit[..., :1].repeat(3, axis=2)

    @property
    def alpha(self) -> Array | None:
        """(H, W) in [0, 1]; None if all is opaque."""
        if self.kind in (GREY_ALPHA, RGB_ALPHA):
            return self.unit[..., -1]
        if self.transparent is None:
            return None
        if self.palette is not None:
            missing = np.full(256 - len(self.transparent), 255)
            return np.concatenate([self.transparent, missing])[self.values[..., 0]] / 255
        return 1.0 - (self.values == self.transparent).all(axis=2)

    @property
    def tolerance(self) -> float:
        """Of values that are not converted."""
        return DEEP if self.depth == 16 else EXACT

    def header(self, *, interlaced: bool = False) -> bytes:
        """The contents of IHDR."""
        height, width = self.values.shape[:2]
        return struct.pack(">IIBBBBB", width, height, self.depth, self.kind, 0, 0, interlaced)

    def colour_chunks(self) -> bytes:
        """PLTE and tRNS."""
        found = b""
        if self.palette is not None:
            found = chunk(b"PLTE", self.palette.astype(np.uint8).tobytes())
        if self.transparent is not None:
            layout = "u1" if self.palette is not None else ">u2"
            found += chunk(b"tRNS", self.transparent.astype(layout).tobytes())
        return found

    def rows(self, *, interlaced: bool = False, filter: int = 5) -> bytes:
        """The filtered rows."""
        if not interlaced:
            return filtered(self.values, self.depth, filter)
        passes = (self.values[y::dy, x::dx] for x, y, dx, dy in ADAM7)
        return b"".join(filtered(part, self.depth, filter) for part in passes if part.size)


def filtered(values: Array, depth: int, filter: int) -> bytes:
    """Rows of samples (H, W, S), packed and filtered; filter 5 uses each in turn (PNG, 9.2)."""
    height, _, samples = values.shape
    if depth == 16:
        packed = values.astype(">u2").reshape(height, -1).view(np.uint8)
    elif depth == 8:
        packed = values.astype(np.uint8).reshape(height, -1)
    else:
        bits = (values.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    step = max(1, depth * samples // 8)
    result, above = b"", np.zeros(packed.shape[1], int)
    for number, row in enumerate(packed.astype(int)):
        kind = number % 5 if filter == 5 else filter
        left = np.concatenate([np.zeros(step, int), row])[: len(row)]
        corner = np.concatenate([np.zeros(step, int), above])[: len(row)]
        distances = [
            np.abs(above - corner),
            np.abs(left - corner),
            np.abs(left + above - 2 * corner),
        ]
        nearest = np.choose(np.argmin(distances, axis=0), [left, above, corner])
        predicted = (0 * row, left, above, (left + above) // 2, nearest)[kind]
        result += bytes([kind]) + (row - predicted).astype(np.uint8).tobytes()
        above = row
    return result


def picture(
    kind: int, depth: int, *, transparent: bool = False, size: tuple[int, int] = (16, 24)
) -> Pixels:
    """A picture in which each sample takes many values."""
    rng = np.random.default_rng(100 * kind + depth)
    values = rng.integers(0, 2**depth, (*size, SAMPLES[kind]))
    if kind in (GREY_ALPHA, RGB_ALPHA):
        values[0, 0, -1] = 2**depth - 1
        values[-1, -1, -1] = 2**depth // 2
    if kind == PALETTE:
        palette = rng.integers(0, 256, (2**depth, 3))
        opacities = rng.integers(0, 256, max(1, 2**depth - 1))
        opacities[0] = 77
        values[0, 0] = 0
        return Pixels(kind, depth, values, palette, opacities if transparent else None)
    return Pixels(kind, depth, values, None, values[0, 0] if transparent else None)


def file(
    pixels: Pixels,
    *,
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
    interlaced: bool = False,
    filter: int = 5,
    data: bytes | None = None,
    end: bytes = IEND,
) -> bytes:
    """A PNG. before: chunks before PLTE; between: before IDAT; after: behind it; data: instead of IDAT."""
    if data is None:
        rows = pixels.rows(interlaced=interlaced, filter=filter)
        data = chunk(b"IDAT", zlib.compress(rows))
    header = chunk(b"IHDR", pixels.header(interlaced=interlaced))
    chunks = header + before + pixels.colour_chunks() + between + data + after + end
    return b"\x89PNG\r\n\x1a\n" + chunks


def case(
    name: str, pixels: Pixels, make: Callable[[], bytes] | None = None, **expected: Any
) -> Case:
    """A file that becomes its pixels, unless something else is expected."""
    usual: dict[str, Any] = {
        "colours": pixels.colours,
        "alpha": pixels.alpha,
        "tolerance": pixels.tolerance,
    }
    return Case(name, make or partial(file, pixels), **(usual | expected))


def refused(name: str, make: Callable[[], bytes], why: str) -> Case:
    """A file that is refused."""
    return Case(name, make, None, refused=why)


def wrong_crc(data: bytes) -> bytes:
    """A chunk with a wrong checksum."""
    return data[:-1] + bytes([data[-1] ^ 1])
