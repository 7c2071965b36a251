"""Checks of every request, and security headers of every response."""

from __future__ import annotations

import hashlib
import hmac
import logging
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nst_daemon.addresses import split_address

log = logging.getLogger(__name__)

COOKIE = "nst-daemon"
#: Paths that need no token.
PUBLIC = frozenset({"/login"})
#: The files of the page need no token: they are the same for everybody.
STATIC = "/static/"
#: Nothing from other sites, nothing inline, no frames.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # not "no-referrer": that turns the Origin of a form into "null"
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Middleware that refuses requests and adds headers to responses.

    Args:
        address: HOST:PORT that the server listens on.
        token: the token that visitors must show; empty for none.
        login: the response for visitors without the token.
    """

    def __init__(self, app: ASGIApp, *, address: str, token: str, login: Response) -> None:
        self._app, self._token, self._login = app, token, login
        self._hosts = {split_address(address)[0].lower(), "localhost", "127.0.0.1", "::1"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        assert scope["type"] == "http", "websockets and lifespan events are switched off"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(Request(scope)) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """The response that refuses a request; None to accept it."""
        if (
            not self._token
            and _split("//" + request.headers.get("host", "")).hostname not in self._hosts
        ):
            # In DNS rebinding, the name of the attacker's site resolves to this machine and is the request's host.
            return PlainTextResponse("Unknown host name.", 421)
        if request.method not in ("GET", "HEAD") and not _same_origin(request):
            return PlainTextResponse("Cross-site request.", 403)
        path = request.url.path
        public = path in PUBLIC or path.startswith(STATIC)
        if self._token and not public and not self._is_known(request):
            wants_page = path == "/" and request.method == "GET"
            return self._login if wants_page else PlainTextResponse("A token is required.", 401)
        return None

    def _is_known(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return matches(given.strip(), self._token)
        return matches(request.cookies.get(COOKIE, ""), cookie_of(self._token))


def matches(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def cookie_of(token: str) -> str:
    """The value of the cookie, from which the token cannot be derived."""
    return hmac.new(token.encode(), b"status page", hashlib.sha256).hexdigest()


def _same_origin(request: Request) -> bool:
    """Whether a request comes from this page, or from a program other than a browser (browsers send an origin)."""
    headers = request.headers
    if "origin" in headers:
        ours, theirs = headers.get("host", "").lower(), _split(headers["origin"]).netloc.lower()
        return bool(ours) and ours == theirs
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _split(address: str) -> SplitResult:
    """The parts of an address; empty parts if it is invalid."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
