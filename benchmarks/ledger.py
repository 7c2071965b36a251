"""What a long queue costs the ledger and the scan, each alone: seconds of the processor and of the clock.

    python -m benchmarks.ledger [--jobs 100000] [--sample 300] [--in FOLDER]

The ledger is filled through its own methods, with a thousand jobs in each transaction. Then each step of a job's life
is measured for a sample of jobs, in one durable transaction each, as in the daemon, and so are the queries of the
daemon and of `nst-daemon status`. The inbox is scanned with two files for each job. FOLDER: the disk to use (/dev/shm
shows the cost without a disk).
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from unittest import mock

from rich.console import Console
from rich.table import Table

from benchmarks.inbox import TINY, drop
from nst_daemon.intake.scan import Intake
from nst_daemon.jobs import Fingerprint, Job, JobInput, JobState, Role
from nst_daemon.ledger import Ledger
from nst_daemon.ledger_file import back_up

S = JobState


def job(number: int) -> Job:
    """A claimed pair."""
    mark = Fingerprint(number, 20_000, number, number)
    inputs = tuple(
        JobInput(role, f"p{number}.{role}.png", f"{role}.png", "0" * 64, 20_000, origin, mark)
        for role in (Role.CONTENT, Role.STYLE)
        for origin in [f"p{number}.{role}.png"]
    )
    at = float(number)
    return Job(f"{number:032x}", f"p{number}", "pair", S.CLAIMED, inputs, created=at, updated=at)


def fill(ledger: Ledger, numbers: Iterable[int], states: Iterable[JobState]) -> None:
    """Add jobs and move them through these states, in one transaction."""
    with ledger._transaction(), mock.patch.object(ledger, "_transaction", nullcontext):
        for number in numbers:
            one = job(number)
            ledger.add(one)
            for state in states:
                ledger.move(one.id, state, now=one.created)


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU time of a call, in milliseconds."""
    clock, processor = time.perf_counter(), time.process_time()
    act()
    return 1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - processor)


def row(table: Table, what: str, acts: Iterable[Callable[[], object]]) -> None:
    """Run all calls, and add a row with the medians."""
    clock, processor = zip(*map(timed, acts), strict=True)
    table.add_row(what, f"{median(clock):.2f}", f"{median(processor):.2f}")


def measure_ledger(table: Table, folder: Path, jobs: int, sample: int) -> None:
    """Measure the steps with `jobs` jobs in the queue, and the queries with as many finished jobs in addition."""
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        for first in range(0, jobs, 1000):
            fill(ledger, range(first, min(first + 1000, jobs)), [S.QUEUED])
        new = [job(jobs + n) for n in range(sample)]
        row(table, "add a job (add)", (lambda j=j: ledger.add(j) for j in new))  # type: ignore[misc]
        row(
            table,
            "look up a file (claimed_before)",
            (
                lambda j=j: ledger.claimed_before(j.inputs[0].origin, Fingerprint(0, 0, 0, 0))  # type: ignore[misc]
                for j in new
            ),
        )
        row(table, "find the next job (next_queued)", [ledger.next_queued] * sample)
        for to in (S.QUEUED, S.RUNNING, S.STAGED, S.PUBLISHED, S.DONE):
            row(
                table,
                f"move a job to {to}",
                (lambda j=j, to=to: ledger.move(j.id, to, now=1e9) for j in new),  # type: ignore[misc]
            )
        row(table, "counts", [ledger.counts] * 10)
        row(table, "status: the next 10 of the queue", [lambda: ledger.queue(10)] * 10)
        for first in range(jobs * 2, jobs * 3, 1000):
            ends = [S.QUEUED, S.RUNNING, S.STAGED, S.PUBLISHED, S.DONE]
            fill(ledger, range(first, min(first + 1000, jobs * 3)), ends)
        both = f"with {jobs:,} more done: "
        row(table, both + "counts", [ledger.counts] * 10)
        row(table, both + "the last 10 done", [lambda: ledger.history(S.DONE, limit=10)] * 10)
        row(table, both + "find the next job", [ledger.next_queued] * 10)
        row(table, both + "find by name", [lambda: ledger.find("p7")] * 3)
        row(table, both + "backup", [lambda: back_up(ledger.path)])
        size = (folder / "ledger.sqlite").stat().st_size
        table.add_row(f"bytes per job ({2 * jobs:,} jobs)", f"{size / jobs / 2:.0f}", "")


def measure_scan(table: Table, folder: Path, jobs: int) -> None:
    """Measure three scans of an inbox with `jobs` pairs: all new, all settled, all still there."""
    for name in ("inbox", "styles"):
        (folder / name).mkdir()
    for number in range(jobs):
        drop(folder / "inbox", f"p{number}", TINY)
    intake = Intake(
        folder / "inbox",
        folder / "styles",
        settle_seconds=1.0,
        truncated_grace=60.0,
        pair_timeout=math.inf,
        rescan_seconds=30.0,
        max_bytes=1 << 30,
    )
    for now, what in ((0.0, "new"), (10.0, "settled"), (20.0, "settled, again")):
        row(
            table,
            f"scan {jobs:,} pairs, {what}",
            [lambda now=now: intake.scan(now, time.time() + now)],  # type: ignore[misc]
        )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=300, help="jobs whose steps are timed")
    parser.add_argument("--in", type=Path, dest="where", help="a folder on the disk to measure")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    title = f"{options.jobs:,} jobs; load {load:.1f} on {os.cpu_count()} cores before"
    table = Table("milliseconds, median", "clock", "processor", title=title)
    with tempfile.TemporaryDirectory(prefix="nst-ledger-", dir=options.where) as name:
        measure_ledger(table, Path(name), options.jobs, options.sample)
        measure_scan(table, Path(name), options.jobs)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table.add_row("peak memory of this process, MiB", f"{held:.0f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
