"""Reduced pictures as WebP, for browsers: of results, inputs and styles in every format, with a cache."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nst_daemon import files
from nst_daemon.config import Limits
from nst_daemon.errors import NstError
from nst_daemon.jobs import Fingerprint
from nst_daemon.names import printable
from nst_daemon.report.thumbnails import ResultLimits, reduced
from nst_daemon.unexpected import explain
from nst_daemon.web import error_bodies
from nst_daemon.web.error_bodies import NotFoundError
from nst_daemon.web.models import PictureSize
from nst_daemon.web.stored_files import FileRequest, StoredFile, etag_of

#: The longer side in pixels of each reduced size.
SIDES: Mapping[str, int] = {"thumbnail": 360, "view": 1600}
#: The number of cached pictures.
CACHED = 300
#: The description of a response with a reduced picture.
WEBP: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The picture",
    }
}

#: What makes a reduced picture: the file, its version, the longer side in pixels, and the limits for decoding.
PictureKey = tuple[StoredFile, Fingerprint, int, Limits | ResultLimits]


def send_picture(
    wanted: FileRequest,
    file: StoredFile,
    size: PictureSize,
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
        NotFoundError: The file does not exist.
    """
    if size == "original":
        return wanted.send(file, name)
    status = file.status()
    etag = etag_of(status, size)
    if answer := wanted.unchanged(etag):
        return answer
    key = (file, files.fingerprint(status), SIDES[size], limits)
    return ReducedPicture(key, wanted.caching(etag))


class ReducedPicture(Response):
    """A response with a reduced picture, or 404 with the reason if it cannot be decoded.

    One picture is decoded at a time, because decoding needs memory. Requests wait for it without a thread, so that
    others are answered.

    Args:
        key: The picture.
        headers: Of the response.
    """

    def __init__(self, key: PictureKey, headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self._key, self._own_headers = key, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the picture."""
        try:
            small = await self._picture(Request(scope, receive))
        except NotFoundError as error:
            answer = error_bodies.response(404, error_bodies.body(error))
        else:
            headers = dict(self._own_headers)
            answer = Response(small, media_type="image/webp", headers=headers)
        await answer(scope, receive, send)

    async def _picture(self, request: Request) -> bytes:
        """The picture; nothing if the client has gone. Raises NotFoundError."""
        if found := _cache.get(self._key):
            return found
        async with _cache.turn():
            if found := _cache.get(self._key):
                return found
            if await request.is_disconnected():
                return b""
            made = await asyncio.to_thread(_reduced, self._key)
            _cache.put(self._key, made)
            return made


class _Cache:
    """The reduced pictures that were sent last."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[PictureKey, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._turns = WeakKeyDictionary()

    def get(self, key: PictureKey) -> bytes | None:
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def put(self, key: PictureKey, picture: bytes) -> None:
        with self._lock:
            self._pictures[key] = picture
            if len(self._pictures) > CACHED:
                self._pictures.popitem(last=False)

    def turn(self) -> asyncio.Semaphore:
        """One picture is decoded at a time."""
        with self._lock:
            return self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(1))


_cache = _Cache()


def _reduced(key: PictureKey) -> bytes:
    """A picture as WebP. Raises NotFoundError if it cannot be decoded."""
    file, _, side, limits = key
    try:
        with os.fdopen(file.open(), "rb") as opened:
            return reduced(opened.fileno(), side, limits)
    except NotFoundError:
        raise
    except Exception as error:
        cause = error.message if isinstance(error, NstError) else explain(error)
        raise NotFoundError(f"{printable(file.path)} cannot be shown: {cause}") from error
