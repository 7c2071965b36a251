"""Masks in every kind of file: each region keeps one colour, and stays where it was drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from nst_daemon.engine.images import load_picture
from nst_daemon.engine.masks import Regions, regions
from nst_daemon.errors import PictureError

#: The left third and the rest.
SIZE = (64, 96)
LEFT = np.zeros(SIZE, bool)
LEFT[:, :32] = True


def painted(left: object, right: object, dtype: object = np.uint8) -> NDArray[np.generic]:
    """Two flat colours."""
    return np.where(LEFT[..., None], left, right).astype(dtype)  # type: ignore[arg-type]


def rgb(left: object = (255, 0, 0), right: object = (0, 0, 255)) -> Image.Image:
    """Two flat colours as an image."""
    return Image.fromarray(painted(left, right))


def grey(dtype: object = np.uint8, white: int = 255) -> NDArray[np.generic]:
    """White on the left, black on the right."""
    return painted([white], [0], dtype)[..., 0]


def turned(path: Path) -> None:
    """A picture that is stored lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb().transpose(Image.Transpose.ROTATE_90).save(path, "PNG", exif=exif)


def profile(gamma: float, path: Path) -> None:
    """A picture with a profile other than sRGB."""
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = bytearray(xyz)
    at = data.index(b"para") if b"para" in data else data.index(b"curv")
    data[at + 12 : at + 16] = round(gamma * 65536).to_bytes(4, "big")
    rgb((200, 90, 30), (60, 80, 220)).save(path, "TIFF", icc_profile=bytes(data))


def transparent(path: Path) -> None:
    """A white region on a transparent background with hidden colours."""
    pixels = np.dstack([painted([255] * 3, [90, 200, 10]), grey()])
    Image.fromarray(pixels).save(path, "PNG")


KINDS: dict[str, Callable[[Path], object]] = {
    "palette PNG": lambda p: rgb().quantize(2).save(p, "PNG", bits=1),
    "palette GIF": lambda p: rgb().quantize(2).save(p, "GIF"),
    "palette TIFF": lambda p: rgb().quantize(2).save(p, "TIFF"),
    "palette with a transparent colour": lambda p: (
        rgb((255, 255, 255), (0, 0, 0)).quantize(2).save(p, "PNG", transparency=1)
    ),
    "1 bit PNG": lambda p: Image.fromarray(grey()).convert("1").save(p, "PNG"),
    "1 bit TIFF": lambda p: (
        Image.fromarray(grey()).convert("1").save(p, "TIFF", compression="group4")
    ),
    "grey PNG": lambda p: Image.fromarray(grey()).save(p, "PNG"),
    "grey with alpha": lambda p: Image.fromarray(grey()).convert("LA").save(p, "PNG"),
    "grey JPEG": lambda p: Image.fromarray(grey()).save(p, "JPEG", quality=75),
    "16 bit grey PNG": lambda p: Image.fromarray(grey(np.uint16, 65535)).save(p, "PNG"),
    "16 bit TIFF": lambda p: tifffile.imwrite(
        p, painted([65535, 0, 0], [0, 0, 65535], np.uint16), photometric="rgb"
    ),
    "float TIFF": lambda p: tifffile.imwrite(p, grey(np.float32, 1), photometric="minisblack"),
    "CMYK TIFF": lambda p: rgb().convert("CMYK").save(p, "TIFF"),
    "CMYK JPEG": lambda p: rgb().convert("CMYK").save(p, "JPEG", quality=80),
    "colour profile": lambda p: profile(1.8, p),
    "JPEG with reduced chroma": lambda p: rgb().save(p, "JPEG", quality=60, subsampling=2),
    "lossy WebP": lambda p: rgb().save(p, "WEBP", quality=70),
    "BMP": lambda p: rgb().save(p, "BMP"),
    "turned": turned,
    "transparent background": transparent,
}


def read(path: Path, used: float | None = None) -> Regions:
    """The regions where a file is the mask of the content and of a style."""
    mask = load_picture(path, used=(lambda _: used) if used else None, exact=True)
    return regions(mask, [mask], mask.size, [mask.size])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_mask_has_its_two_regions(kind: str, tmp_path: Path) -> None:
    """The left third is one region and the rest another one, with nothing between them but the edge."""
    KINDS[kind](tmp_path / "mask")
    found = read(tmp_path / "mask")
    assert found.count == 2
    assert found.content is not None
    larger, smaller = found.content(SIZE)[0]
    assert smaller[:, :24].min() > 0.9 and smaller[:, 40:].max() < 0.1
    assert larger[:, :24].max() < 0.1 and larger[:, 40:].min() > 0.9


def test_a_black_drawing_on_a_transparent_background_is_refused(tmp_path: Path) -> None:
    """Transparent parts count as black, so a mask that is black elsewhere has no regions; the message says so."""
    Image.fromarray(np.dstack([painted([0] * 3, [0] * 3), grey()])).save(tmp_path / "m.png")
    with pytest.raises(PictureError, match=r"mask of the content is black .* fill the transparent"):
        read(tmp_path / "m.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_large_mask_is_reduced_without_new_colours(kind: str, tmp_path: Path) -> None:
    """A mask of 6 megapixels is decoded to fewer pixels in its colours alone, with the regions of the whole mask."""
    stripes = np.zeros((2000, 3000, 3), np.uint8)
    stripes[:, 1000:] = (0, 255, 0)
    stripes[900:, 2000:] = (255, 0, 255)
    Image.fromarray(stripes).save(tmp_path / "m", kind, quality=95, lossless=True)
    mask = load_picture(tmp_path / "m", used=lambda _: 512, exact=True)
    assert (tuple(mask.rgb.shape), mask.size) == ((3, 683, 1024), (2000, 3000))
    if kind != "JPEG":  # its colours are not exact at edges
        assert len(mask.rgb.flatten(1).unique(dim=1).T) == 3
    small, whole = read(tmp_path / "m", 512), read(tmp_path / "m")
    assert small.content is not None and whole.content is not None
    difference = (small.content((400, 600)) - whole.content((400, 600))).abs()
    assert small.count == whole.count == 3
    assert torch.quantile(difference, 0.99) < 0.02


def test_a_reduced_mask_of_other_proportions_is_refused_with_its_own_size(tmp_path: Path) -> None:
    """The message has the size of the file, not that of the reduced mask."""
    Image.new("RGB", (3000, 2000), "red").save(tmp_path / "m.png")
    mask = load_picture(tmp_path / "m.png", used=lambda _: 512, exact=True)
    with pytest.raises(PictureError, match="is 3000 × 2000 pixels, but its picture is 300 × 100"):
        regions(mask, [mask], (100, 300), [(2000, 3000)])
