"""Access control, and security headers of every response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from nst_daemon import tokens
from nst_daemon.web.guard import MAX_BODY, Guard
from nst_daemon.web.options import PageOptions
from nst_daemon.web.sessions import LIFETIME, MOST, Sessions
from nst_daemon.web.wrong_tokens import (
    AT_ONCE,
    MAX_ADDRESSES,
    MAX_LINES,
    PERIOD,
    SLOW,
    SLOW_SECONDS,
    WrongTokens,
    network_of,
)
from tests.web.conftest import HOST, TOKEN, client

API = "/api/v1"
#: Paths that show or change something, of the API and of the page.
#: The name of the cookie at port 8787.
COOKIE = "nst-daemon-8787"
SEEN = ("/status", "/events", "/jobs", "/jobs/1/result", "/styles", "/session", "/openapi.json")


@pytest.fixture
def stranger(options: PageOptions) -> TestClient:
    """A visitor from another machine, of a page with a token."""
    asked = replace(options, address="0.0.0.0:8787").with_token(TOKEN)
    return client(asked, host="nas.local:8787")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8787", "127.0.0.1.evil.example", "[", ""]
)
def test_a_rebound_name_sees_nothing(visitor: TestClient, host: str) -> None:
    """Without a token, every request with an unknown host name is refused."""
    for path in ("/", f"{API}/status", f"{API}/health", "/static/x/app.js"):
        answer = visitor.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert answer.json()["remedy"]


@pytest.mark.parametrize("host", ["localhost:8787", "127.0.0.1", "[::1]:8787", "LocalHost"])
def test_this_machines_own_names_are_known(visitor: TestClient, host: str) -> None:
    """Requests with a name of this machine are accepted, with and without a port."""
    assert visitor.get("/", headers={"Host": host}).status_code == 200


def test_without_the_token_nothing_is_seen(stranger: TestClient) -> None:
    """A visitor without the token gets only the login form and its files: no status, no picture, no upload."""
    page = stranger.get("/")
    assert page.status_code == 401
    assert 'src="/static/' in page.text
    assert "app.js" not in page.text
    assert stranger.get("/static/x/page.css").status_code == 200
    for path in (*(API + path for path in SEEN), "/nowhere", "/drop"):
        answer = stranger.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["remedy"]
    for path in ("/jobs", "/jobs/check", "/jobs/actions", "/uploads", "/styles", "/batches"):
        assert stranger.post(API + path, json={}).status_code == 401, path
    assert stranger.get(f"{API}/health").status_code in {200, 503}


@pytest.mark.parametrize(
    "given", ["", "Bearer ", "Bearer 0123456789abcde", f"Basic {TOKEN}", "Bearer ü", TOKEN]
)
def test_a_wrong_token_is_refused(stranger: TestClient, given: str) -> None:
    """Only the complete token, as a bearer token, gives access."""
    headers = {"Authorization": given.encode()}
    assert stranger.get(f"{API}/status", headers=headers).status_code == 401
    assert stranger.get(f"{API}/status", headers=bearer(TOKEN)).status_code == 200


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


def log_in(visitor: TestClient, token: str, **headers: str) -> Any:
    """The response to a login."""
    return visitor.post(f"{API}/session", json={"token": token}, headers=headers)


def test_the_login_is_remembered(stranger: TestClient) -> None:
    """The right token sets a cookie that scripts and other sites cannot use and that is not the token."""
    wrong = log_in(stranger, "not the token")
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = log_in(stranger, TOKEN)
    assert right.status_code == 204
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert TOKEN not in cookie
    assert stranger.get(f"{API}/session").json() == {"name": "status_page_token", "access": "full"}
    stranger.cookies.clear()
    forged = {"Cookie": f"{COOKIE}=" + "0" * 64}
    assert stranger.get(f"{API}/status", headers=forged).status_code == 401


def test_a_logout_ends_the_login(options: PageOptions, stranger: TestClient) -> None:
    """After a logout a copy of the cookie is refused, also after a restart; other logins go on."""
    log_in(stranger, TOKEN)
    copy = {"Cookie": f"{COOKIE}={stranger.cookies[COOKIE]}"}
    assert stranger.get(f"{API}/status", headers=copy).status_code == 200
    other = {"Cookie": log_in(stranger, TOKEN).headers["set-cookie"].partition(";")[0]}
    stranger.cookies.clear()
    assert stranger.delete(f"{API}/session", headers=copy).status_code == 204
    for visitor in (stranger, client(options.with_token(TOKEN))):
        assert visitor.get(f"{API}/status", headers=copy).status_code == 401
        assert visitor.get(f"{API}/status", headers=other).status_code == 200
    stored = (options.folders.state / "sessions.json").read_text()[2:66]
    forged = {"Cookie": f"{COOKIE}={stored}"}
    assert stranger.get(f"{API}/status", headers=forged).status_code == 401


def test_a_login_ends_after_its_time_and_when_there_are_many(options: PageOptions) -> None:
    """A login ends after 30 days, and the oldest of a token when it has 100 others; a damaged file ends all."""
    token = options.with_token(TOKEN).accepted_tokens().find(TOKEN)
    assert token
    clock = Clock()
    sessions = Sessions(options.folders, clock)
    first, *others = [sessions.begin(token) for _ in range(MOST + 1)]
    assert not sessions.token_of(first)
    assert all(Sessions(options.folders, clock).token_of(one) for one in others)
    clock.now += LIFETIME
    assert not any(map(sessions.token_of, others))
    (options.folders.state / "sessions.json").write_text("{")
    assert Sessions(options.folders).begin(token)


def test_a_logout_removes_the_cookie(stranger: TestClient) -> None:
    """After a logout the browser has no cookie any more; a logout without a login is no error."""
    log_in(stranger, TOKEN)
    assert stranger.delete(f"{API}/session").status_code == 204
    assert not stranger.cookies
    assert stranger.get(f"{API}/status").status_code == 401
    assert stranger.delete(f"{API}/session").status_code == 204


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:8788", "nst-daemon-8788"),
        ("nas.local", "nst-daemon"),
        ("[::1]:80", "nst-daemon-80"),
        ("nas.local:99999", "nst-daemon"),
        ("nas.local:x", "nst-daemon"),
    ],
)
def test_logins_at_other_ports_are_kept(options: PageOptions, host: str, name: str) -> None:
    """The cookie has the port in its name, because browsers send it to all ports of a host."""
    stranger = client(options.with_token(TOKEN))
    cookie = log_in(stranger, TOKEN, Host=host).headers["set-cookie"].partition(";")[0]
    assert cookie.startswith(f"{name}=")
    for asked, status in ((host, 200), ("127.0.0.1:1", 401)):
        headers = {"Host": asked, "Cookie": cookie}
        assert (
            client(options.with_token(TOKEN)).get(f"{API}/session", headers=headers).status_code
            == status
        )
    removed = stranger.delete(f"{API}/session", headers={"Host": host})
    assert removed.headers["set-cookie"].startswith(f'{name}="";')


def test_the_page_without_a_token_needs_no_login(visitor: TestClient) -> None:
    """Without tokens everybody has full access, and a login sets no cookie."""
    assert visitor.get(f"{API}/session").json() == {"name": "", "access": "full"}
    answer = log_in(visitor, "anything")
    assert (answer.status_code, "set-cookie" in answer.headers) == (204, False)


def test_the_cookie_is_secure_behind_a_proxy_with_tls(options: PageOptions) -> None:
    """Only a proxy on this machine can say that the connection of the client is encrypted."""
    asked = options.with_token(TOKEN)
    for peer, secure in (
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
    ):
        visitor = client(asked, peer=peer)
        cookie = log_in(visitor, TOKEN, **{"X-Forwarded-Proto": "https"}).headers["set-cookie"]
        assert ("secure" in cookie.lower()) is secure, peer


def test_a_login_of_megabytes_is_not_read(stranger: TestClient) -> None:
    """A login that is too long is refused, whether it says how long it is or not."""
    assert log_in(stranger, "x" * 10_000).status_code == 413
    pieces = (b"x" * 1000 for _ in range(10))
    assert stranger.post(f"{API}/session", content=pieces).status_code == 413


def test_a_body_of_megabytes_is_not_read(visitor: TestClient) -> None:
    """A request that is not an upload has a limited body."""
    answer = visitor.post(f"{API}/session", content=b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413
    assert answer.json()["cause"]
    assert answer.headers["connection"] == "close"


def test_the_host_does_not_choose_the_path(stranger: TestClient) -> None:
    """A Host header with a path does not make a request public."""
    for host in (f"x{API}/health?", "x/static/", f"x{API}/session?"):
        assert stranger.get(f"{API}/status", headers={"Host": host}).status_code == 401
    host = f"x{API}/jobs/check?"
    answer = stranger.post(f"{API}/jobs", json={}, headers={"Host": host})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/health/../status",
        "/static/../api/v1/status",
        "/static/%2e%2e/api/v1/status",
        "/static/x/..%2f..%2f..%2fapp.py",
        "/static/x//etc/passwd",
        "/static/x/%00",
        "//api/v1/status",
        "/api/v1//status",
        "/api/v1/status%00",
        "/api/v1/status%2f",
        "/API/V1/status",
        "/%61pi/v1/status",
    ],
)
def test_spellings_of_a_path_give_no_access(stranger: TestClient, path: str) -> None:
    """Another spelling of a path shows nothing without a token."""
    assert stranger.get(f"http://nas.local:8787{path}").status_code in {401, 404}


def test_a_read_only_token_changes_nothing(options: PageOptions) -> None:
    """A read-only token can see everything and check a job, and every other request is refused with a reason."""
    visitor = client(options)
    headers = bearer(tokens.create(options.folders, "tablet", "read"))
    assert visitor.get(f"{API}/session", headers=headers).json() == {
        "name": "tablet",
        "access": "read",
    }
    assert visitor.get(f"{API}/status", headers=headers).status_code == 200
    for path in ("/jobs/check", "/batches/check"):
        assert visitor.post(API + path, json={}, headers=headers).status_code not in {401, 403}
    for method, path in (
        ("POST", "/jobs"),
        ("POST", "/jobs/check/"),
        ("POST", "/jobs/actions"),
        ("POST", "/uploads"),
        ("DELETE", "/uploads/1"),
        ("POST", "/styles"),
        ("POST", "/batches"),
        ("PUT", "/jobs/check"),
        ("PATCH", "/status"),
        ("OPTIONS", "/status"),
        ("BREW", "/status"),
    ):
        answer = visitor.request(method, API + path, headers=headers)
        assert answer.status_code == 403, (method, path)
        assert "tablet" in answer.json()["cause"]
    assert visitor.delete(f"{API}/session", headers=headers).status_code == 204


def test_tokens_are_created_and_revoked_while_the_page_runs(options: PageOptions) -> None:
    """The page needs a token as soon as there is one; a revoked token ends its cookie at once."""
    first, second = client(options), client(options)
    assert first.get(f"{API}/status").status_code == 200
    phone = tokens.create(options.folders, "phone", "full")
    tablet = tokens.create(options.folders, "tablet", "full")
    assert first.get(f"{API}/status").status_code == 401
    assert log_in(first, phone).status_code == 204
    assert log_in(second, tablet).status_code == 204
    tokens.revoke(options.folders, "phone")
    assert first.get(f"{API}/status").status_code == 401
    assert first.get(f"{API}/status", headers=bearer(phone)).status_code == 401
    assert second.get(f"{API}/status").status_code == 200
    tokens.revoke(options.folders, "tablet")
    assert second.get(f"{API}/status").status_code == 401, "without a token nobody has access"


def test_a_damaged_file_closes_the_page(options: PageOptions) -> None:
    """With a damaged list of tokens, the page answers that no token can be checked, also at a login."""
    asked = options.with_token(TOKEN)
    tokens.path_of(options.folders).write_text("{")
    visitor = client(asked)
    for answer in (visitor.get(f"{API}/status", headers=bearer(TOKEN)), log_in(visitor, TOKEN)):
        assert answer.status_code == 503
        assert "doctor" in answer.json()["remedy"]


def test_the_last_use_is_stored(options: PageOptions) -> None:
    """A request with a token is remembered for `token list`."""
    secret = tokens.create(options.folders, "phone", "full")
    with client(options) as visitor:
        visitor.get(f"{API}/status", headers=bearer(secret))
    (row,) = tokens.rows(options.folders, "")
    assert row.last_use


def test_a_proxy_without_a_token_is_refused(options: PageOptions) -> None:
    """What a proxy on this machine passes on from another machine needs a token, even with a known host name."""
    visitor = client(options, peer="127.0.0.1")
    far = {"X-Forwarded-For": "192.0.2.1"}
    answer = visitor.get(f"{API}/status", headers=far)
    assert answer.status_code == 403
    assert "token create" in answer.json()["remedy"]
    assert visitor.get(f"{API}/status", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 200
    secret = tokens.create(options.folders, "phone", "full")
    assert visitor.get(f"{API}/status", headers=far | bearer(secret)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[nonsense"},
        {"Origin": f"http://{HOST}.evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_cannot_change_anything(visitor: TestClient, headers: dict[str, str]) -> None:
    """A request from another site that could change something is refused, and one of the page is not."""
    for path in ("/jobs", "/jobs/actions", "/uploads", "/session", "/batches", "/styles"):
        assert visitor.post(API + path, json={}, headers=headers).status_code == 403
    assert visitor.delete(f"{API}/session", headers=headers).status_code == 403
    own = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert log_in(visitor, "x", **own).status_code == 204


@pytest.mark.parametrize(
    "path", ["/", f"{API}/status", "/nowhere", f"{API}/jobs/1/result", "/static/x/app.js"]
)
def test_every_answer_is_strict(visitor: TestClient, path: str) -> None:
    """Every response, including errors, forbids inline code, other sites and frames."""
    headers = visitor.get(path).headers
    policy = dict(p.split(" ", 1) for p in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect")} == {"'self'"}
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


class Clock:
    """A clock that the test sets; sleeping only adds to `slept`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Clock:
    """A clock at 1000 s."""
    return Clock()


@pytest.fixture
def wrong(clock: Clock) -> WrongTokens:
    """Nobody has tried a token yet."""
    return WrongTokens(clock, clock.sleep)


def tries(wrong: WrongTokens, number: int, client: str = "192.0.2.1") -> list[int]:
    """What so many wrong tokens of a client get."""

    async def run() -> list[int]:
        return [await wrong.slow_down(client) for _ in range(number)]

    return asyncio.run(run())


def test_wrong_tokens_are_slowed_down(
    wrong: WrongTokens, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first wrong tokens are answered at once, later ones slowly, more are refused until the period ends."""
    with caplog.at_level(logging.WARNING):
        assert tries(wrong, SLOW) == [0] * SLOW
        assert clock.slept == [SLOW_SECONDS] * (SLOW - AT_ONCE)
        clock.now += 20
        assert tries(wrong, 2) == [PERIOD - 20] * 2
        assert tries(wrong, 1, "192.0.2.2") == [0]
        clock.now += PERIOD
        assert tries(wrong, 1) == [0]
    assert [record.getMessage() for record in caplog.records] == [
        "wrong token from 192.0.2.1",
        "wrong token from 192.0.2.2",
        f"wrong token from 192.0.2.1 ({SLOW + 3} within 80 s)",
    ]


def test_many_addresses_fill_neither_memory_nor_log(
    wrong: WrongTokens, caplog: pytest.LogCaptureFixture
) -> None:
    """The number of addresses in memory and of log lines in a period is limited."""
    with caplog.at_level(logging.WARNING):
        for number in range(MAX_ADDRESSES + 100):
            tries(wrong, 1, f"10.0.{number // 250}.{number % 250}")
    assert len(wrong) == MAX_ADDRESSES
    assert len(caplog.records) == MAX_LINES
    assert "further" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("<script>", "unknown"),
    ],
)
def test_one_client_is_one_address(client: str, network: str) -> None:
    """The addresses of an IPv6 network count as one, because one client has all of them."""
    assert network_of(client) == network


def guarded(
    options: PageOptions,
    wrong: WrongTokens,
    endpoint: Callable[[Request], Awaitable[Response]],
    sessions: Sessions | None = None,
) -> Guard:
    """An application with one route, /api/v1/test, behind the guard."""
    return Guard(
        Starlette(routes=[Route(f"{API}/test", endpoint)]),
        address=HOST,
        tokens=options.accepted_tokens(),
        sessions=sessions or Sessions(options.folders),
        wrong_tokens=wrong,
        login=Response("login", 401),
    )


async def _fine(_: Request) -> Response:
    return Response("fine")


@pytest.mark.parametrize("kind", ["bearer", "cookie"])
def test_a_right_token_is_never_slowed_down(
    options: PageOptions, wrong: WrongTokens, kind: str
) -> None:
    """Too many wrong tokens are refused with the time to wait, and the right one of that address still works."""
    locked = options.with_token(TOKEN)
    token = locked.accepted_tokens().find(TOKEN)
    assert token
    logins = {TOKEN: Sessions(options.folders).begin(token)}
    visitor = TestClient(guarded(locked, wrong, _fine), f"http://{HOST}")

    def ask(token: str) -> Any:
        cookie = {"Cookie": f"{COOKIE}={logins.get(token, token)}"}
        return visitor.get(f"{API}/test", headers=bearer(token) if kind == "bearer" else cookie)

    answers = [ask("nst_wrong") for _ in range(SLOW + 1)]
    assert {answer.status_code for answer in answers[:-1]} == {401}
    assert answers[-1].status_code == 429
    assert answers[-1].headers["retry-after"] == str(int(PERIOD))
    assert answers[-1].json()["remedy"]
    assert ask(TOKEN).status_code == 200
    assert visitor.get(f"{API}/test").status_code == 401, "no token is not a wrong one"


def test_clients_behind_a_proxy_are_told_apart(options: PageOptions) -> None:
    """Behind a proxy of this machine the addresses of clients count; another peer cannot choose its address."""

    def last(peer: str, given: list[str]) -> int:
        app = guarded(options.with_token(TOKEN), WrongTokens(clock, clock.sleep), _fine)
        visitor = TestClient(app, f"http://{HOST}", client=(peer, 50000))
        for address in given:
            headers = {"X-Forwarded-For": address} | bearer("nst_wrong")
            code: int = visitor.get(f"{API}/test", headers=headers).status_code
        return code

    clock, numbers = Clock(), range(SLOW + 1)
    assert last("127.0.0.1", [f"192.0.2.{n}" for n in numbers]) == 401
    assert last("127.0.0.1", [f"10.0.0.{n}, 192.0.2.1" for n in numbers]) == 429
    assert last("127.0.0.1", [f"10.0.0.{n}, 192.0.2.1, 127.0.0.1" for n in numbers]) == 429
    assert last("192.0.2.9", [f"10.0.0.{n}" for n in numbers]) == 429


@pytest.mark.parametrize("change", ["first", "revoked", "signed out"])
@pytest.mark.parametrize("started", [True, False])
def test_changes_of_the_tokens_end_open_requests(
    options: PageOptions, wrong: WrongTokens, *, started: bool, change: str
) -> None:
    """A stream, and a request that waits, end soon after a revocation, the end of their login or the first token."""
    sessions, headers, login = Sessions(options.folders), {}, ""
    if change != "first":
        headers = bearer(tokens.create(options.folders, "phone", "full"))
    if change == "signed out":
        login = sessions.begin(tokens.listed(options.folders)[0])
        headers = {"Cookie": f"{COOKIE}={login}"}

    async def endless() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        if change == "first":
            await asyncio.to_thread(tokens.create, options.folders, "phone", "full")
        elif login:
            await asyncio.to_thread(sessions.end, login)
        else:
            await asyncio.to_thread(tokens.revoke, options.folders, "phone")
        await asyncio.Event().wait()

    async def endpoint(_: Request) -> Response:
        if started:
            return StreamingResponse(endless(), media_type="text/event-stream")
        await anext(stream := endless())
        await anext(stream)
        raise AssertionError

    visitor = TestClient(guarded(options, wrong, endpoint, sessions), f"http://{HOST}")
    answer = visitor.get(f"{API}/test", headers=headers)
    assert (answer.status_code, answer.text.startswith("data: 1")) == (
        200 if started else 401,
        started,
    )
