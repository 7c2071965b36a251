"""The real daemon is killed with SIGKILL after every transition and before every change of a file, and started again.

The points are not listed here: an undisturbed run of each scenario records them, so new code brings its own.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from nst_daemon.jobs import TRANSITIONS, JobState
from nst_daemon.ledger import Ledger
from tests.torture.disks import TORTURE
from tests.torture.root import Root, Victim
from tests.torture.victim import SOME_FAILED

S = JobState
#: Of the changes of files, the part that is tried except in `make torture`.
PART = 0.15


def nothing(victim: Victim) -> None:
    """Leave the daemon alone."""


@dataclass(frozen=True)
class Scenario:
    """What is dropped, what is done while the daemon runs, and how it ends.

    prepare: drops, and runs that are not disturbed; during: what another process does meanwhile; everything: whether
    to kill before every change of a file as well, or only after transitions; fail_at: what fails each time.
    """

    prepare: Callable[[Root], None]
    during: Callable[[Victim], None] = nothing
    everything: bool = False
    fail_at: str = ""


def one_that_fails(**script: object) -> Callable[[Root], None]:
    """A pair that must end in failed/."""
    return lambda root: root.pair("dog", S.FAILED, **script)


def pair_and_refusal(root: Root) -> None:
    """A good pair with an id, a job folder, and something that is no picture."""
    root.pair("dog", job_id="0123456789abcdef" * 2)
    root.drop("notes", {"notes.content.txt": b"hello"}, S.FAILED)
    root.drop("w", {"w/content.png": b"a folder's content", "w/style.png": b"a folder's style"})


def troubles(root: Root) -> None:
    """A device that fails once, an engine that raises, a job that kills its worker."""
    root.pair("device", do="device", at=1, once="failed-once")
    root.pair("raise", S.FAILED, do="raise", at=2)
    root.pair("kill", S.QUARANTINED, do="kill", at=2)


def cancel_while_running(root: Root) -> None:
    """A painting that goes on until it is told to stop."""
    root.pair("slow", S.CANCELLED, iterations=100_000, seconds=0.01)


def request(root: Root, name: str, verb: str) -> None:
    """Ask for something, as another process does."""
    with Ledger.attach(root.ledger_path) as ledger:
        (job,) = ledger.find(name)
        if not any(pending.job_id == job.id for pending in ledger.pending_requests()):
            ledger.request(job.id, verb, now=1.0)


def cancel(victim: Victim) -> None:
    """Cancel the painting once it runs."""
    if victim.until(lambda: victim.state("slow") is S.RUNNING):
        request(victim.root, "slow", "cancel")


def die_after(root: Root, transition: str, **script: object) -> None:
    """Let a daemon claim the pair "dog" and die right after this transition."""
    root.pair("dog", **script)
    assert root.run(die_at=transition) == -signal.SIGKILL


def cancel_after(transition: str, **script: object) -> Callable[[Root], None]:
    """The daemon died after this transition, and its job is cancelled before the next one starts."""

    def prepare(root: Root) -> None:
        die_after(root, transition, **script)
        root.drops["dog"].outcomes = {S.CANCELLED}
        request(root, "dog", "cancel")

    return prepare


def lose_the_stage(root: Root) -> None:
    """The daemon died with a staged picture, and the stage is lost before the next one starts."""
    die_after(root, "running>staged")
    shutil.rmtree(root.path / "state" / "stage")


def retry_after(*outcomes: JobState, **script: object) -> Callable[[Root], None]:
    """A job that ended badly, and whose retry is asked for while no daemon runs."""

    def prepare(root: Root) -> None:
        root.pair("late", *outcomes, at=2, **script)
        root.run()
        request(root, "late", "retry")

    return prepare


def retry_batch(root: Root) -> None:
    """A batch file that was refused, and whose retry is asked for while no daemon runs: it is refused again."""
    root.drop("night", {"night.batch.yaml": b"contents: nothing.png"}, S.FAILED)
    root.run()
    request(root, "night", "retry")


def two_batches(root: Root) -> None:
    """Two batches that ask for the same picture, of which the first has ended."""
    photos, styles = root.path / "photos", root.path / "styles"
    for folder, name in ((photos, "a"), (styles, "one")):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.png").write_bytes(b'{"iterations": 3}')
    root.settings["NST_BATCH_ROOTS"] = f"[{photos}]"
    for name in ("night", "again"):
        text = f"contents: a.png\nstyles: one  # {name}".encode()
        root.drop(f"{name}/a_one", {f"{name}.batch.yaml": text})
        if name == "night":
            root.run()


def retry_cancelled(root: Root) -> None:
    """A cancelled job that is wanted again."""
    cancel_after("claimed>queued")(root)
    root.run()
    root.drops["dog"].outcomes = {S.DONE}
    request(root, "dog", "retry")


def stop_while_running(root: Root) -> None:
    """A painting that is long enough to be interrupted."""
    root.pair("long", iterations=150, seconds=0.01)


def stop(victim: Victim) -> None:
    """SIGTERM while the painting runs."""
    if victim.until(lambda: victim.state("long") is S.RUNNING):
        victim.process.terminate()


SCENARIOS = {
    "a pair and a refusal": Scenario(pair_and_refusal, everything=True),
    "troubles": Scenario(troubles),
    "cancelled while running": Scenario(cancel_while_running, cancel),
    "cancelled while queued": Scenario(cancel_after("claimed>queued")),
    "cancelled while retrying": Scenario(cancel_after("running>retrying", do="device", at=1)),
    "cancelled while staged": Scenario(cancel_after("running>staged")),
    "the stage is lost": Scenario(lose_the_stage),
    "retried after a failure": Scenario(
        retry_after(do="raise", once="failed-once"), everything=True
    ),
    "retried after a quarantine": Scenario(retry_after(S.QUARANTINED, do="kill")),
    "retried after being cancelled": Scenario(retry_cancelled),
    "two batches ask for one picture": Scenario(two_batches, everything=True),
    "a batch file is retried": Scenario(retry_batch, everything=True),
    "stopped": Scenario(stop_while_running, stop),
    "a result has no possible name": Scenario(one_that_fails(), fail_at="os.link"),
    "a stage cannot be made": Scenario(one_that_fails(), fail_at="os.mkdir /state/stage/*"),
    "a retry cannot begin": Scenario(one_that_fails(do="device", at=1), fail_at="retrying>queued"),
}


@dataclass(frozen=True)
class Recording:
    """A scenario as it goes undisturbed: how it begins, the names of its points, and what it paints."""

    scenario: Scenario
    beginning: Root
    points: list[str]
    pictures: dict[str, bytes]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recording]:
    """Records a scenario, once for all tests."""
    made: dict[str, Recording] = {}

    def recording(what: str) -> Recording:
        if what not in made:
            made[what] = record(SCENARIOS[what], tmp_path_factory.mktemp("scenario"))
        return made[what]

    return recording


def record(scenario: Scenario, folder: Path) -> Recording:
    """Prepare a scenario and run it undisturbed."""
    beginning = Root(folder / "beginning")
    scenario.prepare(beginning)
    root = beginning.copy(folder / "undisturbed")
    points = folder / "points"
    play(scenario, root, record=points)
    finish(scenario, root)
    return Recording(scenario, beginning, points.read_text().splitlines(), root.pictures())


def play(scenario: Scenario, root: Root, **options: Any) -> int:
    """Run the daemon once, with what happens meanwhile; its exit code."""
    victim = root.start(fail_at=scenario.fail_at, **options)
    scenario.during(victim)
    return victim.wait()


def finish(scenario: Scenario, root: Root) -> None:
    """Run the daemon until it ends by itself with nothing left to do."""
    code = play(scenario, root)
    if scenario.during is not nothing:  # it may have been told to end
        code = root.run()
    assert code in {0, SOME_FAILED}, root.text()[-3000:]
    root.check_end()


def is_transition(point: str) -> bool:
    """Whether a point is a transition of the ledger, and not a change of a file."""
    return ">" in point


def places(what: str, recordings: Callable[[str], Recording]) -> list[str]:
    """The points to die at, when they are reached for the first time: each transition, and each kind of change.

    Except in `make torture`, a kind of change that several scenarios make is taken in the first of them only, and of
    these changes a part, another one each time.
    """
    found = dict.fromkeys(recordings(what).points)
    changes = [p for p in found if SCENARIOS[what].everything and not is_transition(p)]
    if TORTURE not in os.environ:
        earlier = takewhile(lambda other: other != what, SCENARIOS)
        known = {p for o in earlier if SCENARIOS[o].everything for p in recordings(o).points}
        changes = [p for p in changes if p not in known and random.random() < PART]
    return [p for p in found if is_transition(p) or p in changes]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", SCENARIOS)
def test_killed_anywhere_it_ends_as_if_it_had_not_been(
    what: str, recordings: Callable[[str], Recording], tmp_path: Path
) -> None:
    """Killed at any point and started again, each input has one outcome and at most one result, the same picture."""
    recording = recordings(what)

    def kill_at(number: int, point: str) -> bool:
        root = recording.beginning.copy(tmp_path / str(number))
        died = play(recording.scenario, root, die_at=point) == -signal.SIGKILL
        root.check_now()
        finish(recording.scenario, root)
        assert root.pictures() == recording.pictures, f"killed at {point}: other pictures"
        return died

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        points = places(what, recordings)
        died = dict(zip(points, pool.map(kill_at, range(len(points)), points), strict=True))
    # What the workers say comes in another order each time, so that not every point of trouble is reached again.
    assert sum(died.values()) >= 0.8 * len(died)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_transition_is_made_by_some_scenario(recordings: Callable[[str], Recording]) -> None:
    """The scenarios together make every move that the states allow, and no other."""
    made = {
        point for what in SCENARIOS for point in recordings(what).points if is_transition(point)
    }
    legal = {f"{a}>{b}" for a, targets in TRANSITIONS.items() for b in targets}
    assert made == legal | {"seen>claimed"}
