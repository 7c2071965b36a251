"""Make the pictures of a contact sheet, the gallery and the status page: a part of `make docs-images`."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from benchmarks.drawings import STYLES, draw_painting, draw_scene
from nst_daemon.service.live_status import LiveStatus

IMAGES = Path(__file__).parent / "images"
#: The configuration of the daemon: a status page, and pictures that are small but recognisable.
PAGES = {
    "NST_STATUS_PAGE": "127.0.0.1:8797",
    "NST_RENDER__PRESET": "gentle",
    "NST_RENDER__SIZE": "384",
    "NST_SERVICE__SETTLE_SECONDS": "0.5",
}


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
            wait_for(sheet.exists)
            with Image.open(sheet) as image:
                image.thumbnail((1000, 1000))
                image.save(IMAGES / "contact-sheet.jpg", quality=85)
            subprocess.run([*command, "gallery"], env=environment, check=True)  # noqa: S603
            shoot((root / "results" / "index.html").as_uri(), "gallery.jpg")
            for name in ("first snow", "evening", "low tide"):
                shutil.copy(
                    root / "photos" / "riverside.png", root / "inbox" / f"{name}.content.png"
                )
                shutil.copy(root / "styles" / "mosaic.png", root / "inbox" / f"{name}.style.png")
                (root / "inbox" / f"{name}.yaml").write_text("{size: 256, iterations: 60}")
            (root / "inbox" / "holiday.content.jpg").write_bytes(b"no picture")
            (root / "inbox" / "holiday.style.jpg").write_bytes(b"no picture")
            wait_for(lambda: percent(root) >= 45)
            shoot(f"http://{PAGES['NST_STATUS_PAGE']}/", "status-page.jpg")
        finally:
            daemon.terminate()
            daemon.wait()


def fill(root: Path) -> None:
    """Write library styles, and a batch of some scenes in two of the styles."""
    for name in ("styles", "inbox", "photos"):
        (root / name).mkdir(parents=True)
    for style in STYLES:
        draw_painting(240, 240, style=style).save(root / "styles" / f"{style}.png")
    for scene in ("mountains", "riverside"):
        draw_scene(320, 240, scene=scene).save(root / "photos" / f"{scene}.png")
    batch = {"contents": [f"{root}/photos/*.png"], "styles": ["swirls", "market"]}
    (root / "inbox" / "coast.batch.yaml").write_text(json.dumps(batch))


def percent(root: Path) -> int:
    """The progress of the current painting; 0 if there is none."""
    live = LiveStatus.read(root / "state" / "status.json")
    return live.paintings[0].percent if live and live.paintings else 0


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll until the condition is true."""
    while not condition():
        time.sleep(0.2)  # another process is observed: there is no clock to inject


def shoot(address: str, name: str) -> None:
    """Save a picture of a page in a window of 1280 × 860 pixels."""
    from selenium import webdriver  # noqa: PLC0415 (only where there is a browser)
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("headless", "no-sandbox", "hide-scrollbars", "window-size=1280,860"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        driver.get(address)
        time.sleep(
            4
        )  # thumbnails load when they are in view, and the page does not report when all are loaded
        shot = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
        shot.convert("RGB").save(IMAGES / name, quality=82, optimize=True)
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
