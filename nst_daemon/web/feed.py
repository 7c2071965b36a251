"""Server-sent events. What clients follow is computed at most once a second, for all of them together.

A client gets the newest event when it can take one, and no event twice. No events are stored for slow clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Send

from nst_daemon.web import error_bodies
from nst_daemon.web.models import HEARTBEAT_SECONDS, LAST_EVENT

log = logging.getLogger(__name__)

#: Seconds between two computations of one topic.
INTERVAL_SECONDS = 1.0
#: A client connects again after so many milliseconds.
RETRY_MS = 2000
HEARTBEAT = b": heartbeat\n\n"
#: no-transform and X-Accel-Buffering: proxies must neither compress nor buffer events.
STREAM_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Event:
    """An event.

    Attributes:
        name: its type.
        data: sent as JSON.
        last: whether the topic ends with it.
    """

    name: str
    data: BaseModel
    last: bool = False

    def encode(self) -> bytes:
        """The event as it is sent."""
        end = f"id: {LAST_EVENT}\n" if self.last else ""
        return f"{end}event: {self.name}\ndata: {self.data.model_dump_json()}\n\n".encode()


#: Computes the present event of a topic. It runs in a thread.
ReadEvent = Callable[[], Event]


class Feed:
    """The topics that clients follow at present. A topic without clients costs nothing.

    Args:
        interval: seconds between two computations of a topic.
        heartbeat: seconds without an event until a comment is sent.
    """

    def __init__(
        self, interval: float = INTERVAL_SECONDS, heartbeat: float = HEARTBEAT_SECONDS
    ) -> None:
        self._interval, self._heartbeat = interval, heartbeat
        self._topics: dict[str, _Topic] = {}
        self._closed = False

    def response(self, topic: str, read: ReadEvent) -> EventStream:
        """The response that follows a topic.

        Args:
            topic: its name.
            read: computes its present event. An NstError becomes the event `problem`.
        """
        return EventStream(self, topic, read)

    def close(self) -> None:
        """End every response, so that the server can stop."""
        self._closed = True
        for topic in self._topics.values():
            topic.wake()

    async def send(self, name: str, read: ReadEvent, send: Send) -> None:
        """Send the events of a topic until it ends, or until `close`."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = _Topic(read, self._interval)
        topic.clients += 1
        try:
            await self._send_news(topic, send)
        finally:
            topic.clients -= 1
            if not topic.clients:
                topic.stop()
                self._topics.pop(name, None)

    async def _send_news(self, topic: _Topic, send: Send) -> None:
        async def chunk(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await chunk(f"retry: {RETRY_MS}\n\n".encode())
        seen = 0
        while not self._closed and not (topic.ended and topic.number == seen):
            if topic.number != seen:
                seen = topic.number
                await chunk(topic.message)
            elif not await topic.wait(self._heartbeat):
                await chunk(HEARTBEAT)


class EventStream(StreamingResponse):
    """A response that sends the events of a topic. See `Feed.response`."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, topic: str, read: ReadEvent, status_code: int = 200) -> None:
        # FastAPI finds the status in this signature.
        super().__init__((), status_code, headers=STREAM_HEADERS)
        self._feed, self._topic, self._read = feed, topic, read

    async def stream_response(self, send: Send) -> None:
        """Send everything. It is cancelled when the client has gone."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await self._feed.send(self._topic, self._read, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Topic:
    """What several clients follow.

    Attributes:
        clients: their number.
        message: the newest event; it is sent once to each client.
        number: of the newest event, from 1; 0: there is none yet.
        ended: whether there will be no other event.
    """

    def __init__(self, read: ReadEvent, interval: float) -> None:
        self._read, self._interval = read, interval
        self.clients, self.message, self.number, self.ended = 0, b"", 0, False
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def wait(self, seconds: float) -> bool:
        """Wait for a newer event or the end. Returns whether one has come within the time."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """Let all clients look for a newer event."""
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Compute nothing more."""
        self._task.cancel()

    async def _run(self) -> None:
        while not self.ended:
            message, self.ended = await asyncio.to_thread(self._present)
            if message != self.message:
                self.message, self.number = message, self.number + 1
                self.wake()
            await asyncio.sleep(self._interval)

    def _present(self) -> tuple[bytes, bool]:
        """The present event as it is sent, and whether it is the last one."""
        try:
            event = self._read()
            return event.encode(), event.last
        except Exception as error:
            if fault := error_bodies.fault_of(error):
                return Event("problem", error_bodies.body(fault)).encode(), False
            log.exception("an event could not be computed")
            return Event("problem", error_bodies.INTERNAL).encode(), False
