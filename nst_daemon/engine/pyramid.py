"""The objective of one scale as a pyramid: style statistics of the picture and of smaller and smaller copies of it.

At half the size the network sees strokes of twice the size (Snelgrove 2017, High-Resolution Multi-Scale Neural Texture
Synthesis). With D_k, the reduction to level k, the objective is L(x) = Σ_k L_k(D_k x) and its gradient is
Σ_k D_kᵀ ∇L_k(D_k x). The style is reduced by the same D_k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.engine.images import size_of
from nst_daemon.engine.losses import Objective
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.pictures.raster import Size

#: A reduced level is left out if the map of the deepest layer has fewer positions than this along a side.
LEAST_POSITIONS = 2

#: Terms (terms,), their weighted sum () and its gradient (1, 3, h, w).
Evaluated = tuple[Tensor, Tensor, Tensor]


def reduced(image: Tensor) -> Tensor:
    """(B, C, H, W) at half the size, odd sides rounded up: bicubic, antialiased, and linear in the image."""
    return nnf.interpolate(
        image, size=half(size_of(image)), mode="bicubic", antialias=True, align_corners=False
    )


def half(size: Size) -> Size:
    """The size of `reduced`."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def reduced_guide(guide: Tensor) -> Tensor:
    """A guide (1, R, H, W) for the `reduced` picture; weights stay ≥ 0."""
    return nnf.interpolate(
        guide, size=half(size_of(guide)), mode="bilinear", antialias=True, align_corners=False
    )


def levels_of(image: Tensor, count: int) -> list[Tensor]:
    """The image and `count` − 1 reductions of it."""
    found = [image]
    while len(found) < count:
        found.append(reduced(found[-1]))
    return found


def shares(
    painted: Size, style: Size, settings: RenderSettings, *, limit: int
) -> list[dict[str, float]]:
    """The factor on each term at each level; over the levels the factors of a term sum to 1.

    Style layers take part in every level, the content in `content_level`, or the last one before it, tv in level 0.
    Levels at which the reduced picture or style is too small are left out.

    Args:
        painted: Of the picture at level 0.
        style: Of the smallest style at level 0.
        settings: Levels, their weights and the layers.
        limit: The largest number of levels.
    """
    least = LEAST_POSITIONS * minimum_side(settings.layers)
    count, side = 1, min(*painted, *style)
    while count < min(settings.style_levels, limit) and (side + 1) // 2 >= least:
        count, side = count + 1, (side + 1) // 2
    weights = (settings.style_level_weights or (1.0,) * settings.style_levels)[:count]
    if not any(weights):  # only levels that are left out have weights
        weights = (0.0,) * (count - 1) + (1.0,)
    found = [
        {f"style {layer}": weight / sum(weights) for layer in settings.style_layers if weight}
        for weight in weights
    ]
    compared = min(settings.content_level, count - 1)
    found[compared] |= {f"content {layer}": 1.0 for layer in settings.content_layers}
    found[0]["tv"] = 1.0
    while not found[-1]:
        found.pop()
    return found


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The objective of one scale.

    Attributes:
        levels: Level k is the objective of the picture reduced k times.
    """

    levels: tuple[Objective, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the terms; the same at each level."""
        return self.levels[0].names

    @property
    def weights(self) -> Tensor:
        """(terms,), the same at each level."""
        return self.levels[0].weights

    @property
    def energies(self) -> dict[str, Tensor]:
        """The divisors of the terms at each level, as in `Objective`; "style relu1_1 at 1/4" is that of level 2."""
        return {
            f"{name} at 1/{2**k}" if k else name: energy
            for k, level in enumerate(self.levels)
            for name, energy in level.energies.items()
            if name in level.shares
        }

    def begin(self, network: object, picture: Tensor) -> Pyramid:
        """The objective for a scale that begins with a picture: itself, as its targets do not depend on the picture."""
        return self

    def __call__(self, network: Callable[[Tensor], Mapping[str, Tensor]], image: Tensor) -> Tensor:
        """The terms (terms,) of a picture (1, 3, H, W): as an `Evaluation`, but for autograd."""
        pictures = levels_of(image, len(self.levels))
        each = [
            level(network(picture), picture)
            for level, picture in zip(self.levels, pictures, strict=True)
        ]
        return torch.stack(each).sum(0)

    def terms_at_zero(self, image: Tensor) -> Tensor:
        """The terms (terms,) for activations that are all zero; image (1, 3, H, W) gives sizes and tv."""
        pictures = levels_of(image, len(self.levels))
        each = [
            level.terms_at_zero(picture)
            for level, picture in zip(self.levels, pictures, strict=True)
        ]
        return torch.stack(each).sum(0)

    def by_name(self, values: Tensor) -> dict[str, float]:
        """As `Objective.by_name`: a term is the weighted mean of its values at the levels."""
        return self.levels[0].by_name(values)


@dataclass(frozen=True)
class AtLevels:
    """An evaluation of a pyramid, made of an evaluation of one level.

    Attributes:
        evaluation: Takes a network, the objective of a level and the picture of that level.
    """

    evaluation: Callable[..., Evaluated]

    def __call__(self, network: object, pyramid: Pyramid, image: Tensor) -> Evaluated:
        """Terms (terms,), total () and gradient (1, 3, H, W) at a picture (1, 3, H, W)."""

        def evaluate(k: int, picture: Tensor) -> Evaluated:
            return self.evaluation(network, pyramid.levels[k], picture)

        values, totals, gradient = over_levels(evaluate, image, len(pyramid.levels))
        return torch.stack(values).sum(0), torch.stack(totals).sum(0), gradient


def over_levels(
    evaluate: Callable[[int, Tensor], tuple[Tensor, Tensor, Tensor]], image: Tensor, count: int
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Evaluate each level of pictures, and add up the gradients at level 0.

    Args:
        evaluate: (k, pictures of level k) → values, totals and gradient.
        image: (B, 3, H, W).
        count: Number of levels.

    Returns:
        The values and totals of each level, and the gradient (B, 3, H, W).
    """
    if count == 1:
        values, total, gradient = evaluate(0, image)
        return [values], [total], gradient
    start = image.detach().requires_grad_()
    with torch.enable_grad():
        pictures = levels_of(start, count)
    found = [evaluate(k, picture.detach()) for k, picture in enumerate(pictures)]
    (gradient,) = torch.autograd.grad(pictures, start, [each[2] for each in found])
    return [each[0] for each in found], [each[1] for each in found], gradient
