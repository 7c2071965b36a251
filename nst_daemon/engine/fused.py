"""Triton kernels for the parts of an evaluation whose time on a GPU is that of reading and writing memory.

Each does in one pass what torch does in several. Nothing here waits for the GPU, so all of it may be captured in a CUDA
graph after a first run, which compiles. Maps are (1, N, h, w) or (B, N, h, w) with N a power of two; they are read
fastest if they are channels last. `engine.fusion` decides when these are used, and imports this module only then.
"""

# ruff: noqa: PLR0917, PLR0124 (kernels take pointers and strides one by one; NaN differs from itself)
from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from nst_daemon.errors import first_line

try:
    import triton
    import triton.language as tl
except ImportError:  # only torch's CUDA wheels for Linux need it; the kernels are never called then
    triton = None
jit: Callable[[Any], Any] = triton.jit if triton else lambda kernel: kernel

log = logging.getLogger(__name__)

#: Elements of a map in a program's block, and the warps that handle them.
ELEMENTS, WARPS = 4096, 4


@cache
def problem() -> str:
    """Why the kernels cannot be used, in one line; "" if they can.

    They need Triton, an NVIDIA GPU, and what Triton builds its launcher with: a C compiler and Python's headers.
    The first call compiles kernels, for bfloat16, which not all GPUs have, so it must not be part of a capture.
    """
    if triton is None or torch.version.hip is not None or not torch.cuda.is_available():
        return "they need Triton and an NVIDIA GPU"
    try:
        with torch.enable_grad():
            x = torch.zeros(1, 64, 2, 2, dtype=torch.bfloat16, device="cuda", requires_grad=True)
            mean, unit = x.detach()[0, :, 0, 0].float(), x.detach()
            total = cosine_distances(max_pool2(x), mean, unit[..., :1, :1])
            torch.autograd.grad(total, x)
    except Exception as error:  # noqa: BLE001 (torch's own functions do the same)
        log.warning("fused GPU kernels are not used: %s", first_line(error))
        return first_line(error)
    return ""


def cosine_distances(features: Tensor, mean: Tensor, unit: Tensor) -> Tensor:
    """Σ_p (1 − cos(F_p − μ, T_p)) () over positions p, float32, as `directions.cosine_distances`.

    Only the features get a gradient.

    Args:
        features: F (1, N, h, w), float32 or bfloat16; may be a window of a larger map.
        mean: μ (N,), float32.
        unit: T (1, N, h, w), directions of length 1 at the same positions, float32 or bfloat16.
    """
    total: Tensor = cast("Any", _Cosine).apply(features, mean.contiguous(), unit)
    return total


def max_pool2(x: Tensor) -> Tensor:
    """The maxima (B, N, h // 2, w // 2), channels last, of windows of 2 × 2 of x (B, N, h, w).

    The gradient goes to the first maximum of a window in row-major order. NaN is a maximum.
    """
    last = x.contiguous(memory_format=torch.channels_last)
    y: Tensor = cast("Any", _MaxPool).apply(last)
    return y


class _Cosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, F: Tensor, mean: Tensor, T: Tensor) -> Tensor:
        ctx.save_for_backward(F, mean, T)
        return _cosines(F, mean, T).sum()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        F, mean, T = ctx.saved_tensors
        return _cosines(F, mean, T, slope), None, None


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        B, N, h, w = x.shape
        y = x.new_empty((B, h // 2, w // 2, N)).permute(0, 3, 1, 2)
        block = _block(2 * N)
        _launch(_max_pool, B * (h // 2) * -(-(w // 2) // block), x, y, h, w, N, block)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        slope = slope.contiguous(memory_format=torch.channels_last)
        B, N, h, w = x.shape
        found = torch.empty_like(x)
        block = _block(2 * N)
        # Also the last row and column of odd sides, which are in no window.
        programs = B * -(-h // 2) * -(-w // (2 * block))
        _launch(_max_pool_backward, programs, x, slope, found, h, w, N, block)
        return found


def _cosines(F: Tensor, mean: Tensor, T: Tensor, slope: Tensor | None = None) -> Tensor:
    """The sums (blocks,) over blocks, or with a slope the gradient by F."""
    _, N, h, w = F.shape
    block = _block(N)
    programs, strides = h * -(-w // block), (*F.stride()[1:], *T.stride()[1:])
    if slope is None:
        out = mean.new_empty(programs, dtype=torch.float32)
    else:
        out = torch.empty_like(F, memory_format=torch.channels_last)
    given = mean if slope is None else slope
    _launch(_cosine, programs, F, T, mean, given, out, w, *strides, N, block, slope is not None)
    return out


def _launch(kernel: Any, programs: int, *arguments: Any) -> None:
    """Run so many programs of a kernel on the GPU of its first argument."""
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        kernel[(programs,)](*arguments, num_warps=WARPS)


def _block(N: int) -> int:
    """The positions of N channels in a block."""
    return max(ELEMENTS // N, 1)


# Kernels: offsets are int64, as a map may have more than 2³¹ elements. A block of a map is (BLOCK, N), some positions
# × all channels. `sc, sy, sx` are strides; Triton compiles a stride of 1 as a constant.


@jit
def _place(width: tl.tensor, BLOCK: tl.constexpr) -> tl.tuple:
    """The row () and the columns (BLOCK,) of this program, in a map of this width."""
    blocks = tl.cdiv(width, BLOCK)
    program = tl.program_id(0)
    return (program // blocks).to(tl.int64), program % blocks * BLOCK + tl.arange(0, BLOCK)


@jit
def _offsets(
    y: tl.tensor, x: tl.tensor, sc: tl.tensor, sy: tl.tensor, sx: tl.tensor, N: tl.constexpr
) -> tl.tensor:
    """(BLOCK, N), of the channels at row y and columns x."""
    channels = tl.arange(0, N).to(tl.int64)
    return y * sy + (x.to(tl.int64) * sx)[:, None] + (channels * sc)[None, :]


@jit
def _cosine(
    f: tl.tensor, t: tl.tensor, mean: tl.tensor, slope: tl.tensor, out: tl.tensor, width: tl.tensor,
    fc: tl.tensor, fy: tl.tensor, fx: tl.tensor, tc: tl.tensor, ty: tl.tensor, tx: tl.tensor,
    N: tl.constexpr, BLOCK: tl.constexpr, BACKWARD: tl.constexpr,
) -> None:  # fmt: skip
    """Forward `out` is the sum over each block, backward the gradient by F; forward the slope is not used."""
    y, x = _place(width, BLOCK)
    inside = (x < width)[:, None]
    F = tl.load(f + _offsets(y, x, fc, fy, fx, N), inside, 0.0).to(tl.float32)
    T = tl.load(t + _offsets(y, x, tc, ty, tx, N), inside, 0.0).to(tl.float32)
    c = F - tl.load(mean + tl.arange(0, N)).to(tl.float32)[None, :]
    norm = tl.sqrt(tl.sum(c * c, 1))
    n = tl.maximum(norm, 1e-12)
    cosines = tl.sum(c * T, 1) / n
    if BACKWARD:
        # Below 1e-12 nnf.normalize divides by a constant.
        along = tl.where(norm >= 1e-12, cosines / n, 0.0)
        gradient = (along[:, None] * c - T) * (tl.load(slope).to(tl.float32) / n)[:, None]
        at = out + _offsets(y, x, 1, width * N, N, N)
        tl.store(at, gradient.to(out.dtype.element_ty), inside)
    else:
        tl.store(out + tl.program_id(0), tl.sum(tl.where(x < width, 1.0 - cosines, 0.0), 0))


@jit
def _larger(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """The larger one, or NaN."""
    return tl.where((b > a) | (b != b), b, a)


@jit
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


@jit
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
