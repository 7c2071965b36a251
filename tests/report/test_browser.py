"""The gallery in a real browser."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.browser import Keys, Page, needs_browser, opened, webdriver
from tests.report.conftest import Root

pytestmark = needs_browser
SCRIPT, UNICODE = "<script>document.title=1<_script>", "Ünïcode “quotes”"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser with a new profile."""
    with opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Seven results in two folders, some with hostile names."""
    root = Root(tmp_path_factory.mktemp("gallery") / "root", size=(320, 240))
    root.add("plain", notes=["<b>mended</b>"])
    for i in range(3):
        root.add(f"starry/IMG_{i}", hot=True, style="starry.png", preset="wasserstein", seed=40 + i)
    root.add(UNICODE, content=f"{UNICODE}.png")
    root.add(SCRIPT, content="<script>.jpg", style="<img src=x onerror=alert(1)>.png", extras=True)
    root.add("last")
    root.write()
    return root


@pytest.fixture
def gallery(page: Page, filled: Root) -> Page:
    """The gallery, opened as a file."""
    page.driver.get("about:blank")
    page.complaints()
    page.requests()
    page.driver.get((filled.results / "index.html").as_uri())
    return page


def test_all_results_are_there_and_nobody_is_asked(gallery: Page) -> None:
    """Cards are in groups, newest first, with thumbnails; only files are read, and the console has no errors."""
    assert gallery.names() == ["last", SCRIPT, UNICODE, "plain", "IMG_2", "IMG_1", "IMG_0"]
    headings = [heading.text for heading in gallery.find("main h2")]
    assert headings == ["Pairs and single pictures", "starry"]
    assert len(gallery.find(".card img")) == 3 * 7, "content, style and result"
    gallery.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
    gallery.until(lambda: gallery.loaded(".card img"), "thumbnails")
    assert {scheme for scheme, _ in gallery.requests()} == {"file"}
    assert gallery.complaints() == []


def test_hostile_names_do_nothing(gallery: Page) -> None:
    """Names with markup are shown unchanged, in the list and when opened, and their scripts do not run."""
    card = next(c for c in gallery.find(".card") if SCRIPT in c.text)
    card.click()
    gallery.until(lambda: gallery.opened, "the result")
    assert gallery.text("#title") == SCRIPT
    captions = [caption.text for caption in gallery.find("#body figcaption")]
    assert "content: <script>.jpg" in captions
    assert "style: <img src=x onerror=alert(1)>.png" in captions
    assert gallery.driver.title == "Results · nst-daemon"
    assert gallery.find("#body script, #body b, #list script") == []
    gallery.until(lambda: gallery.loaded("#body img"), "pictures of a hostile name")
    assert gallery.complaints() == []


def test_the_policy_is_in_force(gallery: Page) -> None:
    """A foreign script, style or picture that was inserted into the page is refused."""
    gallery.driver.execute_script(
        'document.body.insertAdjacentHTML(\'beforeend\', \'<img src="https://example.org/x.png" onerror="window.hit=1">'
        "<style>body{display:none}</style>');"
        "const s = document.createElement('script'); s.textContent = 'window.hit = 2'; document.body.append(s);"
    )
    gallery.until(lambda: len(gallery.find("body > img")) == 1, "the picture")
    assert gallery.driver.execute_script("return window.hit") is None
    assert gallery.find("body")[0].is_displayed()
    refused = "\n".join(gallery.complaints())
    for kind in ("img-src", "script-src", "style-src"):
        assert kind in refused


def test_search(gallery: Page) -> None:
    """The search finds words in names, inputs, settings and notes, in any order and case, and within a folder."""
    box = gallery.find("#search")[0]
    for words, found in (
        ("img_1", ["IMG_1"]),
        ("WASSERSTEIN seed=42", ["IMG_2"]),
        ("ünïcode", [UNICODE]),
        ("<b>mended", ["plain"]),
        ("no such thing", []),
    ):
        box.clear()
        box.send_keys(words)
        assert gallery.names() == found, words
    assert gallery.text("main") == "No matches."
    box.send_keys(Keys.ESCAPE)
    assert len(gallery.names()) == 7
    gallery.find("#group option[value=starry]")[0].click()
    assert gallery.names() == ["IMG_2", "IMG_1", "IMG_0"]
    assert gallery.text("#count") == "3 of 7"


def test_the_slider_uncovers_the_content(gallery: Page) -> None:
    """Moved to the right the slider shows the content on more of the picture, by keyboard as well as by value."""
    gallery.find(".card")[0].click()
    gallery.until(lambda: gallery.loaded(".compare img"), "content and result")
    slider = gallery.find(".compare input")[0]

    def cut() -> float:
        style = gallery.driver.execute_script(
            "return getComputedStyle(document.querySelector('.compare .over')).clipPath"
        )
        return float(style.split()[-1].rstrip("%)"))

    assert cut() == 50
    webdriver.ActionChains(gallery.driver).move_to_element_with_offset(
        slider, int(slider.size["width"] * 0.3), 0
    ).click().perform()
    assert cut() == pytest.approx(80, abs=1)
    slider.send_keys(Keys.HOME)
    assert cut() == 0
    slider.send_keys(Keys.ARROW_RIGHT)
    assert cut() > 0
    assert gallery.text("#title") == "last", "the arrows belong to the slider"


def test_a_result_tells_everything(gallery: Page, filled: Root) -> None:
    """An opened result shows its inputs, time-lapse, curve, every setting and the command, which can be copied."""
    gallery.driver.get((filled.results / "index.html").as_uri() + "#IMG")
    gallery.find(f".card[title={json.dumps(SCRIPT)}]")[0].click()
    gallery.until(lambda: gallery.loaded("#body img"), "all pictures")
    alternatives = [image.get_attribute("alt") for image in gallery.find("#body .pair img")]
    assert alternatives == ["time-lapse", "loss curve"]
    sidecar = json.loads((filled.results / f"{SCRIPT}.json").read_bytes())
    shown = [term.text for term in gallery.find(".settings dt")]
    assert shown == list(sidecar["settings"])
    command = gallery.text("#command")
    assert command == f"nst-daemon rerun '{filled.results / SCRIPT}.json'"
    gallery.driver.execute_script(
        "navigator.clipboard.writeText = async (text) => { window.copied = text; };"
    )
    gallery.press("c")
    gallery.until(lambda: gallery.text("#copy") == "Copied", "copying")
    assert gallery.driver.execute_script("return window.copied") == command


def test_keyboard_alone(gallery: Page) -> None:
    """Slash, arrows, Enter and Escape lead from the search to a result, on to the next, and back to its card."""
    gallery.press("/")
    gallery.press("IMG_")
    assert gallery.names() == ["IMG_2", "IMG_1", "IMG_0"]
    gallery.press(Keys.ARROW_DOWN)
    gallery.press(Keys.ARROW_RIGHT)
    gallery.press(Keys.ENTER)
    gallery.until(lambda: gallery.opened, "the result")
    assert gallery.text("#title") == "IMG_1"
    gallery.press(Keys.ARROW_RIGHT)
    gallery.until(lambda: gallery.text("#title") == "IMG_0", "the next one")
    assert gallery.find("#next")[0].get_attribute("disabled")
    gallery.press(Keys.ESCAPE)
    gallery.until(lambda: not gallery.opened, "the list")
    assert gallery.driver.switch_to.active_element.text.startswith("IMG_0")


def test_addresses_can_be_kept(gallery: Page) -> None:
    """The address of an opened result opens it again, and going back closes it."""
    gallery.find(".card")[2].click()
    gallery.until(lambda: gallery.opened, "the result")
    address = gallery.driver.current_url
    gallery.driver.back()
    gallery.until(lambda: not gallery.opened, "the list")
    gallery.driver.get("about:blank")
    gallery.driver.get(address)
    gallery.until(lambda: gallery.opened, "the same result")
    assert gallery.text("#title") == UNICODE


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1400, "light")])
def test_dark_and_light_wide_and_narrow(gallery: Page, scheme: str, width: int) -> None:
    """The page follows the system's colours, text stands out against them, and nothing is wider than the window."""
    with gallery.looking(width=width, scheme=scheme):
        gallery.find(".card")[0].click()
        gallery.until(lambda: gallery.loaded("#body img"), "pictures")
        wide, inner = gallery.driver.execute_script(
            "const v = document.getElementById('view');"
            "return [document.documentElement.scrollWidth > innerWidth, v.scrollWidth > v.clientWidth];"
        )
        assert gallery.is_dark() == (scheme == "dark")
        assert not wide
        assert not inner


def test_it_works_from_a_server_too(page: Page, filled: Root) -> None:
    """Served over HTTP, the page is the same and sends requests only to that server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(filled.results))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.driver.get("about:blank")
        page.requests()
        page.complaints()
        page.driver.get(f"http://127.0.0.1:{server.server_port}/index.html")
        page.find(".card")[0].click()
        page.until(lambda: page.loaded("#body img"), "pictures")
        assert {host for _, host in page.requests()} == {f"127.0.0.1:{server.server_port}"}
        # The browser itself asks for an icon.
        assert [c for c in page.complaints() if "favicon" not in c] == []
    finally:
        server.shutdown()


def test_five_thousand_results(page: Page, tmp_path: Path) -> None:
    """With 5,000 results the page loads quickly, has few elements until it is scrolled, and searches quickly."""
    root = Root(tmp_path / "root")
    first = root.add("night/0")
    template = json.loads(first.with_suffix(".json").read_bytes())
    for i in range(1, 5000):
        copy = first.with_name(f"{i}.png")
        copy.hardlink_to(first)
        template["settings"]["seed"] = i
        copy.with_suffix(".json").write_text(json.dumps(template))
    began = time.monotonic()
    root.write()
    written = time.monotonic() - began
    page.driver.get((root.results / "index.html").as_uri())
    timing = page.driver.execute_script(
        "const t = performance.getEntriesByType('navigation')[0]; return t.domInteractive;"
    )
    assert page.text("#count") == "5,000 pictures"
    assert 0 < len(page.find(".card")) < 500
    searching = page.driver.execute_script(
        "const box = document.getElementById('search'), began = performance.now();"
        "box.value = 'seed=4321'; box.dispatchEvent(new Event('input')); return performance.now() - began;"
    )
    assert page.names() == ["4321"]
    box = page.find("#search")[0]
    box.send_keys(Keys.ESCAPE)
    for _ in range(3):
        so_far = len(page.find(".card"))
        page.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
        page.until(lambda n=so_far: len(page.find(".card")) > n, "more of them")
    size = (root.results / "index.html").stat().st_size / 1e6
    print(
        f"{size:.1f} MB in {written:.1f} s, interactive {timing:.0f} ms, search {searching:.0f} ms"
    )
    assert timing < 10_000
    assert searching < 3_000
