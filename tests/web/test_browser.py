"""The status page of a real daemon, with the fake painter, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.drawings import draw_painting
from tests.browser import Keys, Page, needs_browser, opened, webdriver
from tests.service.conftest import Served
from tests.service.test_status_page import answer, free_port

pytestmark = needs_browser
SCRIPT, UNICODE = "<script>alert(1)<_script>", "Ünïcode “quotes”"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser with a new profile."""
    with opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


class Site(Served):
    """A daemon with a page, and files for uploads."""

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

    def picture(self, name: str, **script: object) -> str:
        """Write a content for the fake painter outside the root. Returns its path."""
        path = self.root / "disk" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"tag": name, **script}))
        return str(path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One result, one failure, one job that paints until the gate opens, one queued job, and an incomplete pair."""
    made = Site(tmp_path_factory.mktemp("site"))
    made.start()
    made.until(lambda: answer(made.port) == 200, "page")
    made.pair(UNICODE, iterations=3)
    made.pair(SCRIPT, do="nan", at=1)
    made.until((made.root / "results" / f"{UNICODE}.json").exists, "result")
    made.until((made.root / "failed" / SCRIPT / "error.txt").exists, "failure")
    made.pair("slow", iterations=40, seconds=0.06, gate=str(made.gate), gate_at=30)
    made.until(lambda: re.search(r"slow \[\w+\]: painting", made.text()), "start of the slow one")
    for number in range(2):
        made.pair(f"later {number}", iterations=2)
    (made.root / "inbox" / "lone.style.png").write_bytes(b"a style")
    yield made
    assert made.process is not None
    made.process.kill()
    made.process.wait()


@pytest.fixture
def page(browser: Page, site: Site) -> Page:
    """The page, opened, with a first status."""
    browser.driver.get("about:blank")
    browser.complaints()
    browser.requests()
    browser.driver.get(site.address)
    browser.until(lambda: UNICODE in browser.names("#tiles b"), "the status")
    return browser


def test_everything_is_shown_and_nobody_else_is_asked(page: Page, site: Site) -> None:
    """Job, speed, curve, preview, queue, incomplete pair, failure and result are shown, from the daemon alone."""
    page.until(lambda: page.names(".painting h3") == ["slow"], "the job that is painted")
    page.until(lambda: page.loaded(".painting .canvas img"), "preview")
    page.until(lambda: page.find(".curve path"), "curve")
    assert "of 40 iterations" in page.text(".painting .pace")
    assert page.text("#state") == "painting"
    assert set(page.names("#next b")) <= {f"later {number}" for number in range(2)}
    assert page.names("#next b")
    assert page.names("#arriving b") == ["lone.style.png"]
    assert page.names("#failed b") == [SCRIPT]
    assert "no finite loss" in page.text("#failed p")
    assert page.names("#tiles b") == [UNICODE]
    page.until(lambda: page.loaded("#tiles img"), "thumbnail")
    for field in ("#content", "#style"):
        assert {".heic", ".jpg"} <= set(
            (page.find(field)[0].get_attribute("accept") or "").split(",")
        )
    assert page.requests() == {("http", f"127.0.0.1:{site.port}")}
    assert page.complaints() == []


def test_hostile_names_do_nothing(page: Page) -> None:
    """Names with markup are shown unchanged and do not become elements or scripts."""
    assert page.names("#failed b") == [SCRIPT]
    sources = [str(script.get_attribute("src")) for script in page.find("script")]
    assert [urlsplit(source).path for source in sources] == ["/units.js", "/page.js"]
    assert page.driver.execute_script("return document.querySelectorAll('#failed b *').length") == 0
    page.find("#tiles button")[0].click()
    assert page.text("#view-title") == UNICODE
    page.until(lambda: page.loaded("#view-body > a img"), "the result of a strange name")
    page.press(Keys.ESCAPE)
    assert not page.opened


def test_the_policy_is_in_force(page: Page) -> None:
    """A foreign script, style or picture that was inserted into the page is refused."""
    page.driver.execute_script(
        'document.body.insertAdjacentHTML(\'beforeend\', \'<img id="alien" src="https://example.org/x.png">'
        "<style>body{display:none}</style>');"
        "const s = document.createElement('script'); s.textContent = 'window.hit = 2'; document.body.append(s);"
    )
    page.until(lambda: page.find("#alien"), "the picture")
    assert page.driver.execute_script("return window.hit") is None
    assert page.find("body")[0].is_displayed()
    refused = "\n".join(page.complaints())
    for kind in ("img-src", "script-src", "style-src"):
        assert kind in refused


def test_a_form_that_is_not_complete_says_what_is_missing(page: Page, site: Site) -> None:
    """Nothing is sent without a picture, without a style, or with several pictures and no library style."""
    page.find("#send")[0].click()
    assert page.text("#said") == "Choose a picture first."
    one, two = site.picture("one.png"), site.picture("two.png")
    page.find("#content")[0].send_keys(one)
    page.find("#send")[0].click()
    assert page.text("#said") == "Choose a style."
    page.find("#content")[0].send_keys(f"{one}\n{two}")
    page.find("#send")[0].click()
    assert "choose a library style" in page.text("#said")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_dark_and_light_wide_and_narrow(page: Page, scheme: str, width: int) -> None:
    """The page follows the system's colours, and nothing on it is wider than the window."""
    with page.looking(width=width, scheme=scheme):
        assert page.is_dark() == (scheme == "dark")
        wide = "return document.documentElement.scrollWidth > innerWidth"
        assert not page.driver.execute_script(wide)
        page.find("#tiles button")[0].click()
        assert not page.driver.execute_script(
            "const v = document.getElementById('view'); return v.scrollWidth > v.clientWidth"
        )


def test_keyboard_alone(page: Page, site: Site) -> None:
    """The keyboard alone selects a library style and opens a result, and the focus is visible."""
    page.driver.execute_script("document.getElementById('content').focus()")
    webdriver.ActionChains(page.driver).send_keys(Keys.TAB, Keys.ARROW_RIGHT).perform()
    assert page.driver.execute_script("return library()") == UNICODE
    assert not page.find("#own")[0].is_displayed()
    outline = (
        "return getComputedStyle(document.querySelector('.style:focus-within .face')).outlineStyle"
    )
    assert page.driver.execute_script(outline) == "solid"
    page.driver.execute_script("document.querySelector('#tiles button').focus()")
    page.press(Keys.ENTER)
    assert page.opened


def test_the_form_drops_what_is_painted(page: Page, site: Site) -> None:
    """A pair, and pictures for a library style, are uploaded, painted, and shown as results."""
    page.find("#content")[0].send_keys(site.picture("<b>cat.png", iterations=2))
    page.find("#style")[0].send_keys(site.picture("“q”.png"))
    page.find("#name")[0].send_keys("Ünïcode <cat>")
    page.find("#send")[0].click()
    page.until(lambda: "is in the inbox" in page.text("#said"), "the drop")
    assert page.text("#said") == "Ünïcode <cat> is in the inbox."
    page.find(".style:not(.own)")[0].click()
    pictures = [site.picture(f"{name}.png", iterations=2) for name in ("a", "b")]
    page.find("#content")[0].send_keys("\n".join(pictures))
    page.find("#send")[0].click()
    page.until(lambda: "are in the inbox" in page.text("#said"), "the second drop")
    assert page.text("#said") == f"a, b are in the inbox, in {UNICODE}."
    site.gate.touch()
    results = {"Ünïcode <cat>", f"{UNICODE}/a", f"{UNICODE}/b", "slow"}
    page.until(lambda: results <= set(page.names("#tiles b")), "the results")
    assert (site.root / "results" / UNICODE / "a.png").exists()
    page.until(lambda: page.text("#state") == "idle", "the end")
    assert page.find("#idle")[0].is_displayed()
    assert page.complaints() == []


def test_the_page_waits_for_a_daemon_that_has_gone(page: Page, site: Site) -> None:
    """The page says that the daemon is away, and continues by itself when it is back."""
    site.end()
    trouble = page.find("#trouble")[0]
    page.until(trouble.is_displayed, "the trouble")
    site.start()
    site.until(lambda: answer(site.port) == 200, "page")
    page.until(lambda: not trouble.is_displayed(), "the end of it")


def test_the_token_opens_the_page(browser: Page, tmp_path: Path) -> None:
    """With a token configured, the page asks for it, refuses a wrong one and accepts the right one."""
    made = Site(tmp_path)
    made.environment["NST_STATUS_PAGE_TOKEN"] = TOKEN
    made.start()
    try:
        made.until(lambda: answer(made.port) == 401, "page")
        browser.driver.get(made.address)
        browser.find("#token")[0].send_keys("something else", Keys.ENTER)
        browser.until(lambda: browser.find("#token"), "the form again")
        assert browser.find("#current") == []
        browser.find("#token")[0].send_keys(TOKEN, Keys.ENTER)
        browser.until(lambda: browser.find("#current"), "the page")
        browser.until(lambda: browser.text("#state") == "idle", "the status")
    finally:
        assert made.process is not None
        made.process.kill()
        made.process.wait()
