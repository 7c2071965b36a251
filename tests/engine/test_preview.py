from __future__ import annotations

import pytest

from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.preview import PAIRS, correlation
from nst_daemon.engine.images import from_image
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import stylize
from tests.engine.conftest import SceneMaker


@pytest.mark.slow
@pytest.mark.parametrize(("drawing", "manner"), PAIRS)
def test_a_preview_predicts_the_picture_four_times_as_large(
    scene_of: SceneMaker, drawing: str, manner: str
) -> None:
    """Reduced to the preview's size, the large picture's luminance correlates with the preview's by 0.9 or more."""
    content = from_image(draw_scene(192, 144, scene=drawing)).rgb
    painting = from_image(draw_painting(192, 144, style=manner)).rgb
    pictures = []
    for size in (48, 192):
        settings = resolve({"size": size, "coarsest": 48, "iterations": (30, 8, 6)})
        scene, network = scene_of(settings, content=content, styles=[painting])
        *_, last = stylize(scene, network, settings)
        pictures.append(last.image()[0])
    assert correlation(*pictures) >= 0.9
