"""Batches of uploaded pictures: who may read them, how long they are kept, and a daemon that is killed."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from nst_daemon import cli
from nst_daemon.config import Keep
from nst_daemon.jobs import JobState
from nst_daemon.ops.batch_submission import SUBMITTING, BatchPicture, NewBatch, submit
from nst_daemon.ops.input_places import input_places
from nst_daemon.service.housekeeping import DAY
from nst_daemon.service.state import Pacing
from tests.bench import PNG, Bench
from tests.service.conftest import Served, served
from tests.service.test_status_page import answer, free_port
from tests.torture.victim import CHANGES, WRITING

__all__ = ["served"]

S = JobState
HOUR = 3600.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A supervisor of a root with a library style, that keeps inputs for ten days."""
    bench = Bench(tmp_path / "nst", keep=Keep(done_days=10), pacing=Pacing(claims_a_round=1))
    (bench.folders.styles / "one.png").write_bytes(PNG)
    bench.step(3, times=3)
    return bench


def ask(bench: Bench, folder: Path, name: str = "night", **changes: Any) -> None:
    """Submit a batch of two contents in a library style and an uploaded style."""
    folder.mkdir(exist_ok=True)
    for stem in ("a", "b", "style"):
        (folder / f"{stem}.png").write_bytes(PNG + stem.encode())
    submit(bench.config, new_batch(folder, name, **changes))


def new_batch(folder: Path, name: str, **changes: Any) -> NewBatch:
    """A batch of the pictures in a folder."""
    pictures = {
        stem: BatchPicture(stem, folder / f"{stem}.png", (4, 3)) for stem in ("a", "b", "style")
    }
    values = {
        "contents": [pictures["b"], pictures["a"]],
        "styles": ["one", pictures["style"]],
        **changes,
    }
    return NewBatch(name, **values)


def paint_all(bench: Bench) -> None:
    """Paint everything."""
    while bench.executor.tasks or bench.ledger.open_ids():
        if bench.executor.tasks:
            bench.executor.paint()
        bench.step(1.5)


def test_a_batch_reads_its_own_uploads(bench: Bench, tmp_path: Path) -> None:
    """The pictures are painted in the order of the request, also after a restart in the middle."""
    ask(bench, tmp_path / "uploads")
    bench.step(1.5, times=3)
    assert len(bench.ledger.jobs()) == 1
    bench.begin()
    bench.step(1.5, times=6)
    paint_all(bench)
    assert [job.name for job in bench.ledger.jobs()] == [
        "night/b_one",
        "night/b_style",
        "night/a_one",
        "night/a_style",
    ]
    assert {job.state for job in bench.ledger.jobs()} == {S.DONE}
    assert not list(bench.folders.inbox.glob("*.yaml"))


def test_a_batch_ends_without_its_file(bench: Bench, tmp_path: Path) -> None:
    """When its file is removed from the inbox, a batch makes no more jobs; those that it has are painted."""
    ask(bench, tmp_path / "uploads")
    bench.step(1.5, times=3)
    assert len(bench.ledger.jobs()) == 1
    (bench.folders.inbox / "night.batch.yaml").unlink()
    bench.step(1.5, times=5)
    paint_all(bench)
    assert [job.state for job in bench.ledger.jobs()] == [S.DONE]
    assert bench.chores.requests == [("contact-sheet", str(bench.folders.results / "night"))]


def test_another_batch_cannot_read_them(bench: Bench, tmp_path: Path) -> None:
    """A batch file of another name that asks for uploaded pictures is refused, with an absolute and a relative glob."""
    ask(bench, tmp_path / "uploads")
    bench.step(1.5, times=8)
    own = bench.folders.batches / "night"
    (bench.folders.inbox / "night").mkdir()
    for name, glob in {
        "other1": f"{own}/contents/*/*",
        "other2": "contents/*/*",
        "other3": "../night/contents/*/*",
        "night/contents": "*/*",
    }.items():
        (bench.folders.inbox / f"{name}.batch.yaml").write_text(f"contents: '{glob}'\nstyles: one")
        bench.step(1.5, times=5)
        assert "batch_roots is empty" in bench.error(name) or "not a valid glob" in bench.error(
            name
        )


def test_a_link_is_not_the_folder_of_a_batch(bench: Bench, tmp_path: Path) -> None:
    """A symbolic link in state/batches gives a batch no right to read where it leads."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.png").write_bytes(PNG)
    bench.folders.batches.mkdir()
    (bench.folders.batches / "night").symlink_to(tmp_path / "secret")
    (bench.folders.inbox / "night.batch.yaml").write_text("contents: '*.png'\nstyles: one")
    bench.step(1.5, times=5)
    assert "batch_roots is empty" in bench.error("night")


def test_uploads_are_removed_some_days_after_the_batch(bench: Bench, tmp_path: Path) -> None:
    """They stay while a job is open and for keep.done_days after the last change; those of other batches stay."""
    ask(bench, tmp_path / "uploads")
    kept = bench.folders.batches / "night"
    bench.step(1.5, times=8)
    bench.step(20 * DAY, times=2)
    assert kept.exists(), "jobs are open"
    paint_all(bench)
    bench.step(9.9 * DAY)
    assert kept.exists()
    ask(bench, tmp_path / "uploads", "later")
    bench.step(0.2 * DAY)
    assert not kept.exists()
    assert (bench.folders.batches / "later").exists(), "its file is in the inbox"


def test_uploads_stay_for_ever_where_inputs_do(tmp_path: Path) -> None:
    """With keep.done_days: null uploads of batches are never removed."""
    bench = Bench(tmp_path / "nst", keep=Keep(done_days=None))
    (bench.folders.styles / "one.png").write_bytes(PNG)
    ask(bench, tmp_path / "uploads")
    bench.step(1.5, times=8)
    paint_all(bench)
    bench.step(1000 * DAY)
    assert (bench.folders.batches / "night").exists()


def test_interrupted_copies_are_removed(tmp_path: Path) -> None:
    """What an interrupted submission has copied is removed after an hour; pictures that are being copied stay."""
    bench = Bench(tmp_path / "nst", keep=Keep(done_days=0))
    old, new = (bench.folders.batches / f".{c * 16}.part" for c in "ab")
    named = bench.folders.batches / "night"
    for folder in (old, new, named):
        folder.mkdir(parents=True)
        (folder / "dog.png").write_bytes(PNG)
    bench.time += 2 * HOUR
    for folder, age in ((old, 1.1 * HOUR), (new, 0.9 * HOUR), (named, 0.9 * HOUR)):
        os.utime(folder, (bench.now.wall - age, bench.now.wall - age))
    bench.step()
    assert (old.exists(), new.exists(), named.exists()) == (False, True, True)
    bench.step(HOUR)
    assert not named.exists(), "no batch file has come"


def test_uploads_without_a_batch_file_are_removed(tmp_path: Path) -> None:
    """If the page ended before the batch file was in the inbox, the pictures go after an hour, whatever is kept."""
    bench = Bench(tmp_path / "nst", keep=Keep(done_days=None))
    lost, begun = bench.folders.batches / "lost", bench.folders.batches / "night"
    (bench.folders.styles / "one.png").write_bytes(PNG)
    ask(bench, tmp_path / "uploads")
    assert not (begun / SUBMITTING).exists()
    lost.mkdir()
    for folder in (lost, begun):
        (folder / SUBMITTING).touch()
    bench.step(1.5, times=8)
    paint_all(bench)
    bench.step(2 * HOUR)
    assert (lost.exists(), begun.exists()) == (False, True)


def submitted_and_killed(bench: Bench, folder: Path, name: str, number: int) -> bool:
    """Submit a batch in a process that is killed before a change of a file. number: of the change, from 1."""
    if (child := os.fork()) == 0:
        left = number

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
            if event in CHANGES or writes:
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(audit)
            submit(bench.config, new_batch(folder, name))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_submission_that_is_killed_anywhere_is_whole_or_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    """Killed before any change of a file, a submission leads to all pictures of its batch or to none."""
    ask(bench, tmp_path / "uploads", "first")
    number, complete = 1, 1
    while submitted_and_killed(bench, tmp_path / "uploads", f"night{number}", number):
        complete += (bench.folders.inbox / f"night{number}.batch.yaml").exists()
        number += 1
    assert number > 10
    assert complete >= 2, "killed after the batch file had appeared"
    while list(bench.folders.inbox.glob("*.yaml")) or bench.ledger.open_ids():
        bench.step(1.5)
        paint_all(bench)
    pictures = Counter(job.name.partition("/")[0] for job in bench.ledger.jobs(S.DONE))
    assert len(pictures) == complete + 1
    assert set(pictures.values()) == {4}
    bench.step(2 * HOUR)
    assert {path.name for path in bench.folders.batches.iterdir()} == pictures.keys()


def test_rerun_and_contact_sheets_look_there(bench: Bench) -> None:
    """The folders of uploads are among those that commands search for inputs."""
    assert bench.folders.batches in input_places(bench.config, ())


def picture(color: str) -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), color).save(buffer, "PNG")
    return buffer.getvalue()


def post(port: int, path: str, body: bytes) -> Any:
    """The response of the API."""
    sent = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1{path}", body)
    sent.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(sent, timeout=30) as found:
        return json.load(found)


def get(port: int, path: str) -> bytes:
    """The body of a response of the API."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1{path}", timeout=30) as found:
        body: bytes = found.read()
        return body


@pytest.mark.timeout(180)
def test_a_batch_of_the_page_survives_a_crash(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that is killed in the middle of a batch paints the rest after a restart, and each picture once."""
    port = free_port()
    served.environment |= {
        "NST_STATUS_PAGE": f"127.0.0.1:{port}",
        "NST_OUTPUTS__LOSS_PLOT": "false",
        "NST_OUTPUTS__PROGRESS": "false",
    }
    (served.root / "styles").mkdir()
    (served.root / "styles" / "one.png").write_bytes(picture("green"))
    served.start()
    served.until(lambda: answer(port, "/api/v1/health") == 200, "page")
    colors = {"dog.png": "red", "cat.png": "blue", "mine.png": "white"}
    ids = {
        name: post(port, f"/uploads?name={name}", picture(color))["id"]
        for name, color in colors.items()
    }
    body = {
        "name": "night",
        "contents": [{"upload": ids["dog.png"]}, {"upload": ids["cat.png"]}],
        "styles": [{"library": "one"}, {"upload": ids["mine.png"]}],
        "sweep": {"seed": list(range(8))},
        "settings": {"iterations": 3},
    }
    assert post(port, "/batches", json.dumps(body).encode())["pictures"] == 32
    results = served.root / "results" / "night"
    served.until(lambda: list(results.glob("*.png")), "first result")
    assert served.process is not None
    served.process.send_signal(signal.SIGKILL)
    served.process.wait()
    assert len(list(results.glob("*.png"))) < 32
    served.start()
    served.until((results / "contact-sheet.jpg").exists, "contact sheet")
    expected = {
        f"{content}_{style}_seed={seed}"
        for content in ("dog", "cat")
        for style in ("one", "mine")
        for seed in range(8)
    }
    assert {path.stem for path in results.glob("*.png")} == expected
    told = json.loads(get(port, "/batches/night"))
    assert (told["pictures"], told["counts"]["done"], told["waiting"]) == (32, 32, False)
    assert get(port, "/batches/night/sheet") == (results / "contact-sheet.jpg").read_bytes()
    listed = json.loads(get(port, "/jobs?batch=night&limit=200"))["jobs"]
    positions = sorted(job["batch"]["position"] for job in listed)
    assert positions == [[c, s, k] for c in range(2) for s in range(2) for k in range(8)]
    cat = next(job["id"] for job in listed if job["batch"]["position"] == [1, 1, 0])
    assert get(port, f"/jobs/{cat}/inputs/0") == picture("blue")
    assert get(port, f"/jobs/{cat}/inputs/1") == picture("white")
    assert served.end() == 0
    uploads = served.root / "state" / "batches" / "night"
    assert len([path for path in uploads.rglob("*") if path.is_file()]) == 3
    for key, value in served.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(served.root)
    again = CliRunner().invoke(
        cli.app, ["rerun", str(results / "dog_mine_seed=3.png"), "--other-weights"]
    )
    assert again.exit_code == 0, again.output
    assert len(list((served.root / "inbox").glob("*.content.png"))) == 1
