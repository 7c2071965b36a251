"""How fast is an iteration if waiting threads spin, sleep, or spin briefly and then sleep (`machine.BRIEF_WAITING`)?

    python -m benchmarks.waiting                # nothing else running
    python -m benchmarks.waiting --load 2       # beside two processes that each keep a core busy

Each painting is a process of its own, and the ways of waiting take turns. Printed are the medians and their ratios.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from itertools import pairwise
from statistics import median

from nst_daemon.machine import BRIEF_WAITING, usable_cpus

WAYS = {
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "infinite"},
    "default": {},
    "sleeping": {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"},
    "briefly": dict(BRIEF_WAITING),
}


def paint(size: int, iterations: int, threads: int) -> None:
    """Print the median of the seconds per iteration, in this process."""
    from nst_daemon.engine.settings import resolve  # noqa: PLC0415 (torch reads the environment)
    from nst_daemon.painter import Painter  # noqa: PLC0415
    from nst_daemon.samples import CONTENT, STYLE  # noqa: PLC0415

    painter = Painter(device="cpu", threads=threads)
    settings = resolve({"size": size, "iterations": iterations, "scales": [1.0]})
    times = []
    for step in painter.paint(painter.prepare(CONTENT, [STYLE], settings)):
        _ = step.losses
        times.append(time.monotonic())
    print(median(b - a for a, b in pairwise(times)))


def measured(way: str, args: argparse.Namespace) -> float:
    """Seconds per iteration, of a process with these variables."""
    environment = {k: v for k, v in os.environ.items() if k not in BRIEF_WAITING} | WAYS[way]
    shown = [str(n) for n in (args.size, args.iterations, args.threads)]
    command = [sys.executable, "-m", "benchmarks.waiting", "--paint", *shown]
    done = subprocess.run(  # noqa: S603 (our own program)
        command, env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=int, default=0, help="busy processes beside the painting")
    parser.add_argument("--paint", type=int, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.paint:
        paint(*args.paint)
        return
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.load)]
    try:
        rounds = [{way: measured(way, args) for way in WAYS} for _ in range(args.rounds)]
    finally:
        for process in busy:
            process.kill()
    for way in WAYS:
        times = " ".join(f"{found[way]:.3f}" for found in rounds)
        ratio = median(found[way] / found["sleeping"] for found in rounds)
        print(f"{way:9} s/iteration: {times}   {ratio:.2f} × sleeping")
    print(f"{args.threads} threads, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
