"""JPEG 2000, in JP2 files and bare codestreams, with 1 to 31 bits per channel, by OpenJPEG through imagecodecs.

The headers are read by our own parser, because OpenJPEG allocates by what they say. OpenJPEG applies palettes, and
converts sYCC, subsampled or not, to RGB. It reads HTJ2K (ISO 15444-15) too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import IO

import imagecodecs
import numpy as np

from nst_daemon.machine import threads_per_worker
from nst_daemon.pictures import codestream
from nst_daemon.pictures.boxes import boxes
from nst_daemon.pictures.codestream import Codestream
from nst_daemon.pictures.metadata import parsed_exif
from nst_daemon.pictures.raster import Array, Raster, StoredPicture, UnsupportedPicture, widened

#: Bytes per sample at the worst moment. Measured: 8.6 (16 bits).
SAMPLE_BYTES = 9.0
#: A picture of more tiles than the first has at least so many pixels for each: OpenJPEG takes 14 kB for a tile.
_MANY_TILES, _LEAST_TILE = 1000, 256
#: ISO 15444-1, table I.10, and 15444-2, table M.25: EnumCS → colour space. OpenJPEG converts sYCC (18) to RGB.
_SPACES = {0: "GRAY", 15: "GRAY", 16: "RGB", 17: "GRAY", 18: "RGB", 12: "CMYK"}
_CHANNELS = {"GRAY": 1, "RGB": 3, "CMYK": 4}
_WHITE_IS_0 = 0
_COLOUR, _OPACITY, _PREMULTIPLIED = 0, 1, 2
_EXIF_UUID = b"JpgTiffExif->JP2"


@dataclass
class _Jp2:
    """What the boxes of a JP2 file say.

    Attributes:
        start, end: Where the codestream is.
        enumerated: EnumCS of the first colour specification, or None.
        profile: The ICC profile of the first colour specification, or None.
        channels: Channel, type and association of `cdef`.
        hidden: Where the types of boxes are that OpenJPEG and imagecodecs must not apply: `cdef` and profiles.
        palette: Bits of each column of the palette; empty without a palette.
    """

    start: int = 0
    end: int = 0
    enumerated: int | None = None
    profile: bytes | None = None
    channels: list[tuple[int, int, int]] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)
    palette: bytes = b""
    exif: bytes = b""


@dataclass(frozen=True)
class _Layout:
    """How a decoded array becomes a raster: its space, the channels of colours and of opacity, bits per channel."""

    space: str
    colours: list[int]
    alpha: int | None
    premultiplied: bool
    bits: list[int]


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the headers. Damaged files raise any exception."""
    file.seek(0)
    data = file.read()
    container = _container(data)
    stream = codestream.parse(data, container.start, container.end)
    layout = _layout(container, stream)
    size = stream.size()
    if stream.tiles > max(_MANY_TILES, size[0] * size[1] / _LEAST_TILE):
        raise UnsupportedPicture(f"has {stream.tiles} tiles for {size[1]} × {size[0]} pixels")
    samples = size[0] * size[1] * max(len(stream.components), len(layout.bits))
    needed = SAMPLE_BYTES * samples + stream.structure_bytes()
    return StoredPicture(
        size=size,
        alpha=layout.alpha is not None,
        cmyk=layout.space == "CMYK",
        decode=lambda _: _decoded(data, container, stream, layout),
        decoding_bytes=lambda _: needed,
        profile=container.profile,
        exif=lambda: parsed_exif(container.exif),
    )


def _container(data: bytes) -> _Jp2:
    """The boxes of a JP2 file (ISO 15444-1, annex I), or a bare codestream."""
    if data.startswith(codestream.SOC_SIZ):
        return _Jp2(0, len(data))
    found = _Jp2()
    for kind, start, end in boxes(data):
        if kind == b"jp2h":
            for inner, a, b in boxes(data, start, end):
                _header_box(found, data, inner, a, b)
        elif kind == b"uuid" and data[start : start + 16] == _EXIF_UUID:
            found.exif = data[start + 16 : end]
        elif kind == b"jp2c" and not found.end:
            found.start, found.end = start, end
    if not found.end:
        raise UnsupportedPicture("is a JPEG 2000 file without a codestream")
    return found


def _header_box(found: _Jp2, data: bytes, kind: bytes, start: int, end: int) -> None:
    content = data[start:end]
    if kind == b"colr" and found.enumerated is None and found.profile is None:
        if content[:1] == b"\1":
            (found.enumerated,) = struct.unpack_from(">I", content, 3)
        elif content[:1] in (b"\2", b"\3"):
            found.profile = content[3:]
            found.hidden.append(start - 4)
    elif kind == b"pclr":
        found.palette = content[3 : 3 + content[2]]
    elif kind == b"cdef" and not found.channels:
        found.channels = list(
            struct.iter_unpack(">HHH", content[2 : 2 + (len(content) - 2) // 6 * 6])
        )
        found.hidden.append(start - 4)


def _layout(container: _Jp2, stream: Codestream) -> _Layout:
    bits = [component.bits for component in stream.components]
    if container.palette:
        bits = [(b & 0x7F) + 1 for b in container.palette]
    if len(bits) > 5:
        raise UnsupportedPicture(f"has {len(bits)} components")
    _require_even_steps(stream)
    space = _SPACES.get(container.enumerated, "") if container.enumerated is not None else None
    if space == "":
        raise UnsupportedPicture(
            f"has colours of the JPEG 2000 colour space {container.enumerated}"
        )
    defined = {channel: (kind, to) for channel, kind, to in container.channels}
    colours = [n for n in range(len(bits)) if defined.get(n, (0, 0))[0] == _COLOUR]
    colours.sort(key=lambda n: defined.get(n, (0, n + 1))[1])
    alpha = next((n for n, (kind, _) in defined.items() if kind in (1, 2) and n < len(bits)), None)
    if space is None:
        space = "GRAY" if len(colours) < 3 else "RGB"
    wanted = _CHANNELS[space]
    if len(colours) < wanted:
        raise UnsupportedPicture(f"has {len(colours)} components for {space} colours")
    if alpha is None and not defined and len(colours) == wanted + 1:
        alpha = colours[wanted]  # as other programs do
    premultiplied = alpha is not None and defined.get(alpha, (1, 0))[0] == _PREMULTIPLIED
    return _Layout(space, colours[:wanted], alpha, premultiplied, bits)


def _require_even_steps(stream: Codestream) -> None:
    """OpenJPEG and imagecodecs read components of equal sizes, and chroma of half the width or also half the height."""
    steps = [component.step for component in stream.components]
    chroma = len(steps) == 3 and steps[0] == (1, 1) and steps[1:] in ([(1, 2)] * 2, [(2, 2)] * 2)
    if set(steps) != {(1, 1)} and not chroma:
        raise UnsupportedPicture("has subsampled components")


def _decoded(data: bytes, container: _Jp2, stream: Codestream, layout: _Layout) -> Raster:
    even = len({(c.bits, c.signed) for c in stream.components}) == 1
    rewritten = not container.palette and not (even and not stream.components[0].signed)
    top = max(component.bits for component in stream.components)
    readable = bytearray(data) if rewritten or container.hidden or not stream.ended else data
    if isinstance(readable, bytearray):
        for at in container.hidden:
            readable[at : at + 4] = b"free"
        for i in range(len(stream.components)) if rewritten else ():
            readable[stream.at + 3 * i] = top - 1
        if not stream.ended and container.end == len(data):
            readable += b"\xff\xd9"
    pixels = imagecodecs.jpeg2k_decode(bytes(readable), numthreads=threads_per_worker())
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    channels = []
    for n in (*layout.colours, *([] if layout.alpha is None else [layout.alpha])):
        channel = pixels[..., n]
        bits = layout.bits[n]
        if rewritten and bits != top:
            # A decoder adds half the range to the samples; signed ones are shown as if they were unsigned.
            centred = channel.astype(np.int64) - (1 << top - 1) + (1 << bits - 1)
            channel = centred.clip(0, (1 << bits) - 1)
        channels.append(_full_range(channel, bits, max(layout.bits)))
    colours = np.stack(channels[: len(layout.colours)], axis=-1)
    if container.enumerated == _WHITE_IS_0:
        colours = np.iinfo(colours.dtype).max - colours
    alpha = channels[-1][..., None] if layout.alpha is not None else None
    if alpha is not None and layout.premultiplied:
        full = np.iinfo(colours.dtype).max
        divided = colours * (np.float32(full) / np.maximum(alpha, 1))
        colours = divided.clip(0, full).round().astype(colours.dtype)
    return Raster(colours, layout.space, alpha)


def _full_range(channel: Array, bits: int, most: int) -> Array:
    """uint8, or uint16 where a channel has `most` bits above 8, over its whole range."""
    if bits > 16:
        wide: Array = (channel >> bits - 16).astype(np.uint16)
        return wide
    wide = widened(channel, bits)
    return wide * np.uint16(257) if wide.dtype == np.uint8 and most > 8 else wide
