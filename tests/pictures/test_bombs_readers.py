"""Hostile GIF, BMP, JPEG, WebP and JPEG XL files: they are refused with a true cause, within bounds of time."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from nst_daemon.errors import NstError
from nst_daemon.pictures.decode import decode_file
from nst_daemon.pictures.readers import bmp, gif

SMALL = np.arange(16 * 24 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 24, 3)


def encoded(kind: str, **options: object) -> bytes:
    """A small picture by Pillow."""
    out = io.BytesIO()
    Image.fromarray(SMALL).save(out, kind, **options)
    return out.getvalue()


#: The limits of run lengths and sub-blocks in these tests: 10 million, as in the program, would take seconds each.
MOST = 100_000


def gif_of_short_blocks(kind: str) -> bytes:
    """More sub-blocks of one byte than are read, in a comment, a colour profile or the pixels."""
    start = b"GIF89a" + struct.pack("<HHBBB", 24, 16, 0, 0, 0)
    picture = b"," + struct.pack("<HHHHB", 0, 0, 24, 16, 0) + b"\x08"
    head = {"comment": b"!\xfe", "profile": b"!\xff\x0bICCRGBG1012", "pixels": picture}[kind]
    return start + head + b"\1a" * (MOST + 1000) + b"\0" + picture + b"\0;"


def bmp_of_short_runs() -> bytes:
    """More runs of one pixel than are read."""
    size = struct.pack("<IiiHHIIiiII", 40, 1200, 1200, 1, 8, 1, 0, 0, 0, 256, 0)
    head = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + size
    return head + bytes(1024) + b"\1\5" * (MOST + 1000)


def jpeg_without_end(markers: bytes) -> bytes:
    """A progressive JPEG that goes on with markers in place of its end."""
    return encoded("JPEG", progressive=True)[:-2] + markers


def jpeg_with_lower_bits() -> bytes:
    """A lossless JPEG of 12 bits whose header states 4."""
    values = np.arange(384, dtype=np.uint16).reshape(16, 24) * 10
    data = bytearray(imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12))
    data[data.index(b"\xff\xc3") + 4] = 4
    return bytes(data)


def webp_with_a_long_chunk() -> bytes:
    """A WebP whose picture has 4 GB, it says."""
    data = encoded("WEBP", lossless=True)
    return data[:16] + b"\xfe\xff\xff\xff" + data[20:]


def bmp_with_a_long_profile() -> bytes:
    """A BMP whose colour profile has 4 GB, it says."""
    size = struct.pack("<IiiHHIIiiII", 124, 24, 16, 1, 24, 0, 0, 0, 0, 0, 0)
    fields = (size + bytes(16) + b"DEBM").ljust(112, b"\0") + struct.pack(
        "<III", 138, 0xFFFFFFFF, 0
    )
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 138) + fields + SMALL.tobytes()


#: JPEG XL whose white point is number 61.
UNKNOWN_WHITE = bytes.fromhex(
    "ff0a86000019f005000020b501286e09088001aff803a52824c63580144c8844b476"
)

#: The files, and the causes; "" where a file is read.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "GIF, a comment": (lambda: gif_of_short_blocks("comment"), "sub-blocks before its first frame"),
    "GIF, a profile": (lambda: gif_of_short_blocks("profile"), "sub-blocks before its first frame"),
    "GIF, pixels": (lambda: gif_of_short_blocks("pixels"), "sub-blocks in its first frame"),
    "BMP, runs": (bmp_of_short_runs, "more than 100000 run lengths"),
    "BMP, a profile of 4 GB": (bmp_with_a_long_profile, ""),
    "JPEG, SOI": (lambda: jpeg_without_end(b"\xff\xd8" * 10_000_000), "two SOI markers"),
    "JPEG, TEM": (lambda: jpeg_without_end(b"\xff\x01" * 10_000_000), ""),
    "JPEG, comments": (
        lambda: jpeg_without_end(b"\xff\xfe\0\2" * 10_000_000),
        "segments between its scans",
    ),
    "JPEG, a scan that is cut": (
        lambda: jpeg_without_end(b"\xff\xda\0\2" + bytes(50)),
        "the header of a scan is damaged",
    ),
    "JPEG, lower bits": (jpeg_with_lower_bits, "its values have more than 4 bits"),
    "WebP, 4 GB": (webp_with_a_long_chunk, "its last pixels are missing"),
    "JPEG XL, a white point": (lambda: UNKNOWN_WHITE, "its colour encoding is invalid"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_file_ends_soon(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused for its cause, or read, in less than a minute."""
    monkeypatch.setattr(bmp, "MAX_RUNS", MOST)
    monkeypatch.setattr(gif, "MAX_SUB_BLOCKS", MOST)
    make, cause = BOMBS[name]
    (tmp_path / "bomb").write_bytes(make())
    said = ""
    try:
        decode_file(tmp_path / "bomb")
    except NstError as error:
        said = str(error)
    assert cause in said
    assert bool(cause) == bool(said), said


@pytest.mark.parametrize("make", [webp_with_a_long_chunk, bmp_with_a_long_profile])
def test_nothing_is_allocated_by_what_a_file_claims(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    """A part that has 4 GB, as the file says, takes less than 16 MB."""
    (tmp_path / "bomb").write_bytes(make())
    tracemalloc.start()
    with suppress(NstError):
        decode_file(tmp_path / "bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
