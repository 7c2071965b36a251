"""The application: its status, its description, and what it does not have."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from nst_daemon.service.live_status import InboxStatus, LiveStatus, PaintingStatus
from nst_daemon.web.options import PageOptions
from tests.web.conftest import add, picture

API = "/api/v1"


def test_the_page_starts_without_decoders() -> None:
    """The process of the page loads no library for pictures before it makes a thumbnail."""
    code = "import sys, nst_daemon.web.__main__\nprint({'PIL', 'numpy', 'imagecodecs', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_without_a_daemon(visitor: TestClient, options: PageOptions) -> None:
    """Without a daemon the status says so, and counts the jobs of the ledger."""
    add(options, "waits")
    add(options, "<b>", error="no <picture>")
    answer = visitor.get(f"{API}/status")
    found = answer.json()
    assert (found["running"], found["state"]) == (False, "away")
    assert (found["counts"]["queued"], found["counts"]["failed"]) == (1, 1)
    assert answer.headers["cache-control"] == "no-store"
    health = visitor.get(f"{API}/health")
    assert (health.status_code, health.json()) == (503, {"status": "away"})


def test_an_unexpected_error_has_a_body_too(
    visitor: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of this program is status 500 with an error in JSON and all headers; the log has the traceback."""

    def fail() -> None:
        raise LookupError("secret")

    app = visitor.app
    assert isinstance(app, FastAPI)
    app.get("/broken")(fail)
    answer = visitor.get("/broken")
    assert (answer.status_code, answer.json()["cause"]) == (500, "internal error")
    assert "secret" not in answer.text
    assert "Content-Security-Policy" in answer.headers
    assert "LookupError: secret" in caplog.text


@pytest.mark.usefixtures("locked")
def test_the_live_status(visitor: TestClient, options: PageOptions) -> None:
    """The status has what is painted, with the time of its preview, and names that are not UTF-8 as escapes."""
    picture(options.folders.previews / "dog.jpg")
    painting = PaintingStatus(
        "1" * 32, "dog", "cpu", 1, 2, 50, None, None, [(1, 0.5)], ".preview/dog.jpg"
    )
    inbox = InboxStatus(settling=["not UTF-8: \udcff"])
    live = LiveStatus(1, 0.0, time.time(), "painting", "", "painting dog", [painting], inbox=inbox)
    live.write(options.folders.status)
    found = visitor.get(f"{API}/status").json()
    assert (found["running"], found["state"]) == (True, "painting")
    assert found["inbox"]["settling"] == ["not UTF-8: \\xff"]
    (shown,) = found["paintings"]
    assert shown["preview"] > 0
    assert (shown["id"], shown["percent"], shown["curve"]) == ("1" * 32, 50, [[1, 0.5]])
    replace(live, paintings=[replace(painting, preview="")]).write(options.folders.status)
    assert visitor.get(f"{API}/status").json()["paintings"][0]["preview"] == 0
    assert visitor.get(f"{API}/health").status_code == 200


@pytest.fixture
def description(visitor: TestClient) -> Any:
    """The paths of the OpenAPI description."""
    return visitor.get(f"{API}/openapi.json").json()["paths"]


def test_there_is_no_other_way_in(visitor: TestClient, description: Any) -> None:
    """A path has only the methods that are described, and those of the old page have gone."""
    for path, described in description.items():
        address = path.replace("{id}", "1" * 32)
        for method in {"get", "put", "patch", "delete", "post"} - described.keys():
            answer = visitor.request(method, address)
            assert answer.status_code == 405, (method, path)
            named = {name.lower() for name in answer.headers["Allow"].split(", ")}
            assert named - {"head"} == described.keys(), (method, path)
    for path in ("/", "/static/x/app.js"):
        for method in ("PUT", "PATCH", "DELETE", "POST"):
            assert visitor.request(method, path).status_code == 405, (method, path)
    for path in ("/status.json", "/drop", "/login", f"/jobs/{'1' * 32}/result", "/styles/x"):
        for method in ("GET", "POST"):
            assert visitor.request(method, path).status_code == 404, (method, path)


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("GET", "/nope", None, "there is no such address; look at /api/v1/openapi.json"),
        ("GET", "/batches/", None, "there is no such address; look at /api/v1/openapi.json"),
        ("PUT", "/jobs", None, "PUT is not possible here; use GET, HEAD, POST"),
        ("POST", "/jobs", {}, "contents: is missing"),
        ("POST", "/jobs/actions", {"action": "x"}, "action: must be 'cancel', 'retry', 'priority' or 'delete'"),
        ("GET", "/jobs/xx", None, "id: is not an id (32 hex digits)"),
        ("GET", "/jobs?limit=0", None, "limit: must be at least 1"),
        ("GET", "/jobs?limit=201", None, "limit: must be at most 200"),
        ("POST", "/session", {"token": ""}, "token: is empty"),
        (
            "GET",
            "/jobs?state=x",
            None,
            "state.0: must be 'inbox' or 'claimed', 'queued', 'running', 'retrying', 'staged', 'published', 'done', "
            "'failed', 'quarantined' or 'cancelled'",
        ),
    ],
)  # fmt: skip
def test_invalid_requests_are_explained_in_our_words(
    visitor: TestClient, method: str, path: str, body: Any, said: str
) -> None:
    """What is wrong is one line that names the part of the request and what is allowed."""
    assert visitor.request(method, f"/api/v1{path}", json=body).json()["error"] == said


def test_unknown_parameters_are_errors_everywhere(visitor: TestClient, description: Any) -> None:
    """Every route refuses a query parameter that it does not know, and names it."""
    for path, described in description.items():
        for method in described:
            address = path.replace("{id}", "1" * 32).replace("{number}", "0")
            answer = visitor.request(method, address, params={"sise": "64"})
            assert answer.status_code == 422, (method, path)
            assert answer.json()["field"] == "sise", (method, path)


def test_head_has_the_status_and_headers_of_get(visitor: TestClient, options: PageOptions) -> None:
    """HEAD is answered at each address that has GET, without a body; streams and long polls do not wait."""
    job = add(options, "dog", result="dog.png")
    picture(options.folders.results / "dog.png")
    paths = visitor.get(f"{API}/openapi.json").json()["paths"]
    addresses = [path for path, operations in paths.items() if "get" in operations]
    assert len(addresses) > 20
    for address in ["/", f"{API}/openapi.json", f"{API}/nothing", *addresses]:
        path = re.sub("{[a-z]+}", "0", address.replace("{id}", job))
        head = visitor.head(path)
        assert head.content == b"", path
        if "events" not in path:
            found = visitor.get(path)
            assert (head.status_code, head.headers) == (found.status_code, found.headers), path
    for stream in ("events", f"jobs/{job}/events"):
        head = visitor.head(f"{API}/{stream}")
        kind = head.headers["content-type"]
        assert (head.status_code, kind) == (200, "text/event-stream; charset=utf-8")
    waits = add(options, "waits")
    began = time.monotonic()
    assert visitor.head(f"{API}/jobs/{waits}?wait=30").status_code == 200
    assert time.monotonic() - began < 10
