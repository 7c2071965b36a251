"""Changes as they happen, as server-sent events."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from nst_daemon.web.context import Shared
from nst_daemon.web.feed import Event, EventStream
from nst_daemon.web.routes.status import present

router = APIRouter(tags=["events"])

#: For the OpenAPI description.
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/events", status_code=200, response_class=EventStream, responses=STREAM)
async def events(shared: Shared) -> EventStream:
    """The status as an event `status` at the start and after each change, at most once a second.

    If it cannot be read, there is an event `problem` with an error. The stream ends when the server restarts; clients
    then connect again.
    """
    return shared.feed.response("status", lambda: Event("status", present(shared)))
