"""AVIF with 8 to 12 bits per channel, by libavif through imagecodecs, animations through Pillow.

The header is read by our own parser. libavif allocates by what the AV1 data says, so that is compared with the
file's header first.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import IO

import imagecodecs
import numpy as np
from PIL import AvifImagePlugin

from nst_daemon.machine import threads_per_worker
from nst_daemon.pictures import boxes, code_points
from nst_daemon.pictures.av1 import largest_frame
from nst_daemon.pictures.boxes import BoxItem, Property
from nst_daemon.pictures.metadata import exif_without_turn
from nst_daemon.pictures.raster import Array, Raster, Size, StoredPicture, widened

#: Bytes per pixel at the worst moment, for 8 bits, and for more. Measured: 9.1 and 19.4.
SHALLOW_BYTES, DEEP_BYTES = 10.0, 20.0
#: At least so many where colours are converted by code points.
CONVERTED_BYTES = 26.0
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")


@dataclass
class _AvifHeader:
    """What the file says of its picture, as an item or as a track of frames."""

    size: Size
    properties: list[Property]
    bits: int
    alpha: bool = False
    exif: bytes = b""
    frames: int = 1
    ignored: list[int] = field(default_factory=list)  # offsets of the types of items of metadata
    coded: list[tuple[Size, bytes]] = field(default_factory=list)

    @property
    def code_points(self) -> tuple[int, int]:
        """Primaries and transfer function; 2 is unspecified."""
        for kind, content in self.properties:
            if kind == b"colr" and content[:4] == b"nclx" and not self.profile:
                return int.from_bytes(content[4:6], "big"), int.from_bytes(content[6:8], "big")
        return 2, 2

    @property
    def profile(self) -> bytes | None:
        """The ICC profile."""
        for kind, content in self.properties:
            if kind == b"colr" and content[:4] in (b"prof", b"rICC"):
                return content[4:]
        return None


def open_picture(file: IO[bytes]) -> StoredPicture:
    """Read the header. Damaged files raise any exception."""
    file.seek(0)
    data = file.read()
    tracks = _tracks(data) if data[8:12] == b"avis" else []
    header = _of_tracks(data, tracks) if tracks else _of_items(data)
    for size, coded in header.coded:
        frame = largest_frame(coded)
        if frame != size:
            raise ValueError(
                f"its AV1 data has {frame[1]} × {frame[0]} pixels, its header {size[1]} × {size[0]}"
            )
    placed = np.broadcast_to(np.uint8(0), header.size)  # has no memory of its own
    height, width = _transformed(placed, header.properties).shape
    pixels = header.size[0] * header.size[1]
    each = DEEP_BYTES if header.bits > 8 else SHALLOW_BYTES
    if not code_points.is_srgb(*header.code_points):
        each = max(each, CONVERTED_BYTES)
    return StoredPicture(
        size=(height, width),
        alpha=header.alpha,
        cmyk=False,
        decode=lambda _: _decoded(data, header),
        decoding_bytes=lambda _: each * pixels,
        profile=header.profile,
        exif=lambda: exif_without_turn(header.exif),
        frames=header.frames,
    )


def _of_items(data: bytes) -> _AvifHeader:
    primary, items = boxes.items(data)
    if primary not in items:
        raise ValueError("it has no primary image")
    item = items[primary]
    size = _size(item)
    coded = [one for one in items.values() if one.kind == b"av01"]
    parts = [items[number] for number in item.references.get(b"dimg", []) if number in items]
    config = next((c for one in (item, *parts) if (c := one.property(b"av1C"))), b"")
    alphas = [
        n for n, one in items.items() if (one.property(b"auxC") or b"")[4:].startswith(_ALPHA)
    ]
    described = [one for one in items.values() if one.kind in (b"Exif", b"mime")]
    exif = next((one for one in described if one.kind == b"Exif"), None)
    return _AvifHeader(
        size,
        item.properties,
        _bits(config),
        bool(alphas),
        _exif_of(exif, data) if exif else b"",
        ignored=[one.named_at for one in described],
        coded=[(_size(one), one.payload(data)) for one in coded],
    )


def _exif_of(item: BoxItem, data: bytes) -> bytes:
    """The TIFF structure of an Exif item, which begins with its offset (ISO 23008-12, A.2.1)."""
    try:
        content = item.payload(data)
    except ValueError:
        return b""
    return content[4 + int.from_bytes(content[:4], "big") :]


def _size(item: BoxItem) -> Size:
    content = item.property(b"ispe") or b""
    if len(content) < 12:
        raise ValueError("the size of an image is missing")
    return int.from_bytes(content[8:12], "big"), int.from_bytes(content[4:8], "big")


def _bits(config: bytes) -> int:
    """Bits per channel of `av1C` (AV1 in ISO base media files, 2.3.3)."""
    flags = config[2] if len(config) > 2 else 0
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


@dataclass
class _FrameTrack:
    """A track of frames: its handler, sample entry, and where its first frame is."""

    handler: bytes
    entry: bytes
    frames: int
    first: tuple[int, int]

    @property
    def size(self) -> Size:
        """Of its frames."""
        return int.from_bytes(self.entry[26:28], "big"), int.from_bytes(self.entry[24:26], "big")


def _tracks(data: bytes) -> list[_FrameTrack]:
    """The tracks of AV1 frames (ISO 14496-12, 8.3)."""
    start, end = boxes.found(data, (b"moov",))
    tracks = []
    for kind, a, b in boxes.boxes(data, start, end):
        if kind != b"trak":
            continue
        handler = boxes.found(data, (b"mdia", b"hdlr"), a, b)[0]
        table = boxes.found(data, (b"mdia", b"minf", b"stbl"), a, b)
        inside = {k: (c, d) for k, c, d in boxes.boxes(data, *table)}
        described, _ = inside.get(b"stsd", (0, 0))
        entries = {k: data[c:d] for k, c, d in boxes.boxes(data, described + 8, table[1])}
        if b"av01" in entries and b"stsz" in inside:
            tracks.append(
                _FrameTrack(
                    data[handler + 8 : handler + 12], entries[b"av01"], *_samples(data, inside)
                )
            )
    return tracks


def _samples(data: bytes, table: dict[bytes, tuple[int, int]]) -> tuple[int, tuple[int, int]]:
    """The number of frames, and the start and the end of the first one."""

    def number(at: int, size: int = 4) -> int:
        return int.from_bytes(data[at : at + size], "big")

    sizes = table[b"stsz"][0]
    length = number(sizes + 4) or number(sizes + 12)
    wide = b"co64" in table
    start = number(table[b"co64" if wide else b"stco"][0] + 8, 8 if wide else 4)
    return number(sizes + 8), (start, start + length)


def _of_tracks(data: bytes, tracks: list[_FrameTrack]) -> _AvifHeader:
    colours = next(track for track in tracks if track.handler == b"pict")
    properties = [(kind, colours.entry[a:b]) for kind, a, b in boxes.boxes(colours.entry, 78)]
    config = next((content for kind, content in properties if kind == b"av1C"), b"")
    alpha = any(track.handler == b"auxv" for track in tracks)
    coded = [(track.size, data[slice(*track.first)]) for track in tracks]
    return _AvifHeader(
        colours.size, properties, _bits(config), alpha, frames=colours.frames, coded=coded
    )


def _decoded(data: bytes, header: _AvifHeader) -> Raster:
    notes: tuple[str, ...] = ()
    if b"moov" in data:
        pixels = _first_frame(data)
        if header.bits > 8:
            notes = (f"its {header.bits} bits per channel were reduced to 8",)
    else:
        readable = _without_metadata(data, header.ignored)
        pixels = imagecodecs.avif_decode(readable, numthreads=threads_per_worker())
        if pixels.dtype != np.uint8:
            pixels = widened(pixels, header.bits)
    pixels = _transformed(pixels.reshape(*pixels.shape[:2], -1), header.properties)
    grey = pixels.shape[2] < 3
    channels = 1 if grey else 3
    alpha = pixels[..., channels:] if pixels.shape[2] > channels else None
    colours = pixels[..., :channels]
    raster = Raster(colours, "GRAY" if grey else "RGB", alpha, notes)
    return code_points.in_srgb(raster, *header.code_points)


def _without_metadata(data: bytes, named_at: list[int]) -> bytes:
    """The file with items of a type that libavif ignores: it refuses pictures whose EXIF is damaged."""
    if not named_at:
        return data
    changed = bytearray(data)
    for at in named_at:
        changed[at : at + 4] = b"free"
    return bytes(changed)


def _first_frame(data: bytes) -> Array:
    """The first frame of an animation, by Pillow: imagecodecs (2026.3) decodes all frames, and writes out of bounds
    where one is asked for.
    """
    AvifImagePlugin.DEFAULT_MAX_THREADS = threads_per_worker()
    return np.asarray(AvifImagePlugin.AvifImageFile(io.BytesIO(data)))


def _transformed(values: Array, properties: list[Property]) -> Array:
    """An array (H, W, …) cropped, turned and mirrored, in the order of the properties (ISO 23008-12, 6.5)."""
    for kind, content in properties:
        if kind == b"clap":
            values = values[boxes.clean_aperture(content, *values.shape[:2])]
        elif kind == b"irot" and content:
            values = np.rot90(values, content[0] & 3)
        elif kind == b"imir" and content:
            values = values[:, ::-1] if content[0] & 1 else values[::-1]
    return values
