"""Kill the daemon at random, again and again, and count what becomes of its inputs: `python -m tests.torture.kills`.

While drops of all kinds arrive, the real daemon is killed with SIGKILL at random moments, or made to kill itself at a
random point (see `victim`), alone or with its workers, and started again; or its workers are killed alone.
After each kill nothing may be lost and nothing partial may stand in results/; in the end each input has exactly one
outcome and at most one result, and no job is quarantined for what others did. The last line gives the figures.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ops.requests import priority_of
from tests.torture.root import Root
from tests.torture.victim import SOME_FAILED

S = JobState
#: So that a job that is interrupted again and again has something to go on from.
CHECKPOINTS = {"NST_SERVICE__CHECKPOINT_SECONDS": "0.2"}
#: What a daemon says once it has started.
SERVING = "info    serving"
#: For the last daemon, which does all that is left.
DRAIN_SECONDS = 1800.0
Dropper = Callable[[Root, int, random.Random], None]


@dataclass(frozen=True)
class Trial:
    """One way to be tortured. seconds: the longest life of a daemon; drop: what arrives before each."""

    renderer: str
    seconds: float
    drop: Dropper
    settings: dict[str, str]


def drop_fakes(root: Root, number: int, chance: random.Random) -> None:
    """Something of any kind, for the fake renderer."""
    name = f"n{number}"
    once = f"mischief-{number}"
    kinds: list[Callable[[], None]] = [
        lambda: root.pair(name, iterations=chance.randrange(1, 200)),
        lambda: root.pair(name, iterations=40, seconds=0.01),
        lambda: root.pair(name, iterations=200, seconds=0.03),  # longer than the daemon lives
        lambda: root.pair(f"trip/{name}"),
        lambda: root.pair(name, job_id=chance.randbytes(16).hex()),
        lambda: root.drop(name, {f"{name}/content.png": b"c%d" % number, f"{name}/style.png": b"s%d" % number}),
        lambda: root.drop(f"starry/{name}", {f"starry/{name}.png": b"hot %d" % number}),
        lambda: root.drop(name, {f"{name}.content.txt": b"refused %d" % number}, S.FAILED),
        lambda: root.pair(name, S.FAILED, do="raise", at=2),
        lambda: root.pair(name, do="device", at=1, once=once),
        lambda: root.pair(name, do="kill", at=2, once=once),
        lambda: root.pair(name, S.QUARANTINED, do="kill", at=2),
    ]  # fmt: skip
    weights = [6, 3, 1, 2, 3, 3, 3, 2, 2, 2, 1, 0.3]
    chance.choices(kinds, weights)[0]()


def drop_pictures(root: Root, number: int, chance: random.Random) -> None:
    """A small pair of real pictures, or one with a file that is not a picture."""
    name = f"n{number}"
    if chance.random() < 0.2:
        root.drop(
            name,
            {f"{name}.content.png": b"none %d" % number, f"{name}.style.png": _picture(number)},
            S.FAILED,
        )
    else:
        root.drop(
            name,
            {
                f"{name}.content.png": _picture(2 * number),
                f"{name}.style.png": _picture(2 * number + 1),
            },
        )


def _picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 48)).save(buffer, "PNG")
    return buffer.getvalue()


TRIALS = {
    "fake": Trial("tests.fakes:Renderer", 2.5, drop_fakes, CHECKPOINTS),
    "real": Trial(
        "nst_daemon.workers.process.renderer:Renderer",
        12.0,
        drop_pictures,
        CHECKPOINTS | {"NST_RENDER__SIZE": "64", "NST_RENDER__ITERATIONS": "20"},
    ),
}  # fmt: skip


def torture(trial: Trial, kills: int, folder: Path, seed: int) -> Counter[str]:
    """Kill one root's daemon so many times; the figures. Raises AssertionError where anything is lost or doubled."""
    chance = random.Random(seed)
    root = Root(folder, renderer=trial.renderer, settings=trial.settings)
    (folder / "styles").mkdir()
    (folder / "styles" / "starry.png").write_bytes(_picture(0))
    figures: Counter[str] = Counter()
    number = 0
    while figures["kills"] < kills:
        for _ in range(chance.randrange(4)):
            number += 1
            trial.drop(root, number, chance)
        figures["requests"] += request_priorities(root, chance)
        one_life(root, trial, chance, figures)
        root.check_now()
    code = root.start().wait(DRAIN_SECONDS)
    assert code in {0, SOME_FAILED}, root.text()[-3000:]
    states = Counter(root.check_end().values())
    with Ledger.attach(root.ledger_path) as ledger:
        assert ledger.pending_requests() == []
    figures.update({f"{state}": count for state, count in states.items()})
    figures["inputs"] = len(root.drops)
    figures["results"] = len(root.pictures())
    return figures


def request_priorities(root: Root, chance: random.Random) -> int:
    """Request other priorities for some jobs, while no daemon runs; their number."""
    if not root.log.exists() or SERVING not in root.text():
        return 0  # no daemon has lived long enough to make the whole ledger
    with Ledger.attach(root.ledger_path) as ledger:
        wanted = [job.id for job in ledger.jobs() if chance.random() < 0.3]
        ledger.request_all(
            wanted, "priority", now=time.time(), changes=priority_of(chance.randrange(-9, 10))
        )
    return len(wanted)


def one_life(root: Root, trial: Trial, chance: random.Random, figures: Counter[str]) -> None:
    """Start a daemon and kill it: alone or together with its workers, at a random moment or at a point of its own."""
    die_at = chance.randrange(1, 200) if chance.random() < 0.5 else None
    together = chance.random() < 0.5
    served = root.text().count(SERVING) if root.log.exists() else 0
    victim = root.start(die_at=die_at, once=chance.random() < 0.5, together=together)
    if chance.random() < 0.9:  # else it may also die while it starts
        victim.until(lambda: root.text().count(SERVING) > served)
    alive_until = time.monotonic() + chance.uniform(0.0, trial.seconds)
    workers_until = alive_until - chance.uniform(0.0, trial.seconds)
    victim.until(lambda: time.monotonic() > workers_until)
    if chance.random() < 0.3 and victim.process.poll() is None:
        figures["workers"] += victim.kill_workers()
    victim.until(lambda: time.monotonic() > alive_until)
    if victim.process.poll() is None:
        victim.kill(together=together)
    killed = victim.process.returncode == -signal.SIGKILL
    figures["kills"] += killed
    figures["together"] += killed and together
    figures["own points" if die_at else "any moment"] += killed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--fake", type=int, default=300, help="kills with a renderer that takes milliseconds"
    )
    parser.add_argument("--real", type=int, default=20, help="kills with the real engine at 64 px")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all chance")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    said = []
    for name, trial in TRIALS.items():
        began = time.monotonic()
        figures = torture_side_by_side(trial, getattr(options, name), options.seed)
        said.append(_summary(name, figures, time.monotonic() - began))
        print(said[-1], flush=True)
    print("; ".join(said), flush=True)
    return 0


def torture_side_by_side(trial: Trial, kills: int, seed: int) -> Counter[str]:
    """Share the kills among as many roots as there are processors, and add up the figures."""
    roots = min(os.cpu_count() or 1, max(kills, 1))
    shares = [kills // roots + (i < kills % roots) for i in range(roots)]
    with (
        tempfile.TemporaryDirectory(prefix="nst-torture-") as scratch,
        ThreadPoolExecutor(roots) as pool,
    ):
        folders = [Path(scratch, str(i)) for i in range(roots)]
        seeds = [seed + i for i in range(roots)]
        return sum(pool.map(torture, [trial] * roots, shares, folders, seeds), Counter[str]())


def _summary(name: str, figures: Counter[str], seconds: float) -> str:
    """The figures for people. Had anything been lost, doubled or partial, there would be none."""
    return (
        f"{name} renderer: {figures['kills']} kills of the daemon ({figures['own points']} at chosen points, "
        f"{figures['any moment']} at any moment, {figures['together']} with its workers), {figures['workers']} of its "
        f"workers alone, {figures['inputs']} inputs, {figures['requests']} requests, "
        f"{sum(figures[state] for state in S)} outcomes, "
        f"{figures['done']} done, {figures['results']} results, 0 lost, 0 doubled, 0 partial, "
        f"0 quarantined without a fault of their own, ledger sound, {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
