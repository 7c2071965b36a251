"""Files of results, as other programs read them: pixels, metadata and equal bytes."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from nst_daemon.pictures.decode import decode_file
from nst_daemon.pictures.encode import encode_picture, encode_tiff
from nst_daemon.pictures.icc import srgb_profile
from nst_daemon.pictures.metadata import MAX_TEXT
from nst_daemon.pictures.output_formats import OUTPUT_FORMATS, output_format
from nst_daemon.pictures.raster import Array

METADATA = {
    "datetime": "2021:01:01 10:00:00",
    "artist": "Zoë",
    "copyright": "© Ada",
    "datetime_original": "2020:02:29 12:00:00",
}
ABOUT = '{"settings": {}}'
KINDS = [(known.name, depth) for known in OUTPUT_FORMATS for depth in known.depths]


def slopes(dtype: type, channels: int = 3, height: int = 48, width: int = 64) -> Array:
    """(H, W, channels): smooth slopes over the whole range of the dtype."""
    y, x = np.mgrid[0:height, 0:width] / (height, width)[0]
    values = np.stack([x / 2, y, (x + y) / 4, 0.25 + y / 2], -1)[..., :channels].clip(0, 1)
    return (values * np.iinfo(dtype).max).round().astype(dtype)


def written(name: str, depth: int, channels: int = 3) -> bytes:
    """A file of slopes with everything."""
    pixels = slopes(np.uint8 if depth == 8 else np.uint16, channels)
    return bytes(encode_picture(pixels, name, quality=95, metadata=METADATA, about=ABOUT))


def exif_of(data: bytes, name: str) -> bytes:
    """The EXIF of a file, from its TIFF header on, by a reader of another project than the writer."""
    if name == "jxl":  # ISO/IEC 18181-2: a box with the offset of the TIFF header before it
        start = data.index(b"Exif")
        length = int.from_bytes(data[start - 4 : start], "big")
        return data[start + 8 : start - 4 + length]
    if name == "avif":
        heif = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        return bytes(heif.info["exif"]).removeprefix(b"Exif\0\0")
    with Image.open(io.BytesIO(data)) as image:
        return bytes(image.info["exif"]).removeprefix(b"Exif\0\0")


@pytest.mark.parametrize(("name", "depth"), KINDS)
def test_metadata_is_kept_and_the_location_is_not(name: str, depth: int) -> None:
    """Dates, artist, copyright and the essentials are in the EXIF of each format, and there is no GPS directory."""
    data = written(name, depth)
    if name == "tiff":
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            tags = file.pages[0].tags  # type: ignore[union-attr]
            assert tags["DateTime"].value == METADATA["datetime"]
            assert tags["Copyright"].value == METADATA["copyright"]
            sub = tags["ExifTag"].value
            assert sub["DateTimeOriginal"] == METADATA["datetime_original"]
            assert sub["UserComment"] == ABOUT
            assert "GPSTag" not in tags
        return
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + exif_of(data, name))
    found = {
        tag: str(exif[tag]).encode("latin-1").decode() for tag in exif if tag != ExifTags.IFD.Exif
    }
    assert found == {
        ExifTags.Base.DateTime: METADATA["datetime"],
        ExifTags.Base.Artist: METADATA["artist"],
        ExifTags.Base.Copyright: METADATA["copyright"],
    }
    sub = exif.get_ifd(ExifTags.IFD.Exif)
    assert sub.pop(ExifTags.Base.DateTimeOriginal) == METADATA["datetime_original"]
    if name == "png":  # it has a text chunk instead
        assert Image.open(io.BytesIO(data)).info["nst-daemon"] == ABOUT
    else:
        assert sub.pop(ExifTags.Base.UserComment) == b"ASCII\0\0\0" + ABOUT.encode()
    assert not sub


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("name", "depth"), [k for k in KINDS if k[0] in {"png", "tiff"}])
def test_other_programs_read_every_bit(name: str, depth: int, channels: int) -> None:
    """PNG and TIFF hold exactly the pixels; libpng, tifffile and Pillow read them."""
    pixels = slopes(np.uint8 if depth == 8 else np.uint16, channels)
    data = bytes(encode_picture(pixels, name, quality=1, metadata=METADATA, about=ABOUT))
    read = imagecodecs.png_decode(data) if name == "png" else tifffile.imread(io.BytesIO(data))
    assert read.dtype == pixels.dtype
    assert np.array_equal(read, pixels)
    with Image.open(io.BytesIO(data)) as image:
        assert ImageCms.getOpenProfile(io.BytesIO(image.info["icc_profile"]))
        if depth == 8:
            assert np.array_equal(np.asarray(image), pixels)
        assert image.mode == ("RGBA" if channels == 4 else "RGB")


@pytest.mark.parametrize(("name", "depth"), KINDS)
def test_equal_pictures_are_equal_bytes(name: str, depth: int) -> None:
    """Writing the same pixels twice gives the same file."""
    assert written(name, depth) == written(name, depth)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_is_compressed_in_strips(dtype: type) -> None:
    """A smooth picture takes less than half of its pixels, in strips of about 1 MiB, with the last one shorter."""
    pixels = slopes(dtype, 3, height=1001, width=700)
    data = bytes(encode_picture(pixels, "tiff", quality=1, metadata={}))
    assert len(data) < pixels.nbytes / 2
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert len(page.dataoffsets) == -(-1001 // page.rowsperstrip) > 1
        assert page.rowsperstrip * 700 * 3 * pixels.itemsize <= 1 << 20
        assert np.array_equal(page.asarray(), pixels)


@pytest.mark.parametrize("height", [5, 3000])
def test_a_tiff_beyond_four_gigabytes_is_a_big_tiff(height: int, tmp_path: Path) -> None:
    """Past the limit of the classic form the file is a BigTIFF with the same pixels, metadata and profile."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ada"
    sub = exif.get_ifd(ExifTags.IFD.Exif)
    sub[ExifTags.Base.DateTimeOriginal] = METADATA["datetime_original"]
    exif[ExifTags.IFD.Exif] = sub
    pixels = slopes(np.uint16, 4, height=height, width=300)
    data = bytes(encode_tiff(pixels, srgb_profile(), exif, classic_bytes=10))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.is_bigtiff
        assert np.array_equal(file.asarray(), pixels)
        tags = file.pages[0].tags  # type: ignore[union-attr]
        assert tags["Artist"].value == "Ada"
        assert tags["ExifTag"].value["DateTimeOriginal"] == METADATA["datetime_original"]
        assert tags["InterColorProfile"].value == srgb_profile()
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal]


@pytest.mark.parametrize(("name", "depth"), KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 1), (17, 33)])
def test_any_size_is_written(name: str, depth: int, size: tuple[int, int]) -> None:
    """A single pixel, a row, a column and odd sides are written in every format, at any quality, and read back."""
    dtype = np.uint8 if depth == 8 else np.uint16
    for channels in (3, 4) if output_format(name).alpha else (3,):
        pixels = slopes(np.dtype(dtype).type, channels, *size)
        for quality in (1, 50, 100):
            data = encode_picture(pixels, name, quality=quality, metadata={}, about="{}")
            assert decode_file(io.BytesIO(data)).colours.shape == (*size, 3)


@pytest.mark.parametrize(("name", "depth"), KINDS)
def test_long_texts_do_not_cost_the_picture(name: str, depth: int) -> None:
    """The longest metadata that is carried, and essentials beyond the room that JPEG has, do not prevent writing."""
    texts = dict.fromkeys(METADATA, "é" * MAX_TEXT)
    pixels = slopes(np.uint8 if depth == 8 else np.uint16)
    for about in ("x" * 50_000, "x" * 100_000):
        data = encode_picture(pixels, name, quality=90, metadata=texts, about=about)
        assert decode_file(io.BytesIO(data)).metadata["artist"] == texts["artist"]
