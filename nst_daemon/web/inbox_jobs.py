"""Jobs that are still in the inbox, as JSON: they have an id, and the ledger does not know them yet."""

from __future__ import annotations

from nst_daemon.errors import NotFoundError
from nst_daemon.intake import dropped
from nst_daemon.intake.dropped import InboxJob
from nst_daemon.jobs import Role, short_id
from nst_daemon.ledger_listing import JobFilter
from nst_daemon.names import composed
from nst_daemon.web.context import Context
from nst_daemon.web.models import JobDetails, JobInfo, JobInputInfo
from nst_daemon.web.stored_files import StoredFile


def waiting(shared: Context, wanted: JobFilter) -> list[InboxJob]:
    """The jobs in the inbox that a filter selects. They have no batch, group or result, and have not changed yet.

    Raises:
        StorageError: The inbox cannot be read, or is missing.
    """
    if wanted != JobFilter(states=wanted.states, part=wanted.part):
        return []
    part = composed(wanted.part).casefold()
    return [job for job in dropped.jobs(shared.folders.inbox) if part in job.name.casefold()]


def find(shared: Context, job_id: str) -> InboxJob | None:
    """The job with this id, if it is in the inbox. Raises StorageError, also if the inbox is missing."""
    return dropped.get(shared.folders.inbox, job_id)


def describe(job: InboxJob, shared: Context) -> JobInfo:
    """A job of the inbox in a list."""
    inbox, limits = shared.folders.inbox, shared.options.limits
    settings = dropped.settings_of(job, inbox, limits.max_bytes)
    return JobInfo(
        id=job.id,
        short_id=short_id(job.id),
        name=job.name,
        title=job.name,
        source="pair",
        state="inbox",
        created=job.appeared,
        updated=job.appeared,
        priority=settings.priority,
        attempts=0,
        error="",
        result="",
        batch=None,
        styles=list(settings.styles),
        requested="",
        actions=[],
    )


def details(job: InboxJob, shared: Context) -> JobDetails:
    """Everything about a job of the inbox."""
    settings = dropped.settings_of(job, shared.folders.inbox, shared.options.limits.max_bytes)
    return JobDetails(
        **dict(describe(job, shared)),
        inputs=[
            JobInputInfo(
                role=role, name=file.name, bytes=max(0, size), sha256="", available=size >= 0
            )
            for role, file in _pictures(job, shared)
            for size in (file.size(),)
        ],
        settings=dict(settings.settings),
        outputs={},
        events=[],
        files=[],
    )


def input_of(shared: Context, job_id: str, number: int) -> StoredFile:
    """A picture of a job of the inbox. Raises NotFoundError."""
    job = find(shared, job_id)
    pictures = _pictures(job, shared) if job else []
    if not 0 <= number < len(pictures):
        raise NotFoundError(f"there is no input {number} of a job {job_id}")
    return pictures[number][1]


def _pictures(job: InboxJob, shared: Context) -> list[tuple[Role, StoredFile]]:
    inbox = shared.folders.inbox
    return [(role, StoredFile(inbox, name)) for role, name in dropped.pictures_of(job, inbox)]
