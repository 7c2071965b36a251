"""The cost and benefit of a Ray cluster: overhead per job against a local worker, and two workers against one.

    python -m benchmarks.cluster [--jobs 20] [--size 64] [--iterations 20] [--pictures 6]

The cluster is a test cluster of Ray: a head and two nodes on this machine, with one CPU and one thread each. The
overhead is measured with a renderer that paints nothing and one job at a time, the scaling with the real engine. For
the limits of the ledger and the inbox see `benchmarks.inbox --pairs 100000`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.workers import Tasks, events
from nst_daemon.config import Ray
from nst_daemon.workers.executor import Executor
from nst_daemon.workers.local import LocalExecutor
from nst_daemon.workers.messages import (
    DeviceLost,
    Failed,
    Ready,
    Staged,
    Task,
    WorkerOptions,
)
from nst_daemon.workers.ray.executor import RayExecutor
from tests.small_cluster import small_cluster


def paint(executor: Executor, tasks: list[Task], workers: int, at_once: int) -> list[float]:
    """Paint the tasks with `workers` workers, `at_once` tasks at a time. Returns the time of each result in seconds."""
    executor.start()
    waiting, ready, given, done = list(tasks), 0, 0, []
    began = time.monotonic()
    for event in events(executor):
        match event:
            case Ready():
                ready += 1
                began = time.monotonic()
            case Staged():
                done.append(time.monotonic() - began)
                given -= 1
            case Failed() | DeviceLost():
                raise SystemExit(f"cannot go on: {event}")
        while ready >= workers and waiting and given < at_once and executor.capacity():
            executor.submit(waiting.pop(0))
            given += 1
        if len(done) == len(tasks):
            break
    executor.stop(10.0)
    return done


def main() -> None:
    """Measure and print a table."""
    a = parse()
    load = os.getloadavg()[0]
    table = Table("measured", "value", title=f"load {load:.1f} on {os.cpu_count()} cores before")
    with tempfile.TemporaryDirectory(prefix="nst-") as name, small_cluster(Path(name)) as made:
        folder = Path(name)
        real = WorkerOptions(
            weights="bundled", cache_dir=folder / "own", logs=folder / "logs", threads=1
        )
        fake = replace(real, renderer="tests.fakes:Renderer")
        make = Tasks(folder, a.size, a.iterations)
        ray = Ray(made.address, gpus_per_job=0.0, cpus_per_job=1.0)
        made.add_node()
        costs = {}
        for kind, executor in (
            ("local", LocalExecutor("cpu", fake)),
            ("Ray", RayExecutor(ray, fake)),
        ):
            done = paint(executor, make(a.jobs), 1, 1)
            costs[kind] = median(after - before for before, after in itertools.pairwise(done))
            table.add_row(f"a job that paints nothing, {kind}, median", f"{costs[kind]:.3f} s")
        table.add_row("overhead of Ray per job", f"{costs['Ray'] - costs['local']:.3f} s")
        paint(RayExecutor(ray, real), make(1), 1, 1)  # exports the model
        seconds = {}
        for workers in (1, 2):
            if workers > 1:
                made.add_node()
            seconds[workers] = paint(
                RayExecutor(ray, real), make(a.pictures), workers, 2 * workers
            )[-1]
            table.add_row(
                f"{a.pictures} pictures of {a.size} px, {workers} workers of one thread",
                f"{seconds[workers]:.1f} s",
            )
        table.add_row("two workers against one", f"{seconds[1] / seconds[2]:.2f} x")
    Console().print(table)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=20, help="jobs that paint nothing")
    parser.add_argument("--size", type=int, default=64, help="longer side in pixels")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
