"""Files below the folders of the root, and responses with them. No link leads out of a folder."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import Depends, Query, Request
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from nst_daemon import files
from nst_daemon.errors import NotFoundError, StorageError, first_line
from nst_daemon.names import printable
from nst_daemon.pictures.output_formats import OUTPUT_FORMATS

#: Media types by suffix. Python's table lacks some of these on some systems.
TYPES: Mapping[str, str] = {
    ".heic": "image/heic",
    ".json": "application/json",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".yaml": "text/plain; charset=utf-8",
    ".yml": "text/plain; charset=utf-8",
    **{suffix: known.media_type for known in OUTPUT_FORMATS for suffix in known.suffixes},
}
OTHER_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file below a folder of the root.

    Attributes:
        root: The folder.
        path: Below it. No link below `root` is followed.
    """

    root: Path
    path: str

    @classmethod
    def inside(cls, root: Path, path: str) -> StoredFile:
        """A file below a folder in which links may lead to other files of the folder.

        Raises:
            NotFoundError: The file does not exist, or it is outside of the folder.
            StorageError: The folder cannot be read.
        """
        files.check_folder(root)
        try:
            top = root.resolve()
            real = (top / path).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise _missing(path, first_line(error)) from error
        if not real.is_relative_to(top):
            raise _missing(path, "it is a link to a file outside of its folder")
        return cls(top, str(real.relative_to(top)))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """In lower case, with the dot."""
        return Path(self.name).suffix.lower()

    def open(self) -> int:
        """A descriptor of the file. Raises NotFoundError, and StorageError if the folder or the disk fails."""
        if any(part in {"", ".", ".."} for part in self.path.split("/")) or "\0" in self.path:
            raise _missing(self.path, "it is outside of its folder")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            with files.folder_of(self.root, self.path) as (folder, name):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise _missing(self.path, f"it is {files.kind(status.st_mode)}")
                return os.open(name, flags, dir_fd=folder)
        except OSError as error:
            self.check_folder()
            if fault := files.read_error(error, printable(self.path)):
                raise fault from error
            cause = error.strerror or first_line(error)
            if isinstance(error, FileNotFoundError):
                cause = "it does not exist"
            raise _missing(self.path, cause) from error

    def check_folder(self) -> None:
        """Raise StorageError if the folder cannot be read, as after an unmount: its files may exist."""
        files.check_folder(self.root)

    def status(self) -> os.stat_result:
        """The status of the file. Raises like `open`."""
        descriptor = self.open()
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def size(self) -> int:
        """In bytes; -1 if the file cannot be opened."""
        try:
            return self.status().st_size
        except (NotFoundError, StorageError):
            return -1


def version_of(root: Path, path: str) -> int:
    """The modification time of a file in milliseconds since the epoch; 0 if it cannot be sent."""
    try:
        return StoredFile.inside(root, path).status().st_mtime_ns // 1_000_000
    except (NotFoundError, StorageError):
        return 0


@dataclass(frozen=True)
class FileRequest:
    """How a file is sent.

    Attributes:
        request: With the headers of the client.
        download: Whether browsers save the file instead of showing it.
        version: Of the file in the address; "" if the address does not change with it.
    """

    request: Request
    download: bool
    version: str

    def caching(self, etag: str) -> dict[str, str]:
        """The headers for caches. An address with a version always means the same bytes."""
        kept = "private, max-age=31536000, immutable" if self.version else "private, no-cache"
        return {"Cache-Control": kept, "ETag": etag}

    def unchanged(self, etag: str) -> Response | None:
        """The response for a client that has these bytes; None for others."""
        known = self.request.headers.get("if-none-match", "")
        if etag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
            return Response(status_code=304, headers=self.caching(etag))
        return None

    def send(self, file: StoredFile, name: str = "") -> Response:
        """A file as it is.

        Args:
            file: The file.
            name: For downloads; default: the file's own.

        Raises:
            NotFoundError: The file cannot be opened.
        """
        descriptor = file.open()
        try:
            status = os.fstat(descriptor)
            etag = etag_of(status)
            if not (answer := self.unchanged(etag)):
                return OpenFileResponse(
                    descriptor,
                    status,
                    media_type=TYPES.get(file.suffix, OTHER_TYPE),
                    headers={
                        **self.caching(etag),
                        "Content-Disposition": disposition(
                            "attachment" if self.download else "inline", name or file.name
                        ),
                    },
                )
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return answer


def _file_request(
    request: Request,
    download: Annotated[bool, Query(description="Let browsers save it.")] = False,
    v: Annotated[
        str,
        Query(
            max_length=100,
            description="Any text that changes with the file, such as `updated`: then caches may keep it.",
        ),
    ] = "",
) -> FileRequest:
    return FileRequest(request, download, v)


RequestedFile = Annotated[FileRequest, Depends(_file_request)]


class OpenFileResponse(FileResponse):
    """A response with an open file, which is closed at the end. Ranges are supported.

    Args:
        descriptor: Of the file.
        status: Of the file.
    """

    def __init__(
        self,
        descriptor: int,
        status: os.stat_result,
        *,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        path = f"/proc/self/fd/{descriptor}"
        super().__init__(path, headers=headers, media_type=media_type, stat_result=status)
        self._descriptor = descriptor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._descriptor)


def disposition(kind: Literal["inline", "attachment"], name: str) -> str:
    """The header Content-Disposition (RFC 6266): a name in ASCII for old clients, and the exact one."""
    name = printable(name)
    plain = re.sub(r'[^ -~]|["\\\\%]', "_", name)
    exact = f"; filename*=UTF-8''{quote(name, safe='')}" if plain != name else ""
    return f'{kind}; filename="{plain}"{exact}'


def etag_of(status: os.stat_result, kind: str = "") -> str:
    """The ETag of a version of a file. kind: of what is made from the file."""
    version = f"{files.fingerprint(status)} {kind}"
    return f'"{hashlib.sha256(version.encode()).hexdigest()[:32]}"'


def _missing(path: str, cause: str) -> NotFoundError:
    return NotFoundError(f"{printable(path)} cannot be read: {cause}")
