"""The process that speaks with a Ray cluster for the daemon: `python -m nst_daemon.workers.ray.driver`.

It is not the daemon itself, because Ray brings 40 MB and its threads into the process that uses it, and ends that
process where the cluster's head stays away. It is the daemon's side of the cluster all the same: it runs on the same
machine, reads inputs from the spool and writes results, checkpoints and previews where the daemon expects them. To the
daemon it speaks JSON (`messages`), as every worker does.

The ledger stays the only truth. Whatever is lost here (an actor, a node, the cluster, this process) goes back into the
daemon's queue, and an answer of an attempt that was given up belongs to no order any more and is dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import math
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, NoReturn
from urllib.parse import urlsplit

from nst_daemon import __version__, files, managed_process
from nst_daemon.errors import DeviceError, OutOfMemory, Retry, StorageError
from nst_daemon.workers import messages
from nst_daemon.workers.executor import worker_state
from nst_daemon.workers.local import SLOTS
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Failed,
    Note,
    Progress,
    Ready,
    Staged,
    Started,
    Stopped,
    Task,
    WorkerStatus,
)
from nst_daemon.workers.ray.actor import Easel, Parcel

log = logging.getLogger(__name__)

#: Seconds between two reports to the daemon, and the longest that one question to an actor takes.
HEARTBEAT = 1.0
#: Seconds between two looks at which nodes there are.
LOOK_AROUND = 2.0
#: Seconds without an answer from the cluster's head before the cluster is away.
AWAY = 30.0
#: Seconds that a port may take to answer at the start.
CONNECT = 10.0
#: So many nodes may die under a job before it is blamed for the next: machines are taken away, jobs take down workers.
BLAMELESS = 2
#: Pauses in seconds before a place that could not paint is tried again: the first, doubled, and the longest.
PAUSE, LONGEST_PAUSE = 1.0, 600.0


@dataclass(slots=True)
class _Given:
    """A task that a place has been given; number: of this handing over."""

    number: int
    task: Task
    handing: asyncio.Task[None] | None = None
    started: bool = False
    cancelled: bool = False


@dataclass(eq=False, slots=True)
class _Place:
    """Room for one painting on one node, and the actor in it. key: the node's id and a number."""

    key: tuple[str, int]
    name: str
    actor: Any
    jobs: dict[str, _Given] = field(default_factory=dict)  # the one that is painted first
    ready: bool = False
    heard: float | None = None
    lost: bool = False

    @property
    def room(self) -> int:
        """How many tasks it takes now."""
        return SLOTS - len(self.jobs) if self.ready else 0

    def status(self, now: float) -> WorkerStatus:
        """What it is doing; `waiting` also while the cluster has no room for its actor."""
        state = worker_state(
            lost=self.lost, begun=self.heard is not None, ready=self.ready, busy=bool(self.jobs)
        )
        silent = None if self.heard is None else now - self.heard
        return WorkerStatus(self.name, state, None, tuple(self.jobs), silent, {})


class Driver:
    """Everything between the daemon's wire and the actors. end: our end of the wire."""

    def __init__(self, end: socket.socket, join: messages.Join, ray: Any) -> None:
        self._end, self._cluster, self._options, self._ray = end, join.cluster, join.options, ray
        self._places: dict[tuple[str, int], _Place] = {}
        self._pauses: dict[tuple[str, int], tuple[float, float]] = {}  # until when, how long
        self._numbers = itertools.count(1)
        self._bereft: Counter[str] = Counter()  # how many nodes have died under a job
        self._alive: set[str] = set()
        self._empty = False
        self._leaving = asyncio.Event()
        self._why: messages.Leaving | None = None
        self._grace: float | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def run(self) -> messages.Leaving | None:
        """Serve until the daemon says stop (None) or the cluster is away (why)."""
        self._outfit = await self._find_outfit()
        if isinstance(self._outfit, messages.Leaving):
            return self._outfit
        self._boxes = {n: self._box(Path(f)) for n, (f, _) in self._outfit.files.items()}
        asyncio.get_running_loop().add_reader(self._end, self._hear)
        helpers = self._spawn(self._keep_reporting()), self._spawn(self._look_around())
        await self._leaving.wait()
        for helper in helpers:
            helper.cancel()
        if self._grace is not None:
            await self._end_all(self._grace)
        return self._why

    # What the daemon says

    def _hear(self) -> None:
        match messages.receive(self._end):
            case Task() as task:
                self._hand(task)
            case messages.Cancel(job_id):
                self._cancel(job_id)
            case messages.Stop(grace):
                self._grace = grace
                self._leaving.set()
            case None:
                os._exit(1)  # the daemon is gone; Ray ends our actors with us

    def _hand(self, task: Task) -> None:
        """Give the task to the place with the most room; back to the daemon where there is none any more."""
        free = [place for place in self._places.values() if place.room]
        if not free:
            self._say(Stopped("ray", task.job_id))
            return
        place = min(free, key=lambda p: len(p.jobs))
        given = place.jobs[task.job_id] = _Given(next(self._numbers), task)
        given.handing = self._spawn(self._give(place, given))

    async def _give(self, place: _Place, given: _Given) -> None:
        """Send a task with its inputs and the checkpoint it may go on from."""
        task = given.task
        try:
            inputs, checkpoint = await asyncio.to_thread(_read_inputs, task)
            packet = messages.encode(task)
            await place.actor.give.remote(given.number, packet, inputs, checkpoint)
        except (OSError, self._ray.exceptions.RayTaskError) as error:
            # Unreadable here, or no room there; where the actor has died, whoever listens to it says so.
            if place.jobs.get(task.job_id) is given:
                del place.jobs[task.job_id]
                message = f"the job could not be sent to {place.name}: {_line(error)}"
                self._say(Failed(place.name, task.job_id, Retry.LATER, message))
        except self._ray.exceptions.RayError as error:
            log.info("%s: %s", place.name, _line(error))

    def _cancel(self, job_id: str) -> None:
        for place in self._places.values():
            if given := place.jobs.get(job_id):
                given.cancelled = True
                self._spawn(self._send_cancel(place, given))

    async def _send_cancel(self, place: _Place, given: _Given) -> None:
        assert given.handing is not None
        await given.handing
        with suppress(self._ray.exceptions.RayError):
            await place.actor.cancel.remote(given.task.job_id)

    # The cluster

    async def _find_outfit(self) -> messages.Outfit | messages.Leaving:
        """The weights and the ONNX file that the nodes need, found by a process that may import torch."""
        command = [sys.executable, "-P", "-m", "nst_daemon.workers.process.provisioning"]
        pipe = asyncio.subprocess.PIPE
        helper = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        said, _ = await helper.communicate(
            messages.encode(messages.Join(self._cluster, self._options))
        )
        if helper.returncode == 0:
            found = messages.decode(said)
            assert isinstance(found, messages.Outfit | messages.Leaving)
            return found
        return messages.Leaving("could not start: the model could not be loaded", permanent=False)

    def _box(self, path: Path) -> list[Any]:
        """A file in the cluster's object store. In a list, because Ray fetches bare references by itself."""
        return [self._ray.put(path.read_bytes())]

    async def _look_around(self) -> None:
        """Have an actor in every place that the cluster has; leave where its head does not answer."""
        while True:
            try:
                nodes = await asyncio.wait_for(asyncio.to_thread(self._ray.nodes), AWAY)
            except Exception as error:  # noqa: BLE001 (whatever Ray raises, there is no answer)
                self._leave(f"the Ray cluster does not answer: {_line(error)}")
                return
            living = {node["NodeID"]: node for node in nodes if node["Alive"]}
            self._alive = set(living)
            wanted = [(i, node) for node in living.values() for i in range(self._room_on(node))]
            for number, node in wanted[: self._cluster.max_in_flight]:
                key = node["NodeID"], number
                if key not in self._places and self._pauses.get(key, (0.0, 0.0))[0] <= _now():
                    self._open(key, node)
            self._say_if_empty(bool(wanted))
            await asyncio.sleep(LOOK_AROUND)

    def _room_on(self, node: Mapping[str, Any]) -> int:
        """How many jobs fit on a node at the same time."""
        c, has = self._cluster, node["Resources"]
        cpus = has.get("CPU", 0.0) / c.cpus_per_job
        gpus = has.get("GPU", 0.0) / c.gpus_per_job if c.gpus_per_job else math.inf
        return int(min(cpus, gpus) + 1e-6)

    def _say_if_empty(self, room: bool) -> None:
        """Say once that no node has what a job needs; `Ready` takes it back."""
        if not room and not self._empty:
            c = self._cluster
            needs = f"{c.gpus_per_job:g} GPUs and {c.cpus_per_job:g} CPUs"
            reason = f"none of the {len(self._alive)} nodes of the Ray cluster has {needs}"
            self._say(DeviceLost("ray", f"{reason} (ray.gpus_per_job, ray.cpus_per_job)", left=0))
        self._empty = not room

    def _open(self, key: tuple[str, int], node: Mapping[str, Any]) -> None:
        """Start an actor in a place; it may have to wait until others leave room there."""
        there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        c, name = self._cluster, f"{node['NodeManagerAddress']}/{key[0][:6]}#{key[1] + 1}"
        device = "cuda:0" if c.gpus_per_job else "cpu"  # Ray shows an actor its own GPU alone
        threads = self._options.threads or max(1, int(c.cpus_per_job))
        options = replace(self._options, threads=threads, cache_dir=None, logs=None)
        assert isinstance(self._outfit, messages.Outfit)
        actor = (
            self._ray.remote(Easel)
            .options(
                num_cpus=c.cpus_per_job,
                num_gpus=c.gpus_per_job,
                max_concurrency=4,  # a question for news waits while others are asked
                scheduling_strategy=there(key[0], soft=False),
            )
            .remote(
                messages.encode(messages.Hello(name, device, options)),
                __version__,
                messages.encode(self._outfit),
                self._boxes,
            )
        )
        place = self._places[key] = _Place(key, name, actor)
        self._spawn(self._attend(place))

    async def _attend(self, place: _Place) -> None:
        """Listen to an actor until it is gone, and give back what it had."""
        starved = False
        try:
            reason = await self._converse(place)
        except TimeoutError:
            reason = f"did not answer for {self._options.stall_seconds:g} s"
        except self._ray.exceptions.RayError as error:
            reason = f"ended with its actor: {_line(error)}"
            # Ray's monitor ends actors where the node has no memory left.
            starved = isinstance(error, self._ray.exceptions.OutOfMemoryError)
        pause = min(LONGEST_PAUSE, 2 * self._pauses.get(place.key, (0.0, PAUSE / 2))[1])
        self._pauses[place.key] = _now() + pause, pause
        del self._places[place.key]
        with suppress(Exception):
            self._ray.kill(place.actor)
        if not self._leaving.is_set():  # else the daemon answers for what is left
            await self._give_back(place, reason, starved=starved)
        place.jobs.clear()

    async def _converse(self, place: _Place) -> str:
        """Take parcels until the actor says that it cannot go on: why."""
        while True:
            # Until the first answer it may be waiting for room: others use the cluster too.
            patience = None if place.heard is None else self._options.stall_seconds + HEARTBEAT
            question = place.actor.news.remote(HEARTBEAT)
            parcels: list[Parcel] | None = await asyncio.wait_for(question, patience)
            place.heard = _now()
            if parcels is None:
                return "was stopped"
            for number, packet, attached in parcels:
                message = messages.decode(packet)
                if isinstance(message, messages.Leaving):
                    place.lost = True
                    self._say(self._lost(place, message.message, permanent=message.permanent))
                    return message.message
                await self._take(place, number, message, attached)

    async def _give_back(self, place: _Place, reason: str, *, starved: bool) -> None:
        """Answer for the jobs of an actor that is gone. Blame falls on the one that was begun last, if on any."""
        if await self._node_died(place.key[0]):
            died = reason = "was on a node that died"
        else:
            died = ""
        self._report()  # before the answers: they bring the jobs back
        last = next((j for j, given in reversed(place.jobs.items()) if given.started), None)
        for job_id, given in place.jobs.items():
            blamed = job_id == last and not given.cancelled
            if blamed and died:
                self._bereft[job_id] += 1
                blamed = self._bereft[job_id] > BLAMELESS
            if blamed and starved:
                lack = OutOfMemory(f"{place.name} {reason}", remedy="choose a smaller size")
                self._say(Failed(place.name, job_id, lack.retry, str(lack)))
            elif blamed and not place.lost:
                self._say(Died(place.name, job_id, reason))
            else:
                self._say(Stopped(place.name, job_id, cancelled=given.cancelled))
        if not place.ready and not place.lost:
            self._say(self._lost(place, reason, permanent=False))
        elif last is None:
            self._say(Died(place.name, None, reason))

    async def _node_died(self, node_id: str) -> bool:
        """Whether the cluster counts the node among the dead now."""
        with suppress(Exception):
            nodes = await asyncio.wait_for(asyncio.to_thread(self._ray.nodes), AWAY)
            self._alive = {node["NodeID"] for node in nodes if node["Alive"]}
        return node_id not in self._alive

    # What the actors say

    async def _take(
        self, place: _Place, number: int, message: messages.Message, attached: Mapping[str, bytes]
    ) -> None:
        """Pass on what an actor says; what belongs to no order of this place any more is dropped."""
        match message:
            case Ready():
                place.ready, place.lost, self._empty = True, False, False
                self._pauses.pop(place.key, None)
                self._report()
                self._say(replace(message, worker=place.name))
            case DeviceLost():
                place.ready, place.lost = False, True
                self._report()
                self._say(self._lost(place, message.reason, permanent=message.permanent))
            case Died(job_id=None):
                place.ready = False
                self._report()
                self._say(replace(message, worker=place.name))
            case messages.Attached() | Started() | Progress() | Note():
                if given := _ordered(place, message.job_id, number):
                    given.started |= isinstance(message, Started)
                    if isinstance(message, messages.Attached):
                        await self._keep(place, given.task, message.kind, attached[message.kind])
                    else:
                        self._say(replace(message, worker=place.name))
            case Staged() | Failed() | Stopped() | Died():
                if isinstance(message, Died):
                    place.ready = False
                    self._report()
                if given := _ordered(place, message.job_id or "", number):
                    answer = replace(message, worker=place.name)
                    if isinstance(answer, Staged):
                        answer = await asyncio.to_thread(_stage, given.task, answer, attached)
                    del place.jobs[given.task.job_id]
                    self._bereft.pop(given.task.job_id, None)
                    self._say(answer)

    async def _keep(self, place: _Place, task: Task, kind: str, data: bytes) -> None:
        """Put a checkpoint or a preview where the daemon expects it; the painting may well finish without."""
        try:
            if kind == "checkpoint":
                await asyncio.to_thread(files.write_atomic, task.checkpoint, data)
            elif task.preview:
                await asyncio.to_thread(_show, task.preview, data)
        except (StorageError, OSError) as error:
            self._say(Note(place.name, task.job_id, f"no {kind} could be written: {error}"))

    def _lost(self, place: _Place, reason: str, *, permanent: bool) -> DeviceLost:
        left = sum(other.ready for other in self._places.values())
        return DeviceLost(place.name, reason, left=left, permanent=permanent)

    # The end, and speaking

    def _leave(self, why: str) -> None:
        self._why = messages.Leaving(why, permanent=False)
        self._leaving.set()

    async def _end_all(self, grace: float) -> None:
        """Let every actor write its checkpoints, and hear it out."""
        ends = [asyncio.create_task(self._end_one(p, grace)) for p in self._places.values()]
        if ends:
            await asyncio.wait(ends, timeout=grace)

    async def _end_one(self, place: _Place, grace: float) -> None:
        with suppress(self._ray.exceptions.RayError):
            await place.actor.stop.remote(grace)
            while place.jobs:  # whoever listens to it takes the last parcels
                await asyncio.sleep(0.02)

    async def _keep_reporting(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(HEARTBEAT)

    def _report(self) -> None:
        """Tell the daemon that we live, and how much the cluster takes: once a second, and when that changes."""
        places, now = self._places.values(), _now()
        slots = sum(SLOTS for place in places if place.ready)
        self._say(messages.Places(slots, tuple(place.status(now) for place in places)))

    def _say(self, message: messages.Message) -> None:
        with suppress(OSError):  # the daemon is gone, which `_hear` sees
            messages.send(self._end, message)

    def _spawn(self, talk: Any) -> asyncio.Task[None]:
        """Run it beside the rest; asyncio itself keeps no hold on tasks."""
        task: asyncio.Task[None] = asyncio.create_task(talk)
        self._talks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._talks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a fault of our own", exc_info=error)
            self._leave(f"failed by a fault of its own: {_line(error)}")


def _ordered(place: _Place, job_id: str, number: int) -> _Given | None:
    """The order that an answer belongs to; None for one that was given up."""
    given = place.jobs.get(job_id)
    return given if given and given.number == number else None


def _read_inputs(task: Task) -> tuple[dict[str, bytes], bytes | None]:
    """What travels with a task: its inputs by their names in the spool, and the checkpoint, if there is one."""
    inputs = {i.spooled: (task.spool / i.spooled).read_bytes() for i in task.inputs}
    try:
        return inputs, task.checkpoint.read_bytes()
    except FileNotFoundError:
        return inputs, None


def _stage(task: Task, staged: Staged, attached: Mapping[str, bytes]) -> Staged | Failed:
    """Write what arrived into the stage folder, durably: the daemon goes on as if it had been painted here."""
    names = staged.files
    whole = set(names) == set(attached) and all(PurePath(n).name == n for n in names)
    if not whole or hashlib.sha256(attached[names[-1]]).hexdigest() != staged.sha256:
        message = "the picture arrived damaged; look into the network"
        return Failed(staged.worker, task.job_id, Retry.LATER, message)
    try:
        files.remove_tree(task.stage)
        files.make_folder(task.stage)
        for name in names:
            files.write_atomic(task.stage / name, attached[name])
    except StorageError as error:
        return Failed(staged.worker, task.job_id, error.retry, str(error))
    return staged


def _show(path: Path, data: bytes) -> None:
    """Replace a preview; atomic, and not durable."""
    temporary = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(data)
    temporary.replace(path)


def _line(error: BaseException) -> str:
    """What an error says in one line: of an actor's traceback the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]


_now: Callable[[], float] = time.monotonic


def connect(address: str) -> Any:
    """Join the cluster; the module `ray`. Raises DeviceError where it is away or does not let us in."""
    # Who can reach a cluster without a token can run what he likes on it. Read when ray is imported.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _knock(address)
    import ray  # noqa: PLC0415 (an extra, and slow)
    import ray.util.scheduling_strategies  # noqa: PLC0415

    try:
        ray.init(
            address=address,
            namespace="nst-daemon",
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except Exception as error:
        log.exception("no connection")
        if any(isinstance(e, ray.exceptions.AuthenticationError) for e in _causes(error)):
            raise DeviceError(
                f"the Ray cluster ({address}) wants another token than this machine has",
                remedy="copy the head's ~/.ray/auth_token here; it is tried again by itself",
            ) from error
        raise DeviceError(
            f"the Ray cluster ({address}) is away: {str(error).strip().partition(chr(10))[0][:300]}",
            remedy="look at its port and at the token (docs/scaling.md); it is tried again by itself",
        ) from error
    return ray


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _knock(address: str) -> None:
    """See at once that nobody is there: Ray itself would try for a minute."""
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection((parts.hostname or "", parts.port or 6379), CONNECT).close()
    except OSError as error:
        raise DeviceError(
            f"the Ray cluster ({address}) is away: {error.strerror or error}",
            remedy="start it (docs/scaling.md); it is tried again by itself",
        ) from error


def main() -> None:
    """Serve the daemon at the other end of the descriptor that the first argument names."""
    end = managed_process.begin()
    join = messages.receive(end)
    if not isinstance(join, messages.Join):
        sys.exit("this is started by nst-daemon itself")
    try:
        ray = connect(join.cluster.address)
    except DeviceError as error:
        _end(end, messages.Leaving(str(error), permanent=False))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the daemon has it too, and says what it means
    asyncio.run(_serve(Driver(end, join, ray), end))


async def _serve(driver: Driver, end: socket.socket) -> NoReturn:
    _end(end, await driver.run())


def _end(end: socket.socket, why: messages.Leaving | None) -> NoReturn:
    """Say why, and end at once: a thread may still wait for a head that is away. Ray ends our actors with us."""
    if why:
        with suppress(OSError):
            messages.send(end, why)
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
