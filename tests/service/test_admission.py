"""Settings on their way from a drop to the worker, and the order of jobs."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nst_daemon.engine.networks import NETWORKS
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import resolve
from nst_daemon.errors import SettingsError
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.workers.messages import Task, decode, encode
from tests.bench import PNG, Bench

OVERRIDES: tuple[dict[str, object], ...] = (
    {},
    {"content_style_ratio": 0.25},
    {"content_weight": 0.5},
    {"optimizer": "adam"},
    {"calibrate": "off"},
    {"iterations": [7], "scales": [0.5, 1.0]},
)


@pytest.mark.parametrize("network", NETWORKS)
def test_settings_reach_the_worker_as_they_were_resolved(tmp_path: Path, network: str) -> None:
    """Each preset with each override is the same in the inbox's settings file, the ledger, the task and its message."""
    bench = Bench(tmp_path)
    bench.config = replace(bench.config, model=replace(bench.config.model, network=network))
    bench.begin()
    bench.executor.room = 1000
    wanted = {}
    for preset in PRESETS:
        for number, override in enumerate(OVERRIDES):
            overrides = {"preset": preset, **override}
            try:
                settings = resolve(overrides, network=network)
            except SettingsError:
                continue  # refused at the admission: tested elsewhere
            name = f"{preset}{number}"
            wanted[name] = settings
            (bench.folders.inbox / f"{name}.content.png").write_bytes(PNG)
            (bench.folders.inbox / f"{name}.style.png").write_bytes(PNG)
            (bench.folders.inbox / f"{name}.yaml").write_text(json.dumps(overrides))
    bench.step(1.5, times=12)
    assert len(wanted) >= len(PRESETS)
    assert {task.name: task.settings for task in bench.executor.tasks} == wanted
    for task in bench.executor.tasks:
        sent = decode(encode(task))
        assert isinstance(sent, Task)
        assert sent.settings == wanted[task.name]
    for job in bench.ledger.jobs():
        assert job.settings == json.loads(json.dumps(asdict(wanted[job.name])))


def test_a_reload_does_not_change_admitted_jobs(tmp_path: Path) -> None:
    """A job keeps the settings that it was admitted with, whatever the configuration says when it is painted."""
    bench = Bench(tmp_path, render={"seed": 1})
    bench.executor.room = 0
    bench.drop()
    bench.supervisor.reconfigure(replace(bench.config, render={"seed": 2}))
    bench.executor.room = 1
    bench.step(1)
    assert bench.executor.tasks[0].settings.seed == 1


def test_jobs_of_an_earlier_release_are_completed(tmp_path: Path) -> None:
    """A queued job that holds only some settings gets the others from the configuration at the start."""
    bench = Bench(tmp_path, render={"seed": 1})
    bench.executor.room = 0
    bench.drop()
    bench.ledger.note(bench.job().id, now=1.0, settings={"size": 100})
    bench.begin()
    bench.step(1)
    assert (bench.executor.tasks[0].settings.seed, bench.executor.tasks[0].settings.size) == (
        1,
        100,
    )


def test_one_round_keeps_the_order_of_names(tmp_path: Path) -> None:
    """Pictures that settle together are painted in the natural order of their names."""
    bench = Bench(tmp_path)
    bench.executor.room = 0
    names = [f"IMG_{number}" for number in (10, 9, 2, 1, 11)]
    for name in names:
        (bench.folders.inbox / f"{name}.content.png").write_bytes(PNG)
        (bench.folders.inbox / f"{name}.style.png").write_bytes(PNG)
    bench.step(1.5, times=4)
    with Ledger.attach(bench.folders.ledger) as ledger:
        queued = [job.name for job in ledger.queue(-1)]
    assert queued == ["IMG_1", "IMG_2", "IMG_9", "IMG_10", "IMG_11"]


def test_a_drop_has_an_identity(tmp_path: Path) -> None:
    """Two drops of the same files with the same settings have one identity, and other settings another one."""
    bench = Bench(tmp_path)
    for name, text in (("a", "seed: 1"), ("b", "seed: 1"), ("c", "seed: 2")):
        bench.drop(name, yaml=text.encode())
    first, second, third = (job.identity for job in bench.ledger.jobs())
    assert len(first) == 64
    assert first == second != third
    assert {job.state for job in bench.ledger.jobs()} <= {JobState.RUNNING, JobState.QUEUED}


def test_the_status_is_valid_unicode(tmp_path: Path) -> None:
    """Files whose names are not UTF-8 are in the status with escapes, while they settle and when they stay."""
    bench = Bench(tmp_path)
    for name in (b"M\xfcnchen.txt", b"M\xfcnchen.png"):
        (bench.folders.inbox / os.fsdecode(name)).write_bytes(PNG)
    bench.step(3.0)
    live = json.loads(bench.folders.status.read_text())
    assert sorted(live["inbox"]["settling"]) == ["M\\xfcnchen.png", "M\\xfcnchen.txt"]
    bench.step(3.0, times=3)
    live = json.loads(bench.folders.status.read_text())
    assert list(live["inbox"]["left_alone"]) == ["M\\xfcnchen.txt"]
    assert [drop["name"] for drop in live["inbox"]["waiting"]] == ["M_nchen"]
    json.dumps(live, ensure_ascii=False).encode()


def test_what_is_left_alone_is_logged_once_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is not a drop stays, is one line of the log for all scans, and is in the status with the reason."""
    bench = Bench(tmp_path)
    notes = bench.folders.inbox / "notes.txt"
    notes.write_text("x")
    bench.step(3.0, times=6)
    lines = [record.message for record in caplog.records if "notes.txt" in record.message]
    assert len(lines) == 1
    assert lines[0].startswith("left alone: inbox/notes.txt is not an image file")
    live = json.loads(bench.folders.status.read_text())
    assert list(live["inbox"]["left_alone"]) == ["notes.txt"]
    assert notes.exists() and bench.ledger.jobs() == []


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("[1, 2, 3]", "dog.yaml: style_weights has 3 weights, and the job has 1 style picture"),
        ("[2]", ""),
    ],
)
def test_a_wrong_number_of_style_weights_is_refused_at_once(
    tmp_path: Path, weights: str, said: str
) -> None:
    """A drop with too many weights fails before a worker has it, and the message names the settings file."""
    bench = Bench(tmp_path)
    bench.drop(yaml=f"style_weights: {weights}".encode())
    assert bench.job().error[: len(said) or None] == said
    assert bench.job().attempts == (0 if said else 1)


def test_weights_of_several_styles_are_counted(tmp_path: Path) -> None:
    """Shares of two library styles are accepted for their three pictures, and four weights are not."""
    bench = Bench(tmp_path)
    folder = bench.folders.styles / "monet"
    folder.mkdir()
    for path in (folder / "a.png", folder / "b.png", bench.folders.styles / "starry.png"):
        path.write_bytes(PNG)
    for name, weights in (("good", "[2, 1]"), ("each", "[1, 2, 3]"), ("bad", "[1, 2, 3, 4]")):
        (bench.folders.inbox / f"{name}.png").write_bytes(PNG)
        text = f"style: [monet, starry]\nstyle_weights: {weights}"
        (bench.folders.inbox / f"{name}.yaml").write_text(text)
    bench.step(1.5, times=5)
    errors = {job.name: job.error for job in bench.ledger.jobs()}
    assert errors.pop("bad").startswith("bad.yaml: style_weights has 4 weights, and the job has 3")
    assert errors == {"good": "", "each": ""}


def test_weights_of_the_configuration_are_counted(tmp_path: Path) -> None:
    """Weights of render: that do not fit a job refuse it, and the remedy says what fits."""
    bench = Bench(tmp_path, render={"style_weights": [1.0, 2.0]})
    bench.drop()
    assert bench.job().error.startswith("style_weights has 2 weights, and the job has 1 style")
