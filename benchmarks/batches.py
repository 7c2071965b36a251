"""Pictures per hour on one device, painted one after another and several at a time (the configuration's `batch`).

    python -m benchmarks.batches --sizes 256 512 --batches 1 2 4 8

Pictures of one size with the default settings. Their targets are found before; a first round of each, in which graphs
are captured and both ways of a batch are timed, is not counted.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.throughput import wait
from nst_daemon.engine.images import from_image
from nst_daemon.engine.settings import resolve
from nst_daemon.painter import Painter, Prepared


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--pictures", type=int, default=8)
    args = parser.parse_args()
    painter = Painter()
    for size in args.sizes:
        settings = resolve({"size": size})
        content, style = (from_image(draw(size, size)) for draw in (draw_scene, draw_painting))
        prepared = painter.prepare(content, [style], settings)
        for batch in args.batches:
            paint_all(painter, prepared, batch, batch)
            start = perf_counter()
            paint_all(painter, prepared, args.pictures, batch)
            seconds = (perf_counter() - start) / args.pictures
            print(
                f"{size:5} px, {batch:2} at a time: {3600 / seconds:7.0f} pictures/hour, {seconds:.2f} s each",
                flush=True,
            )


def paint_all(painter: Painter, prepared: Prepared, pictures: int, batch: int) -> None:
    """Paint a picture several times, `batch` at a time."""

    def paint(_: int) -> None:
        *_, last = painter.paint(prepared)
        painter.finish(prepared, last)

    for start in range(0, pictures, batch):
        with ThreadPoolExecutor(batch) as pool:
            list(pool.map(paint, range(min(batch, pictures - start))))
    wait(painter.device)


if __name__ == "__main__":
    main()
