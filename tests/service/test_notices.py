"""What the log, the status and README.txt say about drops that wait."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from nst_daemon.config import Folders, load
from nst_daemon.intake.drops import Waiting
from nst_daemon.intake.steps import finish
from nst_daemon.intake.strays import Strays
from nst_daemon.jobs import Changes, JobState
from nst_daemon.ops import status, tables
from nst_daemon.service.inbox_now import inbox_now
from nst_daemon.service.live_status import LISTED
from nst_daemon.service.notices import LINES, WINDOW, WaitingLog
from nst_daemon.service.root_readme import NAME, lay_readme
from tests.bench import PNG, Bench


def drops(number: int, first: int = 0) -> list[Waiting]:
    """Pictures that wait for a style."""
    numbers = range(first, first + number)
    return [Waiting(f"{i}", (f"{i}.jpg",), f"{i}.jpg has no style", "add", 9.0) for i in numbers]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the log about drops that wait."""
    return [r.message for r in caplog.records if "wait" in r.message]


def test_a_drop_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A drop that waits is one line for all scans, also after it has settled again; a new one is another line."""
    caplog.set_level(logging.INFO)
    log = WaitingLog()
    for now in (0.0, 1.0, 100.0):
        finish(log.report(drops(1), [], now))
    finish(log.report([], ["0.jpg"], 101.0))
    finish(log.report(drops(2), [], 102.0))
    assert lines(caplog) == [f"waiting: {i}.jpg has no style: add" for i in (0, 1)]
    finish(log.report([], [], 103.0))
    finish(log.report(drops(1), [], 104.0))
    assert len(lines(caplog)) == 3


def test_a_drop_whose_partner_may_be_arriving_is_not_logged_yet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A drop is not mentioned before it is announced."""
    caplog.set_level(logging.INFO)
    log = WaitingLog()
    (drop,) = drops(1)
    finish(log.report([replace(drop, announced=False)], [], 0.0))
    assert not lines(caplog)
    finish(log.report([drop], [], 1.0))
    assert len(lines(caplog)) == 1


def test_thousands_of_drops_are_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Of 5,000 drops that arrive within a minute a bounded number is named, and one line has the number of others."""
    caplog.set_level(logging.INFO)
    log = WaitingLog()
    for second in range(50):
        finish(log.report(drops(100 * (second + 1)), [], second))
    assert len(lines(caplog)) == LINES + 1
    assert lines(caplog)[-1].startswith("80 more drops wait in the inbox")
    finish(log.report(drops(5001), [], WINDOW))
    assert len(lines(caplog)) == LINES + 2


def test_two_pictures_are_one_line_in_the_log_and_in_the_status(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has one line for two pictures, after a restart one more; the status has the same text in two parts."""
    caplog.set_level(logging.INFO)
    bench = Bench(tmp_path)
    for name in ("dog.png", "hokusai.png"):
        (bench.folders.inbox / name).write_bytes(PNG)
    bench.step(3.0, times=6)
    (line,) = lines(caplog)
    (drop,) = json.loads(bench.folders.status.read_text())["inbox"]["waiting"]
    assert line == f"waiting: {drop['cause']}: {drop['remedy']}"
    assert "hokusai.png to dog.style.png" in drop["remedy"]
    assert drop["files"] == ["dog.png", "hokusai.png"]
    assert 0 < drop["left"] <= 3600
    bench.begin()
    bench.step(3.0, times=6)
    assert len(lines(caplog)) == 2


def test_a_pair_by_order_is_named_as_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With pair_by_order two pictures are painted, and the log and the ledger tell which is the content."""
    caplog.set_level(logging.INFO)
    bench = Bench(tmp_path)
    bench.change(service={"pair_by_order": True})
    for name in ("dog.png", "hokusai.png"):
        (bench.folders.inbox / name).write_bytes(PNG)
    bench.step(3.0, times=4)
    (job,) = bench.ledger.jobs()
    assert (job.name, job.source) == ("dog", "order")
    assert [(i.role.value, i.name) for i in job.inputs] == [
        ("content", "dog.png"),
        ("style", "hokusai.png"),
    ]
    assert "paired by order: dog.png is the content, hokusai.png is the style" in caplog.text


def test_a_retried_pair_by_order_keeps_its_names(tmp_path: Path) -> None:
    """The inputs of a retry have the names of the files as they were dropped, however often it is retried."""
    bench = Bench(tmp_path)
    bench.change(service={"pair_by_order": True})
    (bench.folders.inbox / "dog.yaml").write_bytes(b"sizee: 80")
    for name in ("dog.png", "hokusai.png"):
        (bench.folders.inbox / name).write_bytes(PNG)
    bench.step(3.0, times=4)
    for removed in (("seed",), ("sizee",)):
        changes = Changes({}, removed)
        bench.ledger.request(bench.job().id, "retry", now=bench.now.wall, changes=changes)
        bench.step(2, times=2)
    job = bench.job()
    assert (job.state, job.source) == (JobState.RUNNING, "order")
    assert {i.role.value: i.name for i in job.inputs} == {
        "content": "dog.png",
        "style": "hokusai.png",
        "settings": "dog.yaml",
    }


def test_the_status_is_bounded(tmp_path: Path) -> None:
    """Of 200 drops that wait and 200 files that are not drops, the status lists a few and counts the rest."""
    bench = Bench(tmp_path)
    for number in range(200):
        (bench.folders.inbox / f"{number}.content.png").write_bytes(PNG)
        (bench.folders.inbox / f"{number}.txt").write_bytes(b"x")
    bench.step(3.0, times=4)
    inbox = json.loads(bench.folders.status.read_text())["inbox"]
    assert len(inbox["waiting"]) == len(inbox["left_alone"]) == LISTED
    assert inbox["more"] == {"waiting": 200 - LISTED, "left_alone": 200 - LISTED}


def test_without_a_daemon_the_status_has_what_is_in_the_inbox_now(tmp_path: Path) -> None:
    """`status` looks into the inbox itself if no daemon runs, says so, and changes nothing."""
    config = load(None, {"NST_FOLDERS__ROOT": str(tmp_path)})
    for folder in (config.folders.inbox, config.folders.styles):
        folder.mkdir()
    (config.folders.styles / "starry.png").write_bytes(PNG)
    for name in ("cat.contnet.png", "a.content.png", "a.style.png", "film.mp4"):
        (config.folders.inbox / name).write_bytes(PNG)
    found = status.gather(config.folders).looking_at(lambda: inbox_now(config))
    page = tables.status_page(found, 200)
    assert "in the inbox now:\nready: 1 drop; `nst-daemon run` or `nst-daemon once` paints" in page
    assert "waiting: cat.contnet.png has no role: did you mean cat.content.png?" in page
    assert "left alone: film.mp4 is a video" in page
    assert found.as_json()["inbox"]["waiting"][0]["remedy"] == "did you mean cat.content.png?"
    assert not (config.folders.inbox / "starry").exists()


def test_a_root_without_an_inbox_has_nothing_in_it(tmp_path: Path) -> None:
    """Before the first start `status` says nothing about an inbox."""
    assert inbox_now(load(None, {"NST_FOLDERS__ROOT": str(tmp_path / "new")})) is None


def test_pictures_beside_the_inbox_are_mentioned(tmp_path: Path) -> None:
    """A picture in the root and one with a role in results/ are a line each; results and new files are none."""
    results = tmp_path / "results"
    results.mkdir()
    for path in (
        tmp_path / "dog.png",
        results / "dog.content.png",
        results / "cat.png",
        results / "a.style.png",
        results / "a.style.json",
    ):
        path.write_bytes(PNG)
    strays = Strays(tmp_path, results, tmp_path / "inbox")
    now = (tmp_path / "dog.png").stat().st_ctime
    assert strays.lines(now + 1) == []
    assert strays.lines(now + 60) == [
        f"{name} is in {folder}, where nothing is picked up; move it into {tmp_path / 'inbox'}"
        for name, folder in (("dog.png", tmp_path), ("dog.content.png", results))
    ]


# README.txt


def folders(root: Path, **environment: str) -> Folders:
    """The folders of a root."""
    found = load(None, {"NST_FOLDERS__ROOT": str(root), **environment}).folders
    found.root.mkdir(exist_ok=True)
    return found


def test_a_root_gets_a_readme_with_its_real_folders(tmp_path: Path) -> None:
    """README.txt names each folder where it is: inside the root by its name, elsewhere by its path."""
    elsewhere = tmp_path / "pictures"
    lay_readme(folders(tmp_path / "nst", NST_FOLDERS__RESULTS=str(elsewhere)))
    text = (tmp_path / "nst" / NAME).read_text()
    for place in ("\n  inbox/ ", "\n  styles/ ", f"\n  {elsewhere}/ ", "\n  failed/ "):
        assert place in text
    assert "nst-daemon --help" in text
    assert max(map(len, text.replace(str(elsewhere), "").splitlines())) <= 90


def test_an_edited_readme_stays(tmp_path: Path) -> None:
    """A README.txt that exists is not written again, not even an empty one."""
    (tmp_path / NAME).write_text("mine")
    lay_readme(folders(tmp_path))
    assert (tmp_path / NAME).read_text() == "mine"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A README.txt that is a dangling link stays, and its target is not created."""
    (tmp_path / NAME).symlink_to(tmp_path / "target")
    lay_readme(folders(tmp_path))
    assert not (tmp_path / "target").exists()


def test_the_readme_is_shared_like_the_folders(tmp_path: Path) -> None:
    """In a root that a group may write to, the group may edit README.txt, whatever the umask is."""
    tmp_path.chmod(0o2775)
    before = os.umask(0o077)
    try:
        lay_readme(folders(tmp_path))
    finally:
        os.umask(before)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o660


def test_a_root_that_refuses_the_readme_is_served(tmp_path: Path) -> None:
    """A README.txt that cannot be written is no error."""
    found = folders(tmp_path)
    lay_readme(replace(found, root=tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()
