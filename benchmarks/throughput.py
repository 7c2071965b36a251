"""Iterations per second of the defaults at each size, peak memory, and the ratio to the hardware's limit.

    python -m benchmarks.throughput --sizes 256 512 1024 2048 --tflops 790      # an H200, bfloat16
    python -m benchmarks.throughput --sizes 256 512                             # this CPU, without a limit

The limit is the arithmetic of the convolutions up to relu4_1, forward and backward, at the given rate. Each size is
painted in a separate process at one scale, with targets that are found before; the first iterations (warm-up) are not
counted. On a GPU it is painted twice: with CUDA graphs, as usual, and without.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from time import perf_counter

import torch

from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.fixed import fixed
from benchmarks.peers import peak
from nst_daemon.engine.cuda_graph import CudaGraphEvaluation
from nst_daemon.engine.images import from_image
from nst_daemon.engine.settings import resolve
from nst_daemon.painter import Painter

#: Multiplications and additions for each pixel: 18 · inputs · outputs of every convolution, at its share of the pixels.
CHANNELS = ((3, 64, 0), (64, 64, 0), (64, 128, 1), (128, 128, 1), (128, 256, 2), *3 * ((256, 256, 2),),
            (256, 512, 3))  # fmt: skip
FLOP_PER_PIXEL = 2 * sum(18 * inputs * outputs / 4**block for inputs, outputs, block in CHANNELS)
WARM_UP = 5


def paint(size: int, iterations: int, precision: str, graphs: bool) -> tuple[float, float, str]:
    """Seconds per iteration, peak memory in MiB, and device, for a square picture. `graphs`: use CUDA graphs."""
    CudaGraphEvaluation.usable = graphs
    settings = resolve(
        {"size": size, "scales": (1.0,), "iterations": WARM_UP + iterations, "precision": precision}
    )
    painter = Painter()
    content, style = (from_image(draw(size, size)) for draw in (draw_scene, draw_painting))
    prepared = painter.prepare(content, [style], settings)
    scene = fixed(prepared.scene, painter.network(settings))
    steps = painter.paint(replace(prepared, scene=scene))
    for step in steps:
        if step.iteration == WARM_UP:
            wait(painter.device)
            start = perf_counter()
    wait(painter.device)
    return (perf_counter() - start) / iterations, peak(), painter.device.type


def wait(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of squares")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--tflops", type=float, help="rate of the hardware, for the limit")
    args = parser.parse_args()
    ways = (True, False) if torch.cuda.is_available() else (True,)
    for size, graphs in product(args.sizes, ways):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            job = pool.submit(paint, size, args.iterations, args.precision, graphs)
            seconds, memory, device = job.result()
        work = FLOP_PER_PIXEL * size * size
        line = f"{size:5} px on {device}{'' if graphs else ', no graphs'}: "
        line += f"{1 / seconds:8.2f} iterations/s, {work / seconds / 1e12:.3f} TFLOP/s, peak {memory:.0f} MiB"
        if args.tflops:
            line += f", {seconds / (work / args.tflops / 1e12):.2f} times the limit"
        print(line, flush=True)


if __name__ == "__main__":
    main()
