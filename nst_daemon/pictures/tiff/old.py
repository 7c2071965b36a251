"""Old compressions of TIFF: JPEG of TIFF 6.0, and those that libtiff decodes (CCITT, LogLuv, NeXT, ThunderScan)."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

from nst_daemon.pictures.raster import Array, UnsupportedPicture
from nst_daemon.pictures.tiff import codecs
from nst_daemon.pictures.tiff import directory as tags
from nst_daemon.pictures.tiff.directory import Directory
from nst_daemon.pictures.tiff.layout import LOG_L, LOG_LUV, YCBCR, Layout, places, rows_of

#: CCITT RLE, Group 3, Group 4, RLE of whole words; NeXT, ThunderScan; SGI LogLuv.
LIBTIFF = {2, 3, 4, 32771, 32766, 32809, 34676, 34677}
_LOSSLESS = 14
#: The beginning of a JPEG is copied for each strip.
_MAX_HEAD = 1 << 14
_SOS = b"\xff\xda"
_SHORT, _LONG8 = 3, 16


def by_libtiff(directory: Directory, layout: Layout) -> Array:
    """(H, W, samples) as stored; float32 XYZ of LogLuv, and Y of LogL.

    libtiff gets a file with one directory of the tags that were checked here.
    """
    offsets, lengths = places(directory, layout, layout.samples if layout.planar else 1)
    parts = [
        directory.read(int(offset), int(length))
        for offset, length in zip(offsets, lengths, strict=True)
    ]
    data = _file(directory, layout, parts)
    pixels = np.asarray(imagecodecs.tiff_decode(data))
    if layout.photometric == LOG_L:
        pixels = _luminance(pixels)
    if layout.planar:
        return np.moveaxis(pixels.reshape(layout.samples, *layout.size), 0, -1)
    return pixels.reshape(*layout.size, layout.samples)


def _luminance(codes: Array) -> Array:
    """float32 Y of the 16 bits of LogL; negative ones are black."""
    found: Array = np.exp2((codes.astype(np.float32) + np.float32(0.5)) / 256 - 64)
    return np.where(codes > 0, found, np.float32(0))


def _file(directory: Directory, layout: Layout, parts: list[bytes]) -> bytes:
    """A BigTIFF of the same byte order."""
    log = layout.photometric in (LOG_L, LOG_LUV)
    bits = (16,) * layout.samples if log else layout.bits
    fields: dict[int, tuple[int, ...]] = {
        tags.WIDTH: (layout.size[1],),
        tags.HEIGHT: (layout.size[0],),
        tags.BITS: bits,
        tags.COMPRESSION: (layout.compression,),
        tags.PHOTOMETRIC: (layout.photometric if log else min(layout.photometric, 1),),
        tags.FILL_ORDER: (2 if layout.reverse else 1,),
        tags.SAMPLES: (layout.samples,),
        tags.PLANAR: (2 if layout.planar else 1,),
    }
    for tag in (tags.T4_OPTIONS, tags.T6_OPTIONS):
        if tag in directory.entries:
            fields[tag] = (directory.number(tag),)
    where, size = (
        (tags.TILE_OFFSETS, tags.TILE_BYTES)
        if layout.tiled
        else (tags.STRIP_OFFSETS, tags.STRIP_BYTES)
    )
    if layout.tiled:
        fields |= {tags.TILE_WIDTH: layout.segment[1:], tags.TILE_HEIGHT: layout.segment[:1]}
    else:
        fields[tags.ROWS_PER_STRIP] = layout.segment[:1]
    lengths = tuple(map(len, parts))
    start = 16 + 8 + 20 * (len(fields) + 2) + 8
    tables = 8 * sum(len(values) for values in fields.values()) + 16 * len(parts)
    offsets = np.cumsum((start + tables, *lengths[:-1]))
    fields |= {where: tuple(offsets.tolist()), size: lengths}
    return _written(directory.order, fields, start, start + tables) + b"".join(parts)


def _written(order: str, fields: dict[int, tuple[int, ...]], start: int, end: int) -> bytes:
    """The header, the directory and its values. start, end: of the values."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    directory, values = struct.pack(order + "Q", len(fields)), b""
    for tag, numbers in sorted(fields.items()):
        kind, layout = (_SHORT, "H") if max(numbers) <= 0xFFFF else (_LONG8, "Q")
        packed = struct.pack(f"{order}{len(numbers)}{layout}", *numbers)
        directory += struct.pack(order + "HHQ", tag, kind, len(numbers))
        if len(packed) <= 8:
            directory += packed.ljust(8, b"\0")
        else:
            directory += struct.pack(order + "Q", start + len(values))
            values += packed
    return (head + directory + bytes(8) + values).ljust(end, b"\0")


def old_jpeg(directory: Directory, layout: Layout) -> Array:
    """(H, W, samples) uint8 of JPEG as in TIFF 6.0, section 22; YCbCr becomes RGB.

    A file has a whole JPEG, or the beginning of one with the coded data in strips, or only tables.
    """
    if layout.planar or directory.number(tags.JPEG_PROCESS, 1) == _LOSSLESS:
        raise UnsupportedPicture("contains an old JPEG with separate planes or without loss")
    whole = _stream(directory)
    head = _scan_head(whole)
    space = "ycbcr" if layout.photometric == YCBCR and layout.samples == 3 else ""
    if head and not _strips_outside(directory, len(whole)):
        return codecs.jpeg(whole, layout.size, layout.samples, space)[0][
            : layout.size[0], : layout.size[1]
        ]
    if len(head) > _MAX_HEAD:
        raise ValueError("an old JPEG has no coded data near its beginning")
    offsets, lengths = places(directory, layout, 1)
    height = layout.segment[0]
    result = np.zeros((*layout.size, layout.samples), np.uint8)
    for index in range(layout.segments):
        rows = rows_of(layout, index)
        y, x = index // layout.grid[1] * height, index % layout.grid[1] * layout.segment[1]
        size = (height if layout.tiled else rows, layout.segment[1])
        start = _with_size(head, size) if head else _made_head(directory, layout, size)
        data = start + directory.read(int(offsets[index]), int(lengths[index])) + codecs.EOI
        values = codecs.jpeg(data, size, layout.samples, space)[0]
        part = result[y : y + height, x : x + size[1]]
        part[...] = values[: part.shape[0], : part.shape[1]]
    return result


def _stream(directory: Directory) -> bytes:
    """What JPEGInterchangeFormat refers to; b"" if it is no JPEG."""
    start, length = directory.number(tags.JPEG_STREAM), directory.number(tags.JPEG_BYTES)
    if not 0 < start < directory.file_size:
        return b""
    rest = directory.file_size - start
    data = directory.read(start, min(length, rest) if length > 0 else rest)
    return data if data[:2] == codecs.SOI else b""


def _scan_head(data: bytes) -> bytes:
    """A JPEG up to the coded data of its first scan; b"" if it has no frame or no scan."""
    found = codecs.segments(data)
    if not found or found[-1][0] != 0xDA or not any(0xC0 <= m <= 0xC2 for m, _, _ in found):
        return b""
    _, start, length = found[-1]
    return data[: start + length]


def _strips_outside(directory: Directory, length: int) -> bool:
    """Whether the coded data are in strips behind the JPEG."""
    start = directory.number(tags.JPEG_STREAM)
    first = directory.number(tags.STRIP_OFFSETS, start)
    return not start <= first < start + length


def _with_size(head: bytes, size: tuple[int, int]) -> bytes:
    """The beginning of a JPEG with another size in its frame."""
    for marker, at, _ in codecs.segments(head):
        if 0xC0 <= marker <= 0xC2:
            return head[: at + 1] + struct.pack(">HH", *size) + head[at + 5 :]
    return head


def _made_head(directory: Directory, layout: Layout, size: tuple[int, int]) -> bytes:
    """The beginning of a JPEG from the tables of TIFF 6.0."""
    samples = layout.samples
    out = codecs.SOI
    q, dc, ac = (directory.numbers(tag) for tag in (tags.JPEG_Q, tags.JPEG_DC, tags.JPEG_AC))
    if min(len(q), len(dc), len(ac)) < samples or samples > 4:
        raise ValueError("an old JPEG has no tables")
    for n in range(samples):
        out += b"\xff\xdb\0\x43" + bytes([n]) + directory.read(q[n], 64)
        for kind, offset in ((0, dc[n]), (0x10, ac[n])):
            counts = directory.read(offset, 16)
            codes = directory.read(offset + 16, min(sum(counts), 256))
            out += b"\xff\xc4" + struct.pack(">HB", 19 + len(codes), kind | n) + counts + codes
    across, down = (*directory.numbers(tags.YCBCR_SUBSAMPLING), 2, 2)[:2]
    shared = layout.photometric == YCBCR and samples == 3
    out += b"\xff\xc0" + struct.pack(">HBHHB", 8 + 3 * samples, 8, *size, samples)
    for n in range(samples):
        factors = (across & 15) << 4 | (down & 15) if shared and n == 0 else 0x11
        out += bytes([n + 1, factors, n])
    restart = directory.number(tags.JPEG_RESTART)
    if restart:
        out += b"\xff\xdd" + struct.pack(">HH", 4, restart & 0xFFFF)
    out += _SOS + struct.pack(">HB", 6 + 2 * samples, samples)
    out += b"".join(bytes([n + 1, n << 4 | n]) for n in range(samples))
    return out + b"\0\x3f\0"
