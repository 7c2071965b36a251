"""The boxes of files like HEIC, AVIF and JP2 (ISO 14496-12, ISO 23008-12), parsed within bounds.

Broken boxes raise ValueError; nothing is allocated by what a file claims.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

#: No file that cameras and programs write has more boxes at one place, items or tracks.
MOST = 20_000
#: The boxes that list items, their references or their properties have together no more bytes.
_LONGEST_LIST = 4 << 20
#: All items have together no more extents.
_MOST_PARTS = 100_000

Property = tuple[bytes, bytes]  # type and content


@dataclass
class BoxItem:
    """An item of a `meta` box.

    Attributes:
        kind: Such as `hvc1`, `av01`, `grid` or `Exif`.
        properties: Types and contents, in the order in which they apply.
        references: The items that it refers to, by the type of the reference.
        extents: Offset and length in the file.
        named_at: The offset in the file of `kind`.
    """

    kind: bytes = b""
    properties: list[Property] = field(default_factory=list)
    references: dict[bytes, list[int]] = field(default_factory=dict)
    extents: list[tuple[int, int]] = field(default_factory=list)
    named_at: int = 0

    def property(self, kind: bytes) -> bytes | None:
        """The content of the first property of a type."""
        return next((content for found, content in self.properties if found == kind), None)

    def payload(self, data: bytes) -> bytes:
        """What the item contains."""
        if sum(length for _, length in self.extents) > len(data):
            raise ValueError("the parts of an item overlap or are cut off")
        return b"".join(data[start : start + length] for start, length in self.extents)


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """The type, and the start and end of the content, of each box. A box that is cut off ends with the data."""
    end = len(data) if end is None else min(end, len(data))
    for _ in range(MOST):
        if start + 8 > end:
            return
        length, kind, header = (
            int.from_bytes(data[start : start + 4], "big"),
            data[start + 4 : start + 8],
            8,
        )
        if length == 1:
            length, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif length == 0:
            length = end - start
        if length < header:
            raise ValueError(f"the length of the box {kind.decode('latin-1')} is wrong")
        yield kind, start + header, min(start + length, end)
        start += length
    raise ValueError("there are too many boxes")


def found(
    data: bytes, path: tuple[bytes, ...], start: int = 0, end: int | None = None
) -> tuple[int, int]:
    """The start and end of the content of a nested box, or (0, 0). The content of a full box includes its version."""
    for kind in path:
        inner = next(((a, b) for k, a, b in boxes(data, start, end) if k == kind), None)
        if inner is None:
            return 0, 0
        start, end = inner
        if kind == b"meta":
            start += 4
    return start, end or 0


def items(data: bytes) -> tuple[int, dict[int, BoxItem]]:
    """The number of the primary item, and all items by their numbers; (0, {}) if there is no `meta` box."""
    start, end = found(data, (b"meta",))
    inside = {kind: (a, b) for kind, a, b in boxes(data, start, end)}
    known: dict[int, BoxItem] = {}
    if b"iinf" in inside:
        _kinds(data, known, *inside[b"iinf"])
    if b"iloc" in inside:
        _extents(data, known, inside.get(b"idat", (0, 0)), *inside[b"iloc"])
    if b"iref" in inside:
        _references(data, known, *inside[b"iref"])
    if b"iprp" in inside:
        _properties(data, known, *inside[b"iprp"])
    if b"pitm" not in inside:
        return 0, known
    numbers = _Fields(data, *inside[b"pitm"])
    version, _ = numbers.full_box()
    return numbers.next(4 if version else 2), known


def _require_short(length: int) -> None:
    """Raise ValueError if boxes that list items have together more bytes than any program writes."""
    if length > _LONGEST_LIST:
        raise ValueError("a list of items is too long")


class _Fields:
    """Reads unsigned integers one after the other."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        _require_short(end - start)
        self.data, self.at, self.end = data, start, end

    def next(self, size: int) -> int:
        """The next one, of so many bytes."""
        self.at += size
        if self.at > self.end:
            raise ValueError("a box is cut off")
        return int.from_bytes(self.data[self.at - size : self.at], "big")

    def full_box(self) -> tuple[int, int]:
        """Version and flags."""
        return self.next(1), self.next(3)


def _kinds(data: bytes, known: dict[int, BoxItem], start: int, end: int) -> None:
    version = data[start] if start < end else 0
    for kind, a, b in boxes(data, start + (8 if version else 6), end):
        if kind == b"infe":
            numbers = _Fields(data, a, b)
            version, _ = numbers.full_box()
            number = numbers.next(4 if version >= 3 else 2)
            numbers.next(2)
            known[number] = BoxItem(numbers.next(4).to_bytes(4, "big"), named_at=numbers.at - 4)


def _extents(
    data: bytes, known: dict[int, BoxItem], idat: tuple[int, int], start: int, end: int
) -> None:
    numbers = _Fields(data, start, end)
    version, _ = numbers.full_box()
    sizes = numbers.next(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    parts = 0
    for _ in range(numbers.next(2 if version < 2 else 4)):
        item = known.get(numbers.next(2 if version < 2 else 4), BoxItem())
        method = numbers.next(2) & 15 if version else 0
        numbers.next(2)
        base = numbers.next(base_size) + (idat[0] if method == 1 else 0)
        count = numbers.next(2)
        parts += count
        if parts > _MOST_PARTS:  # their numbers may have no bytes
            raise ValueError("its items have too many parts")
        for _ in range(count):
            numbers.next(index_size)
            offset = base + numbers.next(offset_size)
            item.extents.append((offset, numbers.next(length_size) or len(data) - offset))


def _references(data: bytes, known: dict[int, BoxItem], start: int, end: int) -> None:
    _require_short(end - start)
    version = data[start] if start < end else 0
    size = 4 if version else 2
    for kind, a, b in boxes(data, start + 4, end):
        numbers = _Fields(data, a, b)
        item = known.get(numbers.next(size), BoxItem())
        item.references[kind] = [numbers.next(size) for _ in range(numbers.next(2))]


def _properties(data: bytes, known: dict[int, BoxItem], start: int, end: int) -> None:
    parts = [(kind, a, b) for kind, a, b in boxes(data, start, end)]
    _require_short(sum(b - a for kind, a, b in parts if kind == b"ipma"))
    shared: list[Property] = []
    for kind, a, b in parts:
        if kind == b"ipco":
            shared += [(inner, data[c:d]) for inner, c, d in boxes(data, a, b)]
    for kind, a, b in parts:
        if kind == b"ipma":
            numbers = _Fields(data, a, b)
            version, flags = numbers.full_box()
            wide = 2 if flags & 1 else 1
            for _ in range(numbers.next(4)):
                item = known.get(numbers.next(4 if version else 2), BoxItem())
                for _ in range(numbers.next(1)):
                    index = numbers.next(wide) & (0x7FFF if wide == 2 else 0x7F)
                    if 0 < index <= len(shared):
                        item.properties.append(shared[index - 1])


def box(kind: bytes, contents: bytes) -> bytes:
    """A box."""
    if len(contents) + 8 < 1 << 32:
        return struct.pack(">I", len(contents) + 8) + kind + contents
    return struct.pack(">I4sQ", 1, kind, len(contents) + 16) + contents


def clean_aperture(content: bytes, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns that a `clap` property leaves; all of them if it is invalid (ISO 14496-12, 12.1.4)."""
    numbers = struct.unpack(">IIIIiIiI", content[:32].ljust(32, b"\0"))
    whole = slice(0, height), slice(0, width)
    if not all(numbers[1::2]):
        return whole
    wide, high, right, down = (n / d for n, d in zip(numbers[::2], numbers[1::2], strict=True))
    columns = _span(width, wide, right)
    rows = _span(height, high, down)
    return (rows, columns) if rows and columns else whole


def _span(side: int, wanted: float, offset: float) -> slice | None:
    first = round(offset + (side - wanted) / 2)
    last = first + round(wanted)
    return slice(first, last) if 0 <= first < last <= side else None
