"""The routes of the status page. They show what `ops.status` gathers, as `nst-daemon status` does.

No path comes from a visitor: a request names the id of a job or a library style, and the ledger, the status file and
the library have the path.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from nst_daemon.intake.drops import Style
from nst_daemon.intake.library import list_styles, usable
from nst_daemon.jobs import Job
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import printable
from nst_daemon.ops.status import gather, read_live
from nst_daemon.pictures.formats import suffixes
from nst_daemon.pictures.output_formats import OUTPUT_FORMATS
from nst_daemon.publishing import LOSS_PLOT, TIME_LAPSE
from nst_daemon.report.thumbnails import ResultLimits
from nst_daemon.web import error_bodies
from nst_daemon.web.context import Context
from nst_daemon.web.guard import Guard
from nst_daemon.web.options import PageOptions
from nst_daemon.web.parameters import check_parameters
from nst_daemon.web.routes import (
    batches,
    events,
    job_files,
    jobs,
    session,
    settings,
    status,
    styles,
    submissions,
    uploads,
)
from nst_daemon.web.static_files import StaticFiles
from nst_daemon.web.stored_files import FileRequest, StoredFile
from nst_daemon.web.thumbnails import send_picture
from nst_daemon.web.upload import drop

log = logging.getLogger(__name__)

#: Length of each list of jobs.
LISTED = 24
#: Pictures may be cached: their addresses change with their contents.
CACHE_HEADERS = {"Cache-Control": "private, max-age=86400"}
#: Python's table lacks some of these on some systems.
IMAGES = {suffix: known.media_type for known in OUTPUT_FORMATS for suffix in known.suffixes}

#: The prefix of the REST API.
API = "/api/v1"


def make_app(options: PageOptions) -> FastAPI:
    """The application that serves the page of a root."""
    static = StaticFiles()
    page, context = _Page(options), Context(options)
    app = FastAPI(
        title="nst-daemon",
        version=version("nst-daemon"),
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its pages load scripts from other sites
        redoc_url=None,
        separate_input_output_schemas=False,
        routes=[
            *static.routes(),
            Route("/status.json", page.status),
            Route("/drop", page.drop, methods=["POST"]),
            Route("/jobs/{id}/{what}", page.picture),
            Route("/styles/{name}", page.style),
        ],
        middleware=[
            Middleware(
                Guard,
                address=options.address,
                tokens=context.tokens,
                wrong_tokens=context.wrong_tokens,
                login=static.page("login.html", 401),
            )
        ],
    )
    app.state.context = context
    error_bodies.install(app)
    for routes in (
        status,
        events,
        jobs,
        job_files,
        uploads,
        submissions,
        styles,
        settings,
        session,
        batches,
    ):
        app.include_router(
            routes.router,
            prefix=API,
            responses=error_bodies.RESPONSES,
            dependencies=[Depends(check_parameters)],
        )
    return app


class _Page:
    """The handlers. Those that are not coroutines read files, and run in threads."""

    def __init__(self, options: PageOptions) -> None:
        self._options, self._folders = options, options.folders

    def status(self, _: Request) -> Response:
        """The output of `nst-daemon status --json`, previews, styles, and what may be uploaded."""
        found = gather(self._folders, LISTED)
        paintings = found.live.paintings if found.live else ()
        previews = {
            p.id: _modified(self._folders.results / p.preview) for p in paintings if p.preview
        }
        library = self._library()
        return _json(
            {
                "status": found.as_json(),
                "previews": {job: at for job, at in previews.items() if at},
                "styles": {
                    name: style.pictures[0].fingerprint.mtime_ns // 1_000_000
                    for name, style in usable(library).items()
                },
                "style_problems": {name: s.problem for name, s in library.items() if s.problem},
                "max_bytes": self._options.limits.max_bytes,
                "suffixes": sorted(suffixes(self._options.limits.formats)),
            }
        )

    async def drop(self, request: Request) -> Response:
        """Handle the upload form."""
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise HTTPException(411)
        kind = request.headers.get("content-type", "")
        try:
            dropped = await drop(kind, int(length), aiter(request.stream()), self._options)
        except (ClientDisconnect, TimeoutError):
            return Response(status_code=408)  # the client has probably gone
        log.info("%s was uploaded on the status page", ", ".join(map(printable, dropped.names)))
        return _json(asdict(dropped), 201)

    def picture(self, request: Request) -> Response:
        """A picture of a job: `preview` while it is painted; later `result`, `thumbnail`, `view`, `curve`, `lapse`."""
        job_id, what = request.path_params["id"], request.path_params["what"]
        if what == "preview":
            return self._file(self._folders.results / self._preview(job_id))
        result = self._folders.results / self._job(job_id).result
        if what in ("thumbnail", "view"):
            real = self._inside(result)
            limits = ResultLimits.of(self._options.limits)
            file = StoredFile(real.parent, real.name)
            return send_picture(FileRequest(request, False, "1"), file, what, limits)
        suffix = {"result": result.suffix, "curve": LOSS_PLOT, "lapse": TIME_LAPSE}.get(what)
        if suffix is None:
            raise HTTPException(404)
        return self._file(result.with_name(result.stem + suffix))

    def style(self, request: Request) -> Response:
        """The thumbnail of a library style; of a folder, that of its first picture."""
        style = usable(self._library()).get(request.path_params["name"])
        if style is None:
            raise HTTPException(404)
        face = style.pictures[0]
        file = StoredFile(self._folders.styles, face.path)
        limits = self._options.limits
        return send_picture(FileRequest(request, False, "1"), file, "thumbnail", limits)

    def _library(self) -> dict[str, Style]:
        return list_styles(self._folders.styles, self._options.limits.max_bytes)

    def _preview(self, job_id: str) -> str:
        """The path of the preview of a job that is being painted, relative to results/."""
        live = read_live(self._folders)
        shown = {p.id: p.preview for p in live.paintings} if live else {}
        if not shown.get(job_id):
            raise HTTPException(404)
        return shown[job_id]

    def _job(self, job_id: str) -> Job:
        """The job with this id, if it has a result."""
        with LedgerReader.attach(self._folders.ledger) as ledger:
            job = ledger.get(job_id)
        if job is None or not job.result:
            raise HTTPException(404)
        return job

    def _file(self, path: Path) -> Response:
        kind = IMAGES.get(path.suffix)
        return FileResponse(self._inside(path), headers=CACHE_HEADERS, media_type=kind)

    def _inside(self, path: Path) -> Path:
        """The path, if it is a file in results/ after links have been resolved."""
        real = path.resolve()
        if not real.is_file() or not real.is_relative_to(self._folders.results.resolve()):
            raise HTTPException(404)
        return real


def _modified(path: Path) -> int:
    """The modification time of a file in milliseconds since the epoch; 0 if it does not exist."""
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except OSError:
        return 0


def _json(values: dict[str, Any], status: int = 200) -> Response:
    """A JSON response in ASCII, because names that are not UTF-8 cannot be encoded otherwise."""
    return Response(json.dumps(values), status, media_type="application/json")
