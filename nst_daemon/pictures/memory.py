"""Memory of decoding: an estimate before a file is decoded, and large pictures that are reduced while they are decoded.

A picture of which only a few pixels are used is reduced in its own 8 or 16 bits, before float32 tensors are made of
it; a JPEG is even decoded at a fraction of its size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from nst_daemon import machine, units
from nst_daemon.errors import NstError, OutOfMemory, PictureError
from nst_daemon.pictures.raster import Array, Raster, Size, StoredPicture, full

#: A reduced picture has this many times the side that is used. The rest of the way it is resampled as any other
#: picture; then a painting's content and style differ from those of the whole file by less than a JPEG's noise.
MARGIN = 2.0
#: A picture is reduced if it has at least this many times the side that is used, …
REDUCED_FROM = 4.0
#: … and more pixels than this; smaller ones take little memory.
REDUCED_PIXELS = 1 << 20
#: The share of the memory (`machine.memory_limit`) that decoding one file may take.
SHARE = 0.5
#: Decoding that takes fewer bytes than this is not checked: looking at the memory would take longer than decoding.
LITTLE = 16 << 20
#: Pillow reduces by whole numbers to this many times the wanted size, then resamples.
REDUCING_GAP = 3.0

# Bytes at the worst moment, measured as the growth of VmHWM and VmData with 24 megapixels of 3 channels
# (x86-64) and rounded up. The readers know what decoding takes.

#: Per pixel of the decoded (and perhaps reduced) picture, until it is a tensor. Measured: RGB 27, CMYK 48, alpha 99.
COLOUR_BYTES, CMYK_BYTES, ALPHA_BYTES = 28.0, 50.0, 102.0
#: Per pixel of the file, to reduce a picture with alpha. Measured: 19.
ALPHA_REDUCING_BYTES = 20.0


def reduced_size(size: Size, used: float) -> Size | None:
    """The size to which a picture is reduced while it is decoded; None if it is decoded whole.

    Args:
        size: Its sides in pixels, in any order.
        used: The longer side in pixels at which it is used.
    """
    longer = max(size)
    if longer < REDUCED_FROM * used or size[0] * size[1] <= REDUCED_PIXELS:
        return None
    factor = max(MARGIN * used, 1) / longer
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def peak_bytes(picture: StoredPicture, reduced: Size | None, *, exact: bool = False) -> float:
    """The memory that decoding takes at its worst moment, estimated.

    Args:
        picture: Its header.
        reduced: The size of the result, if it is reduced.
        exact: Whether it is reduced with `picked_raster`, after it was decoded whole.
    """
    pixels = picture.size[0] * picture.size[1]
    result = reduced[0] * reduced[1] if reduced else pixels
    decoding = picture.decoding_bytes(None if exact else reduced)
    if picture.alpha:
        return (
            decoding
            + ALPHA_BYTES * result
            + (ALPHA_REDUCING_BYTES * pixels if reduced and not exact else 0)
        )
    return decoding + (CMYK_BYTES if picture.cmyk else COLOUR_BYTES) * result


def require_memory(
    needed: float, label: str, *, limit: float | None = None, free: float | None = None
) -> None:
    """Refuse a file before it is decoded if that would take too much memory.

    Args:
        needed: Bytes; nothing is checked below `LITTLE`.
        label: Names the file in messages.
        limit: Bytes that this process may have; `machine.memory_limit` if None.
        free: Bytes that are free now; `machine.free_memory` if None.

    Raises:
        PictureError: It would take more than the share of the memory that one file may take.
        OutOfMemory: It would take more than is free now.
    """
    if needed < LITTLE:
        return
    allowed = SHARE * (machine.memory_limit() if limit is None else limit)
    if needed > allowed:
        raise PictureError(
            f"decoding {label} takes about {units.size(needed, up=True)} of memory, more than the "
            f"{units.size(allowed)} that one file may take ({SHARE:.0%} of limits.max_memory, of the control "
            "group or of the machine)",
            remedy="reduce the picture, set a smaller size, or raise that limit",
        )
    free = machine.free_memory() if free is None else free
    if needed > free:
        raise out_of_memory(
            label,
            f"it takes about {units.size(needed, up=True)}, and {units.size(free)} is free",
        )


def out_of_memory(label: str, cause: str = "") -> NstError:
    """The error for a file that cannot be decoded because memory is short."""
    return OutOfMemory(
        f"there is not enough memory to decode {label}" + (f": {cause}" if cause else ""),
        remedy="free some memory, reduce the picture, or raise limits.max_memory if it is set",
    )


def reduced_raster(raster: Raster, size: Size) -> Raster:
    """A raster resampled to a size, in its own dtype; other than 8 bits in float32, one channel at a time.

    Colours are weighted with their opacity, which with 8 bits would lose most of those that are nearly transparent.
    """
    if raster.alpha is None and raster.colours.dtype == np.uint8:
        return replace(raster, colours=_resampled_bytes(raster.colours, size))
    weight = None if raster.alpha is None else raster.alpha[..., 0]
    alpha = None if weight is None else _resampled(weight, size)
    channels = []
    for i in range(raster.colours.shape[2]):
        channel = raster.colours[..., i]
        if weight is None or alpha is None:
            channels.append(_resampled(channel, size))
        else:
            weighted = np.multiply(channel, weight, dtype=np.float32)
            channels.append(_resampled(weighted, size) / np.maximum(alpha, 1e-6))
    colours = _as(raster.colours, np.stack(channels, -1))
    opacity = None if alpha is None or raster.alpha is None else _as(raster.alpha, alpha[..., None])
    return Raster(colours, raster.space, opacity, raster.notes)


def picked_raster(raster: Raster, size: Size) -> Raster:
    """A raster reduced to a size by taking the pixel in the middle of each cell: no colour is added."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(size, raster.colours.shape, strict=False)
    )
    alpha = None if raster.alpha is None else raster.alpha[np.ix_(rows, columns)]
    return replace(raster, colours=raster.colours[np.ix_(rows, columns)], alpha=alpha)


def _resampled_bytes(colours: Array, size: Size) -> Array:
    """uint8 (height, width, C) of (H, W, C) with 1, 3 or 4 channels, all at once."""
    grey = colours.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(colours[..., 0] if grey else colours))
    reduced = image.resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
    return np.asarray(reduced).reshape(*size, -1)


def _resampled(channel: Array, size: Size) -> Array:
    """float32 (height, width) of (H, W)."""
    image = Image.fromarray(np.ascontiguousarray(channel, dtype=np.float32))
    return np.asarray(
        image.resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP), np.float32
    )


def _as(original: Array, values: Array) -> Array:
    """Values in the dtype and range of the original; non-finite ones stay."""
    if original.dtype.kind == "f":
        return values.clip(0, None).astype(original.dtype)
    return values.clip(0, full(original)).round().astype(original.dtype)
