"""What JPEG XL files carry beside pixels, and how their codestreams are walked."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image

from nst_daemon.pictures.decode import decode_file
from nst_daemon.pictures.jxl.frames import walk
from nst_daemon.pictures.jxl.header import Bits, frames_offset, read_header
from nst_daemon.pictures.jxl.icc import MAX_ENCODED, UnreadableProfile, read_profile
from tests.pictures.corpus.jxl import file, plain
from tests.pictures.jxl_writer import box, boxed, long_number, packed, stored_profile

FIELDS, PIXELS = plain(3)
WHOLE = file(FIELDS, PIXELS)


def exif_of(artist: str) -> bytes:
    """The contents of a box, with an orientation that does not count."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = artist
    exif[ExifTags.Base.Orientation] = 6
    return bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_exif_is_carried_without_its_orientation(
    tmp_path: Path, *, compressed: bool, last: bool
) -> None:
    """EXIF before or after the codestream, plain or compressed, gives the artist and turns nothing."""
    data = exif_of("A. Painter")
    one = box(b"Exif", data)
    if compressed:
        one = box(b"brob", b"Exif" + bytes(imagecodecs.brotli_encode(data)))
    path = tmp_path / "a.jxl"
    path.write_bytes(boxed(WHOLE) + one if last else boxed(WHOLE, one))
    found = decode_file(path)
    assert found.metadata == {"artist": "A. Painter"}
    assert found.colours.shape[:2] == PIXELS.shape[:2]


def test_exif_without_its_offset_is_read(tmp_path: Path) -> None:
    """Some writers begin the box with the TIFF header."""
    path = tmp_path / "a.jxl"
    path.write_bytes(boxed(WHOLE, box(b"Exif", exif_of("A. Painter")[4:])))
    assert decode_file(path).metadata == {"artist": "A. Painter"}


def test_a_profile_over_the_limit_is_noticed_before_it_is_decoded() -> None:
    """Its length alone is enough; the largest that is read is far above those of printers."""
    with pytest.raises(UnreadableProfile):
        read_profile(Bits(packed(long_number(MAX_ENCODED + 1))))


def test_profiles_without_compression_are_read_byte_by_byte() -> None:
    """A profile in a prefix code is the same bytes afterwards."""
    profile = bytearray(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8).tobytes())
    profile[:4], profile[40] = (5000).to_bytes(4, "big"), 0
    assert read_profile(Bits(packed(stored_profile(bytes(profile))))) == profile


@pytest.mark.parametrize("count", [1, 2, 7])
def test_frames_are_counted_without_decoding(count: int) -> None:
    """The walk finds each frame and the end of the last one; a cut before it is noticed."""
    stack = np.stack([np.roll(PIXELS, i, 0) for i in range(count)])
    data = bytes(imagecodecs.jpegxl_encode(stack if count > 1 else PIXELS, lossless=True))
    header = read_header(data)
    found = walk(data, header, frames_offset(header))
    assert (found.shown, found.frames[-1].end, found.whole) == (count, len(data), True)
    cut = walk(data[:-1], header, frames_offset(header))
    assert (cut.whole, cut.cut_off, cut.shown) == (False, True, 0)
