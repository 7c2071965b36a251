"""The terms of the objective as plain functions, and the statistics that they compare.

Symbols, for one layer: N channels, M positions; F the activations of the picture that is being painted, P those of the
content, as (1, N, h, w); Ĝ and Â the Gram matrices of the picture and of the style *per position*, so that a style of
any size can be compared; D̂ = Σ_ij (Ĝ − Â)².
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class StyleStatistics:
    """What a style looks like to one layer.

    gram: (R, N, N), second moments per position, float32; mean: (R, N), channel means; R: guide regions, 1 without a
    guide.
    """

    gram: Tensor
    mean: Tensor


class TargetSource(Protocol):
    """Whatever computes targets; pictures are (1, 3, H, W), float32 RGB in [0, 1]."""

    def content(self, image: Tensor) -> Mapping[str, Tensor]:
        """Activations (1, N, h, w) at the content layers."""

    def style(self, image: Tensor, guide: Tensor | None = None) -> Mapping[str, StyleStatistics]:
        """Statistics at the style layers; guide: (1, R, H, W), the weight of each region at each pixel."""


def statistics(features: Tensor, guide: Tensor | None = None) -> StyleStatistics:
    """Second moments and means over positions, G = Σ_p w_p F_p F_pᵀ / Σ_p w_p and μ = Σ_p w_p F_p / Σ_p w_p.

    features: (1, N, h, w); guide: (1, R, h, w) with w ≥ 0, or None for one region of equal weights (Gatys et al.
    2016; with a guide: Gatys et al. 2017, Controlling Perceptual Factors, eq. 4, here per position). float32.
    """
    F = features.float().flatten(2)[0]  # (N, M)
    if guide is None:
        M = F.shape[1]
        return StyleStatistics((F @ F.T / M)[None], F.mean(1)[None])
    w = guide.float().flatten(2)[0]  # (R, M)
    w = w / w.sum(1, keepdim=True)
    return StyleStatistics(torch.stack([(F * row) @ F.T for row in w]), w @ F.T)


def content_loss(F: Tensor, P: Tensor, form: str) -> Tensor:
    """Σ (F − P)² over N·M activations; `half-sum`: half of it (Gatys et al. 2016, eq. 1), `mean`: divided by N·M."""
    squared = (F.float() - P).square()
    match form:
        case "mean":
            return squared.mean()
        case "half-sum":
            return 0.5 * squared.sum()
        case _:
            return squared.sum()


def gram_loss(G: Tensor, A: Tensor, positions: int, form: str) -> Tensor:
    """k·D̂ with D̂ = Σ_ij (G − A)², G and A (R, N, N) per position, summed over regions.

    k for N channels and M = `positions` of the picture: `sum` 1, `mean` 1/N², `quarter-mean` 1/(4N²) (Gatys et al.
    2016, eq. 4), `channels` 1/N⁴ (Johnson's neural-style), `elements` M/N³.
    """
    N, M = G.shape[-1], positions
    k = {
        "sum": 1.0,
        "mean": 1 / N**2,
        "quarter-mean": 1 / (4 * N**2),
        "channels": 1 / N**4,
        "elements": M / N**3,
    }[form]
    return k * (G - A).square().sum()


def tv_loss(image: Tensor, form: str) -> Tensor:
    """Total variation of (1, 3, H, W) in [0, 1].

    `absolute`: Σ|Δx| + Σ|Δy|; `squared`: ΣΔx² + ΣΔy²; `nine-point`: ⅔(mean Δx² + mean Δy²) + ⅙ of the mean squares of
    the differences along both diagonals, edges replicated (crowsonkb, style-transfer-pytorch).
    """
    if form == "nine-point":
        x = torch.nn.functional.pad(image, (0, 1, 0, 1), mode="replicate")
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
