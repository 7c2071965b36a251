"""The entries of TIFF directories (TIFF 6.0, section 2, and BigTIFF), read within bounds. Loads no library."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import IO

#: Bytes of a value, by type.
TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
    13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TagEntry:
    """An entry of a directory. kind: a key of `TYPE_BYTES`; at: the offset of its values."""

    kind: int
    count: int
    at: int

    @property
    def length(self) -> int:
        """Bytes of its values."""
        return self.count * TYPE_BYTES[self.kind]


def beginning(head: bytes) -> tuple[str, bool, int]:
    """The byte order ("<" or ">"), whether it is a BigTIFF, and the offset of the first directory.

    Args:
        head: The first 16 bytes of the file.

    Raises:
        struct.error: There are fewer.
    """
    order, big = "<" if head[:2] == b"II" else ">", 43 in (head[2], head[3])
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    return order, big, offset


def read_entries(
    file: IO[bytes],
    order: str,
    big: bool,
    offset: int,
    *,
    tags: Collection[int],
    most: int = 0xFFFF,
) -> tuple[dict[int, TagEntry], int, int]:
    """Read a directory.

    Args:
        file: The TIFF.
        order: "<" or ">".
        big: Whether it is a BigTIFF.
        offset: Of the directory.
        tags: Those that are wanted.
        most: The largest number of entries.

    Returns:
        The first entry of each wanted tag that has values, the offset of the next directory, and the number of all
        entries.

    Raises:
        EOFError, ValueError, struct.error: It is damaged.
    """
    count_layout, entry_layout, pointer = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    step, width = struct.calcsize(order + entry_layout), struct.calcsize(order + pointer)
    file.seek(offset)
    (count,) = struct.unpack(order + count_layout, file.read(struct.calcsize(count_layout)))
    if not 0 < count <= most:
        raise ValueError(f"a directory has {count} entries")
    table = file.read(count * step)
    if len(table) < count * step:
        raise EOFError("it ends inside a directory")
    start = offset + struct.calcsize(count_layout)
    entries: dict[int, TagEntry] = {}
    for number, (tag, kind, values, at) in enumerate(
        struct.iter_unpack(order + entry_layout, table)
    ):
        if tag not in tags or kind not in TYPE_BYTES or tag in entries or not values:
            continue
        inside = values * TYPE_BYTES[kind] <= width
        entries[tag] = TagEntry(
            kind, values, start + number * step + step - width if inside else at
        )
    tail = file.read(width)
    following = struct.unpack(order + pointer, tail)[0] if len(tail) == width else 0
    return entries, following, count
