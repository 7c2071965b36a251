"""Hostile PNG files and colour profiles take little time and memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.corpus import chunk
from tests.pictures.corpus.png_metadata import iccp, itxt, linear_profile
from tests.pictures.png_writer import RGB, file, picture, wrong_crc

#: Decodes a file after another, and prints the growth of memory in bytes and what came of it.
CHILD = """
import json, sys, time
from pathlib import Path
from nst_daemon.errors import NstError
from nst_daemon.machine import proc_bytes
from nst_daemon.pictures.decode import decode_file
decode_file(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")
before = proc_bytes(Path("/proc/self/status"))["VmRSS"]
try:
    found = decode_file(sys.argv[2], name="picture")
    said = "; ".join(found.notes)
except NstError as error:
    said = str(error)
peak = proc_bytes(Path("/proc/self/status"))["VmHWM"]
print(json.dumps([peak - before, said]))
"""

SMALL = picture(RGB, 8)


def bomb(first: bytes = b"") -> bytes:
    """Compressed bytes, and 200 MB of zeros behind them, in 200 KB."""
    packer, piece = zlib.compressobj(9), bytes(1 << 20)
    pieces = [packer.compress(part) for part in (first, *[piece] * 200)]
    return b"".join(pieces) + packer.flush()


PACKED = bomb()
EXIF_TEXT = b"Raw profile type exif\0\0"
XMP_TEXT = b"XML:com.adobe.xmp\0\1\0\0\0"


def changed(profile: bytes, offset: int, *values: int) -> bytes:
    """A profile with other 32-bit numbers at an offset."""
    data = struct.pack(f">{len(values)}I", *values)
    return profile[:offset] + data + profile[offset + len(data) :]


def lut_profile(kind: bytes, grid: int) -> bytes:
    """A CMYK profile whose table of a given size is not there."""
    table = kind + struct.pack(">IBBBB", 0, 4, 3, grid, 0) + struct.pack(">9i", *[65536] * 9)
    table += struct.pack(">HH", 4096, 4096) + bytes(1000)
    header = bytearray(linear_profile()[:128])
    header[12:24] = b"prtrCMYKLab "
    body = struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table
    header[:4] = struct.pack(">I", 128 + len(body))
    return bytes(header) + body


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "profile that is a bomb": (
        lambda: file(SMALL, before=chunk(b"iCCP", b"p\0\0" + PACKED)),
        "larger than 8 MB",
    ),
    "100 profiles that are bombs": (
        lambda: file(SMALL, before=100 * chunk(b"iCCP", b"p\0\0" + PACKED)),
        "larger than 8 MB",
    ),
    "100 texts of EXIF that are bombs": (
        lambda: file(SMALL, before=100 * chunk(b"zTXt", EXIF_TEXT + PACKED)),
        "",
    ),
    "100 texts of XMP that are bombs": (
        lambda: file(SMALL, after=100 * chunk(b"iTXt", XMP_TEXT + PACKED)),
        "",
    ),
    "other texts that are bombs": (lambda: file(SMALL, before=100 * chunk(b"zTXt", b"key\0\0" + PACKED)), ""),
    "image data that is a bomb": (lambda: file(SMALL, data=chunk(b"IDAT", bomb(SMALL.rows()))), ""),
    "image data that is a bomb without an end": (
        lambda: file(SMALL, data=chunk(b"IDAT", bomb(SMALL.rows()))[:-50], end=b""),
        "",
    ),
    "a million empty chunks": (lambda: file(SMALL, before=1_000_000 * chunk(b"noNe", b"")), "more than 200000 chunks"),
    "a million empty IDAT": (lambda: file(SMALL, data=1_000_000 * chunk(b"IDAT", b"")), "more than 200000 chunks"),
    "190000 profiles with a wrong checksum": (
        lambda: file(SMALL, before=190_000 * wrong_crc(chunk(b"iCCP", b"p\0\0abc"))),
        "cannot be read",
    ),
    "190000 texts": (lambda: file(SMALL, before=190_000 * itxt(b"XML:com.adobe.xmp", b"x")), ""),
    "190000 IDAT": (
        lambda: file(SMALL, data=190_000 * chunk(b"IDAT", b"") + chunk(b"IDAT", zlib.compress(SMALL.rows()))),
        "",
    ),
    "190000 frames": (
        lambda: file(SMALL, before=chunk(b"acTL", b"\xff" * 8) + 190_000 * chunk(b"fcTL", bytes(26))),
        "only the first of 190000 frames",
    ),
    "chunk of 2 GB": (lambda: file(SMALL, before=struct.pack(">I", 2**31 - 1) + b"iCCP"), "no image data"),
    "header of 2 billion pixels a side": (lambda: huge(2**31 - 1, 2**31 - 1, 0), "raise limits.max_pixels"),
    "interlaced header of 2 billion pixels a side": (lambda: huge(2**31 - 1, 2**31 - 1, 1), "raise limits.max_pixels"),
    "a large header without pixels": (lambda: huge(12_000, 12_000, 0), "damaged or truncated"),
    "a large interlaced header without pixels": (lambda: huge(12_000, 12_000, 1), "damaged or truncated"),
    "profile of 4 billion tags": (lambda: with_profile(changed(linear_profile(), 128, 2**32 - 1)), "cannot be read"),
    "profile of 100 tags beyond its end": (
        lambda: with_profile(changed(linear_profile(), 128, 100, *(2**32 - 16,) * 300)),
        "cannot be read",
    ),
    "profile with a curve of 4 billion entries": (lambda: with_profile(long_curve()), "cannot be read"),
    "profile with a table of 255 to the 4th": (lambda: with_profile(lut_profile(b"mft2", 255)), "CMYK|cannot be read"),
    "profile with a table of 100 to the 4th": (lambda: with_profile(lut_profile(b"mft1", 100)), "CMYK|cannot be read"),
}  # fmt: skip


def huge(width: int, height: int, interlaced: int) -> bytes:
    """A small file that announces many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))


def with_profile(profile: bytes) -> bytes:
    """A picture with a colour profile."""
    return file(SMALL, before=iccp(profile))


def long_curve() -> bytes:
    """A profile in which the number of entries of each curve is the largest."""
    profile = linear_profile()
    assert b"para\0\0\0\0" in profile or b"curv\0\0\0\0" in profile
    for kind in (b"para\0\0\0\0", b"curv\0\0\0\0"):
        profile = profile.replace(kind, b"curv\0\0\0\0\xff\xff\xff\xff"[: len(kind) + 4])
    return profile


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_takes_little(name: str, tmp_path: Path) -> None:
    """It is decoded, or refused with the true cause, in under a minute and with under 60 MB more than a small one."""
    make, said = HOSTILE[name]
    (tmp_path / "small").write_bytes(file(SMALL))
    (tmp_path / "hostile").write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "small", tmp_path / "hostile"],
        check=True,
        capture_output=True,
        text=True,
    )
    growth, found = json.loads(done.stdout)
    assert any(part in found for part in said.split("|")) if said else found == ""
    assert growth < 60e6
