"""What the readers return: a file's header, and its decoded pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Size = tuple[int, int]  # (height, width) in pixels
Tags = dict[int, object]  # of EXIF: the first value, or the text as bytes


class UnsupportedPicture(Exception):  # noqa: N818 (the state of a file)
    """A reader cannot decode a file, although it may be valid.

    The message follows the name of the file: "has 2 colour components", "contains a JPEG file".
    """


@dataclass(frozen=True)
class Raster:
    """A decoded file before colour conversion.

    Attributes:
        colours: (H, W, C). Integers use the whole range of their dtype; floating-point values mean 0 to 1.
        space: GRAY, RGB, CMYK or LAB, with C = 1, 3, 4 or 3.
        alpha: (H, W, 1), or None.
        notes: What was lost in decoding.
    """

    colours: Array
    space: str
    alpha: Array | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredPicture:
    """What a file says of its picture. No pixel has been decoded yet.

    Attributes:
        size: Of the stored picture, before it is turned upright.
        alpha: Whether it has an alpha channel or a transparent colour.
        cmyk: Whether its colours are CMYK.
        decode: Decodes it. Given a size, it may return a raster of that size instead of a whole one.
        decoding_bytes: The memory that decoding takes at its worst moment, with the raster, estimated; given a size,
            that of decoding for a picture of that size.
        profile: Its ICC profile.
        exif: Finds the tags of its EXIF, as `metadata.parsed_exif` does. Any exception means that there are none. They
            have no orientation if `decode` turns the picture upright.
        frames: Number of frames or pages; 0 if that is unknown.
    """

    size: Size
    alpha: bool
    cmyk: bool
    decode: Callable[[Size | None], Raster]
    decoding_bytes: Callable[[Size | None], float]
    profile: bytes | None = None
    exif: Callable[[], Tags] = dict
    frames: int = 1


def scaled(values: Array) -> Array:
    """float32 in [0, 1] of any dtype; floating-point values above 1 are clipped.

    The last axis is stored first, as a tensor (C, H, W) needs it.
    """
    planes = np.moveaxis(values, -1, 0)
    shares = np.empty(planes.shape, np.float32)
    np.divide(planes, np.float32(full(values)), out=shares, dtype=np.float32)
    if values.dtype.kind == "f":
        shares.clip(0, 1, out=shares)
    return np.moveaxis(shares, 0, -1)


def full(values: Array) -> float:
    """The value that means 1 in an array of this dtype."""
    return 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)


def widened(values: Array, bits: int) -> Array:
    """uint8 or uint16 over its whole range, of unsigned values of 1 to 16 bits; larger ones become the largest."""
    top, kind = (1 << bits) - 1, np.uint8 if bits <= 8 else np.uint16
    table = (np.arange(top + 1, dtype=np.uint32) * int(np.iinfo(kind).max) + top // 2) // top
    wide: Array = table.astype(kind)[np.minimum(values, top)]
    return wide
