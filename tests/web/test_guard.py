"""Access control, and security headers of every response."""

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from nst_daemon.web.options import PageOptions
from tests.web.conftest import HOST, TOKEN, client

PAIR = {"content": ("dog.png", b"dog"), "style": ("s.png", b"style")}


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
    for path in ("/", "/status.json", "/static/x/app.js"):
        assert visitor.get(path, headers={"Host": host}).status_code == 421


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
    for path in ("/status.json", "/jobs/1/result", "/styles/starry", "/nowhere"):
        assert stranger.get(path).status_code == 401, path
    assert stranger.post("/drop", files=PAIR).status_code == 401


@pytest.mark.parametrize(
    "given", ["", "Bearer ", "Bearer 0123456789abcde", f"Basic {TOKEN}", "Bearer ü", TOKEN]
)
def test_a_wrong_token_is_refused(stranger: TestClient, given: str) -> None:
    """Only the complete token, as a bearer token, gives access."""
    headers = {"Authorization": given.encode()}
    assert stranger.get("/status.json", headers=headers).status_code == 401
    right = stranger.get("/status.json", headers={"Authorization": f"Bearer {TOKEN}"})
    assert right.status_code == 200


def test_the_login_is_remembered(stranger: TestClient) -> None:
    """The right token sets a cookie that scripts and other sites cannot use and that is not the token."""
    wrong = stranger.post("/login", data={"token": "not the token"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = stranger.post("/login", data={"token": TOKEN})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert stranger.get("/status.json").status_code == 200, "the client has kept the cookie"
    stranger.cookies.clear()
    forged = {"Cookie": "nst-daemon=" + "0" * 64}
    assert stranger.get("/status.json", headers=forged).status_code == 401


def test_a_login_of_megabytes_is_not_read(stranger: TestClient) -> None:
    """A login form that is too long is refused."""
    assert stranger.post("/login", data={"token": "x" * 10_000}).status_code == 413


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
def test_another_page_cannot_drop(
    visitor: TestClient, options: PageOptions, headers: dict[str, str]
) -> None:
    """A form from another site is refused, and nothing is put into the inbox."""
    assert visitor.post("/drop", files=PAIR, headers=headers).status_code == 403
    assert list(options.folders.inbox.iterdir()) == []
    own = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert visitor.post("/drop", files=PAIR, headers=own).status_code == 201


@pytest.mark.parametrize(
    "path", ["/", "/status.json", "/nowhere", "/jobs/1/result", "/static/x/app.js"]
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
