"""WebP, by imagecodecs (libwebp). The chunks are read here; the decoder gets only those with pixels.

Flags in the header that contradict the chunks, missing padding and damaged metadata do no harm.
Source: WebP Container Specification (RFC 9649).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import imagecodecs
import numpy as np

from nst_daemon.pictures.metadata import parsed_exif
from nst_daemon.pictures.raster import Array, Raster, Size, StoredPicture

#: A file with more chunks is read up to there.
MAX_CHUNKS = 100_000
#: Bytes per pixel at the worst moment, measured with 24 megapixels: lossy (7.3), lossless (13.0). A frame of an
#: animation is placed on a canvas of 4 more.
LOSSY_BYTES, LOSSLESS_BYTES, CANVAS_BYTES = 10.0, 14.0, 4.0

_METADATA = (b"ICCP", b"EXIF", b"XMP ")
_PIXELS = (b"ALPH", b"VP8 ", b"VP8L")

Chunk = tuple[bytes, int, int]  # its type, and the offset and length of its data


@dataclass
class _WebpHeader:
    size: Size = (0, 0)  # of the canvas
    place: tuple[int, int] = (0, 0)  # of the picture on it: x, y
    pixels: list[Chunk] = field(default_factory=list)  # of the picture, or of the first frame
    inner: Size = (0, 0)  # of the picture
    alpha: bool = False
    frames: int = 0
    metadata: dict[bytes, Chunk] = field(default_factory=dict)


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the chunks. Damaged files raise any exception."""
    header = _read_header(file)
    found = {kind: _data(file, chunk) for kind, chunk in header.metadata.items()}
    lossless = header.pixels[-1][0] == b"VP8L"
    per_pixel = (LOSSLESS_BYTES if lossless else LOSSY_BYTES) + CANVAS_BYTES * (header.frames > 0)
    return StoredPicture(
        size=header.size,
        alpha=header.alpha or header.inner != header.size,
        cmyk=False,
        decode=lambda _: _decode(file, header),
        decoding_bytes=lambda _: per_pixel * header.size[0] * header.size[1],
        profile=found.get(b"ICCP"),
        exif=lambda: parsed_exif(found.get(b"EXIF", b""), found.get(b"XMP ", b"")),
        frames=max(header.frames, 1),
    )


def _chunks(file: IO[bytes], start: int, end: int) -> Iterator[Chunk]:
    """The chunks of a part of the file. A missing byte of padding is noticed by the type that follows."""
    position = start
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or position + 8 > end:
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], position + 8, length
        position += 8 + length
        file.seek(position)
        position += length % 2 if file.read(1) in (b"\0", b"") else 0


def _data(file: IO[bytes], chunk: Chunk) -> bytes:
    """What a chunk contains, as far as it is there: a read allocates all that it asks for."""
    left = file.seek(0, 2) - chunk[1]
    file.seek(chunk[1])
    return file.read(max(0, min(chunk[2], left)))


def _read_header(file: IO[bytes]) -> _WebpHeader:
    end = file.seek(0, 2)
    header, canvas = _WebpHeader(), (0, 0)
    for chunk in _chunks(file, 12, end):
        kind = chunk[0]
        if kind == b"VP8X":
            data = _data(file, (kind, chunk[1], 10))
            canvas = _number(data[7:10]) + 1, _number(data[4:7]) + 1
        elif kind == b"ANMF":
            header.frames += 1
            if header.frames == 1:
                x, y = (_number(_data(file, (kind, chunk[1] + at, 3))) for at in (0, 3))
                header.place = 2 * x, 2 * y
                _add_pixels(file, header, _chunks(file, chunk[1] + 16, chunk[1] + chunk[2]))
        elif kind in _PIXELS and not header.frames and not header.inner[0]:
            _add_pixels(file, header, iter([chunk]))
        elif kind in _METADATA:
            header.metadata.setdefault(kind, chunk)
    if not header.inner[0]:
        raise ValueError("it has no picture")
    header.size = canvas if header.frames and canvas[0] else header.inner
    (height, width), (x, y) = header.inner, header.place
    if y + height > header.size[0] or x + width > header.size[1]:
        raise ValueError("its first frame is larger than its canvas")
    return header


def _add_pixels(file: IO[bytes], header: _WebpHeader, chunks: Iterator[Chunk]) -> None:
    """Note the chunks of a picture up to the first one with colours, and its size."""
    for chunk in chunks:
        kind = chunk[0]
        if kind in _PIXELS:
            header.pixels.append(chunk)
            header.alpha |= kind == b"ALPH"
        if kind == b"VP8 ":
            data = _data(file, (kind, chunk[1], 10))
            if data[3:6] != b"\x9d\x01\x2a":
                raise ValueError("its picture does not begin with a key frame")
            width, height = struct.unpack_from("<HH", data, 6)
            header.inner = height & 0x3FFF, width & 0x3FFF
            return
        if kind == b"VP8L":
            signature, bits = struct.unpack("<BI", _data(file, (kind, chunk[1], 5)))
            if signature != 0x2F:
                raise ValueError("its picture has no signature")
            header.inner = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
            header.alpha, header.pixels = bool(bits >> 28 & 1), [chunk]
            return


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _decode(file: IO[bytes], header: _WebpHeader) -> Raster:
    parts = []
    for chunk in header.pixels:
        data = _data(file, chunk)
        if len(data) < chunk[2]:
            raise ValueError("its last pixels are missing")
        parts.append(struct.pack("<4sI", chunk[0], len(data)) + data + bytes(len(data) % 2))
    if header.pixels[0][0] == b"ALPH":
        height, width = header.inner
        fields = (16).to_bytes(4, "little") + (width - 1).to_bytes(3, "little")
        parts.insert(0, b"VP8X\x0a\0\0\0" + fields + (height - 1).to_bytes(3, "little"))
    body = b"".join(parts)
    riff = struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WEBP") + body
    values = np.asarray(imagecodecs.webp_decode(riff, hasalpha=header.alpha))
    values = _on_canvas(values, header)
    return Raster(values[..., :3], "RGB", values[..., 3:] if values.shape[2] == 4 else None)


def _on_canvas(values: Array, header: _WebpHeader) -> Array:
    """The first frame on its canvas, which is transparent."""
    if header.inner == header.size:
        return values
    (height, width), (x, y) = header.inner, header.place
    canvas = np.zeros((*header.size, 4), np.uint8)
    canvas[y : y + height, x : x + width, 3] = 255
    canvas[y : y + height, x : x + width, : values.shape[2]] = values
    return canvas
