"""The packets between the daemon and its workers."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nst_daemon.errors import Retry
from nst_daemon.jobs import JobInput, Role
from nst_daemon.workers import wire
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

TASK = Task(
    job_id="1",
    name="Ünïcode “quotes” \udcff",
    attempt=2,
    inputs=(JobInput(Role.CONTENT, "a \udcff.jpg", "content.jpg", "0" * 64, 3),),
    spool=Path("/spool/\udcff"),
    stage=Path("/spool/stage"),
    checkpoint=Path("/spool/checkpoint"),
    settings={"style_layers": {"relu1_1": 1.0}, "iterations": [1, 2]},
    limits={"max_pixels": 10, "max_job_minutes": 1.5},
    alone=True,
)
MESSAGES: list[wire.Message] = [
    wire.Hello("cpu", "cpu", WorkerOptions(cache_dir=Path("/cache"), threads=3)),
    TASK,
    wire.Cancel("1"),
    wire.Stop(),
    wire.Alive(),
    wire.Devices(("cuda:0", "cuda:1")),
    wire.Room(9),
    wire.Leaving("no", permanent=True, detail="trace\nback"),
    Ready("cpu", {"threads": 2, "versions": {"torch": "2"}}),
    Started("cpu", "1"),
    Progress("cpu", "1", 3, 4, 0.5),
    Staged("cpu", "1", ("a.json", "a.png"), "0" * 64),
    Failed("cpu", "1", Retry.ALONE, "no memory", "trace"),
    Stopped("cpu", "1", cancelled=True),
    Note("cpu", "1", "something"),
    Died("cpu", "1", "was killed", "trace"),
    DeviceLost("cpu", "no weights", left=2, permanent=True),
    wire.Join(RayOptions(address="ray://head:10001"), WorkerOptions()),
    wire.Places(4, (WorkerStatus("node#1", "painting", None, ("1", "2"), 0.5, {}),)),
    wire.Outfit("bundled", {"onnx/vgg19.onnx": ("/cache/vgg19.onnx", "0" * 64)}),
    wire.Attached("1", "checkpoint"),
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a wire."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_arrives_as_it_was(
    pair: tuple[socket.socket, socket.socket], message: wire.Message
) -> None:
    """What is received equals what was sent, for every kind of message, with names in any encoding."""
    wire.send(pair[0], message)
    assert wire.receive(pair[1]) == message


def test_every_kind_of_message_is_tested() -> None:
    """The list above leaves no kind of message out."""
    assert {type(m) for m in MESSAGES} == set(wire.Message.__args__)


def test_a_loss_that_is_no_number_crosses() -> None:
    """NaN and infinity survive, though JSON proper has neither."""
    found = wire.decode(wire.encode(Progress("cpu", "1", 1, 2, math.nan)))
    assert isinstance(found, Progress)
    assert math.isnan(found.loss)


def test_last_words_of_the_dead_are_heard(pair: tuple[socket.socket, socket.socket]) -> None:
    """What a process sent before it died arrives even if it left messages unread, and then the end is seen."""
    ours, theirs = pair
    wire.send(ours, wire.Stop())
    wire.send(theirs, wire.Alive())
    theirs.close()
    assert wire.receive(ours) == wire.Alive()
    assert wire.receive(ours) is None


def test_too_much_is_refused_before_it_is_sent() -> None:
    """A message that would not fit into a packet is a ValueError, not a truncated packet."""
    with pytest.raises(ValueError, match="too much"):
        wire.encode(Note("cpu", "1", "x" * wire.PACKET))


NONSENSE = [
    b"",
    b"\xff",
    b"5",
    b"{}",
    b"[[], {}]",
    b'["Alive"]',
    b'["System", {}]',
    b'["Cancel", {}]',
]


@pytest.mark.parametrize("packet", NONSENSE)
def test_nonsense_is_a_value_error(packet: bytes) -> None:
    """Whatever a broken worker sends, decoding it raises ValueError and nothing else."""
    with pytest.raises(ValueError):
        wire.decode(packet)
