"""The cost of the targets: onnxruntime against torch on the same pictures, and with cached styles.

    python -m benchmarks.precompute [--sizes 256 512 1024] [--repeat 3] [--device cpu]

The table has the first run, which includes loading, and the best of `repeat` runs. Both compute the statistics of
the style layers and the features of the content layer of the preset `gatys-pytorch`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from benchmarks.drawings import draw_painting
from nst_daemon.engine.device import find_device
from nst_daemon.engine.losses import statistics
from nst_daemon.engine.settings import resolve
from nst_daemon.engine.style_cache import StyleCache
from nst_daemon.engine.targets import OnnxTargets
from nst_daemon.files import default_cache_dir
from nst_daemon.painter import Painter


def main() -> None:
    """Measure and print a table."""
    arguments = parse()
    device = find_device(arguments.device)
    settings = resolve({"preset": "gatys-pytorch"})
    with tempfile.TemporaryDirectory() as folder:
        painter = Painter(device=str(device), cache_dir=default_cache_dir(), cache_bytes=0)
        painter.load(settings)
        network = painter.network(settings)
        # A network that ends at the content layer, like onnxruntime's session for the content.
        shallow = painter.network(replace(settings, style_layers={"relu1_1": 1.0}))
        table = Table(
            title=f"seconds on {device}, {torch.get_num_threads()} threads; first run, best run"
        )
        for heading in ("side", "torch style", "onnxruntime style", "cached style", "torch content",
                        "onnxruntime content"):  # fmt: skip
            table.add_column(heading)
        for side in arguments.sizes:
            image = to_tensor(draw_painting(side, side))[None].to(device)
            cache = StyleCache(Path(folder) / str(side), 1 << 30)
            plain = OnnxTargets(painter.onnx_file(settings), device=device)
            cached = OnnxTargets(painter.onnx_file(settings), device=device, cache=cache)
            cached.style(image)

            def by_torch(image: Tensor = image) -> None:
                features = network(image)
                for layer in settings.style_layers:
                    statistics(features[layer])

            runs: list[Callable[[], object]] = [
                by_torch,
                lambda plain=plain, image=image: plain.style(image),
                lambda cached=cached, image=image: cached.style(image),
                lambda image=image: shallow(image),
                lambda plain=plain, image=image: plain.content(image),
            ]
            table.add_row(str(side), *(measure(run, arguments.repeat, device) for run in runs))
    Console().print(table)


def measure(run: Callable[[], object], repeat: int, device: torch.device) -> str:
    """The first and the best of `repeat` runs, in seconds."""
    seconds = []
    for _ in range(repeat):
        began = perf_counter()
        with torch.no_grad():
            run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(perf_counter() - began)
    return f"{seconds[0]:.3f}, {min(seconds):.3f}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 512, 1024], help="sides in pixels"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
