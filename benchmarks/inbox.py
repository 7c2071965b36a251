"""The cost of the inbox: thousands of pairs at once, a single pair, and an idle daemon.

    python -m benchmarks.inbox [--pairs 10000] [--idle 30]
    python -m benchmarks.inbox --pairs 100000 --look

The daemon is the real one in a separate process. Its executor returns a picture immediately, so only scanning,
claiming, the ledger, publishing and archiving are measured.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nst_daemon.config import load
from nst_daemon.digests import sha256_file
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.service.loop import serve
from nst_daemon.service.state import Moment
from nst_daemon.service.supervisor import Supervisor
from nst_daemon.workers.executor import WorkerStatus
from nst_daemon.workers.messages import Event, Ready, Staged, Stopped, Task
from nst_daemon.workers.picture_check import DecodingCheck

SETTLE_SECONDS = 1.0


def noise(side: int = 80) -> bytes:
    """A PNG of side × side random pixels: 19 kB for 80."""
    rows = b"".join(b"\0" + os.urandom(3 * side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


STYLE = noise()
#: The smallest file that looks like a whole picture.
TINY = b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xae\x42\x60\x82"
CLAIMED = [state for state in JobState if state is not JobState.DONE]


class InstantExecutor:
    """An executor that returns pictures immediately."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque([Ready("instant", {})])
        self._read, self._write = os.pipe2(os.O_NONBLOCK)

    def start(self) -> None:
        """Nothing has to be loaded."""

    def capacity(self) -> int:
        """Free places; at most two pictures are unanswered."""
        return 2 - len(self._events)

    def submit(self, task: Task) -> None:
        """Stage a picture and its sidecar."""
        (task.stage / "picture.json").write_text(f'"{task.job_id}"')
        (task.stage / "picture.png").write_bytes(STYLE)
        digest = sha256_file(task.stage / "picture.png")
        self._events.append(Staged("instant", task.job_id, ("picture.json", "picture.png"), digest))
        os.write(self._write, b"!")

    def cancel(self, job_id: str) -> None:
        """The picture is finished already."""

    def poll(self, now: float) -> list[Event]:
        """Everything staged since the last call."""
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
        """Return unanswered jobs."""
        return [Stopped("instant", e.job_id) for e in self._events if isinstance(e, Staged)]


def run_daemon(root: Path) -> None:
    """Run the daemon. ROOT/rounds gets a line for each of its rounds: seconds, and flushes and commits so far."""
    config = load(
        None,
        {
            "NST_FOLDERS__ROOT": str(root),
            "NST_SERVICE__SETTLE_SECONDS": str(SETTLE_SECONDS),
            "NST_LIMITS__MIN_FREE_DISK": "0",
        },
    )
    flush, transaction, step = os.fsync, Ledger._transaction, Supervisor.step
    flushes = commits = 0
    with (root / "rounds").open("w") as log:

        def counted_flush(file: int) -> None:
            nonlocal flushes
            flushes += 1
            flush(file)

        def counted_transaction(self: Ledger) -> AbstractContextManager[None]:
            nonlocal commits
            commits += not self._db.in_transaction
            return transaction(self)

        def timed_step(self: Supervisor, now: Moment, *, woken: bool = False) -> None:
            began = time.perf_counter()
            step(self, now, woken=woken)
            log.write(f"{time.perf_counter() - began} {flushes} {commits}\n")
            log.flush()

        os.fsync = counted_flush
        Ledger._transaction = counted_transaction  # type: ignore[assignment,method-assign]
        Supervisor.step = timed_step  # type: ignore[method-assign]
        serve(config, InstantExecutor(), DecodingCheck.on_this_machine(config.folders.logs))


def drop(inbox: Path, name: str, picture: bytes = b"") -> None:
    """Drop a pair: the same picture twice, or a content of its own and the same style each time."""
    (inbox / f"{name}.content.png").write_bytes(picture or noise())
    (inbox / f"{name}.style.png").write_bytes(picture or STYLE)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> str:
    """Peak memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return f"{kib / 1024:.0f} MiB"


def read_rounds(root: Path) -> list[tuple[float, int, int]]:
    """What `run_daemon` has written."""
    lines = (line.split() for line in (root / "rounds").read_text().splitlines())
    return [(float(took), int(flushes), int(commits)) for took, flushes, commits in lines]


def row_of_rounds(rounds: Sequence[tuple[float, int, int]]) -> tuple[str, str]:
    """How long the rounds took, as a row of the table."""
    took = sorted(1e3 * line[0] for line in rounds)
    text = f"{statistics.median(took):.0f} / {took[-len(took) // 100]:.0f} / {took[-1]:.0f} ms"
    return "a round of the daemon: median / one in a hundred / longest", text


def print_looks(pairs: int, processor: float, rounds: Sequence[tuple[float, int, int]]) -> None:
    """Print what it took until the first pair was claimed."""
    table = Table("measured", "value", title=f"{pairs:,} pairs until the first is claimed")
    table.add_row("rounds", f"{len(rounds):,}")
    table.add_row(*row_of_rounds(rounds))
    table.add_row("CPU time of the daemon", f"{processor:.1f} s")
    Console().print(table)


def wait_until_done(
    daemon: subprocess.Popen[bytes],
    root: Path,
    count: int,
    states: Collection[JobState] = (JobState.DONE,),
) -> float:
    """Wait until `count` jobs are done, or in one of these states. Returns the seconds."""
    began = time.monotonic()
    while True:
        if daemon.poll() is not None:
            sys.exit((root / "log").read_text())
        with Ledger.attach(root / "state" / "ledger.sqlite") as ledger:
            counts = ledger.counts()
            if sum(counts[state] for state in states) >= count:
                return time.monotonic() - began
        time.sleep(1.0)  # another process is watched: there is no clock to inject


def latency(root: Path, name: str) -> float:
    """Drop a pair. Returns the seconds between settling and claim."""
    drop(root / "inbox", name)
    settled = time.time() + SETTLE_SECONDS
    while True:
        with Ledger.attach(root / "state" / "ledger.sqlite") as ledger:
            for job in ledger.find(name):
                return ledger.events(job.id)[0].at - settled
        time.sleep(0.02)  # another process is watched: there is no clock to inject


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument(
        "--look", action="store_true", help="only until the first pair is claimed, with tiny files"
    )
    parser.add_argument(
        "--idle", type=float, default=30.0, help="seconds for which the idle daemon is measured"
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
            drop(root / "inbox", f"p{number}", TINY if options.look else b"")
        with (root / "log").open("w") as log:
            daemon = subprocess.Popen(  # noqa: S603 (ourselves)
                [sys.executable, "-m", "benchmarks.inbox", "--serve", str(root)], stderr=log
            )
        try:
            while not (root / "rounds").exists() or not (root / "rounds").stat().st_size:
                time.sleep(0.1)  # another process is watched: there is no clock to inject
            if options.look:
                wait_until_done(daemon, root, 1, CLAIMED)
                print_looks(options.pairs, cpu_seconds(daemon.pid), read_rounds(root))
                return
            seconds = wait_until_done(daemon, root, options.pairs)
            processor = 1e3 * cpu_seconds(daemon.pid) / options.pairs
            rounds = read_rounds(root)
            flushes, commits = (number / options.pairs for number in rounds[-1][1:])
            held = memory(daemon.pid)
            results = len(list((root / "results").glob("*.png")))
            archived = sum(1 for _ in (root / "done").iterdir())
            delays = [latency(root, f"single{number}") for number in range(5)]
            wait_until_done(daemon, root, options.pairs + 5)
            before = cpu_seconds(daemon.pid)
            time.sleep(options.idle)  # the idle daemon is measured during this time
            idle = (cpu_seconds(daemon.pid) - before) / options.idle
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
    title = f"{options.pairs:,} pairs at once; load {load:.1f} on {os.cpu_count()} cores before"
    table = Table("measured", "value", title=title)
    table.add_row("results / archives", f"{results:,} / {archived:,}")
    table.add_row(
        "from settled to done, all pairs",
        f"{seconds:.0f} s ({options.pairs / seconds:.0f} jobs/s)",
    )
    table.add_row("CPU time of the daemon per job", f"{processor:.1f} ms")
    table.add_row("flushes / commits per job", f"{flushes:.1f} / {commits:.1f}")
    table.add_row(*row_of_rounds(rounds))
    table.add_row("peak memory of the daemon", held)
    table.add_row("from settled to claimed, one pair, median", f"{statistics.median(delays):.2f} s")
    table.add_row("CPU usage while idle (of one core)", f"{100 * idle:.2f} %")
    Console().print(table)


if __name__ == "__main__":
    main()
