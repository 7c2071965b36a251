"""HEIC with 8 to 12 bits per channel, by libheif through pillow-heif.

libheif applies rotation, mirroring and cropping, combines tiles, and limits what the coded data may allocate to what
the file's header says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import pillow_heif

from nst_daemon.errors import first_line
from nst_daemon.machine import threads_per_worker
from nst_daemon.pictures import boxes, code_points
from nst_daemon.pictures.metadata import exif_without_turn
from nst_daemon.pictures.raster import Array, Raster, StoredPicture, UnsupportedPicture, widened

#: Bytes per pixel at the worst moment, for 8 bits, and for more. Measured: 10.0 and 22.2.
SHALLOW_BYTES, DEEP_BYTES = 11.0, 23.0
#: At least so many where colours are converted by code points.
CONVERTED_BYTES = 26.0
#: Codecs that this reader cannot decode, by the types of items.
_OTHER_CODECS = {
    b"av01": "AV1, without AVIF's brand",
    b"avc1": "H.264 (AVC)",
    b"vvc1": "H.266 (VVC)",
    b"jpeg": "JPEG",
    b"j2k1": "JPEG 2000",
    b"unci": "uncompressed pixels",
}


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the header. Damaged files raise any exception of libheif or of our parser."""
    file.seek(0)
    data = file.read()
    _require_hevc(data)
    pillow_heif.options.DECODE_THREADS = threads_per_worker()
    with _limits():
        opened = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    if not len(opened):
        raise ValueError("libheif finds no image in it")
    image = opened[opened.primary_index]
    info: dict[str, Any] = image.info
    bits = _bits(image.mode)
    each = DEEP_BYTES if bits > 8 else SHALLOW_BYTES
    points = _code_points(info)
    if not code_points.is_srgb(*points):
        each = max(each, CONVERTED_BYTES)
    pixels = image.size[0] * image.size[1]
    return StoredPicture(
        size=(image.size[1], image.size[0]),
        alpha=bool(image.has_alpha),
        cmyk=False,
        decode=lambda _: code_points.in_srgb(_raster(image), *points),
        decoding_bytes=lambda _: each * pixels,
        profile=info.get("icc_profile"),
        exif=lambda: exif_without_turn(info.get("exif") or b""),
    )


@contextmanager
def _limits() -> Iterator[None]:
    """libheif calls it a memory allocation error if a file exceeds one of its fixed limits."""
    try:
        yield
    except RuntimeError as error:
        _, limit, said = str(error).partition("Security limit exceeded: ")
        if not limit:
            raise
        raise ValueError(first_line(ValueError(said))) from None


def _require_hevc(data: bytes) -> None:
    """Name the cause where a file has no picture in HEVC."""
    primary, items = boxes.items(data)
    if primary not in items:
        if boxes.found(data, (b"moov",)) != (0, 0):
            raise UnsupportedPicture("contains only a sequence of frames (a video)")
        raise ValueError("it has no primary image")
    item = items[primary]
    tiles = [items[number] for number in item.references.get(b"dimg", []) if number in items]
    for one in (item, *tiles):
        if one.kind in _OTHER_CODECS:
            raise UnsupportedPicture(f"is a HEIF file with {_OTHER_CODECS[one.kind]}")


def _bits(mode: str) -> int:
    """Bits per channel by pillow-heif's name of a mode, such as RGB;10."""
    return int(mode.partition(";")[2] or 8)


def _code_points(info: dict[str, Any]) -> tuple[int, int]:
    """Primaries and transfer function (H.273); 2 is unspecified. A profile comes first."""
    nclx = info.get("nclx_profile")
    if not nclx or info.get("icc_profile"):
        return 2, 2
    return nclx["color_primaries"], nclx["transfer_characteristics"]


def _raster(image: Any) -> Raster:
    with _limits():
        pixels: Array = np.asarray(image)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    bits = _bits(image.mode)
    if bits > 8:
        pixels = widened(pixels, bits)
    if pixels.shape[2] in (1, 3):
        return Raster(pixels, "GRAY" if pixels.shape[2] == 1 else "RGB")
    colours, alpha = pixels[..., :-1], pixels[..., -1:]
    if image.premultiplied_alpha:
        top = np.iinfo(pixels.dtype).max
        divided = colours * (np.float32(top) / np.maximum(alpha, 1))
        colours = divided.clip(0, top).round().astype(pixels.dtype)
    return Raster(colours, "RGB" if colours.shape[2] == 3 else "GRAY", alpha)
