"""HEAD for each address of the API that has GET: the same status and headers, without a body."""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadRequests:
    """Middleware that handles HEAD as GET and ends the request when the headers are sent, so event streams end at once.

    Routes can read `request.state.head`, for example to skip a long wait.

    Args:
        prefix: of the addresses. The static files handle HEAD themselves.
    """

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        scope = {**scope, "state": {**scope.get("state", {}), "head": head}}
        if not head:
            await self._app(scope, receive, send)
            return
        with anyio.CancelScope() as request:

            async def send_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body", "body": b""})
                    request.cancel()

            await self._app({**scope, "method": "GET"}, receive, send_headers)
