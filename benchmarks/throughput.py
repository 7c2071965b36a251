"""Iterations per second at each size and precision, against the limit of the hardware, and a profile of an iteration.

    python -m benchmarks.throughput                                    # this machine: 256 and 512 px
    python -m benchmarks.throughput --sizes 512 1024 2048 --ways graph direct
    python -m benchmarks.throughput --sizes 512 --profile              # the operations that take most of the time

A square picture is painted with the default settings at one scale, with targets that are found before. The first
iterations are not counted. On a CPU at most `stylize.QUICK_ITERATIONS` are measured, as paintings have no more. `graph`
paints as usual: on a GPU, with CUDA graphs; `direct` without. The limit is the time of the convolutions up to relu4_1,
forward and backward, at the rate of a large matrix product in bfloat16, which is measured first. The same convolutions
are also timed with torch's own functions and nothing else, alternately with the painting: some iterations, then as many
times all convolutions. Memory is the peak of torch's allocations on a GPU, and of the process on a CPU.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from statistics import median
from time import perf_counter

import torch

from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.fixed import fixed
from benchmarks.peers import peak
from nst_daemon import machine
from nst_daemon.engine.cuda_graph import Repeated
from nst_daemon.engine.device import current_device
from nst_daemon.engine.images import Picture, from_image, resize
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.stylize import QUICK_ITERATIONS
from nst_daemon.engine.vgg import compute_dtype
from nst_daemon.painter import Painter, Prepared
from nst_daemon.pictures.raster import Size

#: Multiplications and additions for each pixel: 18 · inputs · outputs of every convolution, at its share of the pixels.
CHANNELS = ((3, 64, 0), (64, 64, 0), (64, 128, 1), (128, 128, 1), (128, 256, 2), *3 * ((256, 256, 2),),
            (256, 512, 3))  # fmt: skip
FLOP_PER_PIXEL = 2 * sum(18 * inputs * outputs / 4**block for inputs, outputs, block in CHANNELS)
#: Iterations that are not counted: memory is allocated, graphs are captured.
WARM_UP = 12
#: Iterations between two looks at a GPU's clock, and the least number of looks.
CHUNK, ROUNDS = 10, 4
PROFILED = 10
#: The longest side that is drawn.
DRAWN = 512
#: Rows of the profile's tables, and the characters of a name that are shown.
ROWS, SHOWN = 45, 150
#: The side of the product that gives the rate of the hardware, on a GPU and on a CPU.
MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}


def main() -> None:
    """Measure and print a table."""
    args = parse()
    machine.keep_freed_memory()
    painter = Painter()
    with current_device(painter.device):
        rate = matrix_rate(painter.device)
        bandwidth = ceiling(painter.device)
        machine.trim_heap()  # what is painted shall not use what these have freed
        print(f"{painter.info()['device_name']}: {rate / 1e12:.3g} TFLOP/s, {bandwidth}")
        for size in args.sizes:
            try:
                measure_size(painter, size, rate, args)
            except Exception:  # noqa: BLE001 (the other sizes are measured all the same)
                traceback.print_exc()


def measure_size(painter: Painter, size: int, rate: float, args: argparse.Namespace) -> None:
    """Print one line for each way and precision, or the profile."""
    began = perf_counter()
    prepared = prepare(painter, size)
    wait(painter.device)
    print(f"{size:5} px: targets in {perf_counter() - began:.2f} s", flush=True)
    limit = FLOP_PER_PIXEL * size * size / rate
    for precision, way in product(args.precisions, args.ways):
        Repeated.usable = way == "graph"
        chosen = replace(prepared, settings=replace(prepared.settings, precision=precision))
        if args.profile:
            print(f"{size} px, {precision}, {way}\n{profile(painter, chosen)}", flush=True)
            continue
        seconds, floor, memory, notes = paint(painter, chosen, args.seconds)
        print(
            f"{size:5} px {precision:8} {way:6} {1 / seconds:8.2f} iterations/s, {1e3 * seconds:8.3f} ms, "
            f"{seconds / limit:5.2f} times the limit, {seconds / floor:5.2f} times its convolutions, "
            f"{memory:6.0f} MiB{notes}",
            flush=True,
        )


def prepare(painter: Painter, size: int) -> Prepared:
    """A square picture at one scale, with its targets."""
    iterations = QUICK_ITERATIONS if painter.device.type == "cpu" else 1_000_000
    settings = resolve({"size": size, "scales": (1.0,), "iterations": iterations})
    content, style = drawn((size, size))
    prepared = painter.prepare(content, [style], settings)
    return replace(prepared, scene=fixed(prepared.scene, painter.network(settings)))


def drawn(shape: Size) -> tuple[Picture, Picture]:
    """A content and a style of a shape (height, width), enlarged if drawing them would take long."""
    scale = min(1.0, DRAWN / max(shape))
    height, width = (round(scale * side) for side in shape)
    pictures = (from_image(draw(width, height)) for draw in (draw_scene, draw_painting))
    content, style = (Picture(resize(each.rgb, shape)) for each in pictures)
    return content, style


def paint(painter: Painter, prepared: Prepared, seconds: float) -> tuple[float, float, float, str]:
    """Seconds of an iteration and of its convolutions, medians; peak memory in MiB, and what the painting noted.

    seconds: To paint at least.
    """
    if painter.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps = painter.paint(prepared)
    for _ in range(WARM_UP):
        step = next(steps)
    wait(painter.device)
    memory = peak()
    settings = prepared.settings
    alone = convolutions(
        prepared.scene.size, compute_dtype(settings.precision, painter.device), painter.device
    )
    alone()
    times: tuple[list[float], list[float]] = ([], [])
    chunk = CHUNK if painter.device.type == "cuda" else 1
    while (sum(times[0]) * chunk < seconds or len(times[0]) < ROUNDS) and not step.last:
        for run, found in zip((lambda: next(steps), alone), times, strict=True):
            start = perf_counter()
            for _ in range(chunk):
                step = run() or step
            wait(painter.device)
            found.append((perf_counter() - start) / chunk)
    steps.close()
    notes = "".join(f"; {event}" for event in step.events)
    return median(times[0]), median(times[1]), memory, notes


def convolutions(size: Size, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """All convolutions up to relu4_1, forward and backward by the map, as a function; channels last."""
    layers = []
    for inputs, outputs, halvings in CHANNELS:
        h, w = (side >> halvings for side in size)
        shapes = (1, inputs, h, w), (outputs, inputs, 3, 3), (1, outputs, h, w)
        x, weight, slope = (
            torch.randn(shape).to(device, dtype, memory_format=torch.channels_last)
            for shape in shapes
        )
        layers.append((x.requires_grad_(), weight, torch.zeros_like(slope[0, :, 0, 0]), slope))

    def run() -> None:
        for x, weight, bias, slope in layers:
            y = torch.nn.functional.conv2d(x, weight, bias, padding=1)
            torch.autograd.grad(y, x, slope)

    return run


def profile(painter: Painter, prepared: Prepared) -> str:
    """Tables of what takes most of an iteration: kernels (on a GPU), and operations by the shapes of their inputs."""
    steps = painter.paint(prepared)
    for _ in range(WARM_UP):
        next(steps)
    wait(painter.device)
    on_gpu = painter.device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if on_gpu else []
    start = perf_counter()
    with torch.profiler.profile(activities=activities, record_shapes=True) as found:
        for _ in range(PROFILED):
            next(steps)
        wait(painter.device)
        seconds = (perf_counter() - start) / PROFILED
    steps.close()
    rows: dict[str, list[tuple[float, int, str]]] = {"kernels": [], "operations": []}
    for event in found.key_averages(group_by_input_shape=True):
        kernel = event.device_type != torch.autograd.DeviceType.CPU
        micros = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        shapes = "" if kernel else " ".join("×".join(map(str, s)) for s in event.input_shapes if s)
        row = micros / PROFILED, event.count, f"{event.key} {shapes}"[:SHOWN]
        rows["kernels" if kernel else "operations"].append(row)
    lines = [f"{1e3 * seconds:.3f} ms for each iteration while it is profiled"]
    for kind, each in rows.items():
        lines.append(f"{kind}: {sum(row[0] for row in each) / 1e3:.3f} ms")
        lines += [
            f"{t:9.1f} µs {n / PROFILED:6.1f}  {name}" for t, n, name in sorted(each)[:-ROWS:-1]
        ]
    return "\n".join(lines)


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of a large matrix product in bfloat16, of random numbers."""
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / fastest(lambda: a @ b, device)


def ceiling(device: torch.device) -> str:
    """The rate of a large copy, counting bytes read and written."""
    source = torch.randn(1 << (30 if device.type == "cuda" else 26), device=device)
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source), device)
    return f"{8 * source.numel() / seconds / 1e12:.3g} TB/s"


def fastest(run: object, device: torch.device, tries: int = 10) -> float:
    """Seconds of the fastest of some runs."""
    assert callable(run)
    times = []
    for _ in range(tries):
        start = perf_counter()
        run()
        wait(device)
        times.append(perf_counter() - start)
    return min(times)


def wait(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="sides of squares")
    parser.add_argument("--precisions", nargs="+", default=["auto"], help="auto, float32, bfloat16")
    parser.add_argument("--ways", nargs="+", default=["graph"], help="graph, direct")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, at least")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
