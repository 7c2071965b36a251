"""The compressions of strips and tiles of a TIFF, by imagecodecs.

No codec allocates by what a compressed stream says: bytes are decompressed up to the size that the tags give, and
the size of a picture inside a strip or tile is compared with the tags first.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import imagecodecs
import numpy as np

from nst_daemon.pictures.raster import Array, Size, UnsupportedPicture, widened
from nst_daemon.pictures.tiff.layout import JPEG_2000, JPEG_XL, PNG, WEBP

#: The dictionary of LZMA may take so many bytes.
LZMA_BYTES = 80 << 20
#: A picture in a strip or tile may take so many bytes for a sample, and so many besides.
INNER_BYTES, INNER_MORE = 12, 16 << 20
#: A JPEG may be larger than its strip or tile by so many pixels on each side.
_PADDING = 64
MAX_SCANS = 100
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}
_LERC_DEFLATE, _LERC_ZSTD = 1, 2


def _deflated(data: bytes, size: int) -> Any:
    """By libdeflate; by zlib if the data are longer than the pixels. A wrong checksum is an error."""
    try:
        return imagecodecs.deflate_decode(data, out=size)
    except imagecodecs.DeflateError:
        return zlib.decompressobj().decompress(data, size)


def _packed(data: bytes, size: int) -> Any:
    try:
        return imagecodecs.packbits_decode(data, out=size)
    except imagecodecs.PackbitsError:  # more than the pixels, or a run that was cut
        return imagecodecs.packbits_decode(data + bytes(128), out=2 * size + (1 << 16))


def _lzma(data: bytes, size: int) -> Any:
    try:
        return lzma.LZMADecompressor(memlimit=LZMA_BYTES).decompress(data, size)
    except lzma.LZMAError as error:
        if "Memory usage limit" in str(error):
            raise UnsupportedPicture("is a TIFF with a large dictionary of LZMA") from error
        raise


def _zstd(data: bytes, size: int) -> Any:
    return imagecodecs.zstd_decode(data, out=size)


def _lzw(data: bytes, size: int) -> Any:
    return imagecodecs.lzw_decode(data, out=size)


#: Compression → bytes of compressed bytes and the size that is expected.
BYTES: dict[int, Callable[[bytes, int], Any]] = {
    1: lambda data, _: data,
    5: _lzw,
    8: _deflated,
    32773: _packed,
    32946: _deflated,
    34925: _lzma,
    34926: _zstd,
    50000: _zstd,
    50013: _deflated,
}
PIXAR_LOG, LERC = 32909, 34887
_READERS = (
    dict.fromkeys(JPEG_2000, "jpeg2000")
    | dict.fromkeys(JPEG_XL, "jxl")
    | dict.fromkeys(WEBP, "webp")
    | dict.fromkeys(PNG, "png")
)


def inner_picture(compression: int, data: bytes, size: Size, samples: int) -> Array:
    """(H, W, samples) of a picture in a strip or tile, in the whole range of its dtype.

    Args:
        compression: JPEG 2000, JPEG XL, WebP or PNG.
        data: The compressed picture.
        size: What the tags say; the picture may be larger by a few pixels.
        samples: The number of samples of a pixel.
    """
    reader = import_module(f"nst_daemon.pictures.readers.{_READERS[compression]}")
    stored = reader.open_picture(io.BytesIO(data))
    require_size(stored.size, size)
    area = stored.size[0] * stored.size[1]
    if stored.decoding_bytes(None) > INNER_BYTES * max(samples, 3) * area + INNER_MORE + len(data):
        raise ValueError("a compressed strip or tile takes too much memory")
    raster = stored.decode(None)
    parts = [raster.colours]
    if raster.alpha is not None and samples > raster.colours.shape[2]:
        parts.append(raster.alpha.astype(raster.colours.dtype))
    values = np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
    if values.shape[2] < samples and values.shape[2] == 1:
        values = values.repeat(samples, axis=2)
    if values.shape[2] < samples:
        raise ValueError(f"a strip or tile has {values.shape[2]} of {samples} samples")
    return values


def require_size(found: Size, expected: Size) -> None:
    """Raise ValueError if a compressed picture is not as large as its strip or tile."""
    if found[0] < expected[0] or found[1] < expected[1]:
        raise ValueError(f"a strip or tile has {found[1]} × {found[0]} pixels")
    if found[0] > expected[0] + _PADDING or found[1] > expected[1] + _PADDING:
        raise ValueError(f"a strip or tile has {found[1]} × {found[0]} pixels")


def lerc(data: bytes, parameters: tuple[int, ...], size: Size, samples: int, kind: str) -> Array:
    """(H, W, samples) of LERC. kind: of the pixels, as in numpy."""
    raw = size[0] * size[1] * samples * np.dtype(kind).itemsize
    extra = parameters[1] if len(parameters) > 1 else 0
    if extra == _LERC_DEFLATE:
        data = bytes(_deflated(data, 2 * raw + (1 << 16)))
    elif extra == _LERC_ZSTD:
        data = bytes(_zstd(data, 2 * raw + (1 << 16)))
    shape = (*size, samples) if samples > 1 else size
    found: Array = imagecodecs.lerc_decode(data, out=np.empty(shape, kind))
    return found.reshape(*size, samples)


def pixar_log(data: bytes, size: Size, samples: int, kind: str) -> Array:
    """(H, W, samples) of PixarLog."""
    shape = (*size, samples)
    found = imagecodecs.pixarlog_decode(data, shape=shape, dtype=np.dtype(kind))
    return np.asarray(found).reshape(shape)


def with_tables(data: bytes, tables: bytes) -> bytes:
    """A JPEG with the tables that many strips or tiles share (TIFF Technical Note 2)."""
    if not tables or data[:2] != SOI or tables[:2] != SOI:
        return data
    end = tables.rfind(EOI)
    return SOI + tables[2 : end if end > 0 else len(tables)] + data[2:]


def jpeg(data: bytes, size: Size, samples: int, space: str | None) -> tuple[Array, int]:
    """(H, W, samples) of a JPEG, and its bits.

    Args:
        data: A whole JPEG.
        size: What the tags say.
        samples: Of a pixel.
        space: "ycbcr" if its colours must be converted to RGB; "" if they are as stored; None if its markers say it.
    """
    bits, found, components = frame(data)
    require_size(found, size)
    if components != samples:
        raise ValueError(f"a strip or tile has {components} of {samples} samples")
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise UnsupportedPicture(f"contains a JPEG of more than {MAX_SCANS} scans")
    stored = {1: "grayscale", 3: "rgb", 4: "cmyk"}.get(components)
    if stored is None:
        raise UnsupportedPicture(f"contains a JPEG of {components} components")
    given = stored if space == "" else space
    pixels = imagecodecs.jpeg_decode(
        data, colorspace=given, outcolorspace=stored, bitspersample=bits if bits > 8 else None
    )
    return np.asarray(pixels).reshape(*pixels.shape[:2], -1), bits


def frame(data: bytes) -> tuple[int, Size, int]:
    """Bits, size and number of components of a JPEG (ITU-T T.81, B.2.2)."""
    for marker, start, length in segments(data):
        if marker in _FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", data, start)
            if length < 6 + 3 * components:
                break
            return bits, (height, width), components
    raise ValueError("a strip or tile is not a JPEG")


def segments(data: bytes) -> list[tuple[int, int, int]]:
    """Marker, start and length of the segments of a JPEG up to its first scan."""
    found: list[tuple[int, int, int]] = []
    at = 2
    while at + 4 <= len(data) and len(found) < 1000:
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker in _ALONE or marker == 0xFF:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((marker, at + 4, length - 2))
        if marker in (0xDA, 0xD9) or length < 2:
            break
        at += 2 + length
    return found


def is_jfif(data: bytes) -> bool:
    """Whether a JPEG has a JFIF marker, which means YCbCr."""
    return any(m == 0xE0 and data[at : at + 5] == b"JFIF\0" for m, at, _ in segments(data))


def full_range(values: Array, bits: int, signed: bool, dtype: np.dtype[Any]) -> Array:
    """Values of so many bits over the whole range of uint8 or uint16, or in [0, 1] of float32."""
    if signed:  # the smallest becomes 0
        values = values ^ values.dtype.type(1 << bits - 1)
    if dtype.kind == "f":
        if values.dtype.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):
                return values.astype(np.float32)
        return (values / np.float64((1 << bits) - 1)).astype(np.float32)
    if bits != 8 * values.itemsize or bits > 16:
        values = widened(values, bits)
    if values.dtype == np.uint8 and dtype == np.uint16:
        return values * np.uint16(257)
    return values
