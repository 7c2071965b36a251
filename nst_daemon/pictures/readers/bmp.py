"""BMP of Windows and OS/2, by numpy: palettes, 16 to 32 bits with any masks, run lengths, colour spaces.

Source: Microsoft, "Bitmap Storage" and the structures BITMAPCOREHEADER to BITMAPV5HEADER; OS/2 2.0, BITMAPINFOHEADER2.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from typing import IO, Any

import imagecodecs
import numpy as np

from nst_daemon.pictures.raster import Array, Raster, StoredPicture, UnsupportedPicture

#: Bytes per pixel at the worst moment, measured with 24 megapixels and rounded up: with masks 16.0, others 10.0 (a
#: raster of 3.0 that is reduced).
MASK_BYTES, OTHER_BYTES = 17.0, 10.5
#: More run lengths are not read; this many take some seconds.
MAX_RUNS = 10_000_000

_FILE_HEADER, _CORE, _INFO = 14, 12, 40
_RAW, _RLE8, _RLE4, _MASKS, _JPEG, _PNG, _ALPHA_MASKS, _RLE24 = 0, 1, 2, 3, 4, 5, 6, "RLE24"
_KINDS = {"JPEG": _JPEG, "PNG": _PNG}
#: OS/2's numbers of compression that mean something else there.
_OS2 = {3: "Huffman", 4: _RLE24}
_MASKS_555 = (0x7C00, 0x03E0, 0x001F, 0)
_MASKS_888 = (0xFF0000, 0xFF00, 0xFF, 0)


@dataclass(frozen=True)
class _BmpHeader:
    length: int  # of the second header
    width: int
    height: int
    bits: int
    compression: int | str
    colours: int  # of the palette; 0: all
    pixels: int  # offset in the file
    top_down: bool
    masks: tuple[int, int, int, int]  # R, G, B, A of 16 and 32 bits

    @property
    def runs(self) -> bool:
        return self.compression in (_RLE8, _RLE4, _RLE24)

    @property
    def masked(self) -> bool:
        return self.bits in (16, 32) or self.compression in (_MASKS, _ALPHA_MASKS)


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the headers. Damaged files raise any exception."""
    header = _read_header(file)
    profile, notes = _profile(file, header)
    per_pixel = MASK_BYTES if header.masked else OTHER_BYTES
    return StoredPicture(
        size=(header.height, header.width),
        alpha=bool(header.masked and header.masks[3]),
        cmyk=False,
        decode=lambda _: _decode(file, header, notes),
        decoding_bytes=lambda _: per_pixel * header.width * header.height,
        profile=profile,
    )


def _read(file: IO[bytes], offset: int, length: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if len(data) < length:
        raise ValueError("it ends within its header")
    return data


def _read_header(file: IO[bytes]) -> _BmpHeader:
    pixels, length = struct.unpack("<II", _read(file, 10, 8))
    compression: int | str = _RAW
    colours = 0
    if length == _CORE:
        width, height, _, bits = struct.unpack("<HHHH", _read(file, 18, 8))
    elif 16 <= length <= 1024:
        width, height, _, bits = struct.unpack("<iiHH", _read(file, 18, 12))
        if length >= 20:
            compression = struct.unpack("<I", _read(file, 30, 4))[0]
        if length >= 36:
            colours = struct.unpack("<I", _read(file, 46, 4))[0]
        if length < _INFO or length == 64:
            compression = _OS2.get(int(compression), compression)
    else:
        raise ValueError(f"its header has {length} bytes")
    if width <= 0 or not height:
        raise ValueError("its width or height is 0 or negative")
    _check(compression, bits)
    header = _BmpHeader(
        length, width, abs(height), bits, compression, colours, pixels, height < 0, _MASKS_888
    )
    return _with_masks(file, header)


def _check(compression: int | str, bits: int) -> None:
    for name, number in _KINDS.items():
        if compression == number:
            raise UnsupportedPicture(f"contains a {name} file")
    depths = {
        _RAW: (1, 2, 4, 8, 16, 24, 32), _RLE8: (8,), _RLE4: (4,), _RLE24: (24,),
        _MASKS: (16, 24, 32), _ALPHA_MASKS: (16, 24, 32),
    }  # fmt: skip
    if compression not in depths:
        raise UnsupportedPicture(f"has the compression {compression}")
    if bits not in depths[compression]:
        raise UnsupportedPicture(f"has {bits} bits per pixel with the compression {compression}")


def _with_masks(file: IO[bytes], header: _BmpHeader) -> _BmpHeader:
    """The header with its masks, which follow a header of 40 bytes and are within longer ones."""
    masks = _MASKS_555 if header.bits == 16 else _MASKS_888
    if header.compression in (_MASKS, _ALPHA_MASKS):
        opacity = header.length >= 56 or header.compression == _ALPHA_MASKS
        stored = _read(file, _FILE_HEADER + _INFO, 16 if opacity else 12)
        masks = struct.unpack("<IIII", stored.ljust(16, b"\0"))
    if not any(masks):
        masks = _MASKS_555 if header.bits == 16 else _MASKS_888
    for mask in masks:
        if _top(mask) & (_top(mask) + 1) or (header.masked and mask >= 1 << header.bits):
            raise UnsupportedPicture("has colour masks with gaps")
    return replace(header, masks=masks)


def _shift(mask: int) -> int:
    """The position of the lowest bit of a mask."""
    return max((mask & -mask).bit_length() - 1, 0)


def _top(mask: int) -> int:
    """The largest value under a mask."""
    return mask >> _shift(mask)


def _decode(file: IO[bytes], header: _BmpHeader, notes: tuple[str, ...]) -> Raster:
    colours, alpha = _pixels(file, header)
    if not header.top_down:
        colours, alpha = colours[::-1], None if alpha is None else alpha[::-1]
    return Raster(colours, "RGB", alpha, notes)


def _pixels(file: IO[bytes], header: _BmpHeader) -> tuple[Array, Array | None]:
    """The colours and the opacity, in the order of the file's rows."""
    palette = _palette(file, header) if header.bits <= 8 else None
    file.seek(_start(header))
    values = _unpacked_runs(file, header) if header.runs else _rows(file, header)
    if palette is not None:
        return palette[values[..., 0]], None
    if not header.masked:
        return values[..., ::-1], None
    return _masked(values, header)


def _start(header: _BmpHeader) -> int:
    """The offset of the pixels. If the file states none, they follow the headers and the palette."""
    least = _FILE_HEADER + header.length
    if header.pixels >= least:
        return header.pixels
    entry = 3 if header.length == _CORE else 4
    colours = min(header.colours or 1 << header.bits, 1 << header.bits) if header.bits <= 8 else 0
    return least + entry * colours


def _palette(file: IO[bytes], header: _BmpHeader) -> Array:
    """(256, 3) uint8. A palette ends where the pixels begin; colours that it does not have are black."""
    entry, start = (3 if header.length == _CORE else 4), _FILE_HEADER + header.length
    room = max(_start(header) - start, 0) // entry
    count = min(header.colours or 256, 1 << header.bits, room)
    stored = np.frombuffer(_read(file, start, entry * count), np.uint8).reshape(-1, entry)
    palette = np.zeros((256, 3), np.uint8)
    palette[:count] = stored[:, 2::-1]
    return palette


def _rows(file: IO[bytes], header: _BmpHeader) -> Array:
    """(H, W, C): the indices, the bytes (24 bits), or the whole values (16 and 32 bits), C = 1, 3 or 1."""
    stride = (header.width * header.bits + 31) // 32 * 4
    start, length = file.tell(), stride * header.height
    missing = start + length - file.seek(0, io.SEEK_END)
    if missing > stride - (header.width * header.bits + 7) // 8:  # the last row may end early
        raise ValueError("its last rows are missing")
    file.seek(start)
    data = file.read(length).ljust(length, b"\0")
    rows = np.frombuffer(data, np.uint8).reshape(header.height, stride)
    if header.bits < 8:
        return _unpacked_bits(rows, header.bits)[:, : header.width, None]
    if header.bits in (16, 32):
        return rows.view(f"<u{header.bits // 8}")[:, : header.width, None]
    channels = header.bits // 8
    return rows[:, : header.width * channels].reshape(header.height, header.width, channels)


def _unpacked_bits(rows: Array, bits: int) -> Array:
    """The values of 1, 2 or 4 bits in each byte, the highest first."""
    parts = [(rows >> shift) & ((1 << bits) - 1) for shift in range(8 - bits, -1, -bits)]
    return np.stack(parts, -1).reshape(len(rows), -1)


def _masked(values: Array, header: _BmpHeader) -> tuple[Array, Array | None]:
    """The channels under the masks; an opacity that is 0 everywhere means nothing."""
    if values.shape[2] == 3:  # 24 bits
        values = values.astype(np.uint32)
        values = values[..., :1] | values[..., 1:2] << 8 | values[..., 2:] << 16
    masks = header.masks if header.masks[3] else header.masks[:3]
    if header.bits == 32 and all(_top(mask) == 255 and not _shift(mask) % 8 for mask in masks):
        octets = values.view(np.uint8)
        channels = [octets[..., _shift(mask) // 8, None] for mask in masks]
    else:
        channels = [_channel(values, mask) for mask in masks]
    depth = np.result_type(*channels)
    full = [_deepened(channel, depth) for channel in channels]
    colours = np.concatenate(full[:3], -1)
    return colours, full[3] if len(full) > 3 and full[3].any() else None


def _channel(values: Array, mask: int) -> Array:
    """uint8, or uint16 if the mask has more than 8 bits, of the whole range."""
    top = max(_top(mask), 1)
    full, kind = (255, np.uint8) if top <= 255 else (65535, np.uint16)
    part = values >> _shift(mask) & top if mask else values & 0
    if top in (255, 65535):
        return part.astype(kind)
    table = (np.arange(min(top, 65535) + 1, dtype=np.uint64) * full + top // 2) // top
    return table.astype(kind)[part] if top <= 65535 else (part / (top / full)).astype(kind)


def _deepened(channel: Array, depth: np.dtype[Any]) -> Array:
    return channel if channel.dtype == depth else channel.astype(depth) * depth.type(257)


def _unpacked_runs(file: IO[bytes], header: _BmpHeader) -> Array:
    """(H, W, C) of run lengths: RLE8 and RLE4, C = 1; RLE24, C = 3. Pixels that are skipped are 0."""
    data, unit = file.read(), 3 if header.compression == _RLE24 else 1
    nibbles = header.compression == _RLE4
    width, height = header.width, header.height
    out = bytearray(width * height * unit)
    at = x = y = 0
    most = 2 * (width + 1) * height + 1024
    for _ in range(min(most, MAX_RUNS)):
        if at + 1 >= len(data):
            raise ValueError("its last rows are missing")
        count, value = data[at], data[at + 1]
        if count:
            run, at = _run(data, at, nibbles, unit)
        elif value == 0:  # the end of the row
            x, y, at = 0, y + 1, at + 2
            continue
        elif value == 1:  # the end of the picture
            break
        elif value == 2:
            x, y, at = x + data[at + 2], y + data[at + 3], at + 4
            continue
        else:
            run, at = _literal(data, at, nibbles, unit)
        if y >= height:
            break
        room = max(width - x, 0) * unit
        start = (y * width + min(x, width)) * unit
        run = run[:room]
        out[start : start + len(run)] = run
        x += count or value
        if y == height - 1 and x >= width:
            break
    else:
        if most > MAX_RUNS:
            raise UnsupportedPicture(f"has more than {MAX_RUNS} run lengths")
        raise ValueError("its run lengths do not end")
    return np.frombuffer(out, np.uint8).reshape(height, width, unit)


def _run(data: bytes, at: int, nibbles: bool, unit: int) -> tuple[bytes, int]:
    """One colour, or with 4 bits two in turn, several times."""
    count = data[at]
    if nibbles:
        pair = bytes([data[at + 1] >> 4, data[at + 1] & 15])
        return (pair * (count + 1 >> 1))[:count], at + 2
    return data[at + 1 : at + 1 + unit] * count, at + 1 + unit


def _literal(data: bytes, at: int, nibbles: bool, unit: int) -> tuple[bytes, int]:
    """Colours as they are, padded to an even number of bytes."""
    count = data[at + 1]
    length = (count + 1) // 2 if nibbles else count * unit
    run = data[at + 2 : at + 2 + length]
    if nibbles:
        run = bytes(half for byte in run for half in (byte >> 4, byte & 15))[:count]
    return run, at + 2 + length + length % 2


def _profile(file: IO[bytes], header: _BmpHeader) -> tuple[bytes | None, tuple[str, ...]]:
    """The colour profile that a header of version 4 or 5 describes or embeds, and notes."""
    if header.length < 108:
        return None, ()
    fields = _read(file, _FILE_HEADER, min(header.length, 124)).ljust(124, b"\0")
    kind = fields[56:60][::-1]
    if kind == b"LINK":
        return None, ("its linked colour profile was not used",)
    if kind == b"MBED":
        offset, length = struct.unpack_from("<II", fields, 112)
        left = (
            file.seek(0, io.SEEK_END) - _FILE_HEADER - offset
        )  # a read allocates all that it asks for
        file.seek(_FILE_HEADER + offset)
        data = file.read(max(0, min(length, left)))
        if len(data) < max(length, 128):
            return None, ("its colour profile is incomplete and was not used",)
        return data, ()
    return (_calibrated(fields) if kind == bytes(4) else None), ()


def _calibrated(fields: bytes) -> bytes | None:
    """A profile of the endpoints and gammas of LCS_CALIBRATED_RGB; None if they make no sense, as zeros do."""
    endpoints = np.array(struct.unpack_from("<9i", fields, 60)).reshape(3, 3) / (1 << 30)
    gammas = np.array(struct.unpack_from("<3I", fields, 96)) / (1 << 16)
    sums = endpoints.sum(1)
    # Some programs store chromaticities and the inverse of the gamma; they mean sRGB.
    if (endpoints < -0.1).any() or (sums < 1e-3).any() or not ((gammas >= 1) & (gammas < 4)).all():
        return None
    if np.ptp(gammas) > 0.01 or abs(np.linalg.det(endpoints / sums[:, None])) < 1e-3:
        return None
    white = endpoints.sum(0)
    primaries = [part for row, total in zip(endpoints, sums, strict=True)
                 for part in (row[0] / total, row[1] / total, 1.0)]  # fmt: skip
    whitepoint = [white[0] / white.sum(), white[1] / white.sum(), 1.0]
    return bytes(
        imagecodecs.cms_profile(
            "rgb", whitepoint=whitepoint, primaries=primaries, gamma=float(gammas.mean())
        )
    )
