"""Format, depth and quality per job, from every place where a job is described to its result."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from nst_daemon.config import Outputs
from nst_daemon.jobs import JobState
from nst_daemon.ledger_file import MIGRATIONS
from tests.bench import PNG, Bench

S = JobState


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A supervisor with a library style whose pictures are JPEGs, and a folder for batches."""
    bench = Bench(tmp_path / "nst", batch_roots=[tmp_path / "photos"])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PNG)
    (bench.folders.styles / "one.png").write_bytes(PNG)
    (bench.folders.styles / "one.yaml").write_text("format: jpg\nquality: 70\n")
    bench.step(3, times=3)
    return bench


def batch(bench: Bench, name: str, text: str) -> None:
    """Drop a batch file and let it settle."""
    (bench.folders.inbox / f"{name}.batch.yaml").write_text(text)
    bench.step(1.5, times=8)


def paint_all(bench: Bench) -> list[Outputs]:
    """Paint until nothing comes any more; the outputs of the tasks."""
    found = []
    while bench.executor.tasks:
        found.append(bench.executor.paint().outputs)
        bench.step(1)
    bench.step(1, times=3)
    return found


def test_a_job_has_outputs_of_its_own(bench: Bench) -> None:
    """What dog.yaml says is in the ledger, the task and the result's name; other jobs follow the defaults."""
    bench.drop(yaml=b"format: tiff\ndepth: 16\nseed: 3\n")
    bench.drop("cat")
    tasks = {task.name: task for task in bench.executor.tasks}
    assert tasks["dog"].outputs == Outputs(format="tiff", depth=16)
    assert tasks["dog"].settings.seed == 3
    assert tasks["cat"].outputs == Outputs()
    paint_all(bench)
    results = {job.name: (job.result, job.outputs) for job in bench.ledger.jobs()}
    assert results == {
        "dog": ("dog.tiff", {"format": "tiff", "depth": 16}),
        "cat": ("cat.png", {"format": "png", "depth": 8}),
    }


def test_the_configuration_counts_when_a_job_is_admitted(bench: Bench) -> None:
    """A reload with another format changes the jobs that come after it, and not those in the queue."""
    bench.executor.room = 0
    bench.drop()
    bench.change(outputs={"format": "webp", "progress": False})
    bench.drop("cat")
    bench.executor.room = 2
    bench.step(1, times=2)
    assert {t.name: (t.outputs.format, t.outputs.progress) for t in bench.executor.tasks} == {
        "dog": ("png", False),
        "cat": ("webp", False),
    }


def test_the_identity_of_a_picture_ignores_its_format(bench: Bench) -> None:
    """The painting is the same whatever the file is: the jobs have one identity and equal settings."""
    bench.drop(yaml=b"format: tiff")
    bench.drop("cat", yaml=b"format: avif\nquality: 50")
    dog, cat = bench.ledger.jobs()
    assert dog.identity == cat.identity
    assert dog.settings == cat.settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"format: jpgg", "did you mean jpg"),
        (b"format: webp\ndepth: 16", "webp has 8 bits per channel"),
        (b"quality: 200", "from 1 to 100"),
    ],
)
def test_outputs_that_cannot_be_are_refused_at_admission(
    bench: Bench, text: bytes, words: str
) -> None:
    """A job with an impossible output fails with the reason, before any worker has it."""
    bench.drop(yaml=text)
    assert bench.executor.tasks == []
    assert bench.job().state is S.FAILED
    assert words in bench.error()


def test_a_style_has_outputs_and_the_job_overrides_them(bench: Bench) -> None:
    """styles/NAME.yaml is the default of a hot folder, and NAME.yaml beside a picture changes it."""
    folder = bench.folders.inbox / "one"
    (folder / "x.png").write_bytes(PNG)
    (folder / "y.png").write_bytes(PNG)
    (folder / "y.yaml").write_text("format: jxl\n")
    bench.step(1.5, times=6)
    assert {task.name: task.outputs.picture for task in bench.executor.tasks} == {
        "one/x": {"format": "jpg", "depth": 8, "quality": 70},
        "one/y": {"format": "jxl", "depth": 8, "quality": 70},
    }


def test_a_retry_reads_the_outputs_again(bench: Bench) -> None:
    """A wrong format is fixed in failed/ and retried."""
    bench.drop(yaml=b"format: tifff")
    assert bench.job().state is S.FAILED
    (bench.folders.failed / "dog" / "dog.yaml").write_text("format: tiff\ndepth: 16\n")
    bench.ledger.request(bench.job().id, "retry", now=bench.now.wall)
    bench.step(1, times=4)
    assert [outputs.picture for outputs in paint_all(bench)] == [{"format": "tiff", "depth": 16}]
    assert bench.job().result == "dog.tiff"


def test_a_batch_has_outputs_for_all_its_pictures_or_sweeps_them(bench: Bench) -> None:
    """`settings` of a batch override the style's; a swept format is a part of the name."""
    text = "contents: a.png\nstyles: one\nsettings: {quality: 30}\nsweep: {format: [jpg, tiff]}\n"
    batch(bench, "night", text)
    paint_all(bench)
    found = {p.name for p in (bench.folders.results / "night").iterdir() if p.suffix != ".json"}
    assert found == {"a_one_format=jpg.jpg", "a_one_format=tiff.tiff"}
    qualities = {job.outputs.get("quality") for job in bench.ledger.jobs()}
    assert qualities == {30, None}


def test_a_batch_with_another_output_takes_no_older_file(bench: Bench) -> None:
    """The same batch with another format, depth or quality paints again; with the same one it does not."""
    text = "contents: a.png\nstyles: one\nsettings: {%s}\n"
    for outputs, painted in (
        ("format: png", 1),
        ("format: png", 0),
        ("format: png, quality: 5", 0),  # PNG has no quality
        ("format: tiff", 1),
        ("format: tiff, depth: 16", 1),
        ("format: jpg, quality: 80", 1),
        ("format: jpg, quality: 81", 1),
        ("format: jpg, quality: 80", 0),
        ("format: tiff, depth: 16", 0),
    ):
        batch(bench, "night", text % outputs)
        assert len(paint_all(bench)) == painted, outputs


def test_another_batch_with_another_depth_copies_nothing(bench: Bench) -> None:
    """A 16-bit TIFF is not an 8-bit TIFF of another batch, but a 16-bit TIFF of one is copied."""
    text = "contents: a.png\nstyles: one\nsettings: {format: tiff, depth: %d}\n"
    batch(bench, "night", text % 8)
    assert len(paint_all(bench)) == 1
    batch(bench, "deep", text % 16)
    assert len(paint_all(bench)) == 1
    batch(bench, "more", text % 16)
    assert paint_all(bench) == []
    deep, more = (bench.folders.results / name / "a_one.tiff" for name in ("deep", "more"))
    assert deep.read_bytes() == more.read_bytes()


def test_a_misplaced_key_of_a_batch_is_explained(bench: Bench) -> None:
    """`format` beside `contents` is refused with where to write it."""
    batch(bench, "night", "contents: a.png\nstyles: one\nformat: tiff\n")
    assert "format: write it into settings or sweep" in bench.error("night")


def test_the_queue_of_an_older_ledger_goes_on(bench: Bench) -> None:
    """A queued job of a ledger without outputs is painted as the configuration says, and a new one beside it."""
    bench.executor.room = 0
    bench.drop()
    bench.ledger.close()
    with sqlite3.connect(bench.folders.ledger) as database:
        for script in MIGRATIONS[5:]:
            for index in re.findall("CREATE INDEX ([a-z_]+)", script):
                database.execute(f"DROP INDEX {index}")
        for column in (
            "jobs DROP COLUMN outputs",
            "jobs DROP COLUMN changes",
            "jobs DROP COLUMN deleted",
            "requests DROP COLUMN changes",
        ):
            database.execute(f"ALTER TABLE {column}")
        database.execute("CREATE INDEX jobs_by_state ON jobs (state, updated)")
        database.execute("PRAGMA user_version = 5")
    bench.begin()
    assert bench.job().outputs == {}
    bench.change(outputs={"format": "webp"})
    bench.step(1, times=2)
    assert [task.outputs.picture for task in bench.executor.tasks] == [
        {"format": "webp", "depth": 8, "quality": 92}
    ]
    paint_all(bench)
    assert bench.job().result == "dog.webp"


def test_a_lost_ledger_does_not_lose_the_outputs(bench: Bench) -> None:
    """A job that is found in the spool alone keeps the format that it was admitted with."""
    bench.executor.room = 0
    bench.drop(yaml=b"format: tiff\ndepth: 16")
    bench.ledger.close()
    for path in bench.folders.state.glob("ledger.sqlite*"):
        path.unlink()
    bench.begin()
    bench.step(1, times=3)
    assert [task.outputs.picture for task in bench.executor.tasks] == [
        {"format": "tiff", "depth": 16}
    ]
