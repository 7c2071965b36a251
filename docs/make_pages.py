"""Make the pictures of a contact sheet, the gallery and the page: a part of `make docs-images`."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from benchmarks.drawings import STYLES, draw_painting, draw_scene
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.service.live_status import LiveStatus

IMAGES = Path(__file__).parent / "images"
ADDRESS = "127.0.0.1:8797"
#: The configuration of the daemon: a page, and pictures that are small but recognisable.
PAGES = {
    "NST_STATUS_PAGE": ADDRESS,
    "NST_RENDER__PRESET": "gentle",
    "NST_RENDER__SIZE": "256",
    "NST_SERVICE__SETTLE_SECONDS": "0.5",
}
SCENES = ("mountains", "riverside", "lighthouse")
#: Windows: a desktop's and a phone's width and height in pixels, and the height of both in the saved picture.
DESKTOP, PHONE, SAVED_HEIGHT = (1280, 860), (390, 860), 620
GAP, QUALITY = 24, 80
#: The JavaScript that prepares each view; it runs until it returns true. {job}: the id of the job that is painted.
VIEWS: Mapping[str, tuple[str, str]] = {
    "paint": ("#/", "return document.querySelectorAll('.style img').length > 3"),
    "jobs": ("#/jobs?filter=all", "return document.querySelectorAll('.jobs-row').length > 3"),
    "job": (
        "#/jobs/{job}",
        "return document.querySelector('.job-preview img') && document.querySelector('.curve path')",
    ),
    "results": ("#/results", "return document.querySelectorAll('.results-tile').length > 3"),
    "viewer": (
        "#/results?q=harbour",
        "const tile = document.querySelector('.results-open');"
        "if (tile && !document.querySelector('dialog')) { tile.click(); document.activeElement.blur(); }"
        "return document.querySelector('.viewer-actions')",
    ),
    "batches": ("#/batches", "return document.querySelector('main h1')"),
}
#: The views that are dark in both colour schemes: one picture serves.
ALWAYS_DARK = ("viewer",)
#: Whether all pictures in the window have been loaded.
LOADED = (
    "return [...document.images]"
    ".filter((image) => image.checkVisibility() && image.getBoundingClientRect().top < innerHeight)"
    ".every((image) => image.complete)"
)


def main() -> None:
    """Run a daemon on a temporary root and take pictures of its pages with Chromium."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        print("no pages: Chromium is not installed (apt-get install chromium chromium-driver)")
        return
    with TemporaryDirectory() as folder:
        root = Path(folder) / "nst"
        own = {"NST_FOLDERS__ROOT": str(root), "NST_BATCH_ROOTS": f"[{root}/photos]"}
        environment = {**os.environ, **PAGES, **own}
        fill(root)
        command = [sys.executable, "-m", "nst_daemon"]
        daemon = subprocess.Popen([*command, "run"], env=environment)  # noqa: S603 (our own program)
        try:
            sheet = root / "results" / "coast" / "contact-sheet.jpg"
            wait_for(sheet.exists, daemon)
            wait_for((root / "results" / "harbour.png").exists, daemon)
            with Image.open(sheet) as image:
                image.thumbnail((1000, 1000))
                image.save(IMAGES / "contact-sheet.jpg", quality=85)
            subprocess.run([*command, "gallery"], env=environment, check=True)  # noqa: S603
            with browser() as driver:
                shot = shoot(driver, (root / "results" / "index.html").as_uri(), DESKTOP, "light")
                shot.save(IMAGES / "gallery.jpg", quality=82, optimize=True)
                drop(root)
                wait_for(lambda: percent(root) >= 25, daemon)
                save_views(driver, root)
        finally:
            daemon.terminate()
            daemon.wait()


def fill(root: Path) -> None:
    """Write library styles, a pair, and a batch of some scenes in three of the styles."""
    for name in ("styles", "inbox", "photos"):
        (root / name).mkdir(parents=True)
    for style in STYLES:
        draw_painting(240, 240, style=style).save(root / "styles" / f"{style}.png")
    for scene in SCENES:
        draw_scene(480, 360, scene=scene).save(root / "photos" / f"{scene}.png")
    draw_scene(480, 360, scene="riverside").save(root / "inbox" / "harbour.content.png")
    draw_painting(240, 240, style="swirls").save(root / "inbox" / "harbour.style.png")
    batch = {
        "contents": [f"{root}/photos/*.png"],
        "styles": ["swirls", "market", "embers"],
        "settings": {"iterations": 120},
    }
    (root / "inbox" / "coast.batch.yaml").write_text(json.dumps(batch))


def drop(root: Path) -> None:
    """Drop a pair that is painted for a while, three that wait, and one that fails."""
    pairs = {"evening": "lighthouse", "first snow": "mountains", "low tide": "riverside"}
    for number, (name, scene) in enumerate(pairs.items()):
        shutil.copy(root / "photos" / f"{scene}.png", root / "inbox" / f"{name}.content.png")
        shutil.copy(root / "styles" / "mosaic.png", root / "inbox" / f"{name}.style.png")
        settings = {"size": 384, "iterations": 600, "priority": 10 - number}
        (root / "inbox" / f"{name}.yaml").write_text(json.dumps(settings))
    for role in ("content", "style"):
        (root / "inbox" / f"holiday.{role}.jpg").write_bytes(b"no picture")


def save_views(driver: Any, root: Path) -> None:
    """Save each view: a light desktop beside a dark phone, and the other way round."""
    live = LiveStatus.read(root / "state" / "status.json")
    with LedgerReader.attach(root / "state" / "ledger.sqlite") as ledger:
        job = live.paintings[0].id if live and live.paintings else ledger.history()[0].id
    for name, (hash_, ready) in VIEWS.items():
        address = f"http://{ADDRESS}/{hash_.format(job=job)}"
        endings = [("", "light", "dark"), ("-dark", "dark", "light")]
        for ending, desktop, phone in endings[: 1 if name in ALWAYS_DARK else 2]:
            pair = [
                shoot(driver, address, DESKTOP, desktop, ready),
                shoot(driver, address, PHONE, phone, ready),
            ]
            save_pair(pair, IMAGES / f"page-{name}{ending}.jpg")


def save_pair(pair: list[Image.Image], path: Path) -> None:
    """Save two pictures side by side, with a gap that is right on dark and light pages."""
    small = [
        shot.resize((round(shot.width * SAVED_HEIGHT / shot.height), SAVED_HEIGHT)) for shot in pair
    ]
    sheet = Image.new("RGB", (sum(shot.width for shot in small) + GAP, SAVED_HEIGHT), "#808080")
    sheet.paste(small[0], (0, 0))
    sheet.paste(small[1], (small[0].width + GAP, 0))
    sheet.save(path, quality=QUALITY, optimize=True, progressive=True)


def percent(root: Path) -> int:
    """The progress of the current painting; 0 if there is none."""
    live = LiveStatus.read(root / "state" / "status.json")
    return live.paintings[0].percent if live and live.paintings else 0


def wait_for(condition: Callable[[], bool], daemon: subprocess.Popen[bytes] | None = None) -> None:
    """Poll until the condition is true. Raises SystemExit if the daemon ends before; its message is in the terminal."""
    while not condition():
        if daemon and daemon.poll() is not None:
            sys.exit(f"no pages: the daemon ended with status {daemon.returncode}; see its message")
        time.sleep(0.2)  # another process is observed: there is no clock to inject


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from selenium import webdriver  # noqa: PLC0415 (only where there is a browser)
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("headless", "no-sandbox", "hide-scrollbars", "lang=en"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def shoot(
    driver: Any, address: str, size: tuple[int, int], scheme: str, ready: str = "return true"
) -> Image.Image:
    """A picture of a page.

    Args:
        driver: The browser.
        address: Of the page.
        size: Of the window in pixels.
        scheme: "light" or "dark".
        ready: JavaScript that returns whether the page is ready.
    """
    devtools = driver.execute_cdp_cmd
    feature = {"name": "prefers-color-scheme", "value": scheme}
    window = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    devtools("Emulation.setEmulatedMedia", {"features": [feature]})
    devtools("Emulation.setDeviceMetricsOverride", window)
    driver.get("about:blank")
    driver.get(address)
    wait_for(lambda: driver.execute_script(ready))
    wait_for(lambda: driver.execute_script(LOADED))
    time.sleep(1)  # transitions end, and the last picture is decoded
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


if __name__ == "__main__":
    main()
