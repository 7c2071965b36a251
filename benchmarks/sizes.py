"""Seconds, memory and disk for each size: the tables of docs/sizes.md.

    python -m benchmarks.sizes                                  # 9 minutes on two quiet cores; prints Markdown
    python -m benchmarks.sizes --page docs/sizes.md             # the same, and replaces the tables of the page
    python -m benchmarks.sizes --sizes 128 256 --presets painting   # a smaller table

Each row is one 4:3 picture, painted in a process of its own: seconds from the start of the process to the saved
picture, and the peak of its memory. The first preset is painted at all sizes. The others are painted at the size
`--compare-at`, and their seconds at the other sizes follow from the first preset's by that ratio (marked ≈).
`--predict` writes the memory that the program expects on a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon import machine, units
from nst_daemon.config import Outputs
from nst_daemon.engine.memory import memory_plans
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.engine.vgg import VGG, compute_dtype
from nst_daemon.painter import Painter, save

PROGRAM_BYTES = 600 << 20  # of the program itself, with its libraries
STYLE_PIXELS = (1600, 1200)
CUDA = torch.device("cuda")


@dataclass(frozen=True)
class Painted:
    """What one painting took.

    Attributes:
        seconds: From the start of the process to the saved picture.
        memory: Peak of the process in bytes; on a GPU, of torch's allocations.
        png: Size of the picture as PNG in bytes.
        jpg: Size of the picture as JPEG in bytes.
        about: `Painter.info()`, and how the memory was used.
    """

    seconds: float
    memory: int
    png: int
    jpg: int
    about: Mapping[str, object]


def paint_here(
    folder: Path, size: int, preset: str, device: str, iterations: int
) -> dict[str, object]:
    """Paint one picture in this process. iterations: of each scale; 0: the preset's own."""
    chosen: dict[str, object] = {"size": size, "preset": preset}
    if iterations:
        chosen["iterations"] = iterations
    settings = resolve(chosen)
    machine.keep_freed_memory()  # as `stylize` and workers do
    painter = Painter(device=device, cache_bytes=0)
    prepared = painter.prepare(folder / f"content-{size}.png", [folder / "style.png"], settings)
    *_, step = painter.paint(prepared)
    rendering = painter.finish(prepared, step)
    written = {}
    for name in ("png", "jpg"):
        file = folder / f"{size}-{preset}.{name}"
        save(rendering.picture, file, Outputs(format=name))
        written[name] = file.stat().st_size
    return {
        **written,
        "memory": peak(painter.device),
        "about": {**painter.info(), "notes": rendering.notes},
    }


def peak(device: torch.device) -> int:
    """Peak memory of this process so far in bytes; on a GPU, of torch's allocations there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def paint(folder: Path, size: int, preset: str, device: str, iterations: int = 0) -> Painted:
    """Paint one picture in a process of its own."""
    content = folder / f"content-{size}.png"
    if not content.exists():
        draw_scene(size, size * 3 // 4).save(content)
    words = ["--child", folder, "--sizes", size, "--presets", preset, "--device", device]
    words += ["--iterations", iterations]
    command = [sys.executable, "-m", __spec__.name, *map(str, words)]
    print(f"{size} px, {preset}", file=sys.stderr, flush=True)
    machine.wait_briefly()  # the process inherits it
    began = time.perf_counter()
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 (this module)
    seconds = time.perf_counter() - began
    return Painted(seconds=seconds, **json.loads(answer.stdout.splitlines()[-1]))


def predicted(sizes: Sequence[int], settings: RenderSettings) -> str:
    """A table of the memory that the program expects for 4:3 pictures, by `nst_daemon.engine.memory`."""
    network = Painter(device="cpu", cache_bytes=0).network(settings)
    exact, mixed = (replace(settings, precision=name) for name in ("float32", "bfloat16"))
    rows = ["| longer side | float32 | bfloat16 | with the least memory |", "|---|---|---|---|"]
    for size in sizes:
        cells = _expected(exact, size, network)[0], _expected(mixed, size, network)[0]
        least = min(_expected(mixed, size, network, sampled=True))
        rows.append(f"| {size:,} px | " + " | ".join(map(units.size, (*cells, least))) + " |")
    return "\n".join(rows)


def _expected(
    settings: RenderSettings, size: int, network: VGG, *, sampled: bool = False
) -> list[float]:
    """The bytes that each plan takes on a GPU, for a 4:3 picture."""
    network = network.computing_in(compute_dtype(settings.precision, CUDA))
    plans = memory_plans(settings, CUDA, sampled=sampled)
    return [plan.peak_bytes((size * 3 // 4, size), network) for plan in plans]


def measure(folder: Path, args: argparse.Namespace) -> str:
    """Paint everything; returns the table with the lines that name the machine."""
    draw_painting(*STYLE_PIXELS).save(folder / "style.png")
    paint(folder, 64, args.presets[0], args.device, 1)  # fills the caches
    first, *others = args.presets
    rows = {size: paint(folder, size, first, args.device, args.iterations) for size in args.sizes}
    at = args.compare_at if args.compare_at in rows else args.sizes[-1]
    ratios, memory = {}, {}
    for preset in others:
        found = paint(folder, at, preset, args.device, args.iterations)
        ratios[preset] = found.seconds / rows[at].seconds
        memory[preset] = found.memory
    heads = [f"`{first}`", *(f"`{preset}`" for preset in others)]
    lines = [
        f"| longer side | {' | '.join(heads)} | memory at most | PNG | JPEG |",
        "|" + "---|" * (len(heads) + 4),
    ]
    for size, row in rows.items():
        cells = [shown(row.seconds)]
        cells += [shown(row.seconds * r, estimated=size != at) for r in ratios.values()]
        cells = ["–"] * len(cells) if args.iterations else cells
        cells += [units.size(row.memory), units.size(row.png), units.size(row.jpg)]
        lines.append(f"| {size:,} px | {' | '.join(cells)} |")
    if memory:
        each = ", ".join(f"{units.size(m)} with `{p}`" for p, m in memory.items())
        lines += [
            "",
            f"At {at} px the memory is {units.size(rows[at].memory)} with `{first}`, {each}.",
        ]
    return "\n".join([*lines, "", *machine_lines(rows[args.sizes[-1]].about)])


def machine_lines(about: Mapping[str, object]) -> list[str]:
    """Hardware, instruction set, versions and commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    versions = about["versions"]
    assert isinstance(versions, dict)
    return [
        f"Measured on {date.today():%d %B %Y} with `python -m benchmarks.sizes`: {about['device_name']}, "
        f"{about['threads']} threads, {torch.backends.cpu.get_cpu_capability()}, convolutions in {about['precision']}, "
        f"Python {platform.python_version()}, torch {versions['torch']}, {about['weights_description']}, "
        f"commit {commit or 'unknown'}."
    ]


def shown(seconds: float, *, estimated: bool = False) -> str:
    """A duration; an estimate with two digits."""
    if not estimated:
        return units.duration(seconds)
    return f"≈ {units.duration(float(f'{seconds:.2g}'))}"


def write(page: Path, name: str, text: str) -> None:
    """Replace what is between `<!-- NAME -->` and `<!-- /NAME -->` in a page."""
    old = page.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = old.partition(start)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{page} has no lines {start} and {end}")
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Measure, print, and write the page."""
    a = parse()
    if a.child:
        found = paint_here(a.child, a.sizes[0], a.presets[0], a.device, a.iterations)
        print(json.dumps(found))
        return
    tables = {}
    if a.predict:
        tables["predicted"] = predicted(a.predict, resolve({"preset": a.presets[0]}))
    else:
        with tempfile.TemporaryDirectory() as folder:
            tables["measured"] = measure(Path(folder), a)
    for name, table in tables.items():
        print(table)
        if a.page:
            write(a.page, name, table)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384, 512, 768, 1024])
    parser.add_argument("--presets", nargs="+", default=["painting", "bold", "sketch"])
    parser.add_argument("--compare-at", type=int, default=512, help="size for the other presets")
    parser.add_argument("--iterations", type=int, default=0, help="of each scale, for memory only")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--predict", type=int, nargs="*", help="sizes; paints nothing")
    parser.add_argument("--page", type=Path, help="the page whose table is replaced")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
