"""HEIC and AVIF files written box by box (ISO 14496-12, ISO 23008-12), around coded images of the encoders."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
from numpy.typing import NDArray

Array = NDArray[Any]

#: Properties that a reader must know.
ESSENTIAL = {b"irot", b"imir", b"clap", b"av1C", b"hvcC"}
MIME = b"application/rdf+xml\0"
ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"


@dataclass
class Item:
    """An item; `auxl`, `prem`, `dimg` and `cdsc` are numbers of items that it refers to, from 1."""

    kind: bytes
    payload: bytes
    properties: Sequence[bytes] = ()
    references: dict[str, list[int]] = field(default_factory=dict)


def box(kind: bytes, *content: bytes) -> bytes:
    """A box."""
    joined = b"".join(content)
    return struct.pack(">I", 8 + len(joined)) + kind + joined


def full(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    """A box with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *content)


def ispe(height: int, width: int) -> bytes:
    """The property of the size."""
    return full(b"ispe", struct.pack(">II", width, height))


def irot(quarters: int) -> bytes:
    """Rotation by quarters of a turn, anticlockwise."""
    return box(b"irot", bytes([quarters]))


def imir(axis: int) -> bytes:
    """0 exchanges top and bottom, 1 left and right."""
    return box(b"imir", bytes([axis]))


def clap(size: tuple[int, int], shift: tuple[int, int], halves: bool = False) -> bytes:
    """A crop to (height, width) whose centre is moved by (down, right), in pixels or in halves of a pixel."""
    (height, width), (down, right) = size, shift
    part = 2 if halves else 1
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, right, part, down, part))


def nclx(primaries: int, transfer: int, matrix: int = 0, whole: bool = True) -> bytes:
    """Colours by code points."""
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, 128 * whole))


def icc(profile: bytes, kind: bytes = b"prof") -> bytes:
    """Colours by a profile."""
    return box(b"colr", kind, profile)


def auxc() -> bytes:
    """The property of an alpha image."""
    return full(b"auxC", ALPHA)


def grid(rows: int, columns: int, height: int, width: int) -> bytes:
    """The payload of a grid."""
    return struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)


def container(items: Sequence[Item], brand: bytes, primary: int = 1, sizes: int = 4) -> bytes:
    """A file of items. sizes: bytes of the offsets in `iloc`, 4 or 8."""
    ftyp = box(b"ftyp", brand, bytes(4), brand, b"mif1", b"miaf")
    kinds = b"".join(
        full(
            b"infe",
            struct.pack(">HH", n, 0),
            item.kind,
            b"\0" + MIME * (item.kind == b"mime"),
            version=2,
        )
        for n, item in enumerate(items, 1)
    )
    references = b"".join(
        box(kind.encode(), struct.pack(f">HH{len(to)}H", n, len(to), *to))
        for n, item in enumerate(items, 1)
        for kind, to in item.references.items()
    )
    properties = list(dict.fromkeys(one for item in items for one in item.properties))
    associated = b"".join(
        struct.pack(">HB", n, len(item.properties))
        + b"".join(
            struct.pack(">H", (one[4:8] in ESSENTIAL) << 15 | properties.index(one) + 1)
            for one in item.properties
        )
        for n, item in enumerate(items, 1)
    )
    parts = [
        full(b"hdlr", bytes(4), b"pict", bytes(13)),
        full(b"pitm", struct.pack(">H", primary)),
        full(b"iinf", struct.pack(">H", len(items)), kinds),
        *([full(b"iref", references)] if references else []),
        box(b"iprp", box(b"ipco", *properties), full(b"ipma", struct.pack(">I", len(items)), associated, flags=1)),
    ]  # fmt: skip

    def located(start: int) -> bytes:
        entries = b""
        for n, item in enumerate(items, 1):
            entries += struct.pack(">HHH", n, 0, 1) + start.to_bytes(sizes, "big")
            entries += len(item.payload).to_bytes(4, "big")
            start += len(item.payload)
        return full(b"iloc", bytes([sizes << 4 | 4, 0]), struct.pack(">H", len(items)), entries)

    before = len(ftyp) + len(full(b"meta", *parts, located(0))) + 8
    payloads = box(b"mdat", *(item.payload for item in items))
    return ftyp + full(b"meta", *parts, located(before)) + payloads


def av1(values: Array, bits: int, *properties: bytes, lossless: bool = True) -> Item:
    """An AV1 image of (H, W) or (H, W, 3), lossless (identity matrix for RGB)."""
    encoded = bytes(
        imagecodecs.avif_encode(
            values, 100, speed=8, bitspersample=bits, pixelformat="444", primaries=2, transfer=2,
            matrix=(0 if lossless else 6) if values.ndim == 3 else 2, numthreads=1,
        )
    )  # fmt: skip
    at = encoded.index(b"av1C") - 4
    config = encoded[at : at + int.from_bytes(encoded[at : at + 4], "big")]
    payload = encoded[encoded.index(b"mdat") + 4 :]
    channels = 1 if values.ndim == 2 else 3
    pixi = full(b"pixi", bytes([channels] + [bits] * channels))
    return Item(b"av01", payload, [ispe(*values.shape[:2]), pixi, config, *properties])


def hevc(values: Array, bits: int, *properties: bytes) -> Item:
    """An HEVC image of (H, W) or (H, W, 3), lossless (identity matrix for RGB)."""
    out = io.BytesIO()
    channels = "L" if values.ndim == 2 else "RGB"
    mode = channels if bits == 8 else f"{channels};{bits}"
    options = {"matrix_coefficients": 0, "chroma": 444} if values.ndim == 3 else {}
    size = values.shape[1], values.shape[0]
    pillow_heif.encode(
        mode, size, np.ascontiguousarray(values).tobytes(), out, quality=-1, full_range_flag=1,
        color_primaries=2, transfer_characteristics=2, **options,
    )  # fmt: skip
    encoded = out.getvalue()
    at = encoded.index(b"hvcC") - 4
    config = encoded[at : at + int.from_bytes(encoded[at : at + 4], "big")]
    at = encoded.index(b"ispe") + 8  # a size that is coded may be larger than the picture
    stored = struct.unpack(">II", encoded[at : at + 8])[::-1]
    crop = (
        []
        if stored == values.shape[:2]
        else [clap(values.shape[:2], _centred(stored, values), halves=True)]
    )
    payload = encoded[encoded.index(b"mdat") + 4 :]
    return Item(b"hvc1", payload, [ispe(*stored), config, *crop, *properties])


def _centred(stored: tuple[int, ...], values: Array) -> tuple[int, int]:
    """How many halves of a pixel the centre of the picture, which begins at the top left, is from that of the image."""
    return values.shape[0] - stored[0], values.shape[1] - stored[1]


def _still(
    encode: Any,
    brand: bytes,
    values: Array,
    bits: int,
    *properties: bytes,
    alpha: Array | None = None,
    premultiplied: bool = False,
    exif: bytes | None = None,
    xmp: bytes | None = None,
) -> bytes:
    """A file of one image; the values are stored exactly."""
    shared = [one for one in properties if one[4:8] in (b"irot", b"imir", b"clap")]
    if not any(b"nclx" in one for one in properties):
        properties = (*properties, nclx(2, 2, 0 if values.ndim == 3 else 2))
    items = [encode(values, bits, *properties)]
    if alpha is not None:
        items.append(encode(alpha, bits, auxc(), nclx(2, 2, 2), *shared))
        items[1].references["auxl"] = [1]
        if premultiplied:
            items[0].references["prem"] = [2]
    for kind, content in {b"Exif": exif, b"mime": xmp}.items():
        if content is not None:
            payload = bytes(4) + content if kind == b"Exif" else content
            items.append(Item(kind, payload, (), {"cdsc": [1]}))
    return container(items, brand)


#: Files of the two formats; the arguments are those of `_still` from `values` on.
avif = partial(_still, av1, b"avif")
heic = partial(_still, hevc, b"heic")
