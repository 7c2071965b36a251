"""Strange drops against the real program: `python -m tests.torture.fuzz_daemon`.

`nst-daemon run` paints real pictures at 32 px with one iteration while strange things arrive. It is killed with SIGKILL
and started again now and then. If it ends by itself, that is a death. See `fuzz` for what must be true in the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from nst_daemon import config as configuration
from nst_daemon.ledger import Ledger
from tests.corpus import picture
from tests.torture.fuzz import make_parser, without_overrides
from tests.torture.outcomes import OutcomeError, check_outcomes, give_rights_back
from tests.torture.strange import Dropped, drop

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {
    "NST_SERVICE__SETTLE_SECONDS": "0.1",
    "NST_SERVICE__TRUNCATED_GRACE": "0.3",
    "NST_SERVICE__RESCAN_SECONDS": "0.5",
    "NST_SERVICE__PAIR_TIMEOUT": "3",
    "NST_LIMITS__MIN_FREE_DISK": "0",
    "NST_RENDER__SIZE": "32",
    "NST_RENDER__ITERATIONS": "[1]",
    "NST_OUTPUTS__PROGRESS": "false",
    "NST_OUTPUTS__LOSS_PLOT": "false",
    "NST_DEFAULT_STYLE": "starry",
    "NST_DEVICES": "cpu",
}
#: Seconds without a change after which nothing more is to come, and for all of it.
QUIET, DEADLINE = 8.0, 900.0


class Daemon:
    """The program on a root of its own."""

    def __init__(self, folder: Path) -> None:
        for name in ("inbox", "styles", "photos/album"):
            (folder / name).mkdir(parents=True)
        (folder / "styles" / "starry.png").write_bytes(picture())
        for seed, path in enumerate(("photos/a.png", "photos/album/b.png")):
            (folder / path).write_bytes(picture(seed=seed))
        self.environment = {
            **os.environ,
            **SETTINGS,
            "PYTHONPATH": str(REPOSITORY),
            "NST_FOLDERS__ROOT": str(folder),
            "NST_BATCH_ROOTS": f"[{folder / 'photos'}]",
        }
        ours = {key: value for key, value in self.environment.items() if key.startswith("NST_")}
        self.config = configuration.load(
            None, {k: v for k, v in ours.items() if k != "NST_FUZZ_BOUND"}
        )
        self.environment.pop("NST_FUZZ_BOUND", None)
        self.folder, self.log = folder, folder / "log"
        self.dropped = Dropped(folder / "inbox", folder / "styles")
        self.start()

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nst_daemon", "run"],
                env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def watch(self, seconds: float) -> None:
        """Let it work. Raises OutcomeError where it ends by itself."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise OutcomeError(f"the daemon ended with {code}: {self.text()[-2500:]}")

    def text(self) -> str:
        """What it has said."""
        return self.log.read_text(errors="replace")

    def drain(self) -> None:
        """Wait until nothing happens any more. Raises OutcomeError where something stays undone."""
        give_rights_back(self.dropped.inbox_bytes)
        deadline, before, since = time.monotonic() + DEADLINE, "", time.monotonic()
        while time.monotonic() - since < QUIET:
            self.watch(0.5)
            with Ledger.attach(self.config.folders.ledger) as ledger:
                jobs = ledger.jobs()
            open_jobs = [job.name for job in jobs if not job.state.terminal or not job.archive]
            now = f"{len(jobs)} {self.log.stat().st_size}"
            if now != before or open_jobs:
                before, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise OutcomeError(f"no end: {open_jobs}: {self.text()[-2500:]}")

    def check(self) -> Counter[str]:
        """The figures. Raises OutcomeError."""
        with Ledger.attach(self.config.folders.ledger) as ledger:
            text = self.text()
            return check_outcomes(self.config.folders, ledger, self.dropped, text.__contains__)


def fuzz(folder: Path, drops: int, seed: int) -> Counter[str]:
    """Drop so many things; the figures. Raises OutcomeError."""
    daemon, chance = Daemon(folder), Random(seed)
    figures: Counter[str] = Counter()
    recent: list[str] = []
    try:
        while daemon.dropped.tried < drops:
            recent.append(drop(chance.randrange(1 << 40), daemon.dropped))
            if chance.random() < 0.1:
                daemon.watch(chance.uniform(0.0, 2.0))
            if chance.random() < 0.02:
                daemon.kill()
                daemon.start()
                figures["restarts"] += 1
        daemon.watch(1.0)
        daemon.drain()
        daemon.process.terminate()
        if code := daemon.process.wait(60):
            raise OutcomeError(f"the daemon ended with {code}: {daemon.text()[-2500:]}")
        return figures + daemon.check() + Counter({"tried": drops})
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


def summary(figures: Counter[str], seconds: float) -> str:
    """The figures for people."""
    return (
        f"fuzz of the real program: {figures['tried']} drops tried, {figures['restarts']} restarts, "
        f"0 deaths of the daemon; {figures['done']} done, {figures['failed']} failed, "
        f"{figures['left']} files left in the inbox, {seconds:.0f} s"
    )


def main() -> int:
    options = make_parser(__doc__, 300).parse_args()
    without_overrides("tests.torture.fuzz_daemon")
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nst-fuzz-") as scratch:
        try:
            figures = fuzz(Path(scratch, "root"), options.drops, options.seed)
        except OutcomeError as fault:
            print(fault, flush=True)
            return 1
    print(summary(figures, time.monotonic() - began), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
