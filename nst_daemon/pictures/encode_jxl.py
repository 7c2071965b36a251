"""Pixels and EXIF → JPEG XL."""

from __future__ import annotations

import io
from functools import cache

import imagecodecs
import numpy as np
from PIL import Image

from nst_daemon.pictures.boxes import box
from nst_daemon.pictures.jxl import header as jxl_header
from nst_daemon.pictures.jxl.boxes import CONTAINER, find_boxes, read_codestream
from nst_daemon.pictures.raster import Array
from nst_daemon.pictures.srgb import to_light

#: The quality from which an image is lossless.
LOSSLESS = 100
#: How much time the encoder takes, from 1 to 10, to make the file small.
EFFORT = 5
#: The longest side in pixels that a codestream can state.
MAX_SIDE = 1 << 30


def encode_jxl(pixels: Array, quality: int, exif: Image.Exif, threads: int = 1) -> bytes:
    """A JPEG XL file in sRGB: a container with EXIF and one codestream.

    Args:
        pixels: (H, W, 3 or 4) uint8 or uint16, sRGB, opacity last and not premultiplied. All 16 bits are kept.
        quality: 1 to 100, on the scale of JPEG as libjxl maps it to a distance. 100 is lossless.
        exif: May be empty. It has no orientation: in JPEG XL the codestream has it.
        threads: CPU threads.
    """
    lossless = quality >= LOSSLESS
    deep = pixels.dtype == np.uint16
    file = imagecodecs.jpegxl_encode(
        _linear(pixels) if deep and not lossless else pixels,
        level=None if lossless else quality,
        lossless=lossless,
        effort=EFFORT,
        numthreads=threads,
        usecontainer=True,
    )
    boxes = find_boxes(io.BytesIO(file))
    codestream = read_codestream(io.BytesIO(file), boxes)
    if deep:  # imagecodecs calls 16 bits linear
        header = jxl_header.read_header(codestream)
        frames = jxl_header.frames_offset(header)
        codestream = jxl_header.in_srgb(codestream, header, frames=frames)
    metadata = exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) else b""
    return b"".join(
        [
            CONTAINER,
            box(b"jxll", boxes.level) if boxes.level else b"",
            box(b"Exif", bytes(4) + metadata)
            if metadata
            else b"",  # the TIFF header is at offset 0
            box(b"jxlc", codestream),
        ]
    )


def _linear(pixels: Array) -> Array:
    """Lossy compression starts from light; the opacity stays as it is."""
    result = _light()[pixels]
    result[..., 3:] = pixels[..., 3:]
    return result


@cache
def _light() -> Array:
    """uint16 in proportion to light, of each uint16 of sRGB."""
    return np.round(65535 * to_light(np.arange(65536) / 65535)).astype(np.uint16)
