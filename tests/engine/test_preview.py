from __future__ import annotations

import pytest

from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.preview import PAIRS, correlation
from nst_daemon.engine.images import from_image
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import stylize
from tests.engine.conftest import SceneMaker


@pytest.mark.slow
def test_a_preview_predicts_the_larger_picture(scene_of: SceneMaker) -> None:
    """Reduced to a preview's size, a picture twice as large has a luminance that correlates with it by 0.9 or more.

    `python -m benchmarks.preview` compares pictures four times the size, of three pairs; it takes minutes.
    """
    drawing, manner = PAIRS[0]
    content = from_image(draw_scene(256, 192, scene=drawing)).rgb
    painting = from_image(draw_painting(256, 192, style=manner)).rgb
    pictures = []
    for size in (128, 256):
        settings = resolve({"size": size, "iterations": (30, 8, 6)})
        scene, network = scene_of(settings, content=content, styles=[painting])
        *_, last = stylize(scene, network, settings)
        pictures.append(last.image()[0])
    assert correlation(*pictures) >= 0.9
