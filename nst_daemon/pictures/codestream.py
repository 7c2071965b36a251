"""The headers of a JPEG 2000 codestream (ISO 15444-1, annex A): its size, and what decoding allocates."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import ceil

SOC_SIZ = b"\xff\x4f\xff\x51"
_SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
#: More segments in one header, or more parts of tiles, are refused.
_MOST_SEGMENTS, _MOST_PARTS = 1000, 200_000

# Bytes that OpenJPEG 2.5 allocates, measured and rounded up: for a tile and one of its components; for a code block
# and a precinct with its tag trees.
_TILE_BYTES, _TILE_COMPONENT_BYTES = 7000, 2200
_BLOCK_BYTES, _PRECINCT_BYTES = 400, 1200


@dataclass(frozen=True)
class Component:
    """Of a codestream: bits per sample, whether they are signed, and how far apart samples are (down, right)."""

    bits: int
    signed: bool
    step: tuple[int, int]


@dataclass
class Codestream:
    """What the headers say.

    Attributes:
        at: The offset in the file of the components in SIZ.
        corner, first: The lower right corner of the image on the reference grid, and its upper left one, (y, x).
        tile: The size of a tile, (height, width).
        tiles: Their number.
        layers: The greatest number of layers of a tile.
        levels: The greatest number of decompositions.
        block, precinct: The least areas in samples.
        ended: Whether it has its last marker, or something after its last tile.
    """

    at: int
    corner: tuple[int, int]
    first: tuple[int, int]
    tile: tuple[int, int]
    tiles: int
    components: list[Component]
    layers: int = 1
    levels: int = 0
    block: int = 1 << 12
    precinct: int = 1 << 30
    ended: bool = False

    def size(self, component: int = 0) -> tuple[int, int]:
        """Height and width of a component in samples."""
        steps = self.components[component].step
        height, width = (
            ceil(end / step) - ceil(start / step)
            for end, start, step in zip(self.corner, self.first, steps, strict=True)
        )
        return height, width

    def structure_bytes(self) -> float:
        """What decoding allocates besides samples; hostile files have millions of tiles, blocks, precincts, layers."""
        count = len(self.components)
        pixels = min(self.tile[0] * self.tile[1], self.size()[0] * self.size()[1])
        resolutions = (self.levels + 1) * count
        precincts = pixels / self.precinct + 1
        blocks = count * pixels / min(self.block, self.precinct) + 3 * resolutions
        return (
            self.tiles * (_TILE_BYTES + count * _TILE_COMPONENT_BYTES)
            + blocks * _BLOCK_BYTES
            + precincts * resolutions * _PRECINCT_BYTES
            + 2.0 * self.layers * resolutions * precincts
        )


def parse(data: bytes, start: int, end: int) -> Codestream:
    """The headers of the codestream data[start:end]. Broken ones raise ValueError or struct.error."""
    if data[start : start + 4] != SOC_SIZ:
        raise ValueError("the JPEG 2000 codestream has no size")
    stream = _sizes(data, start + 4)
    position = _segments(data, start + 2, end, stream)
    for _ in range(_MOST_PARTS):
        if position + 12 > end:
            break
        marker, _, _, length = struct.unpack_from(">HHHI", data, position)
        if marker != _SOT:
            stream.ended = True
            return stream
        _segments(data, position + 12, end, stream)
        if not length:  # the last part reaches to the end
            stream.ended = data[end - 2 : end] == b"\xff\xd9"
            return stream
        if length < 14:
            raise ValueError("the length of a part of a tile is wrong")
        position += length
    else:
        raise ValueError("there are too many parts of tiles")
    stream.ended = data[position : position + 2] == b"\xff\xd9"
    return stream


def _sizes(data: bytes, at: int) -> Codestream:
    """SIZ (A.5.1)."""
    length, _, *sides, count = struct.unpack_from(">HH8IH", data, at)
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = sides
    if length != 38 + 3 * count or not count or not tile_width or not tile_height:
        raise ValueError("the sizes of the JPEG 2000 codestream are wrong")
    if left >= right or top >= bottom or tile_left > left or tile_top > top:
        raise ValueError("the JPEG 2000 codestream has no area")
    at += 38
    fields = [struct.unpack_from("BBB", data, at + 3 * i) for i in range(count)]
    if not all(right_step and down_step for _, right_step, down_step in fields):
        raise ValueError("a component of the JPEG 2000 codestream has no step")
    across, down = ceil((right - tile_left) / tile_width), ceil((bottom - tile_top) / tile_height)
    components = [Component((b & 0x7F) + 1, b > 0x7F, (y, x)) for b, x, y in fields]
    return Codestream(
        at, (bottom, right), (top, left), (tile_height, tile_width), across * down, components
    )


def _segments(data: bytes, position: int, end: int, stream: Codestream) -> int:
    """Read the segments of a header. Returns where the first part of a tile, or its data, begins."""
    for _ in range(_MOST_SEGMENTS):
        if position + 4 > end:
            return end
        marker, length = struct.unpack_from(">HH", data, position)
        if marker in (_SOT, _SOD, _EOC):
            return position
        content = data[position + 4 : position + 2 + length]
        if marker == _COD:
            (stream_layers,) = struct.unpack_from(">H", content, 2)
            stream.layers = max(stream.layers, stream_layers)
            _coding(content[5:], bool(content[0] & 1), stream)
        elif marker == _COC:
            skipped = 1 if len(stream.components) < 257 else 2
            _coding(content[skipped + 1 :], bool(content[skipped] & 1), stream)
        position += 2 + length
    raise ValueError("a header of the JPEG 2000 codestream has too many segments")


def _coding(content: bytes, has_precincts: bool, stream: Codestream) -> None:
    """The parameters that COD and COC have in common (A.6.1)."""
    levels, across, down = content[:3]
    stream.levels = max(stream.levels, levels)
    stream.block = min(stream.block, 1 << (across & 15) + (down & 15) + 4)
    for sides in content[5 : 6 + levels] if has_precincts else b"":
        stream.precinct = min(stream.precinct, 1 << (sides & 15) + (sides >> 4))
