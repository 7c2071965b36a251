"""The Ray executor on a real cluster of two nodes, with a fake renderer where the engine does not matter."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from benchmarks.drawings import draw_painting, draw_scene
from nst_daemon import config as configuration
from nst_daemon import files
from nst_daemon.digests import sha256_file
from nst_daemon.engine.settings import resolve
from nst_daemon.errors import ConfigError
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.service.live_status import LiveStatus
from nst_daemon.service.state import Moment
from nst_daemon.service.supervisor import Supervisor
from nst_daemon.workers.executor import Executor
from nst_daemon.workers.messages import (
    DeviceLost,
    Progress,
    Staged,
    Started,
    Stopped,
    WorkerOptions,
)
from nst_daemon.workers.ray.executor import RayExecutor
from tests.bench import FakeCheck
from tests.small_cluster import SmallCluster, small_cluster
from tests.workers.conftest import ROOT, Harness, Jobs

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
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


def on_cluster(address: str, options: WorkerOptions, **ray: Any) -> Harness:
    """A harness whose executor is a cluster's; it tries again soon."""
    keys = {"gpus_per_job": 0.0, "cpus_per_job": 1.0} | ray
    return Harness(
        lambda clock: RayExecutor(
            configuration.Ray(address, **keys), options, retry_seconds=1.0, clock=clock
        ),
        patience=PATIENCE,
    )


@pytest.fixture
def ray_harness(tmp_path: Path, cluster: SmallCluster) -> Iterator[Callable[..., Harness]]:
    """A maker of executors on the cluster; they are stopped at the end."""
    made: list[Harness] = []

    def make(ray: Mapping[str, Any] = {}, address: str = "", **options: Any) -> Harness:
        base = WorkerOptions(renderer="tests.fakes:Renderer", logs=tmp_path / "logs", threads=1)
        options = {"weights": "bundled"} | options
        made.append(on_cluster(address or cluster.address, replace(base, **options), **ray))
        return made[-1]

    yield make
    for one in made:
        one.executor.stop(0.0)


@needs_ray
def test_jobs_travel_by_value_and_are_cancelled_and_stopped(
    ray_harness: Callable[..., Harness], jobs: Jobs, cluster: SmallCluster
) -> None:
    """A job on a node becomes a staged picture with its sidecar, though the node sees no folder of the daemon; one that
    is cancelled is answered so; one that is stopped leaves its checkpoint, and the next start goes on there.
    """
    b = ray_harness()
    assert b.executor.capacity() == 0
    b.ready(workers=2)
    b.until(lambda: b.executor.capacity() == 4)
    task = replace(jobs("dog", iterations=30, seconds=0.1), preview=jobs.folder / "preview.jpg")
    answer = b.paint(task)
    assert answer.files == ("dog.json", "dog.png")
    assert sha256_file(task.stage / "dog.png") == answer.sha256
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

    cancelled = jobs("cancelled", iterations=10_000, seconds=0.02)
    stopped = jobs("stopped", iterations=300, seconds=0.02)
    for task in (cancelled, stopped):
        b.executor.submit(task)
    for task in (cancelled, stopped):
        b.until(lambda t=task: [e for e in b.of(Progress) if e.job_id == t.job_id and e.done > 10])
    b.executor.cancel("cancelled-id")
    assert b.answer("cancelled-id").cancelled
    b.events += b.executor.stop(60.0)
    assert isinstance(stopped_answer := b.answer("stopped-id"), Stopped)
    assert not stopped_answer.cancelled
    assert stopped.checkpoint.is_file()
    assert not cancelled.checkpoint.exists()
    b.ready(workers=2)
    b.paint(stopped)
    resumed = json.loads((stopped.stage / "stopped.json").read_bytes())["iterations"]
    assert resumed["done"] == 300
    assert resumed["resumed_after"][0] > 10


@needs_ray
@pytest.mark.slow
def test_the_engine_paints_the_same_picture_on_a_node(
    ray_harness: Callable[..., Harness],
    harness: Callable[..., Harness],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The real engine on a node, with the network that it was sent, makes the bytes that it makes on this machine."""
    seeds = {"job00": 1, "job01": 2}
    tiny = {"size": 48, "scales": [1.0], "iterations": [4]}
    cache = tmp_path_factory.getbasetemp() / "cache"  # other tests with the engine export into it
    real = {"renderer": WorkerOptions().renderer, "cache_dir": cache, "settings": resolve(tiny)}

    def root(name: str) -> configuration.Config:
        config = a_root(tmp_path / name, seeds)
        return replace(config, render=tiny)

    # One actor, so that torch is loaded once; the network, exported to be sent, serves this machine too.
    there = ray_harness({"max_in_flight": 1}, **real).executor
    pictures = paint_all(there, root("there"), 2)
    assert sorted(pictures) == ["job00.png", "job01.png"]
    assert len(set(pictures.values())) == 2
    assert paint_all(harness(weights="bundled", **real).executor, root("here"), 2) == pictures


@needs_ray
def test_from_a_machine_that_is_no_node(
    ray_harness: Callable[..., Harness], jobs: Jobs, cluster: SmallCluster
) -> None:
    """Through `ray://` a job comes back as a picture, as it does from a machine that is a node."""
    b = ray_harness(address=cluster.client_address)
    b.ready(workers=1)
    task = jobs("cat")
    answer = b.paint(task)
    assert sha256_file(task.stage / "cat.png") == answer.sha256


@needs_ray
def test_a_wrong_token_is_said(
    ray_harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another token than the cluster's nothing is painted, and the daemon hears that it is the token."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    b = ray_harness()
    b.executor.start()
    b.until(lambda: b.of(DeviceLost))
    assert "token" in b.of(DeviceLost)[0].reason
    assert b.executor.capacity() == 0


class Daemon:
    """A supervisor on a root that takes its rounds as long as a test waits for something."""

    def __init__(self, executor: Executor, config: configuration.Config, ledger: Ledger) -> None:
        self.executor, self.config, self.ledger = executor, config, ledger
        self.supervisor = Supervisor(config, ledger, executor, FakeCheck(), now=Moment.now())
        self.supervisor.recover(Moment.now())

    def until(self, enough: Callable[[], object]) -> None:
        """Work until `enough`."""
        deadline = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < deadline, self.live()
            wait(list(self.executor.waitables()), timeout=0.1)  # type: ignore[arg-type]
            self.supervisor.step(Moment.now(), woken=True)

    def count(self, state: JobState) -> int:
        """How many jobs are in a state."""
        return self.ledger.counts()[state]

    def live(self) -> LiveStatus:
        """What `nst-daemon status` shows."""
        return self.supervisor.live(Moment.now())

    def end(self) -> dict[str, bytes]:
        """Stop; all jobs are done, and these are their pictures by name."""
        self.supervisor.stop(Moment.now())
        assert {job.state for job in self.ledger.history(limit=-1)} == {JobState.DONE}
        results = self.config.folders.results.glob("job??*.png")
        return {path.name: path.read_bytes() for path in results if ".loss." not in path.name}


@contextmanager
def daemon(executor: Executor, config: configuration.Config) -> Iterator[Daemon]:
    """A daemon with its ledger."""
    with Ledger.open(config.folders.ledger) as ledger:
        yield Daemon(executor, config, ledger)


def paint_all(executor: Executor, config: configuration.Config, jobs: int) -> dict[str, bytes]:
    """The pictures of an inbox with so many jobs."""
    with daemon(executor, config) as one:
        one.until(lambda: one.count(JobState.DONE) == jobs)
        return one.end()


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
    for name, seed in seeds.items():
        drop(config, name, seed)
    return config


def drop(config: configuration.Config, name: str, seed: int) -> None:
    """Drop a pair with a seed of its own."""
    inbox = config.folders.inbox
    draw_scene(64, 48).save(inbox / f"{name}.content.png")
    (inbox / f"{name}.yaml").write_text(f"seed: {seed}\n")
    draw_painting(48, 48).save(inbox / f"{name}.style.png")


@needs_ray
@pytest.mark.slow
def test_a_node_and_the_head_die_among_twelve_jobs(
    ray_harness: Callable[..., Harness],
    harness: Callable[..., Harness],
    cluster: SmallCluster,
    tmp_path: Path,
) -> None:
    """With a node and later the head killed each of 12 jobs has one result, the same bytes as from the local executor.

    Without its head the cluster is away in the status, and drops are taken in still.
    """
    seeds = {f"job{i:02}": i for i in range(12)}
    there = a_root(tmp_path / "there", {name: seeds[name] for name in list(seeds)[:-1]})
    with daemon(ray_harness(renderer="tests.fakes:Slow").executor, there) as one:
        one.until(lambda: one.count(JobState.DONE) >= 2)
        cluster.kill_a_node()
        one.until(lambda: one.count(JobState.DONE) >= 3 and one.count(JobState.RUNNING))
        cluster.kill_the_head()
        one.until(lambda: one.live().state == "lost")
        assert cluster.address in one.live().reason
        assert one.count(JobState.RUNNING) == 0
        done = one.count(JobState.DONE)
        drop(there, "job11", 11)
        one.until(lambda: one.count(JobState.QUEUED) == 12 - done)
        cluster.start_again()
        one.until(lambda: one.count(JobState.DONE) == 12)
        assert one.live().state != "lost"
        pictures = one.end()
    assert sorted(pictures) == [f"{name}.png" for name in seeds]
    assert len(set(pictures.values())) == 12
    here = harness(["cpu", "cpu"], renderer="tests.fakes:Slow").executor
    assert paint_all(here, a_root(tmp_path / "here", seeds), 12) == pictures


@needs_ray
def test_a_cluster_that_is_away_is_said_once_and_tried_again(tmp_path: Path, jobs: Jobs) -> None:
    """Without a cluster the daemon hears so, once, with the address; it is tried again after a pause."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        b = on_cluster(address, WorkerOptions(renderer="tests.fakes:Renderer", logs=tmp_path))
        b.executor.start()
        b.until(lambda: b.of(DeviceLost))
        (lost,) = b.of(DeviceLost)
        assert lost.left == 0
        assert address in lost.reason
        assert b.executor.capacity() == 0
        assert [status.state for status in b.executor.status(b.now())] == ["waiting"]
        b.poll(ahead=2.0)
        assert b.pid() > 0
        b.until(lambda: b.executor.status(b.now())[0].state == "waiting", ahead=2.0)
        assert len(b.of(DeviceLost)) == 1


def test_without_the_extra_it_is_refused() -> None:
    """Without Ray the executor is refused, with the command that installs it."""
    with pytest.raises(ConfigError, match=r"pip install 'ray\[client\]>="):
        RayExecutor(configuration.Ray(), installed=lambda: False)
