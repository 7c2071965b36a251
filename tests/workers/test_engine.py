"""Workers with the real engine: what happens to jobs, neighbours and people when things go wrong."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nst_daemon.errors import Retry
from nst_daemon.samples import CONTENT, STYLE
from nst_daemon.workers.messages import (
    Died,
    Note,
    Progress,
    Staged,
    Stopped,
    Task,
    WorkerOptions,
)
from tests.workers.conftest import ROOT, Harness, Jobs, local

pytestmark = pytest.mark.slow

Harnesses = Callable[..., Harness]
#: Two scales, few iterations, reproducible.
SMALL = {"size": 64, "scales": [0.5, 1.0], "iterations": [12, 24], "deterministic": True}


def picture(seed: int, width: int = 96, height: int = 70) -> bytes:
    """A PNG of soft random colours."""
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def real(harness: Harnesses, tmp_path_factory: pytest.TempPathFactory) -> Harnesses:
    """A maker of executors with the real engine; all share one cache, so the network is exported once."""
    return partial(harness, **engine(tmp_path_factory))


def engine(folders: pytest.TempPathFactory) -> dict[str, Any]:
    """The options of the real engine."""
    renderer = "nst_daemon.workers.process.renderer:Renderer"
    cache = folders.getbasetemp() / "cache"
    return {"renderer": renderer, "weights": "bundled", "cache_dir": cache}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """One worker for several tests, which is replaced when they kill it: each start loads torch for seconds."""
    options = WorkerOptions(
        logs=tmp_path_factory.mktemp("logs"),
        threads=2,
        checkpoint_seconds=0.02,
        stall_seconds=200,
        **engine(tmp_path_factory),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        made = Harness(local("cpu", options), patience=300.0)
        made.ready()
        yield made
        made.executor.stop(0.0)


@pytest.fixture
def pair(jobs: Jobs) -> Callable[..., Task]:
    """A maker of tasks with real pictures."""

    def make(name: str, seed: int = 1, **settings: object) -> Task:
        return jobs.of(name, picture(seed), picture(0), settings=SMALL | settings)

    return make


def sidecar(task: Task) -> dict[str, object]:
    """What lies beside the staged picture."""
    found: dict[str, object] = json.loads((task.stage / f"{task.name}.json").read_bytes())
    return found


@pytest.mark.timeout(900)
def test_resumed_bytes_equal_uninterrupted_bytes(
    lasting: Harness, pair: Callable[..., Task]
) -> None:
    """Paintings whose worker is killed at three random moments end in the same bytes as one left in peace."""
    b = lasting
    began = time.monotonic()
    whole = b.paint(pair("whole"))
    duration = time.monotonic() - began
    seed = random.randrange(1000)
    moments = random.Random(seed)
    task, deaths, takes = pair("killed"), 0, []
    while deaths < 3 or not takes:
        b.until(b.executor.capacity)
        b.executor.submit(task)
        so_far = len(b.of(Progress))
        kill_at = moments.uniform(0.0, duration) if deaths < 3 else math.inf
        b.until(lambda n=so_far: len(b.of(Progress)) > n)  # type: ignore[misc]
        kill_at += time.monotonic()
        b.until(lambda at=kill_at: time.monotonic() > at or b.executor.capacity() == 2)  # type: ignore[misc]
        if b.executor.capacity() < 2:
            os.kill(b.pid(), signal.SIGKILL)
        answer = b.answer("killed-id")
        if isinstance(answer, Died):
            deaths += 1
        else:
            assert answer.sha256 == whole.sha256, f"moments from seed {seed}"
            takes.append(len(sidecar(task)["iterations"]["resumed_after"]))
            task.checkpoint.unlink(missing_ok=True)
    assert sum(takes) > 0, "no painting was ever taken up"


def test_signals_and_neighbours(lasting: Harness, pair: Callable[..., Task]) -> None:
    """A segmentation fault and a hang cost one attempt of the job that was painted; its neighbour is painted too."""
    b = lasting
    for number, words in (
        (signal.SIGSEGV, "was killed by signal 11 (SIGSEGV)"),
        (signal.SIGSTOP, "made no progress for"),
    ):
        first, second = pair(f"first{number}"), pair(f"second{number}", seed=2)
        b.until(b.executor.capacity)
        b.executor.submit(first)
        b.executor.submit(second)
        so_far = len(b.of(Progress))
        b.until(lambda n=so_far: len(b.of(Progress)) > n)  # type: ignore[misc]
        os.kill(b.pid(), number)
        died = b.answer(first.job_id, ahead=b.ahead + 300 if number is signal.SIGSTOP else 0)
        assert died.reason.startswith(words)
        assert isinstance(b.answer(second.job_id), Stopped)
        for task in (first, second):
            assert isinstance(b.paint(task), Staged)


def test_what_does_not_fit_is_painted_in_tiles_or_refused(
    real: Harnesses, pair: Callable[..., Task]
) -> None:
    """Within a limit of memory a picture that no way of painting can fit is refused with the size that would, one that
    does not fit whole is painted at its size, in tiles, which is told, and the worker lives.
    """
    b = real(max_memory=7 << 28)
    b.patience = 300.0
    b.ready()
    failed = b.paint(pair("huge", size=4000))
    assert failed.retry is Retry.ALONE
    assert "do not fit into memory" in failed.message
    fits = re.search(r"about (\d+) px should fit", failed.message)
    assert fits is not None
    assert 64 < int(fits[1]) < 4000
    layers = {"content_layers": {"relu2_2": 1.0}, "style_layers": {"relu1_1": 1.0}}
    task = pair("large", size=1000, scales=[1.0], iterations=[1], style_loss="gram", **layers)
    assert isinstance(b.paint(task), Staged)
    assert sidecar(task)["picture"]["width"] == 1000  # type: ignore[index]
    assert any("tiles of" in note for note in sidecar(task)["notes"])  # type: ignore[attr-defined]
    assert any("tiles of" in note.message for note in b.of(Note))
    assert not b.of(Died)


def test_a_rollback_at_the_last_check_stages_the_last_good_picture(
    lasting: Harness, jobs: Jobs
) -> None:
    """A painting whose last check rolls back is staged, with finite losses and a note that says so."""
    settings = {
        "preset": "gatys-pytorch", "size": 64, "iterations": [11], "scales": [1.0], "step": 10.0
    }  # fmt: skip
    task = jobs.of("dog", CONTENT.read_bytes(), STYLE.read_bytes(), settings=settings)
    assert isinstance(lasting.paint(task), Staged)
    found = sidecar(task)
    assert found["losses"]["total"] > 0  # type: ignore[index]
    assert found["notes"][-1].endswith("the result is the last good picture")  # type: ignore[index]
    assert levels(task.stage / "dog.png").std() > 25


def test_an_engine_that_finds_only_nan_fails_its_job(
    lasting: Harness, pair: Callable[..., Task]
) -> None:
    """A painting that stays non-finite in spite of rolling back fails for good, with a remedy."""
    failed = lasting.paint(pair("nan", optimizer="adam", step=1e30, clamp=False, iterations=[100]))
    assert failed.retry is Retry.NEVER
    assert "rollbacks; try" in failed.message
    assert isinstance(lasting.paint(pair("good")), Staged)


def test_a_bad_picture_fails_with_its_name(lasting: Harness, jobs: Jobs) -> None:
    """A file that is no picture fails its job for good, in one line."""
    failed = lasting.paint(jobs.of("bad", b"this is no picture", picture(0)))
    assert failed.retry is Retry.NEVER
    assert "\n" not in failed.message


def test_two_workers_share_a_queue(real: Harnesses, pair: Callable[..., Task]) -> None:
    """Ten jobs on two workers of one thread each end in one picture each, and both workers painted some of them."""
    b = real(["cpu", "cpu"])
    b.patience = 300.0
    b.ready(workers=2)
    tasks = [pair(f"job{i}", seed=i, iterations=[4]) for i in range(10)]
    for task in tasks:
        b.until(b.executor.capacity)
        b.executor.submit(task)
    b.until(lambda: len(b.of(Staged)) == len(tasks))
    staged = b.of(Staged)
    assert sorted(event.job_id for event in staged) == sorted(task.job_id for task in tasks)
    assert len({event.sha256 for event in staged}) == len(tasks)
    assert len({event.worker for event in staged}) == 2


def test_preparing_gives_way_to_painting(lasting: Harness) -> None:
    """onnxruntime's threads, which prepare, are nicer than the main thread, which paints."""
    tasks = Path(f"/proc/{lasting.pid()}/task")
    nice = {int(t.name): os.getpriority(os.PRIO_PROCESS, int(t.name)) for t in tasks.iterdir()}
    painting = nice.pop(lasting.pid())
    nicer = [value for value in nice.values() if value == min(19, painting + 10)]
    assert len(nicer) > 1, nice  # the one that prepares, and what onnxruntime has started from it


def levels(path: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    """The picture's values, (height, width, 3)."""
    return np.asarray(Image.open(path)).astype(np.int16)
