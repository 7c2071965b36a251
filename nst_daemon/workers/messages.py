"""Tasks, events and what else the daemon and its workers send each other, and the one codec: a JSON object per packet.

Every message is a small frozen dataclass. JSON and not pickle, because a worker decodes untrusted pictures: the daemon
executes nothing that a worker sends. A `SOCK_SEQPACKET` pair keeps each message whole, so a worker that is stopped in
the middle of a message never makes the daemon wait for the rest, and each process sees at once that the other has
ended.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any

from pydantic import TypeAdapter

from nst_daemon.config import Cache, Limits, Model, Outputs, Ray, Service
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import Retry
from nst_daemon.jobs import JobInput
from nst_daemon.names import portable

#: Bytes of the largest packet. Tracebacks are cut to `TEXT_LIMIT`, settings come from files with a size limit.
PACKET = 1 << 17
#: Bytes of the largest message: a packet may add an address.
MESSAGE_LIMIT = PACKET - 64
#: Characters of a traceback or of what a worker printed that are handed on.
TEXT_LIMIT = 8000


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at one job.

    Args:
        spool: The job's folder, which holds every input under `JobInput.spooled`.
        stage: An empty folder on the same file system as the spool; the worker writes the result's files into it.
        checkpoint: The file that the worker may write, and resume from.
        settings: Resolved settings; the worker takes them as they are.
        preview: The JPEG that shows the picture as it is now, replaced every few seconds; None for none.
        batch: Which cell of a batch this is: its name, style and swept keys; the sidecar records it.
        alone: Its worker died or ran out of memory before: no other job is prepared meanwhile.
    """

    job_id: str
    name: str
    attempt: int
    inputs: tuple[JobInput, ...]
    spool: Path
    stage: Path
    checkpoint: Path
    settings: RenderSettings
    outputs: Outputs = field(default_factory=Outputs)
    limits: Limits = field(default_factory=Limits)
    preview: Path | None = None
    batch: Mapping[str, object] | None = None
    alone: bool = False

    @property
    def picture(self) -> Path:
        """The file of the finished picture in the stage folder."""
        return self.stage / f"{portable(PurePath(self.name).name)}.{self.outputs.format}"


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What every worker of an executor is started with.

    Args:
        network: As in the configuration.
        weights: As in the configuration: `auto`, `imagenet`, `bundled` or a file.
        settings: The settings that most jobs will have; a worker loads what they need before it is ready.
        cache_dir: Where ONNX files and style statistics are kept; None for the user's cache folder.
        cache_bytes: How much room style statistics may take.
        logs: A folder for what the workers print, one file each, truncated at each start; None for the daemon's stderr.
        threads: CPU threads per worker; 0 for `machine.threads_per_worker`.
        checkpoint_seconds: How much painting may be lost.
        stall_seconds: How long a worker may go without progress, also while it loads.
        await_device: Whether a device that is missing may still appear, because its driver loads late.
        max_memory: Bytes that a worker on the CPU may use; 0 for what the machine (or its control group) has. A larger
            allocation is then an error that the worker survives, and the kernel does not kill it.
        renderer: `module:factory` of the renderer (see `workers.process.protocols`).
    """

    network: str = Model.network
    weights: str = Model.weights
    settings: RenderSettings = field(default_factory=RenderSettings)
    cache_dir: Path | None = None
    cache_bytes: int = Cache.max_bytes
    logs: Path | None = None
    threads: int = 0
    checkpoint_seconds: float = Service.checkpoint_seconds
    stall_seconds: float = Service.stall_seconds
    await_device: bool = True
    max_memory: int = Limits.max_memory
    renderer: str = "nst_daemon.workers.process.renderer:Renderer"


@dataclass(frozen=True, slots=True)
class Loading:
    """A process advances in a step before it is ready.

    Args:
        step: What it does, for people, such as "loading the weights".
        seconds: How long so far, where the supervisor passes the message on because that is long.
    """

    worker: str
    step: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has loaded its model. info: device, precision, weights, versions."""

    worker: str
    info: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has started to prepare or to paint the job."""

    worker: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The painting advances.

    Args:
        done: Iterations so far, of `total`.
        loss: The latest total loss.
        memory: Bytes of the device's own memory that the worker holds; 0 for the CPU.
    """

    worker: str
    job_id: str
    done: int
    total: int
    loss: float
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Staged:
    """The picture is durable in the stage folder.

    Args:
        files: Names in that folder, the picture last.
        sha256: Of the picture.
    """

    worker: str
    job_id: str
    files: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt ended without a picture. message: one line for people; detail: a traceback."""

    worker: str
    job_id: str
    retry: Retry
    message: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The attempt was interrupted on request; the checkpoint holds what was painted so far."""

    worker: str
    job_id: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Died:
    """A worker ended without a request. `Stopped` answers the jobs that are not blamed.

    Args:
        job_id: The job that is blamed, if any.
        reason: For people, such as "was killed by signal 9 (SIGKILL)" or "made no progress for 120 s".
        detail: The end of its output, such as the Python stack of a crash.
        disk: It could not load because of the disk. It starts again automatically.
    """

    worker: str
    job_id: str | None
    reason: str
    detail: str = ""
    disk: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Information about the job for people, in one line; the sidecar contains it too."""

    worker: str
    job_id: str
    message: str


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """A device failed repeatedly and gets no more jobs. After a pause it is started again; `Ready` follows if it works.

    Args:
        left: How many devices still work; 0 means that nothing can be painted.
        permanent: Another start fails in the same way until a person acts, for example because weights are missing.
    """

    worker: str
    reason: str
    left: int
    permanent: bool = False


#: What a worker reports about a job while it lasts. The supervisor takes it as a sign of progress and passes it on.
JobNews = Started | Progress | Note
#: What a worker says when a job has ended.
Answer = Staged | Failed | Stopped
#: What an executor tells the daemon.
Event = Loading | Ready | JobNews | Answer | Died | DeviceLost


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message to a worker. device: `auto` and `cuda` let the worker find the devices."""

    worker: str
    device: str
    options: WorkerOptions


@dataclass(frozen=True, slots=True)
class Cancel:
    """To a worker: end this job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """To a worker: checkpoint what is being painted, then end."""


@dataclass(frozen=True, slots=True)
class Alive:
    """From a worker, about once a second: the process runs. It says nothing about progress."""


@dataclass(frozen=True, slots=True)
class Devices:
    """From a worker that was started with `auto` or `cuda`: the devices of this machine; it takes the first."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaving:
    """From a worker that ends on its own: it cannot load, or its device has failed.

    Args:
        permanent: Another start fails in the same way.
        disk: The disk is the reason; the device is not.
    """

    message: str
    permanent: bool
    detail: str = ""
    disk: bool = False


class Cause(StrEnum):
    """What a worker's life ended with, as far as its transport can tell."""

    PROCESS = "process"  # the process itself: the job that it painted may be the reason
    MEMORY = "memory"  # its machine ended it because memory ran out
    MACHINE = "machine"  # its machine failed


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker's life has ended.

    reason: a text for people; detail: the last lines that it printed; crashed: whether native code has crashed.
    """

    reason: str
    detail: str = ""
    cause: Cause = Cause.PROCESS
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """The first message to the driver of a cluster: which one to join, and how its workers are started."""

    cluster: Ray
    options: WorkerOptions


@dataclass(frozen=True, slots=True)
class Places:
    """From the driver, once a second: where a worker can be started. why_none: for people, where there is none."""

    names: tuple[str, ...]
    why_none: str = ""


@dataclass(frozen=True, slots=True)
class Spawn:
    """To the driver: start a worker in this place; the message's address is the number of its life from now on."""

    place: str
    hello: Hello


@dataclass(frozen=True, slots=True)
class Kill:
    """To the driver: end the addressed life at once."""


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What a worker on another machine needs to paint the same pictures as a worker on this machine.

    Args:
        weights: `WorkerOptions.weights` there. A key of `files` means that file.
        files: Name in that machine's cache folder → the file on this machine and its SHA-256.
    """

    weights: str
    files: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Check:
    """To the process that checks pictures: decode the inputs of a job. spool: the job's folder."""

    job_id: str
    spool: Path
    inputs: tuple[JobInput, ...]
    limits: Limits


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer to `Check`.

    Args:
        reason: Why a picture cannot be decoded, in one line; "" if none is known.
        incomplete: The reason may disappear when the rest of the file arrives.
        undecided: Why the pictures were not checked to the end; the worker decides.
    """

    job_id: str
    reason: str = ""
    incomplete: bool = False
    undecided: str = ""


Message = (
    Hello
    | Task
    | Cancel
    | Stop
    | Alive
    | Devices
    | Leaving
    | Loading
    | Ready
    | JobNews
    | Answer
    | Ended
    | Join
    | Places
    | Spawn
    | Kill
    | Provisioning
    | Check
    | Checked
)


@dataclass(frozen=True, slots=True)
class Addressed:
    """A message to or from one of several workers that share a connection; to: the number of the worker's life."""

    to: int
    message: Message


_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in Message.__args__
}


def encode(message: Message | Addressed) -> bytes:
    """The packet for a message.

    Raises:
        ValueError: The message holds what JSON cannot, or is too large.
    """
    inner = message.message if isinstance(message, Addressed) else message
    kind = type(inner).__name__
    # Not pydantic's own JSON mode: that turns a loss of NaN into null.
    packet = json.dumps([kind, _ADAPTERS[kind].dump_python(inner)], default=str).encode()
    if len(packet) > MESSAGE_LIMIT:
        raise ValueError(f"{len(packet)} bytes are too much for one message")
    if isinstance(message, Addressed):
        return packet.removesuffix(b"]") + f", {message.to}]".encode()
    return packet


def decode(packet: bytes) -> Message | Addressed:
    """The message in a packet.

    Raises:
        ValueError: There is none.
    """
    match json.loads(packet):
        case [str(kind), dict(fields), *rest] if kind in _ADAPTERS:
            message: Message = _ADAPTERS[kind].validate_python(fields)
            match rest:
                case []:
                    return message
                case [int(to)]:
                    return Addressed(to, message)
    raise ValueError("not a message")


def send(end: socket.socket, message: Message | Addressed) -> None:
    """Send; waits for room only on a blocking socket.

    Raises:
        OSError: The other end is gone.
    """
    end.send(encode(message))


def receive(end: socket.socket) -> Message | Addressed | None:
    """The next message, or None if the other end is gone.

    Raises:
        BlockingIOError: There is no message yet.
        ValueError: The packet is not a message.
    """
    try:
        packet = end.recv(PACKET)
    except ConnectionResetError:
        # The other end died before it read everything. The error is reported once, and before what it had sent.
        packet = end.recv(PACKET)
    return decode(packet) if packet else None


class Channel:
    """One end of a packet socket that never blocks: what there is no room for is sent later."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._unsent: deque[bytes] = deque()
        #: False once the other end is gone.
        self.open = True

    def fileno(self) -> int:
        """For `multiprocessing.connection.wait`."""
        return self._end.fileno()

    def send(self, message: Message | Addressed) -> None:
        """Send in order; a message to an end that is gone is dropped. Raises ValueError as `encode` does."""
        self._unsent.append(encode(message))
        self._flush()

    def messages(self) -> Iterator[Message | Addressed]:
        """Everything that has arrived; ValueError if a packet is not a message."""
        self._flush()
        while self.open:
            try:
                message = receive(self._end)
            except BlockingIOError:
                return
            if message is None:
                self.open = False
                return
            yield message

    def close(self) -> None:
        """Free the descriptor."""
        self.open = False
        self._end.close()

    def _flush(self) -> None:
        while self._unsent and self.open:
            try:
                self._end.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                pass  # `messages` notices that the other end is gone
            self._unsent.popleft()
