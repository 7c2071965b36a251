"""What the inbox costs: thousands of pairs at once, one pair alone, and nothing at all.

    python -m benchmarks.inbox [--pairs 10000] [--idle 30]

The daemon is the real one, as a process of its own, with an executor that paints at once and does nothing else, so
that all that is measured is scanning, claiming, the ledger, publishing and archiving.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nst_daemon.config import load
from nst_daemon.digests import sha256_file
from nst_daemon.intake.scan import Intake, Scan
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.service.loop import serve
from nst_daemon.workers.executor import WorkerStatus
from nst_daemon.workers.messages import Event, Ready, Staged, Stopped, Task

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 20_000 + b"IEND\xae\x42\x60\x82"
SETTLE_SECONDS = 1.0


class Instant:
    """An executor whose pictures are ready when they are asked for."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque([Ready("instant", {})])
        self._read, self._write = os.pipe2(os.O_NONBLOCK)

    def start(self) -> None:
        """Nothing has to be loaded."""

    def capacity(self) -> int:
        """As many as may be waiting for their answer."""
        return 2 - len(self._events)

    def submit(self, task: Task) -> None:
        """Stage a picture and its sidecar."""
        (task.stage / "picture.json").write_text(f'"{task.job_id}"')
        (task.stage / "picture.png").write_bytes(PNG)
        digest = sha256_file(task.stage / "picture.png")
        self._events.append(Staged("instant", task.job_id, ("picture.json", "picture.png"), digest))
        os.write(self._write, b"!")

    def cancel(self, job_id: str) -> None:
        """Too late."""

    def poll(self, now: float) -> list[Event]:
        """All that was staged since."""
        events, self._events = list(self._events), deque()
        if events:
            with suppress(BlockingIOError):
                os.read(self._read, 4096)
        return events

    def status(self, now: float) -> Sequence[WorkerStatus]:
        """It has no workers."""
        return ()

    def waitables(self) -> Sequence[object]:
        """Readable when something is staged."""
        return [self._read]

    def stop(self, grace: float) -> list[Event]:
        """What was never answered."""
        return [Stopped("instant", e.job_id) for e in self._events if isinstance(e, Staged)]


def run_daemon(root: Path) -> None:
    """The daemon; the seconds of each scan and the files that it saw go to ROOT/scans."""
    config = load(
        None,
        {
            "NST_FOLDERS__ROOT": str(root),
            "NST_SERVICE__SETTLE_SECONDS": str(SETTLE_SECONDS),
            "NST_LIMITS__MIN_FREE_DISK": "0",
        },
    )
    real = Intake.scan
    with (root / "scans").open("w", buffering=1) as log:

        def timed(self: Intake, now: float, wall: float) -> Scan:
            began = time.perf_counter()
            scan = real(self, now, wall)
            seen = len(scan.requests) + len(scan.settling)
            log.write(f"{time.perf_counter() - began} {seen}\n")
            return scan

        Intake.scan = timed  # type: ignore[method-assign]
        serve(config, Instant())


def drop(inbox: Path, name: str, picture: bytes = PNG) -> None:
    """A pair."""
    for role in ("content", "style"):
        (inbox / f"{name}.{role}.png").write_bytes(picture)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> str:
    """The most that a process has held, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return f"{kib / 1024:.0f} MiB"


def wait_until_done(daemon: subprocess.Popen[bytes], root: Path, count: int) -> float:
    """Seconds until so many jobs are done."""
    began = time.monotonic()
    while True:
        if daemon.poll() is not None:
            sys.exit((root / "log").read_text())
        with Ledger.attach(root / "state" / "ledger.sqlite") as ledger:
            if ledger.counts()[JobState.DONE] >= count:
                return time.monotonic() - began
        time.sleep(1.0)  # another process is watched from outside: there is no clock to inject


def latency(root: Path, name: str) -> float:
    """Seconds from the moment at which a pair had settled to its claim."""
    drop(root / "inbox", name)
    settled = time.time() + SETTLE_SECONDS
    while True:
        with Ledger.attach(root / "state" / "ledger.sqlite") as ledger:
            for job in ledger.find(name):
                return ledger.events(job.id)[0].at - settled
        time.sleep(0.02)  # another process is watched from outside: there is no clock to inject


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument(
        "--idle", type=float, default=30.0, help="seconds over which idleness is measured"
    )
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        run_daemon(options.serve)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="nst-inbox-") as scratch:
        root = Path(scratch)
        (root / "inbox").mkdir()
        for number in range(options.pairs):
            drop(root / "inbox", f"p{number}")
        with (root / "log").open("w") as log:
            daemon = subprocess.Popen(  # noqa: S603 (ourselves)
                [sys.executable, "-m", "benchmarks.inbox", "--serve", str(root)], stderr=log
            )
        try:
            while not (root / "scans").exists() or not (root / "scans").stat().st_size:
                time.sleep(
                    0.1
                )  # another process is watched from outside: there is no clock to inject
            seconds = wait_until_done(daemon, root, options.pairs)
            processor = 1e3 * cpu_seconds(daemon.pid) / options.pairs
            scans = [line.split() for line in (root / "scans").read_text().splitlines()]
            full = [float(took) for took, seen in scans if int(seen) >= options.pairs // 2]
            held = memory(daemon.pid)
            results = len(list((root / "results").glob("*.png")))
            archived = sum(1 for _ in (root / "done").iterdir())
            delays = [latency(root, f"single{number}") for number in range(5)]
            wait_until_done(daemon, root, options.pairs + 5)
            before = cpu_seconds(daemon.pid)
            time.sleep(options.idle)  # what an idle daemon costs is what is measured
            idle = (cpu_seconds(daemon.pid) - before) / options.idle
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
    title = f"{options.pairs:,} pairs at once; load {load:.1f} on {os.cpu_count()} cores before"
    table = Table("measured", "value", title=title)
    table.add_row("results / archives", f"{results:,} / {archived:,}")
    table.add_row(
        "from settled to done, all of them",
        f"{seconds:.0f} s ({options.pairs / seconds:.0f} jobs/s)",
    )
    table.add_row("processor time of the daemon for each", f"{processor:.1f} ms")
    table.add_row(
        "a scan of the full inbox, median / longest",
        f"{statistics.median(full):.2f} / {max(full):.2f} s",
    )
    table.add_row("memory of the daemon, at most", held)
    table.add_row("from settled to claimed, one pair, median", f"{statistics.median(delays):.2f} s")
    table.add_row("one core while idle", f"{100 * idle:.2f} %")
    Console().print(table)


if __name__ == "__main__":
    main()
