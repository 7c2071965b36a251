"""Checks of every request, and security headers of every response."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nst_daemon.addresses import split_address
from nst_daemon.tokens import AcceptedTokens, Token
from nst_daemon.web import error_bodies, forwarded
from nst_daemon.web.models import API
from nst_daemon.web.sessions import Sessions
from nst_daemon.web.wrong_tokens import WrongTokens

log = logging.getLogger(__name__)

SESSION = f"{API}/session"
#: Where bytes of any number are received. All other bodies are limited.
UPLOADS = f"{API}/uploads"
#: Paths that need no token.
PUBLIC = frozenset({f"{API}/health"})
#: The files of the page need no token: they are the same for everybody.
STATIC = "/static/"
#: What a read-only token may request besides GET and HEAD.
CHECKS = frozenset({f"{API}/jobs/check", f"{API}/batches/check"})
SAFE = frozenset({"GET", "HEAD"})
#: Limits of a body that is not an upload, of one of a login, in bytes, and of the time until it has arrived.
MAX_BODY, MAX_LOGIN, BODY_SECONDS = 1 << 20, 4096, 30.0
#: Seconds between checks whether an open request is still accepted.
RECHECK_SECONDS = 1.0
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

    It stores the token of a request in `request.state.token`; None: no token is needed.

    Args:
        address: HOST:PORT that the server listens on.
        tokens: those that the page accepts.
        sessions: the logins of browsers.
        wrong_tokens: slows down clients that try tokens.
        login: the response at / for visitors without a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        address: str,
        tokens: AcceptedTokens,
        sessions: Sessions,
        wrong_tokens: WrongTokens,
        login: Response,
    ) -> None:
        self._app, self._tokens, self._sessions = app, tokens, sessions
        self._wrong, self._login = wrong_tokens, login
        self._hosts = {split_address(address)[0].lower(), "localhost", "127.0.0.1", "::1"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        assert scope["type"] == "http", "websockets are switched off"
        scope.setdefault("state", {}).update(token=None, forwarded=forwarded.resolve(scope))
        exchange = _Exchange(receive, send, _body_limit(scope))
        refusal = await self._refusal(Request(scope))
        if refusal:
            await refusal(scope, receive, exchange.send)
            return
        token: Token | None = scope["state"]["token"]
        if token is None and self._tokens.needed:  # its path needs none
            await self._app(scope, exchange.receive, exchange.send)
            return
        if token and self._tokens.note_use(token, time.time()):
            asyncio.get_running_loop().run_in_executor(None, self._tokens.store_uses)
        await self._while_accepted(token, scope, exchange)

    async def _refusal(self, request: Request) -> Response | None:
        """The response that refuses a request; None to accept it."""
        needed = self._tokens.needed
        if (
            not needed
            and _split("//" + request.headers.get("host", "")).hostname not in self._hosts
        ):
            # In DNS rebinding, the name of the attacker's site resolves to this machine and is the request's host.
            return error_bodies.plain(
                421,
                "the host name is unknown",
                "use 127.0.0.1 or localhost, or create a token for other names",
            )
        if not needed and request.state.forwarded:
            return error_bodies.plain(
                403,
                "the request comes from another machine, and there is no token",
                "create one with `nst-daemon token create NAME`",
            )
        if request.method not in SAFE and not _same_origin(request):
            return error_bodies.plain(
                403,
                "the request comes from another site",
                "send it from the page itself; behind a proxy, pass the Host header on",
            )
        return await self._no_access(request) if needed else None

    async def _no_access(self, request: Request) -> Response | None:
        """The response for a request that its token does not allow; None to accept it."""
        path = _path(request)
        if path in PUBLIC or path.startswith(STATIC):
            return None
        if self._tokens.problem:
            return error_bodies.plain(
                503,
                "no token can be checked",
                "read the log of the daemon, or run `nst-daemon doctor`",
            )
        if path == SESSION and request.method in {"POST", "DELETE"}:  # login and logout
            return None
        token, given = self._identify(request)
        if token is None:
            return await self._unknown(request, given=given)
        request.state.token = token
        if token.access == "read" and not _changes_nothing(request):
            return error_bodies.plain(
                403,
                f"the token {token.name} is read-only",
                "use one that was created without --read-only",
            )
        return None

    def _identify(self, request: Request) -> tuple[Token | None, bool]:
        """The token of a request, and whether the request has one at all, right or wrong."""
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and bearer.strip():
            return self._tokens.find(bearer.strip()), True
        session_id = session_of(request)
        return self._tokens.get(self._sessions.token_of(session_id)), bool(session_id)

    async def _unknown(self, request: Request, *, given: bool) -> Response:
        """The response for a request without a right token."""
        response = (
            await wrong_token(request, self._wrong) if given else unauthorized("a token is needed")
        )
        return self._login if _path(request) == "/" and request.method in SAFE else response

    async def _while_accepted(self, token: Token | None, scope: Scope, exchange: _Exchange) -> None:
        """Handle a request, and end it when it is not accepted any more.

        That is when its token is revoked or its login ends, or if it has no token, when one is needed.
        """
        request = Request(scope)
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        revoked = False

        def check() -> None:
            nonlocal revoked
            accepted = self._identify(request)[0] == token if token else not self._tokens.needed
            if accepted or exchange.has_length:
                timers[0] = loop.call_later(RECHECK_SECONDS, check)
            else:
                revoked = True
                task.cancel()

        timers = [loop.call_later(RECHECK_SECONDS, check)]
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not revoked or task.uncancel():
                raise
            await exchange.end(scope)
        finally:
            timers[0].cancel()


@dataclass(slots=True)
class _Exchange:
    """The body of one request and its response.

    Attributes:
        max_body: limit of the body in bytes; None: the route limits it.
        started: whether the response has begun.
        has_length: whether its length was announced, so that it ends by itself.
    """

    original_receive: Receive
    original_send: Send
    max_body: int | None
    started: bool = False
    has_length: bool = False
    received: int = 0
    complete: bool = False  # the body
    finished: bool = False  # the response
    deadline: float | None = None

    async def receive(self) -> Message:
        """The next message of the client. If the body is too long or too slow, that ends the request.

        Raises HTTPException, or after the response has begun returns the message of a client that has left.
        """
        if self.max_body is None or self.complete:
            return await self.original_receive()
        loop = asyncio.get_running_loop()
        self.deadline = self.deadline or loop.time() + BODY_SECONDS
        try:
            async with asyncio.timeout_at(self.deadline):
                message = await self.original_receive()
        except TimeoutError:
            return self._ended(408, "the body of the request did not arrive in time")
        self.received += len(message.get("body", b""))
        if self.received > self.max_body:
            return self._ended(413, f"the body of the request has more than {self.max_body} bytes")
        self.complete = not message.get("more_body", False)
        return message

    def _ended(self, status: int, cause: str) -> Message:
        if self.started:
            return {"type": "http.disconnect"}
        raise HTTPException(status, cause)

    async def send(self, message: Message) -> None:
        """Send a message with the security headers."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
            if message["status"] in {408, 413}:
                headers["Connection"] = "close"  # the rest of the body is not read
            self.started, self.has_length = True, "content-length" in headers
        elif not message.get("more_body", False):
            self.finished = True
        await self.original_send(message)

    async def end(self, scope: Scope) -> None:
        """End the response to a request that is not accepted any more."""
        if self.finished:
            return
        if self.started:
            await self.original_send(
                {"type": "http.response.body", "body": b"", "more_body": False}
            )
        else:
            await unauthorized(
                "the token was revoked, its login has ended, or a token is needed now"
            )(scope, self.receive, self.send)


def session_of(request: Request) -> str:
    """The id of the login of a browser, right or wrong; "" without one."""
    return request.cookies.get(cookie_name(request), "")


def cookie_name(request: Request) -> str:
    """The name of the cookie. It has the port, because browsers send cookies to all ports of a host."""
    try:
        port = _split("//" + request.headers.get("host", "")).port
    except ValueError:
        port = None
    return f"nst-daemon-{port}" if port else "nst-daemon"


def unauthorized(cause: str) -> Response:
    """Status 401."""
    response = error_bodies.plain(
        401, cause, "log in, or send the header `Authorization: Bearer TOKEN`"
    )
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def wrong_token(request: Request, wrong_tokens: WrongTokens) -> Response:
    """The response for a wrong token: 401, and 429 for clients that try too many."""
    seconds = await wrong_tokens.slow_down(request.client.host if request.client else "")
    if not seconds:
        return unauthorized("the token is wrong")
    response = error_bodies.plain(
        429, "too many wrong tokens", f"try again in {seconds} s, with a right one"
    )
    response.headers["Retry-After"] = str(seconds)
    return response


def _body_limit(scope: Scope) -> int | None:
    if scope["path"] == SESSION:
        return MAX_LOGIN
    return None if scope["path"] == UPLOADS else MAX_BODY


def _path(request: Request) -> str:
    """The path that chooses the route. `request.url` is not used: its path can come from a wrong Host header."""
    path: str = request.scope["path"]
    return path


def _changes_nothing(request: Request) -> bool:
    return request.method in SAFE or (request.method == "POST" and _path(request) in CHECKS)


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
