"""The daemon of `benchmarks.year`: the real one with a fake painter, and what its processes take.

`python -m benchmarks.year_daemon ROOT RETENTION BACKUP` serves ROOT, looks for what has been kept for long enough every
RETENTION seconds, and copies the ledger every BACKUP seconds. How long the parts of the daemon take is written to
ROOT/timings, one line for each call that takes at least a millisecond.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from nst_daemon.config import load
from nst_daemon.ops import logs
from nst_daemon.service import ledger_copy
from nst_daemon.service.housekeeping import Housekeeping
from nst_daemon.service.looks import Looks
from nst_daemon.service.loop import serve
from nst_daemon.service.state import Pacing
from nst_daemon.service.supervisor import Supervisor
from nst_daemon.workers.local import LocalExecutor
from nst_daemon.workers.messages import WorkerOptions
from nst_daemon.workers.picture_check import DecodingCheck

REPOSITORY = Path(__file__).parents[1]
#: What is timed, by its name in the table.
TIMED: Mapping[str, tuple[Any, str]] = {
    "scan": (Looks, "go_on"),
    "backup": (ledger_copy, "back_up"),
    "retention": (Housekeeping, "retain_when_due"),
    "round": (Supervisor, "step"),
}
#: Shorter calls are not written down.
LEAST_SECONDS = 0.001
#: Seconds for a start, and for an end after SIGTERM.
PATIENCE = 120.0
#: Words in the command line of each process of the daemon.
PROCESSES = {
    "main": "benchmarks.year_daemon",
    "worker": "nst_daemon.workers.process.main",
    "check": "nst_daemon.workers.process.picture_check",
    "page": "nst_daemon.web",
}


def main() -> None:
    root, retention, backup = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    config = load(None)
    logs.setup(config.log.format, config.log.level)
    options = WorkerOptions(
        renderer="tests.fakes:Renderer",
        logs=config.folders.logs,
        cache_dir=config.folders.cache,
        checkpoint_seconds=config.service.checkpoint_seconds,
    )
    pacing = Pacing(back_off=0.2, retention=retention, backup=backup)
    check = DecodingCheck.on_this_machine(config.folders.logs)
    with (root / "timings").open("a", buffering=1) as file:
        for name, (owner, method) in TIMED.items():
            setattr(owner, method, _timed(getattr(owner, method), name, file))
        executor = LocalExecutor(config.devices, options)
        serve(config, executor, check, reload=lambda: load(None), pacing=pacing)


def _timed(call: Callable[..., Any], name: str, file: TextIO) -> Callable[..., Any]:
    @functools.wraps(call)
    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            if (took := time.perf_counter() - began) >= LEAST_SECONDS:
                file.write(f"{name} {took:.4f}\n")

    return timed


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process takes: bytes of memory, open files, threads, and seconds of the processor so far."""

    resident: int
    own: int
    proportional: int
    files: int
    threads: int
    processor: float


def taken(pid: int) -> Taken | None:
    """What a process takes; None if it has ended."""
    proc = Path(f"/proc/{pid}")
    try:
        lines = (proc / "smaps_rollup").read_text().splitlines()[1:]
        size = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        return Taken(
            resident=size["Rss"],
            own=size["Private_Clean"] + size["Private_Dirty"],
            proportional=size["Pss"],
            files=len(list((proc / "fd").iterdir())),
            threads=len(list((proc / "task").iterdir())),
            processor=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        )
    except (OSError, IndexError, KeyError):
        return None


class Daemon:
    """The daemon as a process. Its log is appended to ROOT/log, as `nst-daemon run 2>>log` does.

    Args:
        root: The folder of the root.
        settings: Variables of its configuration.
        retention: Seconds between two looks for what has been kept for long enough.
        backup: Seconds between two copies of the ledger.
    """

    def __init__(
        self, root: Path, settings: Mapping[str, str], *, retention: float, backup: float
    ) -> None:
        self.root = root
        self._settings, self._arguments = settings, (str(retention), str(backup))
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0

    @property
    def log(self) -> Path:
        """The file with its log."""
        return self.root / "log"

    @property
    def pid(self) -> int:
        """Of the main process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it serves the root."""
        with self.log.open("ab") as log:
            served = self._served()
            self._process = subprocess.Popen(  # noqa: S603 (ourselves)
                [sys.executable, "-m", "benchmarks.year_daemon", str(self.root), *self._arguments],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self._settings},
                cwd=self.root,
                stderr=log,
            )
        self.until(lambda: self._served() > served, "start")

    def _served(self) -> int:
        return self.log.read_bytes().count(b" serving ")

    def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait for a condition while it runs. Raises RuntimeError if it ends before, or if that takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {what} within {seconds:.0f} s: {self._tail()}")
            time.sleep(0.05)  # another process is watched: there is no clock to inject

    def check_alive(self) -> None:
        """Raise RuntimeError if it has ended by itself."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the daemon ended ({self._process.returncode}): {self._tail()}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def terminate(self) -> None:
        """SIGTERM, and wait for the end. Raises RuntimeError unless it ends with 0 and leaves no process."""
        processes = self.processes()
        self.signal(signal.SIGTERM)
        self._wait(processes, 0)

    def end(self) -> None:
        """End it, if it still runs, whatever has happened."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def reload(self) -> None:
        """SIGHUP, and wait until the configuration was read again."""
        line = b" using the new configuration"
        before = self.log.read_bytes().count(line)
        self.signal(signal.SIGHUP)
        self.until(lambda: self.log.read_bytes().count(line) > before, "reload")

    def kill(self, *, together: bool = False) -> None:
        """SIGKILL, `together` with the processes that it has started, and wait until all have ended."""
        processes = self.processes()
        for pid in processes.values() if together else [self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait(processes, -signal.SIGKILL)

    def _wait(self, processes: Mapping[str, int], wanted: int) -> None:
        assert self._process is not None
        code = self._process.wait(PATIENCE)
        if code != wanted:
            raise RuntimeError(f"the daemon ended with {code} instead of {wanted}: {self._tail()}")
        deadline = time.monotonic() + PATIENCE
        while left := [name for name, pid in processes.items() if taken(pid)]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the daemon has ended, and left its {', '.join(left)}")
            time.sleep(0.05)  # other processes are watched: there is no clock to inject

    def signal(self, number: int, process: str = "main") -> None:
        """Send a signal to one of its processes, if there is one of this name."""
        if pid := self.processes().get(process):
            os.kill(pid, number)

    def processes(self) -> dict[str, int]:
        """Its processes by name: main, worker, page, check (while pictures are checked)."""
        found = {"main": self.pid}
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread or a process that has just ended
                for child in (task / "children").read_text().split():
                    command = Path(f"/proc/{child}/cmdline").read_text()
                    name = next((name for name, word in PROCESSES.items() if word in command), "")
                    found[name or f"other {child}"] = int(child)
        return found

    def taken(self) -> dict[str, Taken]:
        """What each of its processes takes."""
        found = {name: taken(pid) for name, pid in self.processes().items()}
        return {name: values for name, values in found.items() if values}

    def timings(self) -> dict[str, list[float]]:
        """The seconds that the parts of the daemon have taken since the last call, by name."""
        found: dict[str, list[float]] = defaultdict(list)
        with (self.root / "timings").open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # a line may be half written
        self._read += len(whole)
        for line in whole.decode().splitlines():
            name, _, seconds = line.partition(" ")
            found[name].append(float(seconds))
        return found


if __name__ == "__main__":
    main()
