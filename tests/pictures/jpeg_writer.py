"""A small JPEG encoder for flat blocks, which writes every variant that ITU-T T.81 allows and libraries do not write.

Each block of 8 × 8 samples has one value, so that the decoded values are exact.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"


def segment(marker: int, data: bytes) -> bytes:
    """A marker segment."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def adobe(transform: int) -> bytes:
    """Adobe's application segment. transform: 0 none, 1 YCbCr, 2 YCCK."""
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


class _Bits:
    """Coded data: bits, with a zero after each 0xFF."""

    def __init__(self) -> None:
        self.bits = ""

    def add(self, value: int, length: int) -> None:
        if length:
            self.bits += format(value, f"0{length}b")

    def padded(self) -> bytes:
        bits = self.bits + "1" * (-len(self.bits) % 8)
        data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        self.bits = ""
        return data.replace(b"\xff", b"\xff\0")


#: DC codes of 5 bits for the categories 0 to 15; one AC code, "0", which is the end of the block.
_DHT = segment(0xC4, bytes([0x00, 0, 0, 0, 0, 16, *[0] * 11, *range(16)])) + segment(
    0xC4, bytes([0x10, 1, *[0] * 15, 0])
)


def _difference(bits: _Bits, value: int) -> None:
    category = abs(value).bit_length()
    bits.add(category, 5)
    bits.add(value if value > 0 else value + (1 << category) - 1, category)


@dataclass(frozen=True)
class Component:
    """A component: its number, its sampling factors, and the values of its blocks (rows, columns)."""

    number: int
    sampling: tuple[int, int]  # horizontal, vertical
    blocks: Array


def encoded(
    size: tuple[int, int],
    components: Sequence[Component],
    *,
    before: bytes = segment(0xE0, JFIF),
    bits: int = 8,
    restart: int = 0,
    separate: bool = False,
    progressive: bool = False,
    height_after: bool = False,
) -> bytes:
    """A JPEG.

    Args:
        size: Height and width in pixels.
        components: Their blocks cover whole units of the interleaved scan.
        before: The segments after SOI.
        bits: 8, or 12.
        restart: The restart interval in units.
        separate: One scan for each component.
        progressive: The DC coefficients in two scans, of all but the last bit and of the last bit; then empty AC scans.
        height_after: The height is 0 in the frame, and stated by DNL after the first scan.
    """
    table = segment(0xDB, bytes([0x10]) + bytes([0, 1] * 64)) if bits == 12 else b""
    frame = 0xC2 if progressive else 0xC1 if bits == 12 else 0xC0
    table = table or segment(0xDB, bytes([0]) + bytes([1] * 64))
    height = 0 if height_after else size[0]
    head = struct.pack(">BHHB", bits, height, size[1], len(components))
    for one in components:
        head += bytes([one.number, one.sampling[0] << 4 | one.sampling[1], 0])
    scan = partial(_scan, size=size, components=components, restart=restart, bits=bits)
    out = SOI + before + table + segment(frame, head) + _DHT
    out += segment(0xDD, struct.pack(">H", restart)) if restart else b""
    groups = [[one] for one in components] if separate else [list(components)]
    shift = 1 if progressive else 0
    for number, group in enumerate(groups):
        out += scan(group, band=(0, 0 if progressive else 63, 0, shift))
        if height_after and not number:
            out += segment(0xDC, struct.pack(">H", size[0]))
    if progressive:
        out += scan(components, band=(0, 0, 1, 0))
        for one in components:
            out += scan([one], band=(1, 63, 0, 0))
    return out + EOI


def _scan(
    group: Sequence[Component],
    *,
    size: tuple[int, int],
    components: Sequence[Component],
    restart: int,
    band: tuple[int, int, int, int],
    bits: int,
) -> bytes:
    first, last, high, low = band
    head = bytes([len(group)]) + b"".join(bytes([one.number, 0]) for one in group)
    out = segment(0xDA, head + bytes([first, last, high << 4 | low]))
    code, previous = _Bits(), dict.fromkeys((one.number for one in group), 0)
    for count, unit in enumerate(_units(group, size, components)):
        if restart and count and not count % restart:
            out += code.padded() + bytes([0xFF, 0xD0 + (count // restart - 1) % 8])
            previous = dict.fromkeys(previous, 0)
        for one, value in unit:
            dc = 8 * (value - (1 << bits - 1))
            if first:  # an AC scan: the end of the block
                code.add(0, 1)
            elif high:
                code.add(dc & 1, 1)
            else:
                _difference(code, (dc >> low) - previous[one.number])
                previous[one.number] = dc >> low
                if last:
                    code.add(0, 1)
    return out + code.padded()


def _units(
    group: Sequence[Component], size: tuple[int, int], components: Sequence[Component]
) -> Iterable[list[tuple[Component, int]]]:
    """The blocks of each unit of a scan (ITU-T T.81, A.2)."""
    across = max(one.sampling[0] for one in components)
    down = max(one.sampling[1] for one in components)
    if len(group) == 1:
        one = group[0]
        rows = -(-size[0] * one.sampling[1] // (8 * down))
        columns = -(-size[1] * one.sampling[0] // (8 * across))
        for row in range(rows):
            for column in range(columns):
                yield [(one, int(one.blocks[row, column]))]
        return
    for row in range(-(-size[0] // (8 * down))):
        for column in range(-(-size[1] // (8 * across))):
            unit = []
            for one in group:
                h, v = one.sampling
                for y in range(v):
                    for x in range(h):
                        unit.append((one, int(one.blocks[row * v + y, column * h + x])))
            yield unit
