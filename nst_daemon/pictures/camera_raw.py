"""Tells camera raw files, many of which begin like any TIFF. Loads no library."""

from __future__ import annotations

import struct
from typing import IO

from nst_daemon.pictures.formats import FORMATS, HEAD_BYTES, Format, detect

#: PhotometricInterpretation of raw data: colour filter array (TIFF/EP, ISO 12234-2) and LinearRaw (DNG 1.7, chapter 4).
_RAW_COLOURS = {32803, 34892}
#: Compressions of cameras: Sony, packed, Samsung, Nikon, Kodak, Pentax.
_RAW_CODES = {32767, 32769, 32770, 34713, 65000, 65535}
_COMPRESSION, _PHOTOMETRIC, _SUBFILES = 259, 262, 330
#: Only so many directories, and so many entries of one, are looked at.
_MOST_DIRECTORIES, _MOST_ENTRIES = 16, 1024

_RAW = next(known for known in FORMATS if known.name == "raw")


def recognise(file: IO[bytes]) -> Format | None:
    """The format of a file; None if it is unknown. Its position changes."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    known = detect(head)
    return _RAW if known and known.name == "tiff" and _is_raw(file, head) else known


def _is_raw(file: IO[bytes], head: bytes) -> bool:
    """Whether a TIFF contains raw data of a camera, in one of its first directories or their sub-directories."""
    if head[8:12] in {b"IIII", b"MMMM"}:  # Phase One
        return True
    try:
        return _has_raw_directory(file, head)
    except (OSError, struct.error, ValueError, OverflowError):
        return False


def _has_raw_directory(file: IO[bytes], head: bytes) -> bool:
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in (head[2], head[3])
    pointer = "Q" if big else "I"
    start = 8 if big else 4
    pending = [struct.unpack_from(order + pointer, head, start)[0]]
    seen: set[int] = set()
    while pending and len(seen) < _MOST_DIRECTORIES:
        offset = pending.pop(0)
        if not offset or offset in seen:
            continue
        seen.add(offset)
        entries, following = _directory(file, offset, order, big)
        if _first(entries, _PHOTOMETRIC) in _RAW_COLOURS:
            return True
        if _first(entries, _COMPRESSION) in _RAW_CODES:
            return True
        pending += [*entries.get(_SUBFILES, ()), following]
    return False


def _first(entries: dict[int, tuple[int, ...]], tag: int) -> int:
    return next(iter(entries.get(tag, ())), 0)


def _directory(
    file: IO[bytes], offset: int, order: str, big: bool
) -> tuple[dict[int, tuple[int, ...]], int]:
    """The values of the tags that matter, and the offset of the directory that follows."""
    pointer, count_layout, step = ("Q", "Q", 20) if big else ("I", "H", 12)
    file.seek(offset)
    (count,) = struct.unpack(order + count_layout, file.read(struct.calcsize(count_layout)))
    if count > _MOST_ENTRIES:
        raise ValueError("too many entries")
    table = file.read(count * step)
    (following,) = struct.unpack(order + pointer, file.read(struct.calcsize(pointer)) or bytes(4))
    entries = {}
    for place in range(0, count * step, step):
        tag, kind, number = struct.unpack_from(order + "HH" + pointer, table, place)
        if tag in {_COMPRESSION, _PHOTOMETRIC, _SUBFILES}:
            value = table[place + step - struct.calcsize(pointer) : place + step]
            entries[tag] = _integers(file, value, kind, number, order + pointer)
    return entries, following


def _integers(
    file: IO[bytes], value: bytes, kind: int, number: int, pointer: str
) -> tuple[int, ...]:
    layout = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
    if layout is None or number > _MOST_DIRECTORIES:
        return ()
    layout = f"{pointer[0]}{number}{layout}"
    if struct.calcsize(layout) > len(value):
        file.seek(struct.unpack(pointer, value)[0])
        value = file.read(struct.calcsize(layout))
    return struct.unpack_from(layout, value)
