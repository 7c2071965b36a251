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

from nst_daemon.intake.file_data import (
    AHEAD,
    BLANK_CODE,
    BLANK_PIXELS,
    CHUNK,
    MAX_STEPS,
    FileData,
    Missing,
    Undecided,
)
from nst_daemon.intake.tiff_walk import walk_tiff
from nst_daemon.pictures.formats import BMP_HEADERS, HEAD_BYTES, Name, detect, may_begin_an_image
from nst_daemon.pictures.jxl.frames import end_of_frames


def looks_whole(descriptor: int, size: int) -> bool:
    """Whether everything is there that the file's structure refers to.

    Args:
        descriptor: open for reading; its position may change.
        size: in bytes.

    Returns:
        False for an empty or unfinished file; True for unknown formats and for structures that are invalid.
    """
    data = FileData(descriptor, size)
    try:
        head = data.read(0, min(size, HEAD_BYTES))
        if len(head) < _SHORTEST and may_begin_an_image(head):
            return False
        data.require_written(0, len(head), HEAD_BYTES)
        known = detect(head)
        walk = _WALKS.get(known.name, _unknown) if known else _unknown
        return not data.has_hole(walk(data))
    except Missing:
        return False
    except (Undecided, ArithmeticError, LookupError, TypeError, ValueError, struct.error):
        return True


# One walk for each format (`_WALKS`). It returns the end of the last region that the structure refers to.


def _unknown(data: FileData) -> int:
    data.require_written(0, data.size)
    return data.size


_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]", re.DOTALL)
_ALONE = {0x01, 0xD8}  # markers without a segment: TEM, SOI


def _jpeg(data: FileData) -> int:
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
            raise Undecided if length else Missing
        position += length
        if marker == 0xDA and not in_scans:
            in_scans = True
            # Between the first scan and the end of the image, no coded byte looks like the end of an image.
            tail = max(position, data.size - AHEAD)
            found = os.pread(data.descriptor, AHEAD, tail).rfind(b"\xff\xd9")
            if found >= 0:
                return tail + found + 2


_IEND_CRC = b"\xae\x42\x60\x82"


def _png(data: FileData) -> int:
    """Chunks up to IEND (PNG, third edition, 5.3)."""
    position = 8
    while True:
        head = data.read(position, 8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if 0 in kind:
            raise Missing
        if not kind.isalpha():
            raise Undecided
        position += 12 + length
        data.require(position)
        if kind == b"IEND":
            if data.read(position - 4, 4) != _IEND_CRC:
                raise Missing
            return position


_GIF_BLOCK = re.compile(rb"[\x21\x2c\x3b]")  # extension, image, trailer


def _gif(data: FileData) -> int:
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
        while length := data.read(position, 1, AHEAD)[0]:
            position += 1 + length
        position += 1


def _color_table(flags: int) -> int:
    """The size of a color table in bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: FileData) -> int:
    """The size that the header states, the pixels, and the color profile."""
    total, start, header = struct.unpack("<I4xII", data.read(2, 16))
    if header not in BMP_HEADERS:
        raise Undecided if header else Missing
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
        raise Undecided
    if raw and not length:
        raise Missing
    end: int = max(total, start + length)
    if header == 124 and data.read(70, 4) in {b"DEBM", b"KNIL"}:  # an embedded or linked profile
        offset, profile = struct.unpack("<II", data.read(126, 8))
        end = max(end, 14 + offset + profile)
    data.require(end)
    data.require_written(start, length, BLANK_PIXELS if raw else BLANK_CODE)
    return end


def _webp(data: FileData) -> int:
    """The chunks of the RIFF (WebP container specification). As the reader does, it goes on to the first picture where
    the RIFF states a smaller size, and notices a missing byte of padding.
    """
    position, end, has_image = 12, 8 + data.number(4, 4, "little"), False
    while position + 8 <= (end if has_image else max(end, data.size)):
        head = data.read(position, 8)
        if 0 in head[:4]:
            raise Missing
        length = int.from_bytes(head[4:], "little")
        data.require(position + 8 + length)
        if head[:4] in {b"VP8 ", b"VP8L", b"ANMF"}:
            has_image = True
            data.require_written(position + 8, length, _webp_blank(data, position + 8, head[:4]))
        position += 8 + length
        padded = position < data.size and data.read(position, 1) == b"\0"
        position += length % 2 if padded else 0
    if not has_image:
        raise Missing
    return min(position, data.size)


def _webp_blank(data: FileData, start: int, kind: bytes) -> int:
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
    return BLANK_CODE + (width // 16 + 1) * (height // 16 + 1)


#: Items of coded pixels (HEVC, AV1, AVC, VVC, JPEG, JPEG 2000); others, like EXIF, may end with zeros.
_CODED_ITEMS = {b"hvc1", b"av01", b"avc1", b"vvc1", b"jpeg", b"j2k1"}


def _boxes(data: FileData) -> int:
    """The boxes of an HEIC or AVIF file and the extents of its items (ISO 14496-12)."""
    last, known = 0, set()
    for kind, start, end in _top_boxes(data):
        known.add(kind)
        if kind == b"meta":
            _items(data, start + 4, end)
        elif kind == b"mdat" and b"meta" not in known:
            data.require_written(start, end - start, BLANK_PIXELS)
        last = end
    if not known & {b"meta", b"moov"}:
        raise Missing
    return last


def _jxl(data: FileData) -> int:
    """The boxes of JPEG XL (ISO/IEC 18181-2), or the frames of a naked codestream."""
    if data.read(0, 1) == b"\xff":
        data.require_written(0, data.size)  # a header and zeros are a frame without contents
        try:
            return end_of_frames(data)
        except EOFError:
            raise Missing from None
        except ValueError:
            raise Undecided from None
    last, whole = 0, False
    for kind, start, end in _top_boxes(data):
        if kind in {b"jxlc", b"jxlp"}:
            contents = min(start + 4 * (kind == b"jxlp"), end)  # after the number of the part
            data.require_written(contents, end - contents)
            whole |= kind == b"jxlc" or data.number(start, 1) >= 0x80  # the last part
        last = end
    if not whole:
        raise Missing
    return last


def _jpeg2000(data: FileData) -> int:
    """The boxes of a JP2 file (ISO 15444-1, annex I), or a bare codestream."""
    if data.read(0, 2) == b"\xff\x4f":
        return _codestream(data, 2)
    last, whole = 0, False
    for kind, start, end in _top_boxes(data, b"jp2c"):
        if kind == b"jp2c":
            _codestream(data, start + 2)
            whole = True
        last = end
    if not whole:
        raise Missing
    return last


def _codestream(data: FileData, position: int) -> int:
    """Segments and parts of tiles up to the end of the codestream (ISO 15444-1, annex A)."""
    while (marker := data.number(position, 2)) != 0xFFD9:
        if not marker:
            raise Missing
        if marker < 0xFF00:
            raise Undecided
        length = data.number(position + 2, 2)
        if marker == 0xFF90:  # a part of a tile
            length = data.number(position + 6, 4) - 2
            if length == -2:  # the last one reaches to the end
                data.require_written(position, data.size - position)
                return data.size
            if length < 12:
                raise Undecided
            data.require(position + 2 + length)
            data.require_written(position + 14, length - 12)
        elif length < 2:
            raise Undecided if length else Missing
        position += 2 + length
    return position + 2


def _box(data: FileData, position: int, end: int) -> tuple[bytes, int, int]:
    """A box in something that ends there: its type, the start of its contents, and its end (ISO 14496-12, 4.2)."""
    head = data.read(position, 8)
    length, start = int.from_bytes(head[:4], "big"), position + 8
    if length == 1:
        length, start = data.number(position + 8, 8), position + 16
    elif length == 0:  # the last box reaches to the end
        length = end - position
    if position + length < start:
        raise Undecided
    return head[4:], start, position + length


def _top_boxes(data: FileData, main: bytes = b"") -> Iterator[tuple[bytes, int, int]]:
    """Each box of a file, as `_box` returns it, up to bytes that are no box. All of its bytes must be there.

    Zeros are bytes that were never written, except after the box of the type `main`.
    """
    position, ended = 0, False
    while position < data.size:
        kind, start, end = _box(data, position, data.size)
        if 0 in kind and not ended:
            raise Missing
        if 0 in kind or not kind.isascii() or not kind.decode().isprintable():
            return
        data.require(end)
        yield kind, start, end
        position, ended = end, ended or kind == main


def _inner_boxes(data: FileData, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Each box inside of another: its type, and the start and the end of its contents."""
    while position + 8 <= end:
        kind, start, last = _box(data, position, end)
        yield kind, start, min(last, end)
        position = last


def _items(data: FileData, start: int, end: int) -> None:
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
            blank = 1 if kinds[item] == b"hvc1" else BLANK_CODE
            data.require_written(offset, length or data.size - offset, blank)


def _item_types(data: FileData, start: int, end: int) -> dict[int, bytes]:
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
            raise Missing
        position += size
        return int.from_bytes(iloc[position - size : position], "big")

    if len(iloc) < position:
        raise Missing
    version, sizes = iloc[0], number(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    steps = 0
    for _ in range(number(2 if version < 2 else 4)):
        item = number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        elsewhere = number(2)
        base = number(base_size)
        count = number(2)
        steps += 1 + count
        if steps > MAX_STEPS:  # numbers may have no bytes
            raise Undecided
        for _ in range(count):
            number(index_size)
            offset, length = base + number(offset_size), number(length_size)
            if not method and not elsewhere:
                yield item, offset, length


def _raw(data: FileData) -> int:
    """Camera raw files: most are TIFF files; CR3 consists of boxes, and RAF has a list of its parts."""
    head = data.read(0, 12)
    if head[4:8] == b"ftyp":
        return _cr3(data)
    if head.startswith(b"FUJIFILM"):
        return _raf(data)
    # RW2 does not state the length of its raw data.
    return walk_tiff(data) if head[:2] in {b"II", b"MM"} and head[2] in b"*R\0O" else _unknown(data)


def _cr3(data: FileData) -> int:
    """The boxes up to the one with the pictures."""
    for kind, _, end in _top_boxes(data):
        if kind == b"mdat":
            data.require_written(0, end)
            return end
    raise Missing


def _raf(data: FileData) -> int:
    """The JPEG, the description of the raw data, and these: offsets and lengths."""
    numbers: tuple[int, ...] = struct.unpack(">6I", data.read(84, 24))
    if not all(numbers):
        raise Missing
    parts = list(zip(numbers[::2], numbers[1::2], strict=True))
    for start, length in parts:
        data.require(start + length)
        data.require_written(start, length)
    return max(start + length for start, length in parts)


def _sum(data: FileData, start: int, end: int, layout: str) -> int:
    """The sum of big-endian integers."""
    total = 0
    while start < end:
        part = data.read(start, min(end - start, CHUNK))
        total += sum(struct.unpack(f">{len(part) // struct.calcsize('>' + layout)}{layout}", part))
        start += len(part)
    return total


def _psd(data: FileData) -> int:
    """The sections, and the merged picture."""
    version, channels, height, width, bits = struct.unpack(">H6xHIIH", data.read(4, 20))
    if not channels * height * width * bits:
        raise Missing
    position = 26
    for size in (4, 4, 8 if version == 2 else 4):  # palette, resources, layers
        position += size + data.number(position, size)
    compression, start = data.number(position, 2), position + 2
    if compression == 0:
        length, blank = channels * height * ((width * bits + 7) // 8), BLANK_PIXELS
    elif compression == 1:
        count = 4 if version == 2 else 2
        length, blank = channels * height * count, BLANK_CODE
        data.require(start + length)
        length += _sum(data, start, start + length, "I" if count == 4 else "H")
    else:  # it states no length
        length, blank = max(data.size - start, 1), BLANK_CODE
    data.require(start + length)
    data.require_written(start, length, blank)
    return int(start + length)


#: No image is shorter.
_SHORTEST = 12

#: The walks by the names of the formats; files of other formats are only checked for missing bytes.
_WALKS: dict[Name, Callable[[FileData], int]] = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "webp": _webp,
    "bmp": _bmp,
    "tiff": walk_tiff,
    "avif": _boxes,
    "heif": _boxes,
    "jxl": _jxl,
    "jpeg2000": _jpeg2000,
    "raw": _raw,
    "psd": _psd,
}
