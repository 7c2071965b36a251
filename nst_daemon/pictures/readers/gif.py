"""GIF: the first frame on its screen. The blocks are read here, and Pillow decodes the pixels.

Source: GIF89a specification; where it is silent, what browsers do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
from PIL import Image

from nst_daemon.pictures.raster import Array, Raster, Size, StoredPicture, UnsupportedPicture

#: More blocks are not read; then the number of frames is unknown.
MAX_BLOCKS = 500_000
#: More sub-blocks are not read. They have up to 255 bytes, and programs fill all but the last one.
MAX_SUB_BLOCKS = 10_000_000
#: Longer colour profiles are not used.
MAX_PROFILE = 16 << 20
#: Bytes per pixel at the worst moment, measured with 24 megapixels and rounded up: a frame that is reduced, and what
#: opacity or a larger screen takes more.
FRAME_BYTES, OPACITY_BYTES = 11.0, 5.0

_GREYS = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
_IMAGE, _EXTENSION, _TRAILER = b",", b"!", b";"


@dataclass(frozen=True)
class _GifHeader:
    screen: Size = (0, 0)
    palette: Array | None = None
    transparent: int | None = None
    profile: bytes | None = None
    place: tuple[int, int] = (0, 0)  # of the frame: x, y
    frame: Size = (0, 0)
    interlaced: bool = False
    code_bits: int = 8
    pixels: int = 0  # the offset of the coded pixels

    @property
    def size(self) -> Size:
        """The screen, enlarged if the frame is larger."""
        (height, width), (x, y) = self.frame, self.place
        return max(self.screen[0], y + height), max(self.screen[1], x + width)

    @property
    def alpha(self) -> bool:
        return self.transparent is not None or self.frame != self.size


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the blocks. Damaged files raise any exception."""
    header, frames = _read_header(file)
    per_pixel = FRAME_BYTES + OPACITY_BYTES * header.alpha
    return StoredPicture(
        size=header.size,
        alpha=header.alpha,
        cmyk=False,
        decode=lambda _: _decode(file, header),
        decoding_bytes=lambda _: per_pixel * header.size[0] * header.size[1],
        profile=header.profile,
        frames=frames,
    )


def _read_header(file: IO[bytes]) -> tuple[_GifHeader, int]:
    """What is known of the first frame, and the number of frames; 0 if that is unknown."""
    file.seek(6)
    width, height, flags = struct.unpack("<HHB", file.read(5))
    file.seek(13)
    header = _GifHeader((height, width), _palette(file, flags))
    frames, budget = 0, iter(range(MAX_SUB_BLOCKS))
    for _ in range(MAX_BLOCKS):
        kind = file.read(1)
        if kind in (b"", _TRAILER):
            break
        if kind == _EXTENSION:
            extended = _extended(file, header, budget)
            header = header if frames else extended
        elif kind == _IMAGE:
            described = _described(file, header)
            if described is None:  # cut
                break
            frames += 1
            header = header if frames > 1 else described
            for _ in _blocks(file, budget):
                pass
        if next(budget, None) is None:
            frames = 0
            break
    else:
        frames = 0
    if not header.pixels and next(budget, None) is None:
        raise UnsupportedPicture(f"has {MAX_SUB_BLOCKS} sub-blocks before its first frame")
    if not header.pixels:
        raise ValueError("it has no picture")
    if not all(header.frame):
        raise ValueError("the width or the height of its first frame is 0")
    if not 1 <= header.code_bits <= 11:
        raise ValueError(f"its codes have {header.code_bits} bits")
    return header, frames


def _palette(file: IO[bytes], flags: int) -> Array | None:
    """(256, 3) uint8; colours that it does not have are black."""
    if not flags & 0x80:
        return None
    stored = file.read(3 << (flags & 7) + 1)
    return np.frombuffer(stored.ljust(768, b"\0"), np.uint8).reshape(256, 3)


def _blocks(file: IO[bytes], budget: Iterator[int]) -> Iterator[bytes]:
    """The sub-blocks that follow, up to the empty one. budget: has a number for each that may be read."""
    for _ in budget:
        length = file.read(1)
        if length in (b"", b"\0"):
            return
        yield file.read(length[0])


def _extended(file: IO[bytes], header: _GifHeader, budget: Iterator[int]) -> _GifHeader:
    """The header with what an extension says."""
    label = file.read(1)
    first, rest = next(blocks := _blocks(file, budget), b""), bytearray()
    for block in blocks:
        if first == b"ICCRGBG1012" and len(rest) <= MAX_PROFILE:
            rest += block
    if label == b"\xf9" and len(first) >= 4:
        return replace(header, transparent=first[3] if first[0] & 1 else None)
    return replace(header, profile=bytes(rest)) if 0 < len(rest) <= MAX_PROFILE else header


def _described(file: IO[bytes], header: _GifHeader) -> _GifHeader | None:
    """The header with what an image descriptor says; None if it is cut off."""
    data = file.read(9)
    if len(data) < 9:
        return None
    x, y, width, height, flags = struct.unpack("<HHHHB", data)
    palette = _palette(file, flags)
    code_bits = file.read(1)
    if not code_bits:
        return None
    return replace(
        header,
        palette=header.palette if palette is None else palette,
        place=(x, y),
        frame=(height, width),
        interlaced=bool(flags & 0x40),
        code_bits=code_bits[0],
        pixels=file.tell(),
    )


def _decode(file: IO[bytes], header: _GifHeader) -> Raster:
    (height, width), (x, y) = header.frame, header.place
    file.seek(header.pixels)
    data, budget = bytearray(), iter(range(MAX_SUB_BLOCKS))
    for block in _blocks(file, budget):
        data.append(len(block))
        data += block
    if next(budget, None) is None:
        raise UnsupportedPicture(f"has more than {MAX_SUB_BLOCKS} sub-blocks in its first frame")
    data.append(0)
    image = Image.frombytes(
        "L", (width, height), bytes(data), "gif", header.code_bits, int(header.interlaced)
    )
    indices = np.asarray(image)
    colours = (_GREYS if header.palette is None else header.palette)[indices]
    if not header.alpha:
        return Raster(colours, "RGB")
    opacity = np.full((height, width, 1), 255, np.uint8)
    if header.transparent is not None:
        opacity[indices == header.transparent] = 0
    if header.frame == header.size:
        return Raster(colours, "RGB", opacity)
    screen, alpha = np.zeros((*header.size, 3), np.uint8), np.zeros((*header.size, 1), np.uint8)
    screen[y : y + height, x : x + width] = colours
    alpha[y : y + height, x : x + width] = opacity
    return Raster(screen, "RGB", alpha)
