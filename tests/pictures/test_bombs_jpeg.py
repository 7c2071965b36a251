"""Hostile JPEG, WebP, GIF and BMP files take little time and memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.pictures.corpus import bmp, exif, gif, jpeg, webp
from tests.pictures.jpeg_writer import EOI, SOI, segment
from tests.pictures.test_bombs_png import CHILD


def large_jpeg(
    *, progressive: bool = False, scans: int = 1, sides: tuple[int, int] = (4000, 6000)
) -> bytes:
    """A JPEG of a size whose scans have hardly any data."""
    data, _ = jpeg.made((8, 8), progressive=progressive)
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data = data[: frame + 5] + struct.pack(">HH", *sides) + data[frame + 9 :]
    scan = data[data.index(b"\xff\xda") : -2]
    return data[:-2] + scan * (scans - 1) + EOI


def pixels() -> bytes:
    """A small JPEG's bytes behind its start."""
    return jpeg.made()[0][2:]


def large_gif() -> bytes:
    """A GIF of 9 megapixels in a few bytes of codes."""
    start = gif.gif((3000, 3000), palette=gif.random_palette(2), trailer=b"")
    return start + b"," + struct.pack("<HHHHB", 0, 0, 3000, 3000, 0) + b"\2\2\x4c\1\0;"


def run_bmp(code: bytes, size: tuple[int, int] = (16, 24)) -> bytes:
    """A BMP of run lengths."""
    return bmp.bmp(code, size, 8, compression=bmp.RLE8, palette=bytes(1024))


def webp_of(width: int, height: int) -> bytes:
    """A WebP whose canvas has a size, with one small frame."""
    return webp.animation((height, width), webp.frame(webp.chunks_of(webp.STILL), (0, 0), (4, 4)))


#: An entry of EXIF: a text of 64 KB.
ENTRY = struct.pack("<HHII", 0x0112, 2, 0xFFFF, 8)
SMALL_FRAME = gif.image(np.zeros((1, 1), int), 2)
PROFILE_OF_4_GB = struct.pack("<I", 0x4D424544) + bytes(52) + struct.pack("<II", 140, 0xFFFFFFFF)
LIMITS, DAMAGED = "the limits are", "is damaged or truncated"
#: Name → the file, a pattern of what comes of it ("" if it is decoded), and the largest growth of memory in bytes.
BOMBS: dict[str, tuple[Callable[[], bytes], str, float]] = {
    "JPEG of 4 gigapixels": (lambda: large_jpeg(sides=(65_500, 65_500)), LIMITS, 10e6),
    "JPEG of 24 megapixels without data": (large_jpeg, "", 800e6),
    "JPEG with 90 scans": (lambda: large_jpeg(progressive=True, scans=22), "", 1000e6),
    "JPEG with 5000 scans": (lambda: large_jpeg(progressive=True, scans=2000), "more than 100 scans", 20e6),
    "JPEG with a million segments": (lambda: SOI + b"\xff\xe5\0\2" * 1_000_000 + pixels(), "segments", 20e6),
    "JPEG with a million starts": (lambda: SOI + SOI * 1_000_000 + pixels(), "segments", 20e6),
    "JPEG with 20 MB of fill bytes": (lambda: SOI + b"\xff" * 20_000_000 + pixels(), DAMAGED, 45e6),
    "JPEG with 20 MB of zeros": (lambda: SOI + b"\xff\xe0" + bytes(20_000_000) + pixels(), DAMAGED, 45e6),
    "JPEG with 20 MB of EXIF": (
        lambda: SOI + segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 300 + pixels(), "", 90e6,
    ),
    "JPEG with EXIF of 65535 entries": (
        lambda: exif.jpeg(b"II*\0\x08\0\0\0\xff\xff" + ENTRY * 5000), "", 20e6,
    ),
    "WebP with a canvas of 16 million": (lambda: webp_of(1 << 24, 1 << 24), LIMITS, 10e6),
    "WebP with a million chunks": (
        lambda: webp.riff(webp.chunk(b"abcd", b"") * 1_000_000, webp.chunks_of(webp.STILL)), DAMAGED, 30e6,
    ),
    "GIF of 4 gigapixels": (lambda: gif.gif((65_535, 65_535), SMALL_FRAME), LIMITS, 10e6),
    "GIF of 9 megapixels in 20 bytes": (large_gif, DAMAGED, 120e6),
    "GIF with a million comments": (
        lambda: gif.gif((4, 4), b"!\xfe\0" * 1_000_000, palette=gif.random_palette(2)), DAMAGED, 20e6,
    ),
    "GIF with a million frames": (
        lambda: gif.gif((4, 4), SMALL_FRAME * 300_000, palette=gif.random_palette(2)), "", 20e6,
    ),
    "BMP of 3 gigapixels": (lambda: bmp.bmp(b"", (60_000, 60_000), 24), LIMITS, 10e6),
    "BMP of 100 megapixels without data": (lambda: bmp.bmp(b"", (10_000, 10_000), 24), DAMAGED, 10e6),
    "BMP with deltas of 0": (lambda: run_bmp(b"\0\2\0\0" * 5_000_000), "run lengths do not end", 45e6),
    "BMP with a million rows": (lambda: run_bmp(b"\0\0" * 5_000_000), "", 25e6),
    "BMP with a palette of 4 billion": (
        lambda: bmp.bmp(bytes(400), (16, 24), 8, colours=0xFFFFFFFF, palette=bytes(1024)), "", 10e6,
    ),
    "BMP with a profile of 4 GB": (
        lambda: bmp.bmp(bytes(1152), (16, 24), 24, header=124, fields=PROFILE_OF_4_GB), "", 10e6,
    ),
}  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_file_is_bounded(name: str, tmp_path: Path) -> None:
    """It is decoded or refused with its cause, in under a minute and with little memory."""
    make, cause, most = BOMBS[name]
    (tmp_path / "good").write_bytes(jpeg.made()[0])
    (tmp_path / "bomb").write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "good", tmp_path / "bomb"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    grown, said = json.loads(done.stdout)
    assert cause in said, said
    assert cause or "refused" not in said
    assert grown < most
