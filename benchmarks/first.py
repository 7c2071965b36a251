"""What a user waits for before the first iteration, and the memory of a worker.

    python -m benchmarks.first [--size 512] [--repeat 3]

A worker: seconds from its start to its being ready, and from there to the first iteration of its first job; its
resident memory when it is ready, at most during two jobs with the default settings, of which the second is prepared
while the first is painted, and when it is idle again. The command `stylize`: its seconds without those of the painting.
Every process starts with an empty folder for ONNX files and style statistics, but with its files in the system's cache.
Printed are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.drawings import draw_painting, draw_scene
from benchmarks.workers import Tasks, events
from nst_daemon.engine.settings import resolve
from nst_daemon.machine import proc_bytes
from nst_daemon.workers.local import LocalExecutor
from nst_daemon.workers.messages import (
    Died,
    Failed,
    Progress,
    Ready,
    Staged,
    WorkerOptions,
)

#: Seconds after the last job until a worker counts as idle.
IDLE = 3.0
#: Iterations of the command at each size.
ITERATIONS = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(args.repeat):
        for measure in (worker, command):
            with tempfile.TemporaryDirectory() as folder:
                for name, figure in measure(Path(folder), args.size).items():
                    found[name].append(figure)
    for name, figures in found.items():
        print(f"{name:50} {median(figures):8.2f}")


def worker(folder: Path, size: int) -> dict[str, float]:
    """Seconds and MB of a worker that paints two pictures."""
    executor = LocalExecutor(["cpu"], WorkerOptions(weights="bundled", cache_dir=folder / "cache"))
    found: dict[str, float] = {}
    left, since = 2, time.monotonic()
    executor.start()
    for event in events(executor):
        now = time.monotonic()
        match event:
            case Ready():
                found["worker: start to ready, s"] = now - since
                found["worker: memory when ready, MB"] = memory("VmRSS")
                for task in Tasks(folder, size, ITERATIONS)(left):
                    executor.submit(replace(task, settings=resolve({"size": size})))
                since = time.monotonic()
            case Progress(done=1):
                found.setdefault("worker: ready to first iteration, s", now - since)
            case Staged():
                left -= 1
            case Failed() | Died():
                raise SystemExit(f"cannot go on: {event}")
        if not left:
            break
    found["worker: memory at most, MB"] = memory("VmHWM")
    time.sleep(IDLE)  # another process is watched: there is no clock to inject
    found["worker: memory when idle, MB"] = memory("VmRSS")
    executor.stop(10.0)
    return found


def memory(field: str) -> float:
    """A field of /proc/PID/status in MB, of the child of this process that has most."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    each = [proc_bytes(Path(f"/proc/{pid}/status")).get(field, 0.0) for pid in children]
    return max(each, default=0.0) / 1e6


def command(folder: Path, size: int) -> dict[str, float]:
    """Seconds of `nst-daemon stylize` that it does not paint."""
    content, style = folder / "content.jpg", folder / "style.jpg"
    draw_scene(1024, 768).save(content)
    draw_painting(1024, 768).save(style)
    began = time.monotonic()
    done = subprocess.run(  # noqa: S603 (our own program)
        [
            *(sys.executable, "-m", "nst_daemon", "stylize", content, style),
            *("-o", folder / "out.png", "--size", str(size), "--json", "--quiet"),
            *("--set", f"iterations={ITERATIONS}"),
        ],
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    spent = json.loads(done.stdout)["seconds"]
    return {
        "stylize: all but painting, s": seconds - spent["paint"],
        "stylize: preparing, s": spent["prepare"],
    }


if __name__ == "__main__":
    main()
