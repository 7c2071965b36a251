"""The Batches view of the page, with a real daemon and the fake painter, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Keys, Page, needs_browser
from tests.web.site import UNICODE, Site, serving

pytestmark = needs_browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A daemon without jobs."""
    with serving(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture
def page(browser: Page, site: Site) -> Page:
    """The list of batches, opened anew."""
    site.show_anew(browser, "#/batches", ".view-batches h1")
    return browser


def fill(page: Page, site: Site, *names: str) -> None:
    """Open the form and give it contents and a style."""
    page.click("a.primary")
    page.until(lambda: page.find(f".style label[title='{UNICODE}']"), "the styles")
    paths = [site.picture(name, iterations=2) for name in names]
    page.find("#batch-contents")[0].send_keys("\n".join(paths))
    page.until(lambda: len(page.find(".picture[data-state=done]")) == len(names), "the uploads")
    page.click(f".style label[title='{UNICODE}']")


def sweep(page: Page, label: str) -> int:
    """Add a setting to compare. Returns its place."""
    page.click(".sweeps + .button")
    place = len(page.find(".sweep"))
    page.find(f".sweep:nth-child({place}) select")[0].send_keys(label)
    return place


def test_a_batch_is_painted(page: Page, site: Site) -> None:
    """Pictures, a style and values of two settings are chosen, the number is shown, all are painted, with progress."""
    fill(page, site, "one.png", "two.png")
    name = page.find("#batch-name")[0]
    name.clear()
    name.send_keys("Ünïcode & <b>")
    page.find(f".sweep:nth-child({sweep(page, 'Style scale')}) input")[0].send_keys("0.5, 2")
    place = sweep(page, "Keep colours")
    page.until(lambda: page.find(f".sweep:nth-child({place}) .check"), "the values")
    for box in (1, 2):
        page.click(f".sweep:nth-child({place}) .check:nth-child({box})")
    assert page.text(".product") == "2 pictures × 1 style × 4 combinations"
    page.until(lambda: page.text(".estimate").startswith("8 pictures"), "the number")
    assert page.violations() == []
    page.click(".submit button")
    page.until(lambda: page.names(".batch h2") == ["Ünïcode & <b>"], "the batch in the list")
    page.until(lambda: page.text(".batch .percent") == "100%", "the end of the batch")
    assert page.text(".batch > .help").startswith("8 done")
    assert len(list((site.root / "results").rglob("*style_scale=0.5*.png"))) == 4
    page.until(lambda: page.loaded(".batch .latest img"), "the results")
    page.until(page.find(".batch .sheet")[0].is_displayed, "the contact sheet")
    page.click(".batch .sheet")
    page.until(lambda: page.loaded("dialog img"), "the contact sheet")
    assert page.violations() == []
    page.click("dialog button[type=submit]")
    assert page.complaints() == []
    assert page.requests() - {("blob", "")} == {("http", f"127.0.0.1:{site.port}")}
    page.click(".batch h2 a")
    page.until(lambda: "#/jobs?batch=" in page.driver.current_url, "the jobs of the batch")


def test_a_batch_is_cancelled(page: Page, site: Site) -> None:
    """After a question, "Cancel the batch" cancels all jobs of the batch that have not ended."""
    page.click("a.primary")
    page.until(lambda: page.find(f".style label[title='{UNICODE}']"), "the styles")
    page.find("#batch-contents")[0].send_keys(
        site.picture("long.png", iterations=2000, seconds=0.05)
    )
    page.until(lambda: page.find(".picture[data-state=done]"), "the upload")
    page.click(f".style label[title='{UNICODE}']")
    page.find(f".sweep:nth-child({sweep(page, 'Seed')}) input")[0].send_keys("1 2 3")
    page.click(".submit button")
    page.until(lambda: any("1 waiting" in t for t in page.names(".batch > .help")), "the batch")
    page.click(".batch .cancel")
    assert page.violations() == []
    page.click("dialog button[type=submit]")
    page.until(lambda: page.text(".batch > .help").startswith("3 cancelled"), "the end")
    assert page.complaints() == []


def test_a_refused_batch_leads_to_its_reason(page: Page, site: Site) -> None:
    """The card of a batch whose file was refused leads to the job that says why."""
    (site.root / "inbox" / "broken.batch.yaml").write_text("contents: '*.png'")
    page.until(lambda: "broken" in page.names(".batch h2"), "the batch")
    card = page.find(".batch")[0]
    page.until(lambda: "refused" in card.find_element("css selector", ".help").text, "the end")
    assert page.violations() == []
    card.find_element("css selector", ".refused").click()
    page.until(lambda: "styles must be" in page.text("main"), "the reason")


def test_problems_are_said_at_their_places(page: Page, site: Site) -> None:
    """A value that is not allowed, a setting without values, and a name in use are said where they are entered."""
    fill(page, site, "one.png")
    place = sweep(page, "Style scale")
    problem = f".sweep:nth-child({place}) .problem"
    values = page.find(f".sweep:nth-child({place}) input")[0]
    values.send_keys("1, 99")
    page.until(lambda: "99 is not allowed" in page.text(problem), "the problem of a value")
    assert page.violations() == []
    values.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE)
    page.until(lambda: page.text(problem) == "", "the end of the problem")
    page.click(".submit button")
    page.until(lambda: page.text(problem) == "Enter at least one value.", "the missing values")
    values.send_keys("1")
    name = page.find("#batch-name")[0]
    name.clear()
    name.send_keys("Ünïcode & <b>")
    page.until(lambda: page.text("#batch-name-problem"), "the problem of the name")
    assert name.get_attribute("aria-invalid") == "true"
    assert page.violations() == []


def test_an_incomplete_form_says_what_is_missing(page: Page) -> None:
    """Without a picture nothing is submitted, and the message says what to choose."""
    page.click("a.primary")
    page.until(lambda: page.find(".submit button"), "the form")
    page.click(".submit button")
    assert "Choose at least one picture." in page.names(".problem")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_narrow_and_wide_dark_and_light_are_accessible(page: Page, width: int, scheme: str) -> None:
    """In the list and in the form, nothing is wider than the window, and axe-core finds nothing."""
    with page.looking(width=width, scheme=scheme):
        page.until(lambda: page.find(".batch"), "the list")
        assert not page.too_wide()
        assert page.violations() == []
        page.click("a.primary")
        page.until(lambda: page.find(".submit button"), "the form")
        page.click(".sweeps + .button")
        assert not page.too_wide()
        assert page.violations() == []


def test_the_view_speaks_german(page: Page, tmp_path: Path) -> None:
    """The list and the form are shown in German."""
    page.driver.execute_script("localStorage.setItem('nst-daemon-language', '\"de\"')")
    try:
        page.driver.refresh()
        page.until(lambda: page.find(".batch"), "the list")
        assert page.text("h1") == "Serien"
        assert any("8 fertig" in text for text in page.names(".batch > .help"))
        page.click("a.primary")
        page.until(lambda: page.find(".submit button"), "the form")
        assert page.text(".submit button") == "Serie starten"
        assert page.violations() == []
    finally:
        page.driver.execute_script("localStorage.clear()")
