"""Pixels and metadata → AVIF, by libavif: 8 bits through Pillow, 10 bits through imagecodecs."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
from PIL import Image

from nst_daemon.pictures.boxes import box, boxes
from nst_daemon.pictures.raster import Array

#: libavif's speed, 0 to 10. Measured on two cores with 2048 × 1365 pixels: 6: 1.4 s, 7: 0.8 s, 8: 0.3 s.
SPEED = 7
#: One thread and several give different bytes; two or more give the same.
THREADS = 2
#: Bits per channel of pixels that are given with 16: browsers show 10 more widely than 12.
DEEP_BITS = 10
#: Code points of sRGB (ITU-T H.273): BT.709 primaries, the sRGB transfer function, the BT.601 matrix.
_PRIMARIES, _TRANSFER, _MATRIX = 1, 13, 6
_EXIF_ITEM = 0xFFFF


def encode_avif(pixels: Array, quality: int, profile: bytes, exif: Image.Exif) -> bytes:
    """An AVIF without chroma subsampling. The same input gives the same bytes.

    Args:
        pixels: (H, W, 3 or 4) uint8, or uint16, which is stored with 10 bits; alpha is not premultiplied.
        quality: 1 to 100.
        profile: An sRGB profile.
        exif: Its EXIF.
    """
    if pixels.dtype == np.uint8:
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(
            out, "AVIF", quality=quality, subsampling="4:4:4", speed=SPEED, max_threads=THREADS,
            icc_profile=profile, exif=exif.tobytes(),
        )  # fmt: skip
        return out.getvalue()
    top = (1 << DEEP_BITS) - 1
    # Half a step is added before the division, which rounds to the nearest value.
    narrow = ((pixels.astype(np.uint32) * top + 32_767) // 65_535).astype(np.uint16)
    data = imagecodecs.avif_encode(
        narrow, quality, speed=SPEED, numthreads=THREADS, bitspersample=DEEP_BITS,
        pixelformat="444", primaries=_PRIMARIES, transfer=_TRANSFER, matrix=_MATRIX,
    )  # fmt: skip
    return _with_metadata(bytes(data), profile, exif.tobytes().removeprefix(b"Exif\0\0"))


def _with_metadata(data: bytes, profile: bytes, exif: bytes) -> bytes:
    """An AVIF of libavif with a profile and EXIF, which imagecodecs cannot write (ISO 14496-12, 8.11; 23008-12, A.2).

    The EXIF becomes the last item; its bytes are at the end of the file.
    """
    top = _contents(data)
    parts = _contents(top[b"meta"][4:])
    stored = struct.pack(">I", 0) + exif  # the offset of the TIFF header
    entry = struct.pack(">HH4s5s", _EXIF_ITEM, 0, b"Exif", b"Exif")
    parts[b"iinf"] = _one_more(parts[b"iinf"]) + box(b"infe", b"\x02\0\0\0" + entry)
    described = struct.pack(">HHH", _EXIF_ITEM, 1, 1)
    parts[b"iref"] = parts.get(b"iref", bytes(4)) + box(b"cdsc", described)
    parts[b"iprp"] = _with_profile(parts[b"iprp"], profile)
    # Each item has one extent: number, reference, count, offset, length. All offsets move by what `meta` grows.
    iloc = parts[b"iloc"]
    extents = list(struct.iter_unpack(">HHHII", iloc[8:]))
    before = data.index(b"mdat") + 4
    parts[b"iloc"] = _one_more(iloc, at=6) + bytes(14)
    start = len(box(b"ftyp", top[b"ftyp"])) + len(_meta(parts)) + 8
    moved = [(*item, offset - before + start, length) for *item, offset, length in extents]
    moved.append((_EXIF_ITEM, 0, 1, start + len(top[b"mdat"]), len(stored)))
    parts[b"iloc"] = _one_more(iloc, at=6)[:8] + b"".join(struct.pack(">HHHII", *m) for m in moved)
    return box(b"ftyp", top[b"ftyp"]) + _meta(parts) + box(b"mdat", top[b"mdat"] + stored)


def _with_profile(iprp: bytes, profile: bytes) -> bytes:
    """`iprp` with one more property, the profile, which belongs to the first item."""
    parts = _contents(iprp)
    properties = parts[b"ipco"]
    number = sum(1 for _ in boxes(properties)) + 1
    ipma = parts[b"ipma"]
    count = ipma[10]  # after version, flags, the number of items, and the first item's number
    of_first = ipma[11 : 11 + count]
    associated = ipma[:10] + bytes([count + 1]) + of_first + bytes([number]) + ipma[11 + count :]
    profiled = properties + box(b"colr", b"prof" + profile)
    return box(b"ipco", profiled) + box(b"ipma", associated)


def _meta(parts: dict[bytes, bytes]) -> bytes:
    return box(b"meta", bytes(4) + b"".join(box(kind, parts[kind]) for kind in parts))


def _contents(data: bytes) -> dict[bytes, bytes]:
    """The contents of boxes by their types, which are all different."""
    return {kind: data[start:end] for kind, start, end in boxes(data)}


def _one_more(content: bytes, at: int = 4) -> bytes:
    """A box's content with a count of two bytes raised by one."""
    count = int.from_bytes(content[at : at + 2], "big") + 1
    return content[:at] + count.to_bytes(2, "big") + content[at + 2 :]
