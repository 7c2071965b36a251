"""`nst-daemon status` and `history`."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nst_daemon.cli import app
from nst_daemon.config import Folders, load
from nst_daemon.engine.settings import own_settings, resolve
from nst_daemon.errors import UsageError
from nst_daemon.jobs import Changes, Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ops import status, tables
from nst_daemon.ops.job_names import find_job
from nst_daemon.service.live_status import InboxStatus, LiveStatus, PaintingStatus, WaitingStatus
from nst_daemon.workers.messages import Progress
from tests.bench import Bench

S = JobState


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """The folders of a new root."""
    return load(None, {"NST_FOLDERS__ROOT": str(tmp_path)}).folders


def job(number: int, name: str, **changes: object) -> Job:
    """A claimed job."""
    values = {"settings": {}, "created": float(number), "updated": float(number), **changes}
    return Job(f"{number:032x}", name, "pair", JobState.CLAIMED, (), **values)  # type: ignore[arg-type]


SOUND = asdict(LiveStatus(7, 0.0, 0.0, "idle", "", "idle"))


def test_a_root_without_a_daemon(folders: Folders) -> None:
    """Before the first start, status says that no daemon is running, and creates no ledger."""
    found = status.gather(folders)
    assert not found.running
    assert "no daemon is running" in tables.status_page(found, 200)
    assert not folders.ledger.exists()


def test_what_the_daemon_says_is_shown(tmp_path: Path) -> None:
    """The supervisor's file has progress, speed, remaining time, the next jobs and what is waiting."""
    bench = Bench(tmp_path, render={"scales": [1.0], "iterations": 260})
    for name in ("one", "two", "three"):
        bench.drop(name)
    (bench.folders.inbox / "lone.content.png").write_bytes(b"x")
    first = bench.executor.tasks[0]
    for done in (10, 20):
        bench.step(5)
        bench.executor.events.append(Progress("fake", first.job_id, done, 260, 0.5))
    bench.step(5)
    live = LiveStatus.read(bench.folders.status)
    assert live is not None
    (painting,) = live.paintings
    assert (painting.name, painting.done, painting.speed) == (first.name, 20, 2.0)
    assert painting.left is not None
    assert [tuple(point) for point in painting.curve] == [(10, 0.5), (20, 0.5)]
    assert painting.preview == f".preview/{first.name}.jpg"
    assert live.headline == f"painting {first.name} 7 %, 2 waiting"
    assert live.workers[0]["worker"] == "fake"
    assert live.pid == os.getpid()
    second, third = (name for name in ("one", "two", "three") if name != first.name)
    stopped = status.gather(bench.folders)
    assert not stopped.running
    assert stopped.counts[JobState.RUNNING] == 2
    assert [j.name for j in stopped.next] == [first.name, second, third]
    with (bench.folders.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        served = status.gather(bench.folders)
    assert served.running
    assert [j.name for j in served.next] == [second, third]


def test_health_is_that_of_the_running_daemon(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`health` ends with 0 only while a daemon holds the lock and has written its status within a minute."""
    monkeypatch.setenv("NST_FOLDERS__ROOT", str(folders.root))
    folders.state.mkdir()

    def health() -> tuple[int, str]:
        done = CliRunner().invoke(app, ["health"])
        return done.exit_code, done.stdout.partition(":")[0]

    assert health() == (1, "away")
    with (folders.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert health() == (0, "ok"), "a daemon that starts has no status yet"
        for age, expected in ((0, (0, "ok")), (120, (1, "silent"))):
            LiveStatus(7, 0.0, time.time() - age, "idle", "", "idle").write(folders.status)
            assert health() == expected
    assert health() == (1, "away")


def test_what_is_painted_side_by_side_is_shown(tmp_path: Path) -> None:
    """Of the jobs of one worker, the first is shown, and the others once they have made progress."""
    bench = Bench(tmp_path)
    bench.executor.room = 3
    for name in ("one", "two", "three"):
        bench.drop(name)
    third = bench.executor.tasks[2]
    bench.executor.events.append(Progress("fake", third.job_id, 1, 260, 0.5))
    bench.step(5)
    live = LiveStatus.read(bench.folders.status)
    assert live is not None
    assert [painting.id for painting in live.paintings] == [
        bench.executor.tasks[0].job_id,
        third.job_id,
    ]


def test_a_job_without_progress_is_shown_as_painted(tmp_path: Path) -> None:
    """A job in its first iteration is shown as painted, not as waiting."""
    bench = Bench(tmp_path)
    bench.drop("dog")
    bench.step(1)
    live = LiveStatus.read(bench.folders.status)
    assert live is not None
    assert live.headline == "painting dog 0 %"


def test_following_goes_on_until_it_is_interrupted() -> None:
    """`status --watch` shows the page once a second and ends without an error at Ctrl-C."""
    shown_at: list[float] = []

    def pause(seconds: float) -> None:
        shown_at.append(seconds)
        if len(shown_at) == 3:
            raise KeyboardInterrupt

    pages = []
    status.follow(lambda: pages.append("page"), pause)
    assert (len(pages), shown_at) == (3, [1.0] * 3)


def test_status_is_not_written_more_than_once_a_second(tmp_path: Path) -> None:
    """Steps within one second write the file once."""
    bench = Bench(tmp_path)
    bench.step(0)
    before = bench.folders.status.stat().st_ino
    bench.step(0.2, times=4)
    assert bench.folders.status.stat().st_ino == before
    bench.step(0.3)
    assert bench.folders.status.stat().st_ino != before


def test_a_page_escapes_names() -> None:
    """A name from a file cannot move the cursor or colour the page."""
    bad = "a\x1b[31m[red]b"
    painting = PaintingStatus("0" * 32, bad, "cpu", 1, 2, 50, 1.0, 2.0)
    inbox = InboxStatus(waiting=[WaitingStatus(bad, f"{bad} has no style")], settling=[bad])
    live = LiveStatus(1, 0.0, 0.0, "painting", "", bad, [painting], (), inbox)
    none = dict.fromkeys(JobState, 0)
    found = status.Status(Path(bad), live, True, none, (job(1, bad),), (), (), {}, inbox)
    text = tables.status_page(found, 200, now=0.0)
    assert "\x1b" not in text
    assert text.count("a\\x1b[31m[red]b") == 6
    assert "\x1b" not in tables.history([job(1, bad)], 200)
    assert "\x1b" not in tables.story(job(1, bad, settings={bad: bad}), [], 200)


def test_the_page_has_headings_and_units() -> None:
    """Columns, lists and notes of the page are named as users know them."""
    painting = PaintingStatus("0" * 32, "dog", "cuda:0", 1, 2, 50, 1.4, 90.0)
    worker = {
        "worker": "cuda:0",
        "state": "painting",
        "pid": os.getpid(),
        "device_memory": 3 << 30,
        "info": {"device_name": "a GPU"},
    }
    live = LiveStatus(7, 0.0, 0.0, "painting", "", "painting dog", [painting], [worker])
    failed = job(2, "cat", error="no style")
    counts = {state: int(state is S.FAILED) for state in JobState}
    found = status.Status(
        Path("/nst"),
        live,
        True,
        counts,
        (),
        (job(1, "bird"), failed),
        (),
        {job(1, "bird").id: "retry"},
    )
    lines = [
        " ".join(line.split()) for line in tables.status_page(found, 200, now=60.0).splitlines()
    ]
    assert lines[0] == "/nst: painting dog (PID 7, up 60 s)"
    assert lines[1] == "painting worker done iterations speed left"
    assert lines[2] == "dog cuda:0 50 % 1 of 2 1.4 it/s 90 s"
    assert lines[3] == "worker state RAM VRAM device weights"
    assert re.fullmatch(r"cuda:0 painting [\d.,]+ [MG]iB 3 GiB a GPU", lines[4])
    assert lines[5:8] == ["jobs: 1 failed", "", "Recent failures"]
    assert lines[10] == "retry requested"
    assert lines[12] == "no style"


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    """Outside of every root, the page says which folder does not exist, and how to name another one."""
    found = status.gather(Folders(root=tmp_path / "nst"))
    first = tables.status_page(found, 200).splitlines()[0]
    assert first.startswith(
        f"{tmp_path}/nst does not exist: change to the folder of the configuration"
    )


def test_twenty_lines_of_the_inbox_are_shown() -> None:
    """The page lists as many drops as docs/inbox.md says, and counts the others."""
    waiting = [WaitingStatus(str(n), f"drop {n} has no style") for n in range(30)]
    live = LiveStatus(7, 0.0, 0.0, "idle", "", "idle", inbox=InboxStatus(waiting=waiting))
    none = dict.fromkeys(JobState, 0)
    found = status.Status(Path("/nst"), live, True, none, (), (), (), {}, live.inbox)
    lines = tables.status_page(found, 200, now=0.0).splitlines()
    assert [line for line in lines if "drop" in line] == [
        f"waiting: drop {n} has no style" for n in range(20)
    ]
    assert "… and 10 more lines; `nst-daemon status --json` has them" in lines


def test_json_is_json(folders: Folders) -> None:
    """The JSON form can be encoded, and has a schema."""
    folders.state.mkdir(parents=True)
    with Ledger.open(folders.ledger) as ledger:
        ledger.add(job(1, "dog"))
        ledger.move(f"{1:032x}", JobState.FAILED, now=3.0, error="no")
        ledger.request(f"{1:032x}", "retry", now=4.0)
        story = status.story(ledger.jobs()[0], ledger.events(f"{1:032x}"))
    found = json.loads(json.dumps(status.gather(folders).as_json()))
    assert found["schema"] == status.STATUS_SCHEMA
    assert found["failed"][0]["error"] == "no"
    assert found["asked"] == {f"{1:032x}": "retry"}
    assert [event["state"] for event in json.loads(json.dumps(story))["events"]] == [
        "claimed",
        "failed",
    ]


def test_the_queue_is_listed_as_it_will_be_painted(folders: Folders) -> None:
    """Groups take turns in the list of next jobs, as they do when they are painted."""
    folders.state.mkdir(parents=True)
    with Ledger.open(folders.ledger) as ledger:
        for number, group in enumerate("aaabb"):
            ledger.add(replace(job(number, f"{group}{number}"), group=group, created=float(number)))
            ledger.move(f"{number:032x}", S.QUEUED, now=9.0)
    assert [job.name for job in status.gather(folders).next] == ["a0", "b3", "a1", "b4", "a2"]


def test_what_is_next(folders: Folders) -> None:
    """Jobs in a worker come first, then the queue, then jobs to be retried, up to the limit."""
    folders.state.mkdir(parents=True)
    with Ledger.open(folders.ledger) as ledger:
        for number, states in enumerate(
            ([S.QUEUED, S.RUNNING, S.RETRYING], [S.QUEUED], [S.QUEUED, S.RUNNING])
        ):
            ledger.add(job(number, "+".join(states)))
            for state in states:
                ledger.move(f"{number:032x}", state, now=9.0)
    names = [job.name for job in status.gather(folders).next]
    assert names == ["queued+running", "queued", "queued+running+retrying"]
    assert len(status.gather(folders, shown=2).next) == 2


def test_a_job_is_found_by_name_or_beginning(folders: Folders) -> None:
    """A name finds its newest job, a prefix the only id with it, and anything else is an error."""
    folders.state.mkdir(parents=True)
    with Ledger.open(folders.ledger) as ledger:
        ledger.add(job(1, "dog"))
        ledger.add(job(2, "dog"))
        ledger.add(job(0xF << 124, "cat"))
        assert find_job(ledger, "dog").id == f"{2:032x}"
        assert find_job(ledger, "f").name == "cat"
        for text in ("0", "bird"):
            with pytest.raises(UsageError):
                find_job(ledger, text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [("", 0.0), ("90m", 1e6 - 5400), ("12h", 1e6 - 43200), ("7d", 1e6 - 604800)],
)
def test_moments(text: str, moment: float) -> None:
    """Minutes, hours and days are counted back from now; other words are an error."""
    assert status.parse_since(text, now=1e6) == moment
    with pytest.raises(UsageError):
        status.parse_since("yesterday")


def test_the_story_of_a_job_tells_its_own_settings() -> None:
    """`history JOB` names the preset and what differs from it, and leaves out what the preset says."""
    settings = json.loads(json.dumps(asdict(resolve({"preset": "ratio", "seed": 3}))))
    assert own_settings(settings) == {"preset": "ratio", "seed": 3}
    text = tables.story(job(1, "dog", settings=settings), [], 200)
    assert "preset: ratio, seed: 3" in text
    assert "tv_weight" not in text


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "1", "{", '{"pid": 1}', "\x00", '"\\ud800"']
    + [
        json.dumps({**SOUND, key: value})
        for key, value in [
            ("workers", [1]),
            ("workers", [{}]),
            ("workers", None),
            ("since", "x"),
            ("inbox", {"waiting": [1]}),
            ("inbox", {"settling": 5}),
            ("paintings", [{"id": "x"}]),
            ("inbox", {"left_alone": "x"}),
        ]
    ],
)
def test_a_status_of_another_form_is_no_status(tmp_path: Path, text: str) -> None:
    """Whatever JSON is in status.json, it is read as "of another version" unless every part has its type."""
    file = tmp_path / "status.json"
    file.write_text(json.dumps(SOUND))
    assert LiveStatus.read(file) is not None
    file.write_text(text)
    assert LiveStatus.read(file) is None


def test_cancelled_pictures_of_a_batch_are_not_missing() -> None:
    """The summary names them, and what is missing has failed."""
    jobs = [
        replace(job(number, f"night/{number}"), state=state)
        for number, state in enumerate((S.DONE, S.FAILED, S.CANCELLED))
    ]
    summary = status.batch_summary("night", 4, jobs, [None], {})
    assert (summary["painted"], summary["missing"], summary["cancelled"]) == (1, 2, 1)
    text = tables.batch_table(summary, None)
    assert text.endswith("night: 1 of 4 painted, 1 skipped, 2 missing, 1 cancelled")


def test_settings_are_shown_as_in_a_file() -> None:
    """The story of a job writes values as a settings file does."""
    changed = replace(job(1, "dog"), changes=Changes({"clamp": True, "style": ["a"]}, ("seed",)))
    text = tables.story(changed, [], None)
    assert 'changed by request  clamp: true, style: ["a"], without seed' in text
