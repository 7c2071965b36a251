"""The structure of TIFF files, for `completeness`: directories, strips and tiles."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from nst_daemon.intake.file_data import BLANK_CODE, BLANK_PIXELS, FileData, Missing, Undecided
from nst_daemon.pictures.tiff.entries import TYPE_BYTES

_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TIFF_INTEGER_TAGS = {256, 257, 258, 259, 273, 277, 279, 324, 325, 330, 513, 514, 34665, 34853}
_TIFF_JPEG_TABLES = 347
#: Directories that a directory refers to: SubIFDs, EXIF, GPS.
_TIFF_FOLDERS = (330, 34665, 34853)
#: Offsets and lengths of strips, tiles and old JPEG data.
_TIFF_REGIONS = ((273, 279), (324, 325), (513, 514))
_MAX_TIFF_VALUES = 100_000


def walk_tiff(data: FileData) -> int:
    """All directories, and the strips and tiles that they refer to (TIFF 6.0, BigTIFF)."""
    return _Tiff(data).walk()


@dataclass(slots=True)
class _Tiff:
    """One walk through a TIFF."""

    data: FileData
    order: str = "<"
    big: bool = False
    #: The end of the region that ends last, and how many zeros at its end count as missing.
    end: int = 8
    blank: int = 0
    pending: list[int] = field(default_factory=list)

    def walk(self) -> int:
        """The end of the last region. Raises Missing, Undecided."""
        self.order = "<" if self.data.read(0, 2) == b"II" else ">"
        self.big = self._unpack("H", 2)[0] == 43
        self.pending = [self._unpack("Q", 8)[0] if self.big else self._unpack("I", 4)[0]]
        if not self.pending[0]:
            raise Missing
        seen: set[int] = set()
        while self.pending:
            offset = self.pending.pop()
            if offset and offset not in seen:
                seen.add(offset)
                self._directory(offset)
        self.data.require(self.end)
        self.data.require_written(0, self.end, self.blank)
        return self.end

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        layout = self.order + layout
        return struct.unpack(layout, self.data.read(offset, struct.calcsize(layout)))

    def _directory(self, offset: int) -> None:
        count_layout, pointer, step = ("Q", "Q", 20) if self.big else ("H", "I", 12)
        (count,) = self._unpack(count_layout, offset)
        if not count:
            raise Missing
        if count > 0xFFFF:
            raise Undecided
        offset += struct.calcsize(count_layout)
        values: dict[int, tuple[int, ...]] = {}
        for place in range(offset, offset + count * step, step):
            tag, kind, number = self._unpack("HH" + pointer, place)
            if not kind:
                raise Missing
            value = self._value(place + step - struct.calcsize(pointer), kind, number)
            if tag == _TIFF_JPEG_TABLES:
                self.data.require_written(value, number)
            if tag in _TIFF_INTEGER_TAGS:
                values[tag] = self._integers(value, kind, number)
        (following,) = self._unpack(pointer, offset + count * step)
        self._reach(offset + count * step + struct.calcsize(pointer))
        self.pending += [following, *(at for tag in _TIFF_FOLDERS for at in values.get(tag, ()))]
        for starts, lengths in _TIFF_REGIONS:
            self._regions(values, values.get(starts, ()), values.get(lengths, ()))

    def _value(self, place: int, kind: int, number: int) -> int:
        """Where the value of an entry is. All of its bytes must be there."""
        length = TYPE_BYTES.get(kind, 0) * number
        pointer = "Q" if self.big else "I"
        if length > struct.calcsize(pointer):
            (place,) = self._unpack(pointer, place)
            if not place:
                raise Missing
            self._reach(place + length, BLANK_CODE if length >= BLANK_CODE else 0)
        return place

    def _integers(self, place: int, kind: int, number: int) -> tuple[int, ...]:
        if kind not in _TIFF_INTEGERS or number > _MAX_TIFF_VALUES:
            raise Undecided
        return self._unpack(f"{number}{_TIFF_INTEGERS[kind]}", place)

    def _regions(
        self, values: dict[int, tuple[int, ...]], starts: tuple[int, ...], lengths: tuple[int, ...]
    ) -> None:
        raw = values.get(259, (1,)) == (1,)
        if starts and not lengths:  # old writers leave the lengths out
            lengths = (self._pixel_bytes(values) if raw and len(starts) == 1 else 1,) * len(starts)
        if starts and not any(lengths):
            raise Missing
        for start, length in zip(starts, lengths, strict=False):
            if bool(start) != bool(length):  # an array that has not arrived
                raise Missing
            self._reach(start + length, min(length, BLANK_PIXELS if raw else BLANK_CODE))

    def _pixel_bytes(self, values: dict[int, tuple[int, ...]]) -> int:
        width, height, channels = (values.get(tag, (1,))[0] for tag in (256, 257, 277))
        return (width * channels * values.get(258, (1,))[0] + 7) // 8 * height

    def _reach(self, end: int, blank: int = 0) -> None:
        self.data.require(end)
        if end > self.end:
            self.end, self.blank = end, blank
