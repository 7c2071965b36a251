"""Seconds for whole pictures with the default settings, and where they go.

    python -m benchmarks.pictures --sizes 256 512 1280 --ways graph direct

Each picture is 4:3. It is painted three times in one process: the first time includes what is loaded once for each
size. `prepare` reads nothing but computes the style's features; `search` is the search for targets at the beginning of
each scale; `paint` is everything else up to the finished picture in memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from unittest import mock

import torch

from benchmarks.throughput import drawn, wait
from nst_daemon.engine.cuda_graph import Repeated
from nst_daemon.engine.neighbours import Matching
from nst_daemon.engine.settings import resolve
from nst_daemon.painter import Painter

ROUNDS = 3


@dataclass
class Stopwatch:
    """Adds up the seconds of named parts; the device is idle at both ends of each."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what is done inside."""
        wait(self.device)
        start = perf_counter()
        yield
        wait(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


def main() -> None:
    """Measure and print a line for each picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--ways", nargs="+", default=["graph"], help="graph, direct")
    args = parser.parse_args()
    painter = Painter()
    for size in args.sizes:
        for way in args.ways:
            Repeated.usable = way == "graph"
            for _ in range(ROUNDS):
                found = painted(painter, size)
                each = ", ".join(f"{name} {seconds:.3f}" for name, seconds in found.items())
                whole = found["prepare"] + found["paint"]
                print(f"{size:5} px {way:6} {each}: {3600 / whole:6.0f} pictures/hour", flush=True)


def painted(painter: Painter, size: int) -> dict[str, float]:
    """The seconds of the parts of one picture."""
    watch = Stopwatch(painter.device)
    content, style = drawn((size * 3 // 4, size))
    begin = Matching.begin

    def timed(*arguments: object) -> object:
        with watch.part("search"):
            return begin(*arguments)  # type: ignore[arg-type]

    with mock.patch.object(Matching, "begin", timed):
        with watch.part("prepare"):
            prepared = painter.prepare(content, [style], resolve({"size": size}))
        with watch.part("paint"):
            *_, last = painter.paint(prepared)
            painter.finish(prepared, last)
    return watch.seconds


if __name__ == "__main__":
    main()
