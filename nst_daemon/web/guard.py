"""What every request has to pass before the page sees it, and what every answer says to the browser."""

from __future__ import annotations

import hashlib
import hmac
import logging
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nst_daemon.config import split_address

log = logging.getLogger(__name__)

COOKIE = "nst-daemon"
#: What those may see who have not shown the token yet.
PUBLIC = frozenset({"/login", "/theme.css", "/page.css", "/icon.svg"})
#: Nothing from elsewhere, nothing inline, in nobody's frame.
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
    """The middleware around the page.

    address: HOST:PORT that it listens on; token: what visitors have to show, "" for nothing; login: answers those who
    have not.
    """

    def __init__(self, app: ASGIApp, *, address: str, token: str, login: Response) -> None:
        self._app, self._token, self._login = app, token, login
        self._hosts = {split_address(address)[0].lower(), "localhost", "127.0.0.1", "::1"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        assert scope["type"] == "http", "the server knows neither websockets nor lifespans"

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
        """Why not; None where all is well."""
        if (
            not self._token
            and _split("//" + request.headers.get("host", "")).hostname not in self._hosts
        ):
            # A page of somebody else's whose name was made to lead here (DNS rebinding) has that name in its requests.
            return PlainTextResponse("This page is not known by that name here.", 421)
        if request.method not in ("GET", "HEAD") and not _same_origin(request):
            return PlainTextResponse("Another page has sent this.", 403)
        if self._token and request.url.path not in PUBLIC and not self._is_known(request):
            wants_page = request.url.path == "/" and request.method == "GET"
            return self._login if wants_page else PlainTextResponse("The token is missing.", 401)
        return None

    def _is_known(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return matches(given.strip(), self._token)
        return matches(request.cookies.get(COOKIE, ""), cookie_of(self._token))


def matches(given: str, expected: str) -> bool:
    """Whether both are the same, in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), expected.encode())


def cookie_of(token: str) -> str:
    """What the browser keeps in the token's place."""
    return hmac.new(token.encode(), b"status page", hashlib.sha256).hexdigest()


def _same_origin(request: Request) -> bool:
    """Whether our own page has sent this, or something that is no browser: those all say where a request is from."""
    headers = request.headers
    if "origin" in headers:
        ours, theirs = headers.get("host", "").lower(), _split(headers["origin"]).netloc.lower()
        return bool(ours) and ours == theirs
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _split(address: str) -> SplitResult:
    """The parts of an address; of none where it is nonsense."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
