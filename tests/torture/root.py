"""A root whose daemon is killed, and what must be true of it at any moment and at the end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

from nst_daemon.errors import UsageError
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from tests.torture.victim import children

REPOSITORY = Path(__file__).parents[2]
DEADLINE = 120.0  # seconds for one run of the daemon; a slow machine is not a failure

S = JobState


@dataclass
class Drop:
    """What was dropped under one name, and how it may end.

    digests: of its files; library styles do not count. deaths: how often its worker was killed while it ran; job_id:
    the id in its settings file.
    """

    digests: list[str]
    outcomes: set[JobState]
    deaths: int = 0
    job_id: str = ""


@dataclass
class Root:
    """Folders, what was dropped, and the daemon as a process."""

    path: Path
    renderer: str = "tests.fakes:Renderer"
    settings: dict[str, str] = field(default_factory=dict)
    drops: dict[str, Drop] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inbox.mkdir(parents=True, exist_ok=True)

    @property
    def inbox(self) -> Path:
        """Where things are dropped."""
        return self.path / "inbox"

    @property
    def ledger_path(self) -> Path:
        """The ledger's file."""
        return self.path / "state" / "ledger.sqlite"

    def copy(self, path: Path) -> Root:
        """The same root elsewhere, to go another way from here."""
        shutil.copytree(self.path, path)
        return replace(self, path=path, drops=deepcopy(self.drops))

    # Dropping

    def drop(self, name: str, files: dict[str, bytes], *outcomes: JobState) -> None:
        """Write files below the inbox that together are the job `name`."""
        for path, data in files.items():
            target = self.inbox / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # Renamed in, so that no look sees half of one.
            temporary = self.inbox / f".arriving-{target.name}"
            temporary.write_bytes(data)
            temporary.rename(target)
        self.drops[name] = Drop(
            [_digest(data) for data in files.values()], set(outcomes or {S.DONE})
        )

    def pair(
        self,
        name: str,
        *outcomes: JobState,
        style: bytes = b"a style",
        job_id: str = "",
        **script: object,
    ) -> None:
        """Drop a pair for the fake renderer (see `tests.fakes` for what a script may say). job_id: in its NAME.yaml."""
        content = json.dumps({"iterations": 3, "tag": name, **script}).encode()
        last = name.rpartition("/")[2]
        files = {f"{name}.content.png": content, f"{name}.style.png": style + last.encode()}
        if job_id:
            files = {f"{name}.yaml": f"id: {job_id}\n".encode(), **files}
        self.drop(name, files, *outcomes)
        self.drops[name].job_id = job_id
        self.drops[name].deaths = script.get("do") == "kill"

    # Running

    def start(
        self,
        *,
        once: bool = True,
        die_at: str | int | None = None,
        record: Path | None = None,
        together: bool = False,
        fail_at: str = "",
    ) -> Victim:
        """Start the daemon; it kills itself at `die_at`, `together` with its workers; see `victim`."""
        plan: dict[str, object] = {"renderer": self.renderer, "once": once, "together": together}
        plan["fail_at"] = fail_at
        if die_at is not None:
            plan["die_at"] = die_at
        if record is not None:
            plan["record"] = str(record)
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "NST_FOLDERS__ROOT": str(self.path),
            "NST_SERVICE__SETTLE_SECONDS": "0.05",
            "NST_SERVICE__TRUNCATED_GRACE": "0.1",
            "NST_SERVICE__RESCAN_SECONDS": "0.2",
            "NST_LIMITS__MIN_FREE_DISK": "0",
            "NST_DEVICES": "cpu",
            # Plots take matplotlib seconds to begin with, in each of hundreds of workers.
            "NST_OUTPUTS__LOSS_PLOT": "false",
            "NST_OUTPUTS__PROGRESS": "false",
            "TORTURE_PLAN": json.dumps(plan),
            **self.settings,
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.victim", str(self.path)],
                env=environment,
                cwd=self.path,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Victim(process, self)

    def run(self, *, die_at: str | int | None = None, record: Path | None = None) -> int:
        """Let the daemon drain the inbox; its exit code (negative: the signal that ended it)."""
        return self.start(die_at=die_at, record=record).wait()

    @property
    def log(self) -> Path:
        """Where the daemons write what they say."""
        return self.path / "log"

    def text(self) -> str:
        """All that the daemons have said."""
        return self.log.read_text(errors="replace")

    # What must be true

    def check_now(self) -> None:
        """At any moment: nothing lost, and nothing partial in results/."""
        there = self._digests("inbox", "state/spool", "done", "failed")
        for name, drop in self.drops.items():
            for digest in drop.digests:
                assert there[digest] >= 1, f"a file of {name} is lost"
        for name, data in self.pictures().items():
            assert _is_whole_png(data), f"{name}.png is partial"
            json.loads((self.path / "results" / f"{name}.json").read_text())

    def check_end(self) -> dict[str, JobState]:
        """When all is drained: one outcome and at most one result for each input; the states by name."""
        self.check_now()
        states: dict[str, JobState] = {}
        with Ledger.attach(self.ledger_path) as ledger:
            for job in ledger.jobs():
                assert job.name not in states, f"{job.name} has two rows"
                assert job.state.terminal, f"{job.name} is {job.state}"
                states[job.name] = job.state
                assert self.drops[job.name].job_id in {"", job.id}
                picture = self.path / "results" / job.result
                if job.state is S.DONE:
                    assert _digest(picture.read_bytes()) == job.staged_sha256
                else:
                    assert not job.result
        assert states.keys() == self.drops.keys()
        for name, drop in self.drops.items():
            assert states[name] in drop.outcomes, f"{name} is {states[name]}: {self._history(name)}"
        done = {name for name, state in states.items() if state is S.DONE}
        assert self.pictures().keys() == done
        archived = self._digests("done", "failed")
        wanted = Counter(digest for drop in self.drops.values() for digest in drop.digests)
        assert wanted <= archived, "an input is not in done/ or failed/"
        assert not self._digests("inbox", "state/spool", "state/stage", "state/checkpoints")
        hidden = {
            path.name
            for folder in ("results", "done", "failed")
            for path in (self.path / folder).rglob(".*")
        }
        assert hidden <= {".job.json", ".preview"}, hidden
        database = sqlite3.connect(self.ledger_path)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
        return states

    def _history(self, name: str) -> list[tuple[float, JobState, int, str]]:
        """What became of a job: when, the state, the attempt, and why."""
        with Ledger.attach(self.ledger_path) as ledger:
            (job,) = [job for job in ledger.find(name) if job.name == name]
            return [(e.at, e.state, e.attempt, e.note) for e in ledger.events(job.id)]

    def pictures(self) -> dict[str, bytes]:
        """Every picture in results/, by its name without suffix; not the plots beside them."""
        results = self.path / "results"
        return {
            str(path.relative_to(results).with_suffix("")): path.read_bytes()
            for path in results.rglob("*.png")
            if not path.name.endswith(".loss.png") and ".preview" not in path.parts
        }

    def _digests(self, *folders: str) -> Counter[str]:
        """The digests of all files in these folders that can be read; hidden ones do not count."""
        found: Counter[str] = Counter()
        for folder in folders:
            for path in (self.path / folder).rglob("*"):
                if path.is_file() and not path.name.startswith("."):
                    found[_digest(path.read_bytes())] += 1
        return found


@dataclass
class Victim:
    """A daemon that runs, or has run."""

    process: subprocess.Popen[bytes]
    root: Root

    def wait(self, seconds: float = DEADLINE) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end in sight: {self.root.text()[-3000:]}") from None

    def kill(self, *, together: bool = False) -> None:
        """SIGKILL to the daemon, which its workers notice; `together`: to its workers as well, at once."""
        workers = children(self.process.pid) if together else []
        for pid in (*workers, self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(DEADLINE)

    def kill_workers(self) -> bool:
        """SIGKILL to the workers alone, unless a job that they have would lose its second worker."""
        self.process.send_signal(
            signal.SIGSTOP
        )  # so that the jobs are the same ones when the signal comes
        try:
            with Ledger.attach(self.root.ledger_path) as ledger:
                running = [self.root.drops[job.name] for job in ledger.jobs(S.RUNNING)]
            if any(drop.deaths for drop in running):
                return False
            for drop in running:
                drop.deaths += 1
            for pid in children(self.process.pid):
                os.kill(pid, signal.SIGKILL)
            return True
        except UsageError:  # not made yet
            return False
        finally:
            self.process.send_signal(signal.SIGCONT)

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for a condition while the daemon runs; False where it ended before, or time has run out."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < deadline:
            if condition():
                return True
            _wait_for(self.process, 0.01)
        return condition()

    def state(self, name: str) -> JobState | None:
        """The state of a job of this name, as another process reads it."""
        try:
            with Ledger.attach(self.root.ledger_path) as ledger:
                return next((job.state for job in ledger.find(name) if job.name == name), None)
        except UsageError:  # not made yet
            return None


def _wait_for(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait a little, less where the process ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_whole_png(data: bytes) -> bool:
    """Whether every chunk of a PNG is there with its checksum, the last one too."""
    position, kind = 8, b""
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        body = data[position + 4 : position + 8 + length]
        if zlib.crc32(body) != int.from_bytes(
            data[position + 8 + length : position + 12 + length], "big"
        ):
            return False
        position += 12 + length
    return data[:8] == b"\x89PNG\r\n\x1a\n" and kind == b"IEND" and position == len(data)
