"""Batches through the supervisor, through the inbox and on the command line."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nst_daemon import cli
from nst_daemon.config import load
from nst_daemon.intake.batch import Batch
from nst_daemon.intake.expansion import Expansion
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.service.batches import batch_reach
from nst_daemon.service.state import Pacing
from nst_daemon.workers.messages import Failed, Retry
from tests.bench import PNG, Bench
from tests.service.conftest import Served, served

__all__ = ["served"]

S = JobState
pytestmark = pytest.mark.timeout(180)
ONE_AT_A_TIME = Pacing(claims_a_round=1)
SWEEP = "contents: photos/*.png\nstyles: [one, two, three]\nsweep: {seed: [1, 2]}\n"


def sources(root: Path, **script: object) -> None:
    """Two contents beside the batch file and three styles in the library, for the fake painter."""
    (root / "photos").mkdir(parents=True)
    (root / "styles").mkdir()
    for name in ("a", "b"):
        (root / "photos" / f"{name}.png").write_text(json.dumps({"tag": name, **script}))
    for name in ("one", "two", "three"):
        (root / "styles" / f"{name}.png").write_text(name)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A supervisor whose batches may read photos/, with pictures in it."""
    bench = Bench(tmp_path / "nst", batch_roots=[tmp_path / "photos"])
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "photos" / f"{name}.png").write_bytes(PNG + name.encode())
    (bench.folders.styles / "one.png").write_bytes(PNG)
    bench.step(3, times=3)
    return bench


def ask(bench: Bench, text: str) -> None:
    """Drop a batch file and let it settle."""
    (bench.folders.inbox / "night.batch.yaml").write_text(text)
    bench.step(1.5, times=5)


def paint_all(bench: Bench) -> int:
    """Paint what is with the executor until nothing comes any more; how many pictures."""
    painted = 0
    while bench.executor.tasks:
        bench.executor.paint()
        painted += 1
        bench.step(1)
    return painted


def test_a_batch_file_becomes_jobs_and_is_archived(bench: Bench, tmp_path: Path) -> None:
    """Every combination is painted into results/NAME/, the sources stay, the file ends in done/NAME/."""
    ask(bench, "contents: '*.png'\nstyles: one\nsweep: {seed: [1, 2]}\npriority: 3")
    assert {job.priority for job in bench.ledger.jobs()} == {3}
    assert paint_all(bench) == 4
    results = {p.name for p in (bench.folders.results / "night").glob("*.png")}
    assert results == {f"{c}_one_seed={s}.png" for c in "ab" for s in (1, 2)}
    assert (bench.folders.done / "night" / "night.batch.yaml").exists()
    assert not (bench.folders.inbox / "night.batch.yaml").exists()
    assert (tmp_path / "photos" / "a.png").exists()
    assert bench.chores.requests == [("contact-sheet", str(bench.folders.results / "night"))]


def test_what_is_there_is_not_painted_again(bench: Bench, tmp_path: Path) -> None:
    """The same batch paints nothing again, except results that were removed and new contents."""
    text = "contents: '*.png'\nstyles: one"
    ask(bench, text)
    assert paint_all(bench) == 2
    ask(bench, text)
    assert paint_all(bench) == 0
    assert len(bench.ledger.jobs()) == 2
    (bench.folders.results / "night" / "a_one.png").unlink()
    (tmp_path / "photos" / "c.png").write_bytes(PNG + b"c")
    ask(bench, text)
    assert paint_all(bench) == 2
    found = {p.name for p in (bench.folders.results / "night").glob("*.png")}
    assert found == {"a_one-2.png", "b_one.png", "c_one.png"}


def test_two_files_with_the_same_contents_are_two_pictures(bench: Bench, tmp_path: Path) -> None:
    """A batch over two copies of one photo is painted once, and both results are there, also after another run."""
    (tmp_path / "photos" / "b.png").unlink()
    (tmp_path / "photos" / "IMG_1.PNG").write_bytes((tmp_path / "photos" / "a.png").read_bytes())
    for painted in (1, 0):
        ask(bench, "contents: '*.png'\nstyles: one")
        assert paint_all(bench) == painted
        bench.step(1, times=2)
        results = (bench.folders.results / "night").glob("*.png")
        assert {path.name for path in results} == {"a_one.png", "IMG_1_one.png"}


def test_what_another_batch_has_painted_is_linked(bench: Bench) -> None:
    """A batch gets the pictures that another one has painted into its own folder, with sidecars that name it."""
    text = "contents: '*.png'\nstyles: one\nsweep: {seed: [1, 2]}"
    ask(bench, text)
    assert paint_all(bench) == 4
    (bench.folders.inbox / "again.batch.yaml").write_text(text.replace("[1, 2]", "[2, 3]"))
    bench.step(1.5, times=8)
    assert paint_all(bench) == 2
    bench.step(1, times=3)
    night, again = bench.folders.results / "night", bench.folders.results / "again"
    assert {p.name for p in again.glob("*.png")} == {
        f"{c}_one_seed={s}.png" for c in "ab" for s in (2, 3)
    }
    assert (again / "a_one_seed=2.png").read_bytes() == (night / "a_one_seed=2.png").read_bytes()
    sidecar = json.loads((again / "a_one_seed=2.json").read_bytes())
    assert sidecar["job"]["name"] == "again/a_one_seed=2"
    assert sidecar["batch"] == {
        "name": "again",
        "style": "one",
        "swept": {"seed": 2},
        "position": [0, 0, 0],
    }
    assert {job.state for job in bench.ledger.jobs()} == {S.DONE}
    assert bench.chores.requests[-1] == ("contact-sheet", str(again))


def test_what_another_batch_is_painting_is_not_painted_twice(bench: Bench) -> None:
    """While a picture is being painted for one batch, the same picture of another batch waits for it."""
    bench.executor.room = 4
    for name in ("night", "again"):
        (bench.folders.inbox / f"{name}.batch.yaml").write_text("contents: a.png\nstyles: one")
    bench.step(1.5, times=8)
    assert len(bench.ledger.jobs()) == 2
    assert len(bench.executor.tasks) == 1
    assert paint_all(bench) == 1
    bench.step(1, times=3)
    for name in ("night", "again"):
        assert (bench.folders.results / name / "a_one.png").exists()


def test_an_edited_result_is_not_linked(bench: Bench) -> None:
    """A picture that a person has changed since is painted again for another batch."""
    ask(bench, "contents: a.png\nstyles: one")
    assert paint_all(bench) == 1
    (bench.folders.results / "night" / "a_one.png").write_bytes(PNG + b"edited")
    (bench.folders.inbox / "again.batch.yaml").write_text("contents: a.png\nstyles: one")
    bench.step(1.5, times=5)
    assert paint_all(bench) == 1


def test_other_weights_are_other_pictures(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a change of the weights a batch paints its pictures again, and the log says why."""
    text = "contents: '*.png'\nstyles: one"
    ask(bench, text)
    assert paint_all(bench) == 2
    (tmp_path / "own.safetensors").write_bytes(b"other weights")
    model = replace(bench.config.model, weights=str(tmp_path / "own.safetensors"))
    bench.config = replace(bench.config, model=model)
    bench.begin()
    ask(bench, text)
    assert paint_all(bench) == 2
    assert "2 pictures are painted again, because the weights have changed" in caplog.text


def test_a_crash_while_it_is_taken_in_costs_nothing(bench: Bench) -> None:
    """Where the daemon dies after the first of four pictures, the next start asks for the other three only."""
    bench.pacing = ONE_AT_A_TIME
    bench.begin()
    (bench.folders.inbox / "night.batch.yaml").write_text(
        "contents: '*.png'\nstyles: one\nsweep: {seed: [1, 2]}"
    )
    while not bench.ledger.jobs():
        bench.step(1)
    assert (bench.folders.inbox / "night.batch.yaml").exists()
    bench.begin()
    bench.step(1.5, times=10)
    assert len(bench.ledger.jobs()) == 4
    assert paint_all(bench) == 4


@pytest.mark.parametrize("whole", [True, False], ids=["archived", "half read"])
def test_a_lost_ledger_loses_no_queued_picture(bench: Bench, whole: bool) -> None:
    """Where ledger and backup are lost, what was in the queue is painted once, also while the batch is still read."""
    bench.pacing = None if whole else ONE_AT_A_TIME
    bench.begin()
    file = bench.folders.inbox / "night.batch.yaml"
    file.write_text("contents: '*.png'\nstyles: one\nsweep: {seed: [1, 2]}")
    while file.exists() if whole else not bench.ledger.jobs():
        bench.step(1)
    bench.ledger.close()
    for lost in bench.folders.ledger.parent.glob("ledger.sqlite*"):
        lost.unlink()
    bench.begin()
    bench.step(1.5, times=10)
    assert paint_all(bench) == 4
    assert len(list((bench.folders.results / "night").glob("*.png"))) == 4


def test_a_batch_reaches_no_further_than_allowed(bench: Bench) -> None:
    """A batch in the inbox that names another folder fails as a whole, with the way out."""
    ask(bench, "contents: /etc/*.png\nstyles: one")
    assert [job.state for job in bench.ledger.jobs()] == [S.FAILED]
    assert "batch_roots" in bench.error("night")
    assert (bench.folders.failed / "night" / "night.batch.yaml").exists()


@pytest.mark.parametrize(
    "text",
    [
        "contents: '**.png'\nstyles: one",
        f"contents: '{'a' * 300}/*.png'\nstyles: one",
        "contents: a.png\nstyles: one\nsettings: {1: 2}\nsweep: {1: [1]}",
        'contents: a.png\nstyles: one\nsettings: {"\\ud800": 1}\nsweep: {"\\ud800": [1]}',
        'contents: "a\\0.png"\nstyles: one',
        f"contents: '{'*a' * 400}'\nstyles: one",
        "contents: '['\nstyles: one",
        f"contents: a.png\nstyles: one\nsettings: {{seed: {'9' * 5000}}}",
        "contents: a.png\nstyles: one\nsettings: {size: 1:1:1:1}",
        f"contents: a.png\nstyles: one\nsweep: {{seed: &a [{'1, ' * 99}1], size: *a}}",
        "contents: a.png\nstyles: one\nsweep:\n"
        + "".join(
            f"  {key}: {list(range(16, 116))}\n" for key in ("seed", "size", "history", "coarsest")
        ),
    ],
)
def test_an_odd_batch_fails_alone(
    bench: Bench, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch that cannot be read or searched for fails with a reason, and the next drop is painted."""
    caplog.set_level("INFO")
    ask(bench, text)
    assert [job.state for job in bench.ledger.jobs()] == [S.FAILED]
    assert "\n" not in bench.error("night") and "has ended" not in caplog.text
    bench.drop()
    assert [task.name for task in bench.executor.tasks] == ["dog"]


def test_what_a_batch_passes_over_is_logged(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of other kinds that the globs of a batch match are counted in one line of the log."""
    for name in ("c.CDR", "d.cdr", "notes.txt"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    ask(bench, "contents: '*'\nstyles: one")
    assert paint_all(bench) == 2
    assert (
        caplog.text.count("batch night skips files: 3 files are not image files (2 .cdr, 1 .txt)")
        == 1
    )


def test_a_loop_of_links_is_passed_over(bench: Bench, tmp_path: Path) -> None:
    """A link that leads to itself does not keep a batch from its other contents."""
    (tmp_path / "photos" / "loop.png").symlink_to("loop.png")
    ask(bench, "contents: '*.png'\nstyles: one")
    assert {job.name for job in bench.ledger.jobs()} == {"night/a_one", "night/b_one"}


def test_a_picture_that_failed_is_tried_by_the_next_batch(bench: Bench) -> None:
    """A failure is not taken up again by the same file, and is by one that is dropped later."""
    text = "contents: a.png\nstyles: one"
    ask(bench, text)
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "no"))
    bench.step(1, times=3)
    assert bench.executor.tasks == []
    (failed,) = bench.ledger.jobs()

    def asked(since: float) -> int:
        """How many pictures are with the executor once a batch that was dropped at that time is read."""
        reach = batch_reach(bench.config, bench.config.batch_roots)
        bench.begin(Expansion("night", Batch(("a.png",), ("one",)), reach, since=since))
        bench.step(1, times=5)
        return len(bench.executor.tasks)

    assert asked(failed.created) == 0
    assert asked(failed.created + 1) == 1


def test_no_room_loses_no_picture(bench: Bench) -> None:
    """Where the disk is full in the middle of a batch, it goes on with the same picture afterwards."""
    bench.pacing = ONE_AT_A_TIME
    bench.begin()
    (bench.folders.inbox / "night.batch.yaml").write_text("contents: '*.png'\nstyles: one")
    while not bench.ledger.jobs():
        bench.step(1)
    away = bench.folders.spool.rename(bench.folders.state / "away")
    bench.folders.spool.touch()  # nothing can be put into a file
    bench.step(1.5, times=3)
    assert "spool" in bench.supervisor.paused
    assert len(bench.ledger.jobs()) == 1
    bench.folders.spool.unlink()
    away.rename(bench.folders.spool)
    bench.step(1.5, times=3)
    assert paint_all(bench) == 2


@pytest.mark.slow
def test_a_killed_batch_goes_on(served: Served) -> None:
    """2 contents × 3 styles × 2 settings, killed halfway and started again: 12 results, and no work done twice."""
    sources(served.root, iterations=10, seconds=0.01)
    (served.root / "night.batch.yaml").write_text(SWEEP)
    served.environment["NST_SERVICE__CHECKPOINT_SECONDS"] = "3600"
    served.start("night.batch.yaml")

    def pictures() -> dict[str, int]:
        found = (served.root / "results" / "night").glob("*_seed=?.png")
        return {path.name: path.stat().st_mtime_ns for path in found}

    served.until(lambda: len(pictures()) >= 6, "half of the results")
    assert served.process is not None
    served.process.send_signal(signal.SIGKILL)
    served.process.wait()
    before = pictures()
    assert 6 <= len(before) < 12
    for _ in range(2):  # the third run finds nothing to do
        served.start("night.batch.yaml")
        assert served.process.wait(120) == 0, served.text()
    after = pictures()
    assert len(after) == 12
    assert before.items() <= after.items(), "a result was made again"
    with Ledger.attach(served.root / "state" / "ledger.sqlite") as ledger:
        jobs = ledger.jobs()
        assert len(jobs) == 12
        assert len({job.identity for job in jobs}) == 12
        staged = [sum(event.state is S.STAGED for event in ledger.events(job.id)) for job in jobs]
    assert staged == [1] * 12


def test_the_command_sums_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """`batch` says what is there already, as a table and as JSON, and ends with 1 where a picture is missing."""
    sources(served.root, iterations=2)
    file = served.root / "few.yaml"
    file.write_text("contents: photos/*.png\nstyles: one")
    served.start("few.yaml")
    assert served.process is not None
    assert served.process.wait(60) == 0, served.text()
    for key, value in served.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(served.root)
    done = CliRunner().invoke(cli.app, ["batch", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "few: 0 of 2 painted, 2 skipped, 0 missing" in done.stdout
    assert done.stdout.count(" exists ") == 2
    (served.root / "photos" / "c.png").hardlink_to(file)  # refused, and so no worker is needed
    done = CliRunner().invoke(cli.app, ["batch", str(file), "--json"], catch_exceptions=False)
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert (found["asked"], found["painted"], found["skipped"], found["missing"]) == (3, 0, 2, 1)
    assert [job["state"] for job in found["jobs"]] == ["failed", "done", "done"]


def test_a_batch_leaves_the_inbox_alone(tmp_path: Path) -> None:
    """While a batch runs by itself, what lies in the inbox stays there."""
    bench = Bench(tmp_path)
    (bench.folders.styles / "one.png").write_bytes(PNG)
    (bench.folders.inbox / "a.png").write_bytes(PNG)
    reach = batch_reach(bench.config, [bench.folders.inbox])
    expansion = Expansion("few", Batch(("a.png",), ("one",)), reach, since=0)
    bench.begin(batch=expansion)
    bench.step(1, times=5)
    assert not bench.supervisor.drained
    assert paint_all(bench) == 1
    assert bench.supervisor.drained
    assert (bench.folders.inbox / "a.png").exists()
    assert load(None, {}).batch_roots == []
