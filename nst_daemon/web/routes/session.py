"""Login and logout with a cookie, for browsers."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from nst_daemon.tokens import Token
from nst_daemon.web.context import Shared
from nst_daemon.web.guard import cookie_name, session_of, wrong_token
from nst_daemon.web.models import Login, SessionInfo
from nst_daemon.web.sessions import LIFETIME

router = APIRouter(tags=["session"])


@router.post("/session", status_code=204, response_class=Response)
async def log_in(login: Login, shared: Shared, request: Request) -> Response:
    """Exchange a token for a cookie. A page that needs no token sets none."""
    if not shared.tokens.needed:
        return Response(status_code=204)
    token = shared.tokens.find(login.token.strip())
    if token is None:
        return await wrong_token(request, shared.wrong_tokens)
    response = Response(status_code=204)
    response.set_cookie(
        cookie_name(request),
        await run_in_threadpool(shared.sessions.begin, token),
        max_age=LIFETIME,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


@router.get("/session")
async def session(request: Request) -> SessionInfo:
    """The token of this request, and what it may do."""
    token = cast(Token | None, request.state.token)
    if token is None:
        return SessionInfo(name="", access="full")
    return SessionInfo(name=token.name, access=token.access)


@router.delete("/session", status_code=204, response_class=Response)
async def log_out(request: Request, shared: Shared) -> Response:
    """End the login, and remove the cookie from the browser."""
    await run_in_threadpool(shared.sessions.end, session_of(request))
    response = Response(status_code=204)
    secure = request.url.scheme == "https"
    response.delete_cookie(cookie_name(request), secure=secure, httponly=True, samesite="strict")
    return response
