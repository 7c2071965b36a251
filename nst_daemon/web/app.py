"""The application of the page: its static files, and the REST API."""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from nst_daemon.web import error_bodies
from nst_daemon.web.context import Context
from nst_daemon.web.guard import Guard
from nst_daemon.web.head_requests import HeadRequests
from nst_daemon.web.models import API
from nst_daemon.web.options import PageOptions
from nst_daemon.web.parameters import check_parameters
from nst_daemon.web.routes import (
    batches,
    events,
    job_files,
    jobs,
    repeat,
    session,
    settings,
    status,
    styles,
    submissions,
    uploads,
)
from nst_daemon.web.shared_responses import SharedResponses
from nst_daemon.web.static_files import StaticFiles

#: What all open pages ask for after each change.
SHARED = frozenset({f"{API}/status", f"{API}/jobs"})


def make_app(options: PageOptions) -> FastAPI:
    """The application that serves the page of a root."""
    static = StaticFiles()
    context = Context(options)
    app = FastAPI(
        title="nst-daemon",
        version=version("nst-daemon"),
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its pages load scripts from other sites
        redoc_url=None,
        separate_input_output_schemas=False,
        routes=static.routes(),
        middleware=[
            Middleware(
                Guard,
                address=options.address,
                tokens=context.tokens,
                sessions=context.sessions,
                wrong_tokens=context.wrong_tokens,
                login=static.page("login.html", 401),
            ),
            Middleware(HeadRequests, prefix=f"{API}/"),
            Middleware(SharedResponses, paths=SHARED),
            Middleware(error_bodies.InternalErrors),
        ],
    )
    app.state.context = context
    #: The methods of each address of the API that has no parameters.
    app.state.written_out = defaultdict(set)
    error_bodies.install(app)
    for routes in (
        status,
        events,
        jobs,
        job_files,
        repeat,
        uploads,
        submissions,
        styles,
        settings,
        session,
        batches,
    ):
        for route in routes.router.routes:
            assert isinstance(route, APIRoute)
            route.summary = route.description.split(".")[0].split(":")[0]  # not the function's name
            if not route.param_convertors:
                app.state.written_out[API + route.path] |= route.methods
        app.include_router(
            routes.router,
            prefix=API,
            responses=error_bodies.RESPONSES,
            dependencies=[Depends(check_parameters)],
        )
    return app
