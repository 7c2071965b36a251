"""The status page without a server, for a root without a daemon; and a browser for the tests of the page."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from nst_daemon.config import load
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.web.app import make_app
from nst_daemon.web.options import PageOptions
from tests.web.page_process import PageProcess

if TYPE_CHECKING:
    from tests.browser import Page

S = JobState
TOKEN = "0123456789abcdef"
HOST = "127.0.0.1:8787"


def client(options: PageOptions, host: str = HOST, peer: str = "testclient") -> TestClient:
    """A visitor of the page, connected from the address `peer`."""
    app, address = make_app(options), f"http://{host}"
    return TestClient(app, base_url=address, follow_redirects=False, client=(peer, 50000))


@pytest.fixture
def options(tmp_path: Path) -> PageOptions:
    """A page for a root with its folders and an empty ledger; a file may have 1000 bytes."""
    environment = {"NST_FOLDERS__ROOT": str(tmp_path / "nst"), "NST_STATUS_PAGE": HOST}
    found = PageOptions.of(load(None, environment), serve=True)
    for name in ("inbox", "styles", "results", "state"):
        getattr(found.folders, name).mkdir(parents=True)
    Ledger.open(found.folders.ledger).close()
    return limited(found, max_bytes=1000, min_free_disk=0)


def limited(options: PageOptions, **limits: Any) -> PageOptions:
    """The options with other limits."""
    config = replace(options.config, limits=replace(options.limits, **limits))
    return replace(options, config=config)


@pytest.fixture
def visitor(options: PageOptions) -> TestClient:
    """A visitor of a page without a token."""
    return client(options)


@pytest.fixture
def locked(options: PageOptions) -> Iterator[None]:
    """The lock of the root is held, as by a running daemon."""
    with (options.folders.state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """The process of a page with a token."""
    made = PageProcess(tmp_path_factory.mktemp("page"), program="nst_daemon.web")
    assert made.answers()
    yield made
    made.end()


WAY = (S.QUEUED, S.RUNNING, S.STAGED, S.PUBLISHED)


def add(
    options: PageOptions,
    name: str,
    *,
    result: str = "",
    error: str = "",
    archive: str = "",
    now: float = 2.0,
    **fields: Any,
) -> str:
    """Add a job that is done, has failed, or is queued. Returns its id.

    Args:
        options: Of the page.
        name: Of the job.
        result: The path below results/ of a job that is done.
        error: Of a job that has failed.
        archive: Where its inputs are, below done/ or failed/.
        now: The time of its last change but one.
        fields: More fields of the job.
    """
    with Ledger.open(options.folders.ledger) as ledger:
        number = f"{len(ledger.ids()) + 1:032x}"
        fields = {"source": "pair", "inputs": (), "created": 1.0} | fields
        ledger.add(Job(number, name, state=S.CLAIMED, updated=1.0, **fields))
        if error:
            ledger.move(number, S.FAILED, now=now, error=error, archive=archive)
        elif result:
            for state in WAY:
                ledger.move(number, state, now=now)
            ledger.move(number, S.DONE, now=now + 1, result=result, archive=archive)
        else:
            ledger.move(number, S.QUEUED, now=now)
        return number


def picture(path: Path, size: tuple[int, int] = (800, 400)) -> None:
    """A picture's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "orange").save(path)


def inbox(options: PageOptions) -> dict[str, bytes]:
    """Every file in the inbox, hidden ones too, by its path."""
    folder = options.folders.inbox
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser with a new profile."""
    from tests.browser import opened

    with opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(browser: Page) -> Page:
    """The browser, without what the last test left."""
    browser.driver.set_window_size(1280, 900)
    browser.driver.get("about:blank")
    browser.complaints()
    return browser
