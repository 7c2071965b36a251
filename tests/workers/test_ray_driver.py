"""A cluster under supervision, with a stand-in for Ray: executor, driver, actors and workers are real.

The driver runs in a thread of this process, and so do the actors.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nst_daemon import __version__, files
from nst_daemon.config import Ray
from nst_daemon.errors import Retry
from nst_daemon.workers import messages
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Ended,
    Failed,
    Progress,
    Ready,
    Staged,
    Started,
    Stopped,
    Task,
    WorkerOptions,
)
from nst_daemon.workers.ray.actor import Parcel, PipeActor
from nst_daemon.workers.ray.driver import Driver
from nst_daemon.workers.ray.executor import RayExecutor
from tests.workers.conftest import ROOT, Harness, Jobs

OPTIONS: dict[str, Any] = {
    "renderer": "tests.fakes:Renderer",
    "weights": "bundled",
    "threads": 1,
    "checkpoint_seconds": 0.2,
}


class RayError(Exception):
    """As in Ray: the actor or its node is gone."""


class OutOfMemoryError(RayError):
    """As in Ray: its monitor has ended the actor, because the node had no memory left."""


class Actor:
    """A `PipeActor` whose calls go through as long as its node lives."""

    def __init__(self, ray: StandIn, node: str, arguments: tuple[Any, ...]) -> None:
        self.ray, self.node = ray, node
        self.pipe = PipeActor(*arguments)
        self.killed: RayError | None = None

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            self.check()
            answer = await asyncio.to_thread(getattr(self.pipe, name), *arguments)
            while self.node in self.ray.mute:
                await asyncio.sleep(0.01)
            self.check()  # the network may be gone before the answer is there
            return self.ray.transmit(answer)

        return SimpleNamespace(remote=call)

    def check(self) -> None:
        if self.killed:
            raise self.killed
        if not self.ray.living[self.node]:
            raise RayError("its node has died")

    def end(self) -> None:
        """As the end of its process."""
        self.pipe.take(messages.encode(messages.Stop()), {})


class StandIn:
    """As much of Ray as the driver uses.

    living: node → whether it lives; mute: nodes whose answers do not arrive; transmit: what the network makes of an
    answer.
    """

    exceptions = SimpleNamespace(RayError=RayError, OutOfMemoryError=OutOfMemoryError)
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda node, soft: node
        )
    )

    def __init__(self) -> None:
        self.living = {"node-a": True, "node-b": True}
        self.mute: set[str] = set()
        self.transmit: Callable[[Any], Any] = lambda answer: answer
        self.silent = False
        self.actors: list[Actor] = []

    def nodes(self) -> list[dict[str, Any]]:
        if self.silent:
            raise ConnectionError("timed out")
        return [
            {"NodeID": n, "Alive": up, "NodeManagerAddress": n, "Resources": {"CPU": 1.0}}
            for n, up in self.living.items()
        ]

    def put(self, data: bytes) -> bytes:
        return data

    def remote(self, kind: type) -> Any:
        assert kind is PipeActor

        def options(*, scheduling_strategy: str, **asked: Any) -> Any:
            def make(*arguments: Any) -> Actor:
                self.actors.append(Actor(self, scheduling_strategy, arguments))
                return self.actors[-1]

            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def kill(self, actor: Actor) -> None:
        actor.end()


class ThreadConnection:
    """A driver in a thread of this process (see `ray.executor.Connection`)."""

    pid = None
    running = True

    def __init__(self, join: messages.Join, ray: StandIn) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = messages.Channel(ours)

        def serve() -> None:
            async def run() -> None:
                why = await Driver(theirs, join, ray, report_seconds=0.1).run()
                if why:
                    messages.send(theirs, why)

            asyncio.run(run())

        self._thread = threading.Thread(target=serve)
        self._thread.start()
        self._theirs = theirs  # closed last: a driver whose daemon is gone ends its process

    @property
    def open(self) -> bool:
        return self._channel.open

    def send(self, message: messages.Message | messages.Addressed) -> None:
        self._channel.send(message)

    def received(self) -> Iterator[messages.Message | messages.Addressed]:
        return self._channel.messages()

    messages = received

    def ended(self) -> Ended | None:
        return None if self._thread.is_alive() else Ended("ended with exit status 0")

    def kill(self) -> None:
        self.send(messages.Stop())

    def close(self, patience: float) -> None:
        self.kill()
        self._thread.join(60.0)
        assert not self._thread.is_alive()
        self._channel.close()
        self._theirs.close()

    def waitables(self) -> list[object]:
        return [self._channel]


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Two nodes; what would be fetched through Ray is there already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    model = files.default_cache_dir() / "fake" / "model"
    model.parent.mkdir(parents=True)
    model.write_bytes((ROOT / "tests" / "fakes.py").read_bytes())
    return StandIn()


@pytest.fixture
def cluster(ray: StandIn) -> Iterator[Callable[..., Harness]]:
    """A maker of executors on the stand-in; they are stopped at the end."""
    made: list[Harness] = []

    def make(keys: dict[str, Any] | None = None, **options: Any) -> Harness:
        cluster = Ray(**{"gpus_per_job": 0.0, "cpus_per_job": 1.0} | (keys or {}))
        harness = Harness(
            lambda clock: RayExecutor(
                cluster,
                WorkerOptions(**OPTIONS | options),
                clock=clock,
                connect=lambda join: ThreadConnection(join, ray),
                installed=lambda: True,
            ),
            patience=120.0,
        )
        made.append(harness)
        return harness

    yield make
    for one in made:
        one.executor.stop(20.0)


@pytest.fixture
def two(cluster: Callable[..., Harness]) -> Harness:
    """An executor with two workers ready."""
    made = cluster()
    made.ready(workers=2)
    return made


def give(b: Harness, task: Task) -> str:
    """Hand over, and wait until it is painted and a checkpoint is here; its worker."""
    begun = len(b.of(Started))
    task.checkpoint.unlink(missing_ok=True)
    b.until(b.executor.capacity)
    b.executor.submit(task)
    b.until(lambda: len(b.of(Started)) > begun and task.checkpoint.exists())
    return b.of(Started)[-1].worker


def node_of(worker: str) -> str:
    """The node in a worker's name."""
    return worker.partition("/")[0]


def test_a_job_goes_on_elsewhere_when_its_node_dies(two: Harness, ray: StandIn, jobs: Jobs) -> None:
    """The death of a node gives its job back without blame; handed over again it goes on from the checkpoint."""
    task = jobs("dog", iterations=200, seconds=0.02)
    at = give(two, task)
    ray.living[node_of(at)] = False
    assert two.answer("dog-id") == Stopped(at, "dog-id")
    assert "was on a node that died" in two.of(Died)[-1].reason
    assert two.executor.capacity() == 2
    staged = two.paint(task)
    assert staged.worker != at
    assert hashlib.sha256((task.stage / "dog.png").read_bytes()).hexdigest() == staged.sha256
    sidecar = json.loads((task.stage / "dog.json").read_bytes())
    assert sidecar["iterations"]["resumed_after"][0] > 0
    assert [s.worker for s in two.executor.status(two.now())] == ["ray", staged.worker]


def test_without_nodes_no_device_is_left(two: Harness, ray: StandIn) -> None:
    """Where all nodes die and the head lives, the daemon hears that no device is left."""
    for worker in two.of(Ready):
        ray.living[node_of(worker.worker)] = False
    two.until(lambda: any("nodes of the Ray cluster" in lost.reason for lost in two.of(DeviceLost)))
    assert two.of(DeviceLost)[-1].left == 0


def test_a_job_under_which_nodes_die_again_and_again_is_blamed(
    two: Harness, ray: StandIn, jobs: Jobs
) -> None:
    """The third node that dies under a job is blamed on the job; the first two are not."""
    task = jobs("dog", iterations=10_000, seconds=0.02)
    answers = []
    for _ in range(3):
        node = node_of(give(two, task))
        ray.living[node] = False
        answers.append(type(two.answer("dog-id")))
        ready = len(two.of(Ready))
        ray.living[node] = True  # it is started again
        two.until(lambda n=ready: len(two.of(Ready)) > n)  # type: ignore[misc]
    assert answers == [Stopped, Stopped, Died]


def test_an_actor_that_dies_is_blamed_on_its_job(two: Harness, ray: StandIn, jobs: Jobs) -> None:
    """An actor that ends by itself counts as its job's worker's death; where memory ran out the job is tried alone."""
    nodes = {
        name: node_of(give(two, jobs(name, iterations=10_000, seconds=0.02)))
        for name in ("dog", "cat")
    }
    actors = {actor.node: actor for actor in ray.actors}
    actors[nodes["dog"]].killed = RayError("The actor is dead")
    actors[nodes["cat"]].killed = OutOfMemoryError("no memory is left")
    died, failed = two.answer("dog-id"), two.answer("cat-id")
    assert isinstance(died, Died)
    assert "The actor is dead" in died.reason
    assert failed.retry is Retry.ALONE
    two.until(lambda: len(two.of(Ready)) == 4)


def test_an_actor_that_does_not_answer_is_replaced(
    cluster: Callable[..., Harness], ray: StandIn, jobs: Jobs
) -> None:
    """What an actor says after it was given up is not heard: its job has one answer from each attempt."""
    b = cluster(stall_seconds=50)
    b.ready(workers=2)
    task = jobs("dog", iterations=100, seconds=0.02)
    node = node_of(give(b, task))
    ray.mute.add(node)
    died = b.answer("dog-id", ahead=55)  # less than the driver may be silent
    assert isinstance(died, Died)
    assert "made no progress for" in died.reason
    ray.mute.clear()
    assert isinstance(b.paint(task), Staged)
    b.until(lambda: len(b.of(Ready)) >= 3)
    assert len(b.answers("dog-id")) == 2


def test_cancel_and_stop(two: Harness, jobs: Jobs) -> None:
    """A cancelled job ends as such; a stopped one leaves its checkpoint; the actors end and leave no folder."""
    stopped = jobs.with_preview("stopped", iterations=10_000, seconds=0.02)
    cancelled = jobs.with_preview("cancelled", iterations=10_000, seconds=0.02)
    for task in (stopped, cancelled):
        give(two, task)
    two.executor.cancel("cancelled-id")
    assert two.answer("cancelled-id").cancelled
    before = stopped.checkpoint.stat().st_ino
    two.events += two.executor.stop(20.0)
    assert not two.answer("stopped-id").cancelled
    assert stopped.checkpoint.stat().st_ino != before
    assert stopped.preview is not None
    assert stopped.preview.stat().st_size > 100
    assert list((files.default_cache_dir() / "work").iterdir()) == []


def test_a_damaged_result_is_tried_again(two: Harness, ray: StandIn, jobs: Jobs) -> None:
    """A result that the network has damaged fails the attempt, is tried again, and leaves nothing in the stage."""

    def damaged(answer: list[Parcel] | None) -> list[Parcel] | None:
        return answer and [(p, {name: data + b"!" for name, data in f.items()}) for p, f in answer]

    ray.transmit = damaged
    task = jobs("dog")
    failed = two.paint(task)
    assert failed.retry is Retry.LATER
    assert "arrived damaged" in failed.message
    assert list(task.stage.iterdir()) == []
    ray.transmit = lambda answer: answer
    assert isinstance(two.paint(task), Staged)


def test_a_missing_input_fails_its_job_alone(two: Harness, jobs: Jobs) -> None:
    """A job whose input cannot be read is to be tried again later, and the same worker paints the next."""
    task = jobs("dog")
    (task.spool / "content").unlink()
    failed = two.paint(task)
    assert failed.retry is Retry.LATER
    assert "could not be sent" in failed.message
    assert isinstance(two.paint(jobs("cat")), Staged)
    assert two.of(Died) == []


def test_no_node_with_room(cluster: Callable[..., Harness]) -> None:
    """Where no node has what a job needs, the daemon hears once which keys ask for it."""
    b = cluster({"gpus_per_job": 1.0})
    b.executor.start()
    b.until(lambda: b.of(DeviceLost))
    reported = time.monotonic() + 0.5
    b.until(lambda: time.monotonic() > reported)
    (lost,) = b.of(DeviceLost)
    assert lost.left == 0
    assert "ray.gpus_per_job" in lost.reason


def test_what_is_damaged_is_fetched_again(
    cluster: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is damaged on a node, lost or damaged on its way there is fetched again until it is whole."""
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
    b = cluster()
    b.ready(workers=2)
    reasons = sorted(died.reason for died in b.of(Died))
    assert len(reasons) == 2
    assert "model arrived damaged" in reasons[0]
    assert "the object is lost" in reasons[1]
    assert b.of(DeviceLost) == []
    assert model.read_bytes() == whole


def test_without_weights_no_actor_is_made(cluster: Callable[..., Harness], ray: StandIn) -> None:
    """Where the daemon's own machine lacks the weights, no actor is made, and a person has to act."""
    b = cluster(weights="missing")
    b.executor.start()
    b.until(lambda: b.of(DeviceLost))
    (lost,) = b.of(DeviceLost)
    assert lost.permanent
    assert "the fake weights are not there" in lost.reason
    assert ray.actors == []
    assert [s.state for s in b.executor.status(b.now())] == ["waiting"]


def test_a_job_without_memory_is_tried_alone(two: Harness, jobs: Jobs) -> None:
    """A job that runs out of memory in a node's worker is to be tried alone, and the worker paints the next."""
    failed = two.paint(jobs("greedy", at=2, do="memory"))
    assert isinstance(failed, Failed)
    assert failed.retry is Retry.ALONE
    assert isinstance(two.paint(jobs("dog")), Staged)
    assert two.of(Died) == []


def test_a_crash_in_a_node_s_worker_costs_that_worker(two: Harness, jobs: Jobs) -> None:
    """A worker that crashes on a node is said to have died of its job, with its last output, and is replaced."""
    died = two.paint(jobs("bad", do="segv", at=3))
    assert isinstance(died, Died)
    assert died.reason.startswith("was killed by signal 11 (SIGSEGV)")
    assert "Segmentation fault" in died.detail
    two.until(lambda: len(two.of(Ready)) == 3)
    assert isinstance(two.paint(jobs("good")), Staged)


def test_another_version_on_a_node_is_refused(ray: StandIn) -> None:
    """A node with another version of this program paints nothing, and says which version it has."""
    needed = messages.encode(messages.Provisioning("bundled", {}))
    hello = messages.encode(messages.Hello("n", "cpu", WorkerOptions(**OPTIONS)))
    actor = PipeActor(hello, "0.0.1", needed, {})
    said: list[Any] = []
    while (parcels := actor.news(60.0)) is not None:
        said += [messages.decode(packet) for packet, _ in parcels]
    leaving, ended = said
    assert leaving.permanent
    assert "0.0.1" in leaving.message
    assert __version__ in leaving.message
    assert isinstance(ended, Ended)


def test_a_head_that_does_not_answer_is_left(two: Harness, ray: StandIn, jobs: Jobs) -> None:
    """Where the head stays silent all jobs go back without blame, and the reason is said."""
    at = give(two, jobs("dog", iterations=10_000, seconds=0.02))
    ray.silent = True
    assert two.answer("dog-id") == Stopped(at, "dog-id")
    (lost,) = two.of(DeviceLost)
    assert "timed out" in lost.reason
    assert lost.left == 0
    assert two.executor.capacity() == 0
    ray.silent = False
    two.until(lambda: len(two.of(Ready)) == 4, ahead=11.0)
    for actor in ray.actors:
        actor.end()


def test_memory_and_progress_travel(two: Harness, jobs: Jobs) -> None:
    """Progress and notes of a node's worker arrive under the name of its place."""
    assert isinstance(two.paint(jobs("dog")), Staged)
    last = two.of(Progress)[-1]
    assert (last.done, last.total, last.memory) == (20, 20, 1234)
    assert last.worker in {ready.worker for ready in two.of(Ready)}
