"""Errors as JSON, with the words of the commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nst_daemon.errors import (
    BusyError,
    InputError,
    LockedLedger,
    NameInUseError,
    NotFoundError,
    NstError,
    StorageError,
    UsageError,
)
from nst_daemon.files import storage_error
from nst_daemon.names import printable
from nst_daemon.unexpected import explain
from nst_daemon.web.models import ErrorBody

log = logging.getLogger(__name__)


class ConflictError(UsageError):
    """The request is not possible in the present state."""


class TooLargeError(InputError):
    """A picture exceeds the size limit of the inbox."""


class FieldError(UsageError):
    """A part of a request is not possible. field: its path, such as settings.size; code: the HTTP status."""

    field = ""
    code = 400

    @classmethod
    def of(cls, error: NstError, field: str) -> FieldError:
        """An error of ours that is about a part of a request."""
        found = cls(error.message, remedy=error.remedy)
        found.field, found.code = field, status_of(error)
        return found


#: HTTP status by exception, the most specific first; 503 for all other errors of ours.
CODES: Mapping[type[NstError], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    TooLargeError: 413,
    InputError: 400,
    NameInUseError: 409,
    UsageError: 400,
    BusyError: 409,
    LockedLedger: 503,
    StorageError: 507,
}
#: When a client may try again after a fault of the disk or the ledger that may pass by itself.
RETRY_SECONDS = 10
#: The methods of requests that store nothing.
READING = frozenset({"GET", "HEAD"})
#: The error responses that every route may have, for the OpenAPI description.
RESPONSES: dict[int | str, dict[str, Any]] = {
    # Not as `model`: an operation that sends files would describe its errors as files too.
    code: {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
        "description": HTTPStatus(code).phrase,
    }
    for code in (400, 401, 403, 404, 408, 409, 411, 413, 421, 422, 429, 500, 503, 507)
}

#: For errors of this program.
INTERNAL = ErrorBody(
    error="internal error; look at the log of the daemon",
    cause="internal error",
    remedy="look at the log of the daemon",
    field="",
)


#: What pydantic says of a body that is not JSON, or not an object, and what we say.
_NOT_JSON = {
    "json_invalid": "the body is not valid JSON",
    "model_attributes_type": "the body is not a JSON object",
    "missing_body": "there is no body",
}
#: What we say of a value by the kind of pydantic's error; others have pydantic's words.
_SAID = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    "string_pattern_mismatch": "is not an id (32 hex digits)",
    "string_too_short": "is empty",
    "string_too_long": "has more than {max_length} characters",
    "too_short": "needs at least {min_length}",
    "too_long": "has more than {max_length} entries",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}
#: Kinds of pydantic's errors that list the possible values.
_CHOICES = {"literal_error", "enum"}


class InternalErrors:
    """Middleware that answers and logs unexpected exceptions: an OSError with its file, others with `INTERNAL`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if started:
                raise
            explain(error)  # logs the traceback
            log.error("%s %s: internal error", scope["method"], printable(scope["path"]))
            await _unexpected(error, scope)(scope, receive, send)


def install(app: FastAPI) -> None:
    """Answer every error of the application with an `ErrorBody`."""
    app.add_exception_handler(NstError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


def body(error: NstError, field: str = "") -> ErrorBody:
    """The JSON form of an error of ours. field: the part of the request that it is about."""
    return ErrorBody(error=str(error), cause=error.message, remedy=error.remedy, field=field)


def fault_of(error: Exception) -> NstError | None:
    """The error of ours that an exception is or means: an OSError with a file is a fault of the disk, or of rights."""
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        return storage_error(error, Path(os.fsdecode(error.filename)))
    return error if isinstance(error, NstError) else None


def response(status: int, error: ErrorBody) -> Response:
    """An error response."""
    return JSONResponse(error.model_dump(), status)


def plain(status: int, cause: str, remedy: str = "") -> Response:
    """An error response without an exception."""
    text = f"{cause}; {remedy}" if remedy else cause
    return response(status, ErrorBody(error=text, cause=cause, remedy=remedy, field=""))


def status_of(error: NstError, *, reading: bool = False) -> int:
    """The HTTP status for an error of ours. reading: whether the request stores nothing."""
    if isinstance(error, FieldError):
        return error.code
    if reading and isinstance(error, StorageError):
        return 503
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), 503)


def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, NstError)
    if isinstance(error, NotFoundError) and _is_taken_for_name(request):
        return _http(request, HTTPException(405))
    return _answer(error, request.scope)


def _answer(error: NstError, scope: Scope) -> Response:
    """The response to a request."""
    reading = scope["method"] in READING or scope["path"].endswith("/check")
    field = error.field if isinstance(error, FieldError) else ""
    answer = response(status_of(error, reading=reading), body(error, field))
    if answer.status_code == 503 and isinstance(error, StorageError):
        answer.headers["Retry-After"] = str(RETRY_SECONDS)
    return answer


def _unexpected(error: Exception, scope: Scope) -> Response:
    """The response to an unexpected exception."""
    fault = fault_of(error)
    return _answer(fault, scope) if fault else response(500, INTERNAL)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        answer = plain(404, "there is no such address", "look at /api/v1/openapi.json")
    elif error.status_code == 405:
        methods = ", ".join(_allowed(request))
        answer = plain(405, f"{request.method} is not possible here", f"use {methods}")
        answer.headers["Allow"] = methods
    else:
        answer = plain(error.status_code, str(error.detail))
    answer.headers.update({k: v for k, v in (error.headers or {}).items() if k != "Allow"})
    return answer


def _is_taken_for_name(request: Request) -> bool:
    """Whether a part of an address that has other methods, such as /jobs/check, was taken for an id or a name."""
    return bool(request.path_params) and request.scope["path"] in request.app.state.written_out


def _allowed(request: Request) -> list[str]:
    """The methods of an address. The framework names only those of the first route with this address."""
    methods: set[str] = request.app.state.written_out.get(request.scope["path"], set())
    found = [
        method
        for method in ("GET", "POST", "DELETE")
        if method in methods
        or (
            not methods
            and any(
                route.matches({**request.scope, "method": method})[0] is Match.FULL
                for route in request.app.routes
            )
        )
    ]
    return ["GET", "HEAD", *found[1:]] if "GET" in found else found


def _invalid(request: Request, error: Exception) -> Response:
    """The first problem that pydantic has found in a request."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    first = found[0]
    if first["loc"][:1] == ("path",) and _is_taken_for_name(request):
        return _http(request, HTTPException(405))
    if first["loc"] == ("body",) or (first["loc"][:1] == ("body",) and first["type"] in _NOT_JSON):
        cause = _NOT_JSON.get(first["type"], "there is no body")
        return plain(422, cause, "send JSON, with Content-Type: application/json")
    field = _field(first)
    expected = [e["ctx"]["expected"] for e in found if e["type"] in _CHOICES and _field(e) == field]
    said = _SAID.get(first["type"], str(first["msg"])).format(**first.get("ctx", {}))
    if expected:
        said = f"must be {' or '.join(expected)}"
    said = said.removeprefix("Value error, ")  # of our own validators
    cause = f"{field}: {said}" if field else said
    return response(422, ErrorBody(error=cause, cause=cause, field=field))


def _field(error: Mapping[str, Any]) -> str:
    """The place of a value in the request: without body, query or path, and without the alternatives of a type."""
    parts = [str(part) for part in error["loc"][1:]]
    return ".".join(p for p in parts if not p.endswith("]") and p != "constrained-str")
