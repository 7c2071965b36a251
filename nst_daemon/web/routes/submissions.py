"""New jobs from uploaded pictures and styles of the library."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress

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
from nst_daemon.web.models import (
    CheckResult,
    Estimate,
    Submission,
    Submitted,
    SubmittedJob,
)
from nst_daemon.web.references import (
    find_uploads,
    path_of,
    refuse,
    sizes_of,
    style_choice,
    uploads_of,
)
from nst_daemon.web.uploads import Upload

log = logging.getLogger(__name__)
router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post("", status_code=201)
def submit(body: Submission, shared: Shared) -> Submitted:
    """Submit one job for each content: all of them, or none if one is refused."""
    found, missing = find_uploads(shared.uploads, uploads_of(body.contents, body.styles))
    refuse(missing)
    with shared.uploads.used(found):
        jobs, library = _jobs(body, shared, found), shared.library()
        refuse(_problems(body, shared, library, jobs))
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
    found, problems = find_uploads(shared.uploads, uploads_of(body.contents, body.styles))
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


def _jobs(body: Submission, shared: Context, uploads: Mapping[str, Upload]) -> NewJobs:
    """The jobs of a submission; uploads that do not exist have an unknown path."""
    default = shared.config.default_style
    styles = [style_choice(style, uploads) for style in body.styles]
    contents = [
        JobContent(
            c.name or (uploads[c.upload].stem if c.upload in uploads else c.upload),
            path_of(c.upload, uploads),
            path_of(c.mask, uploads) if c.mask else None,
        )
        for c in body.contents
    ]
    if not styles and default:
        styles = [StyleChoice(default)]
    sizes = sizes_of(uploads.values())
    return NewJobs(contents, styles, body.settings, body.priority, sizes)
