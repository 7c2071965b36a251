"""Tells camera raw files, many of which begin like any TIFF. Loads no library."""

from __future__ import annotations

import struct
from typing import IO

from nst_daemon.pictures.formats import FORMATS, HEAD_BYTES, Format, detect
from nst_daemon.pictures.tiff.entries import TagEntry, beginning, read_entries

#: PhotometricInterpretation of raw data: colour filter array (TIFF/EP, ISO 12234-2) and LinearRaw (DNG 1.7, chapter 4).
_RAW_COLOURS = {32803, 34892}
#: Compressions of cameras: Sony, packed, Samsung, Nikon, Kodak, Pentax.
_RAW_CODES = {32767, 32769, 32770, 34713, 65000, 65535}
_COMPRESSION, _PHOTOMETRIC, _SUBFILES = _TAGS = 259, 262, 330
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
    except (OSError, EOFError, struct.error, ValueError, OverflowError):
        return False


def _has_raw_directory(file: IO[bytes], head: bytes) -> bool:
    order, big, first = beginning(head)
    pending, seen = [first], set[int]()
    while pending and len(seen) < _MOST_DIRECTORIES:
        offset = pending.pop(0)
        if not offset or offset in seen:
            continue
        seen.add(offset)
        entries, following, _ = read_entries(
            file, order, big, offset, tags=_TAGS, most=_MOST_ENTRIES
        )
        values = {tag: _integers(file, entry, order) for tag, entry in entries.items()}
        if _RAW_COLOURS.intersection(values.get(_PHOTOMETRIC, ())[:1]):
            return True
        if _RAW_CODES.intersection(values.get(_COMPRESSION, ())[:1]):
            return True
        pending += [*values.get(_SUBFILES, ()), following]
    return False


def _integers(file: IO[bytes], entry: TagEntry, order: str) -> tuple[int, ...]:
    """The values of an entry; none if they are too many, or no unsigned integers of 16 bits or more."""
    layout = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(entry.kind)
    if layout is None or entry.count > _MOST_DIRECTORIES:
        return ()
    file.seek(entry.at)
    return struct.unpack(f"{order}{entry.count}{layout}", file.read(entry.length))
