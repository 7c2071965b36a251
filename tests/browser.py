"""A real browser for tests. Tests that need it are skipped if Chromium or its driver is not installed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from axe_core_python.selenium import Axe  # noqa: E402 (after the check that selenium is there)
from selenium import webdriver  # noqa: E402 (after the check that selenium is there)
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

__all__ = ["Keys", "Page", "needs_browser", "opened", "webdriver"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
needs_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="Chromium is not installed (Debian: apt-get install chromium chromium-driver)",
    ),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60.0  # seconds; a slow machine is not a failure


class Page:
    """A browser that shows a page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, css: str) -> list[Any]:
        """All elements for a selector."""
        return list(self.driver.find_elements(By.CSS_SELECTOR, css))

    def text(self, css: str) -> str:
        """The text of the first one."""
        return str(
            self.driver.execute_script(f"return document.querySelector({css!r}).textContent")
        )

    def names(self, css: str = ".card b") -> list[str]:
        """The texts of all elements for a selector, by default of the gallery's cards."""
        found: list[str] = self.driver.execute_script(
            f"return [...document.querySelectorAll({css!r})].map((b) => b.textContent)"
        )
        return found

    def click(self, css: str) -> None:
        """Click on the first element for a selector, scrolled to the middle of the window."""
        element = self.find(css)[0]
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element
        )
        element.click()

    def press(self, *keys: str) -> None:
        """Type into the element that has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def forget(self) -> None:
        """Leave the page, and remove what its forms keep in the tab for a reload."""
        self.driver.execute_script(
            "for (const [place, event] of [[window, 'pagehide'], [document, 'visibilitychange']])"
            " place.addEventListener(event, () => sessionStorage.clear());"
        )
        self.driver.get("about:blank")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.02)  # another process is watched from outside: there is no clock to inject

    @property
    def opened(self) -> bool:
        """Whether a result is shown."""
        return bool(self.driver.execute_script("return document.getElementById('view').open"))

    def loaded(self, css: str) -> bool:
        """Whether all pictures for a selector have been loaded."""
        return bool(
            self.driver.execute_script(
                f"const all = [...document.querySelectorAll({css!r})];"
                "return all.length > 0 && all.every((i) => i.complete && i.naturalWidth > 0);"
            )
        )

    def requests(self) -> set[tuple[str, str]]:
        """Scheme and host of all requests since the last call."""
        found = set()
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = urlsplit(message["params"]["request"]["url"])
                found.add((address.scheme, address.netloc))
        return found

    def complaints(self) -> list[str]:
        """Messages of the console: script errors, policy violations, missing files."""
        return [line["message"] for line in self.driver.get_log("browser")]

    def violations(self) -> list[str]:
        """The rules of axe-core that the page breaks, with the elements that break them."""
        found = Axe().run(self.driver)["violations"]
        return [f"{v['id']}: {[node['target'] for node in v['nodes']]}" for v in found]

    def too_wide(self) -> bool:
        """Whether the page is wider than the window, so that it has to be scrolled sideways."""
        return bool(
            self.driver.execute_script("return document.documentElement.scrollWidth > innerWidth")
        )

    @contextmanager
    def looking(self, *, width: int, scheme: str) -> Iterator[None]:
        """Emulate a width of the window and a dark or light colour scheme."""
        devtools = self.driver.execute_cdp_cmd
        feature = {"name": "prefers-color-scheme", "value": scheme}
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        devtools("Emulation.setEmulatedMedia", {"features": [feature]})
        devtools("Emulation.setDeviceMetricsOverride", size)
        try:
            yield
        finally:
            devtools("Emulation.clearDeviceMetricsOverride", {})
            devtools("Emulation.setEmulatedMedia", {"features": []})

    def is_dark(self) -> bool:
        """Whether the page is darker than its text."""
        colours = self.driver.execute_script(
            "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color];"
        )
        back, ink = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
        return bool(back < ink)


@contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """A browser with its profile in a folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Page(driver)
    finally:
        driver.quit()
