"""3×3 convolutions with a quarter of the multiplications, for CPUs (Lavin & Gray 2016, F(4×4, 3×3)).

A tile of 4×4 outputs needs 6×6 inputs d. With the matrices A, B, G of the paper it is Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A: one
product for each of 36 transformed positions instead of 144. Over channels the ⊙ becomes 36 matrix products of
(tiles, C) with (C, K), which are fast on a CPU. In float32 the result is within 1e-5 of the largest value. In bfloat16
its error is 1.7 % (root mean square; 2 % for the gradient; direct: 0.3 %), which only a short optimisation tolerates.

torch has no such convolution for CPUs any more; for wide layers this one takes 0.45 to 0.85 of the time of its direct
one (`python -m benchmarks.convolutions`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, cast

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nst_daemon.engine.device import cpu_supports

#: Bᵀ, G and Aᵀ of F(4×4, 3×3), with the points 0, 1, −1, ½, −2 and ∞. The paper's §4.2 has ±2 instead of ½ and −2:
#: errors are half as large again with them. All factors of Bᵀ and Aᵀ, and products of two, are exact in bfloat16. They
#: are applied along rows and along columns at once, as one matrix over flattened tiles.
_INPUT = torch.tensor(
    [
        [1, -3 / 2, -2, 3 / 2, 1, 0],
        [0, -1, 1 / 2, 5 / 2, 1, 0],
        [0, 1, -5 / 2, 1 / 2, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 1 / 2, -1, -1 / 2, 1, 0],
        [0, 1, -3 / 2, -2, 3 / 2, 1],
    ],
    dtype=torch.float64,
)
KERNEL = torch.tensor(
    [
        [1, 0, 0],
        [1 / 3, 1 / 3, 1 / 3],
        [-1 / 3, 1 / 3, -1 / 3],
        [-16 / 15, -8 / 15, -4 / 15],
        [1 / 15, -2 / 15, 4 / 15],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 1 / 2, -2, 0],
        [0, 1, 1, 1 / 4, 4, 0],
        [0, 1, -1, 1 / 8, -8, 1],
    ],
    dtype=torch.float64,
)
INPUT, OUTPUT = torch.kron(_INPUT, _INPUT), torch.kron(_OUTPUT, _OUTPUT)
#: The transformed position (point 1, point 1), which counts once in each output: a constant is added there.
CONSTANT = 7
#: Values that the transformed inputs or outputs of one strip of tiles may have: more would exceed the CPU's cache.
STRIP = 1 << 22


def pays(conv: nn.Conv2d, x: Tensor) -> bool:
    """True if it is faster than the direct convolution of x (B, C, H, W), and worth its kernels' memory (measured).

    For narrow layers the transforms cost too much. Wide layers have large transformed kernels, which do not pay for
    small maps: at 160 px, block 4 would take 108 MB in float32 to save a tenth of the time. In bfloat16 it is for
    CPUs with AVX512-BF16: with AMX direct convolutions are several times as fast, and without either torch's products
    are slow.
    """
    if x.dtype == torch.bfloat16:
        outputs, suitable = 128, cpu_supports("avx512_bf16") and not cpu_supports("amx_tile")
    else:
        outputs, suitable = 256, x.dtype == torch.float32
    wide = conv.in_channels >= 128 and conv.out_channels >= outputs
    return suitable and wide and x.shape[-2] * x.shape[-1] >= max(256, conv.in_channels)


def transformed(weight: Tensor) -> Tensor:
    """The kernels (K, C, 3, 3) as `convolve` needs them: G g Gᵀ, (36, C, K), four times the memory."""
    K, C = weight.shape[:2]
    kernels = weight.new_empty(36, C, K)
    # A few at a time, written in place: the C library's heap would keep larger temporaries.
    for here in range(0, K, 16):
        g = weight[here : here + 16].double()
        part = torch.einsum("ai,kcij,bj->abck", KERNEL, g, KERNEL)
        kernels[:, :, here : here + 16] = part.flatten(0, 1)
    return kernels


def convolve(
    x: Tensor, kernels: Tensor, bias: Tensor, *, relu: bool = False, masked: bool = False
) -> Tensor:
    """Convolve with zero padding. Differentiable once, in x only; keeps no inputs for the backward pass.

    Args:
        x: (B, C, H, W).
        kernels: (36, C, K), from `transformed`.
        bias: (K,).
        relu: Set negative results to 0.
        masked: As that of `fusion.conv_relu`.

    Returns:
        (B, K, H, W), channels last.
    """
    how = relu, relu and not masked
    convolved: Tensor = cast("Any", _Convolution).apply(x, kernels, bias, how)
    return convolved


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernels: Tensor, bias: Tensor, how: tuple[bool, bool]
    ) -> Tensor:
        relu, masks = how
        y = _like(x, kernels.shape[2])
        for image, into in zip(_last(x), _last(y), strict=True):
            _forward(image, kernels, bias, into, relu=relu)
        ctx.save_for_backward(kernels, *((y,) if masks else ()))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        kernels, *outputs = ctx.saved_tensors
        for y in outputs:
            gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        found = _like(gradient, kernels.shape[1])
        for image, into in zip(_last(gradient), _last(found), strict=True):
            _adjoint(image, kernels, into)
        return found, None, None, None


def _like(x: Tensor, channels: int) -> Tensor:
    """Memory for (B, channels, H, W), channels last."""
    size = (x.shape[0], channels, *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)


def _last(x: Tensor) -> Iterator[Tensor]:
    """Each picture of (B, C, H, W) as (H, W, C)."""
    return iter(x.permute(0, 2, 3, 1))


def _forward(x: Tensor, kernels: Tensor, bias: Tensor, into: Tensor, *, relu: bool) -> None:
    """Convolve (H, W, C), and write the result into (H, W, K), contiguous."""
    (H, W, C), K = x.shape, kernels.shape[2]
    rows, columns = -(-H // 4), -(-W // 4)
    to_tiles, from_tiles = INPUT.to(x), OUTPUT.to(x)
    padded = nnf.pad(x, (0, 0, 1, 4 * columns + 1 - W, 1, 4 * rows + 1 - H)).contiguous()
    whole = not (H % 4 or W % 4)
    out = into if whole else x.new_empty(4 * rows, 4 * columns, K)
    places = out.view(rows, 4, columns, 4, K)
    for here, k in _strips(rows, columns * max(C, K)):
        tiles = _tiles(padded[4 * here :], k, columns, 6).reshape(36, -1)
        products = torch.bmm((to_tiles @ tiles).view(36, k * columns, C), kernels)
        products[CONSTANT] += bias
        painted = (from_tiles @ products.view(36, -1)).view(4, 4, k, columns, K)
        painted = painted.permute(2, 0, 3, 1, 4)
        if relu:
            torch.clamp_min(painted, 0, out=places[here : here + k])
        else:
            places[here : here + k] = painted
    if not whole:
        into.copy_(out[:H, :W])


def _adjoint(g: Tensor, kernels: Tensor, into: Tensor) -> None:
    """The transpose of `_forward`: (H, W, K) to (H, W, C). Tiles overlap in the input, so their parts add up."""
    (H, W, K), C = g.shape, kernels.shape[1]
    rows, columns = -(-H // 4), -(-W // 4)
    to_tiles, from_tiles = OUTPUT.T.to(g), INPUT.T.to(g)
    padded = nnf.pad(g, (0, 0, 0, 4 * columns - W, 0, 4 * rows - H)).contiguous()
    out = g.new_zeros(4 * rows + 4, 4 * columns + 4, C)
    for here, k in _strips(rows, columns * max(C, K)):
        tiles = _tiles(padded[4 * here :], k, columns, 4).reshape(16, -1)
        products = torch.bmm((to_tiles @ tiles).view(36, k * columns, K), kernels.mT)
        shares = (from_tiles @ products.view(36, -1)).view(6, 6, k, columns, C)
        # The first four rows and columns lie in the tile's own place, the last two in the next tile's.
        for i, j in product((0, 4), repeat=2):
            part = shares[i : i + 4, j : j + 4]
            place = _tiles(out[4 * here + i :, j:], k, columns, 4)
            place[: part.shape[0], : part.shape[1]] += part
    into.copy_(out[1 : H + 1, 1 : W + 1])


def _strips(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """(first row of tiles, number of rows) of each strip; `width`: values of a row of tiles at one position."""
    step = max(1, STRIP // (36 * width))
    return ((here, min(step, rows - here)) for here in range(0, rows, step))


def _tiles(x: Tensor, rows: int, columns: int, side: int) -> Tensor:
    """A view (side, side, rows, columns, C): tiles of side × side at every fourth position of (H, W, C)."""
    down, right, _ = x.stride()
    size = (side, side, rows, columns, x.shape[2])
    return x.as_strided(size, (down, right, 4 * down, 4 * right, 1), x.storage_offset())
