"""The style loss `neighbours` from tile to tile, for pictures whose features do not fit into memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_daemon.engine import neighbours
from nst_daemon.engine import sampled as module
from nst_daemon.engine import scene as scene_module
from nst_daemon.engine.directions import WHOLE
from nst_daemon.engine.evaluation import whole
from nst_daemon.engine.memory import memory_is_short, memory_plans
from nst_daemon.engine.neighbours import Matching, StyleMaps
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.sampled import SampledMatching, sampled
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.engine.tiles import Tiled
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import SettingsError
from tests.engine.conftest import CPU, SceneMaker, last

LAYERS = {"relu1_1": 0.2, "relu2_1": 0.2, "relu3_1": 0.3, "relu4_1": 0.3}
SETTINGS = resolve({"style_layers": LAYERS, "precision": "float32"})
#: More than one tile along both axes, and so small that no sample for the hub penalty leaves anything out.
CONTENT, STYLE = (64, 56), (56, 72)


@pytest.fixture(scope="module")
def network(weights: Mapping[str, Tensor]) -> VGG:
    return VGG(weights, LAYERS)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 32 px, and no patches, which only the smallest scales have."""
    monkeypatch.setattr(module, "SIDE", 32)
    monkeypatch.setattr(neighbours, "PATCHED_SIDE", 0)


def random(*size: int, seed: int) -> Tensor:
    """A smooth picture (1, 3, h, w): parts of it resemble each other more or less."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, size[0] // 4, size[1] // 4, generator=generator)
    return torch.nn.functional.interpolate(small, size=size, mode="bilinear")


def both(
    network: VGG, labels: tuple[Tensor | None, Tensor | None] = (None, None), **extra: Any
) -> tuple[Pyramid, Pyramid]:
    """The targets of a picture by the search of one piece, and by that from tile to tile."""
    content, picture, style = (
        random(*size, seed=seed) for seed, size in enumerate((CONTENT, CONTENT, STYLE))
    )
    own, theirs = labels
    maps = StyleMaps(network(style), theirs, 1.0)
    sample = sampled(style, network, tuple(LAYERS), labels=theirs, share=1.0, relative=1.0)
    one = Matching(SETTINGS, content, [maps], own, **extra)
    parts = SampledMatching(SETTINGS, content, [sample], own, **extra)
    return one.begin(network, picture), parts.begin(network, picture)


def halves(size: tuple[int, int]) -> Tensor:
    """(h, w) in cells: region 0 on the left, region 1 on the right."""
    labels = torch.zeros(size[0] // 4, size[1] // 4, dtype=torch.int64)
    labels[:, labels.shape[1] // 2 :] = 1
    return labels


@pytest.mark.parametrize(
    "extra", [{}, {"coarser": 1}, {"by_layer": True}], ids=["first", "coarser", "by layer"]
)
@pytest.mark.parametrize("regions", [False, True], ids=["one region", "two regions"])
def test_an_ample_sample_has_the_targets_of_the_whole(
    network: VGG, extra: dict[str, Any], regions: bool
) -> None:
    """If the sample holds all cells, 99 % of the positions of each layer have the same target to 1e-2."""
    labels = (halves(CONTENT), halves(STYLE)) if regions else (None, None)
    one, parts = (pyramid.levels[0].directions for pyramid in both(network, labels, **extra))
    for layer in LAYERS:
        wanted, found = one[layer].at(WHOLE), parts[layer].at(WHOLE)
        same = ((wanted - found).abs().amax(1) < 1e-2).double().mean()
        assert same > 0.99, layer
        torch.testing.assert_close(parts[layer].mean, one[layer].mean, rtol=1e-4, atol=1e-4)
        assert parts[layer].positions == one[layer].positions


def test_tiles_look_up_the_targets_of_the_whole(network: VGG) -> None:
    """Terms and gradient in tiles equal those of one piece, and the terms at zero those of features that are zero."""
    _, pyramid = both(network)
    image = random(*CONTENT, seed=5)
    for found, wanted in zip(
        Tiled(32)(network, pyramid, image), whole(network, pyramid, image), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    (level,) = pyramid.levels
    zeros = {layer: torch.zeros_like(D.at(WHOLE)) for layer, D in level.directions.items()}
    torch.testing.assert_close(
        level.terms_at_zero(image), level(zeros, image), rtol=1e-4, atol=1e-6
    )


def test_a_sample_has_no_more_cells_than_allowed(
    network: VGG, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a style with a half of the blend at most half of the allowed 100 cells are kept, from all over it."""
    monkeypatch.setattr(module, "CELLS", 100)
    style = random(*STYLE, seed=2)
    found = sampled(style, network, tuple(LAYERS), labels=halves(STYLE), share=0.5, relative=1.0)
    assert 40 < len(found.columns.rows) <= 50
    assert 0.4 < found.columns.labels.double().mean() < 0.6
    assert {layer: rows.shape[1] for layer, rows in found.features.items()} == {
        "relu1_1": 16,
        "relu2_1": 4,
        "relu3_1": 1,
        "relu4_1": 1,
    }


def test_memory_is_short_when_the_features_do_not_fit() -> None:
    """8 GB hold the features of 1000 × 750 pixels, not those of 8000 × 6000; with samples these take under 9 GB."""
    settings = resolve({})
    assert not memory_is_short(settings, (750, 1000), CPU, 8e9)
    assert memory_is_short(settings, (6000, 8000), CPU, 8e9)
    assert memory_plans(settings, CPU, sampled=True)[-1].optimizer_bytes((6000, 8000)) < 9e9


def test_a_network_that_sees_the_whole_picture_is_refused(network: VGG) -> None:
    """EfficientNet's layers cannot be computed in tiles."""
    with pytest.raises(SettingsError, match="cannot paint in tiles"):
        sampled(random(*STYLE, seed=2), network, ("stage1",), labels=None, share=1.0, relative=1.0)


def test_a_picture_beyond_the_memory_is_painted_from_samples(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If memory is short the scene is sampled, and its painting ends near the loss of the full one."""
    settings = resolve(
        {"size": 48, "coarsest": 24, "iterations": 8, "style_layers": {"relu2_1": 1.0}},
        {"precision": "float32", "tv": "squared"},
    )
    scene, network = scene_of(settings)
    assert isinstance(scene.scales[-1].objective, Matching)
    full = last(stylize(scene, network, settings))
    monkeypatch.setattr(scene_module, "memory_is_short", lambda *_, **__: True)
    monkeypatch.setattr(scene_module, "CELLS", 0)
    scene, network = scene_of(settings)
    assert isinstance(scene.scales[-1].objective, SampledMatching)
    step = last(stylize(scene, network, settings))
    assert step.losses["total"] < 1.1 * full.losses["total"]
