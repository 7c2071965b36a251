"""Hostile TIFF files take little time and memory."""

# ruff: noqa: E501 (the table of files has one line for each)

from __future__ import annotations

import json
import lzma
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from tests.pictures import tiff_writer as tw
from tests.pictures.tiff_writer import LONG, LONG8, SHORT, Page, Store, Value, page

#: Decodes files after the first one, and prints the growth of memory in bytes and what came of each.
CHILD = """
import json, sys
from pathlib import Path
from nst_daemon.errors import NstError
from nst_daemon.machine import proc_bytes
from nst_daemon.pictures.decode import decode_file
for path in sys.argv[1:3]:
    decode_file(path)
rows = []
for path in sys.argv[3:]:
    Path("/proc/self/clear_refs").write_text("5")
    before = proc_bytes(Path("/proc/self/status"))["VmRSS"]
    try:
        found = decode_file(path, name="picture")
        said = "; ".join(found.notes)
    except NstError as error:
        said = str(error)
    peak = proc_bytes(Path("/proc/self/status"))["VmHWM"]
    rows.append([path, peak - before, said])
print(json.dumps(rows))
"""
#: So much memory may a file take, in bytes.
BYTES = 50_000_000

PIXELS = np.full((16, 16, 3), 77, np.uint64)
ZEROS = bytes(60_000_000)
DAMAGED, UNSUPPORTED, ONE_FRAME, MORE = "damaged", "not supported", "^$", "several frames"


def changed(
    store: Store,
    *,
    data: bytes | None = None,
    tags: dict[int, Value] | None = None,
    code: int | None = None,
) -> bytes:
    """A small picture with other data, tags or compression."""
    made = page(PIXELS, 8, 2, store)
    if code is not None:
        made.tags[259] = (SHORT, [code])
    if data is not None:
        made.segments = [data]
    made.tags |= tags or {}
    return tw.file(made)


def bomb(code: str) -> bytes:
    """A strip that decompresses to 60 MB."""
    data = b"\x81\0" * 500_000 if code == "PackBits" else tw.ENCODERS[code][1](ZEROS)
    return changed(Store(code=code), data=data)


def chain(number: int, entries: int = 1) -> bytes:
    """Many pages behind a whole one, each with some entries."""
    first = tw.file(page(PIXELS, 8, 2))
    (start,) = struct.unpack_from("<I", first, 4)
    (count,) = struct.unpack_from("<H", first, start)
    size = 2 + 12 * entries + 4
    data = bytearray(first + bytes(len(first) % 2))
    struct.pack_into("<I", data, start + 2 + 12 * count, len(data))
    entry = struct.pack("<HHII", 256, LONG, 1, 5)
    for n in range(number):
        following = len(data) + size if n < number - 1 else 0
        data += struct.pack("<H", entries) + entry * entries + struct.pack("<I", following)
    return bytes(data)


def entries(number: int) -> bytes:
    """A directory of many entries of one tag, and a whole picture."""
    made = page(PIXELS, 8, 2)
    data = bytearray(tw.file(made))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    table = bytes(data[start + 2 : start + 2 + 12 * count])
    struct.pack_into("<I", data, 4, len(data))
    more = struct.pack("<HHII", 65000, LONG, 1, 5) * (number - count)
    return bytes(data) + struct.pack("<H", number) + table + more + bytes(4)


def overlapping(strips: int, size: int) -> bytes:
    """Strips of one row that are all the same large part of the file."""
    rows = page(np.zeros((strips, 8, 1), np.uint64), 8, 1, Store(rows=1, code="Deflate"))
    rows.segments = None
    rows.tags |= {273: (LONG, [1000] * strips), 279: (LONG, [size] * strips)}
    return tw.file(rows) + zlib.compress(bytes(size)) + bytes(size)


def many(code: int, number: int) -> bytes:
    """A picture of many tiles of one pixel, all of the same data."""
    side = int(number**0.5)
    data = b"\0" if code == 1 else zlib.compress(b"\0")
    tags: dict[int, Value] = {
        256: (LONG, [side]), 257: (LONG, [side]), 258: (SHORT, [8]), 259: (SHORT, [code]), 262: (SHORT, [1]),
        277: (SHORT, [1]), 322: (LONG, [1]), 323: (LONG, [1]), 324: (LONG, [8] * side**2), 325: (LONG, [len(data)] * side**2),
    }  # fmt: skip
    return tw.file(Page(tags))


def jpeg(width: int, height: int) -> bytes:
    """A JPEG that says that it is larger."""
    data = bytes(imagecodecs.jpeg8_encode(PIXELS.astype(np.uint8)))
    at = data.find(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def scans(number: int) -> bytes:
    """A JPEG with one scan many times."""
    data = bytes(imagecodecs.jpeg8_encode(PIXELS.astype(np.uint8)))
    at = data.find(b"\xff\xda")
    return data[:at] + data[at:-2] * number + data[-2:]


def inner(code: int, data: bytes) -> bytes:
    """A picture of 16 × 16 pixels with another picture in its strip."""
    return changed(Store(), data=data, code=code)


def old_jpeg() -> bytes:
    """An old JPEG of 16 × 16 pixels that says that it is larger."""
    tags: dict[int, Value] = {256: (LONG, [16]), 257: (LONG, [16]), 259: (SHORT, [6])}
    start = len(tw.file(Page(tags | {513: (LONG, [0])})))
    return tw.file(Page(tags | {513: (LONG, [start])})) + jpeg(65_500, 65_500)


LARGE = np.zeros((4000, 4000), np.uint8)


def huge_j2k() -> bytes:
    """A JPEG 2000 codestream that says 50,000 × 50,000 pixels."""
    data = bytearray(imagecodecs.jpeg2k_encode(PIXELS.astype(np.uint8), codecformat="j2k"))
    struct.pack_into(">II", data, 8, 50_000, 50_000)
    struct.pack_into(">II", data, 24, 50_000, 50_000)
    return bytes(data)


def sized(width: int, height: int, **tags: Value) -> bytes:
    """A picture that says that it is larger, with one strip of a few bytes."""
    more = {int(key[1:]): value for key, value in tags.items()}
    return changed(
        Store(),
        data=zlib.compress(bytes(1000)),
        code=8,
        tags={256: (LONG, [width]), 257: (LONG, [height]), 278: (LONG, [height]), **more},
    )


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "directory that follows itself": (lambda: tw.file(page(PIXELS, 8, 2), loop=True), MORE),
    "two directories in a loop": (lambda: tw.file(page(PIXELS, 8, 2), page(PIXELS, 8, 2), loop=True), MORE),
    "sub-directories that are the directory": (lambda: changed(Store(), tags={330: (LONG, [8] * 5000)}), ONE_FRAME),
    "sub-directories beyond the end": (lambda: changed(Store(), tags={330: (LONG, [2**31] * 5000)}), ONE_FRAME),
    "a million pages": (lambda: chain(1_000_000), MORE),
    "20 pages of 60,000 entries": (lambda: chain(20, 60_000), MORE),
    "65,535 entries": (lambda: entries(65_535), ONE_FRAME),
    "StripOffsets that claim 4 billion": (lambda: lying(273, 2**32 - 1), ONE_FRAME),
    "StripByteCounts that claim 4 billion": (lambda: lying(279, 2**32 - 1), ONE_FRAME),
    "BitsPerSample that claim 4 billion": (lambda: lying(258, 2**32 - 1), DAMAGED),
    "overlapping strips": (lambda: overlapping(20_000, 1_000_000), "damaged.*overlap"),
    "250,000 tiles of one pixel": (lambda: many(1, 250_000), ONE_FRAME),
    "two million tiles": (lambda: many(1, 2_000_000), UNSUPPORTED),
    "strips beyond the end": (lambda: placed(2**31, 768), DAMAGED),
    "offsets of 2^63": (lambda: tw.file(page(PIXELS, 8, 2, tags={256: (LONG8, [2**63])}), big=True), "pixels; the limits|damaged"),
    "65,535 samples": (lambda: changed(Store(), tags={277: (SHORT, [65_535])}), UNSUPPORTED),
    "4,000 samples of 64 bits": (lambda: changed(Store(), tags={277: (SHORT, [4000]), 258: (SHORT, [64])}), UNSUPPORTED),
    "tile of 2^31 pixels": (lambda: changed(Store(code="Deflate"), tags={322: (LONG, [2**31]), 323: (LONG, [2**31]), 324: (LONG, [8]), 325: (LONG, [9])}), "takes about|" + DAMAGED),
    "tile of 60,000 pixels": (lambda: changed(Store(code="LZW"), tags={322: (LONG, [60_000]), 323: (LONG, [60_000]), 324: (LONG, [8]), 325: (LONG, [9])}), "takes about|" + DAMAGED),
    "100 megapixels of a few bytes, Deflate": (lambda: sized(10_000, 10_000), "takes about|" + DAMAGED),
    "large CCITT of a few bytes": (lambda: changed(Store(), data=bytes(1000), code=4, tags={256: (LONG, [3000]), 257: (LONG, [2000]), 258: (SHORT, [1]), 277: (SHORT, [1]), 262: (SHORT, [0]), 278: (LONG, [2000])}), ""),
    **{f"strip that is a bomb, {code}": (lambda code=code: bomb(code), "") for code in tw.ENCODERS if code != "none"},
    "LZMA with a dictionary of 1 GB": (
        lambda: changed(Store(), data=lzma_head(), code=34925),
        UNSUPPORTED,
    ),
    "JPEG of 65,500 × 65,500": (lambda: inner(7, jpeg(65_500, 65_500)), DAMAGED),
    "JPEG of 1000 scans": (lambda: inner(7, scans(1000)), UNSUPPORTED),
    "old JPEG of 65,500 × 65,500": (old_jpeg, DAMAGED),
    "JPEG 2000 of 50,000 × 50,000": (lambda: inner(34712, huge_j2k()), DAMAGED),
    "JPEG XL of 4000 × 4000": (lambda: inner(50002, bytes(imagecodecs.jpegxl_encode(LARGE))), DAMAGED),
    "WebP of 4000 × 4000": (lambda: inner(50001, bytes(imagecodecs.webp_encode(LARGE[..., None].repeat(3, axis=2), lossless=True, method=0))), DAMAGED),
    "PNG of 4000 × 4000": (lambda: inner(34933, bytes(imagecodecs.png_encode(LARGE))), DAMAGED),
    "LERC of 4000 × 4000": (lambda: inner(34887, bytes(imagecodecs.lerc_encode(LARGE))), DAMAGED),
    "LERC in Deflate that is a bomb": (lambda: changed(Store(), data=zlib.compress(ZEROS), code=34887, tags={50674: (LONG, [4, 1])}), DAMAGED),
    "PixarLog that is a bomb": (lambda: inner(32909, zlib.compress(ZEROS)), ""),
    "profile that claims 4 GB": (lambda: lying(34675, 2**32 - 1, more={34675: b"profile " * 9}), "cannot be read"),
}  # fmt: skip


def placed(offset: int, length: int) -> bytes:
    """A picture whose strip is elsewhere."""
    made = page(PIXELS, 8, 2)
    made.segments = None
    made.tags |= {273: (LONG, [offset]), 279: (LONG, [length])}
    return tw.file(made)


def lying(tag: int, count: int, more: dict[int, Value] | None = None) -> bytes:
    """A picture in strips of which one tag has a count that is not true."""
    made = page(PIXELS, 8, 2, Store(rows=1), tags=more)
    data = bytearray(tw.file(made))
    (start,) = struct.unpack_from("<I", data, 4)
    for at in range(start + 2, len(data), 12):
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<I", data, at + 4, count)
            break
    return bytes(data)


def lzma_head() -> bytes:
    """LZMA data whose header asks for a dictionary of 1 GB."""
    return (
        b"\x5d"
        + struct.pack("<Iq", 1 << 30, -1)
        + lzma.compress(bytes(1000), lzma.FORMAT_ALONE)[13:]
    )


@pytest.mark.timeout(120)
def test_hostile_files_take_little_time_and_memory(tmp_path: Path) -> None:
    """Each hostile file is read or refused with its cause, with 50 MB; all of them take less than two minutes."""
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"small {number}")
        paths[-1].write_bytes(tw.file(page(PIXELS, 8, 2, Store(code=("LZW", "Deflate")[number]))))
    for name, (make, _) in HOSTILE.items():
        paths.append(tmp_path / name.replace("/", " "))
        paths[-1].write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)], check=True, capture_output=True, text=True
    )
    wrong = []
    for (name, (_, expected)), (_, grown, said) in zip(
        HOSTILE.items(), json.loads(done.stdout), strict=True
    ):
        if grown > BYTES or not re.search(expected, said):
            wrong.append(f"{name}: {grown / 1e6:.0f} MB, {said}")
    assert wrong == []
