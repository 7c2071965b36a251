"""Hostile JPEG XL files take bounded time and memory."""

from __future__ import annotations

import json
import re
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image

from nst_daemon.errors import DamagedPicture, NstError
from nst_daemon.pictures.decode import decode_file
from nst_daemon.pictures.encode_jxl import encode_jxl
from tests.pictures.corpus.jxl import file, lossless, plain
from tests.pictures.jxl_writer import (
    START,
    Fields,
    box,
    boxed,
    chosen,
    coded,
    enum,
    frames_of,
    integers,
    long_number,
    number,
    packed,
)

FIELDS, PIXELS = plain(3)
WHOLE = file(FIELDS, PIXELS)


def size_bits(value: int) -> str:
    """A side of a frame."""
    return chosen(3, value - 18688, 30) if value >= 18688 else chosen(2, value - 2304, 14)


def hidden_frame(side: int, sections: int) -> bytes:
    """The header of a frame that is only for reference, and a list of empty sections."""
    bits = "0" + number(2, 2) + "1" + number(0, 2) + "0" + "00" + number(3, 2) + "1"
    bits += size_bits(side) * 2 + number(1, 2) + "1" + "00" + "1" + "00" + "0"
    bits += "0" * (-len(bits) % 8)
    return packed(bits + chosen(0, 0, 10) * sections)


def huge_frame() -> bytes:
    """A small picture behind a reference frame of 25,000 × 25,000 pixels."""
    groups = (-(-25_000 // 1024)) ** 2
    coarse = (-(-25_000 // 8192)) ** 2
    return packed(FIELDS.bits()) + hidden_frame(25_000, 2 + coarse + groups) + lossless(PIXELS)


def many_frames() -> bytes:
    """Frames that are not shown, without end."""
    return packed(FIELDS.bits()) + hidden_frame(2304, 2 + 1 + 9) * 100_000


def profile_of(size: int) -> bytes:
    """A profile of so many zeros: one distribution of one symbol, which takes no bits."""
    counts = "1" + "0" + "0"  # one symbol, which is 0
    coding = "0" + "1" + "00" + "0" + "00" + "000" + counts + number(0x130000, 32)
    fields = replace(FIELDS, space="01" + enum(0), profile=long_number(size) + coding)
    return coded(fields, lossless(PIXELS))


def brotli_bomb() -> bytes:
    """Compressed EXIF of 1 GB."""
    one = bytes(imagecodecs.brotli_encode(bytes(100 << 20), level=5))
    return boxed(WHOLE, box(b"brob", b"Exif" + one))


def flat(side: int, **options: object) -> bytes:
    """A picture of one colour."""
    pixels = np.zeros((side, side), np.uint8)
    return bytes(imagecodecs.jpegxl_encode(pixels, lossless=True, effort=1, **options))


def many_channels() -> bytes:
    """4096 opacities of a large picture."""
    fields = replace(FIELDS, size=(12_000, 12_000), space="1")
    bits = fields.bits()
    one = "0" + fields.depth + "0"
    place = bits.index(one) + len(one)
    return packed(bits[:place] + chosen(3, 4095, 12) + "1" * 4096 + bits[place + 2 :]) + bytes(99)


def named_channels() -> bytes:
    """Channels with long names."""
    name = chosen(3, 1000, 10) + "1" * 8 * 1048
    one = "0" + enum(1) + integers(8) + chosen(0) + name
    return coded(replace(FIELDS, extra=(one,) * 17), bytes(99))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "2^30 × 2^30": (lambda: coded(replace(FIELDS, size=(1 << 30, 1 << 30)), b""), "the limits are"),
    "a long side": (lambda: coded(replace(FIELDS, size=(40_000, 1)), b""), "the limits are"),
    "too many pixels": (
        lambda: coded(replace(FIELDS, size=(20_000, 20_000)), b""),
        "the limits are",
    ),
    "a flat picture over the limits": (lambda: flat(13_000), "the limits are"),
    "4096 channels": (many_channels, "takes about|damaged"),
    "channels with long names": (named_channels, "damaged"),
    "a huge frame that is not shown": (huge_frame, "takes about"),
    "frames that are not shown": (many_frames, "more than 2000 frames before the first"),
    "a profile of 2 MiB": (lambda: profile_of(2 << 20), "damaged.*colour profile"),
    "an extension of 2^63 bits": (
        lambda: packed(FIELDS.bits()[:-3] + long_number(1) + long_number(1 << 63)),
        "damaged",
    ),
    "a million boxes": (lambda: START + box(b"free", b"") * 1_000_000, "no JPEG XL codestream"),
    "a million parts": (
        lambda: START + b"".join(box(b"jxlp", struct.pack(">I", i)) for i in range(1_000_000)),
        "damaged",
    ),
    "a box of 2^63 bytes": (
        lambda: START + struct.pack(">I4sQ", 1, b"jxlc", 1 << 63) + WHOLE[:9],
        "damaged",
    ),
}

MEASURE = """
import json, resource, sys
import imagecodecs, numpy, PIL.ImageCms
from nst_daemon.errors import NstError
from nst_daemon.pictures.decode import decode_file
import nst_daemon.pictures.readers.jxl

decode_file(sys.argv[1])
rows = {}
for path in sys.argv[2:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode_file(path)
        error = ""
    except NstError as problem:
        error = str(problem)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    rows[path] = (error, grown << 10)
print(json.dumps(rows))
"""


def measured(folder: Path, files: dict[str, bytes]) -> dict[str, tuple[str, int]]:
    """The error and the growth of the memory for each file, in another process."""
    paths = [folder / f"{i}.jxl" for i in range(len(files))]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    (folder / "small").write_bytes(WHOLE)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, folder / "small", *paths],
        check=True, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30)),
    )  # fmt: skip
    return dict(zip(files, json.loads(done.stdout).values(), strict=True))


@pytest.mark.timeout(60)
def test_bombs_are_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    """Each is refused with its cause, with at most 100 MB beside three copies of the file, all within a minute."""
    files = {name: make() for name, (make, _) in BOMBS.items()}
    for name, (error, grown) in measured(tmp_path, files).items():
        assert error, name
        assert re.search(BOMBS[name][1], error), f"{name}: {error}"
        assert grown < 100e6 + 3 * len(files[name]), f"{name}: {grown / 1e6:.0f} MB"


def test_files_that_decompress_to_much_stay_within_the_estimate(tmp_path: Path) -> None:
    """Compressed EXIF of 100 MB is ignored, and only the first of many frames is decoded."""
    animation = np.broadcast_to(PIXELS, (400, *PIXELS.shape))
    files = {
        "brotli": brotli_bomb(),
        "animation": bytes(imagecodecs.jpegxl_encode(animation, lossless=True, effort=1)),
    }
    for name, (error, grown) in measured(tmp_path, files).items():
        assert error == "", name
        assert grown < 60e6, f"{name}: {grown / 1e6:.0f} MB"


def test_any_damage_is_an_error_of_ours(tmp_path: Path) -> None:
    """Files cut off anywhere, and with any byte changed, are decoded or refused; no other exception, no crash."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A. Painter"
    smooth = frames_of(PIXELS[..., 0], distance=1.0, lossless=False)
    wholes = [
        WHOLE,
        encode_jxl(PIXELS, 80, exif),
        profile_of(300),
        coded(Fields(xyb=True, space="00" + enum(1) + enum(1) + "0" + enum(8) + enum(1)), smooth),
    ]
    path = tmp_path / "file"
    random = np.random.default_rng(0)
    for whole in wholes:
        cuts = [whole[:n] for n in range(0, len(whole), max(1, len(whole) // 60))]
        for _ in range(150):
            changed = bytearray(whole)
            changed[int(random.integers(min(len(whole), 120)))] = int(random.integers(256))
            cuts.append(bytes(changed))
        for data in cuts:
            path.write_bytes(data)
            with suppress(NstError):
                decode_file(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_damaged(share: float, tmp_path: Path) -> None:
    """A part of a file is called damaged or truncated, which is retried when the file changes."""
    for whole in (WHOLE, boxed(WHOLE), encode_jxl(PIXELS, 90, Image.Exif())):
        (tmp_path / "file").write_bytes(whole[: int(share * len(whole)) or 3])
        with pytest.raises(DamagedPicture):
            decode_file(tmp_path / "file")
