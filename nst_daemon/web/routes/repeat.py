"""Painting a job again with its inputs, also with changes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fastapi import APIRouter

from nst_daemon.config import Config
from nst_daemon.errors import InputError, UsageError
from nst_daemon.intake.submit import MissingInput
from nst_daemon.jobs import Job, Role
from nst_daemon.names import printable
from nst_daemon.ops import rerun, submission
from nst_daemon.ops.rerun import ChosenStyle
from nst_daemon.ops.retry_check import changes_of
from nst_daemon.ops.submission import FieldProblem, NewJobs
from nst_daemon.report.sidecar import Recipe
from nst_daemon.web.context import Context, Shared
from nst_daemon.web.error_bodies import ConflictError, FieldError
from nst_daemon.web.job_places import folders_with_inputs
from nst_daemon.web.job_search import get_job
from nst_daemon.web.models import Identifier, Repeat, RepeatedStyle, Submitted, SubmittedJob
from nst_daemon.web.references import find_uploads, path_of, refuse, sizes_of, uploads_of
from nst_daemon.web.uploads import Upload
from nst_daemon.weights_file import configured_weights

log = logging.getLogger(__name__)
router = APIRouter(tags=["jobs"])

#: The parts of a request that `submission.problems` names otherwise.
_FIELDS = {
    "settings": "set",
    "contents.0.name": "name",
    "contents.0.mask": "content_mask",
}


@router.post("/jobs/{id}/repeat", status_code=201)
def repeat(id: Identifier, body: Repeat, shared: Shared) -> Submitted:
    """Submit a job again with its inputs and settings, and with the changes that are given."""
    job = get_job(shared, id)
    named = dict(uploads_of([], body.styles))
    if isinstance(body.content_mask, str):
        named["content_mask"] = body.content_mask
    found, missing = find_uploads(shared.uploads, named.items())
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
    label, recipe = f"{printable(job.name)} ({job.short_id})", _recipe(job, body, shared)
    weights = configured_weights(shared.config.model, shared.folders.cache)
    difference = rerun.weights_difference(recipe, weights, label)
    if difference and not body.other_weights:
        error = UsageError(difference, remedy="allow other weights for this picture")
        raise FieldError.of(error, "other_weights")
    changes = rerun.RerunChanges(
        settings=changes_of(body.set, body.unset),
        styles=[_style(f"styles.{n}", s, job, uploads) for n, s in enumerate(body.styles)],
        content_mask=_source("content_mask", body.content_mask, job, Role.CONTENT_MASK, uploads),
        name=body.name,
        priority=body.priority,
    )
    try:
        jobs = rerun.prepare(recipe, folders_with_inputs(job, shared.config), changes=changes)
    except MissingInput as error:
        raise ConflictError(
            f"{printable(error.name)} of {label} is not kept any more",
            remedy="upload it, and submit a new job",
        ) from error
    return replace(jobs, sizes=_sizes(jobs, uploads, shared.config))


def _recipe(job: Job, body: Repeat, shared: Context) -> Recipe:
    """What the job was painted from. Raises ConflictError if that is unknown."""
    if job.settings:
        return rerun.recipe_of(job)
    label = f"{printable(job.name)} ({job.short_id})"
    if not body.styles:
        raise ConflictError(
            f"{label} was refused before its styles and settings were known",
            remedy="retry it, choose styles for it, or submit its pictures as a new job",
        )
    try:
        limits = shared.config.limits
        return rerun.refused_recipe(job, shared.folders.failed, limits.max_bytes)
    except InputError as error:  # also if the file is being changed
        raise ConflictError(
            f"{label} was refused, and cannot be painted in other styles: {error.message}",
            remedy="submit its pictures as a new job",
        ) from error


def _style(
    field: str, style: RepeatedStyle, job: Job, uploads: Mapping[str, Upload]
) -> ChosenStyle:
    """A style of the new job. field: of the request. Raises FieldError if an input is not what it should be."""
    picture = style.upload if style.input is None else style.input
    return ChosenStyle(
        style.library or "",
        _source(f"{field}.input", picture, job, Role.STYLE, uploads),
        _source(f"{field}.mask", style.mask, job, Role.STYLE_MASK, uploads),
    )


def _source(
    field: str, named: str | int | None, job: Job, role: Role, uploads: Mapping[str, Upload]
) -> Path | int | None:
    """The file of an upload, or the number of an input, which must have this role."""
    if isinstance(named, str):
        return path_of(named, uploads)
    if named is not None and role not in {i.role for i in job.inputs[named : named + 1]}:
        raise FieldError.of(
            UsageError(
                f"input {named} of {printable(job.name)} is not a {role.value.replace('-', ' ')}",
                remedy=f"GET /api/v1/jobs/{job.id} lists the inputs",
            ),
            field,
        )
    return named


def _sizes(
    jobs: NewJobs, uploads: Mapping[str, Upload], config: Config
) -> dict[Path, tuple[int, int]]:
    """Height and width of uploads, and of the pictures that uploaded masks are laid over."""
    sizes = sizes_of(uploads.values())
    (content,) = jobs.contents
    if sizes.keys().isdisjoint({content.mask, *(style.mask for style in jobs.styles)}):
        return sizes
    # The readers need much memory: they are loaded only if they are needed.
    from nst_daemon.pictures.decode import read_header  # noqa: PLC0415

    pictures = {content.picture, *(style.picture for style in jobs.styles if style.picture)}
    for path in pictures - sizes.keys():
        with suppress(InputError):  # the daemon says why
            sizes[path] = read_header(path, config.limits).size
    return sizes


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
