"""The Ray executor on a real cluster of two nodes, with a fake studio where the engine does not matter."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from nst_daemon import config as configuration
from nst_daemon import files
from nst_daemon.errors import ConfigError
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.samples import draw_painting, draw_scene
from nst_daemon.supervisor import Moment, Supervisor
from nst_daemon.workers.base import (
    DeviceLost,
    Executor,
    Progress,
    RayOptions,
    Staged,
    Started,
    Stopped,
    WorkerOptions,
)
from nst_daemon.workers.ray import RayExecutor
from tests.small_cluster import SmallCluster, small_cluster
from tests.workers.conftest import ROOT, Bench, Jobs

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: nst-daemon[ray]"
)
pytestmark = pytest.mark.timeout(600)  # the first test waits for the cluster as well
#: The longest wait for anything of a cluster, in seconds.
PATIENCE = 240.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[SmallCluster]:
    """A cluster with two nodes."""
    with (
        tempfile.TemporaryDirectory(prefix="nst-ray-") as folder,
        small_cluster(Path(folder)) as made,
    ):
        for _ in range(2):
            made.add_node()
        yield made


class RayBench(Bench):
    """A bench whose executor is a cluster's."""

    def __init__(self, address: str, options: WorkerOptions, **ray: Any) -> None:
        super().__init__("ray", options, patience=PATIENCE)
        self.executor = RayExecutor(  # type: ignore[assignment]
            RayOptions(address, **{"gpus_per_job": 0.0, "cpus_per_job": 1.0} | ray),
            options,
            clock=self.now,
        )


@pytest.fixture
def ray_bench(tmp_path: Path, cluster: SmallCluster) -> Iterator[Callable[..., RayBench]]:
    """A maker of executors on the cluster; they are stopped at the end."""
    made: list[RayBench] = []

    def make(ray: Mapping[str, Any] = {}, **options: Any) -> RayBench:
        base = WorkerOptions(painter="tests.fakes:Studio", logs=tmp_path / "logs", threads=1)
        options = {"weights": "bundled"} | options
        made.append(RayBench(cluster.address, replace(base, **options), **ray))
        return made[-1]

    yield make
    for one in made:
        one.executor.stop(0.0)


@needs_ray
def test_a_job_travels_by_value(
    ray_bench: Callable[..., RayBench], jobs: Jobs, cluster: SmallCluster
) -> None:
    """A job on a node becomes a staged picture with its sidecar, though the node sees no folder of the daemon."""
    b = ray_bench()
    assert b.executor.capacity() == 0
    b.ready(workers=2)
    b.until(lambda: b.executor.capacity() == 4)
    task = replace(jobs("dog", iterations=30, seconds=0.1), preview=jobs.folder / "preview.jpg")
    answer = b.paint(task)
    assert answer.files == ("dog.json", "dog.png")
    assert files.sha256_file(task.stage / "dog.png") == answer.sha256
    sidecar = json.loads((task.stage / "dog.json").read_bytes())
    assert sidecar["job"]["attempt"] == task.attempt
    kinds = [type(event) for event in b.events if getattr(event, "job_id", "") == "dog-id"]
    assert kinds[0] is Started
    assert kinds[-1] is Staged
    last = b.of(Progress)[-1]
    assert (last.done, last.total) == (30, 30)
    assert task.preview.stat().st_size > 100
    # The model was laid down once, in the cache of the node; nothing of the job is left there.
    assert (cluster.cache / "fake" / "model").read_bytes() == (ROOT / "tests/fakes.py").read_bytes()
    assert list(cluster.cache.glob("work/*/[0-9]*")) == []


@needs_ray
def test_cancel_and_stop(ray_bench: Callable[..., RayBench], jobs: Jobs, tmp_path: Path) -> None:
    """A cancelled job is answered so; one that is stopped leaves its checkpoint, and the next start goes on there."""
    b = ray_bench()
    b.ready(workers=2)
    b.until(lambda: b.executor.capacity() == 4)
    cancelled = jobs("cancelled", iterations=10_000, seconds=0.02)
    stopped = jobs("stopped", iterations=300, seconds=0.02)
    for task in (cancelled, stopped):
        b.executor.submit(task)
    for task in (cancelled, stopped):
        b.until(lambda t=task: [e for e in b.of(Progress) if e.job_id == t.job_id and e.done > 10])
    b.executor.cancel("cancelled-id")
    assert b.answer("cancelled-id").cancelled
    b.events += b.executor.stop(60.0)
    assert [(type(e), e.cancelled) for e in b.answers("stopped-id")] == [(Stopped, False)]
    assert stopped.checkpoint.is_file()
    assert not cancelled.checkpoint.exists()
    b.events.clear()
    b._heard.clear()
    b.ready(workers=1)
    b.paint(stopped)
    resumed = json.loads((stopped.stage / "stopped.json").read_bytes())["iterations"]
    assert resumed["done"] == 300
    assert resumed["resumed_after"][0] > 10


def paint_all(
    executor: Executor,
    config: configuration.Config,
    jobs: int,
    in_the_middle: Callable[[], object] = lambda: None,
) -> dict[str, bytes]:
    """Let a supervisor paint the inbox; `in_the_middle` happens after the fourth job. The pictures by their names."""
    deadline, done = time.monotonic() + PATIENCE, 0
    with Ledger.open(config.folders.ledger) as ledger:
        supervisor = Supervisor(config, ledger, executor)
        supervisor.recover(Moment.now())
        while done < jobs:
            assert time.monotonic() < deadline, supervisor.live(Moment.now())
            wait(list(executor.waitables()), timeout=0.1)  # type: ignore[arg-type]
            supervisor.step(Moment.now(), woken=True)
            before, done = done, ledger.counts()[JobState.DONE]
            if before < 4 <= done:
                in_the_middle()
        supervisor.stop(Moment.now())
        assert {job.state for job in ledger.history(limit=-1)} == {JobState.DONE}
    results = config.folders.results.glob("job??*.png")
    return {path.name: path.read_bytes() for path in results if ".loss." not in path.name}


def a_root(folder: Path, seeds: Mapping[str, int]) -> configuration.Config:
    """A root whose inbox holds a pair for each name, with a seed of its own."""
    config = configuration.load(
        None,
        {
            "NST_FOLDERS__ROOT": str(folder),
            "NST_SERVICE__SETTLE_SECONDS": "0",
            "NST_LIMITS__MIN_FREE_DISK": "0",
        },
    )
    for path in dataclasses.astuple(config.folders)[1:]:
        files.make_folder(path)
    for path in (config.folders.spool, config.folders.stage, config.folders.checkpoints):
        files.make_folder(path)
    picture = draw_scene(32, 32)
    for name, seed in seeds.items():
        picture.save(config.folders.inbox / f"{name}.content.png")
        (config.folders.inbox / f"{name}.yaml").write_text(f"seed: {seed}\n")
        draw_painting(32, 32).save(config.folders.inbox / f"{name}.style.png")
    return config


@needs_ray
@pytest.mark.slow
def test_a_node_dies_among_twenty_jobs(
    ray_bench: Callable[..., RayBench],
    bench: Callable[..., Bench],
    cluster: SmallCluster,
    tmp_path: Path,
) -> None:
    """With a node killed in the middle each of 20 jobs has one result, the same bytes as from the local executor."""
    seeds = {f"job{i:02}": i for i in range(20)}

    there = ray_bench(painter="tests.fakes:Slow").executor
    pictures = paint_all(there, a_root(tmp_path / "there", seeds), 20, cluster.kill_a_node)
    cluster.add_node()
    assert sorted(pictures) == [f"{name}.png" for name in seeds]
    assert len(set(pictures.values())) == 20
    here = bench(painter="tests.fakes:Slow").executor
    assert paint_all(here, a_root(tmp_path / "here", seeds), 20) == pictures


@needs_ray
def test_a_cluster_that_is_away_is_said_once_and_tried_again(tmp_path: Path, jobs: Jobs) -> None:
    """Without a cluster the daemon hears so, once, with the address; it is tried again after a pause."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        b = RayBench(address, WorkerOptions(painter="tests.fakes:Studio", logs=tmp_path))
        b.executor.start()
        b.until(lambda: b.of(DeviceLost))
        (lost,) = b.of(DeviceLost)
        assert lost.left == 0
        assert address in lost.reason
        assert b.executor.capacity() == 0
        assert [status.state for status in b.executor.status(b.now())] == ["waiting"]
        b.poll(ahead=11.0)
        assert b.pid() > 0
        b.until(lambda: b.executor.status(b.now())[0].state == "waiting", ahead=11.0)
        assert len(b.of(DeviceLost)) == 1


def test_without_the_extra_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray the executor is refused, with the command that installs it."""
    monkeypatch.setattr("nst_daemon.workers.ray.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'nst-daemon\[ray\]'"):
        RayExecutor(RayOptions())
