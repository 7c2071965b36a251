"""Time limits and bounds of the connections to the page, and strict HTTP.

Without them, a client that opens connections and sends nothing, or byte by byte, takes them all. Clients that hold a
token and have a request in progress are never disconnected for others.
"""

from __future__ import annotations

import asyncio
import logging
import math
import resource
import socket
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from nst_daemon.addresses import is_local
from nst_daemon.web import error_bodies
from nst_daemon.web.wrong_tokens import network_of

#: Bytes and number of the header lines of a request, and bytes of its path with the query.
MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET_BYTES = 16 << 10, 100, 8 << 10
#: Open files that the page wants, and those that are not connections.
WANTED_FILES, OTHER_FILES = 8192, 128
#: Messages of uvicorn about requests that are invalid. They would let any client fill the log.
_NOISE = frozenset(
    {
        "Invalid HTTP request received.",
        "Unsupported upgrade request.",
    }
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of connections.

    Attributes:
        total: Connections at the same time.
        per_address: Those of one address, or of one IPv6 network. This machine may have all: a proxy has its address.
        header_seconds: From the start of a request until its header is complete.
        idle_seconds: Between two requests.
        body_seconds: Without data, while a body is read. (Bodies that are not uploads have a limit in total.)
        drain_seconds: For the rest of a body after the response.
        send_seconds: While the client does not read a response, and until a closed connection is dropped.
        sweep_seconds: Between two checks of all connections.
    """

    total: int = 1024
    per_address: int = 512
    header_seconds: float = 10.0
    idle_seconds: float = 20.0
    body_seconds: float = 75.0
    drain_seconds: float = 5.0
    send_seconds: float = 30.0
    sweep_seconds: float = 1.0

    def within(self, files: int) -> ConnectionLimits:
        """Fewer connections for a process with a small limit of open files; a request may open one."""
        total = max(8, min(self.total, (files - OTHER_FILES) // 2))
        if total == self.total:
            return self
        share = self.per_address / self.total
        values = {name: getattr(self, name) for name in self.__slots__}
        return ConnectionLimits(**values | {"total": total, "per_address": int(total * share)})


DEFAULT_LIMITS = ConnectionLimits()


def raise_file_limit() -> int:
    """Raise the number of files that this process may open. Returns the number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED_FILES if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Connections:
    """All connections of the server, by address. Every `sweep_seconds` those that exceed a limit are closed."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._by_address: defaultdict[str, dict[LimitedConnection, None]] = defaultdict(dict)
        self._count = 0
        self._sweeping = False

    def __len__(self) -> int:
        return self._count

    def add(self, connection: LimitedConnection, address: str) -> bool:
        """Add a connection; False if there are too many. A connection without a request may be closed for it."""
        most = self.limits.total if is_local(address) else self.limits.per_address
        own = self._by_address[address]
        if len(own) >= most and not self._make_room(address):
            return False
        if self._count >= self.limits.total:
            busiest = max(self._by_address, key=lambda other: len(self._by_address[other]))
            if not self._make_room(busiest):
                return False
        self._by_address[address][connection] = None
        self._count += 1
        if not self._sweeping:
            self._sweeping = True
            connection.loop.call_later(self.limits.sweep_seconds, self._sweep, connection.loop)
        return True

    def remove(self, connection: LimitedConnection, address: str) -> None:
        """Forget a connection, if it was added."""
        own = self._by_address.get(address, {})
        if connection in own:
            del own[connection]
            self._count -= 1
        if not own:
            self._by_address.pop(address, None)

    def _make_room(self, address: str) -> bool:
        """Drop the connection of an address that has waited longest for a request, if there is one."""
        waiting = [c for c in self._by_address.get(address, ()) if c.expendable < math.inf]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda c: c.expendable)
        self.remove(oldest, address)
        oldest.drop()
        return True

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for own in list(self._by_address.values()):
            for connection in list(own):
                connection.enforce(now)
        self._sweeping = bool(self._count)
        if self._sweeping:
            loop.call_later(self.limits.sweep_seconds, self._sweep, loop)


class StrictParser(h11.Connection):
    """Refuses what h11 accepts and a proxy may understand differently, and what is too long.

    Attributes:
        status: of the response to a request that was refused.
        problem: why it was refused.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEADER_BYTES)
        self.status, self.problem = 400, ""

    def next_event(self) -> Any:
        """The next event; see h11. Raises RemoteProtocolError."""
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                _check(event)
        except h11.RemoteProtocolError as error:
            self.status, self.problem = error.error_status_hint, str(error)
            raise
        return event


def _check(request: h11.Request) -> None:
    """Raise RemoteProtocolError for a request that is ambiguous or too long."""
    headers = list(request.headers)
    length = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or length > MAX_HEADER_BYTES:
        raise h11.RemoteProtocolError("the header of the request is too long", 431)
    if len(request.target) > MAX_TARGET_BYTES:
        raise h11.RemoteProtocolError("the address of the request is too long", 414)
    if request.http_version not in {b"1.0", b"1.1"}:
        raise h11.RemoteProtocolError("the version of HTTP is unknown", 505)
    if not request.target.startswith(b"/"):
        raise h11.RemoteProtocolError("the address of the request is not a path")
    names = [name.lower() for name, _ in headers]
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding exclude each other")
        if request.http_version < b"1.1":
            raise h11.RemoteProtocolError("Transfer-Encoding needs HTTP/1.1")


class LimitedConnection(H11Protocol):
    """One connection. `connections` is set by `protocol_of`."""

    connections_of_server: Connections

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = StrictParser()
        self._address = ""
        # Times of the event loop; infinity: that does not apply now.
        self._since = self._heard = self.loop.time()  # of the phase, and of the last byte
        self._idle = False  # no byte of the next request has arrived
        self._blocked = self._closing = (
            math.inf
        )  # since the client does not read; since it was closed

    @property
    def busy(self) -> bool:
        """Whether a request has no complete response yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def expendable(self) -> float:
        """Since when this connection may be dropped for others; requests come after those that wait for one.

        Infinity: never, because a request with a token is in progress.
        """
        if not self.busy:
            return self._since
        known = self.scope.get("state", {}).get("token") is not None
        return math.inf if known else self._since + 1e9

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many connections."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._address = network_of(self.client[0] if self.client else "")
        if not self.connections_of_server.add(self, self._address):
            self._refuse(503, "there are too many connections", "try again later")
            return
        with suppress(OSError):
            # A client that has vanished is noticed when it does not confirm what was sent, such as heartbeats.
            limit = int(1000 * 2 * self.connections_of_server.limits.send_seconds)
            raw: socket.socket = transport.get_extra_info("socket")
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.connections_of_server.remove(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        if self.transport.is_closing():
            return
        self._heard = self.loop.time()
        if self._idle and not self.busy:
            self._idle, self._since = False, self._heard
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._idle, self._since = True, self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        self._blocked = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self._blocked = math.inf
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse an invalid request with the status and the reason of the parser."""
        problem = self.conn.problem if isinstance(self.conn, StrictParser) else ""
        status = self.conn.status if isinstance(self.conn, StrictParser) else 400
        self._refuse(status, f"the request is not valid HTTP: {problem or msg}", "")

    def enforce(self, now: float) -> None:
        """Close the connection if it exceeds a limit. now: seconds of the event loop."""
        limits = self.connections_of_server.limits
        if self.transport.is_closing():
            self._closing = min(self._closing, now)
            if now - self._closing > limits.send_seconds:
                self.transport.abort()
        elif now - self._blocked > limits.send_seconds:
            self.transport.abort()
        elif self.conn.their_state is h11.SEND_BODY:
            if self.flow.read_paused:  # the application has not taken what has arrived
                self._heard = now
            start = self._heard if self.busy else self._since
            if now - start > (limits.body_seconds if self.busy else limits.drain_seconds):
                self.transport.close()
        elif not self.busy and now - self._since > (
            limits.idle_seconds if self._idle else limits.header_seconds
        ):
            self.transport.close()

    def drop(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def _refuse(self, status: int, cause: str, remedy: str) -> None:
        """Send an error and close the connection."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = error_bodies.plain(status, cause, remedy).body
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
                ("X-Content-Type-Options", "nosniff"),
            ]
            reason = STATUS_PHRASES.get(status, b"")
            response = h11.Response(status_code=status, headers=headers, reason=reason)
            for event in (response, h11.Data(data=bytes(body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.busy:  # a body that became invalid: the response of the application is not sent
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def protocol_of(connections: Connections) -> type[LimitedConnection]:
    """The protocol of a server with these connections, for uvicorn."""
    return type("BoundConnection", (LimitedConnection,), {"connections_of_server": connections})


class WithoutNoise(logging.Filter):
    """Drops messages with which clients could fill the log, and those about requests that the end has cancelled."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is kept."""
        cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
        return record.getMessage() not in _NOISE and not cancelled
