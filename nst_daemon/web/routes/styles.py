"""The style library: its styles, and new ones from uploaded pictures."""

from __future__ import annotations

import logging

from fastapi import APIRouter
from starlette.responses import Response

from nst_daemon.config import Config
from nst_daemon.config_report import plain
from nst_daemon.errors import NotFoundError, UsageError
from nst_daemon.intake.drops import Style
from nst_daemon.intake.library import usable, weights_problem
from nst_daemon.intake.new_style import add_style
from nst_daemon.job_settings import job_problems
from nst_daemon.names import composed, printable
from nst_daemon.web.context import Shared
from nst_daemon.web.error_bodies import FieldError
from nst_daemon.web.models import NewStyle, StyleInfo
from nst_daemon.web.references import find_uploads, refuse
from nst_daemon.web.stored_files import RequestedFile, StoredFile
from nst_daemon.web.thumbnails import WEBP

log = logging.getLogger(__name__)
router = APIRouter(prefix="/styles", tags=["styles"])


@router.get("")
def styles(shared: Shared) -> list[StyleInfo]:
    """List the styles of the library, including those that cannot be used."""
    return [describe(style) for style in shared.library().values()]


@router.get("/{name}/thumbnail", response_class=Response, responses=WEBP)
def thumbnail(name: str, shared: Shared, wanted: RequestedFile) -> Response:
    """The first picture of a style, reduced."""
    style = usable(shared.library()).get(composed(name))
    if style is None:
        raise NotFoundError(
            f"there is no style {printable(name)} that can be used",
            remedy="GET /api/v1/styles lists them, with their problems",
        )
    file = StoredFile(shared.folders.styles, style.pictures[0].path)
    return shared.pictures.send(wanted, file, "thumbnail", shared.options.limits)


@router.post("", status_code=201)
def add(body: NewStyle, shared: Shared) -> StyleInfo:
    """Add a style to the library from uploaded pictures. The response has its name, which was made safe."""
    named = ((f"uploads.{number}", upload_id) for number, upload_id in enumerate(body.uploads))
    uploads, missing = find_uploads(shared.uploads, named)
    refuse(missing)
    with shared.uploads.used(uploads) as found:
        pictures = [(found[i].name, found[i].path) for i in body.uploads]
        needed = sum(found[i].bytes for i in body.uploads)
        _check_settings(body, shared.config)
        folder = shared.folders.styles
        with shared.space.reserved(folder, needed):
            name = add_style(folder, body.name, pictures, body.settings)
    log.info("the style %s was added on the page", printable(name))
    style = shared.library().get(composed(name))
    if style is None:
        raise NotFoundError(f"the style {printable(name)} was removed again")
    return describe(style)


def _check_settings(body: NewStyle, config: Config) -> None:
    """Raise FieldError for settings that the daemon would refuse."""
    if problem := weights_problem(body.settings, len(body.uploads)):
        wrong = UsageError(f"the style cannot be used: {problem}")
        raise FieldError.of(wrong, "settings.style_weights")
    for error in job_problems(config, body.settings):
        field = f"settings.{error.key}" if error.key in body.settings else "settings"
        raise FieldError.of(error, field)


def describe(style: Style) -> StyleInfo:
    """The JSON form of a style."""
    changed = style.pictures[0].fingerprint.mtime_ns // 1_000_000 if style.pictures else 0
    unreadable = (
        "" if style.name.isprintable() else "its name is not UTF-8, or cannot be shown: rename it"
    )
    return StyleInfo(
        name=style.name,
        pictures=len(style.pictures),
        problem=style.problem or unreadable,
        settings={key: plain(value) for key, value in style.settings.items()},
        version=changed,
    )
