"""Uploads from the form: pictures are written as they arrive, and stay hidden until all are complete.

The form has its fields first: `library` (the name of a style, and so of a hot folder) or `name` (of the job). Then the
files: one `content` and one `style`, or, with `library`, any number of `content`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from nst_daemon import files
from nst_daemon.errors import StorageError, UsageError
from nst_daemon.intake.drops import Style
from nst_daemon.intake.library import list_styles, style_problem
from nst_daemon.intake.submit import Delivery, check_format, picture_suffix
from nst_daemon.jobs import Role
from nst_daemon.mounts import free_bytes
from nst_daemon.names import composed, printable
from nst_daemon.units import size
from nst_daemon.web.error_bodies import TooLargeError
from nst_daemon.web.options import PageOptions

#: Limits: files and fields in one request, and bytes of a field.
MAX_PARTS, MAX_TEXT = 100, 1000
#: Seconds without data after which an upload is given up.
UPLOAD_TIMEOUT = 60.0

#: Two requests must not choose the same name.
_naming = asyncio.Lock()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A finished upload.

    Attributes:
        folder: the hot folder; empty for the inbox itself.
        names: the names of the jobs.
    """

    folder: str
    names: tuple[str, ...]


async def drop(
    content_type: str,
    length: int,
    chunks: AsyncIterator[bytes],
    options: PageOptions,
    timeout: float = UPLOAD_TIMEOUT,
) -> Dropped:
    """Read the body of a form and put its pictures into the inbox. After an error, none of its files remain.

    Args:
        content_type: the header Content-Type.
        length: the header Content-Length, in bytes.
        chunks: the body.
        options: folders and limits.
        timeout: seconds without data after which the upload is given up.

    Raises:
        UsageError: the form is invalid, or is not a job.
        TooLargeError: a picture is too large.
        StorageError: the inbox is full or cannot be written to.
        TimeoutError: no more data arrived.
    """
    kind, parameters = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in parameters:
        raise UsageError(
            "the request is not multipart/form-data", remedy="use the form of the page"
        )
    await asyncio.to_thread(_check_room, options, length)
    with Form(options) as form:
        try:
            parser = MultipartParser(
                parameters[b"boundary"],
                {
                    "on_part_begin": form.begin_part,
                    "on_header_field": form.add_to_header_name,
                    "on_header_value": form.add_to_header_value,
                    "on_header_end": form.end_header,
                    "on_headers_finished": form.begin_data,
                    "on_part_data": form.add_data,
                    "on_part_end": form.end_part,
                    "on_end": form.end,
                },
            )
            while chunk := await asyncio.wait_for(anext(chunks, b""), timeout):
                parser.write(chunk)
        except FormParserError as error:
            raise UsageError(f"the form is invalid: {error}") from error
        async with _naming:
            return await asyncio.to_thread(form.appear)


def _check_room(options: PageOptions, length: int) -> None:
    free = free_bytes(options.folders.inbox)
    if free - length < options.limits.min_free_disk:
        raise StorageError(
            f"the inbox has only {size(free)} of free space",
            remedy="free some space, or lower limits.min_free_disk",
        )


@dataclass(slots=True)
class _File:
    """A picture that is arriving. `label`: its printable name; `left`: remaining bytes of the size limit."""

    label: str
    sink: BinaryIO
    left: int
    empty: bool = True


class Form:
    """The parts of a form, from the callbacks of the parser."""

    def __init__(self, options: PageOptions) -> None:
        self._options = options
        self._stack = ExitStack()
        self._parts = 0
        self._header_name, self._header_value = bytearray(), bytearray()
        self._disposition = b""
        self._field = ""  # name of the current or last field
        self._text: bytearray | None = None  # of the current field
        self._file: _File | None = None  # the current one
        self._fields: dict[str, str] = {}
        self._pair: Delivery | None = None
        self._roles: set[Role] = set()  # of the pair's pictures that have arrived
        self._jobs: list[tuple[str, Delivery]] = []  # names and pictures
        self._whole = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def appear(self) -> Dropped:
        """Make the files visible to the daemon. Raises UsageError if they are not a job."""
        if not self._whole:
            raise UsageError("the form is incomplete", remedy="send it again")
        if not self._jobs:
            raise UsageError("there is no picture", remedy="choose a picture")
        folder = self._fields.get("library", "")
        if folder and (problem := style_problem(self._library(), composed(folder))):
            raise UsageError(problem)
        if not folder and len(self._roles) < 2:
            raise UsageError("a picture or a style is missing", remedy="choose both")
        named = self._fields.get("name", "").strip()
        names = tuple(delivery.appear(named or name, folder) for name, delivery in self._jobs)
        return Dropped(folder, names)

    def _library(self) -> dict[str, Style]:
        return list_styles(self._options.folders.styles, self._options.limits.max_bytes)

    def begin_part(self) -> None:
        """A field or a file begins."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise UsageError(
                f"the form has more than {MAX_PARTS} parts", remedy="send fewer pictures"
            )
        self._text = self._file = None
        self._disposition = b""

    def add_to_header_name(self, data: bytes, start: int, end: int) -> None:
        """More of a header's name. (The parser limits its length.)"""
        self._header_name += data[start:end]

    def add_to_header_value(self, data: bytes, start: int, end: int) -> None:
        """More of a header's value."""
        self._header_value += data[start:end]

    def end_header(self) -> None:
        """A header is complete."""
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def begin_data(self) -> None:
        """The headers of a part are complete."""
        _, parameters = parse_options_header(self._disposition)
        self._field = parameters.get(b"name", b"").decode(errors="replace")
        if b"filename" not in parameters:
            self._text = bytearray()
        elif parameters[b"filename"]:  # empty if no file was chosen
            # Browsers escape only quotation marks.
            name = parameters[b"filename"].decode(errors="replace").replace("%22", '"')
            self._file = self._begin_file(name)

    def add_data(self, data: bytes, start: int, end: int) -> None:
        """More of a field or a file. Raises TooLargeError."""
        if self._file:
            self._file.empty = False
            self._file.left -= end - start
            if self._file.left < 0:
                raise TooLargeError(
                    f"{self._file.label} is larger than {size(self._options.limits.max_bytes)}",
                    remedy="choose a smaller file, or raise limits.max_bytes",
                )
            with files.storage(self._options.folders.inbox):
                self._file.sink.write(memoryview(data)[start:end])
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > MAX_TEXT:
                raise UsageError(f"{printable(self._field)} is too long")

    def end_part(self) -> None:
        """A field or a file is complete."""
        if self._file:
            if self._file.empty:
                raise UsageError(f"{self._file.label} is empty", remedy="choose another file")
            with files.storage(self._options.folders.inbox):
                self._file.sink.flush()
            check_format(Path(self._file.sink.name), self._file.label, self._options.limits.formats)
        if self._text is not None:
            if self._jobs:
                raise UsageError("the fields of the form must come before its files")
            self._fields[self._field] = self._text.decode(errors="replace")

    def end(self) -> None:
        """The form is complete."""
        self._whole = True

    def _begin_file(self, name: str) -> _File:
        """Begin a file. Raises UsageError if it does not belong to a job."""
        label, suffix = printable(name), picture_suffix(name)
        if self._field not in ("content", "style"):
            raise UsageError(f"{label} is neither content nor style")
        role, stem = Role(self._field), PurePath(name).stem
        if self._fields.get("library"):
            if role is not Role.CONTENT:
                raise UsageError("the form has both a library style and a style file")
            delivery, ending = self._deliver(), suffix
            self._jobs.append((stem, delivery))
        else:
            if role in self._roles:
                raise UsageError(f"{label} is a second {role}", remedy="send one pair at a time")
            self._roles.add(role)
            if self._pair is None:
                self._pair = self._deliver()
                self._jobs.append((stem, self._pair))
            if role is Role.CONTENT:
                self._jobs[:] = [(stem, self._pair)]
            delivery, ending = self._pair, f".{role}{suffix}"
        return _File(label, delivery.file(ending), self._options.limits.max_bytes)

    def _deliver(self) -> Delivery:
        return self._stack.enter_context(Delivery(self._options.folders.inbox))
