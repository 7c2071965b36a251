"""One response for all who ask the same at the same time: when a job changes, every open page asks for its lists.

A request shares only a response whose computation begins after the request has arrived, so nobody sees an older state
than without this.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Key = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class _Result:
    """A whole response."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class SharedResponses:
    """Middleware.

    Args:
        paths: whose responses to GET are the same for all clients, and short.
    """

    def __init__(self, app: ASGIApp, *, paths: frozenset[str]) -> None:
        self._app, self._paths = app, paths
        self._running: dict[Key, asyncio.Task[_Result]] = {}
        self._pending: dict[Key, asyncio.Task[_Result]] = {}  # not begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        key = (scope["path"], scope["query_string"])
        task = self._pending.get(key)
        if task is None:
            task = asyncio.create_task(self._compute(key, scope, self._running.get(key)))
            task.add_done_callback(lambda done: self._forget(key, done))
            self._pending[key] = task
        found = await asyncio.shield(task)  # a client that leaves does not end it for others
        headers = list(found.headers)
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": found.body})

    async def _compute(
        self, key: Key, scope: Scope, before: asyncio.Task[_Result] | None
    ) -> _Result:
        """The response, computed after the one that is being computed now."""
        if before is not None:
            await asyncio.wait([before])
        self._running[key] = self._pending.pop(key)
        start: dict[str, Any] = {}
        body = bytearray()

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.extend(message.get("body", b""))

        await self._app(scope, receive, send)
        return _Result(start["status"], tuple(start["headers"]), bytes(body))

    def _forget(self, key: Key, task: asyncio.Task[_Result]) -> None:
        for tasks in (self._running, self._pending):
            if tasks.get(key) is task:
                del tasks[key]
        if not task.cancelled():
            task.exception()  # if all its clients have left, nobody else asks for it
