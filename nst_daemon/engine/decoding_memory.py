"""Memory of decoding: an estimate before a file is decoded, and large pictures that are reduced while they are decoded.

A picture of which only a few pixels are used is reduced in its own 8 or 16 bits, before float32 tensors are made of
it; a JPEG is even decoded at a fraction of its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image

from nst_daemon import machine
from nst_daemon.engine.icc import Array, Raster, full
from nst_daemon.errors import NstError, OutOfMemory, PictureError

#: A reduced picture has this many times the side that is used. The rest of the way it is resampled as any other
#: picture; then a painting's content and style differ from those of the whole file by less than a JPEG's noise.
MARGIN = 2.0
#: A picture is reduced if it has at least this many times the side that is used, …
REDUCED_FROM = 4.0
#: … and more pixels than this; smaller ones take little memory.
REDUCED_PIXELS = 1 << 20
#: The share of the memory (`machine.memory_limit`) that decoding one file may take.
SHARE = 0.5
#: Pillow reduces by whole numbers to this many times the wanted size, then resamples.
REDUCING_GAP = 3.0

# Bytes at the worst moment, measured as the growth of VmHWM and VmData with 24 megapixels of 3 channels
# (Pillow 12.0, pillow-heif 1.1, imagecodecs 2025.11, tifffile 2025.10, x86-64) and rounded up.

#: Per pixel of the file, with 8 bits per channel, by Pillow's format. Measured: JPEG 4.4, PNG 4.4, TIFF 7.7, WebP 16.4,
#: HEIC 9.2 (10 bits), AVIF 9.7, BMP 4.4, GIF 1.4. PNG, GIF: a palette or transparent colour is converted (4 more).
FILE_BYTES: Mapping[str, float] = MappingProxyType(
    {"JPEG": 4.5, "PNG": 9, "TIFF": 9, "WEBP": 17, "HEIF": 10, "AVIF": 10, "BMP": 5, "GIF": 9}
)
#: Per pixel and channel of the file, with more bits. Measured: PNG 3.9, TIFF 6.1 (compressed).
DEEP_FILE_BYTES: Mapping[str, float] = MappingProxyType({"PNG": 4, "TIFF": 6.2})
#: Per pixel and channel of a progressive JPEG, whose coefficients are kept at any scale. Measured: 2.0.
PROGRESSIVE_BYTES = 2.0
#: Per pixel of the decoded (and perhaps reduced) picture, until it is a tensor. Measured: RGB 27, CMYK 48, alpha 99.
COLOUR_BYTES, CMYK_BYTES, ALPHA_BYTES = 28.0, 50.0, 102.0
#: Per pixel of the file, to reduce a picture with alpha. Measured: 19.
ALPHA_REDUCING_BYTES = 20.0


def reduced_size(size: tuple[int, int], used: float) -> tuple[int, int] | None:
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


def peak_bytes(
    image: Image.Image, pixels: int, bits: int, reduced: tuple[int, int] | None
) -> float:
    """The memory that decoding takes at its worst moment, estimated.

    Args:
        image: As Pillow has opened it, not decoded; a draft of a JPEG has fewer pixels.
        pixels: Of the file.
        bits: Per channel.
        reduced: The size of the result, if it is reduced.
    """
    channels = len(image.getbands())
    loaded = image.width * image.height
    kind = image.format or ""
    if bits > 8 and kind in DEEP_FILE_BYTES:
        decoding = DEEP_FILE_BYTES[kind] * channels * pixels
    else:
        decoding = FILE_BYTES.get(kind, max(FILE_BYTES.values())) * loaded
        if "progressive" in image.info:
            decoding += PROGRESSIVE_BYTES * channels * pixels
    result = reduced[0] * reduced[1] if reduced else loaded
    if has_alpha(image):
        return decoding + ALPHA_BYTES * result + (ALPHA_REDUCING_BYTES * pixels if reduced else 0)
    return decoding + (CMYK_BYTES if image.mode == "CMYK" else COLOUR_BYTES) * result


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture has an alpha channel or a transparent colour."""
    return "A" in image.getbands() or "transparency" in image.info


def require_memory(
    needed: float, label: str, *, limit: float | None = None, free: float | None = None
) -> None:
    """Refuse a file before it is decoded if that would take too much memory.

    Args:
        needed: Bytes.
        label: Names the file in messages.
        limit: Bytes that this process may have; `machine.memory_limit` if None.
        free: Bytes that are free now; `machine.free_memory` if None.

    Raises:
        PictureError: It would take more than the share of the memory that one file may take.
        OutOfMemory: It would take more than is free now.
    """
    allowed = SHARE * (machine.memory_limit() if limit is None else limit)
    if needed > allowed:
        raise PictureError(
            f"decoding {label} takes about {_shown(needed)} of memory, and {_shown(allowed)} are allowed "
            f"({SHARE:.0%} of limits.max_memory, of the control group or of the machine)",
            remedy="reduce the picture, set a smaller size, or raise that limit; limits.max_pixels limits the pixels",
        )
    free = machine.free_memory() if free is None else free
    if needed > free:
        raise out_of_memory(label, f"it takes about {_shown(needed)}, and {_shown(free)} are free")


def out_of_memory(label: str, cause: str = "") -> NstError:
    """The error for a file that cannot be decoded because memory is short."""
    return OutOfMemory(
        f"there is not enough memory to decode {label}" + (f": {cause}" if cause else ""),
        remedy="free some memory, reduce the picture, or raise limits.max_memory if it is set",
    )


def reduced_image(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None
) -> Image.Image:
    """A decoded image of 8 bits per channel, resampled to (width, height).

    Args:
        image: Without alpha; of any mode but LAB, whose a and b are signed.
        size: Width and height.
        box: The part that the file's picture fills, if it was decoded as a draft.
    """
    if image.mode not in ("L", "RGB", "CMYK", "YCbCr"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=REDUCING_GAP)


def reduced_raster(raster: Raster, size: tuple[int, int]) -> Raster:
    """A raster resampled to (width, height), in its own dtype; computed in float32, one channel at a time.

    Colours are weighted with their opacity, which with 8 bits would lose most of those that are nearly transparent.
    """
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


def _resampled(channel: Array, size: tuple[int, int]) -> Array:
    """float32 (height, width) of (H, W)."""
    image = Image.fromarray(np.ascontiguousarray(channel, dtype=np.float32))
    return np.asarray(
        image.resize(size, Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP), np.float32
    )


def _as(original: Array, values: Array) -> Array:
    """Values in the dtype and range of the original; non-finite ones stay."""
    if original.dtype.kind == "f":
        return values.clip(0, None).astype(original.dtype)
    return values.clip(0, full(original)).round().astype(original.dtype)


def draft(image: Image.Image, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, but not below (width, height).

    Returns:
        The part that the picture fills, in pixels of the draft; None for other formats.
    """
    found = image.draft(None, size)
    return found[1] if found else None


def _shown(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
