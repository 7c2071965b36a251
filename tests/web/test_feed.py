"""Server-sent events: of the status, shared by all clients."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from nst_daemon.errors import UsageError
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.service.live_status import LiveStatus, PaintingStatus
from nst_daemon.web.__main__ import SHUTDOWN_SECONDS
from nst_daemon.web.app import make_app
from nst_daemon.web.feed import Event, Feed
from nst_daemon.web.options import PageOptions
from tests.web.conftest import HOST

WAIT = 20.0  # seconds; a slow machine is not a failure


class Number(BaseModel):
    """What the tests' topic consists of."""

    value: int


@dataclass
class Counter:
    """A topic: `value` changes where a test changes it."""

    value: int = 1
    reads: int = 0
    last: bool = False

    def __call__(self) -> Event:
        self.reads += 1
        return Event("number", Number(value=self.value), last=self.last)


@dataclass
class Client:
    """A client without a network. slow: it takes nothing after the first chunk until `go` is set."""

    received: list[bytes] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    slow: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    ended: bool = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        self.received.append(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        if self.slow and len(self.events) == 1:
            await self.go.wait()

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The names and the data of the events so far."""
        return [parsed(chunk) for chunk in self.received if b"data: " in chunk]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(WAIT):
            while not condition():
                await asyncio.sleep(0.005)


def parsed(chunk: bytes) -> tuple[str, Any]:
    """Name and data of an event."""
    lines = dict(line.split(": ", 1) for line in chunk.decode().strip().splitlines())
    return lines["event"], json.loads(lines["data"])


async def follow(feed: Feed, read: Counter, *clients: Client) -> list[asyncio.Task[None]]:
    """Let clients follow a topic, until each has the first event."""
    tasks = [asyncio.create_task(feed.send("number", read, client.send)) for client in clients]
    for client in clients:
        await client.until(lambda client=client: client.events)
    return tasks


def test_all_clients_share_one_computation() -> None:
    """200 clients get each change once, an unchanged value is not sent again, and the value is read once for all."""

    async def run() -> None:
        feed, read = Feed(interval=0.05), Counter()
        clients = [Client() for _ in range(200)]
        tasks = await follow(feed, read, *clients)
        before = read.reads
        await clients[0].until(lambda: read.reads >= before + 3)
        assert all(client.events == [("number", {"value": 1})] for client in clients)
        read.value = 2
        for client in clients:
            await client.until(lambda client=client: len(client.events) == 2)
        assert read.reads < 60
        feed.close()
        await asyncio.wait_for(asyncio.gather(*tasks), WAIT)

    asyncio.run(run())


def test_a_slow_client_gets_only_the_newest_event() -> None:
    """A client that takes nothing for a while gets the newest event then, and others are not delayed."""

    async def run() -> None:
        feed, read = Feed(interval=0.01), Counter()
        slow, fast = Client(slow=True), Client()
        await follow(feed, read, slow, fast)
        for value in range(2, 12):
            read.value = value
            await fast.until(lambda value=value: fast.events[-1][1] == {"value": value})
        assert [data["value"] for _, data in slow.events] == [1]
        slow.go.set()
        await slow.until(lambda: len(slow.events) == 2)
        assert [data["value"] for _, data in slow.events] == [1, 11]
        feed.close()

    asyncio.run(run())


def test_nothing_is_computed_without_clients() -> None:
    """When the last client has gone, the value is not read any more; the next client gets a new one."""

    async def run() -> None:
        feed, read, client = Feed(interval=0.01), Counter(), Client()
        (task,) = await follow(feed, read, client)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        before, read.value = read.reads, 7
        await asyncio.sleep(0.1)
        assert read.reads == before
        other = Client()
        await follow(feed, read, other)
        assert other.events == [("number", {"value": 7})]
        feed.close()

    asyncio.run(run())


def test_a_topic_ends_with_its_last_event() -> None:
    """After the last event each response is complete, also of a client that comes later."""

    async def run() -> None:
        feed, read = Feed(interval=0.01), Counter()
        clients = [Client(), Client()]
        tasks = await follow(feed, read, *clients)
        read.value, read.last = 2, True
        await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
        assert all(client.events[-1] == ("number", {"value": 2}) for client in clients)
        assert b"id: end\n" in clients[0].received[-1]
        late = Client()
        await asyncio.wait_for(feed.send("number", read, late.send), WAIT)
        assert late.events == [("number", {"value": 2})]

    asyncio.run(run())


def test_a_heartbeat_keeps_the_connection() -> None:
    """Without changes a comment is sent."""

    async def run() -> None:
        feed, client = Feed(interval=0.01, heartbeat=0.02), Client()
        await follow(feed, Counter(), client)
        await client.until(lambda: client.received.count(b": heartbeat\n\n") >= 2)
        assert len(client.events) == 1
        feed.close()

    asyncio.run(run())


def test_an_error_is_an_event() -> None:
    """If the value cannot be read, clients get the reason, and the value when it can be read again."""

    class Failing(Counter):
        def __call__(self) -> Event:
            if self.value == 1:
                raise UsageError("no daemon has run here", remedy="start it")
            if self.value == 2:
                raise RuntimeError("a fault")
            return super().__call__()

    async def run() -> None:
        feed, read, client = Feed(interval=0.01), Failing(), Client()
        await follow(feed, read, client)
        assert client.events[0][0] == "problem"
        assert client.events[0][1]["error"] == "no daemon has run here; start it"
        for value in (2, 3):
            read.value = value
            await client.until(lambda value=value: len(client.events) == value)
        assert client.events[1][1]["cause"] == "internal error"
        assert client.events[2] == ("number", {"value": 3})
        feed.close()

    asyncio.run(run())


async def get(options: PageOptions, path: str, client: Client, gone: asyncio.Event) -> None:
    """Request a path of the application; the client leaves when `gone` is set."""
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", HOST.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8787),
        "state": {},
    }
    await make_app(options)(scope, receive, client.send)


def add(options: PageOptions, number: int) -> None:
    """Add a failed job to the ledger."""
    with Ledger.open(options.folders.ledger) as ledger:
        job = f"{number:032x}"
        ledger.add(Job(job, f"job {number}", "pair", JobState.CLAIMED, (), 1.0, 1.0))
        ledger.move(job, JobState.FAILED, now=1.0 + number, error="no picture")


def test_changes_of_jobs_are_events(options: PageOptions) -> None:
    """GET /events sends the status, sends it again after a job has changed, and ends when the client leaves."""

    async def run() -> None:
        client, gone = Client(), asyncio.Event()
        task = asyncio.create_task(get(options, "/api/v1/events", client, gone))
        await client.until(lambda: client.events)
        add(options, 1)
        await client.until(lambda: len(client.events) == 2)
        gone.set()
        await asyncio.wait_for(task, WAIT)
        assert [name for name, _ in client.events] == ["status", "status"]
        first, second = (data for _, data in client.events)
        assert (first["changed"], first["counts"]["failed"]) == (0.0, 0)
        assert (second["changed"], second["counts"]["failed"]) == (2.0, 1)
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert client.headers["cache-control"] == "no-store, no-transform"
        assert client.headers["x-accel-buffering"] == "no"
        assert "content-length" not in client.headers

    asyncio.run(run())


@pytest.mark.parametrize("verb", ["retry", "cancel"])
def test_a_request_is_a_change(options: PageOptions, verb: str) -> None:
    """A request of a job counts as a change until it has been handled."""
    add(options, 1)
    with Ledger.open(options.folders.ledger) as ledger:
        assert ledger.changed() == 2.0
        ledger.request(f"{1:032x}", verb, now=9.0)
        assert ledger.changed() == 9.0
        ledger.finish_request(ledger.pending_requests()[0].number)
        assert ledger.changed() == 2.0


def test_a_job_is_followed_until_it_has_ended(options: PageOptions) -> None:
    """GET /jobs/{id}/events sends each change of the job with its progress; the last event ends the stream for good."""
    job = f"{1:032x}"
    path = f"/api/v1/jobs/{job}/events"

    async def run() -> None:
        with Ledger.open(options.folders.ledger) as ledger:
            ledger.add(Job(job, "dog", "pair", JobState.CLAIMED, (), 1.0, 1.0))
            ledger.move(job, JobState.QUEUED, now=2.0)
            client, gone = Client(), asyncio.Event()
            task = asyncio.create_task(get(options, path, client, gone))
            await client.until(lambda: client.events)
            ledger.move(job, JobState.RUNNING, now=3.0)
            with (options.folders.state / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                painting = PaintingStatus(job, "dog", "cpu", 4, 10, 40, 2.0, 3.0)
                live = LiveStatus(1, 0.0, 0.0, "painting", "", "", [painting])
                live.write(options.folders.status)
                await client.until(lambda: client.events[-1][1]["percent"] == 40)
            ledger.move(job, JobState.FAILED, now=4.0, error="no picture")
            await asyncio.wait_for(task, WAIT)
        assert client.ended
        assert {name for name, _ in client.events} == {"job"}
        states = [data["state"] for _, data in client.events]
        assert (states[0], states[-1]) == ("queued", "failed")
        shown = next(data for _, data in client.events if data["percent"] == 40)
        assert (shown["state"], shown["left"], shown["id"]) == ("running", 3.0, job)
        assert client.events[-1][1]["percent"] is None
        assert any(b"id: end" in chunk for chunk in client.received)

    asyncio.run(run())
    visitor = TestClient(make_app(options), base_url=f"http://{HOST}")
    assert visitor.get(path).text.count("event: job") == 1
    assert visitor.get(path, headers={"Last-Event-ID": "end"}).status_code == 204
    assert visitor.get(f"/api/v1/jobs/{2:032x}/events").status_code == 404


def test_a_job_that_is_removed_ends_its_stream(options: PageOptions) -> None:
    """If a job is removed from the history while it is followed, the stream ends with a problem."""
    job = f"{1:032x}"

    async def run() -> None:
        with Ledger.open(options.folders.ledger) as ledger:
            ledger.add(Job(job, "dog", "pair", JobState.CLAIMED, (), 1.0, 1.0))
            client = Client()
            path = f"/api/v1/jobs/{job}/events"
            task = asyncio.create_task(get(options, path, client, asyncio.Event()))
            await client.until(lambda: client.events)
            ledger.forget(job)
            await asyncio.wait_for(task, WAIT)
        assert [name for name, _ in client.events] == ["job", "problem"]

    asyncio.run(run())


def test_streams_do_not_delay_the_end_of_the_server(options: PageOptions) -> None:
    """A server with open event streams ends after SIGTERM without waiting for them, and completes the responses."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "nst_daemon.web", str(listening.fileno())],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[listening.fileno()],
        )
    assert process.stdin is not None
    try:
        process.stdin.write(options.encode())
        process.stdin.flush()
        address = f"http://127.0.0.1:{port}/api/v1/events"
        streams = [urllib.request.urlopen(address, timeout=WAIT) for _ in range(20)]
        for stream in streams:
            assert stream.readline() == b"retry: 2000\n"
            assert stream.readline() == b"\n"
            assert stream.readline() == b"event: status\n"
        began = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        assert all(stream.read().startswith(b"data: {") for stream in streams)
        assert process.wait(WAIT) == -signal.SIGTERM
        assert time.monotonic() - began < SHUTDOWN_SECONDS  # it would wait for an open response
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
