"""Uploaded pictures: the only way in for bytes. Jobs, batches and styles name them by their ids."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from nst_daemon.names import printable
from nst_daemon.web.context import Shared
from nst_daemon.web.models import Identifier, UploadInfo
from nst_daemon.web.stored_files import RequestedFile, StoredFile
from nst_daemon.web.thumbnails import WEBP
from nst_daemon.web.uploads import Upload

log = logging.getLogger(__name__)
router = APIRouter(prefix="/uploads", tags=["uploads"])

#: The body of an upload, for the OpenAPI description.
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
FileName = Annotated[
    str,
    Query(
        min_length=1, max_length=1000, description="The name of the file, with its suffix: dog.jpg."
    ),
]


@router.post("", status_code=201, openapi_extra=_BODY)
async def upload(name: FileName, request: Request, shared: Shared) -> UploadInfo:
    """Upload a picture. The body is the file itself; its length must be known (Content-Length)."""
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal()):
        raise HTTPException(411, "the header Content-Length is missing")
    try:
        found = await shared.uploads.receive(name, int(length), aiter(request.stream()))
    except (ClientDisconnect, TimeoutError) as error:
        raise HTTPException(408, "the upload was given up: no more data arrived") from error
    log.debug("%s was uploaded (%s)", printable(found.name), found.id)
    return describe(found)


@router.get("/{id}")
def get(id: Identifier, shared: Shared) -> UploadInfo:
    """An uploaded picture."""
    return describe(shared.uploads.get(id))


@router.get("/{id}/thumbnail", response_class=Response, responses=WEBP)
def thumbnail(id: Identifier, shared: Shared, wanted: RequestedFile) -> Response:
    """An uploaded picture, reduced."""
    picture = shared.uploads.get(id).path
    file = StoredFile(picture.parent, picture.name)
    return shared.pictures.send(wanted, file, "thumbnail", shared.options.limits)


@router.delete("/{id}", status_code=204)
def delete(id: Identifier, shared: Shared) -> None:
    """Remove an uploaded picture. Jobs that were submitted with it keep their copies."""
    shared.uploads.delete(id)


def describe(upload: Upload) -> UploadInfo:
    """The JSON form of an upload."""
    return UploadInfo(
        id=upload.id,
        name=upload.name,
        bytes=upload.bytes,
        format=upload.format,
        width=upload.width,
        height=upload.height,
        expires=upload.expires,
    )
