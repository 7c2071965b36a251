"""Drop thousands of strange things, and count what becomes of them: `python -m tests.torture.fuzz`.

Episodes run against the real supervisor, intake, ledger and folders, with an executor that paints at once and a clock
that the episode moves. The daemon is killed and started again in between. An exception that leaves the supervisor is
a death. In the end each drop must have exactly one outcome: it is in done/ or failed/ once, or it is still in the inbox
and its name is ignored or was mentioned; a good pair that follows must be painted.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from random import Random

from nst_daemon.errors import Retry, StorageError
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.workers.messages import Failed
from tests.bench import PNG, Bench
from tests.torture.file_errors import FileErrors
from tests.torture.outcomes import OutcomeError, check_outcomes, give_rights_back
from tests.torture.strange import Dropped, drop

S = JobState
#: Seconds that one round may take.
SLOWEST_ROUND = 20.0
#: After so many rounds without progress something is wrong.
ROUNDS = 60


class Said(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take down what the package logs meanwhile, and let nothing else do so."""
        logger = logging.getLogger("nst_daemon")
        before = logger.level, logger.propagate
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.level, logger.propagate = before


class Episode:
    """One root, and what happens to it. errors: lets calls of the file system fail, until the end begins."""

    def __init__(
        self, folder: Path, seed: int, said: Said, errors: FileErrors | None = None
    ) -> None:
        self.chance = Random(seed)
        self.folder, self.said, self.errors = folder, said, errors
        for name in ("inbox", "styles", "photos/album"):
            (folder / name).mkdir(parents=True)
        (folder / "styles" / "starry.png").write_bytes(PNG)
        for path in ("photos/a.png", "photos/album/b.png"):
            (folder / path).write_bytes(PNG + path.encode())
        self.dropped = Dropped(folder / "inbox", folder / "styles")
        self.figures: Counter[str] = Counter()
        self.what: list[str] = []
        self.bench = Bench(
            folder,
            default_style=self.chance.choice(["", "starry"]),
            batch_roots=(folder / "photos",),
        )

    def run(self, seeds: Sequence[int]) -> None:
        """Do all of it. Raises what leaves the supervisor, or OutcomeError."""
        for seed in seeds:
            self.what.append(drop(seed, self.dropped))
            chance = Random(seed)
            if chance.random() < 0.4:
                self.rounds(chance, chance.randrange(1, 4))
            if chance.random() < 0.05:
                self.restart()
            if chance.random() < 0.1:
                self.request(chance)
        give_rights_back(self.dropped.inbox_bytes)
        if self.errors:
            # What a file error leaves undone is done when it is over, at the latest by the next start.
            self.errors = None
            self.rounds(self.chance, 20)
            self.restart()
        self.drain()
        self.figures += check_outcomes(
            self.bench.folders,
            self.bench.ledger,
            self.dropped,
            lambda text: any(text in line for line in self.said.lines),
        )
        self.figures["drops"] = self.dropped.tried
        self.bench.ledger.close()

    def restart(self) -> None:
        """Kill the daemon and start it again."""
        self.bench.ledger.close()
        try:
            with self.failing_calls():
                self.bench.begin()
        except (StorageError, OSError):
            if not self.errors:
                raise
            self.bench.begin()  # systemd starts it again
        self.figures["restarts"] += 1

    def failing_calls(self) -> AbstractContextManager[None]:
        """Let a call of the file system fail, in half of the cases."""
        if self.errors and self.chance.random() < 0.5:
            return self.errors.one(self.chance, self.folder)
        return nullcontext()

    def rounds(self, chance: Random, times: int, seconds: float = 1.5) -> None:
        """Some rounds of the daemon, whose executor paints at once."""
        for _ in range(times):
            began = time.monotonic()
            with self.failing_calls():
                self.bench.step(seconds)
            while self.bench.executor.tasks:
                if chance.random() < 0.1:
                    self.bench.executor.answer(
                        lambda task: Failed(
                            "fake", task.job_id, Retry.NEVER, "a\nfault \udcff", "x"
                        )
                    )
                else:
                    self.bench.executor.paint()
            if (took := time.monotonic() - began) > SLOWEST_ROUND:
                raise OutcomeError(f"one round took {took:.0f} s")

    def request(self, chance: Random) -> None:
        """Ask for a retry or for a cancellation, as another process does."""
        with Ledger.attach(self.bench.folders.ledger) as ledger:
            jobs = ledger.jobs()
            for job in chance.sample(jobs, min(2, len(jobs))):
                ledger.request(
                    job.id, chance.choice(["retry", "retry", "cancel"]), now=self.bench.now.wall
                )

    def drain(self) -> None:
        """Go on until nothing happens any more; then one good pair, which must be painted."""
        chance = Random(0)
        for _ in range(3):
            self.rounds(chance, 4)
            self.rounds(chance, 1, 4000.0)
        for name in ("last.content.png", "last.style.png"):
            (self.bench.folders.inbox / name).write_bytes(PNG + name.encode())
        quiet, left = 0, -1
        while not self.finished():
            self.rounds(chance, 1, 10.0)
            before, left = left, len(self.open_jobs())
            quiet = quiet + 1 if left == before else 0
            if quiet == ROUNDS:
                seen = self.bench.supervisor
                raise OutcomeError(
                    f"no end: {seen.headline}; paused: {seen.paused!r}; {self.open_jobs()}"
                )
        (last,) = [job for job in self.bench.ledger.jobs() if job.name in {"last", "last-2"}]
        if last.state not in {S.DONE, S.FAILED} or (
            last.state is S.FAILED and "fault" not in last.error
        ):
            raise OutcomeError(f"the good pair is {last.state}: {last.error}")

    def open_jobs(self) -> list[str]:
        """The jobs that have not ended, or are not archived."""
        return [f"{job.name}: {job.state} {job.archive!r}" for job in self.bench.ledger.jobs()
                if not job.state.terminal or not job.archive]  # fmt: skip

    def finished(self) -> bool:
        """Whether the good pair and everything before it has ended."""
        names = [job.name for job in self.bench.ledger.jobs()]
        return "last" in names and not self.open_jobs() and self.bench.supervisor.drained


def attempt(
    seed: int, seeds: Sequence[int], said: Said, errors: FileErrors | None = None
) -> tuple[Counter[str], str, list[str]]:
    """One episode: its figures, what went wrong ("" for nothing), and what was dropped."""
    said.lines.clear()
    folder = Path(
        tempfile.mkdtemp(
            prefix="nst-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        )
    )
    episode = None
    try:
        episode = Episode(folder / "root", seed, said, errors)
        episode.run(seeds)
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        wrong = f"{type(error).__name__}: {error}"
        if not isinstance(error, OutcomeError):
            wrong += "\n" + "".join(traceback.format_tb(error.__traceback__)[-4:])
        return Counter(), wrong, episode.what if episode else []
    finally:
        if episode:
            with suppress(Exception):
                give_rights_back(episode.dropped.inbox_bytes)
                episode.bench.ledger.close()
        shutil.rmtree(folder, ignore_errors=True)
    return episode.figures, "", episode.what


def minimise(
    seed: int, seeds: Sequence[int], wrong: str, said: Said, errors: FileErrors | None
) -> list[int]:
    """The fewest drops after which the same goes wrong."""
    kept, size = list(seeds), len(seeds) // 2
    same = wrong.split(":", maxsplit=1)[0]
    while size:
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            if fewer and attempt(seed, fewer, said, errors)[1].split(":")[0] == same:
                kept = fewer
                break
        else:
            size //= 2
    return kept


def fuzz(drops: int, length: int, seed: int, errors: FileErrors | None = None) -> Counter[str]:
    """Drop so many things, so many of them on one root; the figures, with faults. Prints what goes wrong."""
    said, chance = Said(), Random(seed)
    figures: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    with said.listening():
        while figures["tried"] < drops:
            episode = chance.randrange(1 << 40), [chance.randrange(1 << 40) for _ in range(length)]
            found, wrong, _ = attempt(*episode, said, errors)
            figures["tried"] += length
            figures.update(found)
            if wrong:
                kind = wrong.split(":")[0]
                faults[kind] += 1
                if faults[kind] <= 3:
                    fewest = minimise(*episode, wrong, said, errors)
                    _, wrong, what = attempt(episode[0], fewest, said, errors)
                    print(f"{wrong}\n  after {what}: attempt({episode[0]}, {fewest})", flush=True)
    figures["failed calls"] = errors.figures.total() if errors else 0
    figures["faults"] = faults["OutcomeError"]
    figures["deaths"] = sum(faults.values()) - faults["OutcomeError"]
    return figures


def summary(figures: Counter[str], seconds: float) -> str:
    """The figures for people."""
    return (
        f"fuzz: {figures['tried']} drops tried, {figures['restarts']} restarts, "
        f"{figures['failed calls']} file calls failed, "
        f"{figures['deaths']} deaths of the daemon, "
        f"{figures['faults']} episodes with a drop without exactly one outcome; "
        f"{figures['done']} done, {figures['failed']} failed, {figures['cancelled']} cancelled, "
        f"{figures['left']} files left in the inbox, {seconds:.0f} s"
    )


def make_parser(description: str | None, drops: int) -> argparse.ArgumentParser:
    """The options of every fuzz. drops: by default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drops", type=int, default=drops, help="how many things to drop")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all chance")
    return parser


def main() -> int:
    parser = make_parser(__doc__, 5000)
    parser.add_argument("--episode", type=int, default=25, help="how many of them on one root")
    parser.add_argument("--errors", action="store_true", help="let file calls fail now and then")
    options = parser.parse_args()
    without_overrides("tests.torture.fuzz")
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    errors = FileErrors() if options.errors else None
    figures = fuzz(options.drops, options.episode, options.seed, errors)
    print(summary(figures, time.monotonic() - began), flush=True)
    return bool(figures["deaths"] or figures["faults"])


def without_overrides(module: str) -> None:
    """Root ignores permissions: give up the capabilities for that, by starting once more."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and setpriv and "NST_FUZZ_BOUND" not in os.environ:
        rights = "--bounding-set=-dac_override,-dac_read_search"
        os.environ["NST_FUZZ_BOUND"] = "1"
        os.execv(setpriv, [setpriv, rights, sys.executable, "-m", module, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
