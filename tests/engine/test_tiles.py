"""The gradient of a whole picture, computed with less memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nst_daemon.engine import tiles as module
from nst_daemon.engine.evaluation import Evaluation, checkpointed, whole
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.tiles import Tiled, halo, tiles
from nst_daemon.engine.vgg import VGG, layer_names
from tests.engine.conftest import TorchTargets, pyramid_of

Case = Callable[..., tuple[VGG, Pyramid, Tensor]]


def thin(network: VGG) -> VGG:
    """The same layers with a sixteenth of the channels and random weights, in float64."""
    generator = torch.Generator().manual_seed(0)
    channels = 3
    for i, old in enumerate(network.features):
        if isinstance(old, nn.Conv2d):
            new = nn.Conv2d(channels, old.out_channels // 16, 3, padding=1).requires_grad_(False)
            new.weight.normal_(0, (2 / (9 * channels)) ** 0.5, generator=generator)
            new.bias.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            network.features[i] = new
            channels = new.out_channels
    return network.compute_in(torch.float64)


@pytest.fixture
def case(weights: Mapping[str, Tensor]) -> Case:
    """A maker of random (network, objective, picture) for settings and a size (height, width)."""

    def make(settings: RenderSettings, size: tuple[int, int]) -> tuple[VGG, Pyramid, Tensor]:
        network = VGG(weights, settings.layers, pooling=settings.pooling, padding=settings.padding)
        targets = TorchTargets(thin(network), settings)
        generator = torch.Generator().manual_seed(1)
        image, content, style = (
            torch.rand(1, 3, *hw, generator=generator, dtype=torch.float64)
            for hw in (size, size, (61, 70))
        )
        return network, pyramid_of(content, style, settings, targets), image

    return make


def of(deepest: str, **extra: Any) -> RenderSettings:
    """Content at this layer, style at it and at all relu*_1 before."""
    shallow = [f"relu{block}_1" for block in range(1, int(deepest[4]))]
    layers = dict.fromkeys([*shallow, deepest], 0.5)
    base = {"style_loss": "covariance", "content_layers": {deepest: 1.0}, "style_layers": layers}
    return resolve(base, extra)


def error(evaluation: Evaluation, network: VGG, objective: Pyramid, image: Tensor) -> float:
    """The largest relative error of terms, total and gradient against those of the whole."""
    found = evaluation(network, objective, image)
    wanted = whole(network, objective, image)
    return max(float((f - w).norm() / w.norm()) for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("pooling", "padding"), [("max", "replicate"), ("average", "zeros"), ("l2", "replicate")]
)
@pytest.mark.parametrize("deepest", ["conv1_1", "pool2", "relu3_4", "conv4_2", "relu5_1"])
def test_tiles_give_the_gradient_of_the_whole(
    case: Case, deepest: str, pooling: str, padding: str
) -> None:
    """At any depth, padding and pooling, and at odd sizes, tiles give the same terms and gradient to 1e-12."""
    network, objective, image = case(of(deepest, pooling=pooling, padding=padding), (67, 131))
    assert error(Tiled(48), network, objective, image) < 1e-12


@pytest.fixture
def narrow_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Total variation in strips of 16 rows: several in a small picture."""
    monkeypatch.setattr(module, "STRIP", 16)


@pytest.mark.usefixtures("narrow_strips")
@pytest.mark.parametrize(
    ("extra", "tolerance"),
    [
        # Square roots of small eigenvalues amplify rounding: over random pictures the error is 1e-14 to 1e-11.
        ({"style_loss": "wasserstein", "tv": "nine-point"}, 1e-10),
        ({"style_loss": "gram", "moments_weight": 0.5}, 1e-12),
        ({"calibrate": "off"}, 1e-12),
        ({"calibrate": "off", "gram_norm": "elements", "tv": "absolute"}, 1e-12),
        ({"calibrate": "off", "content_loss": "half-sum"}, 1e-12),
    ],
)
@pytest.mark.parametrize("size", [(51, 51), (36, 69)])
def test_tiles_serve_every_objective(
    case: Case, extra: dict[str, Any], tolerance: float, size: tuple[int, int]
) -> None:
    """Each way to compare statistics and each form of a term has the same value and gradient in tiles."""
    assert error(Tiled(32), *case(of("relu3_1", **extra), size)) < tolerance


@pytest.mark.parametrize(("deepest", "enough"), [("relu2_1", 4), ("relu3_1", 10), ("relu4_1", 30)])
def test_a_smaller_halo_is_wrong(
    case: Case, monkeypatch: pytest.MonkeyPatch, deepest: str, enough: int
) -> None:
    """The halo is as small as possible: one smaller by the deepest layer's stride gives another gradient."""
    network, objective, image = case(of(deepest), (61, 75))
    assert halo(network.names) == enough
    stride = 2 ** (int(deepest[4]) - 1)
    monkeypatch.setattr(module, "halo", lambda _: enough - stride)
    assert error(Tiled(32), network, objective, image) > 1e-6


def test_a_checkpointed_gradient_is_the_same_to_the_bit(case: Case) -> None:
    """Recomputed activations give the same gradient to the bit."""
    network, objective, image = case(of("relu5_1"), (67, 81))
    assert error(checkpointed, network, objective, image) == 0


@pytest.mark.parametrize("size", [(16, 16), (97, 33), (1000, 1032), (1025, 15)])
@pytest.mark.parametrize("side", [16, 64, 250, 4096])
def test_cores_cover_a_picture_once(size: tuple[int, int], side: int) -> None:
    """Every pixel and every cell of the deepest layer is in one core, none longer than asked or 16, and in its area."""
    names = layer_names()[: layer_names().index("relu5_1") + 1]
    pixels, cells = torch.zeros(size), torch.zeros(size[0] // 16, size[1] // 16)
    for tile in tiles(size, side, names):
        pixels[tile.core] += 1
        outside, inside = tile.cells("relu5_1")
        cells[outside] += 1
        assert (
            cells[outside].shape
            == torch.empty(*(a.stop // 16 - a.start // 16 for a in tile.area))[inside].shape
        )
        for core, area, length in zip(tile.core, tile.area, size, strict=True):
            assert core.stop - core.start <= max(16, side)
            assert area.start == max(0, core.start - 80)
            assert area.stop == min(length, core.stop + 80)
    assert (pixels == 1).all()
    assert (cells == 1).all()
