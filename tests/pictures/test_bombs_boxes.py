"""Hostile HEIC, AVIF and JPEG 2000 files: they are refused, or decoded, within bounds of time and memory."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pictures.heif_writer import (
    Item,
    av1,
    avif,
    box,
    container,
    full,
    grid,
    heic,
    hevc,
    irot,
    ispe,
    nclx,
)
from tests.pictures.jpeg2000_writer import by_pillow, enumerated, jp2, stored

MEASURED = """
import json, resource, sys
from nst_daemon.pictures.decode import decode_file
from nst_daemon.errors import NstError
decode_file(sys.argv[1])  # libraries are loaded
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_file(sys.argv[2], name="bomb")
    said = "decoded"
except NstError as error:
    said = str(error)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([said, grown / 1024]))
"""

SMALL = np.arange(16 * 24 * 3, dtype=np.uint32).astype(np.uint8).reshape(16, 24, 3)


def lying(data: bytes, height: int, width: int) -> bytes:
    """A HEIC or AVIF whose header states another size."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def large_in_small(encode: Callable[..., bytes]) -> bytes:
    """A header of 24 × 16, and coded data of 4096 × 4096."""
    return lying(encode(np.zeros((4096, 4096), np.uint8), 8), 16, 24)


def nested(depth: int) -> bytes:
    """Boxes `meta` in each other."""
    inner = b""
    for _ in range(depth):
        inner = box(b"meta", bytes(4), inner)
    return box(b"ftyp", b"avif", bytes(4), b"avif") + inner


def repeated_tiles(one: Callable[..., Item], brand: bytes) -> bytes:
    """A grid of 256 × 256 tiles that are all the same item: 16384 × 16384 pixels."""
    tile = one(np.zeros((64, 64), np.uint8), 8)
    whole = Item(b"grid", grid(256, 256, 16384, 16384), [ispe(16384, 16384)], {"dimg": [2] * 65535})
    return container([whole, tile], brand)


def loop(brand: bytes) -> bytes:
    """Grids that consist of each other."""
    one = Item(b"grid", grid(1, 1, 64, 64), [ispe(64, 64)], {"dimg": [2]})
    other = Item(b"grid", grid(1, 1, 64, 64), [ispe(64, 64)], {"dimg": [1]})
    return container([one, other], brand)


def many_items(count: int, brand: bytes) -> bytes:
    """Items without anything."""
    return container([Item(b"free", b"")] * count, brand)


def overlapping(brand: bytes) -> bytes:
    """An item of 60,000 parts, each of which is the whole file."""
    data = bytearray(container([av1(SMALL, 8), Item(b"Exif", bytes(1000))], brand))
    at = data.index(b"iloc") - 4
    entry = struct.pack(">HHH", 1, 0, 60_000) + struct.pack(">II", 0, len(data)) * 60_000
    iloc = full(b"iloc", bytes([0x44, 0]), struct.pack(">H", 1), entry)
    length = int.from_bytes(data[at : at + 4], "big")
    return bytes(data[:at]) + iloc + bytes(data[at + length :])


def sized(codestream: bytes, height: int, width: int, tile: tuple[int, int] | None = None) -> bytes:
    """A codestream that states another size, and another size of its tiles, (height, width)."""
    sides = struct.pack(">4I", width, height, 0, 0) + struct.pack(
        ">2I", *(tile or (height, width))[::-1]
    )
    return codestream[:8] + sides + codestream[32:]


def with_cod(codestream: bytes, layers: int, levels: int, precinct: int | None) -> bytes:
    """A codestream with other numbers of layers and levels, and precincts of equal exponents."""
    at = codestream.index(b"\xff\x52")
    length = int.from_bytes(codestream[at + 2 : at + 4], "big")
    sides = b"" if precinct is None else bytes([precinct * 17] * (levels + 1))
    coding = (
        struct.pack(">BBHB", precinct is not None, 0, layers, 0)
        + bytes([levels, 0, 0, 0, 1])
        + sides
    )
    changed = b"\xff\x52" + struct.pack(">H", 2 + len(coding)) + coding
    return codestream[:at] + changed + codestream[at + 2 + length :]


def animated(kind: bytes, at: int, value: int) -> bytes:
    """An animated AVIF with another number of four bytes in the first box of a type."""
    out = io.BytesIO()
    frames = [Image.fromarray(SMALL), Image.fromarray(255 - SMALL)]
    frames[0].save(out, "AVIF", save_all=True, append_images=frames[1:])
    data = bytearray(out.getvalue())
    start = data.index(kind) + 4 + at
    data[start : start + 4] = struct.pack(">I", value)
    return bytes(data)


def replaced(data: bytes, kind: bytes, other: bytes) -> bytes:
    """A file with another box in place of the first one of a type."""
    at = data.index(kind) - 4
    length = int.from_bytes(data[at : at + 4], "big")
    return data[:at] + other + data[at + length :]


def listed(kind: bytes, part: bytes, count: int) -> bytes:
    """A file that consists of one `meta` box with many equal lists."""
    head = box(b"ftyp", b"avif", bytes(4), b"avif")
    inner = (
        box(b"iprp", box(b"ipco"), part * count) if kind == b"ipma" else full(kind, part * count)
    )
    return head + full(b"meta", full(b"pitm", b"\0\1"), inner)


def many_extents() -> bytes:
    """A HEIC whose image has 605 parts, more than libheif reads."""
    entry = struct.pack(">HHH", 1, 0, 605) + struct.pack(">II", 0, 1) * 605
    iloc = full(b"iloc", bytes([0x44, 0]), struct.pack(">H", 1), entry)
    return replaced(heic(SMALL, 8), b"iloc", iloc)


def parts_without_numbers() -> bytes:
    """65,535 items of 65,535 parts whose offsets and lengths have no bytes: 400 kB."""
    entries = struct.pack(">HHH", 1, 0, 65_535) * 65_535
    return replaced(avif(SMALL, 8), b"iloc", full(b"iloc", bytes(2), b"\xff\xff", entries))


def unending_headers(count: int) -> bytes:
    """An AVIF whose data consists of sequence headers with a number of 2000 leading zeros."""
    header = b"\x0a\xff\x01" + (b"\x04" + bytes(8) + b"\x20").ljust(255, b"\0")
    return container([Item(b"av01", header * count, [ispe(16, 24)])], b"avif")


STREAM = stored(SMALL, 8)
BOMBS: dict[str, Callable[[], bytes]] = {
    "AVIF of 2³¹ × 2³¹": lambda: lying(avif(SMALL, 8), 1 << 31, 1 << 31),
    "HEIC of 2³¹ × 2³¹": lambda: lying(heic(SMALL, 8), 1 << 31, 1 << 31),
    "AVIF of 12000 × 12000 with data of 24 × 16": lambda: lying(avif(SMALL, 8), 12_000, 12_000),
    "HEIC of 12000 × 12000 with data of 24 × 16": lambda: lying(heic(SMALL, 8), 12_000, 12_000),
    "AVIF, large data": lambda: large_in_small(avif),
    "HEIC, large data": lambda: large_in_small(heic),
    "boxes in boxes": lambda: nested(50_000),
    "a million boxes": lambda: box(b"ftyp", b"avif", bytes(4), b"avif") + box(b"free") * 1_000_000,
    "a million boxes in HEIC": lambda: heic(SMALL, 8) + box(b"free") * 1_000_000,
    "AVIF, the same tile 65535 times": lambda: repeated_tiles(av1, b"avif"),
    "HEIC, the same tile 65535 times": lambda: repeated_tiles(hevc, b"heic"),
    "AVIF, grids in a loop": lambda: loop(b"avif"),
    "HEIC, grids in a loop": lambda: loop(b"heic"),
    "AVIF, 60000 items": lambda: many_items(60_000, b"avif"),
    "HEIC, 60000 items": lambda: many_items(60_000, b"heic"),
    "AVIF, parts that overlap": lambda: overlapping(b"avif"),
    "AVIF, 60000 turns": lambda: avif(SMALL, 8, *[irot(1)] * 200, nclx(2, 2)),
    "AVIF, animated, 2³² − 1 frames": lambda: animated(b"stsz", 8, 0xFFFFFFFF),
    "AVIF, animated, frames of 4 GB": lambda: animated(b"stsz", 4, 0xFFFFFFFF),
    "AVIF, animated, 2³² − 1 chunks": lambda: animated(b"stco", 4, 0xFFFFFFFF),
    "AVIF, animated, 65535 × 65535": lambda: animated(b"av01\0\0\0\0", 20, 0xFFFFFFFF),
    "AVIF, animated, boxes without an end": lambda: animated(b"trak", 0, 0),
    "AVIF, 60 MB of references": lambda: listed(
        b"iref", box(b"dimg", b"\0\1\xff\xff", bytes(131_070)), 460
    ),
    "AVIF, 60 MB of associations": lambda: listed(
        b"ipma", full(b"ipma", b"\0\0\x3e\x80", (b"\0\1\xff" + bytes(255)) * 16_000), 15
    ),
    "AVIF, 4 billion parts": parts_without_numbers,
    "AVIF, 99000 sequence headers": lambda: unending_headers(99_000),
    "HEIC, 605 parts": many_extents,
    "AVIF, a primary number of 4000 bytes": lambda: replaced(
        avif(SMALL, 8), b"pitm", full(b"pitm", b"\1" * 4000)
    ),
    "JPEG 2000 of 2³² − 1": lambda: sized(STREAM, 0xFFFFFFFF, 0xFFFFFFFF),
    "JPEG 2000 of 12000 × 12000": lambda: sized(STREAM, 12_000, 12_000),
    "JPEG 2000, tiles of one pixel": lambda: sized(STREAM, 255, 255, (1, 1)),
    "JPEG 2000, 144 million tiles": lambda: sized(STREAM, 12_000, 12_000, (1, 1)),
    "JPEG 2000, 65535 layers": lambda: with_cod(STREAM, 65_535, 5, None),
    "JPEG 2000, 65535 layers and precincts of one pixel": lambda: sized(
        with_cod(STREAM, 65_535, 32, 0), 4000, 4000
    ),
    "JPEG 2000, precincts of one pixel": lambda: sized(with_cod(STREAM, 1, 5, 0), 4000, 4000),
    "JPEG 2000, 16384 components": lambda: (
        STREAM[:4]
        + struct.pack(">HH8IH", 38 + 3 * 16_384, 0, 24, 16, 0, 0, 24, 16, 0, 0, 16_384)
        + b"\7\1\1" * 16_384
        + STREAM[51:]
    ),
    "JPEG 2000, parts of tiles without an end": lambda: (
        STREAM[:-2] + struct.pack(">HHHIBB", 0xFF90, 10, 0, 14, 0, 0).join([b""] * 1_000_000)
    ),
    "JPEG 2000, tiles of the whole": lambda: jp2(
        by_pillow(SMALL, tile_size=(8, 8)) * 1000, enumerated(16)
    ),
    "JPEG 2000, a header of a million segments": lambda: (
        STREAM[:51] + b"\xff\x64\0\x04\0\1" * 1_000_000 + STREAM[51:]
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each format that can be read."""
    folder = tmp_path_factory.mktemp("good")
    files = {"AVIF": avif(SMALL, 8), "HEIC": heic(SMALL, 8), "JPEG": STREAM, "": avif(SMALL, 8)}
    for name, data in files.items():
        (folder / f"good{name}").write_bytes(data)
    return {name: folder / f"good{name}" for name in files}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_file_takes_little(name: str, good: dict[str, Path], tmp_path: Path) -> None:
    """It takes less than a minute and 200 MB, and is refused with a reason or decoded."""
    (tmp_path / "bomb").write_bytes(BOMBS[name]())
    kind = next(
        (known for known in ("AVIF", "HEIC", "JPEG") if known in name.partition(",")[0]), ""
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, good[kind], tmp_path / "bomb"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said, grown = json.loads(done.stdout)
    assert said == "decoded" or "bomb" in said
    assert grown < 200, said
