"""The cost of the workers: gaps between jobs, preparation during painting, checkpoints, two workers.

    python -m benchmarks.workers [--size 128] [--iterations 40] [--jobs 6] [--devices cpu] [--one-style]

The gap is the time from a picture's last iteration to the start of the next painting. The first iteration is reported
separately, because the following job is prepared at the same time. "besides painting" is the total time of a job minus
its iterations at the median time. "one by one" submits each job when the previous one is done; otherwise one job is
waiting. Each job has another style, so that nothing is cached, unless --one-style is given.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise
from math import nan
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon.config import Outputs
from nst_daemon.engine.settings import resolve
from nst_daemon.jobs import JobInput, Role
from nst_daemon.workers.executor import Executor
from nst_daemon.workers.local import LocalExecutor
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Event,
    Failed,
    Progress,
    Ready,
    Staged,
    Task,
    WorkerOptions,
)

HEADINGS = (
    "",
    "jobs/min",
    "besides painting, s",
    "gap, s",
    "first iteration, s",
    "iteration, s",
    "prepare, s",
    "write, s",
    "checkpoints, %",
)


@dataclass
class Run:
    """A run of jobs in one executor. `at_once`: number of jobs that it has at a time."""

    folder: Path
    devices: list[str]
    at_once: int
    threads: int = 0
    checkpoint_seconds: float = 1e9
    seconds: float = 0.0  # from the first submission to the last result
    staged: list[float] = field(default_factory=list)  # time of each result
    to_first: list[float] = field(
        default_factory=list
    )  # from a last iteration to the next first one

    def __call__(self, tasks: Iterable[Task]) -> Run:
        waiting = list(tasks)
        options = WorkerOptions(
            weights="bundled",
            cache_dir=self.folder / "cache",
            logs=self.folder / "logs",
            threads=self.threads,
            checkpoint_seconds=self.checkpoint_seconds,
        )
        executor = LocalExecutor(self.devices, options)
        executor.start()
        left, ready, given = len(waiting), 0, 0
        done_at: dict[str, float] = {}  # time of each worker's last iteration
        began = time.monotonic()
        for event in events(executor):
            now = time.monotonic()
            match event:
                case Ready():
                    ready += 1
                    began = now
                case Progress(worker=worker, done=done, total=total):
                    if worker in done_at:
                        self.to_first.append(now - done_at.pop(worker))
                    if done == total:
                        done_at[worker] = now
                case Staged():
                    left, given = left - 1, given - 1
                    self.staged.append(now)
                case Failed() | Died() | DeviceLost():
                    raise SystemExit(f"cannot go on: {event}")
            while ready == len(self.devices) and waiting and given < self.at_once:
                executor.submit(waiting.pop(0))
                given += 1
            if not left:
                break
        self.seconds = time.monotonic() - began
        executor.stop(10.0)
        return self


def events(executor: Executor) -> Iterator[Event]:
    """All events as they arrive."""
    while True:
        wait(executor.waitables(), timeout=1.0)  # type: ignore[arg-type]
        yield from executor.poll(time.monotonic())


class Tasks:
    """Makes jobs with sample pictures."""

    def __init__(
        self, folder: Path, size: int, iterations: int, *, one_style: bool = False
    ) -> None:
        self.folder, self.size, self.iterations = folder, size, iterations
        self.one_style = one_style
        self.numbers = count()

    def __call__(self, jobs: int) -> list[Task]:
        return [self.make(next(self.numbers)) for _ in range(jobs)]

    def make(self, number: int) -> Task:
        """A job with a new content and, unless `one_style`, a new style."""
        spool = self.folder / f"job{number}"
        (spool / "stage").mkdir(parents=True)
        inputs = []
        for role, draw in ((Role.CONTENT, draw_scene), (Role.STYLE, draw_painting)):
            buffer = io.BytesIO()
            seed = 0 if role is Role.STYLE and self.one_style else number
            draw(1024, 768, seed=seed).save(buffer, "JPEG")
            (spool / role).write_bytes(buffer.getvalue())
            digest = hashlib.sha256(buffer.getvalue()).hexdigest()
            inputs.append(JobInput(role, role, role, digest, len(buffer.getvalue())))
        return Task(
            job_id=str(number),
            name="picture",
            attempt=1,
            inputs=tuple(inputs),
            spool=spool,
            stage=spool / "stage",
            checkpoint=spool / "checkpoint",
            settings=resolve({"size": self.size, "iterations": [self.iterations], "scales": [1.0]}),
            outputs=Outputs(loss_plot=False, progress=False),  # the picture alone is measured
        )


@dataclass(frozen=True)
class Timings:
    """Timings from a picture's sidecar, in seconds. `first`: first iteration; `iteration`: median of the others."""

    prepare: float
    paint: float
    save: float
    checkpoints: float
    first: float
    iteration: float

    @classmethod
    def read(cls, task: Task) -> Timings:
        found = json.loads((task.stage / "picture.json").read_bytes())
        curve = found["loss_history"]
        numbers, at = curve["iteration"], curve["seconds"]
        each = [(b - a) / (n - m) for (m, a), (n, b) in pairwise(zip(numbers, at, strict=True))]
        parts = {
            name: found["seconds"][name] for name in ("prepare", "paint", "save", "checkpoints")
        }
        return cls(**parts, first=at[0], iteration=median(each))


def main() -> None:
    """Measure and print a table."""
    a = parse()
    devices = a.devices
    table = Table(title=f"{a.jobs} jobs of {a.iterations} iterations at {a.size} px")
    for heading in HEADINGS:
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = Tasks(folder, a.size, a.iterations, one_style=a.one_style)
        rows: list[tuple[str, Run]] = [
            ("warming up", Run(folder, devices[:1], 1)),
            ("one by one", Run(folder, devices[:1], 1)),
            ("one waiting", Run(folder, devices[:1], 2)),
            ("checkpoint every 5 s", Run(folder, devices[:1], 2, checkpoint_seconds=5.0)),
        ]
        if devices == ["cpu"]:
            rows += [("two workers, one thread each", Run(folder, ["cpu", "cpu"], 4, threads=1))]
        elif len(devices) > 1:
            rows += [("all devices", Run(folder, devices, 2 * len(devices)))]
        for label, run in rows:
            tasks = make(2 if label == "warming up" else a.jobs)
            run(tasks)
            table.add_row(label, *row(run, [Timings.read(task) for task in tasks], a.iterations))
    Console(width=130).print(table)


def row(run: Run, each: list[Timings], iterations: int) -> list[str]:
    """The figures of a run: medians without the first job (warm-up)."""

    def middle(name: str) -> float:
        return float(median(getattr(timings, name) for timings in each[1:]))

    figures = [60 * len(each) / run.seconds]
    if len(run.devices) == 1:
        firsts = [timings.first for timings in each[1:]]
        apart = (run.staged[-1] - run.staged[0]) / (len(each) - 1)
        besides = apart - iterations * middle("iteration")
        gaps = [seconds - first for seconds, first in zip(run.to_first, firsts, strict=True)]
        figures += [besides, median(gaps)]
    else:  # one worker paints in the gaps of another
        figures += [nan, nan]
    figures += [middle(name) for name in ("first", "iteration", "prepare", "save")]
    figures += [100 * sum(t.checkpoints for t in each) / sum(t.paint for t in each)]
    return [f"{figure:.3g}" for figure in figures]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=128, help="longer side in pixels")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--one-style", action="store_true", help="the same style for all jobs")
    parser.add_argument("--devices", nargs="+", default=["cpu"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
