"""New jobs from uploaded pictures and styles of the library."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter

from nst_daemon.errors import LedgerError, StorageError, UsageError
from nst_daemon.intake.drops import Style
from nst_daemon.names import printable, shortened
from nst_daemon.ops import submission
from nst_daemon.ops.estimates import Estimates, Planned
from nst_daemon.ops.submission import FieldProblem, JobContent, NewJobs, StyleChoice
from nst_daemon.units import count
from nst_daemon.web import error_bodies
from nst_daemon.web.context import Context, Shared
from nst_daemon.web.error_bodies import FieldError, NotFoundError
from nst_daemon.web.models import (
    CheckResult,
    Estimate,
    Submission,
    Submitted,
    SubmittedJob,
)
from nst_daemon.web.uploads import Upload

log = logging.getLogger(__name__)
router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post("", status_code=201)
def submit(body: Submission, shared: Shared) -> Submitted:
    """Submit one job for each content: all of them, or none if one is refused."""
    found, missing = _uploads(body, shared)
    for problem in missing:
        raise FieldError.of(problem.error, problem.field)
    with shared.uploads.used(found):
        jobs, library = _jobs(body, shared, found), shared.library()
        for problem in _problems(body, shared, library, jobs):
            raise FieldError.of(problem.error, problem.field)
        copied = sum(found[content.upload].bytes for content in body.contents)
        copied += sum(found[content.mask].bytes for content in body.contents if content.mask)
        shared_files = [i for style in body.styles for i in (style.upload, style.mask) if i]
        copied += len(body.contents) * sum(found[i].bytes for i in shared_files)
        with shared.space.reserved(shared.folders.inbox, copied):
            submitted = submission.submit(shared.config, library, jobs)
    names = shortened(", ".join(printable(job.name) for job in submitted))
    log.info("%s submitted on the page: %s", count(len(submitted), "job"), names)
    return Submitted(jobs=[SubmittedJob(id=job.id, name=job.name) for job in submitted])


@router.post("/check")
def check(body: Submission, shared: Shared) -> CheckResult:
    """Check a submission. The response lists everything for which it would be refused; nothing is submitted."""
    found, problems = _uploads(body, shared)
    jobs = _jobs(body, shared, found)
    library = shared.library()
    problems += _problems(body, shared, library, jobs)
    seconds = None
    if not problems:
        settings = submission.resolved(shared.config, library, jobs)
        contents = [found[content.upload] for content in body.contents]
        planned = [Planned(settings, (upload.width, upload.height)) for upload in contents]
        with suppress(LedgerError, StorageError):
            seconds = Estimates.read(shared.folders).seconds(planned)
    return CheckResult(
        problems=[error_bodies.body(problem.error, problem.field) for problem in problems],
        estimate=Estimate(pictures=len(body.contents), seconds=seconds),
    )


def _problems(
    body: Submission, shared: Context, library: Mapping[str, Style], jobs: NewJobs
) -> Iterator[FieldProblem]:
    """The problems of jobs, with the fields of the request."""
    for problem in submission.problems(shared.config, library, jobs):
        if not body.styles and problem.field.startswith("styles."):
            said = f"default_style of the configuration: {problem.error.message}"
            yield FieldProblem("styles", UsageError(said, remedy=problem.error.remedy))
        else:
            yield problem


def _named(body: Submission) -> Iterator[tuple[str, str]]:
    """The field and the id of each upload."""
    for number, content in enumerate(body.contents):
        yield f"contents.{number}.upload", content.upload
        if content.mask:
            yield f"contents.{number}.mask", content.mask
    for number, style in enumerate(body.styles):
        if style.upload:
            yield f"styles.{number}.upload", style.upload
        if style.mask:
            yield f"styles.{number}.mask", style.mask


def _uploads(body: Submission, shared: Context) -> tuple[dict[str, Upload], list[FieldProblem]]:
    """The uploads by their ids, and a problem for each that does not exist."""
    found: dict[str, Upload] = {}
    problems = []
    for field, upload_id in _named(body):
        try:
            found[upload_id] = shared.uploads.get(upload_id)
        except NotFoundError as error:
            problems.append(FieldProblem(field, UsageError(error.message, remedy=error.remedy)))
    return found, problems


def _jobs(body: Submission, shared: Context, uploads: Mapping[str, Upload]) -> NewJobs:
    """The jobs of a submission; uploads that do not exist have an unknown path."""

    def path(upload_id: str | None) -> Path | None:
        if upload_id is None:
            return None
        return uploads[upload_id].path if upload_id in uploads else Path(upload_id)

    default = shared.config.default_style
    styles = [StyleChoice(s.library or "", path(s.upload), path(s.mask)) for s in body.styles] or (
        [StyleChoice(default)] if default else []
    )
    contents = [
        JobContent(
            c.name or (uploads[c.upload].stem if c.upload in uploads else c.upload),
            path(c.upload) or Path(c.upload),
            path(c.mask),
        )
        for c in body.contents
    ]
    return NewJobs(contents, styles, body.settings, body.priority)
