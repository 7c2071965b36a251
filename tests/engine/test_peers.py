"""The imitations of other programs minimise the same objective, and do it well."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.curves import reaches
from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.fixed import fixed
from nst_daemon.engine.images import from_image
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


@pytest.mark.parametrize("name", peers.PEERS)
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
