"""The targets of `style_loss: neighbours`: directions towards which features are drawn, and the distance from them.

Symbols are those of `engine.losses`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.engine import fusion

#: Rows and columns of a map, or of the pixels of a picture.
Window = tuple[slice, slice]
WHOLE: Window = (slice(None), slice(None))


@dataclass(frozen=True)
class Directions:
    """What the features of one layer are drawn towards, as directions from a mean.

    Attributes:
        mean: (N,), of the style.
        unit: (1, N, h, w), of length 1 at each position of the picture.
    """

    mean: Tensor
    unit: Tensor

    @property
    def positions(self) -> int:
        """How many there are."""
        return self.unit[0, 0].numel()

    def at(self, window: Window) -> Tensor:
        """The directions (1, N, h', w') at some positions."""
        return self.unit[(..., *window)]

    def distance_at_zero(self) -> Tensor:
        """The sum () of the distances of activations that are all zero."""
        nothing = torch.zeros_like(self.unit[:, :, :1, :1]).expand_as(self.unit)
        return cosine_distances(nothing, self, WHOLE)


@dataclass(frozen=True)
class SharedDirections:
    """As `Directions`, for pictures whose directions do not fit into memory: many positions share one.

    Attributes:
        mean: (N,), of the style.
        table: (K·per², N), directions of length 1, in float16 if memory is short: for each of K places those at its
            per × per positions.
        places: (rows, columns), the place of each cell of the picture.
        per: Positions along the side of a cell.
        skip: Cells from one position to the next; above 1 only where `per` is 1.
        size: (h, w), positions of the picture.
    """

    mean: Tensor
    table: Tensor
    places: Tensor
    per: int
    skip: int
    size: tuple[int, int]

    @property
    def positions(self) -> int:
        """How many there are."""
        return self.size[0] * self.size[1]

    def at(self, window: Window) -> Tensor:
        """The directions (1, N, h', w') at some positions."""
        found = self.table[self._index(window)].to(self.mean.dtype)  # (h', w', N)
        return found.permute(2, 0, 1)[None]

    def distance_at_zero(self) -> Tensor:
        """The sum () of the distances of activations that are all zero."""
        along = self.table.to(self.mean.dtype) @ nnf.normalize(-self.mean, dim=0)
        rows = (slice(row, row + 1) for row in range(self.size[0]))
        each = [(1 - along[self._index((row, slice(None)))]).sum() for row in rows]
        return torch.stack(each).sum()

    def _index(self, window: Window) -> Tensor:
        """(h', w'), rows of the table."""
        y, x = (
            torch.arange(*axis.indices(length), device=self.places.device)
            for axis, length in zip(window, self.size, strict=True)
        )
        row, column = (
            (at * self.skip // self.per).clamp_max(length - 1)
            for at, length in zip((y, x), self.places.shape, strict=True)
        )
        place = self.places[row][:, column].long()
        return place * self.per**2 + (y % self.per * self.per)[:, None] + x % self.per


def cosine_distances(
    features: Tensor, target: Directions | SharedDirections, window: Window
) -> Tensor:
    """Σ_p (1 − cos(F_p − μ, T_p)) () over positions p (Kolkin et al. 2022, eq. 1).

    Args:
        features: (1, N, h, w).
        target: μ and the directions T of the whole picture.
        window: The place of these positions in the picture's map.
    """
    if fused := fusion.kernels_for(features):
        total: Tensor = fused.cosine_distances(features, target.mean, target.at(window))
        return total
    centred = precise(features) - target.mean[:, None, None]
    similarity = (nnf.normalize(centred, dim=1) * target.at(window)).sum(1)
    return (1 - similarity).sum()


def precise(x: Tensor) -> Tensor:
    """In float32, or in float64 if it is float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
