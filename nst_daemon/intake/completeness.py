"""Is an image file complete? Walks its structure to the end, without decoding.

The answer only delays a file: a slow copy that pauses gets more time. After `truncated_grace` the file goes to the
decoder in any case, which decides whether it is an image.

Lengths and markers are read, pixels are skipped. Bytes that were never written count as missing, although the file may
already have its final size: holes of a sparse file, and zeros where the format has none.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from nst_daemon.pictures import jxl_end
from nst_daemon.pictures.formats import BMP_HEADERS, HEAD_BYTES, Name, detect, may_begin_an_image

#: A walk that needs more is given up: the file counts as complete and the decoder decides.
MAX_STEPS = 200_000
MAX_SCANNED_BYTES = 256 << 20

_CHUNK = 1 << 20
_AHEAD = 64 * 1024
#: Compressed data does not end with this many zeros.
_BLANK_CODE = 16
#: Uncompressed pixels and metadata may end with zeros. This many of them delay a file.
_BLANK_PIXELS = 4096


class _Missing(Exception):  # noqa: N818 (a state of the file, not an error)
    """A part of the file is not there yet."""


class _Undecided(Exception):  # noqa: N818 (a state of the file, not an error)
    """The structure is invalid, or too large to walk."""


def looks_whole(descriptor: int, size: int) -> bool:
    """Whether everything is there that the file's structure refers to.

    Args:
        descriptor: open for reading; its position may change.
        size: in bytes.

    Returns:
        False for an empty or unfinished file; True for unknown formats and for structures that are invalid.
    """
    data = _Data(descriptor, size)
    try:
        head = data.read(0, min(size, HEAD_BYTES))
        if len(head) < _SHORTEST and may_begin_an_image(head):
            return False
        data.require_written(0, len(head), HEAD_BYTES)
        known = detect(head)
        walk = _WALKS.get(known.name, _unknown) if known else _unknown
        return not data.has_hole(walk(data))
    except _Missing:
        return False
    except _Undecided:
        return True


@dataclass(slots=True)
class _Data:
    """The bytes of a file, read in a bounded number of steps."""

    descriptor: int
    size: int
    steps: int = 0
    scanned: int = 0
    _start: int = 0
    _window: bytes = b""

    def read(self, offset: int, length: int, ahead: int = 0) -> bytes:
        """Exactly these bytes. ahead: how many to read at once, where more reads follow closely."""
        self.steps += 1
        if self.steps > MAX_STEPS or length > _CHUNK:
            raise _Undecided
        self.require(offset + length)
        inside = offset - self._start
        if not 0 <= inside <= len(self._window) - length:
            self._start, inside = offset, 0
            self._window = os.pread(self.descriptor, max(length, ahead), offset)
            if len(self._window) < length:  # it was cut off meanwhile
                raise _Missing
        return self._window[inside : inside + length]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.size)
        return self.read(start, max(0, stop - start), _AHEAD)

    def number(self, offset: int, length: int, order: str = "big") -> int:
        """An unsigned integer."""
        return int.from_bytes(self.read(offset, length), "little" if order == "little" else "big")

    def find(self, pattern: re.Pattern[bytes], offset: int) -> int:
        """The offset of the first match of a pattern of at most two bytes."""
        length = 256
        while True:
            chunk = os.pread(self.descriptor, length + 1, offset)
            match = pattern.search(chunk)
            if match:
                return offset + match.start()
            if len(chunk) <= length:  # the end of the file
                raise _Missing
            self.scanned += length
            if self.scanned > MAX_SCANNED_BYTES:
                raise _Undecided
            offset += length
            length = min(8 * length, _CHUNK)

    def require(self, end: int) -> None:
        """Raise _Missing if the file is shorter."""
        if end > self.size:
            raise _Missing

    def require_written(self, offset: int, length: int, blank: int = _BLANK_CODE) -> None:
        """Raise _Missing if the last `blank` bytes of a region are zeros."""
        length, end = min(length, blank), offset + length
        if length and not any(self.read(end - length, length)):
            raise _Missing

    def has_hole(self, end: int) -> bool:
        """Whether bytes before `end` were never written. False if the file system does not tell."""
        try:
            return os.lseek(self.descriptor, 0, os.SEEK_HOLE) < end
        except OSError:
            return False


# One walk for each format (`_WALKS`). It returns the end of the last region that the structure refers to.


def _unknown(data: _Data) -> int:
    data.require_written(0, data.size)
    return data.size


_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]", re.DOTALL)
_ALONE = {0x01, 0xD8}  # markers without a segment: TEM, SOI


def _jpeg(data: _Data) -> int:
    """Segments and scans up to the end of the image (ITU-T T.81, annex B). Thumbnails are inside segments."""
    position, in_scans = 2, False
    while True:
        position = data.find(_MARKER, position) + 2
        marker = data.read(position - 1, 1)[0]
        if marker == 0xD9:
            return position
        if marker in _ALONE:
            continue
        length = data.number(position, 2)
        if length < 2:
            raise _Undecided if length else _Missing
        position += length
        if marker == 0xDA and not in_scans:
            in_scans = True
            # Between the first scan and the end of the image, no coded byte looks like the end of an image.
            tail = max(position, data.size - _AHEAD)
            found = os.pread(data.descriptor, _AHEAD, tail).rfind(b"\xff\xd9")
            if found >= 0:
                return tail + found + 2


_IEND_CRC = b"\xae\x42\x60\x82"


def _png(data: _Data) -> int:
    """Chunks up to IEND (PNG, third edition, 5.3)."""
    position = 8
    while True:
        head = data.read(position, 8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if 0 in kind:
            raise _Missing
        if not kind.isalpha():
            raise _Undecided
        position += 12 + length
        data.require(position)
        if kind == b"IEND":
            if data.read(position - 4, 4) != _IEND_CRC:
                raise _Missing
            return position


_GIF_BLOCK = re.compile(rb"[\x21\x2c\x3b]")  # extension, image, trailer


def _gif(data: _Data) -> int:
    """Blocks up to the trailer (GIF89a, appendix A). Bytes between blocks are skipped, as decoders do."""
    position = 13 + _color_table(data.read(10, 1)[0])
    while True:
        position = data.find(_GIF_BLOCK, position)
        kind = data.read(position, 1)[0]
        if kind == 0x3B:
            return position + 1
        if kind == 0x21:
            position += 2
        else:
            position += 11 + _color_table(data.read(position + 9, 1)[0])
        while length := data.read(position, 1, _AHEAD)[0]:
            position += 1 + length
        position += 1


def _color_table(flags: int) -> int:
    """The size of a color table in bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: _Data) -> int:
    """The size that the header states, the pixels, and the color profile."""
    total, start, header = struct.unpack("<I4xII", data.read(2, 16))
    if header not in BMP_HEADERS:
        raise _Undecided if header else _Missing
    compression, stored = 0, 0
    if header == 12:
        width, height, _, bits = struct.unpack("<4H", data.read(18, 8))
    else:
        width, height, _, bits = struct.unpack("<iiHH", data.read(18, 12))
    if header >= 40:
        compression, stored = struct.unpack("<II", data.read(30, 8))
    raw = compression in {0, 6} or (compression == 3 and header != 64)
    length: int = (width * bits + 31) // 32 * 4 * abs(height) if raw else stored
    if length < 0:
        raise _Undecided
    if raw and not length:
        raise _Missing
    end: int = max(total, start + length)
    if header == 124 and data.read(70, 4) in {b"DEBM", b"KNIL"}:  # an embedded or linked profile
        offset, profile = struct.unpack("<II", data.read(126, 8))
        end = max(end, 14 + offset + profile)
    data.require(end)
    data.require_written(start, length, _BLANK_PIXELS if raw else _BLANK_CODE)
    return end


_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_SIZES |= {16: 8, 17: 8, 18: 8}
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TIFF_INTEGER_TAGS = {256, 257, 258, 259, 273, 277, 279, 324, 325, 330, 513, 514, 34665, 34853}
_TIFF_JPEG_TABLES = 347
#: Directories that a directory refers to: SubIFDs, EXIF, GPS.
_TIFF_FOLDERS = (330, 34665, 34853)
#: Offsets and lengths of strips, tiles and old JPEG data.
_TIFF_REGIONS = ((273, 279), (324, 325), (513, 514))
_MAX_TIFF_VALUES = 100_000


def _tiff(data: _Data) -> int:
    """All directories, and the strips and tiles that they refer to (TIFF 6.0, BigTIFF)."""
    return _Tiff(data).walk()


@dataclass(slots=True)
class _Tiff:
    """One walk through a TIFF."""

    data: _Data
    order: str = "<"
    big: bool = False
    #: The end of the region that ends last, and how many zeros at its end count as missing.
    end: int = 8
    blank: int = 0
    pending: list[int] = field(default_factory=list)

    def walk(self) -> int:
        """The end of the last region. Raises _Missing, _Undecided."""
        self.order = "<" if self.data.read(0, 2) == b"II" else ">"
        self.big = self._unpack("H", 2)[0] == 43
        self.pending = [self._unpack("Q", 8)[0] if self.big else self._unpack("I", 4)[0]]
        if not self.pending[0]:
            raise _Missing
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
            raise _Missing
        if count > 0xFFFF:
            raise _Undecided
        offset += struct.calcsize(count_layout)
        values: dict[int, tuple[int, ...]] = {}
        for place in range(offset, offset + count * step, step):
            tag, kind, number = self._unpack("HH" + pointer, place)
            if not kind:
                raise _Missing
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
        length = _TIFF_SIZES.get(kind, 0) * number
        pointer = "Q" if self.big else "I"
        if length > struct.calcsize(pointer):
            (place,) = self._unpack(pointer, place)
            if not place:
                raise _Missing
            self._reach(place + length, _BLANK_CODE if length >= _BLANK_CODE else 0)
        return place

    def _integers(self, place: int, kind: int, number: int) -> tuple[int, ...]:
        if kind not in _TIFF_INTEGERS or number > _MAX_TIFF_VALUES:
            raise _Undecided
        return self._unpack(f"{number}{_TIFF_INTEGERS[kind]}", place)

    def _regions(
        self, values: dict[int, tuple[int, ...]], starts: tuple[int, ...], lengths: tuple[int, ...]
    ) -> None:
        raw = values.get(259, (1,)) == (1,)
        if starts and not lengths:  # old writers leave the lengths out
            lengths = (self._pixel_bytes(values) if raw and len(starts) == 1 else 1,) * len(starts)
        if starts and not any(lengths):
            raise _Missing
        for start, length in zip(starts, lengths, strict=False):
            if bool(start) != bool(length):  # an array that has not arrived
                raise _Missing
            self._reach(start + length, min(length, _BLANK_PIXELS if raw else _BLANK_CODE))

    def _pixel_bytes(self, values: dict[int, tuple[int, ...]]) -> int:
        width, height, channels = (values.get(tag, (1,))[0] for tag in (256, 257, 277))
        return (width * channels * values.get(258, (1,))[0] + 7) // 8 * height

    def _reach(self, end: int, blank: int = 0) -> None:
        self.data.require(end)
        if end > self.end:
            self.end, self.blank = end, blank


def _webp(data: _Data) -> int:
    """The chunks of the RIFF (WebP container specification)."""
    position, end, has_image = 12, 8 + data.number(4, 4, "little"), False
    while position + 8 <= end:
        head = data.read(position, 8)
        if 0 in head[:4]:
            raise _Missing
        length = int.from_bytes(head[4:], "little")
        data.require(position + 8 + length)
        if head[:4] in {b"VP8 ", b"VP8L", b"ANMF"}:
            has_image = True
            data.require_written(position + 8, length, _webp_blank(data, position + 8, head[:4]))
        position += 8 + length + length % 2
    if not has_image:
        raise _Missing
    return min(position, data.size)


def _webp_blank(data: _Data, start: int, kind: bytes) -> int:
    """How many zeros an image does not end with.

    Encoders need up to one byte of zeros for an empty macroblock (measured with libwebp, except with its method 0).
    """
    if kind == b"VP8L":
        sides = data.number(start + 1, 4, "little")
        width, height = sides & 0x3FFF, sides >> 14 & 0x3FFF
    elif kind == b"VP8 ":
        sides = data.number(start + 6, 4, "little")
        width, height = sides & 0x3FFF, sides >> 16 & 0x3FFF
    else:
        width, height = data.number(start + 6, 3, "little"), data.number(start + 9, 3, "little")
    return _BLANK_CODE + (width // 16 + 1) * (height // 16 + 1)


#: Items of coded pixels (HEVC, AV1, AVC, VVC, JPEG, JPEG 2000); others, like EXIF, may end with zeros.
_CODED_ITEMS = {b"hvc1", b"av01", b"avc1", b"vvc1", b"jpeg", b"j2k1"}


def _boxes(data: _Data) -> int:
    """The boxes of an HEIC or AVIF file and the extents of its items (ISO 14496-12)."""
    position, known = 0, set()
    while position < data.size:
        head = data.read(position, 8)
        length, kind = _box(data, position, head, data.size)
        if 0 in kind:
            raise _Missing
        if not kind.isascii() or not kind.decode().isprintable():
            break  # bytes that follow the last box
        known.add(kind)
        data.require(position + length)
        if kind == b"meta":
            _items(data, position + 12, position + length)
        elif kind == b"mdat" and b"meta" not in known:
            data.require_written(position + 8, length - 8, _BLANK_PIXELS)
        position += length
    if not known & {b"meta", b"moov"}:
        raise _Missing
    return position


def _jxl(data: _Data) -> int:
    """The boxes of JPEG XL, or the frames of a naked codestream."""
    if (
        data.read(0, 1) == b"\xff"
    ):  # a naked codestream: a header and zeros are a frame without contents
        data.require_written(0, data.size)
    try:
        return jxl_end.end_of(data)
    except EOFError:
        raise _Missing from None
    except ValueError:
        raise _Undecided from None


def _box(data: _Data, position: int, head: bytes, end: int) -> tuple[int, bytes]:
    """The length of a box with its header, and its type."""
    length, least = int.from_bytes(head[:4], "big"), 8
    if length == 1:
        length, least = data.number(position + 8, 8), 16
    elif length == 0:  # the last box reaches to the end
        length = end - position
    if length < least:
        raise _Undecided
    return length, head[4:]


def _inner_boxes(data: _Data, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Each box: its type, and the start and the end of its contents."""
    while position + 8 <= end:
        length, kind = _box(data, position, data.read(position, 8), end)
        yield kind, position + 8, min(position + length, end)
        position += length


def _items(data: _Data, start: int, end: int) -> None:
    """Check the extents that `iloc` lists."""
    boxes = {kind: (first, last) for kind, first, last in _inner_boxes(data, start, end)}
    if b"iloc" not in boxes:
        return
    kinds = _item_types(data, *boxes[b"iinf"]) if b"iinf" in boxes else {}
    first, last = boxes[b"iloc"]
    for item, offset, length in _extents(data.read(first, last - first)):
        data.require(offset + length)
        if kinds.get(item) in _CODED_ITEMS:
            # A unit of HEVC ends with a bit that is set.
            blank = 1 if kinds[item] == b"hvc1" else _BLANK_CODE
            data.require_written(offset, length or data.size - offset, blank)


def _item_types(data: _Data, start: int, end: int) -> dict[int, bytes]:
    """The type of each item, by its number."""
    kinds = {}
    for kind, first, _ in _inner_boxes(data, start + (8 if data.read(start, 1)[0] else 6), end):
        if kind == b"infe":
            size = 4 if data.read(first, 1)[0] >= 3 else 2
            kinds[data.number(first + 4, size)] = data.read(first + 6 + size, 4)
    return kinds


def _extents(iloc: bytes) -> Iterator[tuple[int, int, int]]:
    """Number of the item, offset and length of each extent that is stored in this file outside of `meta`."""
    position = 4

    def number(size: int) -> int:
        nonlocal position
        if position + size > len(iloc):
            raise _Missing
        position += size
        return int.from_bytes(iloc[position - size : position], "big")

    if len(iloc) < position:
        raise _Missing
    version, sizes = iloc[0], number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    for _ in range(number(2 if version < 2 else 4)):
        item = number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        elsewhere = number(2)
        base = number(base_size)
        for _ in range(number(2)):
            number(index_size)
            offset, length = base + number(offset_size), number(length_size)
            if not method and not elsewhere:
                yield item, offset, length


def _raw(data: _Data) -> int:
    """Camera raw files: most are TIFF files; CR3 consists of boxes, and RAF has a list of its parts."""
    head = data.read(0, 12)
    if head[4:8] == b"ftyp":
        return _cr3(data)
    if head.startswith(b"FUJIFILM"):
        return _raf(data)
    # RW2 does not state the length of its raw data.
    return _tiff(data) if head[:2] in {b"II", b"MM"} and head[2] in b"*R\0O" else _unknown(data)


def _cr3(data: _Data) -> int:
    """The boxes up to the one with the pictures."""
    position, kind = 0, b""
    while kind != b"mdat":
        length, kind = _box(data, position, data.read(position, 8), data.size)
        position += length
    data.require(position)
    data.require_written(0, position)
    return position


def _raf(data: _Data) -> int:
    """The JPEG, the description of the raw data, and these: offsets and lengths."""
    numbers: tuple[int, ...] = struct.unpack(">6I", data.read(84, 24))
    if not all(numbers):
        raise _Missing
    parts = list(zip(numbers[::2], numbers[1::2], strict=True))
    for start, length in parts:
        data.require(start + length)
        data.require_written(start, length)
    return max(start + length for start, length in parts)


def _sum(data: _Data, start: int, end: int, layout: str) -> int:
    """The sum of big-endian integers."""
    total = 0
    while start < end:
        part = data.read(start, min(end - start, _CHUNK))
        total += sum(struct.unpack(f">{len(part) // struct.calcsize('>' + layout)}{layout}", part))
        start += len(part)
    return total


def _psd(data: _Data) -> int:
    """The sections, and the merged picture."""
    version, channels, height, width, bits = struct.unpack(">H6xHIIH", data.read(4, 20))
    if not channels * height * width * bits:
        raise _Missing
    position = 26
    for size in (4, 4, 8 if version == 2 else 4):  # palette, resources, layers
        position += size + data.number(position, size)
    compression, start = data.number(position, 2), position + 2
    if compression == 0:
        length, blank = channels * height * ((width * bits + 7) // 8), _BLANK_PIXELS
    elif compression == 1:
        count = 4 if version == 2 else 2
        length, blank = channels * height * count, _BLANK_CODE
        data.require(start + length)
        length += _sum(data, start, start + length, "I" if count == 4 else "H")
    else:  # it states no length
        length, blank = max(data.size - start, 1), _BLANK_CODE
    data.require(start + length)
    data.require_written(start, length, blank)
    return int(start + length)


#: No image is shorter.
_SHORTEST = 12

#: The walks by the names of the formats; files of other formats are only checked for missing bytes.
_WALKS: dict[Name, Callable[[_Data], int]] = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "webp": _webp,
    "bmp": _bmp,
    "tiff": _tiff,
    "avif": _boxes,
    "heif": _boxes,
    "jxl": _jxl,
    "raw": _raw,
    "psd": _psd,
}
