"""The Results view of the page and its viewer, with a real daemon and the fake painter, in a real browser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.drawings import draw_painting
from tests.browser import Keys, Page, needs_browser, webdriver
from tests.web.history import HOSTILE, LONG, History
from tests.web.site import Site

pytestmark = needs_browser
OLDER, SWEPT = 65, (256, 512)
#: The zoom of the viewer, in percent of the original size.
ZOOM = ".viewer-zoom"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A daemon with many results: also in a batch, as TIFF, with hostile and long names, and one without its file."""
    made = Site(tmp_path_factory.mktemp("site"))
    history = History(made.root)
    with history.written():
        history.done("lost")
        for number in range(OLDER):
            history.done(f"older {number}")
        for style in ("swirls", "market"):
            for size in SWEPT:
                history.batch("harbour", style, size)
        for name in ("wide.tiff", HOSTILE, LONG, "whole", "first"):
            stem, _, suffix = name.partition(".")
            history.done(stem, suffix=f".{suffix}" if suffix == "tiff" else ".png", beside=True)
    (made.root / "results" / "lost.png").unlink()
    draw_painting(64, 48, style="market").save(made.root / "styles" / "market.png")
    made.serve()
    yield made
    made.kill()


def show(page: Page, site: Site, hash_: str = "#/results", wanted: str = ".results-tile") -> None:
    """Open a view, and wait for an element of it."""
    site.show(page, hash_, wanted)


def view(page: Page, site: Site, name: str) -> None:
    """Open the viewer for a result."""
    show(page, site, f"#/results?q={name}")
    page.click(".results-open")
    loaded(page)


def loaded(page: Page) -> None:
    """Wait for the picture in the viewer and its details."""
    page.until(lambda: page.loaded(".viewer-image"), "content and result")
    page.until(lambda: page.find(".viewer-actions"), "the details")


def titles(page: Page) -> list[str]:
    """The names of the tiles."""
    return page.names(".results-open .job-name")


def share(page: Page) -> float:
    """How much of the picture's width shows the content, from 0 to 1."""
    return float(
        page.driver.execute_script(
            "const layer = document.querySelector('.viewer-layer.content');"
            "const image = document.querySelector('.viewer-image');"
            "const right = parseFloat(getComputedStyle(layer.parentElement).getPropertyValue('--at'));"
            "const box = image.getBoundingClientRect(), left = layer.parentElement.getBoundingClientRect().left;"
            "return (left + right - box.left) / box.width;"
        )
    )


def width(page: Page) -> float:
    """The width of the picture in the viewer in pixels of the screen."""
    return float(
        page.driver.execute_script(
            "return document.querySelector('.viewer-layer .viewer-image').getBoundingClientRect().width"
        )
    )


def test_results_are_listed_and_more_follow(page: Page, site: Site) -> None:
    """The newest results come first with their thumbnails; further ones are loaded near the end of the page."""
    show(page, site)
    assert titles(page)[:2] == ["first", "whole"]
    assert page.text(".results-count") == "75 pictures"
    page.until(lambda: page.loaded(".results-tile:first-child img"), "the thumbnail")
    page.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
    page.until(lambda: len(titles(page)) == 75, "all results")
    assert titles(page)[-1] == "lost"
    assert len(set(page.names(".results-open"))) == 75


def test_search_and_filters(page: Page, site: Site) -> None:
    """Results are found by name, by batch and by style; the address keeps the choice, and one button clears it."""
    show(page, site)
    page.until(lambda: page.find("#results-batch option[value=coast]"), "the batches")
    page.find("#results-batch")[0].send_keys("coast")
    page.until(lambda: len(titles(page)) == 4, "the batch")
    small = page.names(".results-text small")
    assert len(set(small)) == 4
    assert "coast · market · size 512" in small
    page.find("#results-style")[0].send_keys("market")
    page.until(lambda: len(titles(page)) == 2, "the style in the batch")
    assert page.driver.current_url.endswith("#/results?batch=coast&style=market")
    page.find("#results-search")[0].send_keys("nothing like it")
    page.until(lambda: page.find(".empty .button"), "no match")
    page.click(".empty .button")
    page.until(lambda: len(titles(page)) == 60, "all results")
    assert page.complaints() == []


def test_content_and_result_are_compared(page: Page, site: Site) -> None:
    """The slider shows more or less of the content: with the keyboard and with the pointer on the divider."""
    view(page, site, "whole")
    slider = page.find("#viewer-slider")[0]
    assert abs(share(page) - 0.5) < 0.02
    slider.send_keys(Keys.HOME)
    assert abs(share(page)) < 0.02
    slider.send_keys(*[Keys.ARROW_RIGHT] * 5)
    assert slider.get_attribute("aria-valuetext") == "5 % content"
    assert abs(share(page) - 0.05) < 0.02
    slider.send_keys(Keys.END)
    assert abs(share(page) - 1) < 0.02
    drag = webdriver.ActionChains(page.driver, duration=50)
    drag.click_and_hold(page.find(".viewer-divider")[0]).move_by_offset(-200, 0).release().perform()
    assert abs(share(page) - (1 - 200 / width(page))) < 0.03
    page.press("c")
    assert page.find(".viewer-divider:not([hidden])") == []
    page.press("c")
    assert page.find(".viewer-divider:not([hidden])")


def test_zoom_and_pan(page: Page, site: Site) -> None:
    """Keys, wheel and double click zoom, the original size has one pixel for each of the screen, and arrows move it."""
    view(page, site, "whole")
    fitted = width(page)
    page.press("1")
    assert abs(width(page) - 320) < 1
    assert page.text(ZOOM) == "100%"
    page.press("0")
    assert abs(width(page) - fitted) < 1
    page.press("+", "+")
    assert abs(width(page) - fitted * 1.25**2) < 2
    place = "return document.querySelector('.viewer-image').getBoundingClientRect().left"
    before = page.driver.execute_script(place)
    page.press(Keys.ARROW_RIGHT)
    assert page.driver.execute_script(place) < before
    page.press("0")
    stage = page.find(".viewer-stage")[0]
    scroll = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(stage, 100, 50)
    webdriver.ActionChains(page.driver).scroll_from_origin(scroll, 0, -400).perform()
    page.until(lambda: width(page) > fitted * 1.5, "the zoom of the wheel")
    webdriver.ActionChains(page.driver).double_click(stage).perform()
    page.until(lambda: abs(width(page) - fitted) < 1, "the whole picture")
    assert page.complaints() == []


def test_pinch_and_swipe(page: Page, site: Site) -> None:
    """On a touch screen, two fingers zoom and a swipe shows the next picture."""
    touch = page.driver.execute_cdp_cmd
    with page.looking(width=390, scheme="light"):
        show(page, site)
        page.click(".results-open")
        loaded(page)
        fitted = width(page)

        def move(*spots: tuple[int, int], kind: str = "touchMove") -> None:
            points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(spots)]
            touch("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        move((100, 500), (200, 500), kind="touchStart")
        for step in (20, 40, 60, 80):
            move((100 - step, 500), (200 + step, 500))
        move(kind="touchEnd")
        assert width(page) > 1.8 * fitted
        page.press("0")
        assert page.text(".viewer-title") == "first"
        move((320, 620), kind="touchStart")
        for x in (260, 200, 100):
            move((x, 620))
        move(kind="touchEnd")
        page.until(lambda: page.text(".viewer-title") == "whole", "the next picture")


def test_next_and_previous(page: Page, site: Site) -> None:
    """Arrow keys and buttons show the other pictures; the tile of the last one has the focus afterwards."""
    show(page, site)
    page.click(".results-open")
    loaded(page)
    assert "1 of 75" in page.text(".viewer-place")
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: page.text(".viewer-title") == "whole", "the next picture")
    loaded(page)
    page.press(Keys.ARROW_LEFT)
    page.until(lambda: page.text(".viewer-title") == "first", "the one before")
    page.press(Keys.PAGE_DOWN)
    page.until(lambda: page.text(".viewer-title") == "whole", "the next one again")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.find("dialog"), "the grid")
    assert page.driver.switch_to.active_element.get_attribute("aria-label") == "View whole"
    page.driver.execute_script("document.querySelector('.results-open').click()")
    page.until(lambda: page.find("dialog.viewer"), "the viewer")
    page.driver.back()
    page.until(lambda: not page.find("dialog"), "the grid after Back")
    assert page.driver.current_url.endswith("#/results")


def test_a_picture_has_an_address(page: Page, site: Site) -> None:
    """Back returns to the place in the list, and the address opens the same picture again, also far down."""
    show(page, site)
    page.driver.execute_script("scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
    page.until(lambda: len(titles(page)) == 75, "all results")
    place = page.driver.execute_script(
        "const tile = document.querySelector('.results-tile:nth-child(70) .results-open');"
        "tile.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const place = scrollY; tile.click(); return place"
    )
    page.until(lambda: page.find("dialog"), "the viewer")
    loaded(page)
    entries = page.driver.execute_script("return history.length")
    first = page.driver.current_url
    page.press(Keys.PAGE_DOWN)
    page.until(lambda: "71 of 75" in page.text(".viewer-place"), "the next picture")
    loaded(page)
    name, address = page.text(".viewer-title"), page.driver.current_url
    assert page.driver.title.endswith(name)
    assert (address != first, page.driver.execute_script("return history.length")) == (
        True,
        entries,
    )
    page.driver.back()
    page.until(lambda: not page.find("dialog"), "the list after Back")
    assert page.driver.current_url.endswith("#/results")
    assert abs(page.driver.execute_script("return scrollY") - place) < 5
    assert len(titles(page)) == 75
    page.driver.forward()
    page.until(lambda: page.find("dialog"), "the viewer after Forward")
    page.driver.refresh()
    page.until(lambda: page.find("dialog"), "the viewer after a reload")
    loaded(page)
    page.press(Keys.ESCAPE)
    page.until(lambda: page.driver.current_url.endswith("#/results"), "the list of this tab")
    assert page.driver.execute_script("return history.length") == entries
    page.driver.get("about:blank")
    page.driver.get(address)
    page.until(
        lambda: page.find("dialog") and "71 of 75" in page.text(".viewer-place"), "the place"
    )
    loaded(page)
    assert page.text(".viewer-title") == name
    page.press(Keys.PAGE_UP)
    page.until(lambda: page.driver.current_url == first, "the one before")
    page.press(Keys.ESCAPE)
    page.until(lambda: page.driver.current_url.endswith("#/results"), "the list")
    assert page.find("dialog") == []
    assert [text for text in page.complaints() if "size=thumbnail" not in text] == []  # "lost"


def test_an_address_without_a_picture(page: Page, site: Site) -> None:
    """An address with an unknown id says that there is no picture; closing it shows the list with its search."""
    for unknown in ("f" * 32, "nothing"):
        show(page, site, f"#/results/{unknown}?q=whole", ".viewer-message:not([hidden])")
        assert page.text(".viewer-message").startswith("There is no picture at this address.")
        assert page.find(".viewer-bar > a:not([hidden]), .viewer-step:not(:disabled)") == []
        page.press(Keys.ESCAPE)
        page.until(lambda: page.driver.current_url.endswith("#/results?q=whole"), "the list")
        page.until(lambda: titles(page) == ["whole"], "the matches")
    page.complaints()  # Chromium logs the 404


def test_the_next_part_is_loaded_in_the_viewer(page: Page, site: Site) -> None:
    """At the end of the loaded results, the viewer goes on with the next part."""
    show(page, site)
    page.driver.execute_script(
        "document.querySelector('.results-tile:nth-child(60) .results-open').click()"
    )
    page.until(lambda: page.find(".viewer-actions"), "the details")
    page.until(lambda: page.find(".viewer-step.next:not(:disabled)"), "the next part")
    name = page.text(".viewer-title")
    page.click(".viewer-step.next")
    page.until(lambda: page.text(".viewer-title") != name, "the next picture")


def test_other_formats_hostile_names_and_lost_files(page: Page, site: Site) -> None:
    """A TIFF result is shown as WebP, markup in a name stays text, and a missing file is a message with the details."""
    view(page, site, "wide")
    assert "size=view" in str(page.find(".viewer-layer .viewer-image")[0].get_attribute("src"))
    page.press("1")
    assert page.complaints() == []
    show(page, site, "#/results?q=onerror")
    page.click(".results-open")
    loaded(page)
    assert page.text(".viewer-title") == HOSTILE
    assert page.find("img[src=x]") == []
    assert page.complaints() == []
    show(page, site, "#/results?q=lost")
    page.click(".results-open")
    page.until(lambda: page.find(".viewer-message:not([hidden])"), "the message")
    assert "moved or deleted" in page.text(".viewer-message")
    assert page.violations() == []
    page.click(".viewer-actions a[href*='#/jobs/']")
    page.until(lambda: page.find(".job-line"), "the job")
    assert "no longer in results/" in page.text(".job-line")
    assert page.find(".job-open") == []


def test_files_and_details(page: Page, site: Site) -> None:
    """The viewer has picture, settings and ZIP to save, the inputs, the settings, time-lapse and loss plot."""
    view(page, site, "whole")
    fetched = (
        "return fetch(arguments[0].href)"
        ".then((answer) => [answer.status, answer.headers.get('content-disposition')])"
    )
    links = page.find(".viewer-actions a[download]")
    found = [page.driver.execute_script(fetched, link) for link in links]
    assert [code for code, _ in found] == [200] * 3
    names = [re.findall(r'filename="(.+)"', disposition)[0] for _, disposition in found]
    assert names == ["whole.png", "whole.json", "whole.zip"]
    page.until(lambda: page.loaded(".viewer-details figure img"), "time-lapse and loss plot")
    assert len(page.find(".viewer-details figure img")) == 2
    assert page.loaded(".viewer-details .job-files img")
    assert page.names(".viewer-details dt")[0] == "Preset"
    page.press("i")
    assert page.find(".viewer-details:not([hidden])") == []
    page.press("i")
    page.click(".viewer-actions a[href^='#/jobs/']")
    page.until(lambda: page.find(".job-heading"), "the job")
    assert page.find("dialog") == []
    page.driver.back()
    page.until(lambda: page.find(".results-tile"), "the results again")
    assert page.complaints() == []


def test_paint_again_with_changes(page: Page, site: Site) -> None:
    """The form has the settings of the picture; the new job has the changes, an uploaded style, and a link to it."""
    view(page, site, "whole")
    page.click(".viewer-actions .primary")
    page.until(lambda: page.find("#repeat-settings"), "the form")
    assert page.find("#repeat-settings-content_weight")[0].get_attribute("value") == "2"
    assert page.violations() == []
    assert page.names("#repeat-styles-title + * .style input:checked ~ .help") == ["As before"]
    page.click("dialog .style label[title='market']")
    style = Path(site.picture("fresh.png"))
    page.find("#repeat-styles-file")[0].send_keys(str(style))
    chosen = "dialog .style input:checked ~ .name"
    page.until(lambda: page.names(chosen) == ["fresh"], "the uploaded style")
    page.until(lambda: not page.find("dialog .style progress:not([hidden])"), "its upload")
    page.find("#repeat-name")[0].send_keys("once more")
    scale = page.find("#repeat-settings-style_scale")[0]
    scale.send_keys("0.5")
    page.click("dialog:not(.viewer) button[type=submit]")
    page.until(lambda: page.find(".viewer-said a"), "the link")
    assert page.violations() == []
    page.click(".viewer-said a")
    page.until(lambda: page.find(".job-heading"), "the new job")
    assert page.text(".job-heading") == "once more"
    result = site.root / "results" / "once more.json"
    site.until(result.exists, "the new picture")
    text = result.read_text()
    assert '"style_scale": 0.5' in text
    assert '"content_weight": 2.0' in text
    assert hashlib.sha256(style.read_bytes()).hexdigest() in text
    assert page.complaints() == []


def test_several_results(page: Page, site: Site) -> None:
    """Selected results are saved as one ZIP file; deleted ones leave the grid after a confirmation."""
    show(page, site, "#/results?q=older+1")
    page.until(lambda: len(titles(page)) == 11, "the matches")
    names = titles(page)
    page.driver.execute_script("document.querySelector('.results-select input').click()")
    page.press(Keys.ARROW_RIGHT)
    third = page.find(".results-tile:nth-child(3) .results-select input")[0]
    held = webdriver.ActionChains(page.driver).key_down(Keys.SHIFT).click(third)
    held.key_up(Keys.SHIFT).perform()
    assert page.text(".jobs-selected b") == "3 selected"
    address = str(page.find(".jobs-selected a[download]")[0].get_attribute("href"))
    assert address.count("id=") == 3
    assert (
        page.driver.execute_script("return fetch(arguments[0]).then((a) => a.status)", address)
        == 200
    )
    page.click(".jobs-selected .danger")
    assert "3 pictures in results/" in page.text("dialog")
    assert page.violations() == []
    page.click("dialog button[type=submit]")
    gone = [site.root / "results" / f"{name}.png" for name in names[:3]]
    site.until(lambda: not any(map(Path.exists, gone)), "the deletion")
    page.until(lambda: titles(page) == names[3:], "the grid without them")
    assert page.find(".jobs-selected:not([hidden])") == []
    assert page.complaints() == []


def test_keyboard_alone(page: Page, site: Site) -> None:
    """One tile is reached by Tab; arrows move in the grid, x selects, and Enter opens the viewer."""
    show(page, site)
    first, second = titles(page)[:2]
    page.driver.execute_script("document.querySelector('#results-style').focus()")
    page.press(Keys.TAB)
    assert page.driver.switch_to.active_element.get_attribute("aria-label") == f"View {first}"
    page.press(Keys.ARROW_RIGHT)
    assert page.driver.switch_to.active_element.get_attribute("aria-label") == f"View {second}"
    page.press("x")
    assert page.text(".jobs-selected b") == "1 selected"
    tiles = page.find(".results-open[tabindex='0']")
    assert len(tiles) == 1
    page.press(Keys.ARROW_DOWN)
    page.press(Keys.ENTER)
    page.until(lambda: page.find("dialog.viewer"), "the viewer")
    page.press(Keys.ESCAPE)


def test_the_place_is_kept(page: Page, site: Site) -> None:
    """After a visit to another view, the same results are shown at the same place."""
    show(page, site)
    page.driver.execute_script("scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
    page.until(lambda: len(titles(page)) > 60, "more results")
    page.driver.execute_script("scrollTo({top: 1500, behavior: 'instant'})")
    page.until(lambda: page.driver.execute_script("return scrollY") == 1500, "the place before")
    page.driver.execute_script("location.hash = '#/jobs'")
    page.until(lambda: page.find(".jobs-filters"), "the jobs")
    page.driver.back()
    page.until(lambda: len(titles(page)) > 60, "the results again")
    page.until(lambda: abs(page.driver.execute_script("return scrollY") - 1500) < 5, "the place")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_narrow_and_wide_dark_and_light_are_accessible(
    page: Page, site: Site, width: int, scheme: str
) -> None:
    """In each state nothing is wider than the window and axe-core finds nothing; a phone shows two columns."""
    columns = "return getComputedStyle(document.querySelector('.results-grid')).gridTemplateColumns"
    with page.looking(width=width, scheme=scheme):
        show(page, site)
        found = len(page.driver.execute_script(columns).split())
        assert found == 2 if width == 390 else found >= 4
        assert page.is_dark() == (scheme == "dark")
        assert not page.too_wide()
        assert page.violations() == []
        page.driver.execute_script("document.querySelector('.results-select input').click()")
        assert page.violations() == []
        page.click(".results-open")
        loaded(page)
        assert not page.too_wide()
        assert page.violations() == []
        page.press("i")
        assert page.violations() == []
        page.press("i", Keys.ESCAPE)
        show(page, site, "#/results?q=nothing+like+it", ".empty p")
        assert page.violations() == []


def test_the_page_speaks_german(page: Page, site: Site) -> None:
    """Every text of the grid, the viewer and the form is German."""
    show(page, site)
    try:
        page.driver.execute_script("localStorage.setItem('nst-daemon-language', '\"de\"')")
        view(page, site, "whole")
        assert "Mit Änderungen neu malen" in page.names(".viewer-actions .button")
        page.click(".viewer-actions .primary")
        page.until(lambda: page.find("#repeat-settings"), "the form")
        assert page.violations() == []
        assert re.findall(r"\b(?:jobs?|viewer|repeat|results)\.[a-z]\w+", page.text("body")) == []
    finally:
        page.driver.execute_script("localStorage.clear()")
