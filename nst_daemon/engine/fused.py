"""Triton kernels for the parts of an evaluation whose time on a GPU is that of reading and writing memory.

Each does in one pass what torch does in several. Nothing here waits for the GPU, so all of it may be captured in a CUDA
graph after a first run, which compiles. Maps are (1, N, h, w) or (B, N, h, w) with N a power of two; they are read
fastest if they are channels last. `engine.fusion` decides when these are used, and imports this module only then.
"""

# ruff: noqa: PLR0917, PLR0124 (kernels take pointers and strides one by one; NaN differs from itself)
from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nst_daemon.errors import first_line
from nst_daemon.files import default_cache_dir

try:
    import triton
    import triton.language as tl
except ImportError:  # only torch's CUDA wheels for Linux need it
    triton = None

log = logging.getLogger(__name__)

#: Elements of a map in a program's block, and the warps that handle them.
ELEMENTS, WARPS = 4096, 4


@cache
def available() -> bool:
    """Whether the kernels can be used: there are Triton, a CUDA GPU and the C compiler that Triton needs.

    The first call compiles kernels, for bfloat16, which not all GPUs have, so it must not be part of a capture.
    Compiled kernels are kept in TRITON_CACHE_DIR, which is set if it is not.
    """
    if triton is None or torch.version.hip is not None or not torch.cuda.is_available():
        return False
    try:
        os.environ.setdefault("TRITON_CACHE_DIR", str(default_cache_dir() / "triton"))
        x = torch.zeros(1, 64, 2, 2, dtype=torch.bfloat16, device="cuda")
        cosine_distances(max_pool2(x), x[0, :, 0, 0].float(), x, (slice(1), slice(1)))
    except Exception as error:  # noqa: BLE001 (torch's own functions do the same)
        log.warning("fused GPU kernels are not used: %s", first_line(error))
        return False
    return True


def cosine_distances(
    features: Tensor, mean: Tensor, unit: Tensor, window: tuple[slice, slice]
) -> Tensor:
    """Σ_p (1 − cos(F_p − μ, T_p)) () over positions p, float32, as `losses.cosine_distances`.

    Only the features get a gradient.

    Args:
        features: F (1, N, h, w), float32 or bfloat16; may be a window of a larger map.
        mean: μ (N,), float32.
        unit: T (1, N, H, W), directions of length 1 for the whole picture, float32 or bfloat16.
        window: The place of these positions in the picture's map.
    """
    total: Tensor = _Cosine.apply(features, mean, unit[(..., *window)])  # type: ignore[no-untyped-call]
    return total


def max_pool2(x: Tensor) -> Tensor:
    """The maxima (B, N, h // 2, w // 2), channels last, of windows of 2 × 2 of x (B, N, h, w).

    The gradient goes to the first maximum of a window in row-major order. NaN is a maximum.
    """
    last = x.contiguous(memory_format=torch.channels_last)
    y: Tensor = _MaxPool.apply(last)  # type: ignore[no-untyped-call]
    return y


class _Cosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, F: Tensor, mean: Tensor, T: Tensor) -> Tensor:
        ctx.save_for_backward(F, mean, T)
        _, N, h, w = F.shape
        block = _block(N)
        partial = mean.new_empty(h * -(-w // block), dtype=torch.float32)
        with _device_of(F):
            _cosine[(partial.numel(),)](
                F, T, mean, partial, w, *F.stride()[1:], *T.stride()[1:], N, block, num_warps=WARPS
            )
        return partial.sum()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        F, mean, T = ctx.saved_tensors
        _, N, h, w = F.shape
        block = _block(N)
        last = F.stride(1) == 1
        order = torch.channels_last if last else torch.contiguous_format
        found = torch.empty(F.shape, dtype=F.dtype, device=F.device, memory_format=order)
        with _device_of(F):
            _cosine_backward[(h * -(-w // block),)](
                F, T, mean, slope, found, w, *F.stride()[1:], *T.stride()[1:], *found.stride()[1:], N, block,
                num_warps=WARPS,
            )  # fmt: skip
        return found, None, None


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        B, N, h, w = x.shape
        y = x.new_empty((B, h // 2, w // 2, N)).permute(0, 3, 1, 2)
        block = _block(2 * N)
        with _device_of(x):
            _max_pool[(B * (h // 2) * -(-(w // 2) // block),)](
                x, y, h, w, N, block, num_warps=WARPS
            )
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        slope = slope.contiguous(memory_format=torch.channels_last)
        B, N, h, w = x.shape
        found = torch.empty_like(x)
        block = _block(2 * N)
        # Also the last row and column of odd sides, which are in no window.
        with _device_of(x):
            _max_pool_backward[(B * -(-h // 2) * -(-w // (2 * block)),)](
                x, slope, found, h, w, N, block, num_warps=WARPS
            )
        return found


def _device_of(x: Tensor) -> Any:
    """A context in which the GPU of x is the current one, on which Triton launches."""
    return torch.cuda.device_of(x)  # type: ignore[no-untyped-call]


def _block(N: int) -> int:
    """The positions of N channels in a block."""
    return max(ELEMENTS // N, 1)


def _jit(kernel: Callable[..., Any]) -> Any:
    """The kernel as Triton compiles it; without Triton as it is, never to be called."""
    return kernel if triton is None else triton.jit(kernel)


# Kernels: offsets are int64, as a map may have more than 2³¹ elements. A block of a map is (BLOCK, N), some positions
# × all channels. `sc, sy, sx` are strides; Triton compiles a stride of 1 as a constant.


@_jit
def _place(width: tl.tensor, BLOCK: tl.constexpr) -> tl.tuple:
    """The row () and the columns (BLOCK,) of this program, in a map of this width."""
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    return (program // blocks).to(tl.int64), program % blocks * BLOCK + tl.arange(0, BLOCK)


@_jit
def _offsets(
    y: tl.tensor, x: tl.tensor, sc: tl.tensor, sy: tl.tensor, sx: tl.tensor, N: tl.constexpr
) -> tl.tensor:
    """(BLOCK, N), of the channels at row y and columns x."""
    channels = tl.arange(0, N).to(tl.int64)
    return y * sy + (x.to(tl.int64) * sx)[:, None] + (channels * sc)[None, :]


@_jit
def _cosine(
    f: tl.tensor, t: tl.tensor, mean: tl.tensor, partial: tl.tensor, width: tl.tensor,
    fc: tl.tensor, fy: tl.tensor, fx: tl.tensor, tc: tl.tensor, ty: tl.tensor, tx: tl.tensor,
    N: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    y, x = _place(width, BLOCK)
    inside = (x < width)[:, None]
    F = tl.load(f + _offsets(y, x, fc, fy, fx, N), inside, 0.0).to(tl.float32)
    T = tl.load(t + _offsets(y, x, tc, ty, tx, N), inside, 0.0).to(tl.float32)
    c = F - tl.load(mean + tl.arange(0, N)).to(tl.float32)[None, :]
    n = tl.maximum(tl.sqrt(tl.sum(c * c, 1)), 1e-12)
    distances = tl.where(x < width, 1.0 - tl.sum(c * T, 1) / n, 0.0)
    tl.store(partial + tl.program_id(0), tl.sum(distances, 0))


@_jit
def _cosine_backward(
    f: tl.tensor, t: tl.tensor, mean: tl.tensor, slope: tl.tensor, found: tl.tensor, width: tl.tensor,
    fc: tl.tensor, fy: tl.tensor, fx: tl.tensor, tc: tl.tensor, ty: tl.tensor, tx: tl.tensor,
    gc: tl.tensor, gy: tl.tensor, gx: tl.tensor,
    N: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    y, x = _place(width, BLOCK)
    inside = (x < width)[:, None]
    F = tl.load(f + _offsets(y, x, fc, fy, fx, N), inside, 0.0).to(tl.float32)
    T = tl.load(t + _offsets(y, x, tc, ty, tx, N), inside, 0.0).to(tl.float32)
    c = F - tl.load(mean + tl.arange(0, N)).to(tl.float32)[None, :]
    norm = tl.sqrt(tl.sum(c * c, 1))
    n = tl.maximum(norm, 1e-12)
    # Below 1e-12 nnf.normalize divides by a constant.
    along = tl.where(norm >= 1e-12, tl.sum(c * T, 1) / n / n, 0.0)
    gradient = (along[:, None] * c - T) * (tl.load(slope).to(tl.float32) / n)[:, None]
    tl.store(found + _offsets(y, x, gc, gy, gx, N), gradient.to(found.dtype.element_ty), inside)


@_jit
def _larger(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """The larger one, or NaN."""
    return tl.where((b > a) | (b != b), b, a)


@_jit
def _max_pool(
    x: tl.tensor, y: tl.tensor, h: tl.tensor, w: tl.tensor, N: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    row, column = _place(w // 2, BLOCK)  # row: of all pictures
    inside = (column < w // 2)[:, None]
    top = row // (h // 2) * h + row % (h // 2) * 2
    at = x + _offsets(top, 2 * column, 1, w * N, N, N)
    below = at + w * N
    upper = _larger(tl.load(at, inside, 0.0), tl.load(at + N, inside, 0.0))
    lower = _larger(tl.load(below, inside, 0.0), tl.load(below + N, inside, 0.0))
    out = y + _offsets(row, column, 1, w // 2 * N, N, N)
    tl.store(out, _larger(upper, lower), inside)


@_jit
def _max_pool_backward(
    x: tl.tensor, slope: tl.tensor, found: tl.tensor, h: tl.tensor, w: tl.tensor,
    N: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    rows = tl.cdiv(h, 2)
    row, column = _place(tl.cdiv(w, 2), BLOCK)
    picture, row = row // rows, row % rows
    whole = ((row < h // 2) & (column < w // 2))[:, None]  # the windows of 2 × 2
    down, right = 2 * row + 1 < h, (2 * column + 1 < w)[:, None]
    inside = (2 * column < w)[:, None]
    at = _offsets(picture * h + 2 * row, 2 * column, 1, w * N, N, N)
    below = at + w * N
    a, b = tl.load(x + at, whole, 0.0), tl.load(x + at + N, whole, 0.0)
    c, d = tl.load(x + below, whole, 0.0), tl.load(x + below + N, whole, 0.0)
    most = _larger(_larger(a, b), _larger(c, d))
    source = _offsets(picture * (h // 2) + row, column, 1, w // 2 * N, N, N)
    g = tl.load(slope + source, whole, 0.0)
    zero = tl.zeros_like(g)
    at_a = (a == most) | (a != a)
    at_b = ((b == most) | (b != b)) & ~at_a
    at_c = ((c == most) | (c != c)) & ~(at_a | at_b)
    at_d = ~(at_a | at_b | at_c)
    tl.store(found + at, tl.where(at_a, g, zero), inside)
    tl.store(found + at + N, tl.where(at_b, g, zero), right)
    tl.store(found + below, tl.where(at_c, g, zero), inside & down)
    tl.store(found + below + N, tl.where(at_d, g, zero), right & down)
