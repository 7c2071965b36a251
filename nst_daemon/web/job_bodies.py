"""Jobs of the ledger as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nst_daemon.errors import NotFoundError
from nst_daemon.intake.drops import stem_of
from nst_daemon.intake.parts import IN_PAIR
from nst_daemon.jobs import BatchCell, Job, Role, listed, short_id
from nst_daemon.ledger_reader import JobEvent, Verb
from nst_daemon.names import printable
from nst_daemon.ops.requests import actions
from nst_daemon.web.context import Context
from nst_daemon.web.job_places import files_of, input_of
from nst_daemon.web.models import (
    BatchPlace,
    JobDetails,
    JobEventInfo,
    JobInfo,
    JobInputInfo,
)


def describe(job: Job, asked: Sequence[Verb]) -> JobInfo:
    """A job in a list. asked: the requests that the daemon has not handled yet."""
    return JobInfo(
        id=job.id,
        short_id=short_id(job.id),
        name=job.name,
        title=title(job),
        source=job.source,
        state=job.state,
        created=job.created,
        updated=job.updated,
        priority=job.priority,
        attempts=job.attempts,
        error=job.error,
        result=job.result,
        batch=_place(job.batch) if job.batch else None,
        styles=list(dict.fromkeys(style_names(job))),
        requested=asked[-1] if asked else "",
        actions=actions(job, asked),
    )


def style_names(job: Job) -> Iterator[str]:
    """The names of the style pictures, without endings and roles: "evening" for evening.style-1.png."""
    for file in job.inputs:
        if file.role is Role.STYLE:
            match = IN_PAIR.fullmatch(stem_of(file.name))
            dropped = match and match["separator"] == "." and match["role"].lower()[:5] == "style"
            yield match["stem"] if match and dropped else stem_of(file.name)


def has_ended(job: JobInfo) -> bool:
    """Whether nothing more happens. A job that will be retried has not ended."""
    return job.state != "inbox" and job.state.terminal and job.requested != "retry"


def _place(cell: BatchCell) -> BatchPlace:
    return BatchPlace(
        name=cell.name, style=cell.style, swept=dict(cell.swept), position=cell.position
    )


def title(job: Job) -> str:
    """What tells a job apart: its name; for a picture of a batch its content, style and swept settings."""
    if not job.batch:
        return printable(job.name)
    content = next((file.name for file in job.inputs if file.role is Role.CONTENT), "")
    words = (content.rpartition(".")[0], job.batch.style, listed(job.batch.swept))
    return printable(", ".join(filter(None, words)))


def details(
    job: Job,
    asked: Sequence[Verb],
    events: Sequence[JobEvent],
    shared: Context,
) -> JobDetails:
    """Everything about a job."""
    return JobDetails(
        **dict(describe(job, asked)),
        inputs=[
            JobInputInfo(
                role=file.role,
                name=file.name,
                bytes=file.size,
                sha256=file.sha256,
                available=_available(job, number, shared),
            )
            for number, file in enumerate(job.inputs)
        ],
        settings=dict(job.settings),
        outputs=dict(job.outputs),
        events=[
            JobEventInfo(at=event.at, state=event.state, attempt=event.attempt, note=event.note)
            for event in events
        ],
        files=files_of(job, shared.folders),
    )


def _available(job: Job, number: int, shared: Context) -> bool:
    try:
        input_of(job, number, shared.config, shared.digest)
    except NotFoundError:
        return False
    return True
