"""The sample pictures: the pair that the package ships, and the code that draws it and others."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from benchmarks.drawings import SCENES, STYLES, draw_painting, draw_scene
from nst_daemon import samples

ROOT = Path(__file__).parent.parent
DRAWINGS = [*SCENES, *STYLES]


@lru_cache(maxsize=64)
def draw(name: str, width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """The scene or painting of that name."""
    if name in SCENES:
        return draw_scene(width, height, seed, scene=name)
    return draw_painting(width, height, seed, style=name)


def pixels(image: Image.Image) -> npt.NDArray[np.float64]:
    """An array of the channels in [0, 1]."""
    return np.asarray(image, dtype=np.float64) / 255


def hsv(image: Image.Image) -> npt.NDArray[np.float64]:
    """Hue in degrees, saturation and value in [0, 1]: (3, H, W)."""
    channels = np.moveaxis(np.asarray(image.convert("HSV"), dtype=np.float64), -1, 0)
    return np.asarray(channels / 255 * np.array([360, 1, 1])[:, None, None])


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    """Drawing twice from one seed gives equal pixels."""
    again = draw.__wrapped__(name)
    assert again is not draw(name)
    assert again.tobytes() == draw(name).tobytes()


def test_another_process_gives_the_same_bytes() -> None:
    """Another process draws the same bytes: nothing depends on hashes of strings or on global state."""
    program = (
        "import sys; from benchmarks.drawings import draw_painting;"
        "sys.stdout.buffer.write(draw_painting(48, 48).tobytes())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT
    ).stdout
    assert other == draw_painting(48, 48).tobytes()


@pytest.mark.parametrize("name", DRAWINGS)
def test_other_seeds_give_other_pictures(name: str) -> None:
    """Two seeds differ by far more than the grain: by 4 % of the range on average."""
    assert np.abs(pixels(draw(name)) - pixels(draw(name, seed=1))).mean() > 0.04


@pytest.mark.parametrize("name", DRAWINGS)
def test_sizes_are_obeyed(name: str) -> None:
    """Odd upright, wide and the smallest sizes are drawn exactly, in RGB."""
    for size in ((41, 57), (90, 34), (32, 32)):
        image = draw(name, *size)
        assert (image.size, image.mode) == (size, "RGB")


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_larger_picture_is_the_same_picture(name: str) -> None:
    """Reduced to half its size, a picture correlates with the one that was drawn at half the size."""
    small = draw(name, 96, 72)
    large = draw(name, 192, 144).resize((96, 72), Image.Resampling.BOX)
    assert np.corrcoef(pixels(small).ravel(), pixels(large).ravel())[0, 1] > 0.85


@pytest.mark.parametrize("name", DRAWINGS)
def test_pictures_have_contrast(name: str) -> None:
    """Every picture has lights and darks: the 2nd and the 98th percentile of luminance lie half the range apart."""
    dark, light = np.percentile(pixels(draw(name).convert("L")), (2, 98))
    assert light - dark > 0.5


def test_harbour_mirrors_its_town() -> None:
    """The picture below the waterline correlates with the flipped town above it, and not with the town."""
    town = pixels(draw("harbour", 192, 144).convert("L").resize((96, 72), Image.Resampling.BOX))
    shore, rows = round(0.7 * 72), 12
    water, above = town[shore : shore + rows], town[shore - rows : shore]
    assert np.corrcoef(water.ravel(), above[::-1].ravel())[0, 1] > 0.5
    assert np.corrcoef(water.ravel(), above.ravel())[0, 1] < 0.3


def test_swirls_are_blue_with_yellow_lights() -> None:
    """More than half of the swirls is blue, and some of it, but less than a quarter, is the stars' yellow."""
    hue, saturation, value = hsv(draw("swirls"))
    assert np.mean((hue > 195) & (hue < 250) & (saturation > 0.3)) > 0.5
    assert 0.01 < np.mean((hue > 35) & (hue < 65) & (value > 0.6)) < 0.25


def test_embers_are_warm() -> None:
    """All but 5 % of the embers is red to ochre or nearly black."""
    hue, _, value = hsv(draw("embers"))
    assert np.mean((hue < 55) | (hue > 345) | (value < 0.15)) > 0.95


def test_mosaic_has_many_hues_and_dark_lead() -> None:
    """Reds, yellows, greens, blues and purples fill 3 % of the mosaic each, and dark grey lead 8 %."""
    hue, saturation, value = hsv(draw("mosaic", 192, 144))
    for low, high in ((0, 30), (30, 60), (90, 180), (180, 240), (285, 360)):
        assert np.mean((hue >= low) & (hue < high) & (saturation > 0.4) & (value > 0.3)) > 0.03
    assert np.mean((saturation < 0.4) & (value < 0.3)) > 0.08


@pytest.mark.parametrize("name", ["swirls", "market", "knife", "planes"])
def test_paintings_have_strokes_of_several_sizes(name: str) -> None:
    """Of the variance of luminance, each of three octaves of size holds 5 %."""
    left = draw(name, 192, 144).convert("L")
    whole = pixels(left).var()
    for size in ((96, 72), (48, 36), (24, 18)):
        half = left.resize(size, Image.Resampling.BOX)
        detail = pixels(left) - pixels(half.resize(left.size, Image.Resampling.BICUBIC))
        assert detail.var() > 0.05 * whole
        left = half


def test_watercolour_leaves_white_paper() -> None:
    """The border is paper, and so are the lightest parts inside."""
    picture = pixels(draw("watercolour", 192, 144).convert("L"))
    border = np.concatenate([picture[:3].ravel(), picture[:, :3].ravel()])
    assert border.min() > 0.85
    assert np.mean(picture[20:-20, 20:-20] > 0.85) > 0.05


def test_pencil_has_no_colour_but_its_paper() -> None:
    """All pixels have the warm tint of the paper or less, and the drawing is lighter than it is dark."""
    _, saturation, value = hsv(draw("pencil", 192, 144))
    assert np.percentile(saturation, 99) < 0.25
    assert np.median(value) > 0.6


def test_planes_are_dark_earth() -> None:
    """Half of the picture is darker than the middle of the range, and strong colours are rare."""
    _, saturation, value = hsv(draw("planes", 192, 144))
    assert np.median(value) < 0.5
    assert np.mean((saturation > 0.6) & (value > 0.4)) < 0.1


def test_the_still_life_stands_in_light_from_the_left() -> None:
    """The left halves of its wall and table are brighter than the right."""
    picture = pixels(draw("still-life").convert("L"))
    assert picture[:, :32].mean() > 1.1 * picture[:, 32:].mean()


def test_the_river_mirrors_darker_than_the_sky() -> None:
    """The lowest fifth is water: darker than the sky, and of many tones."""
    picture = pixels(draw("riverside", 192, 144).convert("L"))
    water, sky = picture[-29:], picture[:29]
    assert water.mean() < 0.7 * sky.mean()
    assert water.std() > 0.05


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param(samples.CONTENT, "riverside", marks=pytest.mark.slow),
        (samples.STYLE, "swirls"),
    ],
)
def test_the_shipped_pair_is_what_the_code_draws(path: Path, name: str) -> None:
    """A PNG file of the package is the drawing at 640 × 480, up to rounding by another numpy."""
    with Image.open(path) as shipped:
        difference = np.abs(pixels(shipped) - pixels(draw(name, 640, 480)))
    assert difference.mean() < 1 / 255


def test_laid_out_pair_is_a_pair_of_the_inbox(tmp_path: Path) -> None:
    """Both pictures are copied completely, under names that the inbox pairs."""
    content, style = samples.lay_out(tmp_path / "new" / "inbox")
    assert (content.name, style.name) == ("riverside.content.png", "riverside.style.png")
    assert content.read_bytes() == samples.CONTENT.read_bytes()
    assert style.read_bytes() == samples.STYLE.read_bytes()


def test_shipped_pictures_are_small() -> None:
    """The two pictures together take less than 1.5 MB of the package."""
    assert samples.CONTENT.stat().st_size + samples.STYLE.stat().st_size < 1_500_000
