"""Thumbnails of every kind of picture."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms

from nst_daemon.errors import PictureError
from nst_daemon.pictures.decode import DEFAULT_LIMITS
from nst_daemon.report.contact_sheet import Label, grid
from nst_daemon.report.thumbnails import ResultLimits, load, reduced

#: Left half red, right half blue.
HALVES = np.zeros((60, 90, 3), np.uint8)
HALVES[:, :45, 0] = HALVES[:, 45:, 2] = 255


def heic(path: Path) -> None:
    """An HEIC file."""
    pillow_heif.from_pillow(Image.fromarray(HALVES)).save(path, quality=95)


def deep_tiff(path: Path) -> None:
    """A TIFF with 16 bits per channel."""
    tifffile.imwrite(path, HALVES.astype(np.uint16) * 257, photometric="rgb", compression="zlib")


def turned_jpeg(path: Path) -> None:
    """A JPEG that is stored lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(HALVES)).save(path, "JPEG", quality=95, exif=exif)


def cmyk_jpeg(path: Path) -> None:
    """A CMYK JPEG without a profile."""
    Image.fromarray(HALVES).convert("CMYK").save(path, "JPEG", quality=95)


def palette_gif(path: Path) -> None:
    """A GIF."""
    Image.fromarray(HALVES).save(path, "GIF")


@pytest.mark.parametrize("write", [heic, deep_tiff, turned_jpeg, cmyk_jpeg, palette_gif])
def test_every_kind_of_picture_has_a_thumbnail(write: object, tmp_path: Path) -> None:
    """The thumbnail is a WebP of the right size, upright, with the picture's colours."""
    write(tmp_path / "dog")  # type: ignore[operator]
    with Image.open(io.BytesIO(reduced(tmp_path / "dog", 45))) as image:
        assert (image.format, image.size, "icc_profile" in image.info) == ("WEBP", (45, 30), False)
        shown = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(shown[:, 5] - [255, 0, 0]).max() < 40
    assert np.abs(shown[:, -5] - [0, 0, 255]).max() < 40


def test_colours_are_converted_from_the_profile(tmp_path: Path) -> None:
    """The L*a*b* colours of a TIFF are shown in sRGB."""
    lab = ImageCms.applyTransform(
        Image.new("RGB", (40, 40), (200, 60, 30)),
        ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        ),
    )
    assert lab
    lab.save(tmp_path / "lab.tif")
    assert np.abs(np.asarray(load(tmp_path / "lab.tif", 20)) - [200, 60, 30]).max() < 5


def test_transparency_is_kept_without_hidden_colours(tmp_path: Path) -> None:
    """A reduced edge between red and transparent pixels has no trace of the hidden green."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 1] = 255
    pixels[:, :31] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    small = np.asarray(load(tmp_path / "a.png", 16))
    assert small.shape == (16, 16, 4)
    visible = small[small[..., 3] > 0]
    assert set(small[..., 3][0]) >= {0, 255}
    assert visible[:, 1].max() <= 2


def test_a_descriptor_and_an_open_file_are_read(tmp_path: Path) -> None:
    """The thumbnail is the same from a path, a descriptor and an open file."""
    palette_gif(tmp_path / "a")
    descriptor = os.open(tmp_path / "a", os.O_RDONLY)
    made = {
        reduced(source, 20) for source in (tmp_path / "a", descriptor, (tmp_path / "a").open("rb"))
    }
    os.close(descriptor)
    assert len(made) == 1


def test_the_limits_count(tmp_path: Path) -> None:
    """A picture beyond limits.max_pixels has no thumbnail; a result may have any format."""
    heic(tmp_path / "a")
    with pytest.raises(PictureError, match="limits are 100 pixels"):
        load(tmp_path / "a", 20, ResultLimits(1 << 20, 100, 30_000))
    with pytest.raises(PictureError, match=r"limits\.formats does not list heif"):
        load(tmp_path / "a", 20, ResultLimits(1 << 20, 10_000, 30_000, ("jpeg",)))
    assert load(tmp_path / "a", 20, ResultLimits.of(DEFAULT_LIMITS)).size == (20, 13)


def test_sheets_show_every_kind_on_white(tmp_path: Path) -> None:
    """A cell with a 16-bit picture has its colours; one with a damaged file is grey."""
    deep_tiff(tmp_path / "a.tif")
    (tmp_path / "b.png").write_bytes(b"no picture")
    cells = {(0, 0): tmp_path / "a.tif", (0, 1): tmp_path / "b.png"}
    sheet = np.asarray(grid(cells, [[Label("a")]], [[Label("b")], [Label("c")]], side=96)).astype(
        int
    )
    assert (np.abs(sheet - [255, 0, 0]).max(-1) < 10).any()
    assert (sheet == [211, 211, 211]).all(-1).any()


def test_a_large_jpeg_takes_little_memory(tmp_path: Path) -> None:
    """A thumbnail of a JPEG with 24 megapixels takes less than a byte for each of its pixels."""
    pixels = np.zeros((4000, 6000), np.uint8)
    pixels[::7] = 200
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "a.jpg")
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from nst_daemon.report.thumbnails import load\n"
        "load(Path(sys.argv[2]), 360)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load(Path(sys.argv[1]), 360)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    Image.fromarray(pixels[:50, :50]).convert("RGB").save(tmp_path / "b.jpg")
    command = [sys.executable, "-c", code, str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < pixels.size
