"""The packets between the daemon and its workers."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nst_daemon.config import Limits, Outputs, Ray
from nst_daemon.engine.networks import NETWORKS
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import resolve
from nst_daemon.errors import Retry
from nst_daemon.jobs import JobInput, Role
from nst_daemon.workers import messages
from nst_daemon.workers.messages import (
    Failed,
    Note,
    Progress,
    Ready,
    Staged,
    Started,
    Stopped,
    Task,
    WorkerOptions,
)

TASK = Task(
    job_id="1",
    name="Ünïcode “quotes” \udcff",
    attempt=2,
    inputs=(JobInput(Role.CONTENT, "a \udcff.jpg", "content.jpg", "0" * 64, 3),),
    spool=Path("/spool/\udcff"),
    stage=Path("/spool/stage"),
    checkpoint=Path("/spool/checkpoint"),
    settings=resolve({"style_layers": {"relu1_1": 1.0}, "iterations": [1, 2]}),
    outputs=Outputs(format="jpg", overwrite=True),
    limits=Limits(max_pixels=10, max_job_minutes=1.5),
    batch={"name": "night", "swept": {"tv_weight": 0.5}},
    alone=True,
)
MESSAGES: list[messages.Message] = [
    messages.Hello("cpu", "cpu", WorkerOptions(cache_dir=Path("/cache"), threads=3)),
    TASK,
    messages.Cancel("1"),
    messages.Stop(),
    messages.Check("1", TASK.spool, TASK.inputs, TASK.limits),
    messages.Checked("1", "a.jpg is damaged", incomplete=True, undecided="no memory"),
    messages.Alive(),
    messages.Loading("cpu", "loading the weights", 1.5),
    messages.Devices(("cuda:0", "cuda:1")),
    messages.Leaving("no", permanent=True, detail="trace\nback"),
    Ready("cpu", {"threads": 2, "versions": {"torch": "2"}}),
    Started("cpu", "1"),
    Progress("cpu", "1", 3, 4, 0.5),
    Staged("cpu", "1", ("a.json", "a.png"), "0" * 64),
    Failed("cpu", "1", Retry.ALONE, "no memory", "trace"),
    Stopped("cpu", "1", cancelled=True),
    Note("cpu", "1", "something"),
    messages.Join(Ray(address="ray://head:10001"), WorkerOptions()),
    messages.Places(("10.0.0.2/abc#1",), "no room"),
    messages.Spawn("10.0.0.2/abc#1", messages.Hello("n", "cuda:0", WorkerOptions())),
    messages.Kill(),
    messages.Ended("was killed", "trace", messages.Cause.MEMORY),
    messages.Provisioning("bundled", {"onnx/vgg19.onnx": ("/cache/vgg19.onnx", "0" * 64)}),
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a wire."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_an_address_travels_with_any_message(message: messages.Message) -> None:
    """A message with an address arrives with both as they were."""
    addressed = messages.Addressed(7, message)
    assert messages.decode(messages.encode(addressed)) == addressed


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_arrives_as_it_was(
    pair: tuple[socket.socket, socket.socket], message: messages.Message
) -> None:
    """What is received equals what was sent, for every kind of message, with names in any encoding."""
    messages.send(pair[0], message)
    assert messages.receive(pair[1]) == message


OVERRIDES: list[dict[str, object]] = [
    {},
    {"content_style_ratio": 0.002, "size": 400},
    {"calibrate": "off", "style_weights": [1, 2]},
    {"optimizer": "adam", "iterations": 40, "keep_colors": False, "seed": 7},
]


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda v: ",".join(v) or "none")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_settings_arrive_as_they_were_resolved(
    preset: str, network: str, overrides: dict[str, object]
) -> None:
    """A task's settings are the same after the codec, for every preset on every network, with any overrides."""
    possible = {} if NETWORKS[network].pooling else {"pooling": "max"}
    settings = resolve({"preset": preset, **possible, **overrides}, network=network)
    task = replace(TASK, settings=settings)
    assert messages.decode(messages.encode(task)) == task


def test_every_kind_of_message_is_tested() -> None:
    """The list above leaves no kind of message out."""
    assert {type(m) for m in MESSAGES} == set(messages.Message.__args__)


def test_a_loss_that_is_no_number_crosses() -> None:
    """NaN and infinity survive, though JSON proper has neither."""
    found = messages.decode(messages.encode(Progress("cpu", "1", 1, 2, math.nan)))
    assert isinstance(found, Progress)
    assert math.isnan(found.loss)


def test_last_words_of_the_dead_are_heard(pair: tuple[socket.socket, socket.socket]) -> None:
    """What a process sent before it died arrives even if it left messages unread, and then the end is seen."""
    ours, theirs = pair
    messages.send(ours, messages.Stop())
    messages.send(theirs, messages.Alive())
    theirs.close()
    assert messages.receive(ours) == messages.Alive()
    assert messages.receive(ours) is None


def test_what_there_is_no_room_for_is_sent_later() -> None:
    """A channel never waits: more than the socket takes arrives in order, once the other end reads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, other = messages.Channel(ours), messages.Channel(theirs)
    sent = [Note("cpu", str(i), "x" * 10_000) for i in range(200)]
    for note in sent:
        channel.send(note)
    received: list[object] = []
    while len(received) < len(sent):
        received += other.messages()
        assert list(channel.messages()) == []
    assert received == sent
    channel.close()
    other.close()


def test_too_much_is_refused_before_it_is_sent() -> None:
    """A message that would not fit into a packet is a ValueError, not a truncated packet."""
    with pytest.raises(ValueError, match="too much"):
        messages.encode(Note("cpu", "1", "x" * messages.PACKET))


NONSENSE = [
    b"",
    b"\xff",
    b"5",
    b"{}",
    b"[[], {}]",
    b'["Alive"]',
    b'["System", {}]',
    b'["Cancel", {}]',
    b'["Alive", {}, "1"]',
    b'["Alive", {}, 1, 2]',
]


@pytest.mark.parametrize("packet", NONSENSE)
def test_nonsense_is_a_value_error(packet: bytes) -> None:
    """Whatever a broken worker sends, decoding it raises ValueError and nothing else."""
    with pytest.raises(ValueError):
        messages.decode(packet)
