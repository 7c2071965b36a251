"""Image files of every kind give the expected pixels."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin
from torch import Tensor

from nst_daemon.config import Limits, Outputs
from nst_daemon.engine.images import (
    Picture,
    from_image,
    resize,
    solid,
    to_image,
)
from nst_daemon.errors import PictureError, SettingsError, StorageError
from nst_daemon.painter import decode, save
from nst_daemon.pictures.formats import HEAD_BYTES, detect
from tests.corpus import STRIP, chunk
from tests.corpus import tiff as corpus_tiff
from tests.pictures.kinds import (
    KINDS,
    NARROW,
    PAGE,
    WIDE,
    Kind,
    icc,
    pillow,
    png,
    tiff,
    turned,
    unit,
    wide_profile,
    with_table,
)

Maker = Callable[..., bytes]


def raw_profile(text: str) -> PngImagePlugin.PngInfo:
    """EXIF in a text chunk, as ImageMagick writes it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", text)
    return info


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kinds(kind: Kind, tmp_path: Path) -> None:
    """A file of each kind becomes its known pixels and opacities, and what was converted is noted."""
    path = tmp_path / "picture"
    path.write_bytes(kind.make())
    picture = decode(path)
    rgb = picture.rgb.permute(1, 2, 0).double().numpy()
    assert rgb.shape == kind.rgb.shape
    visible = np.ones(rgb.shape[:2], bool) if kind.alpha is None else kind.alpha >= 1 / 16
    np.testing.assert_allclose(rgb[visible], kind.rgb[visible], rtol=0, atol=kind.tolerance)
    if kind.alpha is None:
        assert picture.alpha is None
    else:
        assert picture.alpha is not None
        np.testing.assert_allclose(picture.alpha[0], kind.alpha, rtol=0, atol=kind.tolerance)
    assert any(kind.note in note for note in picture.notes) if kind.note else not picture.notes


def test_the_page_lists_the_kinds() -> None:
    """docs/images.md holds the table that `python -m tests.pictures.kinds` writes, with every kind."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page)
    assert all(f"\n| {kind.name} | " in page for kind in KINDS)


def load(data: bytes, folder: Path, **limits: int) -> Picture:
    path = folder / "picture"
    path.write_bytes(data)
    return decode(path, Limits(**limits))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int, bits: int, tmp_path: Path) -> None:
    """A PNG of 8 or 16 bits with each of EXIF's orientations becomes what Pillow's own function makes of it."""
    pixels = NARROW if bits == 8 else WIDE
    exif = chunk(b"eXIf", turned(orientation).tobytes().removeprefix(b"Exif\0\0"))
    found = load(png(pixels, exif), tmp_path)
    image = Image.fromarray(NARROW)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    wanted = unit(np.asarray(ImageOps.exif_transpose(image)))
    assert found.alpha is not None
    np.testing.assert_allclose(found.alpha[0], wanted[..., 3], atol=1 / 255)


# Transparency


def over(rgb: Tensor, alpha: Tensor, background: float) -> Tensor:
    return rgb * alpha + (1 - alpha) * background


def disc(hidden: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """A red disc, (3, 90, 70), with a soft edge, and another colour under its transparent surroundings."""
    y, x = torch.meshgrid(torch.arange(90.0), torch.arange(70.0), indexing="ij")
    alpha = (21 - ((x - 30) ** 2 + (y - 40) ** 2).sqrt()).clamp(0, 1)[None]
    red, other = torch.tensor([0.9, 0.1, 0.05]), torch.tensor(hidden)
    rgb = torch.where(alpha > 0, red[:, None, None], other[:, None, None])
    return rgb, alpha


@pytest.mark.parametrize("hidden", [(0, 0, 0), (1, 1, 1), (0, 1, 0)])
def test_hidden_colours_are_replaced_by_visible_ones(hidden: tuple[float, float, float]) -> None:
    """A picture with one visible colour has that colour everywhere, also under its transparency."""
    rgb, alpha = disc(hidden)
    red = torch.tensor([0.9, 0.1, 0.05])[:, None, None]
    torch.testing.assert_close(solid(rgb, alpha), red.expand(3, 90, 70), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(45, 35), (31, 23), (200, 160), (7, 5), (1, 1)])
def test_resizing_leaves_no_fringe(size: tuple[int, int]) -> None:
    """Over black and over white, a resized disc is everywhere a mixture of its colour and the background alone."""
    rgb, alpha = disc((0, 1, 0))
    small, opacity = resize(solid(rgb, alpha), size), resize(alpha, size)
    red = torch.tensor([0.9, 0.1, 0.05])[:, None, None]
    for background in (0.0, 1.0):
        wanted = over(red, opacity, background)
        torch.testing.assert_close(over(small, opacity, background), wanted, rtol=0, atol=1e-5)


def test_visible_colours_stay() -> None:
    """Where opacity is 1/16 or more no colour changes by more than float32's rounding."""
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(3, 33, 47, generator=generator)
    alpha = torch.rand(1, 33, 47, generator=generator)
    filled = solid(rgb, alpha)
    kept = (alpha >= 1 / 16).expand(3, -1, -1)
    torch.testing.assert_close(filled[kept], rgb[kept], rtol=0, atol=1e-6)
    assert not torch.allclose(filled[~kept], rgb[~kept], atol=0.1)


def test_colours_that_are_hardly_visible_do_not_spread() -> None:
    """Black at an opacity of 1/255, as premultiplied files leave it round a disc, darkens nothing by over 8 %."""
    rgb, alpha = disc((0, 0, 0))
    rim = (alpha == 0) & (F.max_pool2d(alpha, 3, 1, 1) > 0)
    faint = torch.where(rim, 1 / 255, alpha)
    red = torch.tensor([0.9, 0.1, 0.05])[:, None, None]
    assert ((solid(rgb, faint) - red).abs() < 0.08).all()


def test_a_hidden_area_is_filled_from_its_surroundings() -> None:
    """Between a red and a blue side, the hidden middle goes from red to blue without any other colour."""
    rgb = torch.zeros(3, 16, 64)
    rgb[1] = 1.0  # green, hidden
    rgb[:, :, :16] = torch.tensor([1.0, 0, 0])[:, None, None]
    rgb[:, :, 48:] = torch.tensor([0, 0, 1.0])[:, None, None]
    alpha = torch.zeros(1, 16, 64)
    alpha[..., :16] = alpha[..., 48:] = 1
    filled = solid(rgb, alpha)
    assert filled[1].max() < 1e-6
    torch.testing.assert_close(filled.sum(0), torch.ones(16, 64), rtol=0, atol=1e-5)
    assert filled[0, 8, 20] > 0.7
    assert filled[2, 8, 43] > 0.7


def test_the_engine_never_sees_hidden_colours(tmp_path: Path) -> None:
    """A decoded file, and a drawing in memory, hold no hidden colour."""
    rgb, alpha = disc((0, 1, 0))
    pixels = to_image(torch.cat([rgb, alpha]))
    for picture in (load(pillow(pixels, "PNG"), tmp_path), from_image(pixels)):
        assert picture.rgb[1].max() < 0.12


def test_what_is_transparent_everywhere_is_refused(tmp_path: Path) -> None:
    """A fully transparent picture is refused, with a remedy."""
    with pytest.raises(PictureError, match="fully transparent; use a picture"):
        load(png(np.zeros((4, 4, 4), np.uint8)), tmp_path)


# Sizes


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5), (2, 400)])
def test_any_size_can_be_resized_to_any(size: tuple[int, int]) -> None:
    """A flat picture stays flat between any two sizes, down to one pixel and at extreme proportions."""
    flat = torch.tensor([0.2, 0.5, 0.8])[:, None, None].expand(3, 37, 53)
    there = resize(flat, size)
    back = resize(there, (37, 53))
    assert there.shape == (3, *size)
    torch.testing.assert_close(back, flat.contiguous(), rtol=0, atol=1e-5)


def test_shrinking_is_antialiased() -> None:
    """A checkerboard of single pixels becomes grey, not a pattern, when it shrinks."""
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    board = ((x + y) % 2).float().expand(3, 128, 128)
    assert (resize(board, (30, 30))[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.02


# Limits and damage


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_limits_hold_for_every_kind(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pixel more than `max_pixels` or `max_side` allow is refused, before any decoder is called."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    height, width, _ = kind.rgb.shape
    data = kind.make()
    monkeypatch.setattr(imagecodecs, "png_decode", never)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", never)
    monkeypatch.setattr(Image.Image, "convert", never)
    monkeypatch.setattr(Image.Image, "getchannel", never)
    for limits in (
        {"max_pixels": height * width - 1},
        {"max_side": max(height, width) - 1},
    ):
        with pytest.raises(PictureError, match=r"raise limits\.max_pixels"):
            load(data, tmp_path, **limits)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_cut_file_is_refused_or_read(kind: Kind, tmp_path: Path) -> None:
    """A file of any kind cut at any of ten places is a PictureError that names it, or still gives a picture."""
    data = kind.make()
    for tenth in range(10):
        try:
            picture = load(data[: len(data) * tenth // 10], tmp_path)
        except PictureError as error:
            assert "picture" in str(error)
        else:
            assert picture.rgb.isfinite().all()


@pytest.mark.parametrize("make", [png, tiff])
def test_a_profile_that_cannot_be_read_is_ignored(make: Maker, tmp_path: Path) -> None:
    """A 16-bit file with a damaged colour profile keeps its pixels and all their bits, and has a note."""
    broken = wide_profile()[:200] + bytes(400)
    pixels = np.ascontiguousarray(WIDE[..., :3])
    data = png(pixels, icc(broken)) if make is png else tiff(pixels, iccprofile=broken)
    found = load(data, tmp_path)
    np.testing.assert_allclose(found.rgb.permute(1, 2, 0), unit(pixels), rtol=0, atol=1e-6)
    assert found.notes == (
        f"{tmp_path / 'picture'}: its colour profile cannot be read and was not used",
    )


@pytest.mark.parametrize("pack", [imagecodecs.zlib_encode, imagecodecs.lzw_encode])
def test_a_small_file_cannot_unpack_into_much(pack: Maker, tmp_path: Path) -> None:
    """A 16-bit TIFF whose strip decompresses to far more than its pixels takes little memory, cut or refused."""
    import resource

    strip = bytes(pack(bytes(20_000_000)))
    compression = 8 if pack is imagecodecs.zlib_encode else 5
    entries = STRIP | {256: (3, 1, 8), 257: (3, 1, 8), 258: (3, 1, 16), 259: (3, 1, compression)}
    entries |= {277: (3, 1, 1), 278: (4, 1, 8), 279: (4, 1, len(strip))}
    entries[273] = (4, 1, len(corpus_tiff(entries)))
    data = corpus_tiff(entries) + strip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(PictureError):
        assert not load(data, tmp_path).rgb.any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


# What is written


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_are_written_and_read_back(format: Any, channels: int, tmp_path: Path) -> None:
    """Every one of 65,536 levels survives being written with a depth of 16, and so do opacity and metadata."""
    levels = torch.arange(65_536).reshape(1, 256, 256) / 65_535
    rgb = torch.cat([levels, levels.flip(1), 1 - levels])
    alpha = (levels * 0.5 + 0.5) if channels == 4 else None
    metadata = {"artist": "Zoë", "datetime_original": "2020:02:29 12:00:00"}
    path = tmp_path / f"deep.{format}"
    save(Picture(rgb, alpha, metadata), path, Outputs(format=format, depth=16), about="{}")
    found = decode(path)
    torch.testing.assert_close(found.rgb, rgb, rtol=0, atol=1e-6)
    assert found.metadata == metadata
    if alpha is None:
        assert found.alpha is None
    else:
        torch.testing.assert_close(found.alpha, alpha, rtol=0, atol=1.01 / 65_535)
    with Image.open(path) as image:  # and other programs find what belongs to it
        assert ImageCms.getOpenProfile(io.BytesIO(image.info["icc_profile"]))
        image.load()


def test_the_suffix_decides_unless_outputs_are_given(tmp_path: Path) -> None:
    """`save(picture, NAME)` writes the format of the suffix, PNG for an unknown one, and what outputs say if given."""
    found = {}
    for name in ("a.JPG", "a.tif", "a.webp", "a.avif", "a.jxl", "a.png", "a.part"):
        save(Picture(torch.rand(3, 8, 8)), tmp_path / name)
        known = detect((tmp_path / name).read_bytes()[:HEAD_BYTES])
        found[name] = known.name if known else None
    assert list(found.values()) == ["jpeg", "tiff", "webp", "avif", "jxl", "png", "png"]
    save(Picture(torch.rand(3, 8, 8)), tmp_path / "b.jpg", Outputs(format="png"))
    assert (tmp_path / "b.jpg").read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_leaves_no_half_of_a_picture(tmp_path: Path) -> None:
    """Where writing fails, no file is left behind and the error is one of the disk."""
    code = (
        "import resource, torch\n"
        "from nst_daemon.engine.images import Picture\n"
        "from nst_daemon.errors import StorageError\n"
        "from nst_daemon.painter import save\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    save(Picture(torch.rand(3, 64, 64)), 'a.png')\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "a.png" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_opened_is_left_alone(tmp_path: Path) -> None:
    """A folder in the place of the file is an error of the disk, and stays."""
    (tmp_path / "a.png").mkdir()
    with pytest.raises(StorageError, match=r"a\.png"):
        save(Picture(torch.rand(3, 8, 8)), tmp_path / "a.png")
    assert (tmp_path / "a.png").is_dir()


def test_16_bits_of_one_pixel(tmp_path: Path) -> None:
    """The smallest picture can be written with a depth of 16."""
    pixel = torch.tensor([0.1, 0.5, 0.9])[:, None, None]
    for format in ("png", "tiff"):
        save(Picture(pixel), tmp_path / "one", Outputs(format=format, depth=16))
        torch.testing.assert_close(decode(tmp_path / "one").rgb, pixel, rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_formats_of_8_bits_refuse_16(format: Any, tmp_path: Path) -> None:
    """JPEG and WebP with a depth of 16 are refused with what to choose, and nothing is written."""
    with pytest.raises(SettingsError, match="8 bits per channel, not 16; choose png, tiff or jxl"):
        save(Picture(torch.rand(3, 4, 4)), tmp_path / "x", Outputs(format=format, depth=16))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {"exif": b"Exif\0\0garbage that is no TIFF"}),
        ("PNG", {"pnginfo": raw_profile("\nexif\n 8\nno hex digits\n")}),
        ("WEBP", {"exif": b"garbage that is no TIFF", "lossless": True}),
        ("JPEG", {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff", "quality": 95}),
    ],
)
def test_damaged_exif_is_ignored(format: str, options: dict[str, Any], tmp_path: Path) -> None:
    """A picture whose EXIF cannot be read is decoded as if it had none."""
    image = Image.new("RGB", (20, 10), (200, 100, 50))
    image.save(tmp_path / "picture", format, **options)
    found = decode(tmp_path / "picture")
    assert found.rgb.shape == (3, 10, 20)
    assert found.metadata == {}
