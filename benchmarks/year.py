"""A year in small: does the daemon lose a job, grow or slow down over tens of thousands of jobs?

    python -m benchmarks.year [--jobs 50000] [--keep 120] [--minutes 600] [--in FOLDER]

The real daemon with a fake painter (`tests.fakes`) gets 52 weeks of jobs (fewer below 13,000 jobs): pairs, folders,
pictures for a library style, a nightly batch, a submission by the command, broken files, jobs that fail or kill their
worker once, cancels, retries and deletions. The page and the metrics are read all the time. Inputs of ended jobs are
kept for KEEP seconds; the ledger is copied and the log rotated (as logrotate's copytruncate does) again and again.

In the weeks of the first half the daemon is stopped, killed or reloaded, also in the middle of a painting, alone or
with its processes. In the second half it runs without a break, so that what grows is seen. Each week must end with all
of its jobs ended. At the end each input must be a result, or have failed with a reason; inputs that are younger than
KEEP must be there with their bytes, and older ones must be gone. The tables show each tenth of the year: MB are those
resident (of the process alone, proportional); times are the median and the longest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.year_daemon import PROCESSES, TIMED, Daemon, Taken, taken
from benchmarks.year_jobs import PATIENCE, Year
from nst_daemon.config import load
from nst_daemon.intake.archive import CARD
from nst_daemon.ops.status import gather
from tests.service.test_status_page import free_port

API = "/api/v1"
#: What is read all the time while the daemon runs.
VISITED = (
    "/",
    f"{API}/status",
    f"{API}/jobs?limit=50",
    f"{API}/jobs?state=failed",
    f"{API}/batches",
)
WEEKS, PARTS = 52, 10
#: Seconds between two visits.
PAUSE = 2.0
#: Files that are dropped between two pauses of a fiftieth of a second.
AT_ONCE = 10
#: What happens in the weeks of the first half, in turn.
TROUBLES = (
    "kill while painting",
    "stop",
    "kill all",
    "kill worker",
    "stop while painting",
    "reload",
    "kill",
)
#: A life without a break may take so much more at its end: bytes of memory, open files, threads (requests of the page
#: have some of both, and on a busy machine several run at a time).
MORE_BYTES, MORE_FILES, MORE_THREADS = 8e6, 10, 8
#: Of all files in state/logs/.
MOST_LOG_BYTES = 1e6
#: What is timed, by its name in the table.
TIMES = (*TIMED, "status", "list")


@dataclass
class Part:
    """What was measured in a tenth of the year.

    processor: seconds by process; pid, processes, ledger, archives, logs: at its end; timings: seconds by name.
    """

    jobs: int = 0
    seconds: float = 0.0
    pid: int = 0
    processor: Counter[str] = field(default_factory=Counter)
    processes: Mapping[str, Taken] = field(default_factory=dict)
    timings: dict[str, list[float]] = field(default_factory=dict)
    ledger: int = 0
    archives: int = 0
    logs: int = 0


class Visitor(threading.Thread):
    """Reads the page and the metrics again and again, while the daemon runs.

    Args:
        ports: Of the page and of the metrics.
    """

    def __init__(self, *ports: int) -> None:
        super().__init__(daemon=True)
        self._page, self._metrics = ports
        self._end = threading.Event()
        self.answers: Counter[int] = Counter()

    def run(self) -> None:
        while not self._end.wait(PAUSE):
            for path in VISITED:
                self.answers[fetch(self._page, path)[0]] += 1
            self.answers[fetch(self._metrics, "/metrics")[0]] += 1

    def stop(self) -> None:
        """Stop reading."""
        self._end.set()
        self.join()


def fetch(port: int, path: str) -> tuple[int, float, bytes]:
    """Status (0 without an answer), seconds and body of a request."""
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, time.perf_counter() - began, answer.read()
    except OSError as error:
        return getattr(error, "code", 0), time.perf_counter() - began, b""


class Run:
    """A whole year.

    Args:
        root: An empty folder.
        jobs: How many.
        keep: Seconds for which inputs of ended jobs are kept.
        weeks: In how many portions the jobs come.
        say: Tells people how far it is.
    """

    def __init__(
        self, root: Path, *, jobs: int, keep: float, weeks: int, say: Callable[[str], None]
    ) -> None:
        self._root, self._jobs, self._weeks, self._say = root, jobs, weeks, say
        self._page, self._metrics = free_port(), free_port()
        settings = {
            "NST_FOLDERS__ROOT": str(root),
            "NST_SERVICE__SETTLE_SECONDS": "0.2",
            "NST_SERVICE__TRUNCATED_GRACE": "0.5",
            "NST_SERVICE__CHECKPOINT_SECONDS": "0.3",
            "NST_BATCH_ROOTS": json.dumps([str(root / "night")]),
            "NST_KEEP__DONE_DAYS": str(keep / 86400),
            "NST_KEEP__FAILED_DAYS": str(keep / 86400),
            "NST_STATUS_PAGE": f"127.0.0.1:{self._page}",
            "NST_METRICS__PORT": str(self._metrics),
            "NST_METRICS__TEXTFILE": str(root / "nst.prom"),
            "NST_LIMITS__MIN_FREE_DISK": "0",
            "NST_DEVICES": "cpu",
            # The time of the curve and the time-lapse is not that of the daemon.
            "NST_OUTPUTS__LOSS_PLOT": "false",
            "NST_OUTPUTS__PROGRESS": "false",
            "NST_OUTPUTS__CONTACT_SHEET": "false",
        }
        self._folders = load(None, settings).folders
        self._year = Year(self._folders, keep=keep, slack=keep + 20)
        self._daemon = Daemon(root, settings, retention=keep / 4, backup=keep / 2)
        self._visitor = Visitor(self._page, self._metrics)
        self._spent: dict[int, float] = {}  # seconds of the processor, by process
        self._part = Part()
        self.parts: list[Part] = []
        self.troubles: Counter[str] = Counter()
        self.rotated = 0
        self._ended = 0.0  # when the daemon ended, in seconds since the epoch

    @property
    def answers(self) -> Counter[int]:
        """How often the page and the metrics answered with each status; 0: no answer."""
        return self._visitor.answers

    def __call__(self, deadline: float = math.inf) -> None:
        """Do all weeks, or those that begin before a moment of the monotonic clock.

        Raises RuntimeError if the daemon ends by itself or makes no progress.
        """
        parts = min(PARTS, self._weeks)
        with self._serving():
            self._measure()
            for part in range(parts):
                for week in range(self._weeks * part // parts, self._weeks * (part + 1) // parts):
                    if time.monotonic() < deadline:
                        self._week(week)
                if self._part.jobs:
                    self._measure()
            self._daemon.terminate()
            self._ended = time.time()

    def check(self) -> Counter[str]:
        """How many jobs there are of what. Raises AssertionError if something is lost or has grown."""
        self._check_growth()
        unexpected = {code for code in self.answers if code not in {0, 200}}
        assert not unexpected, f"the page has answered {unexpected}"
        return self._year.check(self._ended)

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """The daemon and its visitor; both have ended afterwards."""
        self._daemon.start()
        try:
            self._daemon.until(lambda: fetch(self._page, "/")[0] == 200, "page")
            self._visitor.start()
            yield
        finally:
            self._visitor.stop()
            self._daemon.end()

    # A week

    def _week(self, week: int) -> None:
        number = self._jobs // self._weeks + (week < self._jobs % self._weeks)
        began, since = time.monotonic(), time.time()
        for n, _ in enumerate(self._year.drop_week(week, number)):
            if n % AT_ONCE == 0:
                time.sleep(0.02)  # as people do, files come one after the other
            if n == number // 2 and week < self._weeks // 2:
                self._make_trouble(week)
        self._wait(since)
        self._year.delete_results(since)
        self._wait(since)
        took = time.monotonic() - began
        self._part.jobs += number
        self._part.seconds += took
        self._rotate()
        main = self._daemon.taken()["main"]
        self._say(
            f"week {week + 1:2} of {self._weeks}: {number} jobs, {number / took:.1f} per second, "
            f"{main.resident / 1e6:.0f} MB, {main.files} files, {main.threads} threads"
        )

    def _wait(self, since: float) -> None:
        """Wait until all jobs have ended, also those that are retried. Raises RuntimeError without progress.

        since: when the week began, in seconds since the epoch.
        """
        left, deadline = -1, 0.0
        while unfinished := self._year.retry_failed(since) + self._year.unfinished():
            self._daemon.check_alive()
            if unfinished != left:
                left, deadline = unfinished, time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise RuntimeError(f"{left} jobs and requests make no progress")
            self._year.cancel()
            self._note_processor()
            time.sleep(0.25)  # another process is watched: there is no clock to inject

    def _make_trouble(self, week: int) -> None:
        trouble = TROUBLES[week % len(TROUBLES)]
        self.troubles[trouble] += 1
        if "painting" in trouble or "worker" in trouble:
            name = f"w{week:02}-slow"
            self._year.drop_slow(name)
            self._daemon.until(lambda: self._year.painting(name), "checkpoint")
        self._note_processor()
        if trouble == "reload":
            self._daemon.reload()
        elif trouble == "kill worker":
            self._daemon.signal(signal.SIGKILL, "worker")
        else:
            if "stop" in trouble:
                self._daemon.terminate()
            else:
                self._daemon.kill(together=trouble == "kill all")
            self._daemon.start()

    def _rotate(self) -> None:
        """Copy the log and empty it, as logrotate does with `copytruncate`, and look for faults in the copy."""
        log = self._daemon.log
        rotated = log.with_name("log.1")
        shutil.copyfile(log, rotated)
        os.truncate(log, 0)
        text = rotated.read_bytes()
        assert b"\0" not in text, "the log has a hole: it is not appended to"
        assert b"Traceback" not in text, f"there is a fault in {rotated}"
        self.rotated += len(text) > 0

    # Measurements

    def _note_processor(self) -> None:
        for name, pid in self._daemon.processes().items():
            if now := taken(pid):
                self._part.processor[name] += now.processor - self._spent.get(pid, 0.0)
                self._spent[pid] = now.processor

    def _measure(self) -> None:
        """End a part."""
        self._note_processor()
        part, folders = self._part, self._folders
        part.pid, part.processes = self._daemon.pid, self._daemon.taken()
        part.timings = self._daemon.timings()
        part.timings["status"] = [self._timed_status() for _ in range(5)]
        part.timings["list"] = [fetch(self._page, f"{API}/jobs?limit=50")[1] for _ in range(5)]
        part.ledger = _bytes(folders.state.glob("ledger.sqlite*"))
        # Unlike `rglob`, `walk` goes on where the daemon removes a folder.
        walked = (entry for root in (folders.done, folders.failed) for entry in os.walk(root))
        part.archives = sum(CARD in names for _, _, names in walked)
        part.logs = _bytes(folders.logs.iterdir())
        self.parts.append(part)
        self._part = Part()

    def _timed_status(self) -> float:
        began = time.perf_counter()
        gather(self._folders)
        return time.perf_counter() - began

    def _check_growth(self) -> None:
        """In the life without a break nothing grows."""
        first, *_, last = [part for part in self.parts if part.pid == self.parts[-1].pid] * 2
        for name in first.processes.keys() & last.processes.keys():
            before, after = first.processes[name], last.processes[name]
            bytes_more = after.own - before.own
            assert bytes_more <= MORE_BYTES, f"{name} takes {bytes_more / 1e6:.0f} MB more"
            assert after.files <= before.files + MORE_FILES, f"{name} has {after.files} open files"
            assert after.threads <= before.threads + MORE_THREADS, (
                f"{name}: {after.threads} threads"
            )
        assert last.logs <= MOST_LOG_BYTES, f"the logs of the processes take {last.logs} bytes"


# The report


def tables(run: Run) -> list[Table]:
    """What the processes took, and how long things took, at the start and after each tenth."""
    held = Table(
        "after jobs",
        *(f"{name}, MB" for name in PROCESSES),
        "open files",
        "threads",
        box=box.MARKDOWN,
    )
    times = Table(
        "after jobs", "jobs/s", "CPU ms per job: main", "worker", "check", "page", "ledger, MB", "archives",
        *(f"{name}, ms" for name in TIMES), box=box.MARKDOWN,
    )  # fmt: skip
    jobs = 0
    for part in run.parts:
        jobs += part.jobs
        found = [part.processes.get(name) for name in PROCESSES]
        held.add_row(
            f"{jobs:,}",
            *(f"{t.resident / 1e6:.0f} ({t.own / 1e6:.0f}, {t.proportional / 1e6:.0f})" if t else "-" for t in found),
            " ".join(str(t.files) if t else "-" for t in found),
            " ".join(str(t.threads) if t else "-" for t in found),
        )  # fmt: skip
        each = [
            f"{1e3 * part.processor[name] / part.jobs:.1f}" if part.jobs else "-"
            for name in PROCESSES
        ]
        times.add_row(
            f"{jobs:,}",
            f"{part.jobs / part.seconds:.1f}" if part.jobs else "-",
            *each,
            f"{part.ledger / 1e6:.1f}",
            f"{part.archives:,}",
            *(_spread(part.timings.get(name, [])) for name in TIMES),
        )
    return [held, times]


def _spread(seconds: list[float]) -> str:
    """Median and longest, in milliseconds."""
    return f"{1e3 * median(seconds):.0f} / {1e3 * max(seconds):.0f}" if seconds else "-"


def _bytes(paths: Iterable[Path]) -> int:
    """The bytes of those files that the daemon does not remove meanwhile."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument(
        "--keep", type=float, default=120.0, help="seconds for which inputs of ended jobs are kept"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="no week begins after this time"
    )
    parser.add_argument("--in", type=Path, dest="where", help="a folder on the disk to use")
    options = parser.parse_args()
    load_before, began = os.getloadavg()[0], time.monotonic()
    if options.where:
        options.where.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="nst-year-", dir=options.where))

    def say(line: str) -> None:
        print(f"{(time.monotonic() - began) / 60:6.1f} min, {line}", flush=True)

    weeks = min(WEEKS, max(4, options.jobs // 250))
    run = Run(scratch / "root", jobs=options.jobs, keep=options.keep, weeks=weeks, say=say)
    run(began + 60 * options.minutes)
    console = Console(width=220)
    for table in tables(run):
        console.print(table)
    print("in the first half: " + ", ".join(f"{n} × {what}" for what, n in run.troubles.items()))
    print(f"log rotated {run.rotated} times; answers of page and metrics: {dict(run.answers)}")
    print(
        f"{time.monotonic() - began:.0f} s; load {load_before:.1f} on {os.cpu_count()} cores before"
    )
    print(f"checking {scratch}, which stays if something is wrong", flush=True)
    found = run.check()
    jobs = sum(part.jobs for part in run.parts)
    print(f"{jobs:,} jobs, none lost: " + ", ".join(f"{n:,} {what}" for what, n in found.items()))
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
