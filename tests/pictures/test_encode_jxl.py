"""What JPEG XL files that are written contain."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from nst_daemon.pictures.encode_jxl import encode_jxl
from nst_daemon.pictures.jxl.boxes import find_boxes, read_codestream
from nst_daemon.pictures.jxl.header import ALPHA, Depth, Encoding, ExtraChannel, Header, read_header

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def picture(dtype: type[np.unsignedinteger], channels: int) -> Pixels:
    """(33, 47, channels) of smooth colours, with all bits in use."""
    y, x = np.mgrid[0:33, 0:47]
    values = np.stack([x / 46, y / 32, (x + y) / 78, 1 - x / 50], -1)[..., :channels]
    return np.round(values * np.iinfo(dtype).max).astype(dtype)


def header_of(file: bytes) -> Header:
    """The header of its codestream."""
    return read_header(read_codestream(io.BytesIO(file), find_boxes(io.BytesIO(file))))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_quality_100_loses_nothing_and_is_srgb(
    dtype: type[np.unsignedinteger], channels: int
) -> None:
    """Quality 100 keeps every bit and the header says sRGB, the depth and straight alpha."""
    pixels = picture(dtype, channels)
    file = encode_jxl(pixels, 100, Image.Exif())
    assert (imagecodecs.jpegxl_decode(file, index=0) == pixels).all()
    depth = Depth(8 * pixels.itemsize)
    header = header_of(file)
    assert (header.size, header.depth, header.encoding) == ((33, 47), depth, Encoding())
    assert header.extra == ((ExtraChannel(ALPHA, depth),) if channels == 4 else ())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_lower_quality_is_close_smaller_and_srgb(
    dtype: type[np.unsignedinteger], channels: int
) -> None:
    """Below 100, colours are those of sRGB within the loss, and worse quality makes smaller files."""
    pixels = picture(dtype, channels)
    most = np.iinfo(dtype).max
    files = [encode_jxl(pixels, quality, Image.Exif()) for quality in (95, 60)]
    assert len(files[0]) > len(files[1])
    for file in files:
        found = np.asarray(imagecodecs.jpegxl_decode(file, index=0)).astype(np.float64)
        assert found.shape == pixels.shape
        assert np.abs(found - pixels).mean() < 0.01 * most
        header = header_of(file)
        assert (header.xyb, header.depth.bits) == (True, 8 * pixels.itemsize)
        assert header.encoding == Encoding()


def test_dark_colours_of_16_bits_are_not_reduced() -> None:
    """Lossy compression from 16 bits keeps dark colours that 8 bits cannot tell apart."""
    ramp = np.repeat(np.linspace(0, 1285, 64).astype(np.uint16)[None, :, None], 64, 0).repeat(3, 2)
    found = np.asarray(imagecodecs.jpegxl_decode(encode_jxl(ramp, 99, Image.Exif()), index=0))
    assert np.abs(found.astype(np.float64) - ramp).mean() < 64


def test_exif_is_in_a_box_before_the_codestream() -> None:
    """The box has the offset 0 and a TIFF header, and comes first, so that a reader need not seek."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A. Painter"
    file = encode_jxl(picture(np.uint8, 3), 90, exif)
    boxes = find_boxes(io.BytesIO(file))
    ((kind, start, length),) = boxes.metadata
    assert (kind, file[start : start + 4]) == (b"Exif", bytes(4))
    assert start < boxes.codestream[0][0]
    found = Image.Exif()
    found.load(file[start + 4 : start + length])
    assert found[ExifTags.Base.Artist] == "A. Painter"


def test_no_exif_makes_no_box() -> None:
    """A file without metadata has no empty box."""
    file = encode_jxl(picture(np.uint8, 3), 90, Image.Exif())
    assert find_boxes(io.BytesIO(file)).metadata == ()
