"""The Paint view of the page, with a real daemon and the fake painter, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from nst_daemon import tokens
from nst_daemon.config import load
from tests.browser import Keys, Page, needs_browser, webdriver
from tests.web.site import SCRIPT, UNICODE, Site, serving

pytestmark = needs_browser
TOKEN = "0123456789abcdef"
#: A file that is dropped or pasted. Arguments: the element (null: the document), the file's name, the kind of event.
DROP = """
const [place, name, kind] = arguments, data = new DataTransfer();
const canvas = Object.assign(document.createElement('canvas'), {width: 64, height: 48});
canvas.getContext('2d').fillRect(0, 0, 9, 9);
const bytes = Uint8Array.from(atob(canvas.toDataURL().split(',')[1]), (c) => c.charCodeAt(0));
data.items.add(new File([bytes], name, {type: 'image/png'}));
const rest = {bubbles: true, cancelable: true};
(place || document.body).dispatchEvent(kind === 'paste'
  ? new ClipboardEvent(kind, {clipboardData: data, ...rest}) : new DragEvent(kind, {dataTransfer: data, ...rest}));
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A daemon that paints one picture until the gate opens, with a broken style and an incomplete pair."""
    with serving(tmp_path_factory.mktemp("site")) as made:
        (made.root / "styles" / "broken.png").write_bytes(b"")
        made.pair("slow", iterations=40, seconds=0.06, gate=str(made.gate), gate_at=30)
        made.until(lambda: re.search(r"slow \[\w+\]: painting", made.text()), "start of the job")
        (made.root / "inbox" / "lone.style.png").write_bytes(b"a style")
        yield made


@pytest.fixture
def page(browser: Page, site: Site) -> Page:
    """The Paint view, opened anew."""
    site.show_anew(browser, "", f".style label[title='{UNICODE}']")
    browser.until(lambda: "…" not in browser.text("header .chip"), "the status")
    return browser


def upload(page: Page, *paths: str) -> None:
    """Choose contents in the file dialog, and wait for the end of their upload."""
    page.find("#contents")[0].send_keys("\n".join(paths))
    page.until(
        lambda: len(page.find(".picture[data-state=done]")) >= len(paths), "the end of the upload"
    )


def problems(page: Page) -> list[str]:
    """The problems that are shown."""
    return [text for text in page.names(".problem") if text]


def drop(page: Page, name: str, number: int) -> None:
    """Drop a file on one of the targets that appear while a file is dragged over the page."""
    page.driver.execute_script(DROP, None, name, "dragover")
    page.until(lambda: page.find(".dropping > div"), "the targets")
    page.driver.execute_script(DROP, page.find(".dropping > div")[number], name, "drop")


def test_a_painting_is_shown_while_it_is_painted(page: Page, site: Site) -> None:
    """The content, the preview, progress, time, loss curve, the inbox and the state are shown, from the API alone."""
    page.until(lambda: page.loaded(".painting .live img"), "the preview")
    page.until(lambda: page.find(".curve path"), "the loss curve")
    page.until(lambda: page.loaded(".painting .source img"), "the content")
    assert page.text(".painting h3") == "slow"
    assert "of 40 iterations" in page.text(".painting .pace")
    assert page.text("header .chip").startswith("Daemon: Painting ")
    page.until(lambda: "lone.style.png" in page.names(".lines b"), "the incomplete pair")
    assert page.driver.title.endswith("% slow · Paint")
    assert page.requests() == {("http", f"127.0.0.1:{site.port}")}
    assert page.complaints() == []


def test_pictures_are_painted(page: Page, site: Site) -> None:
    """Two pictures are uploaded, one is named, both are painted with the settings, and the form is ready for more."""
    upload(page, site.picture("one.png", iterations=2), site.picture("<b>two.png", iterations=2))
    thumbnails = ".picture img[src^='/api/v1/uploads/']"
    page.until(lambda: len(page.find(thumbnails)) == 2, "the thumbnails of the server")
    page.until(lambda: page.loaded(thumbnails), "the thumbnails of the server")
    page.find(".picture input[type=text]")[0].send_keys("Ünïcode <cat>")
    page.click(f".style label[title='{UNICODE}']")
    page.find("#settings-style_scale")[0].send_keys("0,5")  # as it is written in German
    page.until(lambda: "2 pictures" in page.text(".estimate"), "the estimate")
    assert problems(page) == []
    assert page.violations() == []
    page.click(".submit button")
    page.until(lambda: page.find(".confirmation a"), "the confirmation")
    assert page.names(".confirmation a") == ["Ünïcode <cat>", "<b>two"]
    assert page.driver.switch_to.active_element.get_attribute("class") == "confirmation"
    assert page.find(".picture") == []
    results = [site.root / "results" / f"{name}.png" for name in ("Ünïcode <cat>", "<b>two")]
    site.gate.touch()
    site.until(lambda: all(map(Path.exists, results)), "the results")
    assert '"style_scale": 0.5' in results[1].with_suffix(".json").read_text()
    page.until(lambda: len(page.find(".latest img")) >= 2, "the latest results")
    page.find(".confirmation a")[0].click()
    page.until(lambda: "#/jobs/" in page.driver.current_url, "the job")
    # The content of a job may be moved to done/ while the page asks for it.
    assert [c for c in page.complaints() if "/inputs/" not in c] == []


def mask(site: Site, name: str, size: tuple[int, int]) -> str:
    """Write a mask of two areas. Returns its path."""
    picture = Image.new("RGB", size, "blue")
    picture.paste("red", (0, 0, size[0] // 2, size[1]))
    picture.save(site.root / "disk" / name)
    return str(site.root / "disk" / name)


def test_masks_are_painted(page: Page, site: Site) -> None:
    """Masks are added below the styles; a problem of a mask is shown beside it, and the job has the masks."""
    upload(page, site.picture("areas.png", iterations=2))
    page.click(".areas summary")
    page.until(lambda: len(page.find(".area")) == 1, "the picture")
    page.find(".area input")[0].send_keys(mask(site, "square.png", (50, 50)))
    page.click(f".style label[title='{UNICODE}']")
    page.until(lambda: "cannot have a mask" in page.text(".area:nth-child(2)"), "the library style")
    page.find("#styles-file")[0].send_keys(site.picture("land.png"))
    page.until(lambda: len(problems(page)) == 2, "the problems")
    assert page.names(".area .problem:not(:empty)")[0].startswith(
        "the mask of the content is 50 × 50"
    )
    assert page.violations() == []
    with page.looking(width=390, scheme="dark"):
        assert not page.too_wide()
        assert page.violations() == []
    drop(
        page, "style-mask.png", 3
    )  # after the targets for pictures, styles and the mask of the picture
    page.find(".area input")[0].send_keys(mask(site, "good.png", (160, 120)))
    page.until(lambda: "1 picture" in page.text(".estimate"), "the estimate")
    page.click(".submit button")
    page.until(lambda: page.find(".confirmation a"), "the confirmation")
    assert page.find(".area-mask .picture") == []
    site.gate.touch()
    result = site.root / "results" / "areas.json"
    site.until(result.exists, "the result")
    assert '"content-mask"' in result.read_text()
    assert '"style-mask"' in result.read_text()
    # As above, a content may be moved while the page asks for it.
    assert [c for c in page.complaints() if "/inputs/" not in c] == []


def test_a_painting_is_cancelled(page: Page, site: Site) -> None:
    """The Cancel button of a painting cancels its job."""
    site.gate.touch()
    site.pair("unwanted", iterations=2000, seconds=0.05)
    page.until(lambda: "unwanted" in page.names(".painting h3"), "the painting")
    page.click(".painting .cancel")
    page.until(lambda: "unwanted" not in page.names(".painting h3"), "the end of the painting")
    assert page.complaints() == []


def test_what_will_be_refused_is_said_before_the_upload(page: Page, site: Site) -> None:
    """A file of another format and an empty file are left out, each with its name and the reason, and not uploaded."""
    folder = site.root / "disk"
    folder.mkdir(exist_ok=True)
    (folder / "notes <i>.txt").write_text("no picture")
    (folder / "empty.jpg").write_bytes(b"")
    page.find("#contents")[0].send_keys(f"{folder / 'notes <i>.txt'}\n{folder / 'empty.jpg'}")
    page.until(lambda: len(page.find(".refused li")) == 2, "the refusals")
    assert page.names(".refused .name") == [
        "notes <i>.txt was left out: the format .txt cannot be read.",
        "empty.jpg was left out: the file is empty.",
    ]
    assert page.find(".picture") == []
    assert page.violations() == []
    page.click(".refused button")
    assert len(page.find(".refused li")) == 1
    assert page.complaints() == []


def test_what_the_server_refuses_is_said_at_its_place(page: Page, site: Site) -> None:
    """A damaged file is refused with its name after the upload, and a setting out of its range at its field."""
    damaged = site.root / "disk" / "damaged.png"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    page.find("#contents")[0].send_keys(str(damaged))
    page.until(lambda: page.find(".refused li"), "the refusal")
    assert page.names(".refused .name")[0].startswith("damaged.png ")
    upload(page, site.picture("fine.png"))
    page.click(f".style label[title='{UNICODE}']")
    field = page.find("#settings-style_scale")[0]
    field.send_keys("99")
    page.until(lambda: "style_scale: 99 is not allowed" in " ".join(problems(page)), "the problem")
    assert field.get_attribute("aria-invalid") == "true"
    named = field.get_attribute("aria-describedby").split()[-1]
    assert "0.05 to 20" in page.text(f"#{named}")
    assert page.violations() == []
    page.click(".submit button")
    page.until(lambda: page.driver.switch_to.active_element == field, "the focus on the field")
    page.click(".setting[data-setting=style_scale] .button")
    page.until(lambda: problems(page) == [], "the end of the problem")


def test_a_form_that_is_not_complete_says_what_is_missing(page: Page, site: Site) -> None:
    """Without a picture, and without a style, nothing is submitted: the message says what to choose."""
    page.click(".submit button")
    assert page.text("#contents-problem") == "Choose at least one picture."
    assert page.driver.switch_to.active_element.get_attribute("id") == "contents"
    upload(page, site.picture("one.png"))
    page.click(".submit button")
    assert page.text("#styles-problem") == "Choose a style."


def test_unusable_styles_are_explained(page: Page) -> None:
    """A style that cannot be used is not offered; its name and the reason are in a list below the styles."""
    assert page.find(".style label[title=broken]") == []
    assert page.text(".unusable summary") == "1 style of the library cannot be used"
    assert page.text(".unusable li").startswith("brokenbroken.png is empty")


def test_an_uploaded_style_goes_into_the_library(page: Page, site: Site) -> None:
    """An uploaded style is chosen at once, and "Add to the library" makes it a style with the name that is entered."""
    page.find("#styles-file")[0].send_keys(site.picture("dots.png"))
    keep = ".style .keep:not([hidden])"
    page.until(lambda: page.find(keep), "the end of the upload")
    assert page.find(".style input:checked")
    page.click(keep)
    name = page.find("dialog input")[0]
    assert name.get_attribute("value") == "dots"
    name.clear()
    name.send_keys(UNICODE, Keys.ENTER)
    page.until(lambda: problems(page), "the refusal of a name in use")
    assert page.violations() == []
    name.clear()
    name.send_keys("Dots & dashes", Keys.ENTER)
    page.until(lambda: not page.find("dialog"), "the end of the dialog")
    assert list((site.root / "styles").glob("Dots & dashes*"))
    assert page.find(".style label[title='Dots & dashes'] input:checked")
    page.complaints()  # Chromium logs the refusal


def test_several_styles_are_blended(page: Page, site: Site) -> None:
    """One style replaces another; after the switch, several can be chosen, and the number is shown."""
    page.find("#styles-file")[0].send_keys(site.picture("dots.png"))
    page.until(lambda: page.find(".style .keep:not([hidden])"), "the end of the upload")
    page.click(f".style label[title='{UNICODE}']")
    assert len(page.find(".style input:checked")) == 1
    page.click(".style-foot input")
    page.click(".style label[title=dots]")
    assert len(page.find(".style input:checked")) == 2
    assert "2 styles are blended" in page.text(".style-foot")


def test_pictures_are_dropped_and_pasted(page: Page) -> None:
    """A file that is dropped in any view becomes a picture or a style; one that is pasted gets a name."""
    drop(page, "dropped.png", 0)
    page.until(lambda: page.find(".picture[data-state=done]"), "the picture")
    drop(page, "as style.png", 1)
    page.until(lambda: page.find(".style label[title='as style'] input:checked"), "the style")
    page.driver.execute_script("location.hash = '#/results'")
    page.until(lambda: page.find(".view-results"), "the other view")
    drop(page, "elsewhere.png", 0)
    page.until(lambda: page.find(".view-paint"), "the Paint view")
    page.driver.execute_script(DROP, None, "image.png", "paste")
    page.until(lambda: len(page.find(".picture[data-state=done]")) == 3, "all pictures")
    names = [str(i.get_attribute("placeholder")) for i in page.find(".picture input[type=text]")]
    assert names[:2] == ["dropped", "elsewhere"]
    assert names[2].startswith("pasted ")
    assert page.complaints() == []


def test_every_format_has_a_thumbnail(page: Page, site: Site) -> None:
    """A TIFF file, which browsers cannot show, has a thumbnail as soon as it is uploaded."""
    tiff = site.root / "disk" / "scan.tiff"
    Image.new("RGB", (40, 30), "orange").save(tiff)
    upload(page, str(tiff))
    page.until(lambda: page.loaded(".picture .face img"), "the thumbnail")
    assert "40 × 30" in page.text(".picture .facts")


def test_advanced_settings_are_found(page: Page) -> None:
    """The search finds settings by words of their help, changed ones are counted, and a preset changes the defaults."""
    page.click(".all-settings summary")
    page.find("#settings-search")[0].send_keys("optimiser 'lbfgs", Keys.ENTER)
    assert problems(page) == [], "Enter has submitted the form"
    page.until(
        lambda: len([f for f in page.find(".setting-group .setting") if f.is_displayed()]) < 4,
        "the matches",
    )
    field = page.find("#settings-optimizer")[0]
    assert field.is_displayed()
    usual = page.text("#settings-optimizer option")
    page.find("#settings-preset")[0].send_keys("wasserstein")
    page.until(lambda: page.text("#settings-optimizer option") != usual, "another default")
    field.send_keys("lbfgs")
    page.until(lambda: page.text(".all-settings .badge") == "1", "the number of changed settings")
    assert page.violations() == []


def test_the_form_stays_while_another_view_is_shown(page: Page, site: Site) -> None:
    """Uploads, styles and settings are still in the form after a visit to another view."""
    upload(page, site.picture("one.png"))
    page.click(f".style label[title='{UNICODE}']")
    page.find("#settings-seed")[0].send_keys("7")
    page.click(".navigation [data-view=results]")
    page.until(lambda: not page.find(".paint"), "the other view")
    page.click(".navigation [data-view='']")
    page.until(lambda: page.find(".picture[data-state=done]"), "the picture")
    page.until(lambda: page.find(f".style label[title='{UNICODE}'] input:checked"), "the style")
    assert page.find("#settings-seed")[0].get_attribute("value") == "7"


def test_a_reload_keeps_the_form(page: Page, site: Site) -> None:
    """Uploads with their names, an uploaded style and settings are in the form after a reload, and can be used."""
    upload(page, site.picture("one.png", iterations=1), site.picture("two.png", iterations=1))
    page.find(".picture input[type=text]")[0].send_keys("kept")
    page.find("#styles-file")[0].send_keys(site.picture("dots.png"))
    page.until(lambda: page.find(".style .keep:not([hidden])"), "the upload of the style")
    page.find("#settings-seed")[0].send_keys("7")
    page.driver.refresh()
    page.until(lambda: page.find(".style label[title=dots] input:checked"), "the style")
    assert page.find("#settings-seed")[0].get_attribute("value") == "7"
    assert page.find(".picture input[type=text]")[0].get_attribute("value") == "kept"
    page.click(".submit button")
    page.until(lambda: page.find(".confirmation a"), "the confirmation")
    assert page.names(".confirmation a") == ["kept", "two"]


def test_many_pictures_leave_the_styles_in_sight(page: Page, site: Site) -> None:
    """Of ten pictures eight are shown until "Show all"; "Remove all" removes them."""
    upload(page, *[site.picture(f"{n}.png") for n in range(10)])
    shown = ".picture:not([hidden])"
    assert (len(page.find(shown)), page.text(".pictures-many b")) == (8, "10 pictures")
    page.click(".pictures-many [aria-expanded]")
    assert len(page.find(shown)) == 10
    assert page.violations() == []
    page.click(".pictures-many .button:last-child")
    assert page.find(".picture") == []


def test_keyboard_alone(page: Page) -> None:
    """The first Tab offers to skip the header; the space bar chooses a style, and the focus is visible."""
    page.press(Keys.TAB)
    assert page.driver.switch_to.active_element.get_attribute("class") == "skip"
    page.press(Keys.ENTER)
    assert page.driver.switch_to.active_element.get_attribute("id") == "main"
    page.driver.execute_script("document.getElementById('styles-file').focus()")
    webdriver.ActionChains(page.driver).send_keys(Keys.TAB, Keys.SPACE).perform()
    assert page.find(".style input:checked:focus")
    outline = "return getComputedStyle(document.querySelector('input:focus ~ .face')).outlineStyle"
    assert page.driver.execute_script(outline) == "solid"


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_narrow_and_wide_dark_and_light_are_accessible(page: Page, width: int, scheme: str) -> None:
    """Nothing is wider than the window, the colours follow the system, and axe-core finds nothing."""
    with page.looking(width=width, scheme=scheme):
        assert page.is_dark() == (scheme == "dark")
        page.click(".all-settings summary")
        assert not page.too_wide()
        assert page.violations() == []
        page.click("#menu-button")
        assert page.violations() == []
        page.press(Keys.ESCAPE)
        small = (
            "return [...document.querySelectorAll('a.button, button, summary, .navigation a')]"
            ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 36).map((e) => e.outerHTML)"
        )
        assert page.driver.execute_script(small) == []


def test_the_page_speaks_german(page: Page) -> None:
    """The switch shows the page in German, and keeps it after a reload."""
    try:
        page.click("#menu-button")
        page.find("#menu select")[0].send_keys("Deutsch")
        page.until(lambda: page.find("html[lang=de] #contents"), "the German page")
        assert page.text("h1") == "Malen"
        page.until(lambda: page.find(".painting, .now .empty"), "the status")
        assert page.violations() == []
        page.driver.refresh()
        page.until(lambda: page.find("html[lang=de] h1"), "the German page again")
    finally:
        page.driver.execute_script("localStorage.clear()")


def test_hostile_names_do_nothing(page: Page, site: Site) -> None:
    """Names with markup are shown unchanged and do not become elements or scripts."""
    site.pair(SCRIPT, do="nan", at=1)
    upload(page, site.picture(f"{SCRIPT}.png"))
    assert page.find(".picture input[type=text]")[0].get_attribute("placeholder") == SCRIPT
    scripts = [urlsplit(str(s.get_attribute("src"))).path for s in page.find("script")]
    assert len(scripts) == 1
    assert scripts[0].endswith("/app.js")


def test_leaving_while_uploading_is_questioned(page: Page, site: Site) -> None:
    """During an upload the browser asks before it leaves the page; an interrupted upload is named afterwards."""
    devtools = page.driver.execute_cdp_cmd
    devtools("Network.enable", {})
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2000}
    devtools("Network.emulateNetworkConditions", slow)
    try:
        page.find("#contents")[0].send_keys(site.picture("one.png"))
        page.until(lambda: page.find(".picture[data-state=sending]"), "the upload")
        asks = "const e = new Event('beforeunload', {cancelable: true}); dispatchEvent(e); return e.defaultPrevented"
        assert page.driver.execute_script(asks)
        page.click(".picture .overlay")
        page.until(lambda: not page.find(".picture"), "the end of the upload")
        page.until(lambda: not page.driver.execute_script(asks), "the end of the question")
        page.find("#contents")[0].send_keys(site.picture("two.png"))
        page.until(lambda: page.find(".picture[data-state=sending]"), "the second upload")
        page.driver.refresh()
        page.until(lambda: page.find(".refused li"), "the interrupted upload")
        assert "two.png was not uploaded" in page.text(".refused li")
    finally:
        devtools("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})


def test_a_failed_upload_is_repeated(page: Page, site: Site) -> None:
    """An upload that breaks off is marked as failed, and repeated when the daemon answers again."""
    devtools = page.driver.execute_cdp_cmd
    devtools("Network.enable", {})
    away = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    devtools("Network.emulateNetworkConditions", away)
    try:
        page.find("#contents")[0].send_keys(site.picture("one.png"))
        page.until(lambda: page.find(".picture[data-state=failed]"), "the failure")
        assert "does not answer" in page.text(".picture .problem")
    finally:
        devtools("Network.emulateNetworkConditions", away | {"offline": False})
    page.until(lambda: page.find(".picture[data-state=done]"), "the upload")
    page.complaints()  # Chromium logs requests without a network


def test_the_page_waits_for_a_daemon_that_has_gone(page: Page, site: Site) -> None:
    """The page says that the daemon is away, continues by itself when it is back, and says when it was updated."""
    site.end()
    page.until(lambda: page.find(".banner.lost"), "the banner")
    assert page.violations() == []
    site.serve()
    page.until(lambda: not page.find(".banner"), "the end of the banner")
    page.driver.execute_script(
        "fetch = async () => new Response('/static/of-another-version/app.js');"
        "document.dispatchEvent(new Event('visibilitychange'));"
    )
    page.until(lambda: page.find(".banner.renewed button"), "the offer to reload")


def test_the_token_opens_the_page(browser: Page, tmp_path: Path) -> None:
    """The page refuses a wrong token, accepts the right one until "Sign out", and has no form for a read-only one."""
    made = Site(tmp_path)
    made.environment["NST_STATUS_PAGE_TOKEN"] = TOKEN
    folders = load(None, made.environment).folders
    folders.state.mkdir()
    visitor = tokens.create(folders, "visitor", "read")
    made.serve()
    try:
        browser.driver.get(made.address)
        browser.until(lambda: browser.find("#token"), "the form")
        assert browser.violations() == []
        browser.find("#token")[0].send_keys("something else", Keys.ENTER)
        browser.until(lambda: browser.text("#wrong"), "the refusal")
        browser.find("#token")[0].clear()
        browser.find("#token")[0].send_keys(TOKEN, Keys.ENTER)
        browser.until(lambda: browser.find("#contents"), "the page")
        browser.click("#menu-button")
        browser.click("#menu .button")
        browser.until(lambda: browser.find("#token"), "the form again")
        browser.find("#token")[0].send_keys(visitor, Keys.ENTER)
        browser.until(lambda: browser.find(".paint-form .empty"), "the page for reading")
        assert browser.find("form") == []
        assert "read-only" in browser.text(".paint-form")
        assert browser.violations() == []
    finally:
        made.kill()
