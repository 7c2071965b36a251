"""Reduced pictures as WebP, for browsers: of results, inputs and styles in every format, with a cache."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nst_daemon import files
from nst_daemon.config import Limits
from nst_daemon.errors import NotFoundError, NstError
from nst_daemon.jobs import Fingerprint
from nst_daemon.names import printable
from nst_daemon.report.thumbnails import ResultLimits, reduced
from nst_daemon.unexpected import explain
from nst_daemon.web import error_bodies
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


class ReducedPictures:
    """Reduces pictures for responses, and keeps those that were sent last. It belongs to one event loop."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[PictureKey, bytes] = OrderedDict()
        self._turn = asyncio.Semaphore(1)

    def send(
        self,
        wanted: FileRequest,
        file: StoredFile,
        size: PictureSize,
        limits: Limits | ResultLimits,
        name: str = "",
    ) -> Response:
        """The response with a picture in one of the sizes.

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
        opened = os.fdopen(file.open(), "rb")
        status = os.fstat(opened.fileno())
        etag = etag_of(status, size)
        if answer := wanted.unchanged(etag):
            opened.close()
            return answer
        key = (file, files.fingerprint(status), SIDES[size], limits)
        return _PictureResponse(self, key, opened, wanted.caching(etag))

    async def get(self, key: PictureKey, take: Callable[[], BinaryIO], request: Request) -> bytes:
        """A reduced picture; nothing if the client has gone. take: returns its file, which is closed then.

        One picture is decoded at a time, because decoding needs memory. Requests wait for it without a thread, so that
        others are answered.

        Raises:
            NotFoundError: It cannot be decoded.
        """
        if found := self._kept(key):
            return found
        async with self._turn:
            if found := self._kept(key):
                return found
            if await request.is_disconnected():
                return b""
            made = self._pictures[key] = await asyncio.to_thread(_reduced, key, take())
        if len(self._pictures) > CACHED:
            self._pictures.popitem(last=False)
        return made

    def _kept(self, key: PictureKey) -> bytes | None:
        if key in self._pictures:
            self._pictures.move_to_end(key)
        return self._pictures.get(key)


class _PictureResponse(Response):
    """A response with a reduced picture, or 404 with the reason if it cannot be decoded.

    The file is open from the beginning: the daemon may move it before it is decoded.
    """

    def __init__(
        self,
        pictures: ReducedPictures,
        key: PictureKey,
        opened: BinaryIO,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers=headers)
        self._pictures, self._key, self._own_headers = pictures, key, headers
        self._files = [opened]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the picture."""
        try:
            small = await self._pictures.get(self._key, self._files.pop, Request(scope, receive))
        except NotFoundError as error:
            answer = error_bodies.response(404, error_bodies.body(error))
        else:
            headers = dict(self._own_headers)
            answer = Response(small, media_type="image/webp", headers=headers)
        finally:
            for unused in self._files:
                unused.close()
        await answer(scope, receive, send)


def _reduced(key: PictureKey, opened: BinaryIO) -> bytes:
    """A picture as WebP; its file is closed. Raises NotFoundError if it cannot be decoded."""
    file, _, side, limits = key
    try:
        with opened:
            return reduced(opened.fileno(), side, limits, name=printable(file.name))
    except Exception as error:
        cause = error.message if isinstance(error, NstError) else explain(error)
        raise NotFoundError(f"{printable(file.path)} cannot be shown: {cause}") from error
