"""Which operations of an evaluation are fused into one, and the convolution with its ReLU.

Much of an evaluation's time is that of reading and writing maps, on a GPU most of it, so it pays to do several
operations in one pass. This module makes the decisions; an export and an unsuitable device use torch's own operations.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_daemon.engine import fused_cpu
from nst_daemon.errors import first_line

log = logging.getLogger(__name__)

DTYPES = (torch.float32, torch.bfloat16)
#: Elements of a map from which on cuDNN needs offsets of 64 bits, which its fused convolutions may not have.
INDEXED = 1 << 31


def kernels(device: torch.device, dtype: torch.dtype) -> Any:
    """`engine.fused` or `fused_cpu`, for maps of this dtype on this device; None if torch's operations are to be used.

    The first call for a GPU compiles, so it must not be part of a capture.
    """
    if not _possible(device, dtype):
        return None
    if device.type == "cpu":
        return fused_cpu
    from nst_daemon.engine import fused  # noqa: PLC0415 (imports Triton, which a CPU does not need)

    return None if fused.problem() else fused


def kernels_for(x: Tensor) -> Any:
    """As `kernels`, for a map (B, N, h, w): on a GPU None also if it is not channels last or N is no power of two."""
    found = kernels(x.device, x.dtype)
    suitable = x.device.type == "cpu" or (x.stride(1) == 1 and x.shape[1].bit_count() == 1)
    return found if suitable else None


def pools_mask(x: Tensor) -> bool:
    """Whether the gradient that the fused pooling of a map x (B, N, h, w) returns is 0 where a ReLU's output is."""
    return kernels_for(x) is fused_cpu


def convolves(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a convolution and its ReLU are one operation, for maps of this dtype on this device.

    cuDNN's operation may choose an algorithm that sums in no fixed order, so `deterministic` does without it.
    """
    if not _possible(device, dtype):
        return False
    if device.type == "cpu":
        return _onednn_fuses(dtype)
    return (
        torch.backends.cudnn.enabled
        and not torch.are_deterministic_algorithms_enabled()
        and _cudnn_fuses(device, dtype, torch.backends.cudnn.allow_tf32)
    )


def convolves_for(x: Tensor, convolution: nn.Conv2d) -> bool:
    """As `convolves`, for a map x (B, C, h, w) and a convolution that does not change its size."""
    if not convolves(x.device, x.dtype):
        return False
    most = max(convolution.in_channels, convolution.out_channels)
    return x.numel() // convolution.in_channels * most < INDEXED


def conv_relu(
    x: Tensor, weight: Tensor, bias: Tensor, padding: int, *, masked: bool = False
) -> Tensor:
    """max(W ∗ x + b, 0) (B, O, h', w'), of which only x gets a gradient.

    NaN may become 0: cuDNN's ReLU need not keep it. `Objective.terms` finds a non-finite picture by itself.

    Args:
        x: (B, C, h, w).
        weight: W (O, C, 3, 3).
        bias: b (O,).
        padding: Zeros on each side.
        masked: The result only goes into a pooling whose gradient is 0 where the result is 0 (`pools_mask`).
    """
    y: Tensor = cast("Any", _ConvRelu).apply(x, weight, bias, (padding, masked))
    return y


class _ConvRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, how: tuple[int, bool]) -> Tensor:
        ctx.padding, masked = how
        y = _convolution_relu(x, weight, bias, ctx.padding)
        # Not x: of a pooled map nothing is kept then.
        ctx.save_for_backward(weight, *(() if masked else (y,)))
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        weight, *outputs = ctx.saved_tensors
        for y in outputs:
            slope = torch.ops.aten.threshold_backward(slope, y, 0)
        # With a stride of 1 this is what convolution_backward computes, by the same function of cuDNN or oneDNN, but it
        # does not ask for x to know its size.
        return F.conv_transpose2d(slope, weight, padding=ctx.padding), None, None, None


def _convolution_relu(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """The operation itself."""
    one = [1, 1]
    if x.device.type == "cpu":
        on_cpu: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, [padding, padding], one, one, 1, "relu", [], ""
        )
        return on_cpu
    found: Tensor = torch.ops.aten.cudnn_convolution_relu(
        x, weight, bias, one, [padding, padding], one, 1
    )
    return found


def _possible(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are fused operations for maps of this dtype on this device: a CPU or an NVIDIA GPU, not ROCm's."""
    nvidia = device.type == "cuda" and torch.version.hip is None
    known = nvidia or device.type == "cpu"
    return known and dtype in DTYPES and not torch.compiler.is_exporting()


@cache
def _cudnn_fuses(device: torch.device, dtype: torch.dtype, tf32: bool) -> bool:
    """Whether cuDNN has the operation, and it is right.

    torch gives cuDNN the output, with whatever is in its memory, as a term to add 0 times, and 0 · NaN would be NaN.

    Args:
        device: A GPU.
        dtype: Of the maps.
        tf32: Whether TF32 is allowed now, on which the choice of algorithms depends.
    """
    if not torch.backends.cudnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return _fuses_rightly(device, dtype, f"cuDNN's operation (TF32: {tf32})")


@cache
def _onednn_fuses(dtype: torch.dtype) -> bool:
    """Whether oneDNN has the operation on this CPU, and it is right. torch has it for its own compiler."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return _fuses_rightly(torch.device("cpu"), dtype, "oneDNN's operation")


def _fuses_rightly(device: torch.device, dtype: torch.dtype, operation: str) -> bool:
    """Whether a convolution with its ReLU, of maps of this dtype on this device, is that of torch's two operations."""
    last = torch.channels_last
    try:
        values = torch.linspace(-1, 1, 64 * 32 * 32, device=device, dtype=dtype)
        x = values.view(1, 64, 32, 32).to(memory_format=last)
        weight = values[: 64 * 64 * 9].view(64, 64, 3, 3).to(memory_format=last)
        bias = values[:64].contiguous()
        wanted = F.conv2d(x, weight, bias, padding=1).relu()
        torch.full_like(wanted, torch.nan)  # freed at once: the next output takes its memory
        found = _convolution_relu(x, weight, bias, 1)
        difference = float((found - wanted).norm() / wanted.norm())
    except Exception as error:  # noqa: BLE001 (torch's own functions do the same)
        log.warning("convolutions and ReLUs are separate: %s", first_line(error))
        return False
    if not difference < 0.02:  # also NaN
        log.warning("convolutions and ReLUs are separate: %s is wrong", operation)
        return False
    return True
