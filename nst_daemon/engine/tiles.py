"""A picture in tiles, with the exact gradient of the whole: the size is bounded by time, not by memory.

Each tile computes the pixels and cells of its core, and reads a halo around it that is so wide that no cell of the
core sees beyond it. Cores begin at multiples of the deepest layer's stride, so pooling halves a tile where it halves
the picture. The last core of a row or column ends at the picture's edge, where the network pads a tile as it would pad
the picture. Padding at a tile's other borders reaches no further than the halo.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import product
from math import ceil

import torch
from torch import Tensor

from nst_daemon.engine.directions import Window
from nst_daemon.engine.evaluation import sums_of
from nst_daemon.engine.losses import Objective, Sums, tv_loss
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.pyramid import AtLevels, Evaluated, Pyramid
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import SettingsError

#: Rows of a picture whose total variation is computed at a time.
STRIP = 256


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        area: The rows and columns of the picture that it reads: its core and the halo.
        core: The rows and columns that it computes.
    """

    area: Window
    core: Window

    def cells(self, layer: str) -> tuple[Window, Window]:
        """The core's positions at a layer: in the map of the whole picture, and in the map of the area."""
        stride = minimum_side([layer])
        rows, columns = (
            (
                slice(core.start // stride, core.stop // stride),
                slice((core.start - area.start) // stride, (core.stop - area.start) // stride),
            )
            for core, area in zip(self.core, self.area, strict=True)
        )
        return (rows[0], columns[0]), (rows[1], columns[1])


def tiles(size: tuple[int, int], side: int, names: Iterable[str]) -> Iterator[Tile]:
    """Tiles that cover a picture, with cores of about equal size.

    Args:
        size: (height, width) of the picture in pixels.
        side: Longest side of a core in pixels.
        names: Of the network's modules up to the deepest layer in use.
    """
    names = tuple(names)
    around = minimum_side(names), margin(names)
    rows, columns = (list(_spans(length, side, *around)) for length in size)
    for (top, row), (left, column) in product(rows, columns):
        yield Tile((top, left), (row, column))


def halo(names: Iterable[str]) -> int:
    """How many pixels the cells of a network's last map see beyond the pixels under them.

    Each 3 × 3 convolution sees one cell further; a cell of block b is 2^(b−1) pixels wide.

    Raises:
        SettingsError: The network is EfficientNet, whose cells see the whole picture.
    """
    names = tuple(names)
    if "stem" in names:
        raise SettingsError(
            "efficientnet_b0 cannot paint in tiles: each of its cells sees the whole picture",
            remedy="choose a smaller size, or vgg19",
        )
    return sum(minimum_side([name]) for name in names if name.startswith("conv"))


def margin(names: Iterable[str]) -> int:
    """The width of a tile's halo in pixels: `halo`, rounded up to the deepest layer's stride."""
    names = tuple(names)
    stride = minimum_side(names)
    return ceil(halo(names) / stride) * stride


def _spans(length: int, side: int, stride: int, around: int) -> Iterator[tuple[slice, slice]]:
    """(area, core) along one axis."""
    longest = max(1, side // stride) * stride
    count = ceil(length / longest)
    step = ceil(length / count / stride) * stride
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(max(0, start - around), min(stop + around, length)), slice(start, stop)


@dataclass(frozen=True)
class Tiled:
    """An `Evaluation` in tiles whose cores are at most `side` pixels long.

    The total is a function of sums over positions. Its derivative by the sums is the same for any picture if the
    objective only adds up distances. If it compares statistics, a first pass without gradient adds up the sums over the
    tiles' cores. The other pass backpropagates the derivative through each tile from the tile's own sums, and adds the
    gradient of its pixels, including the halo, to the picture's gradient. Total variation is computed in strips.
    """

    side: int

    def __call__(self, network: VGG, pyramid: Pyramid, image: Tensor) -> Evaluated:
        return AtLevels(self.level)(network, pyramid, image)

    def level(self, network: VGG, objective: Objective, image: Tensor) -> Evaluated:
        """One level."""
        image = image.detach()
        plan = list(tiles((image.shape[-2], image.shape[-1]), self.side, network.names))
        apart = _without_tv(objective)
        distances = {
            layer: image.new_zeros(()) for layer in (*objective.content, *objective.directions)
        }
        sums = Sums() if objective.style else Sums(distances)
        if objective.style:
            with torch.no_grad():
                for tile in plan:
                    sums += self._sums(network, objective, tile, image[(..., *tile.area)])
        with torch.enable_grad():
            leaves = [leaf.requires_grad_() for leaf in sums.tensors()]
            values = apart.terms(sums, image)
            slopes = torch.autograd.grad(values @ objective.weights, leaves, materialize_grads=True)
        variation, gradient = _total_variation(objective, image)
        for tile in plan:
            pixels = image[(..., *tile.area)].clone().requires_grad_()
            with torch.enable_grad():
                part = self._sums(network, objective, tile, pixels)
                (found,) = torch.autograd.grad(part.tensors(), pixels, slopes)
            gradient[(..., *tile.area)] += found
            for layer, distance in part.distances.items():
                distances[layer] = distances[layer].detach() + distance.detach()
        if not objective.style:
            values = apart.terms(Sums(distances), image)
        values = values.detach() + variation
        return values, values @ objective.weights, gradient

    def _sums(self, network: VGG, objective: Objective, tile: Tile, pixels: Tensor) -> Sums:
        """The sums over the tile's core; pixels (1, 3, h, w) are its area."""
        cells = {layer: tile.cells(layer) for layer in network.layers}
        return sums_of(network, objective, pixels, cells=cells)


def _without_tv(objective: Objective) -> Objective:
    """The same objective without its total variation."""
    other = copy(objective)
    other.shares = {name: share for name, share in objective.shares.items() if name != "tv"}
    return other


def _total_variation(objective: Objective, image: Tensor) -> tuple[Tensor, Tensor]:
    """The objective's terms (terms,) with nothing but the total variation, and the gradient of their weighted sum.

    A strip and the row below it have the variation of that row, and what the strip adds to it.
    """
    gradient, total = torch.zeros_like(image), image.new_zeros(())
    settings, number = objective.settings, objective.names.index("tv")
    mean, share = settings.tv == "nine-point", objective.shares.get("tv", 0.0)
    values = torch.zeros_like(objective.weights)
    if not share:
        return values, gradient
    factor = share / (image.numel() if mean or objective.calibrated else 1)

    def added_up(rows: Tensor) -> Tensor:
        loss = tv_loss(rows, settings.tv)
        return loss * rows.numel() if mean else loss

    for top in range(0, image.shape[-2], STRIP):
        end = top + STRIP
        rows = image[..., top : end + 1, :].clone().requires_grad_(settings.tv_weight != 0)
        with torch.enable_grad():
            found = factor * added_up(rows)
            if end < image.shape[-2]:
                found = found - factor * added_up(rows[..., STRIP:, :])
            if settings.tv_weight:
                slope = settings.tv_weight * torch.autograd.grad(found, rows)[0]
                gradient[..., top : end + 1, :] += slope
        total += found.detach()
    values[number] = total
    return values, gradient
