"""Query parameters of the API: unknown and repeated ones are errors, so that a misspelt one is not ignored."""

from __future__ import annotations

from typing import get_origin

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Query
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from nst_daemon.suggestions import did_you_mean


def check_parameters(request: Request) -> None:
    """A dependency of every route. Raises RequestValidationError, or HTTPException for an address without a name."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    if "" in request.path_params.values():
        raise HTTPException(404)
    fields = [f for f in get_flat_params(route.dependant) if isinstance(f.field_info, Query)]
    known = {field.alias: field for field in fields}
    for name in request.query_params:
        if name not in known:
            hint = did_you_mean(name, known)
            raise _error(name, "unknown parameter" + (f" ({hint})" if hint else ""))
        many = get_origin(known[name].field_info.annotation) is list
        if not many and len(request.query_params.getlist(name)) > 1:
            raise _error(name, "the parameter is given more than once")


def _error(name: str, text: str) -> RequestValidationError:
    return RequestValidationError([{"type": "parameter", "loc": ("query", name), "msg": text}])
