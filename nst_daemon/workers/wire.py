"""What the executors and their children say to each other, and how: one JSON object per packet.

JSON and not pickle, because a worker decodes strangers' pictures: nothing that it says is executed by the daemon. A
`SOCK_SEQPACKET` pair keeps each message whole, so a worker that is stopped in the middle of one never makes the
daemon wait for the rest, and the end of either process is seen at once by the other.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Failed,
    Note,
    Progress,
    RayOptions,
    Ready,
    Staged,
    Started,
    Stopped,
    Task,
    WorkerOptions,
    WorkerStatus,
)

#: Larger than any message: tracebacks are cut to `TEXT_LIMIT`, settings come from files with a size limit.
PACKET = 1 << 17
#: Characters of a traceback or of what a worker printed that are handed on.
TEXT_LIMIT = 8000


@dataclass(frozen=True, slots=True)
class Hello:
    """The first packet to a child: which device it serves (`auto`: find out) and how."""

    worker: str
    device: str
    options: WorkerOptions


@dataclass(frozen=True, slots=True)
class Cancel:
    """To a child: end this job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """To a child: checkpoint what is being painted, then end; within `grace` seconds, where it has children itself."""

    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class Alive:
    """From a child, about once a second: the process runs. It says nothing about progress."""


@dataclass(frozen=True, slots=True)
class Devices:
    """From a child that was started with `auto`: what it found; it takes the first."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """From a child: how many tasks it wants at once from now on, for what it is about to paint."""

    tasks: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """From a child that ends by itself: it cannot load, or its device has failed.

    permanent: another start fails in the same way.
    """

    message: str
    permanent: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Join:
    """The first packet to the process that speaks with a cluster."""

    cluster: RayOptions
    options: WorkerOptions


@dataclass(frozen=True, slots=True)
class Places:
    """From that process, about once a second: its workers (without `info`), and how many tasks they take together."""

    slots: int
    workers: tuple[WorkerStatus, ...]


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a worker on another machine needs to paint as one on this machine would.

    weights: `WorkerOptions.weights` there; where it is a key of `files`, that file. files: name in that machine's cache
    folder → the file on this one and its SHA-256.
    """

    weights: str
    files: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Attached:
    """From another machine: a new checkpoint or preview of a job (`kind`) comes with this message."""

    job_id: str
    kind: str


Message = (
    Hello
    | Join
    | Outfit
    | Places
    | Attached
    | Died
    | DeviceLost
    | Task
    | Cancel
    | Stop
    | Alive
    | Devices
    | Room
    | Leaving
    | Ready
    | Started
    | Progress
    | Staged
    | Failed
    | Stopped
    | Note
)
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in Message.__args__
}


def encode(message: Message) -> bytes:
    """The packet for a message. Raises ValueError where it holds what JSON cannot, or too much."""
    kind = type(message).__name__
    # Not pydantic's own JSON mode: that turns a loss of NaN into null.
    fields = _ADAPTERS[kind].dump_python(message)
    packet = json.dumps([kind, fields], default=str).encode()
    if len(packet) > PACKET:
        raise ValueError(f"{len(packet)} bytes are too much for one message")
    return packet


def decode(packet: bytes) -> Message:
    """The message in a packet. Raises ValueError where there is none."""
    match json.loads(packet):
        case [str(kind), dict(fields)] if kind in _ADAPTERS:
            message: Message = _ADAPTERS[kind].validate_python(fields)
            return message
    raise ValueError("not a message")


def send(end: socket.socket, message: Message) -> None:
    """Send; waits for room only on a blocking socket. Raises OSError where the other end is gone."""
    end.send(encode(message))


def receive(end: socket.socket) -> Message | None:
    """The next message, or None where the other end is gone; BlockingIOError where there is none yet."""
    try:
        packet = end.recv(PACKET)
    except ConnectionResetError:
        # The other end died before it read everything. The error is reported once, and before what it had sent.
        packet = end.recv(PACKET)
    return decode(packet) if packet else None
