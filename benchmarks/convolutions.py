"""Convolutions on a CPU, layer by layer: torch's direct ones, and Winograd's.

    python -m benchmarks.convolutions --size 512
    python -m benchmarks.convolutions --size 512 --precision bfloat16

Forward and backward pass, without the ReLU, measured alternately, channels last: the shortest of several times, and
their ratio. Layers for which `winograd.pays` selects torch are marked.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from nst_daemon import machine
from nst_daemon.engine import winograd
from nst_daemon.engine.vgg import bare_features

REPEATS = 8


def least_times(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Shortest times in seconds, measured alternately so that other load affects both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for run, found in zip((first, second), times, strict=True):
            start = perf_counter()
            run()
            found.append(perf_counter() - start)
    return min(times[0]), min(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, help="of a square picture")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    machine.keep_freed_memory()
    side, dtype = args.size, getattr(torch, args.precision)
    seen = set()
    for module in bare_features()[:29]:  # up to conv5_1
        if isinstance(module, nn.MaxPool2d):
            side //= 2
        if not isinstance(module, nn.Conv2d) or (module.weight.shape, side) in seen:
            continue
        seen.add((module.weight.shape, side))
        compare(module, side, dtype)


def compare(conv: nn.Conv2d, side: int, dtype: torch.dtype) -> None:
    """Print one line for a layer on a map of side × side."""

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape).to(dtype, memory_format=torch.channels_last)

    x = drawn(1, conv.in_channels, side, side).requires_grad_()
    weight, slope = drawn(*conv.weight.shape), drawn(1, conv.out_channels, side, side)
    bias, kernels = slope.new_zeros(conv.out_channels), winograd.transformed(weight)

    def gradient(y: Tensor) -> None:
        torch.autograd.grad(y, x, slope)

    direct, ours = least_times(
        lambda: gradient(nnf.conv2d(x, weight, bias, padding=1)),
        lambda: gradient(winograd.convolve(x, kernels, bias)),
    )
    used = "" if winograd.pays(conv, x) else "  (left to torch)"
    print(
        f"{conv.in_channels:4} -> {conv.out_channels:3} at {side:4}: direct {direct * 1e3:7.1f} ms, "
        f"ours {ours * 1e3:7.1f} ms, {direct / ours:.2f} times{used}",
        flush=True,
    )


if __name__ == "__main__":
    main()
