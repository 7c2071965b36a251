"""The directories of TIFF and BigTIFF files (TIFF 6.0, section 2), and which of them has the main picture.

Little is read and kept, whatever a file says: only the entries of tags that are used, and values when they are needed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

import numpy as np

from nst_daemon.pictures.raster import Array
from nst_daemon.pictures.tiff.entries import TagEntry, beginning, read_entries

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = (
    254, 255, 256, 257, 258, 259, 262,
)  # fmt: skip
FILL_ORDER, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = (
    266, 273, 274, 277, 278, 279,
)  # fmt: skip
PLANAR, T4_OPTIONS, T6_OPTIONS, DATE_TIME, ARTIST, PREDICTOR = 284, 292, 293, 306, 315, 317
COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 320, 322, 323, 324, 325
SUB_DIRECTORIES, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 330, 332, 338, 339
JPEG_TABLES, DECODE = 347, 433
JPEG_PROCESS, JPEG_STREAM, JPEG_BYTES, JPEG_RESTART, JPEG_Q, JPEG_DC, JPEG_AC = (
    512, 513, 514, 515, 519, 520, 521,
)  # fmt: skip
YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, BLACK_WHITE, XMP = 529, 530, 532, 700
TILE_DEPTH, COPYRIGHT, EXIF, PROFILE, LERC_PARAMETERS = 32998, 33432, 34665, 34675, 50674
DATE_TIME_ORIGINAL = 36867
_USED = {
    NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS,
    ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, T4_OPTIONS, T6_OPTIONS, DATE_TIME, ARTIST, PREDICTOR,
    COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_DIRECTORIES, INK_SET, EXTRA_SAMPLES,
    SAMPLE_FORMAT, JPEG_TABLES, DECODE, JPEG_PROCESS, JPEG_STREAM, JPEG_BYTES, JPEG_RESTART, JPEG_Q, JPEG_DC, JPEG_AC,
    YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, BLACK_WHITE, XMP, TILE_DEPTH, COPYRIGHT, EXIF, PROFILE, LERC_PARAMETERS,
    DATE_TIME_ORIGINAL,
}  # fmt: skip

#: numpy's types by those of `entries.TYPE_BYTES`; rationals are pairs.
_TYPES = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4", 11: "f4", 12: "f8",
    13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
_RATIONALS = {5, 10}
#: At most so many pages, sub-directories of a page, and entries of all directories are looked at.
MAX_PAGES, MAX_SUB_DIRECTORIES, MAX_ENTRIES = 2000, 32, 400_000
#: Longer values of tags that have a few numbers are cut.
MAX_NUMBERS = 1024
_REDUCED, _MASK = 1, 4
_PHOTOMETRIC_MASK = 4


@dataclass(frozen=True)
class Directory:
    """An image file directory.

    Attributes:
        order: "<" or ">", as in struct.
        file_size: In bytes.
        following: The offset of the next directory; 0 if it is the last one.
    """

    file: IO[bytes]
    order: str
    big: bool
    file_size: int
    entries: dict[int, TagEntry]
    following: int

    def data(self, tag: int, most: int) -> bytes:
        """At most `most` bytes of a value; b"" if the tag is missing. Raises EOFError if the file ends before."""
        entry = self.entries.get(tag)
        if entry is None:
            return b""
        return self.read(entry.at, min(entry.length, most))

    def array(self, tag: int, most: int = MAX_NUMBERS) -> Array:
        """The values, at most so many: integers, or float64 of rationals; empty if the tag is missing."""
        entry = self.entries.get(tag)
        if entry is None:
            return np.zeros(0, np.int64)
        pair = 2 if entry.kind in _RATIONALS else 1
        kind = np.dtype(self.order + _TYPES[entry.kind])
        values = np.frombuffer(
            self.read(entry.at, min(entry.count, most) * pair * kind.itemsize), kind
        )
        if pair == 1:
            return values.astype(kind.newbyteorder("="))
        parts = values.astype(np.float64)
        return parts[::2] / np.where(parts[1::2] == 0, 1, parts[1::2])

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The values as integers; the default if the tag is missing or empty."""
        values = self.array(tag)
        if not values.size or not np.isfinite(values).all():
            return default
        return tuple(int(value) for value in values)

    def number(self, tag: int, default: int = 0) -> int:
        """The first value."""
        return (self.numbers(tag) or (default,))[0]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file. Raises EOFError if they are not all there."""
        if not 0 <= offset <= self.file_size - length:
            raise EOFError("it ends before its data")
        self.file.seek(offset)
        data = self.file.read(length)
        if len(data) < length:
            raise EOFError("it ends before its data")
        return data

    @property
    def pixels(self) -> int:
        """Width × height; 0 if it has no picture."""
        return max(self.number(WIDTH), 0) * max(self.number(HEIGHT), 0)

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture of its own: neither a reduced one nor a mask."""
        kind = self.number(NEW_SUBFILE_TYPE)
        if NEW_SUBFILE_TYPE not in self.entries and self.number(SUBFILE_TYPE) == 2:
            kind = _REDUCED
        mask = kind & _MASK or self.number(PHOTOMETRIC) == _PHOTOMETRIC_MASK
        return bool(self.pixels) and not kind & _REDUCED and not mask

    def directory(self, offset: int) -> Directory:
        """Another directory of the file."""
        return _directory(self.file, self.order, self.big, self.file_size, offset)[0]


@dataclass(frozen=True)
class Pages:
    """The pages of a file.

    Attributes:
        main: The directory of the main picture.
        first: The first directory, which may have the metadata.
        nested: Whether the main picture is in a sub-directory of the first one.
        count: Number of pictures, without reduced ones and masks; 0 if it is unknown.
    """

    main: Directory
    first: Directory
    nested: bool
    count: int


def read_pages(file: IO[bytes]) -> Pages:
    """Read the directories, and choose the main picture.

    It is the first page that is no reduced picture and no mask, or a larger picture in its sub-directories. If every
    page is reduced, it is the first picture in the sub-directories, or else the largest reduced one.

    Raises:
        EOFError, ValueError: The first directory is damaged, or there is no picture.
    """
    chain, complete = _chain(file)
    full = [page for page in chain if page.is_picture]
    count = max(len(full), 1) if complete else 0
    if full:
        inner = [one for one in _sub_directories(full[0]) if one.is_picture]
        main = max((full[0], *inner), key=lambda one: one.pixels)
        return Pages(main, chain[0], main is not full[0] and full[0] is chain[0], count)
    inner = [one for page in chain[:MAX_SUB_DIRECTORIES] for one in _sub_directories(page)]
    pictures = [one for one in inner if one.is_picture]
    main = pictures[0] if pictures else max((*chain, *inner), key=lambda one: one.pixels)
    if not main.pixels:
        raise ValueError("it has no picture")
    return Pages(main, chain[0], main not in chain, count)


def _chain(file: IO[bytes]) -> tuple[list[Directory], bool]:
    """The pages, and whether these are all: a damaged page ends the list."""
    size = file.seek(0, 2)
    file.seek(0)
    order, big, offset = beginning(file.read(16))
    found: list[Directory] = []
    seen: set[int] = set()
    entries = 0
    while offset and offset not in seen:
        if len(found) >= MAX_PAGES or entries > MAX_ENTRIES:
            return found, False
        seen.add(offset)
        try:
            page, number = _directory(file, order, big, size, offset)
            _ = page.is_picture
        except (EOFError, ValueError, struct.error):
            if not found:
                raise
            return found, False
        entries += number
        found.append(page)
        offset = page.following
    if not found:
        raise ValueError("it has no directory")
    return found, not offset


def _sub_directories(page: Directory) -> list[Directory]:
    """Those that can be read."""
    found: list[Directory] = []
    try:
        offsets = page.numbers(SUB_DIRECTORIES)[:MAX_SUB_DIRECTORIES]
    except EOFError:
        return found
    for offset in offsets:
        try:
            inner = page.directory(offset)
            _ = inner.is_picture
        except (EOFError, ValueError, struct.error):
            continue
        found.append(inner)
    return found


def _directory(
    file: IO[bytes], order: str, big: bool, file_size: int, offset: int
) -> tuple[Directory, int]:
    """A directory, and the number of its entries."""
    entries, following, count = read_entries(file, order, big, offset, tags=_USED)
    return Directory(file, order, big, file_size, entries, following), count
