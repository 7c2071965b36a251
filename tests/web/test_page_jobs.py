"""The Jobs view of the page and the view of one job, with a real daemon and the fake painter, in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nst_daemon import tokens
from nst_daemon.config import load
from nst_daemon.jobs import JobState
from nst_daemon.ledger_reader import LedgerReader
from tests.browser import Keys, Page, needs_browser
from tests.web.history import HOSTILE, LONG, MEMORY, History
from tests.web.site import Site

pytestmark = needs_browser
OLDER = 105
UNKNOWN = "f" * 32


class Jobs(Site):
    """A daemon with a history, one job that is painted until the gate opens, and a queue."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        history = History(root)
        with history.written():
            for number in range(OLDER):
                history.done(f"older {number}")
            history.ended("large", JobState.FAILED, error=MEMORY)
            history.ended("gone", JobState.FAILED, error="gone.png is damaged or truncated")
            history.ended(HOSTILE.replace("/", "_"), JobState.QUARANTINED, error="it died twice")
            history.done(LONG)
            history.batch("harbour", "swirls", 256)
        self.ids = history.ids

    def paint(self, name: str, settings: str = "", **script: object) -> None:
        """Drop a pair of pictures for the fake painter. settings: the text of its settings file."""
        inbox = self.root / "inbox"
        if settings:
            (inbox / f"{name}.yaml").write_text(settings)
        content = Path(self.picture(f"{name}.png", **script)).read_bytes()
        (inbox / f"{name}.style.png").write_bytes(content)
        (inbox / f"{name}.content.png").write_bytes(content)

    def job(self, name: str) -> tuple[str, int]:
        """State and priority of the newest job with this name."""
        with LedgerReader.attach(self.root / "state" / "ledger.sqlite") as ledger:
            found = ledger.find(name)[0]
            return found.state.value, found.priority

    def has(self, name: str, *states: str) -> bool:
        """Whether there is a job with this name, in one of these states."""
        with LedgerReader.attach(self.root / "state" / "ledger.sqlite") as ledger:
            return any(job.state.value in states for job in ledger.find(name))

    def cancel(self, name: str) -> None:
        """Cancel a job, and wait for its end."""
        with LedgerReader.attach(self.root / "state" / "ledger.sqlite") as ledger:
            ledger.request(ledger.find(name)[0].id, "cancel", now=time.time())
        self.until(lambda: self.has(name, "cancelled"), "the end of the job")

    def id_of(self, name: str) -> str:
        """The id of the newest job with this name."""
        with LedgerReader.attach(self.root / "state" / "ledger.sqlite") as ledger:
            return ledger.find(name)[0].id


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """The daemon, painting."""
    made = Jobs(tmp_path_factory.mktemp("site"))
    made.serve()
    made.paint("typo", settings="sizee: 256", iterations=2)
    made.paint("wrong", do="nan", at=1)
    for name in ("typo", "wrong"):
        made.until(lambda name=name: made.has(name, "failed"), "the failure")
    made.paint("slow", iterations=40, seconds=0.06, gate=str(made.gate), gate_at=30)
    made.until(lambda: re.search(r"slow \[\w+\]: painting", made.text()), "start of the job")
    for number in range(4):
        made.paint(f"later {number}", iterations=2)
    made.until(lambda: made.has("later 3", "queued"), "the queue")
    yield made
    made.kill()


def show(page: Page, site: Jobs, hash_: str = "#/jobs", wanted: str = ".jobs-row") -> None:
    """Open a view, and wait for an element of it."""
    site.show(page, hash_, wanted)


def says(page: Page, css: str, text: str) -> None:
    """Wait until the first element for a selector has a text."""
    page.until(lambda: page.names(css)[:1] == [text], text)


def titles(page: Page) -> list[str]:
    """The titles of the jobs in the list."""
    return page.names(".jobs-title .job-name")


def row(page: Page, title: str) -> str:
    """The selector of the row of a job."""
    number = titles(page).index(title) + 1
    return f".jobs-row:nth-child({number})"


def test_the_queue_is_listed_in_its_order(page: Page, site: Jobs) -> None:
    """The unfinished jobs are the painting one with its progress, then the waiting ones in painting order.

    The style file of a pair has the name of the job: it is not repeated below the job's name.
    """
    show(page, site)
    page.until(lambda: len(titles(page)) == 5, "all unfinished jobs")
    assert titles(page) == ["slow", *(f"later {number}" for number in range(4))]
    assert page.text(f"{row(page, 'slow')} .job-state") == "Painting"
    page.until(lambda: "%" in page.text(f"{row(page, 'slow')} .jobs-progress"), "the progress")
    page.until(lambda: page.find(".jobs-row progress:not([hidden])"), "the bar")
    assert page.text(f"{row(page, 'later 3')} .job-state") == "Waiting"
    assert page.text(f"{row(page, 'later 3')} .jobs-variant") == ""
    assert page.text(".jobs-filter[aria-pressed=true]").startswith("Unfinished")
    assert page.complaints() == []


def test_filters_and_search(page: Page, site: Jobs) -> None:
    """A filter shows the jobs in its states, the search those with the text, and the address keeps both."""
    show(page, site)
    page.click(".jobs-filter[data-key=failed]")
    page.until(lambda: len(titles(page)) == 5, "the failed jobs")
    reason = "There was not enough memory"
    page.until(lambda: page.names(".jobs-error b")[-1:] == [reason], "the reasons")
    assert "nst-daemon" not in " ".join(page.names(".jobs-error"))
    page.find("#jobs-search")[0].send_keys("TYP")
    page.until(lambda: titles(page) == ["typo"], "the match")
    assert page.driver.current_url.endswith("#/jobs?filter=failed&q=TYP")
    page.driver.refresh()
    page.until(lambda: titles(page) == ["typo"], "the match again")
    page.find("#jobs-search")[0].send_keys("x")
    says(page, ".jobs-empty p", "No job matches.")
    page.click(".jobs-empty .button")
    page.until(lambda: len(titles(page)) == 5, "the failed jobs again")
    page.click(".jobs-filter[data-key=retrying]")
    says(page, ".jobs-empty p", "No job is waiting for a retry.")
    assert page.complaints() == []


def test_pages(page: Page, site: Jobs) -> None:
    """A list with more jobs than a page is turned forward and back, names its position, and keeps it for Back."""
    show(page, site, "#/jobs?filter=done")
    page.until(lambda: len(titles(page)) == 100, "the first page")
    assert page.text(".jobs-count") == "1–100 of 107"
    page.click(".jobs-pager button:last-child")
    page.until(lambda: len(titles(page)) == 7, "the second page")
    assert page.text(".jobs-count") == "101–107 of 107"
    assert page.driver.switch_to.active_element.tag_name == "h1"
    assert titles(page)[-1] == "older 0"
    page.click(f"{row(page, 'older 0')} .jobs-title")
    page.until(lambda: page.find(".job-heading"), "the job")
    page.click(".job-back")
    page.until(lambda: len(titles(page)) == 7, "the second page again")
    page.click(".jobs-pager button:nth-of-type(2)")
    page.until(lambda: len(titles(page)) == 100, "the first page again")


def test_hostile_and_long_names(page: Page, site: Jobs) -> None:
    """A name with markup stays text, and the end of a long name is visible on a phone."""
    with page.looking(width=390, scheme="light"):
        show(page, site, "#/jobs?filter=all")
        assert HOSTILE.replace("/", "_") in titles(page)
        assert LONG in titles(page)
        box = (
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return box.right <= innerWidth && box.width > 0"
        )
        assert page.driver.execute_script(box, f"{row(page, LONG)} .tail")
        assert (
            page.driver.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
        )
        assert page.complaints() == []


def test_priority_and_cancel(page: Page, site: Jobs) -> None:
    """The buttons of a row change its priority, which keeps the focus, and cancel the job."""
    show(page, site)
    page.until(lambda: "later 2" in titles(page), "the queue")

    def before(first: str, second: str) -> bool:
        return titles(page).index(first) < titles(page).index(second)

    raise_ = f"{row(page, 'later 2')} .jobs-priority button:last-child"
    page.driver.execute_script("document.querySelector(arguments[0]).focus()", raise_)
    page.press(Keys.ENTER)
    site.until(lambda: site.job("later 2")[1] == 10, "the priority")
    page.until(lambda: before("later 2", "later 1"), "the new order")
    assert (
        page.driver.switch_to.active_element.get_attribute("aria-label")
        == "Raise the priority of later 2"
    )
    page.click(f"{row(page, 'later 2')} .jobs-priority button:nth-of-type(2)")
    page.until(lambda: page.find("#job-priority"), "the dialog")
    field = page.find("#job-priority")[0]
    field.clear()
    field.send_keys("-7", Keys.ENTER)
    site.until(lambda: site.job("later 2")[1] == -7, "the lower priority")
    page.until(lambda: titles(page)[-1] == "later 2", "the end of the queue")
    page.click(f"{row(page, 'later 2')} .jobs-actions > button")
    site.until(lambda: site.job("later 2")[0] == "cancelled", "the end of the job")
    page.until(lambda: "later 2" not in titles(page), "the list without it")
    assert page.complaints() == []


def test_several_jobs_at_once(page: Page, site: Jobs) -> None:
    """Selected jobs are deleted together; a deletion says first what is removed, and Keep and Back remove nothing."""
    for name in ("unwanted", "unloved"):
        site.paint(name, iterations=2)
        site.until(lambda name=name: site.has(name, "queued", "running"), "the job")
        site.cancel(name)
    show(page, site, "#/jobs?filter=cancelled")
    page.until(lambda: {"unwanted", "unloved"} <= set(titles(page)), "the cancelled jobs")
    page.click("#jobs-every")
    page.until(lambda: page.find(".jobs-selected:not([hidden])"), "the bar")
    selected = len(titles(page))
    assert page.text(".jobs-selected b") == f"{selected} selected"
    page.click(".jobs-selected .danger")
    said = page.text("dialog")
    assert "unwanted" in said
    assert "failed/" in said
    page.click("dialog .buttons button:first-child")
    assert page.find(".jobs-selected:not([hidden])")
    archives = [site.root / "failed" / name for name in ("unwanted", "unloved")]
    assert all(map(Path.exists, archives))
    page.click(".jobs-selected .danger")
    page.click("dialog button[type=submit]")
    site.until(lambda: not any(map(Path.exists, archives)), "the deletion")
    assert page.find(".jobs-selected:not([hidden])") == []
    focused = page.driver.switch_to.active_element.get_attribute("class")
    assert focused == "jobs-title", "the focus went with the bar"
    page.driver.execute_script("location.hash = '#/jobs?filter=failed'")
    page.until(lambda: "typo" in titles(page), "the failed jobs")
    page.click(f"{row(page, 'typo')} .jobs-actions button:last-child")
    page.until(lambda: page.find("dialog[open]"), "the question")
    page.driver.back()
    page.until(lambda: not page.find("dialog"), "the end of the question")
    assert page.complaints() == []


def test_retry_with_changes(page: Page, site: Jobs) -> None:
    """The dialog offers to ignore the unknown setting, shows what is refused at its field, and retries the job."""
    show(page, site, f"#/jobs/{site.id_of('typo')}", ".job-reason")
    says(page, ".job-reason h2", "A setting is not valid")
    assert "nst-daemon" in page.text(".job-message")
    page.click(".job-reason .button")
    page.until(lambda: page.find("#repeat-settings"), "the form")
    assert page.find("#repeat-ignore:checked")
    assert page.violations() == []
    scale = page.find("#repeat-settings-style_scale")[0]
    scale.send_keys("99")
    page.click("dialog button[type=submit]")
    page.until(lambda: scale.get_attribute("aria-invalid") == "true", "the refusal")
    scale.clear()
    scale.send_keys("0.5")
    page.click("dialog button[type=submit]")
    page.until(lambda: not page.find("dialog"), "the end of the dialog")
    site.until(lambda: site.job("typo")[0] in {"queued", "running", "done"}, "the retry")
    page.complaints()  # Chromium logs the refusal


def test_a_failure_is_explained_and_helped(page: Page, site: Jobs) -> None:
    """The page says in its own words what failed, and its first button retries with the change that helps."""
    show(page, site, f"#/jobs/{site.ids['large']}", ".job-reason")
    says(page, ".job-reason h2", "There was not enough memory")
    assert page.text(".job-reason .buttons .primary") == "Retry with size 192"
    show(page, site, f"#/jobs/{site.id_of('wrong')}", ".job-reason")
    says(page, ".job-reason h2", "The painting became unstable")
    page.click(".job-reason .primary")
    site.until(lambda: site.has("wrong", "queued", "running"), "the retry")
    with LedgerReader.attach(site.root / "state" / "ledger.sqlite") as ledger:
        assert ledger.find("wrong")[0].settings["precision"] == "float32"
    show(page, site, f"#/jobs/{site.ids['gone']}", ".job-reason h2")
    page.until(
        lambda: page.names(".job-reason .button") == ["Upload the picture again"], "the help"
    )
    assert page.complaints() == []


def test_a_job_while_it_is_painted(page: Page, site: Jobs) -> None:
    """The job shows the content beside the live preview, progress, loss curve, history, settings and its files."""
    show(page, site, f"#/jobs/{site.id_of('slow')}", ".job-painting .curve path")
    page.until(lambda: page.loaded(".job-preview img"), "the preview")
    assert "of 40 iterations" in page.text(".job-painting")
    assert page.names(".job-events .job-state")[-1] == "Painting"
    assert len(page.find(".job-files li")) == 2
    assert page.find(".job-settings dt")
    assert page.violations() == []


def test_a_finished_job(page: Page, site: Jobs) -> None:
    """A finished job shows content and result, names style and settings of its batch, and its files can be saved."""
    show(page, site, f"#/jobs/{site.ids['coast/harbour-swirls-256']}", ".job-downloads a")
    page.until(lambda: page.loaded(".job-pair img"), "the pictures")
    page.until(lambda: page.loaded(".job-files img"), "the thumbnails")
    assert "swirls · size 256" in page.text(".job-facts")
    assert page.text(".job-settings dt") == "Preset"
    status = (
        "return fetch(arguments[0].href)"
        ".then((answer) => [answer.status, answer.headers.get('content-disposition')])"
    )
    for link in page.find(".job-downloads a"):
        code, disposition = page.driver.execute_script(status, link)
        assert code == 200
        assert disposition.startswith("attachment")
    page.click(".job-open")
    page.until(lambda: page.find("dialog.viewer"), "the viewer")
    page.press(Keys.ESCAPE)
    page.until(lambda: page.find(".job-open"), "the job again")
    assert page.find("dialog.viewer") == []
    assert page.complaints() == []


def test_an_unknown_job(page: Page, site: Jobs) -> None:
    """The address of a job that does not exist says so, and leads back to the list; likewise one without a picture."""
    show(page, site, f"#/jobs/{UNKNOWN}", "[role=alert]")
    assert page.text("h1") == "There is no such job"
    assert len(page.find(".job section:not([hidden])")) == 1, "an empty part is shown"
    page.click(".job-back")
    page.until(lambda: page.find(".jobs-row"), "the list")
    show(page, site, f"#/results/{site.ids['gone']}", ".viewer-message:not([hidden])")
    assert page.text(".viewer-message") == "This job has no picture yet."
    page.complaints()  # Chromium logs the 404


def test_updates_keep_scroll_position_selection_and_focus(page: Page, site: Jobs) -> None:
    """While a list is updated, the same row is in sight, selected and focused."""
    show(page, site, "#/jobs?filter=all")
    before = titles(page)
    chosen = row(page, "older 60")
    page.click(f"{chosen} input")
    page.driver.execute_script(
        "document.querySelector(arguments[0]).focus()", f"{chosen} .jobs-title"
    )
    place = "return document.activeElement.getBoundingClientRect().top"
    top = page.driver.execute_script(place)
    site.paint("surprise", iterations=2)
    page.until(lambda: "surprise" in titles(page), "the new job")
    assert len(before) == 100
    assert page.driver.switch_to.active_element.text.startswith("older 60")
    assert abs(page.driver.execute_script(place) - top) < 2
    assert page.find(f"{row(page, 'older 60')} input:checked")


def test_keyboard_alone(page: Page, site: Jobs) -> None:
    """Arrow keys move between the rows, x selects, Tab leads from a row to the bar, and Enter opens the job."""
    show(page, site, "#/jobs?filter=failed")
    names = titles(page)
    page.driver.execute_script("document.querySelector('.jobs-title').focus()")
    page.press(Keys.ARROW_DOWN)
    page.press("x")
    assert page.find(f"{row(page, names[1])} input:checked")
    page.press(Keys.TAB * 3)  # past the two buttons of the row
    assert page.find(".jobs-selected button:focus")
    page.driver.execute_script("document.querySelector('.jobs-title').focus()")
    page.press(Keys.END)
    assert page.driver.switch_to.active_element.text.startswith(names[-1])
    page.press(Keys.ENTER)
    page.until(lambda: page.find(".job-heading"), "the job")
    assert page.text(".job-heading") == names[-1]


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_narrow_and_wide_dark_and_light_are_accessible(
    page: Page, site: Jobs, width: int, scheme: str
) -> None:
    """In each state nothing is wider than the window, axe-core finds nothing, and targets are large enough."""
    small = (
        "return [...document.querySelectorAll('main button, main .button, main summary, main input')]"
        ".filter((e) => e.checkVisibility() && !e.closest('label'))"
        ".filter((e) => e.getBoundingClientRect().height < 36).map((e) => e.outerHTML)"
    )
    with page.looking(width=width, scheme=scheme):
        for hash_, wanted in (
            ("#/jobs?filter=all", ".jobs-row"),
            ("#/jobs?filter=failed", ".jobs-error"),
            ("#/jobs?filter=retrying", ".jobs-empty p"),
            (f"#/jobs/{site.ids['gone']}", ".job-reason h2"),
            (f"#/jobs/{site.ids[LONG]}", ".job-downloads a"),
            (f"#/jobs/{UNKNOWN}", "[role=alert]"),
        ):
            show(page, site, hash_, wanted)
            assert page.is_dark() == (scheme == "dark")
            assert not page.too_wide(), hash_
            assert page.violations() == [], hash_
            assert page.driver.execute_script(small) == [], hash_
        show(page, site, "#/jobs?filter=failed")
        page.click("#jobs-every")
        assert page.violations() == []
        page.click(".jobs-selected .danger")
        page.until(lambda: page.find("dialog"), "the confirmation")
        assert page.violations() == []


def test_the_page_speaks_german(page: Page, site: Jobs) -> None:
    """Every text of the list, of a job and of its failure is German."""
    show(page, site)
    try:
        page.driver.execute_script("localStorage.setItem('nst-daemon-language', '\"de\"')")
        show(page, site, "#/jobs?filter=failed")
        assert page.text("h1") == "Aufträge"
        assert page.text(".job-state") in {"Fehlgeschlagen", "Wiederholt abgestürzt"}
        show(page, site, f"#/jobs/{site.ids['gone']}", ".job-reason h2")
        says(page, ".job-reason h2", "Ein Bild ist beschädigt oder unvollständig")
        assert re.findall(r"\b(?:jobs?|viewer|repeat)\.\w+", page.text("main")) == []
    finally:
        page.driver.execute_script("localStorage.clear()")


def test_a_read_only_token_changes_nothing(browser: Page, tmp_path: Path) -> None:
    """With a read-only token, the views show no buttons that would be refused."""
    history = History(tmp_path)
    with history.written():
        failed = history.ended("failed", JobState.FAILED, error=MEMORY)
    made = Site(tmp_path)
    token = tokens.create(
        load(None, {"NST_FOLDERS__ROOT": str(tmp_path)}).folders, "tablet", "read"
    )
    made.serve()
    try:
        browser.driver.get(made.address)
        browser.until(lambda: browser.find("#token"), "the form")
        browser.find("#token")[0].send_keys(token, Keys.ENTER)
        browser.until(lambda: browser.find(".navigation"), "the page")
        browser.driver.get(f"{made.address}#/jobs?filter=failed")
        browser.until(lambda: browser.find(".jobs-row"), "the list")
        assert browser.find(".jobs-row input, .jobs-row button") == []
        browser.driver.get(f"{made.address}#/jobs/{failed}")
        browser.until(lambda: browser.find(".job-reason"), "the reason")
        assert browser.find(".job-reason .button, .job-actions .button") == []
    finally:
        made.kill()
