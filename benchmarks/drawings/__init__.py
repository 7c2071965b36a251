"""Sample pictures drawn by code: photo-like scenes and painterly styles.

Everything is computed from a seed with numpy and Pillow, so the documentation, the benchmarks and the tests need no
pictures of other people. The same arguments give the same bytes. Compositions are drawn enlarged and then reduced, and
their measures are in proportion to the picture: a larger picture shows the same composition in finer detail.

`python -m benchmarks.drawings` draws the two pictures that the package ships; with a folder, it draws all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from benchmarks.drawings.harbour import harbour
from benchmarks.drawings.lighthouse import lighthouse
from benchmarks.drawings.mountains import mountains
from benchmarks.drawings.paintings import embers, mosaic, swirls
from benchmarks.drawings.raster import Drawing, to_array, to_image
from benchmarks.drawings.repainted import knife, market, pencil, planes, watercolour
from benchmarks.drawings.riverside import riverside
from benchmarks.drawings.still_life import still_life

__all__ = ["PAIRS", "SCENES", "STYLES", "draw_painting", "draw_scene"]

SCENES: Mapping[str, Drawing] = {
    "harbour": harbour,
    "mountains": mountains,
    "still-life": still_life,
    "riverside": riverside,
    "lighthouse": lighthouse,
}
STYLES: Mapping[str, Drawing] = {
    "swirls": swirls,
    "embers": embers,
    "mosaic": mosaic,
    "market": market,
    "knife": knife,
    "watercolour": watercolour,
    "pencil": pencil,
    "planes": planes,
}

#: A scene and a style that suit each other: every scene and style at least once.
PAIRS: tuple[tuple[str, str], ...] = (
    ("riverside", "swirls"),
    ("still-life", "planes"),
    ("lighthouse", "watercolour"),
    ("riverside", "pencil"),
    ("mountains", "market"),
    ("harbour", "knife"),
    ("mountains", "embers"),
    ("harbour", "mosaic"),
)

SUPERSAMPLING = 2  # drawn at this multiple of the requested size, then reduced: smooth edges
GRAIN = 2 / 255  # standard deviation of the grain of film or canvas; it also hides banding


def draw_scene(
    width: int = 640, height: int = 480, seed: int = 0, *, scene: str = "harbour"
) -> Image.Image:
    """Draw a photo-like scene, the content of a pair.

    Args:
        width, height: size of the picture in pixels, each at least 32.
        seed: another seed gives other houses, hills and clouds.
        scene: one of `SCENES`.

    Returns:
        An RGB picture of exactly that size.
    """
    return _draw(SCENES[scene], width, height, seed)


def draw_painting(
    width: int = 640, height: int = 480, seed: int = 0, *, style: str = "swirls"
) -> Image.Image:
    """Draw a picture in a painterly style, the style of a pair.

    Args:
        width, height: size of the picture in pixels, each at least 32; strokes are in proportion to it.
        seed: another seed gives another composition in the same manner.
        style: one of `STYLES`.

    Returns:
        An RGB picture of exactly that size.
    """
    return _draw(STYLES[style], width, height, seed)


def _draw(drawing: Drawing, width: int, height: int, seed: int) -> Image.Image:
    """Draw enlarged, reduce to (width, height) and add grain."""
    rng = np.random.default_rng(seed)
    large = to_image(drawing(width * SUPERSAMPLING, height * SUPERSAMPLING, rng))
    small = to_array(large.resize((width, height), Image.Resampling.LANCZOS))
    grain = rng.normal(0.0, GRAIN, (height, width, 1)).astype(np.float32)
    return to_image(small + grain)
