"""JPEG 2000 files: codestreams of the encoders, changed by hand, in boxes (ISO 15444-1, annexes A and I)."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.pictures.heif_writer import box

Array = NDArray[Any]

SIGNATURE = box(b"jP  ", b"\r\n\x87\n")


def stored(values: Array, bits: int, *, mct: bool = False, reversible: bool = True) -> bytes:
    """A codestream of (H, W) or (H, W, C), of so many bits; signed if the dtype is."""
    return bytes(
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(values), 0, codecformat="j2k", bitspersample=bits,
            reversible=reversible, mct=mct,
        )
    )  # fmt: skip


def by_pillow(values: Array, **options: object) -> bytes:
    """A codestream of 8 bits by Pillow, reversible unless the options say otherwise."""
    out = io.BytesIO()
    options = {"irreversible": False, "no_jp2": True, **options}
    Image.fromarray(values).save(out, "JPEG2000", **options)
    return out.getvalue()


def enumerated(number: int) -> bytes:
    """A colour specification by its number."""
    return box(b"colr", b"\1\0\0", struct.pack(">I", number))


def profiled(profile: bytes, method: int = 2) -> bytes:
    """A colour specification by an ICC profile."""
    return box(b"colr", bytes([method, 0, 0]), profile)


def cdef(*channels: tuple[int, int, int]) -> bytes:
    """The definitions of channels: number, type, association."""
    fields = (struct.pack(">HHH", *channel) for channel in channels)
    return box(b"cdef", struct.pack(">H", len(channels)), *fields)


def palette(colours: Array, bits: int) -> bytes:
    """`pclr` and `cmap` of (N, C)."""
    count, columns = colours.shape
    kind = ">u1" if bits <= 8 else ">u2"
    table = struct.pack(">HB", count, columns) + bytes([bits - 1] * columns)
    mapped = b"".join(struct.pack(">HBB", 0, 1, n) for n in range(columns))
    return box(b"pclr", table, colours.astype(kind).tobytes()) + box(b"cmap", mapped)


def jp2(
    codestream: bytes, *header: bytes, bits: Sequence[int] = (), before: Sequence[bytes] = (),
    to_the_end: bool = False, brand: bytes = b"jp2 ",
) -> bytes:  # fmt: skip
    """A JP2 file. bits: of each component where they differ; before: boxes before the codestream."""
    right, bottom, left, top = struct.unpack(">4I", codestream[8:24])
    (count,) = struct.unpack(">H", codestream[40:42])
    each = 255 if bits else codestream[42]
    described = box(
        b"ihdr", struct.pack(">IIHBBBB", bottom - top, right - left, count, each, 7, 0, 0)
    )
    if bits:
        described += box(b"bpcc", bytes(b - 1 for b in bits))
    data = box(b"jp2c", codestream)
    if to_the_end:
        data = bytes(4) + data[4:]
    ftyp = box(b"ftyp", brand, bytes(4), b"jp2 ")
    return SIGNATURE + ftyp + box(b"jp2h", described, *header) + b"".join(before) + data


def with_bits(codestream: bytes, bits: Sequence[int], signed: bool = False) -> bytes:
    """A codestream that says that its components have other bits; the samples stay as they are coded."""
    changed = bytearray(codestream)
    for n, b in enumerate(bits):
        changed[42 + 3 * n] = b - 1 | signed << 7
    return bytes(changed)


def subsampled(planes: Sequence[Array], steps: Sequence[tuple[int, int]]) -> bytes:
    """A codestream of one tile with components of different sizes, put together from one of each.

    Packets of one component follow each other in the order CPRL, so that those of several codestreams can be joined.
    """
    parts = [_parts(by_pillow(plane, progression="CPRL", num_resolutions=3)) for plane in planes]
    main = parts[0][0]
    (length,) = struct.unpack(">H", main[4:6])
    sizes = bytearray(main[4 : 4 + length][:36] + struct.pack(">H", len(planes)))
    sizes += b"".join(bytes([7, across, down]) for down, across in steps)
    sizes[:2] = struct.pack(">H", len(sizes))
    body = b"".join(data for _, _, data in parts)
    tile = bytearray(parts[0][1])
    tile[6:10] = struct.pack(">I", len(tile) + len(body))
    return main[:4] + bytes(sizes) + main[4 + length :] + bytes(tile) + body + b"\xff\xd9"


def _parts(codestream: bytes) -> tuple[bytes, bytes, bytes]:
    """The main header, the header of the only tile, and its data."""
    tile, data = codestream.index(b"\xff\x90"), codestream.index(b"\xff\x93") + 2
    (length,) = struct.unpack(">I", codestream[tile + 6 : tile + 10])
    return codestream[:tile], codestream[tile:data], codestream[data : tile + length]
