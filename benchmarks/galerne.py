"""Scaling Painting Style Transfer (Galerne, Raad, Lezama & Morel, EGSR 2024), written from the paper in plain PyTorch.

A contender of `benchmarks.peers` for large pictures. The picture is painted from coarse to fine, each scale twice as
large as the one before and begun with its enlarged result, by torch's L-BFGS with lr 1 and no line search. The content
term compares one layer; the style term compares Gram matrices, means and standard deviations. A picture larger than a
block is evaluated in blocks, with the exact gradient of the whole: a first pass without gradient adds up the statistics
of all blocks, a second one backpropagates the derivative by these statistics through each block.

Weights and targets, also the calibration of the terms, are those of the objective that all contenders have in common.
Blocks overlap by what the deepest layer sees, and no more: the least work that is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.plain_vgg import PlainVGG
from nst_daemon.engine.images import resize
from nst_daemon.engine.losses import Objective
from nst_daemon.engine.neighbours import Matching
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.scene import Scene
from nst_daemon.engine.tiles import Tile, tiles

#: Stored pairs of L-BFGS at the coarsest scale, and at the others, where their memory counts (the authors' code).
FIRST_HISTORY, HISTORY = 100, 10
#: The paper's iterations at the coarsest scale, and the least number at any scale; a scale has a third of those before.
ITERATIONS, LEAST = 600, 30


@dataclass(frozen=True)
class Sums:
    """Sums over the positions of a picture, or of some of its blocks.

    Attributes:
        squares: (), Σ (F − P)² of the content layer.
        products: Style layer → (N, N), Σ F Fᵀ.
        features: Style layer → (N,), Σ F.
    """

    squares: Tensor
    products: Mapping[str, Tensor]
    features: Mapping[str, Tensor]

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.squares + other.squares,
            {layer: own + other.products[layer] for layer, own in self.products.items()},
            {layer: own + other.features[layer] for layer, own in self.features.items()},
        )

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [self.squares, *self.products.values(), *self.features.values()]


class Loss:
    """The paper's objective of one scale, and its exact gradient in blocks.

    Args:
        objective: Its targets and weights; the preset is `spst` with `calibrate: auto`.
        network: In float32.
        side: The longest side of a block's own pixels.
    """

    def __init__(self, objective: Pyramid | Matching, network: PlainVGG, side: int) -> None:
        assert isinstance(objective, Pyramid)
        (level,) = objective.levels
        assert level.calibrated and len(level.content) == 1
        self.network, self.side = network, side
        self.targets: Objective = level
        self.weights = dict(zip(level.names, level.weights.tolist(), strict=True))
        ((self.content, self.wanted),) = level.content.items()

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The loss () and its gradient (1, 3, H, W) at a picture."""
        blocks = self._blocks(image)
        if len(blocks) == 1:
            pixels = image.detach().clone().requires_grad_()
            loss = self.value(self._sums(pixels, blocks[0]), image)
            return loss.detach(), torch.autograd.grad(loss, pixels)[0]
        sums = self.sums(image)
        leaves = [tensor.requires_grad_() for tensor in sums.tensors()]
        loss = self.value(sums, image)
        slopes = torch.autograd.grad(loss, leaves)
        gradient = torch.zeros_like(image)
        for block in blocks:
            pixels = image[(..., *block.area)].detach().clone().requires_grad_()
            own = self._sums(pixels, block).tensors()
            gradient[(..., *block.area)] += torch.autograd.grad(own, pixels, slopes)[0]
        return loss.detach(), gradient

    def sums(self, image: Tensor) -> Sums:
        """The sums of the whole picture, without gradient."""
        with torch.no_grad():
            first, *others = self._blocks(image)
            sums = self._sums(image[(..., *first.area)], first)
            for block in others:
                sums = sums + self._sums(image[(..., *block.area)], block)
        return sums

    def value(self, sums: Sums, image: Tensor) -> Tensor:
        """The loss () for the sums of a picture."""
        loss = self.weights[f"content {self.content}"] * (sums.squares / self.wanted.square().sum())
        for layer, A in self.targets.style.items():
            gram, mean = A.gram[0], A.mean[0]
            stride = 2 ** (int(layer[4]) - 1)
            count = (image.shape[-2] // stride) * (image.shape[-1] // stride)
            G, m = sums.products[layer] / count, sums.features[layer] / count
            term = (G - gram).square().sum() / gram.square().sum()
            least = 1e-6 * gram.diagonal().mean()
            deviation, wanted = (
                (second.diagonal() - first.square()).clamp_min(least).sqrt()
                for second, first in ((G, m), (gram, mean))
            )
            means = (m - mean).square().sum() / mean.square().sum()
            spreads = (deviation - wanted).square().sum() / wanted.square().sum()
            term = term + self.targets.settings.moments_weight * (means + spreads)
            loss = loss + self.weights[f"style {layer}"] * term
        return loss

    def _blocks(self, image: Tensor) -> list[Tile]:
        size = image.shape[-2], image.shape[-1]
        return list(tiles(size, self.side, self.network.names))

    def _sums(self, pixels: Tensor, block: Tile) -> Sums:
        """The sums over the block's own positions."""
        maps = self.network(pixels)
        at, inside = block.cells(self.content)
        difference = maps[self.content][(..., *inside)] - self.wanted[(..., *at)]
        products, features = {}, {}
        for layer in self.targets.style:
            F = maps[layer][(..., *block.cells(layer)[1])].flatten(2)[0]
            products[layer], features[layer] = F @ F.T, F.sum(1)
        return Sums(difference.square().sum(), products, features)


def paint(scene: Scene, network: PlainVGG, evaluations: int, side: int) -> Iterator[Tensor | None]:
    """Paint; yields the picture after each iteration at full size, and None after the others.

    Args:
        scene: With the scales of the preset `spst`.
        network: In float32.
        evaluations: At the coarsest scale, 600 in the paper.
        side: Of blocks.
    """
    image = scene.start
    counts = iterations(len(scene.scales), evaluations)
    for index, (scale, count) in enumerate(zip(scene.scales, counts, strict=True)):
        image = resize(image.detach(), scale.size).clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [image],
            lr=1,
            max_iter=1,
            history_size=HISTORY if index else FIRST_HISTORY,
            tolerance_grad=0,
            tolerance_change=0,
        )
        loss = Loss(scale.objective, network, side)

        def closure(loss: Loss = loss, image: Tensor = image) -> Tensor:
            total, image.grad = loss(image.detach())
            return total

        for _ in range(count):
            optimizer.step(closure)  # type: ignore[arg-type]
            yield image.detach() if index == len(scene.scales) - 1 else None


def iterations(scales: int, first: int) -> list[int]:
    """The iterations of each scale, in the paper's proportions: 600, 200, 66, 30, 30, …."""
    return [
        max(1, round(max(ITERATIONS // 3**index, LEAST) * first / ITERATIONS))
        for index in range(scales)
    ]
