"""The style loss `neighbours`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_daemon.engine import neighbours
from nst_daemon.engine.directions import WHOLE
from nst_daemon.engine.evaluation import checkpointed, whole
from nst_daemon.engine.masks import Regions, StyleRegions
from nst_daemon.engine.memory import memory_plans
from nst_daemon.engine.neighbours import Matching, StyleMaps, matched, nearest
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.stylize import stylize
from nst_daemon.engine.tiles import Tiled
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import OutOfMemory, SettingsError
from tests.engine.conftest import CPU, SceneMaker, TorchTargets, last, pyramid_of

LAYERS = {"relu1_1": 0.25, "relu2_1": 0.75}


def settings_of(**extra: Any) -> RenderSettings:
    """Two shallow layers, two scales."""
    return resolve(
        {
            "size": 48,
            "coarsest": 24,
            "iterations": (9, 8, 7),
            "style_layers": LAYERS,
            "tv": "squared",
            "precision": "float32",
            **extra,
        }
    )


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def network(weights: Mapping[str, Tensor]) -> VGG:
    return VGG(weights, LAYERS).compute_in(torch.float64)


def begun(network: VGG, settings: RenderSettings, *, seed: int = 0, **extra: Any) -> Pyramid:
    """The objective of a random content of 45 × 61 and a random style of 39 × 53 pixels."""
    content, style = random(1, 3, 45, 61, seed=seed + 1), random(1, 3, 39, 53, seed=seed + 2)
    maps = StyleMaps(network(style), None, 1.0)
    matching = Matching(settings, content, [maps], **extra)
    return matching.begin(network, random(1, 3, 45, 61, seed=seed + 3))


def test_each_query_finds_its_nearest_key() -> None:
    """Centred cosine similarity less the hub penalty, restated in float64 query by query."""
    queries, keys = random(40, 7), random(25, 7, seed=1)
    found = nearest(queries, keys, hub=0.5, block=64)
    q = (queries - queries.mean(0)).numpy()
    k = (keys - keys.mean(0)).numpy()
    similar = torch.tensor([[(a @ b) / ((a @ a) ** 0.5 * (b @ b) ** 0.5) for b in k] for a in q])
    penalty = 0.5 * similar.sort(0, descending=True).values[:10].mean(0)
    assert found.tolist() == (similar - penalty).argmax(1).tolist()


def test_a_feature_is_its_own_nearest_neighbour() -> None:
    """Without a hub penalty each of a set of features finds itself in that set."""
    features = random(50, 9)
    assert nearest(features, features, hub=0).tolist() == list(range(50))


def test_the_hub_penalty_spreads_the_matches() -> None:
    """Of keys around three centres, half as many again are used with the penalty as without it."""
    centres = torch.eye(3, dtype=torch.float64).repeat(1, 4)
    queries = centres.repeat_interleave(100, 0) + 0.3 * (random(300, 12) - 0.5)
    around = centres.repeat_interleave(20, 0) + 0.6 * (random(60, 12, seed=1) - 0.5)
    keys = torch.cat([centres, around])
    used = [len(nearest(queries, keys, hub=hub).unique()) for hub in (0.0, 1.0)]
    assert used[1] > 1.5 * used[0]


def test_regions_are_matched_with_their_own_style() -> None:
    """A query finds keys of its own region only, and any key if its region has none."""
    queries, keys = random(30, 5), random(20, 5, seed=1)
    own, theirs = torch.arange(30) % 3, torch.arange(20) % 2
    found = matched(queries, keys, own, theirs)
    assert (theirs[found][own == 0] == 0).all()
    assert (theirs[found][own == 1] == 1).all()
    assert len(theirs[found][own == 2].unique()) == 2


@pytest.mark.parametrize("size", [(40, 56), (45, 61), (43, 58)])
def test_copied_targets_are_the_features_of_the_matched_place(
    weights: Mapping[str, Tensor], size: tuple[int, int]
) -> None:
    """If each cell is matched with itself, each layer's target is the direction of the style's own feature there."""
    layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    network = VGG(weights, layers).compute_in(torch.float64)
    maps = network(random(1, 3, *size))
    style = StyleMaps(maps, None, 1.0)
    settings = settings_of(style_layers=dict.fromkeys(layers, 0.25))
    matching = Matching(settings, random(1, 3, *size), [style])
    h, w = style.cells
    itself = torch.arange(h * w).view(h, w)
    for layer, map_ in maps.items():
        found = matching._copied(layer, itself, [0, h * w], map_).unit
        wanted = map_ - map_.mean((2, 3), keepdim=True)
        wanted = wanted / wanted.norm(dim=1, keepdim=True)
        stride = 2 ** (int(layer[4]) - 1)
        rows, columns = (
            4 * h // stride,
            4 * w // stride,
        )  # what is beyond the last whole cell repeats it
        torch.testing.assert_close(found[..., :rows, :columns], wanted[..., :rows, :columns])


def restated(network: VGG, image: Tensor, pyramid: Pyramid, settings: RenderSettings) -> Tensor:
    """The weighted total, written out."""
    (level,) = pyramid.levels
    total = torch.zeros((), dtype=torch.float64)
    for layer, map_ in network(image).items():
        centred = map_ - level.directions[layer].mean.view(1, -1, 1, 1)
        along = (centred * level.directions[layer].unit).sum(1) / centred.square().sum(1).sqrt()
        total = total + LAYERS[layer] * (1 - along).mean()
    dx, dy = image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]
    return total + settings.tv_weight * ((dx**2).sum() + (dy**2).sum()) / image.numel()


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize(
    "evaluation", [whole, checkpointed, Tiled(16)], ids=["whole", "checkpointed", "tiled"]
)
def test_every_evaluation_is_the_restated_sum(
    network: VGG, evaluation: Any, by_layer: bool
) -> None:
    """Total and gradient equal a float64 restatement by autograd, at odd sizes, to 1e-10."""
    settings = settings_of()
    pyramid = begun(network, settings, by_layer=by_layer)
    image = random(1, 3, 45, 61, seed=9)
    _, total, gradient = evaluation(network, pyramid, image)
    leaf = image.clone().requires_grad_()
    expected = restated(network, leaf, pyramid, settings)
    (slope,) = torch.autograd.grad(expected, leaf)
    assert float((total - expected.detach()).abs() / total) < 1e-10
    assert float((gradient - slope).norm() / slope.norm()) < 1e-10


def test_zero_activations_have_the_terms_at_zero(network: VGG) -> None:
    """`terms_at_zero` gives the terms of zero activations."""
    pyramid = begun(network, settings_of())
    image = random(1, 3, 45, 61)

    def dead(picture: Tensor) -> dict[str, Tensor]:
        return {layer: torch.zeros_like(map_) for layer, map_ in network(picture).items()}

    torch.testing.assert_close(pyramid.terms_at_zero(image), pyramid(dead, image))


def test_the_last_passes_match_each_layer_at_full_size(scene_of: SceneMaker) -> None:
    """After the scales come the passes in which layers are matched, at the picture's size."""
    settings = settings_of()
    scene, _ = scene_of(settings)
    sizes = [scale.size for scale in scene.scales]
    assert sizes == [(20, 24), (40, 48), *[(40, 48)] * settings.layer_passes]
    kinds = [scale.objective for scale in scene.scales]
    assert [isinstance(kind, Matching) and kind.by_layer for kind in kinds] == [
        False, False, *[True] * settings.layer_passes
    ]  # fmt: skip


def test_content_weight_is_a_share_in_the_search(scene_of: SceneMaker) -> None:
    """A larger content weight gives another picture, whose lightness follows the content's more closely."""

    def likeness(weight: float) -> float:
        settings = settings_of(content_weight=weight)
        scene, network = scene_of(settings)
        found = last(stylize(scene, network, settings)).image().mean(1).flatten()
        content = scene.scales[-1].content.mean(1).flatten()
        return float(torch.corrcoef(torch.stack([found, content]))[0, 1])

    assert likeness(20) > likeness(0) + 0.01


def test_a_painting_resumes_to_the_bit(scene_of: SceneMaker) -> None:
    """Interrupted in the middle of any scale and resumed, the result is the same to the bit on a CPU."""
    settings = settings_of()
    scene, network = scene_of(settings)
    expected = last(stylize(scene, network, settings)).image()
    for steps in (5, 12, 20, 28):
        state = last(islice(stylize(scene, network, settings), steps)).state()
        again, network_again = scene_of(settings)
        found = last(stylize(again, network_again, settings, state=state)).image()
        assert torch.equal(found, expected), steps


def test_each_region_is_painted_in_its_own_style(scene_of: SceneMaker) -> None:
    """With a warm style for the left half and a cold one for the right, the halves are warm and cold."""
    stripes = 0.2 * (torch.arange(64) // 3 % 2).float().expand(48, 64)
    warm = torch.stack([0.7 + stripes, 0.4 + stripes, 0.1 + stripes])

    def guide(size: tuple[int, int]) -> Tensor:
        left = torch.zeros(1, 2, *size)
        left[:, 0, :, : size[1] // 2], left[:, 1, :, size[1] // 2 :] = 1, 1
        return left

    regions = Regions((StyleRegions((0,)), StyleRegions((1,))), guide)
    settings = settings_of()
    scene, network = scene_of(settings, styles=[warm, warm.flip(0)], regions=regions)
    image = last(stylize(scene, network, settings)).image()[0]
    warmth = image[0] - image[2]
    assert float(warmth[:, :20].mean()) > 0.15
    assert float(warmth[:, 28:].mean()) < -0.15


def test_two_styles_are_matched_by_their_shares(network: VGG) -> None:
    """A style with a tenth of the other's share offers a tenth of its cells."""
    maps = network(random(1, 3, 80, 80))
    styles = [StyleMaps(maps, None, 1.0), StyleMaps(maps, None, 0.1)]
    matching = Matching(settings_of(), random(1, 3, 40, 40), styles)
    many, few = (len(matching._candidates(style)) for style in styles)
    assert many == (20 - 4) ** 2
    assert few == pytest.approx(many / 10, abs=1)


@pytest.mark.parametrize("by_layer", [False, True])
def test_targets_have_the_type_of_the_style_s_features(network: VGG, by_layer: bool) -> None:
    """From features in bfloat16, directions are in bfloat16, and 99 of 100 are within a hundredth of float32's."""
    network.compute_in(torch.float32)
    content, picture = random(1, 3, 45, 61, seed=1).float(), random(1, 3, 45, 61, seed=2).float()
    maps = network(random(1, 3, 39, 53, seed=3).float())
    rounded = {layer: map_.bfloat16() for layer, map_ in maps.items()}
    found, wanted = (
        Matching(settings_of(), content, [StyleMaps(own, None, 1.0)], by_layer=by_layer)
        .begin(network, picture)
        .levels[0]
        .directions
        for own in (rounded, maps)
    )
    for layer, target in found.items():
        assert target.at(WHOLE).dtype == torch.bfloat16
        cosines = (target.at(WHOLE).float() * wanted[layer].at(WHOLE)).sum(1)
        assert float((cosines > 0.99).float().mean()) > 0.99


def test_the_search_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of similarities share one place, none is larger than asked for, and the result is that of one block."""
    queries, keys = random(500, 6), random(300, 6, seed=1)
    seen: list[Tensor] = []
    products = neighbours._products

    def noted(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        seen.append(products(a, b, out))
        return seen[-1]

    monkeypatch.setattr(neighbours, "_products", noted)
    found = nearest(queries, keys, block=2000)
    assert 0 < max(similarities.numel() for similarities in seen) <= 2000
    assert len({similarities.data_ptr() for similarities in seen}) == 2 < len(seen)
    assert torch.equal(found, nearest(queries, keys, block=10**9))


def test_memory_that_does_not_suffice_for_the_search_is_a_clear_error(
    scene_of: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the features do not fit, the error names the size; and the preflight counts them."""
    settings = settings_of()
    scene, network = scene_of(settings)

    def full(*_: Any, **__: Any) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(neighbours, "nearest", full)
    with pytest.raises(OutOfMemory, match="24 × 20 pixels"):
        next(stylize(scene, network, settings))
    other = replace(settings, style_loss="gram")
    needs = [memory_plans(s, CPU)[-1].least_bytes((1000, 1000)) for s in (settings, other)]
    assert needs[0] > needs[1] + 4 * 1e6 * (64 + 128 / 4) * 4


def test_a_network_without_blocks_of_equal_stride_is_refused() -> None:
    """EfficientNet paints by statistics unless asked otherwise, and then the error names the setting."""
    assert resolve(network="efficientnet_b0").style_loss == "covariance"
    with pytest.raises(
        SettingsError,
        match="style_loss: 'neighbours' is not allowed; write another one with efficientnet_b0",
    ):
        resolve({"style_loss": "neighbours"}, network="efficientnet_b0")


@pytest.mark.parametrize("style_loss", ["neighbours", "covariance"])
def test_activations_of_another_scale_and_order_change_nothing(
    weights: Mapping[str, Tensor], style_loss: str
) -> None:
    """Channels scaled by 7 and permuted, with the next layer's inputs inversely, leave the gradient the same."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    other = {name: tensor.double() for name, tensor in weights.items()}
    for name in ("features.0.weight", "features.0.bias"):
        other[name] = 7 * other[name][order]
    other["features.2.weight"] = other["features.2.weight"][:, order] / 7
    settings = settings_of(style_loss=style_loss, style_levels=2, content_layers={"relu2_2": 1.0})
    found = []
    for state in (weights, other):
        network = VGG(state, settings.layers).compute_in(torch.float64)
        image = random(1, 3, 45, 61, seed=3)
        if style_loss == "neighbours":
            pyramid = begun(network, settings)
        else:
            targets = TorchTargets(network, settings)
            pyramid = pyramid_of(random(1, 3, 45, 61), random(1, 3, 39, 53), settings, targets)
        found.append(whole(network, pyramid, image)[2])
    assert (
        float((found[0] - found[1]).norm() / found[0].norm()) < 1e-4
    )  # weights are rounded to float32


def test_samples_of_every_share_are_within_the_features() -> None:
    """For every share of a blend the chosen positions exist and are different; none or one more than asked for."""
    for length in range(1, 700, 7):
        for wanted in range(1, length + 1, 5):
            chosen = neighbours._thinned(torch.arange(length), length / wanted)
            assert int(chosen.max()) < length
            assert len(chosen.unique()) >= len(chosen) - 1
            assert 0 <= len(chosen) - wanted <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_finds_the_neighbours_of_the_cpu() -> None:
    """On a GPU, whose products are of float16 copies, at most one of a hundred features has another neighbour."""
    queries, keys = (
        random(1, 1, 3000, 256)[0, 0].float(),
        random(1, 1, 2000, 256, seed=3)[0, 0].float(),
    )
    wanted = nearest(queries, keys)
    found = nearest(queries.cuda(), keys.cuda(), block=1 << 20).cpu()
    assert (found == wanted).float().mean() >= 0.99


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_finds_the_targets_of_the_cpu(network: VGG) -> None:
    """In float64 nine of ten positions have the same target on both devices, and the same term within 1 %."""
    settings, cuda = settings_of(), torch.device("cuda")
    content, style = random(1, 3, 45, 61, seed=1), random(1, 3, 39, 53, seed=2)
    found = []
    for device in (torch.device("cpu"), cuda):
        network = network.to(device)
        maps = StyleMaps(network(style.to(device)), None, 1.0)
        matching = Matching(settings, content.to(device), [maps])
        pyramid = matching.begin(network, content.to(device))
        total = whole(network, pyramid, content.to(device))[1]
        found.append((pyramid.levels[0].directions["relu2_1"].unit.cpu(), float(total)))
    same = torch.isclose(found[0][0], found[1][0], atol=1e-6).all(1).double().mean()
    assert float(same) > 0.9
    assert found[1][1] == pytest.approx(found[0][1], rel=0.01)
