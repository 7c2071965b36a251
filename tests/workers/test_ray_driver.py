"""What speaks with a cluster, and its actors, with a stand-in for Ray: the actors are real and live in this process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nst_daemon import __version__, files
from nst_daemon.config import Ray
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import Retry
from nst_daemon.workers import messages
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Failed,
    Progress,
    Ready,
    Staged,
    Started,
    Stopped,
    Task,
    WorkerOptions,
)
from nst_daemon.workers.ray import driver
from nst_daemon.workers.ray.actor import Easel
from tests.workers.conftest import ROOT, Jobs

OPTIONS = WorkerOptions(
    painter="tests.fakes:Studio", weights="bundled", threads=1, checkpoint_seconds=0.2
)


class RayError(Exception):
    """As in Ray: the actor or its node is gone."""


class RayTaskError(RayError):
    """As in Ray: a method has raised."""


class OutOfMemoryError(RayError):
    """As in Ray: its monitor has ended the actor, because the node had no memory left."""


class Actor:
    """An `Easel` whose calls go through as long as its node lives."""

    def __init__(self, ray: StandIn, node: str, arguments: tuple[Any, ...]) -> None:
        self.ray, self.node = ray, node
        self.easel = Easel(*arguments)
        self.killed: RayError | None = None

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            self.check()
            answer = await asyncio.to_thread(getattr(self.easel, name), *arguments)
            self.check()  # the network may be gone before the answer is there
            return answer

        return SimpleNamespace(remote=call)

    def check(self) -> None:
        if self.killed:
            raise self.killed
        if not self.ray.living[self.node]:
            raise RayError("its node has died")

    def end(self) -> None:
        """As the end of its process."""
        threading.Thread(target=self.easel.stop, args=(0.0,)).start()


class StandIn:
    """As much of Ray as the driver uses. living: node → whether it lives."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, OutOfMemoryError=OutOfMemoryError
    )
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda node, soft: node
        )
    )

    def __init__(self) -> None:
        self.living = {"node-a": True, "node-b": True}
        self.actors: list[Actor] = []
        self.cpus = 1.0

    def nodes(self) -> list[dict[str, Any]]:
        resources = {"CPU": self.cpus}
        return [
            {"NodeID": n, "Alive": up, "NodeManagerAddress": n, "Resources": resources}
            for n, up in self.living.items()
        ]

    def put(self, data: bytes) -> bytes:
        return data

    def remote(self, kind: type) -> Any:
        assert kind is Easel

        def options(*, scheduling_strategy: str, **asked: Any) -> Any:
            def make(*arguments: Any) -> Actor:
                self.actors.append(Actor(self, scheduling_strategy, arguments))
                return self.actors[-1]

            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def kill(self, actor: Actor) -> None:
        actor.end()


class Daemon:
    """The daemon's end of the wire, and all that it has heard."""

    def __init__(self, ray: StandIn, weights: str = "bundled", **ray_options: Any) -> None:
        self.end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.setblocking(False)
        self.heard: list[messages.Message] = []
        options = Ray(**{"gpus_per_job": 0.0, "cpus_per_job": 1.0} | ray_options)
        join = messages.Join(options, replace(OPTIONS, weights=weights))
        self.left: list[messages.Leaving | None] = []

        def serve() -> None:
            # Made where it runs, as in its own process.
            async def run() -> None:
                self.left.append(await driver.Driver(theirs, join, ray).run())

            asyncio.run(run())

        self.thread = threading.Thread(target=serve)
        self.thread.start()

    def until(self, enough: Callable[[], object]) -> None:
        """Listen until `enough`."""
        deadline = time.monotonic() + 120
        while not enough():
            assert time.monotonic() < deadline, self.heard
            if wait([self.end], timeout=0.2):
                message = messages.receive(self.end)
                assert message is not None
                self.heard.append(message)

    def of(self, kind: type) -> list[Any]:
        """The messages of a kind."""
        return [message for message in self.heard if isinstance(message, kind)]

    def answers(self, job: str) -> list[Any]:
        """How a job ended, each time."""
        ends = Staged | Failed | Stopped | Died
        return [m for m in self.heard if isinstance(m, ends) and m.job_id == f"{job}-id"]

    def give(self, task: Task) -> None:
        """Hand over, and wait until it is being painted and a checkpoint is here, or it has ended."""
        heard = len(self.answers(task.name))
        messages.send(self.end, task)
        self.until(lambda: task.checkpoint.exists() or len(self.answers(task.name)) > heard)

    def stop(self) -> None:
        """Ask for the end, and wait for it."""
        messages.send(self.end, messages.Stop(10.0))
        self.thread.join(30.0)


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Two nodes; what would be fetched through Ray is there already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(driver, "LOOK_AROUND", 0.1)
    model = files.default_cache_dir() / "fake" / "model"
    model.parent.mkdir(parents=True)
    model.write_bytes((ROOT / "tests" / "fakes.py").read_bytes())
    return StandIn()


@pytest.fixture
def daemon(ray: StandIn) -> Iterator[Daemon]:
    """A daemon whose cluster has two workers ready."""
    made = Daemon(ray)
    made.until(lambda: len(made.of(Ready)) == 2)
    yield made
    made.stop()


def test_a_job_goes_on_elsewhere_when_its_node_dies(
    daemon: Daemon, ray: StandIn, jobs: Jobs
) -> None:
    """The death of a node gives its job back without blame; handed over again it goes on from the checkpoint."""
    task = jobs("dog", iterations=200, seconds=0.02)
    daemon.give(task)
    (at,) = {event.worker for event in daemon.of(Started)}
    ray.living[at.partition("/")[0]] = False
    daemon.until(lambda: daemon.answers("dog"))
    assert [type(answer) for answer in daemon.answers("dog")] == [Stopped]
    assert not daemon.answers("dog")[0].cancelled
    assert daemon.of(messages.Places)[-1].slots == 2
    messages.send(daemon.end, task)
    daemon.until(lambda: len(daemon.answers("dog")) == 2)
    staged = daemon.answers("dog")[1]
    assert staged.worker != at
    assert hashlib.sha256((task.stage / "dog.png").read_bytes()).hexdigest() == staged.sha256
    sidecar = json.loads((task.stage / "dog.json").read_bytes())
    assert sidecar["iterations"]["resumed_after"][0] > 0


def test_a_job_under_which_nodes_die_again_and_again_is_blamed(
    daemon: Daemon, ray: StandIn, jobs: Jobs
) -> None:
    """The third node that dies under a job is its fault; before, it is nobody's."""
    task = jobs("dog", iterations=10_000, seconds=0.02)
    for death in (1, 2, 3):
        daemon.give(task)
        daemon.until(lambda n=death: len(daemon.of(Started)) == n)
        node = daemon.of(Started)[-1].worker.partition("/")[0]
        ray.living[node] = False
        daemon.until(lambda n=death: len(daemon.answers("dog")) == n)
        ray.living[node] = True  # it is started again
        ready = len(daemon.of(Ready))
        daemon.until(lambda n=ready: len(daemon.of(Ready)) > n)
    assert [type(answer) for answer in daemon.answers("dog")] == [Stopped, Stopped, Died]


def test_an_actor_that_dies_is_blamed_on_its_job(daemon: Daemon, ray: StandIn, jobs: Jobs) -> None:
    """An actor that ends by itself counts as its job's worker's death; for want of memory it is tried alone."""
    daemon.give(jobs("dog", iterations=10_000, seconds=0.02))
    daemon.give(jobs("cat", iterations=10_000, seconds=0.02))
    actors = {actor.node: actor for actor in ray.actors}
    nodes = {event.job_id: event.worker.partition("/")[0] for event in daemon.of(Started)}
    actors[nodes["dog-id"]].killed = RayError("The actor is dead")
    actors[nodes["cat-id"]].killed = OutOfMemoryError("no memory is left")
    daemon.until(lambda: daemon.answers("dog") and daemon.answers("cat"))
    assert isinstance(daemon.answers("dog")[0], Died)
    assert "The actor is dead" in daemon.answers("dog")[0].reason
    assert daemon.answers("cat")[0].retry is Retry.ALONE
    daemon.until(lambda: len(daemon.of(Ready)) == 4)


def test_cancel_and_stop(ray: StandIn, jobs: Jobs) -> None:
    """A cancelled job ends as such; a stopped one leaves its checkpoint; the actors end and leave no folder."""
    daemon = Daemon(ray)
    daemon.until(lambda: len(daemon.of(Ready)) == 2)
    stopped = jobs("stopped", iterations=10_000, seconds=0.02)
    for task in (stopped, jobs("cancelled", iterations=10_000, seconds=0.02)):
        daemon.give(replace(task, preview=jobs.folder / f"{task.name}.jpg"))
    messages.send(daemon.end, messages.Cancel("cancelled-id"))
    daemon.until(lambda: daemon.answers("cancelled"))
    assert daemon.answers("cancelled")[0].cancelled
    before = stopped.checkpoint.stat().st_ino
    daemon.stop()
    daemon.until(lambda: daemon.answers("stopped"))
    assert not daemon.answers("stopped")[0].cancelled
    assert stopped.checkpoint.stat().st_ino != before
    assert (jobs.folder / "stopped.jpg").stat().st_size > 100
    assert daemon.left == [None]
    assert list((files.default_cache_dir() / "work").iterdir()) == []


def test_a_late_answer_is_dropped(tmp_path: Path) -> None:
    """A result with the number of another handing over neither ends the job nor touches its stage; nor does damage."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stage = tmp_path / "stage"
    task = Task("id", "dog", 2, (), tmp_path, stage, tmp_path / "checkpoint", RenderSettings())
    place = driver._Place(("node", 0), "node#1", None, ready=True)
    place.jobs["id"] = driver._Given(7, task)

    async def take(number: int) -> None:
        one = driver.Driver(theirs, messages.Join(Ray(), WorkerOptions()), StandIn())
        staged = Staged("x", "id", ("dog.png",), sha256="0" * 64)
        await one._take(place, number, staged, {"dog.png": b"picture"})

    with ours, theirs:
        asyncio.run(take(6))
        assert "id" in place.jobs
        asyncio.run(take(7))  # the right number, and bytes that are not what they should be
        answer = messages.receive(ours)
        assert isinstance(answer, Failed)
        assert answer.retry is Retry.LATER
        assert not stage.exists()
        assert "id" not in place.jobs


def test_no_node_with_room(ray: StandIn) -> None:
    """Where no node has what a job needs, the daemon hears once which keys ask for it."""
    daemon = Daemon(ray, gpus_per_job=1.0)
    daemon.until(lambda: daemon.of(DeviceLost))
    daemon.stop()
    (lost,) = daemon.of(DeviceLost)
    assert lost.left == 0
    assert "ray.gpus_per_job" in lost.reason


def test_what_is_damaged_is_fetched_again(ray: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is damaged on a node, lost or damaged on its way there is fetched anew until it is whole."""
    model = files.default_cache_dir() / "fake" / "model"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])  # damaged on the node's disk
    trouble = iter([RayError("the object is lost"), whole + b"!"])

    def get(box: bytes) -> bytes:
        match next(trouble, box):
            case RayError() as error:
                raise error
            case data:
                return data

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=get))
    daemon = Daemon(ray)
    daemon.until(lambda: len(daemon.of(Ready)) == 2)
    daemon.stop()
    reasons = sorted(lost.reason for lost in daemon.of(DeviceLost))
    assert len(reasons) == 2
    assert "model arrived damaged" in reasons[0]
    assert "the object is lost" in reasons[1]
    assert not any(lost.permanent for lost in daemon.of(DeviceLost))
    assert model.read_bytes() == whole


def test_without_weights_nobody_is_asked(ray: StandIn) -> None:
    """Where the daemon's own machine lacks the weights, no actor is made, and a person has to mend it."""
    daemon = Daemon(ray, weights="missing")
    daemon.thread.join(60.0)
    (why,) = daemon.left
    assert why is not None
    assert why.permanent
    assert "the fake weights are not there" in why.message
    assert ray.actors == []


def test_a_job_without_memory_is_tried_alone(daemon: Daemon, jobs: Jobs) -> None:
    """A job that runs out of memory in a node's worker is to be tried alone, and the worker paints the next."""
    messages.send(daemon.end, jobs("greedy", at=2, do="memory"))
    daemon.until(lambda: daemon.answers("greedy"))
    (failed,) = daemon.answers("greedy")
    assert failed.retry is Retry.ALONE
    messages.send(daemon.end, jobs("dog"))
    daemon.until(lambda: daemon.answers("dog"))
    assert isinstance(daemon.answers("dog")[0], Staged)
    assert daemon.of(Died) == []


def test_another_version_on_a_node_is_refused(ray: StandIn) -> None:
    """A node with another version of this program paints nothing, and says which it has."""
    outfit = messages.encode(messages.Outfit("bundled", {}))
    easel = Easel(messages.encode(messages.Hello("n", "cpu", OPTIONS)), "0.0.1", outfit, {})
    parcels = easel.news(60.0)
    assert parcels is not None
    leaving = messages.decode(parcels[0][1])
    assert isinstance(leaving, messages.Leaving)
    assert leaving.permanent
    assert "0.0.1" in leaving.message
    assert __version__ in leaving.message
    assert easel.news(60.0) is None


def test_a_head_that_does_not_answer_is_left(ray: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the head stays silent the driver ends with the reason, and so gives everything back."""
    daemon = Daemon(ray)
    daemon.until(lambda: daemon.of(Ready))

    def silent() -> list[dict[str, Any]]:
        raise ConnectionError("timed out")

    monkeypatch.setattr(ray, "nodes", silent)
    daemon.thread.join(60.0)
    (why,) = daemon.left
    assert why is not None
    assert "timed out" in why.message
    for actor in ray.actors:
        actor.end()


def test_memory_and_progress_travel(daemon: Daemon, jobs: Jobs) -> None:
    """Progress and notes of a node's worker arrive under the name of its place."""
    messages.send(daemon.end, jobs("dog"))
    daemon.until(lambda: daemon.answers("dog"))
    last = daemon.of(Progress)[-1]
    assert (last.done, last.total, last.memory) == (20, 20, 1234)
    assert last.worker in {ready.worker for ready in daemon.of(Ready)}
