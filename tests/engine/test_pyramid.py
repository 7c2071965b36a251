"""The objective over several levels of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_daemon.engine.evaluation import Evaluation, checkpointed, whole
from nst_daemon.engine.pyramid import levels_of, reduced, reduced_guide, shares
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.engine.tiles import Tiled
from nst_daemon.engine.vgg import VGG
from nst_daemon.pictures.raster import Size
from tests.engine.conftest import QUICK, SceneMaker, TorchTargets, last, pyramid_of

LAYERS = {"relu1_1": 0.25, "relu2_1": 0.75}


def settings_of(**extra: Any) -> RenderSettings:
    """Shallow layers and three levels with weights 1, 2 and 5."""
    return resolve(
        QUICK,
        {
            "style_layers": LAYERS,
            "style_levels": 3,
            "style_level_weights": (1, 2, 5),
            "tv_weight": 0.7,
            **extra,
        },
    )


def random(*size: int, seed: int = 0) -> Tensor:
    """(1, 3, h, w), float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, *size, generator=generator, dtype=torch.float64)


@pytest.fixture
def network(weights: Mapping[str, Tensor]) -> VGG:
    return VGG(weights, settings_of().layers).compute_in(torch.float64)


def halved(image: Tensor) -> Tensor:
    """Half the size, odd sides rounded up."""
    h, w = (image.shape[-2] + 1) // 2, (image.shape[-1] + 1) // 2
    return torch.nn.functional.interpolate(
        image, size=(h, w), mode="bicubic", antialias=True, align_corners=False
    )


def distance(F: Tensor, S: Tensor, style_loss: str) -> Tensor:
    """Relative distance of two maps' Gram matrices, or half of that of covariances and half of that of means."""
    F, S = F[0].flatten(1), S[0].flatten(1)
    if style_loss == "gram":
        G, A = F @ F.T / F.shape[1], S @ S.T / S.shape[1]
        return ((G - A) ** 2).sum() / (A**2).sum()
    C, B = torch.cov(F, correction=0), torch.cov(S, correction=0)
    means = ((F.mean(1) - S.mean(1)) ** 2).sum() / (S.mean(1) ** 2).sum()
    return ((C - B) ** 2).sum() / (B**2).sum() / 2 + means / 2


def restated(
    network: VGG, image: Tensor, content: Tensor, style: Tensor, settings: RenderSettings
) -> Tensor:
    """The weighted total, written out: relative distances of statistics at three sizes."""
    x, c, s, total = image, content, style, torch.zeros((), dtype=torch.float64)
    for k, share in enumerate((1 / 8, 2 / 8, 5 / 8)):
        F, P, S = network(x), network(c), network(s)
        for layer, weight in LAYERS.items():
            total = total + share * weight * distance(F[layer], S[layer], settings.style_loss)
        if k == settings.content_level:
            content_term = ((F["relu2_2"] - P["relu2_2"]) ** 2).sum() / (P["relu2_2"] ** 2).sum()
            total = total + settings.content_weight * content_term
        x, c, s = halved(x), halved(c), halved(s)
    dx, dy = image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]
    return total + settings.tv_weight * ((dx**2).sum() + (dy**2).sum()) / image.numel()


@pytest.mark.parametrize(
    ("content_level", "style_loss"), [(0, "covariance"), (1, "gram"), (2, "covariance")]
)
@pytest.mark.parametrize(
    "evaluation", [whole, checkpointed, Tiled(16)], ids=["whole", "checkpointed", "tiled"]
)
def test_every_evaluation_is_the_restated_sum_over_levels(
    network: VGG, evaluation: Evaluation, content_level: int, style_loss: str
) -> None:
    """Total and gradient over three levels equal a float64 restatement by autograd, at odd sizes, to 1e-10."""
    settings = settings_of(content_level=content_level, style_loss=style_loss)
    content, style = random(45, 61, seed=1), random(53, 39, seed=2)
    image = random(45, 61, seed=3)
    pyramid = pyramid_of(content, style, settings, TorchTargets(network, settings))
    _, total, gradient = evaluation(network, pyramid, image)

    leaf = image.clone().requires_grad_()
    expected = restated(network, leaf, content, style, settings)
    (slope,) = torch.autograd.grad(expected, leaf)
    assert float((total - expected.detach()).abs() / total) < 1e-10
    assert float((gradient - slope).norm() / slope.norm()) < 1e-10


def test_the_terms_of_a_picture_do_not_depend_on_the_way(network: VGG) -> None:
    """A pyramid called with a network has the terms of an evaluation, and zero activations have `terms_at_zero`."""
    settings = settings_of()
    image = random(45, 61, seed=3)
    pyramid = pyramid_of(
        random(45, 61), random(53, 39, seed=1), settings, TorchTargets(network, settings)
    )
    torch.testing.assert_close(pyramid(network, image), whole(network, pyramid, image)[0])

    def dead(picture: Tensor) -> dict[str, Tensor]:
        return {layer: torch.zeros_like(map_) for layer, map_ in network(picture).items()}

    torch.testing.assert_close(pyramid.terms_at_zero(image), pyramid(dead, image))


@pytest.mark.parametrize(
    ("size", "extra", "expected"),
    [
        ((384, 512), {}, [1 / 3] * 3),
        ((384, 512), {"style_level_weights": (1, 0, 3)}, [1 / 4, 0, 3 / 4]),
        ((384, 512), {"style_level_weights": (1, 1, 0)}, [1 / 2, 1 / 2]),
        ((384, 512), {"style_levels": 1}, [1]),
        ((90, 120), {}, [1 / 2, 1 / 2]),  # 45 px leave 2 positions at relu5_1, 23 px only one
        ((60, 512), {}, [1]),
        ((60, 512), {"style_level_weights": (0, 1, 1)}, [1]),
    ],
)
def test_a_layers_shares_sum_to_one(
    size: Size, extra: dict[str, Any], expected: list[float]
) -> None:
    """Levels that are too small are left out, and the weights of the others are scaled to a sum of 1."""
    layers = {"style_layers": {"relu1_1": 0.5, "relu5_1": 0.5}, "content_layers": {"relu4_2": 1.0}}
    settings = resolve({"style_loss": "covariance", "style_levels": 3, **layers, **extra})
    found = shares(size, (2 * size[0], size[1]), settings, limit=8)
    each = [level.get("style relu5_1", 0) for level in found]
    assert each == pytest.approx(expected)
    assert sum(level.get("content relu4_2", 0) for level in found) == 1
    assert [level.get("tv", 0) for level in found] == [1] + [0] * (len(found) - 1)


def test_a_guide_is_reduced_like_its_picture() -> None:
    """A reduced guide has the size of the reduced picture, sums to 1 over two regions, and has no negative weights."""
    guide = torch.zeros(1, 2, 21, 34)
    guide[:, 0, :, :13], guide[:, 1, :, 13:] = 1, 1
    small = reduced_guide(guide)
    assert small.shape[-2:] == reduced(guide[:, :1]).shape[-2:]
    torch.testing.assert_close(small.sum(1), torch.ones(1, *small.shape[-2:]))
    assert small.min() >= 0


def test_levels_are_repeated_halves() -> None:
    """Each level is half of the one before, rounded up, and keeps the mean colour of a flat picture."""
    pictures = levels_of(torch.full((1, 3, 45, 61), 0.3), 4)
    assert [tuple(p.shape[-2:]) for p in pictures] == [(45, 61), (23, 31), (12, 16), (6, 8)]
    for picture in pictures:
        torch.testing.assert_close(picture, torch.full_like(picture, 0.3))


def test_levels_bring_larger_strokes(scene_of: SceneMaker) -> None:
    """With more weight on the smaller levels, the picture has the style's statistics there more exactly."""

    judge = scene_of(settings_of())[0].scales[-1].objective.levels[2]

    def distance(weights: tuple[float, ...]) -> float:
        settings = settings_of(iterations=30, style_level_weights=weights, content_weight=0.01)
        scene, network = scene_of(settings)
        picture = levels_of(last(stylize(scene, network, settings)).image(), 3)[2]
        with torch.no_grad():
            values = judge(network(picture), picture)
        return sum(float(values[judge.names.index(f"style {k}")]) for k in LAYERS)

    assert distance((1, 1, 20)) < 0.5 * distance((20, 1, 0))
