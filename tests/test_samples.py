"""The sample pictures: the same for the same seed, of the size asked for, in the colours promised."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nst_daemon.errors import UsageError
from nst_daemon.samples import SCENES, STYLES, draw_painting, draw_scene

DRAWINGS = [*SCENES, *STYLES]


@lru_cache(maxsize=64)
def draw(name: str, width: int = 96, height: int = 72, seed: int = 0) -> Image.Image:
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
    return channels / 255 * np.array([360, 1, 1])[:, None, None]


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    """Drawing twice from one seed gives equal pixels."""
    again = draw.__wrapped__(name)
    assert again is not draw(name)
    assert again.tobytes() == draw(name).tobytes()


def test_another_process_gives_the_same_bytes() -> None:
    """A picture does not depend on the process that draws it, as it would with hashes of strings or global state."""
    program = (
        "import sys; from nst_daemon.samples import draw_painting;"
        "sys.stdout.buffer.write(draw_painting(48, 48).tobytes())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert other == draw_painting(48, 48).tobytes()


@pytest.mark.parametrize("name", DRAWINGS)
def test_other_seeds_give_other_pictures(name: str) -> None:
    """Two seeds differ by far more than the grain: by 4 % of the range on average."""
    assert np.abs(pixels(draw(name)) - pixels(draw(name, seed=1))).mean() > 0.04


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize(("width", "height"), [(61, 97), (150, 40), (32, 32)])
def test_sizes_are_obeyed(name: str, width: int, height: int) -> None:
    """Odd, upright, wide and the smallest sizes come out as asked for, in RGB."""
    image = draw(name, width, height)
    assert (image.size, image.mode) == ((width, height), "RGB")


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_larger_picture_is_the_same_picture(name: str) -> None:
    """Reduced to half its size, a picture correlates with the one that was drawn at half the size."""
    small, large = draw(name), draw(name, 192, 144).resize((96, 72), Image.Resampling.BOX)
    assert np.corrcoef(pixels(small).ravel(), pixels(large).ravel())[0, 1] > 0.85


@pytest.mark.parametrize("name", DRAWINGS)
def test_pictures_have_contrast(name: str) -> None:
    """Every picture has lights and darks: the 2nd and the 98th percentile of luminance lie half the range apart."""
    dark, light = np.percentile(pixels(draw(name).convert("L")), (2, 98))
    assert light - dark > 0.5


def test_harbour_mirrors_its_town() -> None:
    """What lies below the waterline correlates with the town above it turned upside down, and not with the town."""
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


@pytest.mark.parametrize("function", [draw_scene, draw_painting])
def test_too_small_a_picture_is_refused(function: Callable[..., Image.Image]) -> None:
    """A side under 32 pixels is a UsageError that names the size."""
    with pytest.raises(UsageError, match="31x64"):
        function(31, 64)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    """An unknown scene or style is a UsageError that lists the names there are."""
    with pytest.raises(UsageError, match=r"'beach'.*harbour"):
        draw_scene(64, 64, scene="beach")
    with pytest.raises(UsageError, match=r"'cubes'.*swirls.*mosaic"):
        draw_painting(64, 64, style="cubes")
