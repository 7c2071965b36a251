"""Batches: every content in every style with every combination of the swept settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from nst_daemon.errors import NstError, UsageError
from nst_daemon.jobs import JobState
from nst_daemon.ledger_figures import BatchCounts, LedgerFigures, RefusedBatch
from nst_daemon.names import printable
from nst_daemon.ops import batch_submission
from nst_daemon.ops.batch_submission import BatchPicture, NewBatch
from nst_daemon.ops.estimates import Estimates
from nst_daemon.ops.submission import FieldProblem
from nst_daemon.publishing import SHEET
from nst_daemon.web import error_bodies
from nst_daemon.web.context import Context, Shared
from nst_daemon.web.models import (
    BatchInfo,
    BatchList,
    BatchRequest,
    CheckResult,
    Estimate,
)
from nst_daemon.web.references import find_uploads, refuse, unknown_batch, uploads_of
from nst_daemon.web.stored_files import RequestedFile, StoredFile, version_of
from nst_daemon.web.uploads import Upload

log = logging.getLogger(__name__)
router = APIRouter(prefix="/batches", tags=["batches"])

#: The contact sheet, for the OpenAPI description.
JPEG: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The contact sheet",
    }
}


@router.post("", status_code=201)
def submit(body: BatchRequest, shared: Shared) -> BatchInfo:
    """Submit a batch: all of it, or nothing if something is refused. The uploads can be used again."""
    uploads, problems = _uploads(body, shared)
    refuse(problems)
    with shared.uploads.used(uploads) as found:
        batch = _batch(body, found)
        checked = batch_submission.check(shared.config, shared.library(), batch)
        refuse(checked.problems)
        needed = sum(picture.path.stat().st_size for picture in _pictures(batch))
        with (
            shared.space.reserved(shared.folders.inbox, 0),  # it exists
            shared.space.reserved(shared.folders.state, needed),
        ):
            name = batch_submission.submit(shared.config, batch)
    log.info(
        "batch %s was submitted on the page: %d pictures", printable(name), len(checked.pictures)
    )
    with suppress(NstError):  # the batch is submitted: an error would ask for it again
        return _find(shared, name)
    return _describe(shared, name)


@router.post("/check")
def check(body: BatchRequest, shared: Shared) -> CheckResult:
    """Check a batch. The response has the number of pictures, the time, and all reasons for a refusal."""
    uploads, problems = _uploads(body, shared)
    number, seconds = 0, None
    if not problems:
        batch = _batch(body, uploads)
        checked = batch_submission.check(shared.config, shared.library(), batch)
        problems += checked.problems
        number = len(checked.pictures)
        seconds = Estimates.read(shared.folders).seconds(checked.planned(batch)) if number else None
    return CheckResult(
        problems=[error_bodies.body(problem.error, problem.field) for problem in problems],
        estimate=Estimate(pictures=number, seconds=seconds),
    )


@router.get("")
def batches(shared: Shared) -> BatchList:
    """List batches, newest first, including those whose file is still in the inbox or was refused."""
    described = _described(shared).values()
    return BatchList(batches=sorted(described, key=lambda batch: batch.created, reverse=True))


@router.get("/{name:path}/sheet", response_class=FileResponse, responses=JPEG)
def sheet(name: str, shared: Shared, wanted: RequestedFile) -> Response:
    """The contact sheet of a batch. It is made when the batch ends."""
    return wanted.send(
        StoredFile.inside(shared.folders.results, _sheet_path(name)), f"{name} {SHEET}"
    )


@router.get("/{name:path}")
def batch(name: str, shared: Shared) -> BatchInfo:
    """A batch. GET /jobs?batch=NAME lists its jobs."""
    return _find(shared, name)


def _find(shared: Context, name: str) -> BatchInfo:
    """The batch of this name. Raises NotFoundError."""
    found = _described(shared, name).get(name)
    if found is None:
        raise unknown_batch(name)
    return found


def _described(shared: Context, name: str | None = None) -> dict[str, BatchInfo]:
    """The batches, or that of this name, by their names."""
    # The inbox comes first: what leaves it between the two is in the ledger.
    waiting = batch_submission.waiting_batches(shared.folders)
    if name is not None:
        waiting = {name: waiting[name]} if name in waiting else {}
    with shared.ledger(LedgerFigures) as ledger:
        counted = {batch.name: batch for batch in ledger.batches(name)}
        refused = ledger.refused_batches(name)
    return {
        found: _describe(shared, found, counted.get(found), waiting.get(found), refused.get(found))
        for found in {**refused, **counted, **waiting}
    }


def _uploads(body: BatchRequest, shared: Context) -> tuple[dict[str, Upload], list[FieldProblem]]:
    """The uploads by their ids, and a problem for each that does not exist and for masks."""
    named = dict(uploads_of(body.contents, body.styles))
    found, problems = find_uploads(shared.uploads, named.items())
    error = UsageError(
        "the pictures of a batch cannot have masks", remedy="submit jobs, or remove the mask"
    )
    masks = [FieldProblem(field, error) for field in named if field.endswith(".mask")]
    return found, [*masks, *problems]


def _batch(body: BatchRequest, uploads: Mapping[str, Upload]) -> NewBatch:
    def picture(upload_id: str, name: str = "") -> BatchPicture:
        upload = uploads[upload_id]
        return BatchPicture(name or upload.stem, upload.path, (upload.width, upload.height))

    return NewBatch(
        name=body.name,
        contents=[picture(content.upload, content.name) for content in body.contents],
        styles=[style.library or picture(style.upload or "") for style in body.styles],
        settings=body.settings,
        sweep=body.sweep,
        priority=body.priority,
    )


def _pictures(batch: NewBatch) -> list[BatchPicture]:
    styles = [style for style in batch.styles if not isinstance(style, str)]
    return [*batch.contents, *styles]


def _describe(
    shared: Context,
    name: str,
    counted: BatchCounts | None = None,
    file: Path | None = None,
    refused: RefusedBatch | None = None,
) -> BatchInfo:
    """The JSON form of a batch.

    Args:
        shared: the context.
        name: of the batch.
        counted: its jobs, if it has some.
        file: its file in the inbox, if it is there.
        refused: the last file of this name that was refused. It does not count if a later one was accepted.
    """
    if file or (refused and counted and counted.created > refused.created):
        refused = None
    number: int | None = sum(counted.counts.values()) if counted else None
    if file:
        number = batch_submission.pictures_of(shared.folders, name, file)
    if counted is None:
        at = _modified(file) if file else time.time()
        created, updated = (refused.created, refused.updated) if refused else (at, at)
        counted = BatchCounts(name, created, updated, {})
    return BatchInfo(
        name=name,
        created=counted.created,
        updated=counted.updated,
        counts={state: counted.counts.get(state, 0) for state in JobState},
        pictures=number,
        waiting=file is not None,
        refused=refused.job_id if refused else "",
        sheet=version_of(shared.folders.results, _sheet_path(name)),
    )


def _modified(file: Path) -> float:
    """When a file was changed; now, if the daemon has taken it."""
    try:
        return file.stat().st_mtime
    except OSError:
        return time.time()


def _sheet_path(name: str) -> str:
    """The contact sheet of a batch, below results/."""
    return f"{name}/{SHEET}"
