"""The responses of the status page."""

from __future__ import annotations

import fcntl
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from nst_daemon.ops import status
from nst_daemon.service.live_status import InboxStatus, LiveStatus, PaintingStatus
from nst_daemon.web.options import PageOptions
from tests.web.conftest import add, client, limited, picture


def test_the_page_tells_what_status_tells(visitor: TestClient, options: PageOptions) -> None:
    """The page's document holds exactly what `nst-daemon status --json` prints."""
    add(options, "waits")
    add(options, "<b>", error="no <picture>")
    add(options, "dog", result="dog.png")
    answer = visitor.get("/status.json")
    found = answer.json()["status"]
    assert found == json.loads(json.dumps(status.gather(options.folders).as_json()))
    assert [job["name"] for job in found["next"]] == ["waits"]
    assert found["failed"][0]["error"] == "no <picture>"
    assert found["done"][0]["result"] == "dog.png"
    assert answer.headers["cache-control"] == "no-store"


def test_a_damaged_ledger_is_said(visitor: TestClient, options: PageOptions) -> None:
    """With a damaged ledger, the page responds with the reason."""
    options.folders.ledger.write_bytes(b"this is no ledger" * 100)
    answer = visitor.get("/status.json")
    assert answer.status_code == 503
    assert answer.json()["error"]


def test_the_page_offers_the_formats_that_are_read(options: PageOptions) -> None:
    """limits.formats decides which suffixes the form offers and which styles have a thumbnail, not which results do."""
    assert {".heic", ".jpg", ".tif"} <= set(client(options).get("/status.json").json()["suffixes"])
    picture(options.folders.results / "dog.png")
    picture(options.folders.styles / "dots.png")
    job = add(options, "dog", result="dog.png")
    visitor = client(limited(options, formats=("webp", "gif"), max_bytes=10_000))
    assert visitor.get("/status.json").json()["suffixes"] == [".gif", ".webp"]
    assert visitor.get("/styles/dots").status_code == 404
    assert visitor.get(f"/jobs/{job}/thumbnail").status_code == 200


def test_the_page_starts_without_decoders() -> None:
    """The process of the page loads no library for pictures before it makes a thumbnail."""
    code = "import sys, nst_daemon.web.__main__\nprint({'PIL', 'numpy', 'imagecodecs', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_damaged_picture_has_no_thumbnail(visitor: TestClient, options: PageOptions) -> None:
    """A result or a style that cannot be decoded has no thumbnail."""
    (options.folders.results / "dog.png").write_bytes(b"no picture")
    (options.folders.styles / "starry.png").write_bytes(b"no picture")
    job = add(options, "dog", result="dog.png")
    assert visitor.get(f"/jobs/{job}/thumbnail").status_code == 404
    assert visitor.get("/styles/starry").status_code == 404


def test_no_address_leads_out_of_the_results(
    visitor: TestClient, options: PageOptions, tmp_path: Path
) -> None:
    """A link in results/, a strange path in the ledger and a strange style name are 404."""
    picture(tmp_path / "secret.png")
    (options.folders.results / "link.png").symlink_to(tmp_path / "secret.png")
    for result in ("link.png", "../../secret.png", str(tmp_path / "secret.png")):
        job = add(options, "x", result=result)
        for what in ("result", "thumbnail"):
            assert visitor.get(f"/jobs/{job}/{what}").status_code == 404, result
    for name in ("..%2f..%2fsecret", "%2e%2e%2fstate%2fledger.sqlite", "secret"):
        assert visitor.get(f"/styles/{name}").status_code == 404, name


def test_styles_are_shown(options: PageOptions) -> None:
    """Each library style is listed, with a thumbnail that follows changes of its picture."""
    visitor = client(limited(options, max_bytes=100_000))
    path = options.folders.styles / "<b>starry.png"
    picture(path)
    (styles,) = visitor.get("/status.json").json()["styles"].items()
    assert styles[0] == "<b>starry"
    first = visitor.get("/styles/%3Cb%3Estarry").content
    picture(path, (400, 800))
    with Image.open(io.BytesIO(visitor.get("/styles/%3Cb%3Estarry").content)) as image:
        assert image.size == (180, 360)
    assert first


def test_a_style_that_cannot_be_used_is_listed_with_the_reason(
    visitor: TestClient, options: PageOptions
) -> None:
    """A style with a problem has no thumbnail and cannot be chosen; the page says what is wrong."""
    (options.folders.styles / "linked.png").symlink_to("/etc/hosts")
    found = visitor.get("/status.json").json()
    assert found["styles"] == {}
    assert found["style_problems"] == {
        "linked": "linked.png is a symbolic link; drop a copy of the file itself"
    }
    assert visitor.get("/styles/linked").status_code == 404


@pytest.fixture
def locked(options: PageOptions) -> Iterator[None]:
    """The lock of the root is held, as by a running daemon."""
    with (options.folders.state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.usefixtures("locked")
def test_the_live_preview(visitor: TestClient, options: PageOptions) -> None:
    """A job that is being painted has a preview and its time; other jobs and paths outside results/ are 404."""
    picture(options.folders.previews / "dog.jpg")
    job = "1" * 32
    painting = PaintingStatus(
        job, "dog", "cpu", 1, 2, 50, None, None, [(1, 0.5)], ".preview/dog.jpg"
    )
    odd = "not UTF-8: \udcff"
    inbox = InboxStatus(settling=[odd])
    live = LiveStatus(1, 0.0, 0.0, "painting", "", "painting dog", [painting], inbox=inbox)
    live.write(options.folders.status)
    document = visitor.get("/status.json").json()
    assert document["previews"][job] > 0
    assert document["status"]["inbox"]["settling"] == [odd]
    assert document["status"]["live"]["paintings"] == [asdict(painting) | {"curve": [[1, 0.5]]}]
    shown = visitor.get(f"/jobs/{job}/preview")
    assert shown.content == (options.folders.previews / "dog.jpg").read_bytes()
    assert visitor.get(f"/jobs/{'2' * 32}/preview").status_code == 404
    replace(live, paintings=[replace(painting, preview="../secret")]).write(options.folders.status)
    assert visitor.get(f"/jobs/{job}/preview").status_code == 404


def test_there_is_no_other_way_in(options: PageOptions) -> None:
    """Only GET and HEAD are allowed, and POST for the form; without a token there is no login."""
    visitor = client(options)
    for path in (
        "/",
        "/status.json",
        "/jobs/1/result",
        "/styles/x",
        "/static/x/app.js",
        "/drop",
        "/login",
    ):
        for method in ("PUT", "PATCH", "DELETE", "POST"):
            if (method, path) != ("POST", "/drop"):
                code = visitor.request(method, path).status_code
                assert code == (404 if path == "/login" else 405), (method, path)
