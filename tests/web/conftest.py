"""The status page without a server, for a root without a daemon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nst_daemon.config import load
from nst_daemon.ledger import Ledger
from nst_daemon.web.app import make_app
from nst_daemon.web.options import PageOptions

TOKEN = "0123456789abcdef"
HOST = "127.0.0.1:8787"


def client(options: PageOptions, host: str = HOST) -> TestClient:
    """A visitor of the page."""
    return TestClient(make_app(options), base_url=f"http://{host}", follow_redirects=False)


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


def inbox(options: PageOptions) -> dict[str, bytes]:
    """Every file in the inbox, hidden ones too, by its path."""
    folder = options.folders.inbox
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
