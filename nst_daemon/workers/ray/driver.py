"""The process that speaks with a Ray cluster for the daemon: `python -m nst_daemon.workers.ray.driver`.

It is a process of its own, because Ray adds 40 MB and its threads to the process that uses it, and ends that process
when the cluster's head stays away. It runs on the daemon's machine: it reads inputs from the spool and writes results,
checkpoints and previews where the daemon expects them. Everything else passes through: the daemon supervises each
worker of the cluster as it supervises a local one (`supervised`), and the driver carries the packets between the two,
each with the number of the worker's life as its address.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NoReturn
from urllib.parse import urlsplit

from nst_daemon import __version__, files, managed_process
from nst_daemon.errors import DeviceError, Retry, StorageError
from nst_daemon.workers import messages
from nst_daemon.workers.messages import (
    Addressed,
    Alive,
    Answer,
    Cause,
    Ended,
    Failed,
    Hello,
    Join,
    Kill,
    Leaving,
    Loading,
    Message,
    Note,
    Places,
    Provisioning,
    Spawn,
    Staged,
    Stop,
    Task,
)
from nst_daemon.workers.ray.actor import PipeActor

log = logging.getLogger(__name__)

#: The longest that one question to an actor takes, in seconds.
QUESTION_SECONDS = 1.0
#: Seconds without an answer from the cluster's head before the cluster is away.
HEAD_SECONDS = 30.0
#: Seconds that a port may take to answer at the start.
CONNECT_SECONDS = 10.0


@dataclass(eq=False, slots=True)
class _Life:
    """One life of a worker: its actor, what waits to be sent to it, and the tasks that it has."""

    number: int
    worker: str
    node: str
    actor: Any
    queue: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    tasks: dict[str, Task] = field(default_factory=dict)
    talks: list[asyncio.Task[None]] = field(default_factory=list)


class Driver:
    """Carries packets and files between the daemon and the actors.

    Args:
        end: The driver's end of the daemon's socket.
        ray: The connected module.
        report_seconds: The time between two reports of the cluster's places.
    """

    def __init__(
        self, end: socket.socket, join: Join, ray: Any, *, report_seconds: float = 1.0
    ) -> None:
        self._end, self._cluster, self._options, self._ray = end, join.cluster, join.options, ray
        self._report_seconds = report_seconds
        self._lives: dict[int, _Life] = {}
        self._places: dict[str, str] = {}  # name → node
        self._leaving = asyncio.Event()
        self._why: Leaving | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def run(self) -> Leaving | None:
        """Serve until the daemon says stop (None) or the cluster is away (why)."""
        needed = await self._find_provisioning()
        if isinstance(needed, Leaving):
            return needed
        self._needed = needed
        self._boxes = {name: self._box(Path(file)) for name, (file, _) in needed.files.items()}
        asyncio.get_running_loop().add_reader(self._end, self._receive)
        self._spawn(self._keep_reporting())
        await self._leaving.wait()
        asyncio.get_running_loop().remove_reader(self._end)  # no life begins any more
        for talk in self._talks:
            talk.cancel()
        return self._why

    # Messages of the daemon

    def _receive(self) -> None:
        match messages.receive(self._end):
            case Addressed(number, Spawn(place, hello)):
                self._open(number, place, hello)
            case Addressed(number, Kill()):
                if life := self._lives.get(number):
                    self._close(life, Ended("was killed", cause=self._cause(life)))
            case Addressed(number, message):
                if life := self._lives.get(number):
                    life.queue.put_nowait(message)
            case Stop():
                self._leaving.set()
            case None:
                os._exit(1)  # the daemon is gone; Ray ends our actors with us

    # The cluster

    async def _find_provisioning(self) -> Provisioning | Leaving:
        """The weights and the ONNX file that the nodes need, found by a process that may import torch."""
        command = managed_process.own_module("nst_daemon.workers.process.provisioning")
        pipe = asyncio.subprocess.PIPE
        helper = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, limit=2 * messages.PACKET
        )
        assert helper.stdin is not None and helper.stdout is not None
        helper.stdin.write(messages.encode(Join(self._cluster, self._options)))
        helper.stdin.close()
        async for line in helper.stdout:
            found = messages.decode(line)
            if isinstance(found, Provisioning | Leaving):
                await helper.wait()
                return found
            assert isinstance(found, Loading)
            self._say(found)  # it advances
        return Leaving("could not start: the model could not be loaded", permanent=False)

    def _box(self, path: Path) -> list[Any]:
        """A file in the cluster's object store. In a list, because Ray fetches bare references automatically."""
        return [self._ray.put(path.read_bytes())]

    async def _keep_reporting(self) -> None:
        """Tell the daemon where workers can be started; leave where the head does not answer."""
        while True:
            try:
                await self._report()
            except Exception as error:  # noqa: BLE001 (whatever Ray raises, there is no answer)
                self._leave(f"the Ray cluster does not answer: {_line(error)}")
                return
            await asyncio.sleep(self._report_seconds)

    async def _report(self) -> None:
        """Find the places of the cluster, and report them."""
        nodes = await asyncio.wait_for(asyncio.to_thread(self._ray.nodes), HEAD_SECONDS)
        living = [node for node in nodes if node["Alive"]]
        places = {
            f"{node['NodeManagerAddress']}/{node['NodeID'][:6]}#{i + 1}": node["NodeID"]
            for node in living
            for i in range(self._room_on(node))
        }
        self._places = dict(list(places.items())[: self._cluster.max_in_flight])
        c, why_none = self._cluster, ""
        if not places:
            needs = f"{c.gpus_per_job:g} GPUs and {c.cpus_per_job:g} CPUs"
            why_none = (
                f"none of the {len(living)} nodes of the Ray cluster has {needs} "
                "(ray.gpus_per_job, ray.cpus_per_job)"
            )
        self._say(Places(tuple(self._places), why_none))

    def _room_on(self, node: Mapping[str, Any]) -> int:
        """How many jobs fit on a node at the same time."""
        c, has = self._cluster, node["Resources"]
        cpus = has.get("CPU", 0.0) / c.cpus_per_job
        gpus = has.get("GPU", 0.0) / c.gpus_per_job if c.gpus_per_job else math.inf
        return int(min(cpus, gpus) + 1e-6)

    # The lives of workers

    def _open(self, number: int, place: str, hello: Hello) -> None:
        """Start a life in a place, or say that it has ended."""
        try:
            self._start_actor(number, place, hello)
        except KeyError:
            self._say(
                Addressed(
                    number, Ended("is on a node that has left the cluster", cause=Cause.MACHINE)
                )
            )
        except Exception as error:  # noqa: BLE001 (Ray raises many kinds)
            reason = f"could not be started: {_line(error)}"
            self._say(Addressed(number, Ended(reason, cause=Cause.MACHINE)))

    def _start_actor(self, number: int, place: str, hello: Hello) -> None:
        """Start an actor; it may have to wait until others leave room there. Raises KeyError for a lost place."""
        node, c = self._places[place], self._cluster
        on_node = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        actor = (
            self._ray.remote(PipeActor)
            .options(
                num_cpus=c.cpus_per_job,
                num_gpus=c.gpus_per_job,
                max_concurrency=4,  # a question for news waits while packets are taken
                scheduling_strategy=on_node(node, soft=False),
            )
            .remote(messages.encode(hello), __version__, messages.encode(self._needed), self._boxes)
        )
        life = self._lives[number] = _Life(number, hello.worker, node, actor)
        life.talks = [self._spawn(self._feed(life)), self._spawn(self._listen(life))]

    def _close(self, life: _Life, ended: Ended) -> None:
        """End an actor and its life; its later messages are ignored."""
        del self._lives[life.number]
        for talk in life.talks:
            if talk is not asyncio.current_task():
                talk.cancel()
        with suppress(Exception):
            self._ray.kill(life.actor)
        self._say(Addressed(life.number, ended))

    async def _feed(self, life: _Life) -> None:
        """Send the daemon's messages to an actor, in order, with the files of a task."""
        while True:
            message = await life.queue.get()
            try:
                attached = {}
                if isinstance(message, Task):
                    life.tasks[message.job_id] = message
                    attached = await asyncio.to_thread(_read_inputs, message)
                await life.actor.take.remote(messages.encode(message), attached)
            except OSError as error:
                assert isinstance(message, Task)
                del life.tasks[message.job_id]
                said = f"the job could not be sent to {life.worker}: {_line(error)}"
                failed = Failed(life.worker, message.job_id, Retry.LATER, said)
                self._say(Addressed(life.number, failed))
            except self._ray.exceptions.RayError as error:
                log.info("%s: %s", life.worker, _line(error))  # `_listen` says how it ended

    async def _listen(self, life: _Life) -> None:
        """Pass on an actor's messages until its life is over."""
        ended = None
        try:
            while ended is None:
                parcels = await life.actor.news.remote(QUESTION_SECONDS)
                if parcels is None:
                    ended = Ended("ended with its actor")
                elif not parcels:
                    self._say(Addressed(life.number, Alive()))
                for packet, attached in parcels or ():
                    message = messages.decode(packet)
                    assert not isinstance(message, Addressed)
                    await self._keep_files(life, attached)
                    if isinstance(message, Ended):
                        ended = message
                    else:
                        message = await self._checked(life, message, attached)
                        self._say(Addressed(life.number, message))
        except self._ray.exceptions.RayError as error:
            ended = await self._why_ended(life, error)
        self._close(life, ended)

    async def _why_ended(self, life: _Life, error: Exception) -> Ended:
        """How an actor ended that no longer answers."""
        with suppress(
            Exception
        ):  # before the end: it brings the jobs back, and they must not go there again
            await self._report()
        cause = self._cause(life)
        # Ray's monitor ends actors where the node has no memory left.
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            cause = Cause.MEMORY
        if cause is Cause.MACHINE:
            return Ended("was on a node that died", cause=cause)
        return Ended(f"ended with its actor: {_line(error)}", cause=cause)

    def _cause(self, life: _Life) -> Cause:
        """Whether the cluster has lost the node, as far as the last report knows."""
        return Cause.PROCESS if life.node in self._places.values() else Cause.MACHINE

    # Files that come back

    async def _keep_files(self, life: _Life, attached: Mapping[str, bytes]) -> None:
        """Put checkpoints and previews where the daemon expects them; a picture is finished without them, too."""
        for name, data in attached.items():
            job_id, _, kind = name.partition("/")
            task = life.tasks.get(job_id)
            try:
                if task and kind == "checkpoint":
                    await asyncio.to_thread(files.write_atomic, task.checkpoint, data)
                elif task and task.preview and kind == "preview":
                    await asyncio.to_thread(_write_preview, task.preview, data)
            except (StorageError, OSError) as error:
                note = Note(life.worker, job_id, f"no {kind} could be written: {error}")
                self._say(Addressed(life.number, note))

    async def _checked(
        self, life: _Life, message: Message, attached: Mapping[str, bytes]
    ) -> Message:
        """The message, once the files of a result are durable; Failed if they are not."""
        if isinstance(message, Answer):
            task = life.tasks.pop(message.job_id, None)
            if task and isinstance(message, Staged):
                prefix = f"{message.job_id}/stage/"
                stage = {
                    name.removeprefix(prefix): data
                    for name, data in attached.items()
                    if name.startswith(prefix)
                }
                return await asyncio.to_thread(_stage, task, message, stage)
        return message

    # The end, and messages to the daemon

    def _leave(self, why: str) -> None:
        self._why = Leaving(why, permanent=False)
        self._leaving.set()

    def _say(self, message: Message | Addressed) -> None:
        with suppress(OSError):  # the daemon is gone, which `_receive` sees
            messages.send(self._end, message)

    def _spawn(self, talk: Any) -> asyncio.Task[None]:
        """Run it as a task; asyncio itself keeps only weak references to tasks."""
        task: asyncio.Task[None] = asyncio.create_task(talk)
        self._talks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._talks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("an internal error", exc_info=error)
            self._leave(f"failed with an internal error: {_line(error)}")


def _read_inputs(task: Task) -> dict[str, bytes]:
    """What travels with a task: its inputs by their names in the spool, and the checkpoint, if there is one."""
    attached = {f"spool/{i.spooled}": (task.spool / i.spooled).read_bytes() for i in task.inputs}
    with suppress(FileNotFoundError):
        attached["checkpoint"] = task.checkpoint.read_bytes()
    return attached


def _stage(task: Task, staged: Staged, attached: Mapping[str, bytes]) -> Staged | Failed:
    """Write a result into the daemon's stage, durably, as if it had been painted on this machine."""
    names = staged.files
    whole = set(names) == set(attached) and all(PurePath(n).name == n for n in names)
    if not whole or hashlib.sha256(attached[names[-1]]).hexdigest() != staged.sha256:
        message = "the picture arrived damaged; check the network"
        return Failed(staged.worker, task.job_id, Retry.LATER, message)
    try:
        files.remove_tree(task.stage)
        files.make_folder(task.stage)
        for name in names:
            files.write_atomic(task.stage / name, attached[name])
    except StorageError as error:
        return Failed(staged.worker, task.job_id, error.retry, str(error))
    return staged


def _write_preview(path: Path, data: bytes) -> None:
    """Replace a preview; atomic, and not durable."""
    temporary = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(data)
    temporary.replace(path)


def _line(error: BaseException) -> str:
    """What an error says in one line: of an actor's traceback the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]


def connect(address: str) -> Any:
    """Join the cluster; the module `ray`.

    Raises:
        DeviceError: The cluster does not answer, or refuses the token.
    """
    # Anyone who can reach a cluster without a token can run any command on it. Read when ray is imported.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _check_port(address)
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
                f"the Ray cluster ({address}) needs another token than this machine has",
                remedy="copy the head's ~/.ray/auth_token here; the daemon tries again automatically",
            ) from error
        raise DeviceError(
            f"the Ray cluster ({address}) cannot be reached: {str(error).strip().partition(chr(10))[0][:300]}",
            remedy="check its port and the token (docs/scaling.md); the daemon tries again automatically",
        ) from error
    return ray


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _check_port(address: str) -> None:
    """Find out at once that nothing listens: Ray itself would try for a minute."""
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        where = parts.hostname or "", parts.port or 6379
        socket.create_connection(where, CONNECT_SECONDS).close()
    except OSError as error:
        raise DeviceError(
            f"the Ray cluster ({address}) cannot be reached: {error.strerror or error}",
            remedy="start it (docs/scaling.md); the daemon tries again automatically",
        ) from error


def main() -> None:
    """Serve the daemon at the other end of the descriptor that the first argument names."""
    end = managed_process.begin()
    join = messages.receive(end)
    if not isinstance(join, Join):
        sys.exit("only nst-daemon itself starts this")
    try:
        ray = connect(join.cluster.address)
    except DeviceError as error:
        _end(end, Leaving(str(error), permanent=False))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the daemon has it too, and says what it means
    asyncio.run(_serve(Driver(end, join, ray), end))


async def _serve(driver: Driver, end: socket.socket) -> NoReturn:
    _end(end, await driver.run())


def _end(end: socket.socket, why: Leaving | None) -> NoReturn:
    """Say why, and end at once: a thread may still wait for a head that is away. Ray ends our actors with us."""
    if why:
        with suppress(OSError):
            messages.send(end, why)
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
