"""Painting a job again with its inputs, also with changes."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import APIRouter

from nst_daemon.errors import UsageError
from nst_daemon.intake.submit import MissingInput
from nst_daemon.jobs import Job
from nst_daemon.names import printable
from nst_daemon.ops import rerun, submission
from nst_daemon.ops.retry_check import changes_of
from nst_daemon.ops.submission import FieldProblem, NewJobs
from nst_daemon.web.context import Context, Shared
from nst_daemon.web.error_bodies import ConflictError, FieldError
from nst_daemon.web.job_places import folders_with_inputs
from nst_daemon.web.job_search import get_job
from nst_daemon.web.models import Identifier, Repeat, Submitted, SubmittedJob
from nst_daemon.web.references import find_uploads, refuse, style_choice, uploads_of
from nst_daemon.web.uploads import Upload
from nst_daemon.weights_file import configured_weights

log = logging.getLogger(__name__)
router = APIRouter(tags=["jobs"])

#: The parts of a request that `submission.problems` names otherwise.
_FIELDS = {"settings": "set", "contents.0.name": "name"}


@router.post("/jobs/{id}/repeat", status_code=201)
def repeat(id: Identifier, body: Repeat, shared: Shared) -> Submitted:
    """Submit a job again with its inputs and settings, and with the changes that are given."""
    job = get_job(shared, id)
    if not job.settings:
        raise ConflictError(
            f"{printable(job.name)} ({job.short_id}) was refused before its settings were known",
            remedy="retry it, or submit its pictures as a new job",
        )
    found, missing = find_uploads(shared.uploads, uploads_of([], body.styles))
    refuse(missing)
    with shared.uploads.used(found) as uploads:
        jobs, library = _prepared(job, body, shared, uploads), shared.library()
        problems = submission.problems(shared.config, library, jobs)
        refuse(FieldProblem(_field(problem.field), problem.error) for problem in problems)
        with shared.space.reserved(shared.folders.inbox, _bytes(jobs)):
            (submitted,) = submission.submit(shared.config, library, jobs)
    log.info("%s was submitted again as %s", printable(job.name), printable(submitted.name))
    return Submitted(jobs=[SubmittedJob(id=submitted.id, name=submitted.name)])


def _prepared(job: Job, body: Repeat, shared: Context, uploads: Mapping[str, Upload]) -> NewJobs:
    """The new job. Raises FieldError for other weights, and InputError if an input is gone."""
    label, recipe = f"{printable(job.name)} ({job.short_id})", rerun.recipe_of(job)
    weights = configured_weights(shared.config.model, shared.folders.cache)
    difference = rerun.weights_difference(recipe, weights, label)
    if difference and not body.other_weights:
        error = UsageError(difference, remedy="allow other weights for this picture")
        raise FieldError.of(error, "other_weights")
    changes = rerun.RerunChanges(
        settings=changes_of(body.set, body.unset),
        styles=[style_choice(style, uploads) for style in body.styles],
        name=body.name,
        priority=body.priority,
    )
    try:
        return rerun.prepare(recipe, folders_with_inputs(job, shared.config), changes=changes)
    except MissingInput as error:
        raise ConflictError(
            f"{printable(error.name)} of {label} is not kept any more",
            remedy="upload it, and submit a new job",
        ) from error


def _bytes(jobs: NewJobs) -> int:
    """The size of all pictures of a job."""
    content = jobs.contents[0]
    paths = [content.picture, content.mask, content.start]
    paths += [path for style in jobs.styles for path in (style.picture, style.mask)]
    return sum(path.stat().st_size for path in paths if path and path.is_file())


def _field(field: str) -> str:
    """The part of this request that a problem of a submission is about."""
    first, dot, rest = field.partition(".")
    return _FIELDS.get(field) or f"{_FIELDS.get(first, first)}{dot}{rest}"
