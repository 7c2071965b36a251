"""Jobs: lists, one job, and requests to the daemon about them."""

from __future__ import annotations

import logging
import math
import time
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from nst_daemon.errors import InputError, NotFoundError, NstError, UsageError
from nst_daemon.ledger_listing import JobFilter
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import printable
from nst_daemon.ops import batch_submission, job_actions
from nst_daemon.ops.job_actions import ActionOutcome
from nst_daemon.units import count
from nst_daemon.web import error_bodies, job_bodies, job_lists
from nst_daemon.web.context import Shared
from nst_daemon.web.error_bodies import ConflictError
from nst_daemon.web.job_search import get_details, get_info
from nst_daemon.web.models import (
    MAX_LISTED,
    MAX_WAIT,
    ActionProblem,
    ActionRequest,
    ActionResult,
    Identifier,
    JobDetails,
    JobPage,
    Order,
    State,
)
from nst_daemon.web.references import unknown_batch

log = logging.getLogger(__name__)
router = APIRouter(tags=["jobs"])

#: Seconds between two looks at the ledger while a request waits for the end of a job.
LOOK_SECONDS = 0.5
#: Names of jobs in one line of the log.
LOGGED = 10
Moment = Annotated[
    float | None,
    Query(
        description="Only jobs whose latest change was at or after `since`, and before `before`.",
        ge=0,
        allow_inf_nan=False,
    ),
]


@router.get("/jobs")
def list_jobs(  # noqa: PLR0917 (the parameters of an address, not a call)
    shared: Shared,
    state: Annotated[list[State], Query(description="Any of these states.", max_length=20)] = [],  # noqa: B006
    q: Annotated[
        str, Query(description="A part of the name; case is ignored.", max_length=200)
    ] = "",
    batch: Annotated[str, Query(description="The name of a batch.", max_length=1000)] = "",
    group: Annotated[
        str, Query(description="A folder of the inbox, or a batch.", max_length=1000)
    ] = "",
    style: Annotated[
        str,
        Query(description="A style of the library, or a style picture.", max_length=1000),
    ] = "",
    result: Annotated[bool, Query(description="Only jobs with a result.")] = False,
    since: Moment = None,
    before: Moment = None,
    order: Annotated[
        Order,
        Query(
            description="By the latest change; `queue`: jobs that have not ended, as they will be painted."
        ),
    ] = "newest",
    cursor: Annotated[str, Query(description="`next` of the previous part.", max_length=200)] = "",
    limit: Annotated[
        int, Query(ge=1, le=MAX_LISTED, description="The most jobs in the response.")
    ] = 50,
) -> JobPage:
    """List jobs, a part at a time."""
    wanted = JobFilter(
        states=[one for one in state if one != "inbox"] if state else None,
        part=q,
        batch=batch,
        group=group,
        style=style,
        with_result=result,
        since=-math.inf if since is None else since,
        before=math.inf if before is None else before,
    )
    return job_lists.list_part(
        shared,
        wanted,
        order,
        after=job_lists.Cursor.parse(cursor, order),
        limit=limit,
        with_inbox=not state or "inbox" in state,
    )


@router.get("/jobs/{id}")
async def job(
    id: Identifier,
    request: Request,
    shared: Shared,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the end of the job.")
    ] = 0,
) -> JobDetails:
    """Everything about a job. With `wait`, the response comes when the job has ended, or after this time."""
    until = time.monotonic() + (0 if request.state.head else wait)
    while (left := until - time.monotonic()) > 0:
        info = await run_in_threadpool(get_info, shared, id)
        if job_bodies.has_ended(info) or await request.is_disconnected():
            break
        await anyio.sleep(min(LOOK_SECONDS, left))
    return await run_in_threadpool(get_details, shared, id)


@router.post("/jobs/actions", status_code=202)
def request_action(body: ActionRequest, shared: Shared) -> ActionResult:
    """Cancel, retry or delete jobs, or change their priority. The daemon does it within seconds."""
    changes = job_actions.changes_for(body.action, body.set, body.unset, body.priority)
    if not body.ids and not body.states and not body.batch:
        raise UsageError("no job is named", remedy="give ids, states or a batch")
    withdrawn = body.action == "cancel" and batch_submission.withdraw(shared.folders, body.batch)
    with shared.ledger(LedgerReader) as ledger:
        outcome = job_actions.act(
            shared.config,
            ledger,
            body.action,
            ids=list(dict.fromkeys(body.ids)),
            states=body.states,
            batch=body.batch,
            changes=changes,
        )
        has_jobs = not body.batch or bool(ledger.batch_counts(body.batch))
    if not outcome.requested and not withdrawn:
        if not has_jobs and body.batch not in batch_submission.waiting_batches(shared.folders):
            raise unknown_batch(body.batch)
        raise _nothing_requested(outcome, body)
    names = ", ".join(printable(job.name) for job in outcome.requested[:LOGGED])
    log.info(
        "%s was requested on the page for %s: %s",
        body.action,
        count(len(outcome.requested), "job"),
        names,
    )
    return ActionResult(
        requested=[job.id for job in outcome.requested],
        problems=[
            ActionProblem(id=job_id, **dict(error_bodies.body(error)))
            for job_id, error in outcome.problems.items()
        ],
    )


def _nothing_requested(outcome: ActionOutcome, body: ActionRequest) -> NstError:
    """The first problem, as the error of the whole request."""
    first = next(iter(outcome.problems.values()), None)
    if first is None:
        states = f" that is {', '.join(body.states)}" if body.states else ""
        batch = f" of the batch {printable(body.batch)}" if body.batch else ""
        return ConflictError(f"{body.action} is not possible for any job{batch}{states}")
    if isinstance(first, InputError):
        return first
    if all(isinstance(problem, NotFoundError) for problem in outcome.problems.values()):
        return first
    return ConflictError(first.message, remedy=first.remedy)
