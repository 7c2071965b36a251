"""The imitations of other programs minimise the same objective, and do it well."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from benchmarks import galerne, peers
from benchmarks.curves import reaches
from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.fixed import fixed
from nst_daemon.engine.evaluation import whole
from nst_daemon.engine.images import from_image
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.scene import Scene
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.vgg import VGG
from tests.engine.conftest import SceneMaker


def test_the_plain_network_computes_what_ours_does(weights: Mapping[str, Tensor]) -> None:
    """At every layer of the default objective both agree to 1e-4."""
    image = torch.rand(1, 3, 70, 64, generator=torch.Generator().manual_seed(0))
    layers = resolve({}).layers
    with torch.no_grad():
        ours, plain = VGG(weights, layers)(image), peers.PlainVGG(VGG(weights, layers))(image)
    torch.testing.assert_close(plain, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", peers.USUAL)
def test_every_peer_lowers_the_loss(name: str, scene_of: SceneMaker) -> None:
    """Twenty evaluations at full size end with a lower loss than that of the start."""
    loop, chosen = peers.PEERS[name]
    settings = resolve({"size": 48, "precision": "float32", **chosen, "scales": (1.0,)})
    content, style = from_image(draw_scene(64, 48)).rgb, from_image(draw_painting(64, 48)).rgb
    scene, network = scene_of(settings, content=content, styles=[style])
    scene = fixed(scene, network)
    plain, objective = peers.PlainVGG(network), scene.scales[-1].objective
    *_, last = loop(scene, plain, peers.Task(name, 48, 20))
    assert last is not None
    assert peers.judged(objective, plain, last) < peers.judged(objective, plain, scene.start)


@pytest.fixture(scope="module")
def large(scene_of: SceneMaker) -> tuple[Scene, peers.PlainVGG, VGG]:
    """A scene of the preset `spst` at 88 and 176 px, with the peer's network and ours."""
    settings = resolve({"preset": "spst", "size": 176, "coarsest": 88, "precision": "float32"})
    content, style = from_image(draw_scene(64, 48)).rgb, from_image(draw_painting(64, 48)).rgb
    scene, network = scene_of(settings, content=content, styles=[style])
    return scene, peers.PlainVGG(network), network


def noisy(scene: Scene) -> Tensor:
    """The content at full size with noise: all terms have a gradient."""
    content = scene.scales[-1].content
    noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(3))
    return content + 0.1 * noise


def test_spst_minimises_our_objective(large: tuple[Scene, peers.PlainVGG, VGG]) -> None:
    """Its own formula and ours have the same value to 1e-5 and the same gradient to 1e-3."""
    scene, plain, network = large
    objective, image = scene.scales[-1].objective, noisy(scene)
    assert isinstance(objective, Pyramid)
    total, gradient = galerne.Loss(objective, plain, 176)(image)
    _, wanted, slope = whole(network, objective, image)
    torch.testing.assert_close(total, wanted, rtol=1e-5, atol=0)
    assert (gradient - slope).norm() < 1e-3 * slope.norm()


def test_blocks_of_spst_give_the_gradient_of_the_whole(
    large: tuple[Scene, peers.PlainVGG, VGG],
) -> None:
    """In blocks of 96 px its value and gradient, and the judge's value, are those of one piece to 1e-4."""
    scene, plain, _ = large
    objective, image = scene.scales[-1].objective, noisy(scene)
    blocks, one = (galerne.Loss(objective, plain, side)(image) for side in (96, 176))
    torch.testing.assert_close(blocks[0], one[0], rtol=1e-4, atol=0)
    assert (blocks[1] - one[1]).norm() < 1e-4 * one[1].norm()
    assert peers.judged(objective, plain, image, tile=96) == pytest.approx(float(one[0]), rel=1e-4)


def test_spst_paints_from_coarse_to_fine(large: tuple[Scene, peers.PlainVGG, VGG]) -> None:
    """Of 6 iterations at the coarsest scale and 2 at full size the last ones are shown, and the loss falls."""
    scene, plain, _ = large
    objective = scene.scales[-1].objective
    found = list(galerne.paint(scene, plain, 6, 176))
    assert [picture is None for picture in found] == [True] * 6 + [False] * 2
    assert found[-1] is not None
    before = peers.judged(objective, plain, scene.scales[-1].content)
    assert peers.judged(objective, plain, found[-1]) < before
    assert galerne.iterations(5, 600) == [600, 200, 66, 30, 30]  # the paper's


def test_scales_of_adam_are_root_two_apart() -> None:
    """From 128 px up by √2, and the last one is full size."""
    assert peers.adam_scales(160) == (128 / 160, 1.0)
    assert peers.adam_scales(256) == pytest.approx((0.5, 0.5 * 2**0.5, 1.0))
    assert peers.adam_scales(100) == (1.0,)


def test_a_curve_says_when_it_comes_low_enough() -> None:
    """The first point that is no higher counts, and none where the curve stays above."""
    curve = [(1.0, 0.5), (2.0, 0.3), (3.0, 0.2)]
    assert reaches(curve, 0.3) == (2, 2.0)
    assert reaches(curve, 0.1) is None
