"""PSD and PSB of Photoshop: the merged picture, with all its bits. Layers are skipped.

Source: Adobe Photoshop File Formats Specification (November 2019).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO

import imagecodecs
import numpy as np

from nst_daemon.pictures.metadata import parsed_exif
from nst_daemon.pictures.raster import (
    Array,
    Raster,
    Size,
    StoredPicture,
    UnsupportedPicture,
    full,
    scaled,
)
from nst_daemon.pictures.srgb import from_light

#: Colour modes.
BITMAP, GRAY, INDEXED, RGB, CMYK, MULTICHANNEL, DUOTONE, LAB = 0, 1, 2, 3, 4, 7, 8, 9
_COLOURS = {BITMAP: 1, GRAY: 1, INDEXED: 1, RGB: 3, CMYK: 4, DUOTONE: 1, LAB: 3}
_SPACES = {
    BITMAP: "GRAY",
    GRAY: "GRAY",
    INDEXED: "RGB",
    RGB: "RGB",
    CMYK: "CMYK",
    DUOTONE: "GRAY",
    LAB: "LAB",
}
#: Types by the bits per channel; those of 1 bit are packed.
_TYPES = {1: "u1", 8: "u1", 16: ">u2", 32: ">f4"}
#: Compressions.
_RAW, _RLE, _ZIP, _ZIP_PREDICTED = 0, 1, 2, 3

#: Image resources that are used.
_TRANSPARENT_INDEX, _ICC, _VERSION, _EXIF = 1047, 1039, 1057, 1058
_MOST_RESOURCES, _MOST_RESOURCE_BYTES = 10_000, 16 << 20
#: Additional layer information with a length of 8 bytes in PSB.
_LONG_KEYS = {
    *(b"LMsk", b"Lr16", b"Lr32", b"Layr", b"Mt16", b"Mt32", b"Mtrn", b"Alph", b"FMsk", b"lnk2"),
    *(b"FEid", b"FXid", b"PxSD", b"cinf"),
}
_MOST_BLOCKS = 1000

#: Rounding makes values blended with white so much darker at most.
_ROUNDING = -2 / 255

#: So many rows are calculated at once.
_ROWS = 64

# Bytes at the worst moment, measured as the growth of VmHWM with 12 megapixels (numpy 2.4, x86-64).

#: Per byte of each channel. Measured: 2.0, with a predictor or from linear light 3.0, Lab 4.0, a palette 4.0.
CHANNEL_BYTES = 4.1
#: More per pixel with transparency, which is calculated in float32. Measured: with 8 bits 33.
ALPHA_BYTES = 34.0


@dataclass
class _Header:
    """What is before the pixels."""

    version: int
    channels: int
    size: Size
    depth: int
    mode: int
    palette: bytes = b""
    resources: dict[int, bytes] = field(default_factory=dict)
    transparent: bool = False  # the first channel after the colours is the opacity
    pixels: int = 0  # the offset of the merged picture

    @property
    def used(self) -> int:
        """How many channels are read: the colours and the opacity."""
        return _COLOURS[self.mode] + self.transparent

    @property
    def row(self) -> int:
        """Bytes of a row of one channel."""
        return (self.size[1] * self.depth + 7) // 8

    @property
    def hidden_index(self) -> int:
        """The index of the transparent colour, or -1."""
        value = self.resources.get(_TRANSPARENT_INDEX, b"")
        return int.from_bytes(value[:2], "big") if self.mode == INDEXED and len(value) > 1 else -1


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the header. Damaged files raise any exception."""
    header = _read_header(file)
    exif = parsed_exif(header.resources.get(_EXIF, b""))
    height, width = header.size
    alpha = header.transparent or header.hidden_index >= 0
    pixel = CHANNEL_BYTES * header.used * max(header.depth // 8, 1) + ALPHA_BYTES * alpha
    return StoredPicture(
        size=header.size,
        alpha=alpha,
        cmyk=header.mode == CMYK,
        decode=lambda _: _decoded(file, header),
        decoding_bytes=lambda _: pixel * height * width,
        profile=header.resources.get(_ICC),
        exif=lambda: exif,
    )


# The header


def _take(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise EOFError("it ends too early")
    return data


def _numbers(file: IO[bytes], layout: str) -> tuple[int, ...]:
    return struct.unpack(">" + layout, _take(file, struct.calcsize(">" + layout)))


def _number(file: IO[bytes], layout: str) -> int:
    return _numbers(file, layout)[0]


def _read_header(file: IO[bytes]) -> _Header:
    file.seek(4)
    version, channels, height, width, depth, mode = _numbers(file, "H6xHIIHH")
    header = _Header(version, channels, (height, width), depth, mode)
    _check(header)
    header.palette = _section(file, "I", 768 if mode == INDEXED else 0)
    end = _number(file, "I") + file.tell()
    header.resources = _resources(file, end)
    file.seek(end)
    version_info = header.resources.get(_VERSION, b"")
    if len(version_info) > 4 and not version_info[4]:
        raise UnsupportedPicture(
            "has no merged picture (it was saved without “Maximize Compatibility”)"
        )
    length = _number(file, "Q" if version == 2 else "I")
    end = file.tell() + length
    extra = channels > _COLOURS[mode] and mode not in (BITMAP, INDEXED)
    header.transparent = extra and _merged_transparency(file, end, version)
    header.pixels = end
    return header


def _check(header: _Header) -> None:
    """Raises UnsupportedPicture, ValueError."""
    mode, depth = header.mode, header.depth
    if header.version not in (1, 2) or not all(header.size) or not 1 <= header.channels <= 56:
        raise ValueError("its header is invalid")
    if mode == MULTICHANNEL:
        raise UnsupportedPicture("is in multichannel mode, whose inks have no defined colours")
    if mode not in _COLOURS or depth not in _TYPES:
        raise UnsupportedPicture(f"has colour mode {mode} with {depth} bits per channel")
    if (depth == 1) != (mode == BITMAP) or (mode == INDEXED and depth != 8):
        raise ValueError(f"its colour mode {mode} cannot have {depth} bits per channel")
    if header.channels < _COLOURS[mode]:
        raise ValueError(f"it has {header.channels} channels")


def _section(file: IO[bytes], layout: str, most: int) -> bytes:
    """The beginning of a section that states its length; the file is behind it then."""
    length = _number(file, layout)
    end = file.tell() + length
    data = _take(file, min(length, most))
    file.seek(end)
    return data


def _resources(file: IO[bytes], end: int) -> dict[int, bytes]:
    """The image resources that are used. They are not essential: what is damaged is left out."""
    found: dict[int, bytes] = {}
    for _ in range(_MOST_RESOURCES):
        if file.tell() + 12 > end or file.read(4) not in {
            b"8BIM",
            b"MeSa",
            b"AgHg",
            b"PHUT",
            b"DCSR",
        }:
            break
        try:
            kind, name = _numbers(file, "HB")
            file.seek(name + (name + 1) % 2, io.SEEK_CUR)
            length = _number(file, "I")
        except EOFError:
            break
        following = file.tell() + length + length % 2
        if kind in {_TRANSPARENT_INDEX, _ICC, _VERSION, _EXIF} and following <= end + 1:
            found.setdefault(kind, file.read(min(length, _MOST_RESOURCE_BYTES)))
        file.seek(following)
    return found


def _merged_transparency(file: IO[bytes], end: int, version: int) -> bool:
    """Whether the first channel after the colours is the opacity of the merged picture.

    The number of layers is negative then. With 16 and 32 bits it is in a block of additional layer information.
    """
    word = "Q" if version == 2 else "I"
    if end - file.tell() < struct.calcsize(">" + word) + 2:
        return False
    length = _number(file, word)
    if length:
        return _number(file, "h") < 0
    if end - file.tell() < 4:
        return False
    file.seek(_number(file, "I"), io.SEEK_CUR)  # the global mask
    for key, size in _blocks(file, end, version):
        if key in {b"Mtrn", b"Mt16", b"Mt32"}:
            return True
        if key in {b"Layr", b"Lr16", b"Lr32"} and size >= 2 and _number(file, "h") < 0:
            return True
    return False


def _blocks(file: IO[bytes], end: int, version: int) -> Iterator[tuple[bytes, int]]:
    """The keys and lengths of blocks of additional layer information; the file is at their data."""
    for _ in range(_MOST_BLOCKS):
        if file.tell() + 12 > end or file.read(4) not in {b"8BIM", b"8B64"}:
            return
        key = _take(file, 4)
        size = _number(file, "Q" if version == 2 and key in _LONG_KEYS else "I")
        following = file.tell() + (size + 3) // 4 * 4
        yield key, size
        file.seek(following)


# The pixels


def _decoded(file: IO[bytes], header: _Header) -> Raster:
    file.seek(header.pixels)
    planes = _planes(file, header)
    if header.depth == 1:
        planes = np.unpackbits(planes, axis=-1, count=header.size[1])
        return Raster((1 - planes[0, ..., None]) * np.uint8(255), "GRAY")
    if header.mode == INDEXED:
        return _from_palette(planes[0], header)
    # In the machine's byte order, (H, W, C).
    values = np.ascontiguousarray(np.moveaxis(planes, 0, 2), planes.dtype.newbyteorder("="))
    number = _COLOURS[header.mode]
    colours, alpha = values[..., :number], values[..., number:]
    if header.transparent and header.mode != LAB:
        colours = _without_white(colours, alpha)
    return Raster(
        _inks(colours, header),
        _SPACES[header.mode],
        alpha if header.transparent else None,
        ("its inks (duotone) were replaced by grey",) if header.mode == DUOTONE else (),
    )


def _inks(colours: Array, header: _Header) -> Array:
    """Values as a raster has them."""
    if header.mode == CMYK:  # 0 is full ink
        return np.asarray(colours.dtype.type(full(colours)) - colours)
    if header.mode == LAB:
        return _by_rows(partial(_lab, depth=header.depth), colours, np.uint16)
    if header.depth == 32 and _ICC not in header.resources:  # linear light
        return _by_rows(from_light, colours, np.float32)
    return colours


def _by_rows(function: Callable[[Array], Array], values: Array, dtype: type) -> Array:
    """A function of all values, with little more memory than the result."""
    result: Array = np.empty(values.shape, dtype)
    for y in range(0, len(values), _ROWS):
        result[y : y + _ROWS] = function(values[y : y + _ROWS])
    return result


def _lab(values: Array, depth: int) -> Array:
    """The 16 bits of littlecms, which has 257 steps for each unit of a and b, of 8 bits, or of 16 with 256 steps."""
    steps = np.array([257] * 3 if depth == 8 else [1, 257 / 256, 257 / 256], np.float32)
    return (values * steps).clip(0, 65535).round()


def _from_palette(indices: Array, header: _Header) -> Raster:
    if len(header.palette) < 768:
        raise ValueError("its palette is incomplete")
    palette = np.frombuffer(header.palette, np.uint8).reshape(3, 256).T
    alpha = None
    if header.hidden_index >= 0:
        alpha = (indices != header.hidden_index).astype(np.uint8)[..., None] * np.uint8(255)
    return Raster(palette[indices], "RGB", alpha)


def _without_white(colours: Array, alpha: Array) -> Array:
    """The colours before Photoshop blended them with white: c = (v - (1 - alpha)) / alpha.

    Other programs do not blend them: a value below 1 - alpha proves it.
    """
    opacity = scaled(alpha)
    blended = colours if colours.dtype.kind == "f" else scaled(colours)
    plain = blended - (1 - opacity)
    if colours.dtype.kind != "f" and plain.min() < _ROUNDING:
        return colours
    plain /= np.where(opacity > 0, opacity, 1)
    result: Array = plain.clip(0, None if colours.dtype.kind == "f" else 1, out=plain)
    return result


def _planes(file: IO[bytes], header: _Header) -> Array:
    """(C, H, W), or packed rows for 1 bit."""
    compression = _number(file, "H")
    height, width = header.size
    shape = (header.used, height, header.row)
    if compression == _RLE:
        data = _run_lengths(file, header, shape)
    elif compression == _RAW:
        data = np.frombuffer(_take(file, int(np.prod(shape))), np.uint8).reshape(shape)
    elif compression in (_ZIP, _ZIP_PREDICTED):
        data = _inflated(file, shape)
        if compression == _ZIP_PREDICTED:
            data = _unpredicted(data, header.depth)
    else:
        raise ValueError(f"compression {compression} is unknown")
    return data if header.depth == 1 else data.view(_TYPES[header.depth]).reshape(-1, height, width)


def _run_lengths(file: IO[bytes], header: _Header, shape: tuple[int, ...]) -> Array:
    """PackBits, row by row; the lengths of all rows of all channels come first."""
    kind = ">u4" if header.version == 2 else ">u2"
    rows = header.channels * shape[1]
    lengths = np.frombuffer(_take(file, rows * np.dtype(kind).itemsize), kind).astype(np.int64)
    data = np.zeros(shape, np.uint8)
    for channel in range(shape[0]):
        own = lengths[channel * shape[1] : (channel + 1) * shape[1]]
        coded, position = _take_coded(file, int(own.sum())), 0
        for y, length in enumerate(own.tolist()):
            row = coded[position : position + length]
            position += length
            if len(imagecodecs.packbits_decode(row, out=data[channel, y])) != shape[2]:
                raise ValueError(f"row {y} is too short")
    return data


def _take_coded(file: IO[bytes], length: int) -> bytes:
    """Like `_take`, but nothing is allocated for what the file does not have."""
    position = file.tell()
    if length > file.seek(0, io.SEEK_END) - position:
        raise EOFError("it ends too early")
    file.seek(position)
    return _take(file, length)


def _inflated(file: IO[bytes], shape: tuple[int, ...]) -> Array:
    wanted = int(np.prod(shape))
    stream, parts = zlib.decompressobj(), bytearray()
    for chunk in iter(partial(file.read, 1 << 20), b""):
        parts += stream.decompress(chunk, wanted - len(parts))
        if len(parts) == wanted or stream.eof:
            break
    if len(parts) < wanted:
        raise EOFError("it ends too early")
    return np.frombuffer(parts, np.uint8).reshape(shape)


def _unpredicted(data: Array, depth: int) -> Array:
    """Each value is the difference from the one to its left; 32 bits are four rows of bytes, the highest first."""
    if depth == 16:
        return (
            np.add.accumulate(data.view(">u2").astype(np.uint16), axis=-1, dtype=np.uint16)
            .astype(">u2")
            .view(np.uint8)
        )
    summed = np.add.accumulate(data, axis=-1, dtype=np.uint8)
    if depth == 32:
        planes = summed.reshape(*data.shape[:2], 4, -1)
        return np.ascontiguousarray(np.moveaxis(planes, 2, 3)).reshape(data.shape)
    return np.asarray(summed)
