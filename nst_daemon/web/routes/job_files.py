"""The files of jobs: results and what is beside them, inputs, previews, and archives of several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from nst_daemon.errors import NotFoundError
from nst_daemon.jobs import Job
from nst_daemon.names import printable
from nst_daemon.report.thumbnails import ResultLimits
from nst_daemon.web import inbox_jobs, job_places
from nst_daemon.web.context import Context, Shared
from nst_daemon.web.job_search import get_job
from nst_daemon.web.models import MAX_ZIPPED, Identifier, JobFile, PictureSize
from nst_daemon.web.stored_files import RequestedFile, StoredFile, disposition
from nst_daemon.web.zip_stream import Member, zip_stream

router = APIRouter(tags=["files"])

#: Seconds between two looks for an input that is being moved to done/ or failed/.
MOVING_PAUSES = (0.1, 0.3)
SizeQuery = Annotated[PictureSize, Query(description="The reduced sizes are WebP, for any format.")]


def _binary(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The description of a response with bytes of these media types."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"content": dict.fromkeys(kinds, schema), "description": "The file"}}


PICTURE, ANY = _binary("image/*"), _binary("*/*")
JSON: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/json": {"schema": {"type": "object"}}},
        "description": "The sidecar",
    }
}


@router.get("/jobs/{id}/result", response_class=Response, responses=PICTURE)
def result(
    id: Identifier, shared: Shared, wanted: RequestedFile, size: SizeQuery = "original"
) -> Response:
    """The picture of a job."""
    file = job_places.result_of(get_job(shared, id), shared.folders)
    return shared.pictures.send(wanted, file, size, ResultLimits.of(shared.options.limits))


@router.get("/jobs/{id}/inputs/{number}", response_class=Response, responses=ANY)
def job_input(
    id: Identifier,
    number: int,
    shared: Shared,
    wanted: RequestedFile,
    size: SizeQuery = "original",
) -> Response:
    """An input of a job; the first has the number 0."""
    limits = shared.options.limits
    try:
        job = get_job(shared, id)
    except NotFoundError:
        try:
            file = inbox_jobs.input_of(shared, id, number)
            return shared.pictures.send(wanted, file, size, limits)
        except NotFoundError as error:
            try:
                job = get_job(shared, id)  # the daemon has just taken it
            except NotFoundError:
                raise error from None
    for pause in (*MOVING_PAUSES, None):
        try:
            file = job_places.input_of(job, number, shared.config, shared.digest)
            break
        except NotFoundError:
            # The daemon moves the files of a job before the ledger says where they are.
            if pause is None or job.archive or job.deleted:
                raise
        time.sleep(pause)
        job = get_job(shared, id)
    return shared.pictures.send(wanted, file, size, limits, job.inputs[number].name)


@router.get("/jobs/{id}/preview", response_class=Response, responses=PICTURE)
def preview(id: Identifier, shared: Shared, wanted: RequestedFile) -> Response:
    """The current preview, while the job is painted."""
    return wanted.send(job_places.preview_of(id, shared.folders))


@router.get("/jobs/{id}/sidecar", response_class=Response, responses=JSON)
def sidecar(id: Identifier, shared: Shared, wanted: RequestedFile) -> Response:
    """Everything that produced the picture, as JSON."""
    return wanted.send(_beside(shared, id, "sidecar"))


@router.get("/jobs/{id}/loss-plot", response_class=Response, responses=PICTURE)
def loss_plot(id: Identifier, shared: Shared, wanted: RequestedFile) -> Response:
    """The loss curve."""
    return wanted.send(_beside(shared, id, "loss-plot"))


@router.get("/jobs/{id}/time-lapse", response_class=Response, responses=PICTURE)
def time_lapse(id: Identifier, shared: Shared, wanted: RequestedFile) -> Response:
    """The time-lapse of the painting."""
    return wanted.send(_beside(shared, id, "time-lapse"))


@router.get("/jobs/{id}/zip", response_class=Response, responses=_binary("application/zip"))
def job_zip(id: Identifier, shared: Shared) -> Response:
    """The picture of a job and its sidecar in a ZIP file."""
    job = get_job(shared, id)
    job_places.result_of(job, shared.folders).status()
    return _zip([job], shared, f"{PurePath(job.result).stem}.zip")


@router.get("/results.zip", response_class=Response, responses=_binary("application/zip"))
def results_zip(
    id: Annotated[list[Identifier], Query(min_length=1, max_length=MAX_ZIPPED)],
    shared: Shared,
) -> Response:
    """The pictures of several jobs and their sidecars in a ZIP file. Files that were removed are left out."""
    jobs = [get_job(shared, one) for one in dict.fromkeys(id)]
    kept = [job for job in jobs if "result" in job_places.files_of(job, shared.folders)]
    for job in kept:
        job_places.result_of(job, shared.folders).check_folder()
    if not kept:
        raise NotFoundError("none of these jobs has a result", remedy="name jobs that are done")
    return _zip(kept, shared, "results.zip")


def _beside(shared: Context, job_id: str, what: JobFile) -> StoredFile:
    return job_places.file_of(get_job(shared, job_id), shared.folders, what)


def _zip(jobs: Sequence[Job], shared: Context, name: str) -> Response:
    members = []
    for job in jobs:
        whole = PurePath(job.result) if len(jobs) > 1 else PurePath(PurePath(job.result).name)
        names = {"result": whole, "sidecar": whole.with_suffix(".json")}
        for what in ("result", "sidecar"):
            with suppress(NotFoundError):
                file = job_places.file_of(job, shared.folders, what)
                members.append(Member(file, printable(str(names[what]))))
    headers = {"Content-Disposition": disposition("attachment", name)}
    return StreamingResponse(zip_stream(members), media_type="application/zip", headers=headers)
