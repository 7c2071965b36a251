"""The operations of `engine.fused` for a CPU, by torch's own: each with a gradient that is written down, not recorded.

Recorded operation by operation, cosine distances read and write maps in float32 some twenty times, which took as long
as two convolutions; here a block of positions stays in the CPU's cache. Pooling keeps no indices, which are four times
as large as the map that it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nst_daemon.engine.blocks import blocks

#: Values in a block of positions.
BLOCK = 1 << 20
#: Lengths below this are divided by it (`torch.nn.functional.normalize`).
LEAST = 1e-12


def cosine_distances(features: Tensor, mean: Tensor, unit: Tensor) -> Tensor:
    """Σ_p (1 − cos(F_p − μ, T_p)) () over positions p, float32, as `directions.cosine_distances`.

    Only the features get a gradient.

    Args:
        features: F (1, N, h, w), float32 or bfloat16; may be a window of a larger map.
        mean: μ (N,), float32.
        unit: T (1, N, h, w), directions of length 1 at the same positions, float32 or bfloat16.
    """
    total: Tensor = cast("Any", _CosineInBlocks).apply(features, mean, unit)
    return total


def max_pool2(x: Tensor) -> Tensor:
    """The maxima (B, N, h // 2, w // 2) of windows of 2 × 2 of x (B, N, h, w), which comes from a ReLU.

    The gradient goes to the first maximum of a window in row-major order, and nowhere if that is 0: then the ReLU
    before need not look for the zeros of a larger map (`fusion.pools_mask`). NaN is a maximum.
    """
    y: Tensor = cast("Any", _MaxPoolOfRelu).apply(x)
    return y


class _CosineInBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, mean: Tensor, unit: Tensor) -> Tensor:
        F, T = _last(features), _last(unit)
        lengths, cosines = mean.new_empty(F.shape[:2]), mean.new_empty(F.shape[:2])
        for here, centred, directions in _rows(F, mean, T):
            torch.linalg.vector_norm(centred, dim=2, out=lengths[here])
            torch.sum(centred.mul_(directions), 2, out=cosines[here])
        cosines /= lengths.clamp_min(LEAST)
        ctx.save_for_backward(features, mean, unit, lengths, cosines)
        return cosines.numel() - cosines.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        """By F it is (cos·(F − μ)/n − T)/n with n = ‖F − μ‖; below `LEAST` n is a constant."""
        features, mean, unit, lengths, cosines = ctx.saved_tensors
        F, T = _last(features), _last(unit)
        inverse = lengths.clamp_min(LEAST).reciprocal_()
        across = -slope * inverse
        along = torch.where(lengths >= LEAST, slope * cosines * inverse.square(), 0.0)
        found = torch.empty_like(features, memory_format=torch.channels_last)
        into = _last(found)
        for here, centred, directions in _rows(F, mean, T):
            centred.mul_(along[here][..., None])
            into[here] = centred.addcmul_(directions, across[here][..., None])
        return found, None, None


class _MaxPoolOfRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _maxima(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        y = _maxima(x)
        slope = torch.ops.aten.threshold_backward(slope, y, 0)
        found = torch.empty_like(x)
        found[..., y.shape[2] * 2 :, :] = 0  # the last row and column of odd sides are in no window
        found[..., y.shape[3] * 2 :] = 0
        corners, into, below = _corners(x), _corners(found), torch.empty_like(y)
        for corner, place in zip(corners[:3], into, strict=False):
            # The gradient is left to the next corners where this one is below the maximum.
            torch.sub(y, corner, out=below)
            left = torch.ops.aten.threshold_backward(slope, below, 0)
            torch.sub(slope, left, out=place)
            slope = left
        into[3].copy_(slope)
        return found


def _last(x: Tensor) -> Tensor:
    """(1, N, h, w) as (h, w, N)."""
    return x[0].permute(1, 2, 0)


def _rows(F: Tensor, mean: Tensor, T: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some rows of F less μ (N,), and of T, both (h, w, N), at a time; those of F in the memory of the ones before.

    Both in μ's type: operations of mixed types are not vectorised.
    """
    h, w, N = F.shape
    step = min(h, max(1, BLOCK // (w * N)))
    block = mean.new_empty(step, w, N)
    for here in blocks(h, step):
        centred = block[: here.stop - here.start].copy_(F[here]).sub_(mean)
        yield here, centred, T[here].to(block.dtype)


def _maxima(x: Tensor) -> Tensor:
    """(B, N, h // 2, w // 2) of windows of 2 × 2."""
    a, b, c, d = _corners(x)
    y, lower = torch.maximum(a, b), torch.maximum(c, d)
    return torch.maximum(y, lower, out=y)


def _corners(x: Tensor) -> list[Tensor]:
    """The four values of each window of 2 × 2 of (B, N, h, w) in row-major order, (B, N, h // 2, w // 2) each."""
    h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    return [x[..., i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)]
