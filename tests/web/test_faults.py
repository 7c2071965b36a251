"""The API while the folders and files behind it are missing or cannot be read."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nst_daemon.errors import LedgerError, LockedLedger, StorageError
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.service.live_status import LiveStatus
from nst_daemon.tokens import AcceptedTokens
from nst_daemon.web import error_bodies
from nst_daemon.web.options import PageOptions
from tests.web.conftest import add, client, picture

API = "/api/v1"
JOB, OTHER = f"{1:032x}", "f" * 32


def as_file(path: Path) -> None:
    """A file in the place of a folder."""
    path.write_text("x")


def as_link(path: Path) -> None:
    """A link to nothing in the place of a folder."""
    path.symlink_to("/nonexistent/folder")


def as_loop(path: Path) -> None:
    """A link to itself in the place of a folder."""
    path.symlink_to(path)


def missing(_: Path) -> None:
    """Nothing in the place of a folder."""


@pytest.mark.parametrize("instead", [missing, as_file, as_link, as_loop])
@pytest.mark.parametrize(
    ("folder", "paths"),
    [
        ("inbox", ["jobs", f"jobs/{OTHER}", "batches"]),
        ("results", [f"jobs/{JOB}/result", f"jobs/{JOB}/zip", f"results.zip?id={JOB}"]),
        ("styles", ["styles", "styles/star/thumbnail"]),
        ("state", ["status", "jobs", f"jobs/{JOB}", f"uploads/{OTHER}"]),
    ],
)
def test_nothing_is_called_unknown_while_its_folder_cannot_be_read(
    options: PageOptions, folder: str, paths: list[str], instead: Callable[[Path], None]
) -> None:
    """The response is status 503 with the path, instead of 404, an empty list or an internal error."""
    add(options, "dog", result="dog.png")
    picture(options.folders.results / "dog.png")
    place = getattr(options.folders, folder)
    shutil.rmtree(place, ignore_errors=True)
    instead(place)
    visitor = client(options)
    for path in paths:
        answer = visitor.get(f"{API}/{path}")
        assert answer.status_code == 503, path
        assert str(place) in answer.text or "no token can be checked" in answer.text, path


def test_uploads_are_not_called_unknown_while_they_cannot_be_read(options: PageOptions) -> None:
    """An upload is unknown without the folder, which the first upload creates, and not if something else is there."""
    visitor = client(options)
    assert visitor.get(f"{API}/uploads/{OTHER}").status_code == 404
    as_link(options.folders.uploads)
    assert visitor.get(f"{API}/uploads/{OTHER}").status_code == 503


def test_a_file_in_the_place_of_the_inbox_is_a_fault_of_storage(options: PageOptions) -> None:
    """A submission is refused with status 507 and the path, not as a wrong request; a check stores nothing: 503."""
    picture(options.folders.styles / "star.png", (9, 9))
    visitor = client(options)
    data = (options.folders.styles / "star.png").read_bytes()
    upload = visitor.post(f"{API}/uploads?name=a.png", content=data).json()["id"]
    options.folders.inbox.rmdir()
    options.folders.inbox.touch()
    body = {"contents": [{"upload": upload}], "styles": [{"library": "star"}]}
    answer = visitor.post(f"{API}/jobs", json=body)
    assert (answer.status_code, str(options.folders.inbox) in answer.text) == (507, True)
    shutil.rmtree(options.folders.styles)
    assert visitor.post(f"{API}/jobs/check", json=body).status_code == 503


def test_the_status_of_faults_says_whether_something_was_to_be_stored() -> None:
    """A locked ledger is status 503 for all requests, another fault of the disk 507 if something was to be stored."""
    disk, ledger = StorageError("x"), LockedLedger("x")
    assert [error_bodies.status_of(disk, reading=reading) for reading in (True, False)] == [
        503,
        507,
    ]
    assert [error_bodies.status_of(ledger, reading=reading) for reading in (True, False)] == [
        503,
        503,
    ]


def test_an_unexpected_error_of_a_file_names_it() -> None:
    """An OSError that a route does not expect is an error with the path and the remedy, not an internal error."""
    fault = error_bodies.fault_of(PermissionError(13, "Permission denied", "/nonexistent/W"))
    assert fault is not None
    assert str(fault).startswith("/nonexistent")
    assert fault.remedy
    assert error_bodies.fault_of(ValueError("x")) is None


def test_a_row_that_cannot_be_read_is_said(visitor: TestClient, options: PageOptions) -> None:
    """A job with damaged settings is a fault of the ledger, not an internal error."""
    add(options, "dog")
    database = sqlite3.connect(options.folders.ledger)
    database.execute("UPDATE jobs SET settings = '{'")
    database.commit()
    database.close()
    with (
        LedgerReader.attach(options.folders.ledger) as ledger,
        pytest.raises(LedgerError, match="a row"),
    ):
        ledger.jobs()
    assert visitor.get(f"{API}/jobs").status_code == 503


@pytest.mark.usefixtures("locked")
def test_a_daemon_that_hangs_is_silent(visitor: TestClient, options: PageOptions) -> None:
    """A daemon that has not written its status for two minutes is not shown as idle or healthy."""
    for age, state, code in ((0, "idle", 200), (120, "silent", 503), (-120, "silent", 503)):
        LiveStatus(1, 0.0, time.time() - age, "idle", "", "").write(options.folders.status)
        assert visitor.get(f"{API}/status").json()["state"] == state
        assert visitor.get(f"{API}/health").status_code == code
    options.folders.status.write_text("[" * 100_000)
    assert visitor.get(f"{API}/status").json()["state"] == "loading"


def test_tokens_that_cannot_be_read_are_needed_at_the_first_look(options: PageOptions) -> None:
    """If the state folder is a link to itself, every request needs a token, and none is right."""
    shutil.rmtree(options.folders.state)
    as_loop(options.folders.state)
    tokens = AcceptedTokens(options.folders, "", far=False)
    assert tokens.needed
    assert str(options.folders.state) in tokens.problem
