"""Sample pictures drawn by this program: scenes to paint, and paintings to paint them like.

Everything is computed from a seed with numpy and Pillow, so the demo, the documentation and the tests need nobody
else's pictures. The same arguments give the same bytes. Compositions are drawn enlarged and then reduced, and their
measures are in proportion to the picture: a larger picture is the same one, finer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from nst_daemon.errors import UsageError
from nst_daemon.samples.harbour import harbour
from nst_daemon.samples.mountains import mountains
from nst_daemon.samples.paintings import embers, mosaic, swirls
from nst_daemon.samples.raster import Drawing, to_array, to_image

__all__ = ["SCENES", "STYLES", "draw_painting", "draw_scene"]

SCENES: Mapping[str, Drawing] = {"harbour": harbour, "mountains": mountains}
STYLES: Mapping[str, Drawing] = {"swirls": swirls, "embers": embers, "mosaic": mosaic}

SUPERSAMPLING = 2  # drawn at this multiple of the size asked for, then reduced: smooth edges
SMALLEST = 32  # pixels; below this there is nothing to see
GRAIN = 2 / 255  # standard deviation of the grain of film or canvas; it also hides banding


def draw_scene(
    width: int = 640, height: int = 480, seed: int = 0, *, scene: str = "harbour"
) -> Image.Image:
    """Draw a photo-like scene, the content of a pair.

    Args:
        width, height: size of the picture in pixels, each at least 32.
        seed: the same seed gives the same bytes; another one other houses, hills and clouds.
        scene: one of `SCENES`.

    Returns:
        An RGB picture of exactly that size.

    Raises:
        UsageError: the scene is unknown or the size too small.
    """
    return _draw(_choose(SCENES, "scene", scene), width, height, seed)


def draw_painting(
    width: int = 640, height: int = 480, seed: int = 0, *, style: str = "swirls"
) -> Image.Image:
    """Draw a picture in a painterly style, the style of a pair.

    Args:
        width, height: size of the picture in pixels, each at least 32; strokes are in proportion to it.
        seed: the same seed gives the same bytes; another one another composition in the same manner.
        style: one of `STYLES`.

    Returns:
        An RGB picture of exactly that size.

    Raises:
        UsageError: the style is unknown or the size too small.
    """
    return _draw(_choose(STYLES, "style", style), width, height, seed)


def _choose(drawings: Mapping[str, Drawing], kind: str, name: str) -> Drawing:
    """The drawing of that name, or a UsageError that lists the names there are."""
    if name not in drawings:
        raise UsageError(
            f"the sample {kind} {name!r} is unknown", remedy=f"choose one of {', '.join(drawings)}"
        )
    return drawings[name]


def _draw(drawing: Drawing, width: int, height: int, seed: int) -> Image.Image:
    """Draw enlarged, reduce to (width, height) and add grain."""
    if min(width, height) < SMALLEST:
        raise UsageError(
            f"a sample of {width}x{height} pixels is too small",
            remedy=f"ask for at least {SMALLEST}x{SMALLEST}",
        )
    rng = np.random.default_rng(seed)
    large = to_image(drawing(width * SUPERSAMPLING, height * SUPERSAMPLING, rng))
    small = to_array(large.resize((width, height), Image.Resampling.LANCZOS))
    grain = rng.normal(0.0, GRAIN, (height, width, 1)).astype(np.float32)
    return to_image(small + grain)
