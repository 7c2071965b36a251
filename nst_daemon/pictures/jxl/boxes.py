"""The boxes of a JPEG XL file (ISO/IEC 18181-2): codestream and metadata."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
#: How a container begins: the signature and the type of the file.
CONTAINER = SIGNATURE + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
#: Boxes after these are ignored; each costs a read.
MAX_BOXES = 10_000
#: The last part of a codestream has this bit in its number.
_LAST = 1 << 31


@dataclass(frozen=True)
class Boxes:
    """Where the parts of a file are.

    Attributes:
        codestream: (offset, length) of each part, in order.
        metadata: (type, offset, length) of the boxes `Exif` and `brob`.
        level: The contents of `jxll`.
    """

    codestream: tuple[tuple[int, int], ...]
    metadata: tuple[tuple[bytes, int, int], ...] = ()
    level: bytes = b""


def find_boxes(file: IO[bytes]) -> Boxes:
    """Find the boxes of a file, or the whole of a naked codestream.

    Raises:
        ValueError: Parts of the codestream are out of order.
        EOFError: There is no codestream, or a box is cut off.
    """
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        return Boxes(((0, size),))
    parts: list[tuple[int, int]] = []
    metadata: list[tuple[bytes, int, int]] = []
    level, whole = b"", False
    for kind, start, length in _walk(file, size):
        if kind == b"jxlc" and not whole and not parts:
            parts, whole = [(start, length)], True
        elif kind == b"jxlp" and not whole:
            number = int.from_bytes(_read(file, start, min(length, 4)), "big")
            if length < 4 or number & ~_LAST != len(parts):
                raise ValueError("the parts of the JPEG XL codestream are out of order")
            parts.append((start + 4, length - 4))
            whole = bool(number & _LAST)
        elif kind in (b"Exif", b"brob"):
            metadata.append((kind, start, length))
        elif kind == b"jxll":
            level = _read(file, start, min(length, 1))
    if not parts:
        raise EOFError("the file has no JPEG XL codestream")
    return Boxes(tuple(parts), tuple(metadata), level)


def _walk(file: IO[bytes], size: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, length) of the contents of each box, up to bytes that are no box.

    A box may be cut off at the end of the file.
    """
    position = len(SIGNATURE)
    for _ in range(MAX_BOXES):
        if position + 8 > size:
            return
        length, kind = struct.unpack(">I4s", _read(file, position, 8))
        start = position + 8
        if length == 1:
            length, start = int.from_bytes(_read(file, start, 8), "big"), start + 8
        end = size if length == 0 else position + length
        if end < start:
            return
        yield kind, start, min(end, size) - start
        position = end


def _read(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    data = file.read(length)
    if len(data) < length:
        raise EOFError("a box of the JPEG XL file is cut off")
    return data


def read_codestream(file: IO[bytes], boxes: Boxes, limit: int | None = None) -> bytes:
    """The codestream, or its first `limit` bytes."""
    found, left = [], limit
    for start, length in boxes.codestream:
        file.seek(start)
        found.append(file.read(length if left is None else min(length, left)))
        if left is not None:
            left -= len(found[-1])
            if left <= 0:
                break
    return b"".join(found)
