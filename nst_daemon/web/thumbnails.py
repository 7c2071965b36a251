"""Reduced pictures as WebP, for browsers: of results, inputs and styles in every format, with a cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from starlette.responses import Response

from nst_daemon import files
from nst_daemon.config import Limits
from nst_daemon.errors import NstError
from nst_daemon.jobs import Fingerprint
from nst_daemon.names import printable
from nst_daemon.report.thumbnails import ResultLimits, reduced
from nst_daemon.unexpected import explain
from nst_daemon.web.error_bodies import NotFoundError
from nst_daemon.web.stored_files import FileRequest, StoredFile, etag_of

#: The longer side in pixels of each reduced size.
SIDES: Mapping[str, int] = {"thumbnail": 360, "view": 1600}
#: The number of cached pictures.
CACHED = 300
#: The sizes of a picture: reduced, or the file as it is.
Size = Literal["thumbnail", "view", "original"]

#: The description of a response with a reduced picture.
WEBP: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The picture",
    }
}

#: Decoding needs memory, so pictures are decoded one at a time.
_decoding = threading.Lock()


def send_picture(
    wanted: FileRequest,
    file: StoredFile,
    size: Size,
    limits: Limits | ResultLimits,
    name: str = "",
) -> Response:
    """A picture in one of the sizes.

    Args:
        wanted: How the client wants it.
        file: The picture.
        size: "original" for the file as it is.
        limits: For decoding.
        name: For downloads of the original; default: the file's own.

    Raises:
        NotFoundError: The file does not exist, or it cannot be decoded.
    """
    if size == "original":
        return wanted.send(file, name)
    status = file.status()
    etag = etag_of(status, size)
    if answer := wanted.unchanged(etag):
        return answer
    try:
        small = _reduced(file, files.fingerprint(status), SIDES[size], limits)
    except NotFoundError:
        raise
    except Exception as error:
        cause = error.message if isinstance(error, NstError) else explain(error)
        raise NotFoundError(f"{printable(file.path)} cannot be shown: {cause}") from error
    return Response(small, media_type="image/webp", headers=wanted.caching(etag))


@lru_cache(maxsize=CACHED)
def _reduced(
    file: StoredFile, version: Fingerprint, side: int, limits: Limits | ResultLimits
) -> bytes:
    """A picture as WebP. version: of the file, a part of the cache's key; side: in pixels."""
    with os.fdopen(file.open(), "rb") as opened, _decoding:
        return reduced(opened.fileno(), side, limits)
