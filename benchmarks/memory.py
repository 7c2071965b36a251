"""Time and memory of one evaluation of the objective and its gradient: whole, recomputed activations, tiles.

    python -m benchmarks.memory [--sizes 256 384] [--tiles 128 256] [--repeat 2] [--precision float32] [--device cpu]
    python -m benchmarks.memory --paint 2048 --limit 4

Each row is measured in a separate process, with a random 4:3 picture, the layers of Gatys and the bundled
weights. Memory is the peak of the process (on a GPU, of torch's allocations) minus its use before; it excludes the
network (about 100 MB) and the optimiser's history.

`--paint` paints a 4:3 sample picture with a preset, with --repeat iterations in each pass, in a process that is limited
to --limit GiB of data, and prints the peak of the whole process, the seconds of each iteration and the memory plan.
`--one-scale` leaves out the smaller scales, which take little time and memory:

    python -m benchmarks.memory --paint 8000 --limit 8 --preset spst --repeat 2 --one-scale
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

import nst_daemon
from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.engine.evaluation import Evaluation, checkpointed, whole
from nst_daemon.engine.losses import Objective, statistics
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.tiles import Tiled
from nst_daemon.engine.vgg import VGG, compute_dtype
from nst_daemon.painter import Painter

MB = 1_000_000
#: Size of the drawn pictures of `--paint`; drawing larger ones would take more memory than painting them.
DRAWN = (1280, 960)


def evaluation(name: str) -> Evaluation:
    """`whole`, `checkpointed`, or the longest side of a tile's core."""
    return {"whole": whole, "checkpointed": checkpointed}.get(name) or Tiled(int(name))


def measure(name: str, size: int, repeat: int, precision: str, device: str) -> dict[str, float]:
    """Seconds of the fastest of `repeat` evaluations, and peak bytes, in this process."""
    gpu = torch.device(device)
    settings = resolve({"precision": precision, "preset": "gatys-pytorch"})
    weights = Path(nst_daemon.__file__).parent / "weights" / "vgg19-tinyimagenet.safetensors"
    network = VGG(load_file(weights), settings.layers).to(gpu)
    with torch.no_grad():
        style = network(torch.rand(1, 3, 128, 128, device=gpu))
    network.compute_in(compute_dtype(settings.precision, gpu))
    h, w = size * 3 // 4, size
    level = Objective(
        {"relu4_2": torch.rand(1, 512, h // 8, w // 8, device=gpu)},
        {layer: statistics(style[layer]) for layer in settings.style_layers},
        settings,
    )
    image = torch.rand(1, 3, h, w, device=gpu)
    evaluate = evaluation(name)
    before = in_use(gpu)
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        float(evaluate(network, Pyramid((level,)), image)[1])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return {"seconds": min(seconds), "bytes": peak(gpu) - before}


def paint(a: argparse.Namespace) -> None:
    """Paint on the CPU in this process, from files, including the targets."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(a.limit * 2**30),) * 2)
    chosen = {"size": a.paint, "preset": a.preset, "iterations": a.repeat, **one_scale(a)}
    settings = resolve({**chosen, "style_scale": a.style_scale})
    painter = Painter(device="cpu", cache_bytes=0)
    began = time.perf_counter()

    def report(what: str) -> None:
        seconds = time.perf_counter() - began
        print(
            f"{what} after {seconds:.0f} s, {time.process_time():.0f} s of processor time, "
            f"peak {peak(painter.device) / MB:.0f} MB",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        content, style = Path(folder) / "content.jpg", Path(folder) / "style.jpg"
        size = a.paint, a.paint * 3 // 4
        draw_scene(*DRAWN).resize(size).save(content)
        draw_painting(*DRAWN).save(style)
        report("drawn")
        prepared = painter.prepare(content, [style], settings)
    report(f"{size[0]} x {size[1]} px, prepared")
    for step in painter.paint(prepared):
        report(f"iteration {step.iteration}: total {step.losses['total']:.4f}")
    print(*step.events, sep="\n")
    rendering = painter.finish(prepared, step)
    report(f"finished, {rendering.losses['total']:.4f}")


def one_scale(a: argparse.Namespace) -> dict[str, object]:
    """The settings for `--one-scale`."""
    return {"scales": (1.0,)} if a.one_scale else {}


def in_use(device: torch.device) -> int:
    """Memory in use now, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak(device: torch.device) -> int:
    """Peak memory so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure and print a table."""
    a = parse()
    if a.child:
        print(json.dumps(measure(a.child, a.sizes[0], a.repeat, a.precision, a.device)))
        return
    if a.paint:
        paint(a)
        return
    table = Table(title=f"an evaluation in {a.precision} on {a.device}")
    for heading in ("size", "", "s", "MB", "bytes/pixel", "time", "memory"):
        table.add_column(heading, justify="right")
    for size in a.sizes:
        first = None
        for name in ("whole", "checkpointed", *map(str, a.tiles)):
            rest = ["--repeat", a.repeat, "--precision", a.precision, "--device", a.device]
            command = [sys.executable, "-m", __spec__.name, "--child", name, "--sizes", size, *rest]
            answer = subprocess.run(map(str, command), capture_output=True, check=True)  # noqa: S603 (this module)
            found = json.loads(answer.stdout)
            first = first or found
            table.add_row(
                str(size),
                name if name.isalpha() else f"tiles of {name}",
                f"{found['seconds']:.2f}",
                f"{found['bytes'] / MB:.0f}",
                f"{found['bytes'] / (size * (size * 3 // 4)):.0f}",
                *(f"{found[key] / first[key]:.2f}" for key in ("seconds", "bytes")),
            )
    Console().print(table)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384], help="longer sides")
    parser.add_argument("--tiles", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--paint", type=int, help="the longer side of a picture to paint instead")
    parser.add_argument("--limit", type=float, default=4.0, help="memory limit of --paint in GiB")
    parser.add_argument("--preset", default="painting", help="of --paint")
    parser.add_argument("--style-scale", type=float, default=1.0, help="of --paint")
    parser.add_argument("--one-scale", action="store_true", help="--paint only at full size")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
