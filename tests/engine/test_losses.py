"""Every preset's formula against a float64 restatement, written from the sources' formulas and not from our code."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from nst_daemon.engine import losses
from nst_daemon.engine.losses import Objective, StyleStatistics, statistics, tv_loss
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.vgg import VGG
from tests.engine.conftest import TorchTargets

Maps = Mapping[str, Tensor]
Restated = Callable[[Maps, Maps, Maps, Tensor], Tensor]
FIVE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CHANNELS = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}


def flat(maps: Tensor) -> Tensor:
    """(1, N, h, w) to N×M."""
    return maps[0].reshape(maps.shape[1], -1)


def gram_distance(F: Tensor, S: Tensor) -> Tensor:
    """D̂ of a painted map and a style's, each Gram matrix over its own number of positions."""
    F, S = flat(F), flat(S)
    return ((F @ F.T / F.shape[1] - S @ S.T / S.shape[1]) ** 2).sum()


def gatys2016(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    content = 0.5 * ((F["relu4_2"] - P["relu4_2"]) ** 2).sum()
    style = sum(0.2 * gram_distance(F[k], S[k]) / (4 * F[k].shape[1] ** 2) for k in FIVE)
    return content + 1e3 * style


def gatys_pytorch(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    style = sum(
        1e3 / F[k].shape[1] ** 2 * gram_distance(F[k], S[k]) / F[k].shape[1] ** 2 for k in FIVE
    )
    return ((F["relu4_2"] - P["relu4_2"]) ** 2).mean() + style


def neural_style(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    pixels = 255 * image
    tv = (pixels[..., 1:] - pixels[..., :-1]).abs().sum()
    tv = tv + (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().sum()
    style = sum(gram_distance(F[k], S[k]) / F[k].shape[1] ** 4 for k in FIVE)
    return 5 * ((F["relu4_2"] - P["relu4_2"]) ** 2).mean() + 1e2 * style + 1e-3 * tv


def squared_tv(image: Tensor) -> Tensor:
    return ((image[..., 1:] - image[..., :-1]) ** 2).sum() + (
        (image[..., 1:, :] - image[..., :-1, :]) ** 2
    ).sum()


def maxpool_tv(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    layers = ("conv1_2", "relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4")
    style = torch.zeros((), dtype=torch.float64)
    for k, w in zip(layers, (1, 1, 0.8, 0.6, 0.4, 0.2), strict=True):
        N, M = flat(F[k]).shape
        style = style + w * gram_distance(F[k], S[k]) * M / N**3
    return ((F["relu3_4"] - P["relu3_4"]) ** 2).mean() + 1e3 * style + 1e-2 * squared_tv(image)


def noisy_adam(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    style = sum(0.2 * gram_distance(F[k], S[k]) for k in FIVE)
    return 0.5 * ((F["relu4_2"] - P["relu4_2"]) ** 2).sum() + 4 * style


def ratio(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    weights = zip(FIVE, (1, 0.75, 0.2, 0.2, 0.2), strict=True)
    style = sum(w * gram_distance(F[k], S[k]) / F[k].shape[1] ** 2 for k, w in weights)
    return 1e-6 * 0.5 * ((F["relu4_2"] - P["relu4_2"]) ** 2).sum() + style


def normalised_gram(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    weights = zip(FIVE[:4], (2e4, 500, 12, 1), strict=True)
    style = torch.zeros((), dtype=torch.float64)
    for k, w in weights:
        G, A = flat(F[k]), flat(S[k])
        N = G.shape[0]
        style = style + w * ((G @ G.T / G.shape[1] / N - A @ A.T / A.shape[1] / N) ** 2).sum()
    return 6e-2 * ((F["relu4_2"] - P["relu4_2"]) ** 2).sum() + style + 5e-2 * squared_tv(image)


def newton_schulz_root(A: Tensor) -> Tensor:
    """The principal square root by the coupled Newton–Schulz iteration, another way than eigenvalues."""
    norm = A.norm()
    Y, Z = A / norm, torch.eye(len(A), dtype=A.dtype)
    for _ in range(40):
        T = 0.5 * (3 * torch.eye(len(A), dtype=A.dtype) - Z @ Y)
        Y, Z = Y @ T, T @ Z
    return Y * norm.sqrt()


def covariance(F: Tensor) -> Tensor:
    centred = F - F.mean(1, keepdim=True)
    return centred @ centred.T / F.shape[1] + 1e-4 * torch.eye(len(F), dtype=F.dtype)


def wasserstein(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    style = torch.zeros((), dtype=torch.float64)
    for k, w in zip(FIVE, (256, 64, 16, 4, 1), strict=True):
        G, A = flat(F[k]), flat(S[k])
        C, root = covariance(G), newton_schulz_root(covariance(A))
        overlap = newton_schulz_root(root @ C @ root)
        means = ((G.mean(1) - A.mean(1)) ** 2).mean()
        style = style + w / 341 * (means + (C + covariance(A) - 2 * overlap).diagonal().mean())
    x = torch.nn.functional.pad(image, (0, 1, 0, 1), mode="replicate")
    dx = ((x[..., :-1, 1:] - x[..., :-1, :-1]) ** 2).mean()
    dy = ((x[..., 1:, :-1] - x[..., :-1, :-1]) ** 2).mean()
    d1 = ((x[..., 1:, 1:] - x[..., :-1, :-1]) ** 2).mean()
    d2 = ((x[..., 1:, :-1] - x[..., :-1, 1:]) ** 2).mean()
    tv = 2 * (2 / 3 * (dx + dy) + 1 / 6 * (d1 + d2))
    return 0.015 * ((F["relu4_2"] - P["relu4_2"]) ** 2).mean() + style + tv


def spst(F: Maps, P: Maps, S: Maps, image: Tensor) -> Tensor:
    total = gatys_pytorch(F, P, S, image)
    for k in FIVE:
        G, A = flat(F[k]), flat(S[k])
        total = total + 1e4 * ((G.mean(1) - A.mean(1)) ** 2).mean()
        total = total + 1e4 * ((G.std(1, correction=0) - A.std(1, correction=0)) ** 2).mean()
    return total


RESTATED: dict[str, Restated] = {
    "gatys2016": gatys2016,
    "gatys-pytorch": gatys_pytorch,
    "neural-style": neural_style,
    "maxpool-tv": maxpool_tv,
    "noisy-adam": noisy_adam,
    "ratio": ratio,
    "normalised-gram": normalised_gram,
    "spst": spst,
    "wasserstein": wasserstein,
}


def random_maps(
    layers: list[str], sizes: dict[int, tuple[int, int]], seed: int, thin: int
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = {}
    for layer in sorted(layers):
        block = int(layer[4])
        shape = (1, CHANNELS[block] // thin, *sizes[block])
        maps[layer] = torch.rand(shape, generator=generator, dtype=torch.float64)
    return maps


@pytest.mark.parametrize("preset", RESTATED)
def test_a_presets_objective_is_its_sources(preset: str) -> None:
    """Value and gradient equal the float64 restatement within 1e-4, at odd sizes, the style of another size."""
    settings = resolve({"preset": preset, "calibrate": "off"})
    thin = 16 if preset == "wasserstein" else 1  # a covariance needs more positions than channels
    painted = {1: (13, 17), 2: (7, 9), 3: (5, 7), 4: (5, 9), 5: (5, 7)}
    styled = {1: (11, 7), 2: (9, 5), 3: (5, 5), 4: (7, 7), 5: (9, 5)}
    layers = list(settings.layers)
    F, P = (random_maps(layers, painted, seed, thin) for seed in (1, 2))
    S = random_maps(layers, styled, 3, thin)
    image = torch.rand(1, 3, 13, 17, dtype=torch.float64)

    leaves = [*F.values(), image]
    for leaf in leaves:
        leaf.requires_grad_()
    expected = RESTATED[preset](F, P, S, image)
    gradients = torch.autograd.grad(expected, leaves, allow_unused=True)

    single = [leaf.detach().float().requires_grad_() for leaf in leaves]
    features = dict(zip(F, single, strict=False))
    objective = Objective(
        {k: v.float() for k, v in P.items()},
        {k: statistics(v.float()) for k, v in S.items()},
        settings,
    )
    total = objective(features, single[-1]) @ objective.weights
    torch.testing.assert_close(total.double(), expected.detach(), rtol=1e-4, atol=0)
    for name, ours, theirs in zip(
        [*F, "image"],
        torch.autograd.grad(total, single, allow_unused=True, materialize_grads=True),
        gradients,
        strict=True,
    ):
        wanted = torch.zeros_like(ours) if theirs is None else theirs
        error = (ours.double() - wanted).norm() / wanted.norm().clamp_min(1e-12)
        assert error < 1e-4, f"{name}: {error:.1e}"


def test_every_preset_but_ours_is_restated() -> None:
    """Every preset that is the formula of a source is restated."""
    from nst_daemon.engine.presets import PRESETS

    assert set(PRESETS) == {*RESTATED, "painting", "bold", "gentle", "sketch", "texture"}


def _layers_of(index: int) -> dict[str, float]:
    """A style layer that sees what convolution `index` brings."""
    return {"relu1_1" if index == 0 else "relu2_1": 1.0}


@pytest.mark.parametrize("style_loss", ["covariance", "gram", "wasserstein"])
@pytest.mark.parametrize("layer", [0, 5, 10, 21])  # conv1_1, conv2_1, conv3_1, conv4_2
def test_calibration_makes_the_scale_of_activations_irrelevant(
    weights: Mapping[str, Tensor], content: Tensor, style: Tensor, style_loss: str, layer: int
) -> None:
    """Scaling a layer, and the next layer's weights inversely, leaves a calibrated objective unchanged."""
    settings = resolve({"style_loss": style_loss})
    if (
        style_loss == "wasserstein"
    ):  # decomposing 512 × 512 covariances takes seconds and shows nothing more
        settings = resolve({"style_loss": style_loss, "style_layers": _layers_of(layer)})
    after = {0: 2, 5: 7, 10: 12, 21: 23}[layer]
    scaled = {k: v.float().clone() for k, v in weights.items()}
    scaled[f"features.{layer}.weight"] *= 7
    scaled[f"features.{layer}.bias"] *= 7
    scaled[f"features.{after}.weight"] /= 7
    image = (0.7 * content + 0.1)[None]

    def values(state: Mapping[str, Tensor]) -> Tensor:
        network = VGG(state, settings.layers)
        targets = TorchTargets(network, settings)
        objective = Objective(targets.content(content[None]), targets.style(style[None]), settings)
        return objective(network(image), image)

    torch.testing.assert_close(values(scaled), values(weights), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("style_loss", ["covariance", "gram"])
def test_a_calibrated_term_is_one_for_activations_that_are_zero(style_loss: str) -> None:
    """Whatever the target, content and style terms of an empty map are 1, and 0 where the map is the target."""
    settings = resolve(
        {
            "content_layers": {"relu1_1": 1.0},
            "style_layers": {"relu1_1": 1.0},
            "style_loss": style_loss,
        }
    )
    P = 5 * torch.rand(1, 4, 3, 5)
    objective = Objective({"relu1_1": P}, {"relu1_1": statistics(P)}, settings)
    image = torch.zeros(1, 3, 3, 5)
    assert objective({"relu1_1": torch.zeros_like(P)}, image).tolist() == pytest.approx([1, 1, 0])
    assert objective({"relu1_1": P}, image).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_the_total_is_the_sum_of_its_weighted_parts() -> None:
    """total = α·content + β·style + γ·tv, and equals the value that is minimised."""
    settings = resolve(
        {
            "style_loss": "gram",
            "content_style_ratio": 0.25,
            "style_weight": 2.0,
            "tv_weight": 0.5,
        }
    )
    maps = {k: torch.rand(1, 4, 3, 5) for k in settings.layers}
    objective = Objective(
        maps, {k: statistics(torch.rand(1, 4, 5, 5)) for k in settings.style_layers}, settings
    )
    values = objective({k: torch.rand(1, 4, 3, 5) for k in maps}, torch.rand(1, 3, 9, 9))
    named = objective.by_name(values)
    parts = 0.5 * named["content"] + 2.0 * named["style"] + 0.5 * named["tv"]
    assert named["total"] == pytest.approx(parts)
    assert named["total"] == pytest.approx(float(values @ objective.weights), rel=1e-5)


def test_a_guide_counts_each_position_by_its_weight() -> None:
    """A region's statistics are those of its own positions, soft weights being shares of a position."""
    F = torch.rand(1, 3, 2, 4, dtype=torch.float64)
    guide = torch.zeros(1, 2, 2, 4)
    guide[0, 0, :, :2] = 1
    guide[0, 1, :, 2:] = 0.25
    found = statistics(F, guide)
    for region, part in enumerate((F[..., :2], F[..., 2:])):
        alone = statistics(part)
        torch.testing.assert_close(found.gram[region], alone.gram[0])
        torch.testing.assert_close(found.mean[region], alone.mean[0])


def test_statistics_do_not_depend_on_the_number_of_positions() -> None:
    """A map repeated side by side has the statistics of the map."""
    F = torch.rand(1, 5, 3, 7)
    once, twice = statistics(F), statistics(torch.cat([F, F], 3))
    torch.testing.assert_close(once.gram, twice.gram)
    torch.testing.assert_close(once.mean, twice.mean)
    assert isinstance(once, StyleStatistics)
    assert once.gram.shape == (1, 5, 5)


def test_bare_covariances_and_means_have_the_units_of_a_gram_distance() -> None:
    """Without calibration the term is k·(‖C − C'‖² + ‖μ'‖²·‖μ − μ'‖²), restated in float64."""
    settings = resolve(
        {"content_layers": {"relu1_1": 1.0}, "style_layers": {"relu1_1": 1.0}},
        {"calibrate": "off", "style_loss": "covariance", "gram_norm": "quarter-mean"},
    )
    F, S = (torch.rand(1, 4, 6, 9, dtype=torch.float64) for _ in range(2))
    objective = Objective({"relu1_1": F}, {"relu1_1": statistics(S)}, settings)
    found = objective({"relu1_1": F}, torch.rand(1, 3, 6, 9, dtype=torch.float64))
    f, s = flat(F), flat(S)
    C, B = torch.cov(f, correction=0), torch.cov(s, correction=0)
    means = ((f.mean(1) - s.mean(1)) ** 2).sum() * (s.mean(1) ** 2).sum()
    expected = (((C - B) ** 2).sum() + means) / (4 * 4**2)
    torch.testing.assert_close(found[objective.names.index("style relu1_1")], expected)


def test_a_flat_style_leaves_the_term_finite() -> None:
    """A style without any variance gives finite terms and gradients."""
    settings = resolve(
        {
            "style_loss": "covariance",
            "content_layers": {"relu1_1": 1.0},
            "style_layers": {"relu1_1": 1.0},
        }
    )
    F = torch.rand(1, 4, 6, 9).requires_grad_()
    style = statistics(torch.full((1, 4, 5, 5), 0.5))
    objective = Objective({"relu1_1": F.detach()}, {"relu1_1": style}, settings)
    terms = objective({"relu1_1": F}, torch.rand(1, 3, 6, 9))
    (gradient,) = torch.autograd.grad(terms.sum(), F)
    assert terms.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize(("form", "expected"), [("absolute", 3 * 2.0), ("squared", 3 * 2.0)])
def test_total_variation_of_one_bright_corner(form: str, expected: float) -> None:
    """One pixel of 1 in a corner differs from two neighbours, in each of three channels."""
    image = torch.zeros(1, 3, 4, 5)
    image[..., 0, 0] = 1
    assert tv_loss(image, form).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "extra",
    [{}, {"style_loss": "gram"}, {"style_loss": "wasserstein"}, {"calibrate": "off"}],
)
def test_the_sums_of_parts_are_those_of_the_whole(extra: dict[str, object]) -> None:
    """Terms from sums that were taken over two unequal parts of the maps equal those of the whole maps."""
    layers = {"content_layers": {"relu2_1": 1}, "style_layers": {"relu1_1": 1}}
    settings = resolve({"style_loss": "covariance", **layers}, extra)
    F, P = (
        {
            layer: torch.rand(1, 4, 6, 9, dtype=torch.float64, generator=generator)
            for layer in settings.layers
        }
        for generator in (torch.Generator().manual_seed(seed) for seed in (1, 2))
    )
    image = torch.rand(1, 3, 6, 9, dtype=torch.float64)
    objective = Objective(P, {k: statistics(P[k]) for k in settings.style_layers}, settings)
    parts = [
        objective.sums(
            {layer: F[layer][..., columns] for layer in F},
            dict.fromkeys(F, (slice(None), columns)),
        )
        for columns in (slice(0, 4), slice(4, 9))
    ]
    found = objective.terms(parts[0] + parts[1], image)
    torch.testing.assert_close(found, objective(F, image), rtol=1e-12, atol=0)


@pytest.mark.parametrize("calibrate", ["auto", "off"])
@pytest.mark.parametrize("gram_norm", ["mean", "elements"])
def test_terms_at_zero_are_those_of_zero_activations(calibrate: str, gram_norm: str) -> None:
    """`terms_at_zero` gives the terms of zero activations at the sizes of the picture's maps."""
    settings = resolve(
        {"content_layers": {"relu2_1": 1}, "style_layers": {"relu1_1": 1, "relu3_1": 1}},
        {"calibrate": calibrate, "gram_norm": gram_norm, "style_loss": "gram"},
    )
    sizes = {"relu1_1": (9, 11), "relu2_1": (4, 5), "relu3_1": (2, 2)}
    P = {layer: torch.rand(1, 4, *size) for layer, size in sizes.items()}
    image = torch.rand(1, 3, 9, 11)
    objective = Objective(P, {k: statistics(P[k]) for k in settings.style_layers}, settings)
    nothing = objective({layer: torch.zeros_like(m) for layer, m in P.items()}, image)
    torch.testing.assert_close(objective.terms_at_zero(image), nothing)


def test_an_energy_is_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Σ x² of float16 values, converted a few rows at a time, is that in float64."""
    x = torch.randn(1, 8, 50, 40, generator=torch.Generator().manual_seed(0)).half()
    monkeypatch.setattr(losses, "CONVERTED", 700)
    wanted = float(x.double().square().sum())
    assert float(losses._energy(x)) == pytest.approx(wanted, rel=1e-6)
