"""Changes as they happen, as server-sent events."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from starlette.concurrency import run_in_threadpool

from nst_daemon.errors import NotFoundError
from nst_daemon.ops.status import read_live
from nst_daemon.web import error_bodies, job_bodies
from nst_daemon.web.context import Context, Shared
from nst_daemon.web.feed import Event, EventStream
from nst_daemon.web.job_search import get_info
from nst_daemon.web.models import LAST_EVENT, Identifier, JobInfo, JobProgress
from nst_daemon.web.routes.status import present

router = APIRouter(tags=["events"])

#: For the OpenAPI description.
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get("/events", response_class=EventStream, status_code=200, responses=STREAM)
async def events(shared: Shared) -> EventStream:
    """The status as an event `status` at the start and after each change, at most once a second.

    If it cannot be read, there is an event `problem` with an error. The stream ends when the server restarts; clients
    then connect again.
    """
    return shared.feed.response("status", lambda: Event("status", present(shared)))


@router.get(
    "/jobs/{id}/events", response_class=EventStream, status_code=200, responses={**STREAM, 204: {}}
)
async def job_events(
    id: Identifier, shared: Shared, last_event_id: Annotated[str, Header()] = ""
) -> Response:
    """A job as an event `job` at the start and after each change, at most once a second, until it has ended.

    The data is a JobInfo with `percent`, and `left` in seconds. The last event has the id `end`. The response to a
    client that has it (Last-Event-ID) has status 204, so that browsers do not connect again.
    """
    first = await run_in_threadpool(_progress, shared, id)
    if first.last and last_event_id == LAST_EVENT:
        return Response(status_code=204)
    return shared.feed.response(f"job {id}", partial(_present_job, shared, id))


def _present_job(context: Context, job_id: str) -> Event:
    """The present event of a job; the last one if its files were removed from the inbox."""
    try:
        return _progress(context, job_id)
    except NotFoundError as error:
        return Event("problem", error_bodies.body(error), last=True)


def _progress(context: Context, job_id: str) -> Event:
    """The progress of a job. Raises NotFoundError."""
    folders = context.folders
    live = read_live(folders)
    info = get_info(context, job_id)
    painting = next((p for p in live.paintings if p.id == job_id), None) if live else None
    running = painting if info.state == "running" else None
    progress = JobProgress(
        **{name: getattr(info, name) for name in JobInfo.model_fields},
        percent=running.percent if running else None,
        left=running.left if running else None,
    )
    return Event("job", progress, last=job_bodies.has_ended(info))
