"""A daemon with a page, for tests in a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.PngImagePlugin import PngInfo

from benchmarks.drawings import draw_painting
from tests.service.conftest import Served
from tests.service.test_status_page import answer, free_port

if TYPE_CHECKING:
    from tests.browser import Page

SCRIPT, UNICODE = "<script>alert(1)<_script>", "Ünïcode “quotes”"


class Site(Served):
    """A daemon with a page, a library style, and files for uploads."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.port = free_port()
        self.environment["NST_STATUS_PAGE"] = f"127.0.0.1:{self.port}"
        self.environment["NST_OUTPUTS__LOSS_PLOT"] = (
            "false"  # drawing it takes longer than the rest
        )
        self.environment["NST_OUTPUTS__PROGRESS"] = "false"
        self.gate = root / "gate"
        (root / "styles").mkdir(parents=True)
        draw_painting(64, 48).save(root / "styles" / f"{UNICODE}.png")

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def serve(self) -> None:
        """Start the daemon, and wait for its page."""
        self.start()
        self.until(lambda: answer(self.port) in (200, 401), "page")

    def show(self, page: Page, view: str, wanted: str) -> None:
        """Open a view, and wait for an element of it. view: its hash; wanted: a selector."""
        page.driver.get("about:blank")
        self._open(page, view, wanted)

    def show_anew(self, page: Page, view: str, wanted: str) -> None:
        """Open a view in a browser that remembers nothing of earlier tests."""
        page.forget()
        page.complaints()
        page.requests()
        self._open(page, view, wanted)

    def _open(self, page: Page, view: str, wanted: str) -> None:
        page.driver.get(self.address + view)
        page.until(lambda: page.find(wanted), wanted)

    def kill(self) -> None:
        """End the daemon at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pair(self, name: str, **script: object) -> None:
        """Drop a pair for the fake painter whose pictures can be shown."""
        inbox = self.root / "inbox"
        draw_painting(64, 48).save(inbox / f"{name}.style.png")
        shutil.copy(self.picture(f"{name}.png", **script), inbox / f"{name}.content.png")

    def picture(self, name: str, **script: object) -> str:
        """Write a PNG file for the fake painter outside the root, with its script. Returns its path."""
        path = self.root / "disk" / name
        path.parent.mkdir(exist_ok=True)
        texts = PngInfo()
        texts.add_text("script", json.dumps({"tag": name, **script}))
        draw_painting(160, 120, seed=len(name)).save(path, "PNG", pnginfo=texts)
        return str(path)


@contextmanager
def serving(root: Path) -> Iterator[Site]:
    """A daemon that is killed at the end."""
    made = Site(root)
    made.serve()
    try:
        yield made
    finally:
        made.kill()
