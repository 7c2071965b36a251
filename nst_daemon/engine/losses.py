"""The terms of the objective as plain functions, and the statistics that they compare.

Symbols, for one layer with N channels and M positions: F are the activations of the picture being painted and P those
of the content, as (1, N, h, w); Ĝ and Â are the Gram matrices of the picture and of the style *per position*, so that
a style of any size can be compared; D̂ = Σ_ij (Ĝ − Â)².

Every term but tv is a function of sums over positions (`Sums`), so the sums of tiles add up to those of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.engine.directions import (
    WHOLE,
    Directions,
    SharedDirections,
    Window,
    cosine_distances,
    precise,
)
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.settings import RenderSettings

#: Values that are converted to a wider type at a time.
CONVERTED = 1 << 26
#: The least energy of a covariance as a divisor, relative to that of the Gram matrix.
LEAST_COVARIANCE = 0.01


@dataclass(frozen=True)
class StyleStatistics:
    """The statistics of a style at one layer, for R guide regions (1 without a guide).

    Attributes:
        gram: (R, N, N), second moments per position, float32.
        mean: (R, N), channel means.
    """

    gram: Tensor
    mean: Tensor


class TargetSource(Protocol):
    """Computes targets. Pictures are (1, 3, H, W), float32 RGB in [0, 1]."""

    def content(self, image: Tensor) -> Mapping[str, Tensor]:
        """Activations (1, N, h, w) at the content layers."""

    def style(self, image: Tensor, guide: Tensor | None = None) -> Mapping[str, StyleStatistics]:
        """Statistics at the style layers; the guide (1, R, H, W) gives the weight of each region at each pixel."""


@dataclass(frozen=True)
class StyleSums:
    """Sums over the positions p of one layer; F_p are the N activations at p, w_p their weights.

    Attributes:
        products: (R, N, N), Σ w_p F_p F_pᵀ.
        features: (R, N), Σ w_p F_p.
        weight: (R,), Σ w_p.
    """

    products: Tensor
    features: Tensor
    weight: Tensor

    def __add__(self, other: StyleSums) -> StyleSums:
        return StyleSums(
            self.products + other.products,
            self.features + other.features,
            self.weight + other.weight,
        )

    def statistics(self) -> StyleStatistics:
        """Second moments G and means μ per position; 0 for an empty region."""
        w = self.weight.clamp_min(1e-8)[:, None]
        return StyleStatistics(self.products / w[:, None], self.features / w)


@dataclass(frozen=True)
class Sums:
    """What the terms need of the activations.

    Attributes:
        distances: Layer → the sum () of distances over its positions: Σ (F − P)², or of cosine distances.
        style: Layer → sums of its style statistics.
    """

    distances: Mapping[str, Tensor] = field(default_factory=dict)
    style: Mapping[str, StyleSums] = field(default_factory=dict)

    def __add__(self, other: Sums) -> Sums:
        """The sums of two tiles, or of two sets of layers."""
        return Sums(_added(self.distances, other.distances), _added(self.style, other.style))

    def tensors(self) -> list[Tensor]:
        """The tensors that depend on the activations."""
        moments = [part for sums in self.style.values() for part in (sums.products, sums.features)]
        return [*self.distances.values(), *moments]


T = TypeVar("T", Tensor, StyleSums)


def _added(a: Mapping[str, T], b: Mapping[str, T]) -> dict[str, T]:
    return {**a, **{layer: a[layer] + found if layer in a else found for layer, found in b.items()}}


def style_sums(features: Tensor, guide: Tensor | None = None) -> StyleSums:
    """The sums over the positions of a map, in float32, or in float64 if the map is.

    Args:
        features: (1, N, h, w).
        guide: (1, R, h, w), weights w ≥ 0; None for one region of equal weights.
    """
    if guide is None:
        products, added = cast("Any", _Moments).apply(features)
        return StyleSums(products[None], added[None], added.new_full((1,), features[0, 0].numel()))
    F = precise(features).flatten(2)[0]  # (N, M)
    w = guide.to(F.dtype).flatten(2)[0]  # (R, M)
    return StyleSums(torch.stack([(F * row) @ F.T for row in w]), w @ F.T, w.sum(1))


def statistics(features: Tensor, guide: Tensor | None = None) -> StyleStatistics:
    """Second moments and means over positions, G = Σ_p w_p F_p F_pᵀ / Σ_p w_p and μ = Σ_p w_p F_p / Σ_p w_p.

    Gatys et al. 2016; with a guide: Gatys et al. 2017, Controlling Perceptual Factors, eq. 4, here per position. For
    the arguments see `style_sums`.
    """
    return style_sums(features, guide).statistics()


def _energy(x: Tensor) -> Tensor:
    """Σ x² () of a tensor (…, h, w), summed as `precise` says, without memory for the squares.

    A large tensor of a narrower type is converted some rows at a time.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    rows = max(1, (x.shape[-2] * CONVERTED) // x.numel())
    parts = torch.split(x, rows, -2)
    norms = torch.stack([torch.linalg.vector_norm(part, dtype=wide) for part in parts])
    return norms.square().sum()


class _Moments(torch.autograd.Function):
    """F Fᵀ (N, N) and the sums (N,) over the positions of a map (1, N, h, w), as `precise` says.

    The general derivatives would cost twice as much. The gradient is computed in the type of the map, which it has
    anyway.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features)
        F = precise(features).flatten(2)[0]
        return F @ F.T, F.sum(1)

    @staticmethod
    def backward(ctx: Any, products: Tensor, added: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        F = features.flatten(2)[0]
        factors = (products + products.T).to(F.dtype)
        gradient = torch.addmm(added.to(F.dtype)[None], F.T, factors)  # (M, N), in the maps' order
        return gradient.T.reshape(features.shape)


def content_loss(squares: Tensor, count: int, form: str) -> Tensor:
    """The content term of a layer.

    Args:
        squares: (), Σ (F − P)².
        count: N·M, the number of activations.
        form: `sum`: Σ (F − P)²; `half-sum`: half of it (Gatys et al. 2016, eq. 1); `mean`: divided by N·M.
    """
    match form:
        case "mean":
            return squares / count
        case "half-sum":
            return 0.5 * squares
        case _:
            return squares


def gram_loss(G: Tensor, A: Tensor, positions: Tensor, form: str) -> Tensor:
    """The Gram term k·D̂ (R,) of a layer, D̂ = Σ_ij (G − A)², for each region.

    Args:
        G: (R, N, N), Gram matrices of the picture per position.
        A: (R, N, N), those of the style.
        positions: (), the number M of positions of the picture.
        form: k is 1 for `sum`, 1/N² for `mean`, 1/(4N²) for `quarter-mean` (Gatys et al. 2016, eq. 4), 1/N⁴ for
            `channels` (Johnson's neural-style) and M/N³ for `elements`.
    """
    return gram_factor(G.shape[-1], positions, form) * (G - A).square().sum((1, 2))


def gram_factor(N: int, M: Tensor, form: str) -> float | Tensor:
    """The factor k of `gram_loss` for N channels and M positions."""
    if form == "elements":
        return M / N**3
    return {"sum": 1.0, "mean": 1 / N**2, "quarter-mean": 1 / (4 * N**2), "channels": 1 / N**4}[
        form
    ]


def mean_loss(F: StyleStatistics, A: StyleStatistics) -> Tensor:
    """‖μ'‖²·‖μ − μ'‖² (R,), the distance of channel means in the units of a Gram distance, for each region."""
    return A.mean.square().sum(1) * (F.mean - A.mean).square().sum(1)


def moments_loss(F: StyleStatistics, A: StyleStatistics, *, relative: bool) -> Tensor:
    """The distance (R,) of channel means μ and standard deviations σ, for each region (Galerne et al. 2024, §4).

    N²·(mean (μ − μ')² + mean (σ − σ')²), which matches a Gram term of the form `mean` and layer weights of 1/N²; the
    weight 10 is that of their code (`wmeanstd` 1000). `relative` instead gives Σ(μ − μ')²/Σμ'² + Σ(σ − σ')²/Σσ'²,
    whatever the scale of the activations.

    Args:
        F: Statistics of the picture.
        A: Those of the style.
        relative: Divide by the style's.
    """
    found = torch.stack([F.mean, _deviations(F, A)])  # (2, R, N)
    wanted = torch.stack([A.mean, _deviations(A, A)])
    squares = (found - wanted).square()
    if relative:
        return (squares.sum(2) / wanted.square().sum(2).clamp_min(1e-30)).sum(0)
    return F.mean.shape[-1] ** 2 * squares.mean(2).sum(0)


def _deviations(S: StyleStatistics, of: StyleStatistics) -> Tensor:
    """The channels' standard deviations (R, N); variances below 1e-6 of the mean second moment are set to that.

    The root's derivative would be infinite for a channel that is constant (not in the source).
    """
    second = of.gram.diagonal(dim1=-2, dim2=-1)
    least = 1e-6 * second.mean(1, keepdim=True).clamp_min(1e-30)
    variance = S.gram.diagonal(dim1=-2, dim2=-1) - S.mean.square()
    return torch.maximum(variance, least).sqrt()


def tv_loss(image: Tensor, form: str) -> Tensor:
    """The total variation of a picture.

    Args:
        image: (1, 3, H, W) in [0, 1].
        form: `absolute`: Σ|Δx| + Σ|Δy|; `squared`: ΣΔx² + ΣΔy²; `nine-point`: ⅔(mean Δx² + mean Δy²) + ⅙ of the mean
            squared differences along both diagonals, with replicated edges (crowsonkb, style-transfer-pytorch).
    """
    if form == "nine-point":
        x = nnf.pad(image, (0, 1, 0, 1), mode="replicate")
        here, right, down, diagonal = (
            x[..., :-1, :-1], x[..., :-1, 1:], x[..., 1:, :-1], x[..., 1:, 1:]
        )  # fmt: skip
        straight = (right - here).square().mean() + (down - here).square().mean()
        slanted = (diagonal - here).square().mean() + (right - down).square().mean()
        return straight * 2 / 3 + slanted / 6
    dx = image[..., :, 1:] - image[..., :, :-1]
    dy = image[..., 1:, :] - image[..., :-1, :]
    if form == "absolute":
        return dx.abs().sum() + dy.abs().sum()
    return dx.square().sum() + dy.square().sum()


@dataclass(frozen=True)
class Gaussian:
    """A style as a normal distribution: its mean (R, N) and the symmetric root (R, N, N) of its covariance."""

    mean: Tensor
    root: Tensor


def gaussian(S: StyleStatistics, epsilon: Tensor) -> Gaussian:
    """The normal distribution with these moments, εI with ε (R,) added to its covariance; without gradient."""
    values, vectors = torch.linalg.eigh(_covariance(S, epsilon).detach())
    return Gaussian(S.mean, (vectors * values.clamp_min(0).sqrt()[:, None, :]) @ vectors.mT)


def wasserstein_loss(F: StyleStatistics, style: Gaussian, epsilon: Tensor) -> Tensor:
    """The squared Wasserstein-2 distance (R,) of two Gaussians, divided by N, for each region.

    mean (μ − μ')² + mean diag(C + C' − 2(C'^½ C C'^½)^½) with the covariances C = G − μμᵀ + εI (crowsonkb,
    style-transfer-pytorch). The trace of a root is the sum of the roots of the eigenvalues. Their derivative stays
    finite for equal eigenvalues, unlike that of the eigenvectors.

    Args:
        F: Statistics of the picture.
        style: The style's Gaussian.
        epsilon: (R,), added to the variances.
    """
    C, root = _covariance(F, epsilon), style.root
    least = epsilon.square()[:, None]
    overlap = torch.linalg.eigvalsh(root @ C @ root).clamp_min(least).sqrt().sum(1)
    traces = _trace(C) + _trace(root @ root)
    distance: Tensor = (F.mean - style.mean).square().sum(1) + traces - 2 * overlap
    return distance / F.mean.shape[-1]


def covariance(S: StyleStatistics) -> Tensor:
    """C = G − μμᵀ (R, N, N), for each region."""
    return S.gram - S.mean[:, :, None] * S.mean[:, None, :]


def _covariance(S: StyleStatistics, epsilon: Tensor) -> Tensor:
    eye = torch.eye(S.mean.shape[-1], device=S.mean.device, dtype=S.mean.dtype)
    return covariance(S) + epsilon[:, None, None] * eye


def _trace(C: Tensor) -> Tensor:
    """(R,) of (R, N, N)."""
    return C.diagonal(dim1=-2, dim2=-1).sum(1)


class Objective:
    """The objective α·Σ_l w_l·content_l + β·Σ_l w_l·style_l + γ·tv of one scale, as a vector of terms and weights.

    With `calibrate: auto` a content term is Σ(F − P)²/ΣP² and a style term D̂/ΣÂ², whatever their forms, and tv is
    divided by the number of values in the picture. A covariance term is half the relative distance of covariances and
    half that of means. Then the balance depends neither on the scale of the network's
    activations nor on the size of the picture. A region counts in proportion to its area, so content and style are
    balanced in it as in a picture of its own (our choice: Gatys et al. 2017 leave the regions' weights open).

    An objective may be one level of a pyramid (`engine.pyramid`): then it has a share in each term.

    Args:
        content: Content layer → P (1, N, h, w), kept in float16 if it is; layers without a share may be missing.
        style: Style layer → statistics; those of several styles are already blended. Layers without a share may be
            missing.
        settings: Weights and forms.
        guides: Style layer → the weight (1, R, h, w) of each region at each position; missing for one region.
        shares: Term → the factor on it, at least one of them above 0; a missing term has none. 1 for all terms unless
            given.
        directions: Style layer → the target of `style_loss: neighbours`, instead of content and style.

    Attributes:
        names: Of the terms: "content relu4_2", "style relu1_1", …, "tv".
        weights: (terms,), `RenderSettings.term_weights`.
        energies: The divisors of the terms, () of content and tv, (R,) of style.
    """

    def __init__(
        self,
        content: Mapping[str, Tensor],
        style: Mapping[str, StyleStatistics],
        settings: RenderSettings,
        guides: Mapping[str, Tensor] | None = None,
        *,
        shares: Mapping[str, float] | None = None,
        directions: Mapping[str, Directions | SharedDirections] | None = None,
    ) -> None:
        self.settings = settings
        weights = settings.term_weights
        self.names = tuple(weights)
        self.shares = dict.fromkeys(weights, 1.0) if shares is None else dict(shares)
        self.content = {
            layer: content[layer]
            if content[layer].dtype == torch.float16
            else precise(content[layer])
            for layer in settings.content_layers
            if f"content {layer}" in self.shares
        }
        self.style = {
            layer: style[layer]
            for layer in settings.style_layers
            if f"style {layer}" in self.shares and not directions
        }
        self.directions = dict(directions or {})
        self.guides = guides or {}
        means = [target.mean for target in self.style.values()]
        means += [target.mean for target in self.directions.values()]
        some = next(iter([*self.content.values(), *means]))
        wide = torch.promote_types(some.dtype, torch.float32)
        self.weights = torch.tensor(list(weights.values()), device=some.device, dtype=wide)
        self.calibrated = settings.calibrate == "auto"
        self.energies = self._energies()
        self.covariances = {
            layer: covariance(S)
            for layer, S in self.style.items()
            if settings.style_loss == "covariance"
        }
        self.gaussians = {
            layer: gaussian(S, self._epsilon(layer))
            for layer, S in self.style.items()
            if settings.style_loss == "wasserstein"
        }

    def __call__(self, features: Mapping[str, Tensor], image: Tensor) -> Tensor:
        """The unweighted terms (terms,) of features, layer → (1, N, h, w), and their image (1, 3, H, W) in [0, 1]."""
        return self.terms(self.sums(features), image)

    def sums(
        self, features: Mapping[str, Tensor], windows: Mapping[str, Window] | None = None
    ) -> Sums:
        """What the terms need of some or all layers.

        Args:
            features: Layer → (1, N, h, w), of the whole picture or of a tile's own positions.
            windows: Layer → the place of those positions in the whole picture's map.
        """
        at = windows or dict.fromkeys(features, WHOLE)
        distances = {
            layer: (precise(features[layer]) - P[(..., *at[layer])]).square().sum()
            for layer, P in self.content.items()
            if layer in features
        }
        distances |= {
            layer: cosine_distances(features[layer], D, at[layer])
            for layer, D in self.directions.items()
            if layer in features
        }
        style = {
            layer: style_sums(features[layer], self._guide(layer, at[layer]))
            for layer in self.style
            if layer in features
        }
        return Sums(distances, style)

    def terms(self, sums: Sums, image: Tensor) -> Tensor:
        """The unweighted terms (terms,) times their shares, from the sums over the whole picture."""
        terms = {f"content {k}": self._content(k, sums.distances[k]) for k in self.content}
        for layer, D in self.directions.items():
            terms[f"style {layer}"] = sums.distances[layer] / D.positions
        terms |= {f"style {k}": self._style(k, sums.style[k]) for k in self.style}
        if "tv" in self.shares:
            terms["tv"] = self._tv(image)
        none = self.weights.new_zeros(())
        values = torch.stack(
            [
                self.shares[name] * terms[name] if name in terms else none.to(image.dtype)
                for name in self.names
            ]
        )
        # 0, or NaN if a pixel is not finite. Such a pixel must show in the terms, because painting only looks at
        # these, but a fused convolution's ReLU may make 0 of NaN (`fusion.conv_relu`), and tv may have no weight.
        # Squares are infinite from 1e19 on, far below the pixels whose activations overflow: these grow by some
        # powers of ten through a network, and float32 and bfloat16 end at 3e38.
        return values + 0 * _energy(image.detach())

    def terms_at_zero(self, image: Tensor) -> Tensor:
        """The terms (terms,) for activations that are all zero; image (1, 3, H, W) gives the size and tv."""
        style = {}
        for layer, A in self.style.items():
            stride = minimum_side([layer])
            positions = (image.shape[-2] // stride) * (image.shape[-1] // stride)
            weight = positions * self._areas(layer)
            style[layer] = StyleSums(torch.zeros_like(A.gram), torch.zeros_like(A.mean), weight)
        distances = {layer: _energy(P) for layer, P in self.content.items()}
        for layer, D in self.directions.items():
            distances[layer] = D.distance_at_zero()
        return self.terms(Sums(distances, style), image)

    def by_name(self, values: Tensor) -> dict[str, float]:
        """The terms as numbers, with `content` = Σ w·content_l, `style` = Σ w·style_l and the weighted `total`.

        Waits for the device.
        """
        terms = dict(zip(self.names, values.tolist(), strict=True))
        s = self.settings
        content = sum(w * terms.get(f"content {k}", 0.0) for k, w in s.content_layers.items())
        style = sum(w * terms[f"style {k}"] for k, w in s.style_layers.items())
        total = sum(w * terms[name] for name, w in s.term_weights.items())
        return {"total": total, "content": content, "style": style, **terms}

    def _content(self, layer: str, squares: Tensor) -> Tensor:
        form = "sum" if self.calibrated else self.settings.content_loss
        loss = content_loss(squares, self.content[layer].numel(), form)
        return loss / self.energies[f"content {layer}"]

    def _style(self, layer: str, sums: StyleSums) -> Tensor:
        painted = sums.statistics()
        if self.settings.style_loss == "wasserstein":
            each = wasserstein_loss(painted, self.gaussians[layer], self._epsilon(layer))
            each = each / self.energies[f"style {layer}"]
        else:
            each = self._distance(layer, painted, sums.weight.sum())
        if moments := self.settings.moments_weight:
            distance = moments_loss(painted, self.style[layer], relative=self.calibrated)
            each = each + moments * distance
        return (self._areas(layer) * each).sum()

    def _distance(self, layer: str, painted: StyleStatistics, positions: Tensor) -> Tensor:
        """The distance (R,) of Gram matrices, or of covariances and means."""
        A, form = self.style[layer], "sum" if self.calibrated else self.settings.gram_norm
        energy = self.energies[f"style {layer}"]
        if self.settings.style_loss == "gram":
            return gram_loss(painted.gram, A.gram, positions, form) / energy
        spread = gram_loss(covariance(painted), self.covariances[layer], positions, form) / energy
        if not self.calibrated:
            factor = gram_factor(A.gram.shape[-1], positions, form)
            return spread + factor * mean_loss(painted, A)
        length = A.mean.square().sum(1)
        return 0.5 * spread + 0.5 * mean_loss(painted, A) / length.square().clamp_min(1e-30)

    def _guide(self, layer: str, window: Window) -> Tensor | None:
        return self.guides[layer][(..., *window)] if layer in self.guides else None

    def _areas(self, layer: str) -> Tensor:
        """(R,), the fraction of the picture that each region covers."""
        if layer in self.guides:
            return self.guides[layer].mean((0, 2, 3))
        return torch.ones_like(self.style[layer].mean[:, 0])

    def _epsilon(self, layer: str) -> Tensor:
        """(R,), added to covariances to keep them positive: 1e-4 (crowsonkb), calibrated like the terms."""
        return 1e-4 * self.energies[f"style {layer}"]

    def _tv(self, image: Tensor) -> Tensor:
        tv = tv_loss(image, self.settings.tv)
        mean = self.settings.tv == "nine-point" or not self.calibrated
        return tv if mean else tv / image.numel()

    def _energies(self) -> dict[str, Tensor]:
        """The squares of the targets' norms, 1 in place of 0; all 1 without calibration."""
        energies = {f"content {k}": _energy(P) for k, P in self.content.items()}
        energies |= {f"style {k}": self._style_energy(A) for k, A in self.style.items()}
        energies["tv"] = torch.ones_like(self.weights[0])
        if not self.calibrated:
            return {name: torch.ones_like(energy) for name, energy in energies.items()}
        return {name: torch.where(e > 0, e, torch.ones_like(e)) for name, e in energies.items()}

    def _style_energy(self, A: StyleStatistics) -> Tensor:
        """(R,): ΣÂ², or that of the covariance; for Wasserstein the mean of the second moments."""
        gram = A.gram.square().sum((1, 2))
        match self.settings.style_loss:
            case "wasserstein":
                return _trace(A.gram) / A.mean.shape[-1]
            case "covariance":
                # A style of one flat colour has hardly any covariance to be relative to.
                return torch.maximum(covariance(A).square().sum((1, 2)), LEAST_COVARIANCE * gram)
            case _:
                return gram
