"""The statements of the classic experiments, at a size that takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import experiments
from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.experiments import Paint, Settings
from nst_daemon.engine.images import from_image
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.stylize import Step, stylize
from tests.engine.conftest import SceneMaker

BASE: Settings = {
    "size": 48,
    "coarsest": 48,
    "iterations": 24,
    "style_layers": {"relu1_1": 0.3, "relu2_1": 0.3, "relu3_1": 0.4},
    "content_layers": {"relu3_2": 1.0},
}


@pytest.fixture
def paint(scene_of: SceneMaker) -> Paint:
    content = from_image(draw_scene(64, 48)).rgb
    style = from_image(draw_painting(64, 48)).rgb

    def paint(settings: RenderSettings) -> Iterator[Step]:
        scene, network = scene_of(settings, content=content, styles=[style])
        return stylize(scene, network, settings)

    return paint


def test_more_weight_on_the_style_brings_the_picture_nearer_to_it(paint: Paint) -> None:
    """The unweighted style loss falls with every step of β, and the content loss rises from the first to the last."""
    cells = experiments.beta_sweep(paint, BASE)
    styles = [cell.losses["style"] for cell in cells]
    assert all(after < before for before, after in pairwise(styles))
    assert cells[-1].losses["content"] > cells[0].losses["content"]


def test_more_weight_on_the_total_variation_smooths(paint: Paint) -> None:
    """The total variation falls with every step of γ."""
    variations = [cell.losses["tv"] for cell in experiments.gamma_sweep(paint, BASE)]
    assert all(after < before for before, after in pairwise(variations))


def test_the_content_is_ahead_of_noise_as_a_start(paint: Paint) -> None:
    """At every number of iterations shown, the total from the content is below that from noise."""
    cells = experiments.start_strips(paint, BASE)
    totals = {cell.caption: cell.losses["total"] for cell in cells}
    counts = [caption.split(", ")[1] for caption in totals if caption.startswith("content")]
    assert len(counts) == 5
    assert all(totals[f"content, {n}"] < totals[f"noise, {n}"] for n in counts)


def test_each_term_alone_reaches_its_own_target(paint: Paint) -> None:
    """β only ends with the lower style loss and α only with the lower content loss, from the same noise."""
    texture, reconstruction = experiments.alone(paint, BASE)
    assert texture.losses["style"] < reconstruction.losses["style"] / 4
    assert reconstruction.losses["content"] < texture.losses["content"] / 4


def test_shallow_content_layers_keep_more_of_the_photograph(paint: Paint) -> None:
    """Content from the first block leaves the picture nearer to the content's pixels than content from the fifth."""
    cells = experiments.content_layer_sweep(paint, BASE)
    content = from_image(draw_scene(48, 36)).rgb
    distances = [float((cell.image[0] - content).square().mean()) for cell in cells]
    assert distances[0] < distances[-1]


def test_a_sheet_holds_every_cell(paint: Paint, tmp_path: Path) -> None:
    """Four cells stand side by side, captions below."""
    cells = experiments.gamma_sweep(paint, {**BASE, "iterations": 1})
    experiments.save(cells, tmp_path / "gamma.png", height=36)
    with Image.open(tmp_path / "gamma.png") as sheet:
        assert sheet.width > 4 * 48
        assert 36 < sheet.height < 2 * 36


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_every_experiment_uses_settings_that_exist(name: str) -> None:
    """Each cell's settings resolve."""
    seen = []

    def paint(settings: RenderSettings) -> Iterator[Step]:
        seen.append(settings)
        return iter([Blank(s) for s in range(1, 129)])

    assert len(experiments.EXPERIMENTS[name](paint, {"size": 64, "iterations": 128})) >= 2
    assert seen


class Blank(Step):
    """A step with an image only."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    @property
    def losses(self) -> dict[str, float]:
        return {"total": 1.0}

    def image(self) -> torch.Tensor:
        return torch.zeros(1, 3, 4, 5)
