"""The uploads and styles that a request names, and the problems that it is refused for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nst_daemon.errors import NotFoundError, UsageError
from nst_daemon.names import printable
from nst_daemon.ops.submission import FieldProblem, StyleChoice
from nst_daemon.web.error_bodies import FieldError
from nst_daemon.web.models import ContentRef, RepeatedStyle, StyleRef
from nst_daemon.web.uploads import Upload, Uploads

Named = Iterable[tuple[str, str]]


def uploads_of(
    contents: Sequence[ContentRef], styles: Sequence[StyleRef | RepeatedStyle]
) -> Iterator[tuple[str, str]]:
    """The field and the id of each upload that contents and styles name."""
    parts: dict[str, Sequence[ContentRef | StyleRef | RepeatedStyle]] = {
        "contents": contents,
        "styles": styles,
    }
    for part, references in parts.items():
        for number, reference in enumerate(references):
            for key, upload_id in (("upload", reference.upload), ("mask", reference.mask)):
                if isinstance(upload_id, str):
                    yield f"{part}.{number}.{key}", upload_id


def find_uploads(uploads: Uploads, named: Named) -> tuple[dict[str, Upload], list[FieldProblem]]:
    """The uploads by their ids, and a problem for each that does not exist. named: their fields and ids."""
    found: dict[str, Upload] = {}
    problems = []
    for field, upload_id in named:
        try:
            found[upload_id] = uploads.get(upload_id)
        except NotFoundError as error:
            problems.append(FieldProblem(field, UsageError(error.message, remedy=error.remedy)))
    return found, problems


def style_choice(style: StyleRef, uploads: Mapping[str, Upload]) -> StyleChoice:
    """A style of a new job. uploads: those that exist; it has the others as pictures that do not exist."""
    picture, mask = (path_of(i, uploads) if i else None for i in (style.upload, style.mask))
    return StyleChoice(style.library or "", picture, mask)


def path_of(upload_id: str, uploads: Mapping[str, Upload]) -> Path:
    """Where an upload is; an unknown path if it does not exist."""
    return uploads[upload_id].path if upload_id in uploads else Path(upload_id)


def sizes_of(uploads: Iterable[Upload]) -> dict[Path, tuple[int, int]]:
    """Height and width of uploads by their paths."""
    return {upload.path: (upload.height, upload.width) for upload in uploads}


def refuse(problems: Iterable[FieldProblem]) -> None:
    """Raise FieldError for the first problem, if there is one."""
    for problem in problems:
        raise FieldError.of(problem.error, problem.field)


def unknown_batch(name: str) -> NotFoundError:
    """The error that there is no batch of this name."""
    return NotFoundError(
        f"there is no batch {printable(name)}", remedy="GET /api/v1/batches lists them"
    )
