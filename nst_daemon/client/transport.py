"""HTTP requests of the client: the token, time-outs, retries, and errors with the words of the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, TypeAdapter, ValidationError

from nst_daemon import extras
from nst_daemon.errors import NstError, UsageError
from nst_daemon.names import printable, shortened
from nst_daemon.web.models import API

if TYPE_CHECKING:
    import httpx2

#: The longest pause in seconds that a server may ask for with Retry-After.
LONGEST_RETRY = 30.0
#: Idle connections are closed before the server does it.
KEEP_ALIVE = 2.0
#: Methods that can be repeated although the first request may have arrived.
IDEMPOTENT = frozenset({"GET", "HEAD", "DELETE"})

T = TypeVar("T")
Body = bytes | Callable[[], Any]


class ApiError(NstError):
    """A request was refused, or the server was not reached.

    Attributes:
        status: The HTTP status code; 0 if there was no response.
        cause: What happened, in the words of the server. The same as `message`.
        remedy: What to do about it, or "".
        field: The part of the request, such as settings.size, or "".
    """

    def __init__(self, message: str, *, remedy: str = "", status: int = 0, field: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.status, self.cause, self.field = status, message, field

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuilt, (self.message, self.remedy, self.status, self.field))


def _rebuilt(message: str, remedy: str, status: int, field: str) -> ApiError:
    return ApiError(message, remedy=remedy, status=status, field=field)


class StreamedEvent(NamedTuple):
    """A server-sent event."""

    name: str
    data: str
    id: str


class HttpTransport:
    """Requests to one server.

    Args:
        url: The address of the page, such as http://nas.local:8787; a path in front of /api/v1 is kept.
        token: A token, or "".
        timeout: Seconds without any data after which a request fails.
        retries: How often a request is repeated after a connection error.
        pause: Seconds before the first repetition, doubled with each further one.
        http: Sends the requests instead of a client of its own.

    Raises:
        UsageError: httpx2 is not installed, or `url` is not an address.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float,
        retries: int,
        pause: float,
        http: httpx2.Client | None,
    ) -> None:
        self.url = _base(url)
        self.timeout, self._retries, self._pause = timeout, retries, pause
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = http if http is not None else _http(timeout)
        self._headers = headers

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def get(
        self,
        kind: type[T],
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        wait: float = 0.0,
    ) -> T:
        """GET, and the response as `kind`; the arguments and errors are those of `call`."""
        return self.call(kind, "GET", path, params=params, wait=wait)

    def call(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: BaseModel | None = None,
        body: Body | None = None,
        wait: float = 0.0,
    ) -> T:
        """Send a request.

        Args:
            kind: The type of the response; `type(None)` for none.
            method: GET, POST or DELETE.
            path: Below /api/v1.
            params: The query; None and "" are left out.
            json: The body, or None.
            body: Bytes, or a function that opens the file to send.
            wait: Seconds that the server may take in addition.

        Returns:
            The response.

        Raises:
            ApiError: The server has refused the request, or was not reached.
        """
        import httpx2

        options: dict[str, Any] = {"params": _given(params or {})}
        if json is not None:
            options["content"] = json.model_dump_json(exclude_defaults=True).encode()
            options["headers"] = {"Content-Type": "application/json"}
        elif body is not None:
            options["headers"] = {"Content-Type": "application/octet-stream"}
        if wait:
            options["timeout"] = httpx2.Timeout(self.timeout, read=self.timeout + wait)

        def send() -> httpx2.Response:
            content = {"content": body() if callable(body) else body} if body is not None else {}
            headers = {**self._headers, **options.get("headers", {})}
            return self._http.request(
                method,
                self.url + API + path,
                **{**options, **content, "headers": headers},
            )

        response = self._retried(method, send)
        _check(response)
        if kind is type(None):
            return None
        try:
            return TypeAdapter(kind).validate_json(response.content)
        except ValidationError as error:
            raise _not_understood(self.url, error) from error

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, wait: float | None = 0.0
    ) -> Iterator[httpx2.Response]:
        """A response whose body is read in parts. wait: as in `call`; None for no limit of time between parts."""
        import httpx2

        read = None if wait is None else self.timeout + wait
        request = self._http.build_request(
            "GET",
            self.url + API + path,
            params=_given(params or {}),
            headers=self._headers,
            timeout=httpx2.Timeout(self.timeout, read=read),
        )
        response = self._retried("GET", lambda: self._http.send(request, stream=True))
        try:
            if not response.is_success:
                response.read()
            _check(response)
            yield response
        except httpx2.TransportError as error:
            raise _not_reached(self.url, error) from error
        finally:
            response.close()

    def events(self, path: str, *, silence: float) -> Iterator[StreamedEvent]:
        """The events of a stream, until the server ends it or the connection breaks.

        Args:
            path: Below /api/v1.
            silence: Seconds without data that are allowed.

        Raises:
            ApiError: The server has refused the request, or was not reached.
        """
        import httpx2

        with self.stream(path, wait=silence) as response, suppress(httpx2.TransportError):
            name, data, identifier = "message", list[str](), ""
            for line in response.iter_lines():
                key, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line and data:
                    yield StreamedEvent(name, "\n".join(data), identifier)
                if not line:
                    name, data = "message", []
                elif key == "event":
                    name = value
                elif key == "data":
                    data.append(value)
                elif key == "id":
                    identifier = value

    def _retried(self, method: str, send: Callable[[], httpx2.Response]) -> httpx2.Response:
        """Send a request again after connection errors, and when the server asks for that (429)."""
        import httpx2

        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            pause = self._pause * 2**attempt
            try:
                response = send()
            except httpx2.UnsupportedProtocol as error:
                raise UsageError(f"{self.url} is not an address: {error}") from error
            except httpx2.TransportError as error:
                # Without a connection the request has not arrived; otherwise it may have been handled.
                unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if last or not (unsent or method in IDEMPOTENT):
                    raise _not_reached(self.url, error) from error
            else:
                asked = (
                    response.headers.get("retry-after", "") if response.status_code == 429 else ""
                )
                if last or not asked.isdecimal() or int(asked) > LONGEST_RETRY:
                    return response
                response.close()
                pause = max(pause, float(asked))
            time.sleep(pause)
        raise AssertionError("unreachable")


def _base(url: str) -> str:
    """The address without "/" and /api/v1 at its end. Raises UsageError."""
    base = url.strip().rstrip("/").removesuffix(API).rstrip("/")
    try:
        parts = urlsplit(base)
        right = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        right = False
    if not right:
        raise UsageError(
            f"{shortened(printable(repr(url)))} is not the address of a status page",
            remedy="write it as http://HOST:PORT",
        )
    return base


def _http(timeout: float) -> httpx2.Client:
    try:
        import httpx2
    except ImportError as error:
        raise UsageError(
            "nst_daemon.client needs httpx2", remedy=extras.install("client")
        ) from error
    return httpx2.Client(timeout=timeout, limits=httpx2.Limits(keepalive_expiry=KEEP_ALIVE))


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that have a value, with booleans in lower case."""
    found = {
        key: value
        for key, value in params.items()
        if value is not None and value not in ("", [], ())
    }
    return {k: str(v).lower() if isinstance(v, bool) else v for k, v in found.items()}


def _check(response: httpx2.Response) -> None:
    """Raise ApiError for a response that is an error."""
    if response.is_success:
        return
    status = response.status_code
    try:
        found = response.json()
        text = {key: str(found.get(key) or "") for key in ("cause", "remedy", "field")}
    except (ValueError, AttributeError):
        text = {}
    if text.get("cause"):
        raise ApiError(text["cause"], remedy=text["remedy"], field=text["field"], status=status)
    where = response.headers.get("location", "")
    remedy = f"use the address {printable(where)}" if where else ""
    said = shortened(printable(" ".join(response.text.split())), 200)
    reason = f"{status} {response.reason_phrase}".strip()
    cause = f"{response.url.host} answered {reason}" + (f": {said}" if said and not where else "")
    raise ApiError(cause, remedy=remedy, status=status)


def _not_reached(url: str, error: Exception) -> ApiError:
    what = str(error) or type(error).__name__
    remedy = "check the address, and that the daemon runs with status_page"
    return ApiError(f"no answer from {url}: {printable(what)}", remedy=remedy)


def _not_understood(url: str, error: ValidationError) -> ApiError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return ApiError(
        f"the response of {url} has an unexpected form: {where}: {first['msg']}",
        remedy="use the same version of nst-daemon here and there",
    )
