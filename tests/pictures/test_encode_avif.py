"""Writing AVIF with 8 and 10 bits, with a profile, EXIF and alpha."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image

from nst_daemon.pictures.decode import decode_file
from nst_daemon.pictures.encode_avif import encode_avif
from nst_daemon.pictures.icc import srgb_profile
from nst_daemon.pictures.raster import Array


def slopes(channels: int, dtype: type, height: int = 48, width: int = 64) -> Array:
    """(H, W, channels): smooth slopes over the whole range of the dtype."""
    y, x = np.mgrid[0:height, 0:width] / (height, width)[0]
    values = np.stack([x / 2, y, (x + y) / 4, 0.25 + y / 2], -1)[..., :channels].clip(0, 1)
    return (values * np.iinfo(dtype).max).round().astype(dtype)


def exif() -> Image.Exif:
    """With an artist."""
    found = Image.Exif()
    found[ExifTags.Base.Artist] = "Ada"
    return found


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 10)])
def test_a_picture_comes_back_with_its_metadata(
    channels: int, dtype: type, bits: int, tmp_path: Path
) -> None:
    """Pixels come back within 3 % of the range at quality 95; profile, EXIF and depth are in the file."""
    pixels = slopes(channels, dtype)
    data = encode_avif(pixels, 95, srgb_profile(), exif())
    (tmp_path / "a.avif").write_bytes(data)
    found = decode_file(tmp_path / "a.avif")
    top = np.iinfo(dtype).max
    assert np.abs(found.colours - pixels[..., :3] / top).max() < 0.03
    assert (found.alpha is not None) == (channels == 4)
    if found.alpha is not None:
        assert np.abs(found.alpha[..., 0] - pixels[..., 3] / top).max() < 0.03
    assert found.metadata["artist"] == "Ada"
    opened = Image.open(io.BytesIO(data))
    assert opened.info["icc_profile"] == srgb_profile()
    assert opened.info["exif"].endswith(exif().tobytes().removeprefix(b"Exif\0\0"))
    assert b"av1C\x81" + bytes([0x20, 0x40 if bits == 10 else 0]) in data
    assert data.count(b"pixi\0\0\0\0\x03" + bytes([bits] * 3)) == 1


def test_sixteen_bits_become_ten() -> None:
    """At quality 100, a 16-bit slope within one 8-bit step is still a slope."""
    values = np.linspace(32_768, 32_768 + 257, 64).round().astype(np.uint16)
    pixels = np.broadcast_to(values[None, :, None], (48, 64, 3))
    found = imagecodecs.avif_decode(encode_avif(pixels, 100, srgb_profile(), exif()))
    assert set(np.unique(found[..., 1])) >= {512, 513, 514, 515}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_same_pixels_are_the_same_bytes(dtype: type) -> None:
    """Encoding twice gives equal bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 500, 3)).astype(dtype)
    files = {encode_avif(pixels, 80, srgb_profile(), exif()) for _ in range(3)}
    assert len(files) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_quality_trades_size(dtype: type) -> None:
    """A lower quality makes a smaller file, from 1 to 100."""
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (64, 64, 3)).astype(dtype)
    sizes = [len(encode_avif(pixels, q, srgb_profile(), exif())) for q in (1, 50, 90, 100)]
    assert sizes == sorted(set(sizes))
