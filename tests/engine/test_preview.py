from __future__ import annotations

import pytest
import torch

from nst_daemon.engine.images import from_image, resize
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import Step, stylize
from nst_daemon.samples import draw_painting, draw_scene
from tests.engine.conftest import SceneMaker

LUMINANCE = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)  # Rec. 709


@pytest.mark.slow
@pytest.mark.parametrize(
    ("drawing", "manner"), [("harbour", "swirls"), ("mountains", "embers"), ("mountains", "mosaic")]
)
def test_a_preview_predicts_the_picture_four_times_as_large(
    scene_of: SceneMaker, drawing: str, manner: str
) -> None:
    """Reduced to the preview's size, the large picture's luminance correlates with the preview's by 0.9 or more."""
    content = from_image(draw_scene(192, 144, scene=drawing)).rgb
    painting = from_image(draw_painting(192, 144, style=manner)).rgb
    pictures = []
    for size in (48, 192):
        settings = resolve({"size": size, "coarsest": 48, "iterations": (30, 8, 6)})
        prepared, network = scene_of(settings, content=content, styles=[painting])
        *_, last = stylize(prepared, network, settings)
        assert isinstance(last, Step)
        pictures.append(last.image()[0])
    preview, large = pictures[0], resize(pictures[1], (36, 48))
    both = torch.stack([(picture * LUMINANCE).sum(0).flatten() for picture in (preview, large)])
    correlation = float(torch.corrcoef(both)[0, 1])
    assert correlation >= 0.9
