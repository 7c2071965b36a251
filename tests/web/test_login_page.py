"""The login in a real browser: in both languages, on a phone, and for people who cannot see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nst_daemon import tokens
from tests.browser import Keys, Page, needs_browser
from tests.web.page_process import PageProcess

pytestmark = needs_browser
TEXTS = Path(__file__).parents[2] / "nst_daemon" / "web" / "static" / "texts"


def show(browser: Page, server: PageProcess, language: str) -> None:
    """Open the page without a cookie, in a language."""
    agent = browser.driver.execute_script("return navigator.userAgent")
    override = {"userAgent": agent, "acceptLanguage": language}
    browser.driver.execute_cdp_cmd("Network.setUserAgentOverride", override)
    browser.driver.get(f"http://127.0.0.1:{server.port}/")
    browser.driver.delete_all_cookies()
    browser.driver.get(f"http://127.0.0.1:{server.port}/")
    browser.until(lambda: browser.find("#token"), "login page")


def enter(browser: Page, token: str) -> None:
    """Type a token and press Enter."""
    browser.find("#token")[0].clear()
    browser.find("#token")[0].send_keys(token, Keys.ENTER)


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_login(browser: Page, server: PageProcess, language: str, width: int, scheme: str) -> None:
    """A wrong token is refused in the visitor's language, the right one opens the page, and axe-core finds nothing."""
    texts = json.loads((TEXTS / f"{language}.json").read_text(encoding="utf-8"))["login"]
    with browser.looking(width=width, scheme=scheme):
        show(browser, server, language)
        browser.complaints()
        assert browser.text("button") == texts["send"]
        assert browser.text(".help") == texts["help"]
        assert browser.driver.execute_script("return document.activeElement.id") == "token"
        overflow = "return document.documentElement.scrollWidth - innerWidth"
        assert browser.driver.execute_script(overflow) <= 0
        assert browser.violations() == []
        enter(browser, "not the token")
        browser.until(lambda: browser.text("#wrong") == texts["wrong"], "message")
        assert browser.violations() == []
        enter(browser, server.token)
        browser.until(lambda: not browser.find("#token") and browser.find("nav"), "page")
        cookies = browser.driver.get_cookies()
        (cookie,) = (cookie for cookie in cookies if "nst-daemon" in cookie["name"])
        assert cookie["httpOnly"] is True
        assert not [line for line in browser.complaints() if "401" not in line]


def test_a_revoked_login_leads_back_to_the_login(browser: Page, server: PageProcess) -> None:
    """When the token of an open page is revoked, the page shows the login again by itself."""
    secret = tokens.create(server.options.folders, "phone", "read")
    show(browser, server, "en")
    enter(browser, secret)
    browser.until(lambda: not browser.find("#token") and browser.find("nav"), "page")
    tokens.revoke(server.options.folders, "phone")
    browser.until(lambda: browser.find("#token"), "login page")


def test_a_browser_without_cookies_is_told(browser: Page, server: PageProcess) -> None:
    """Where the browser does not keep the cookie, the login says so instead of asking again."""
    show(browser, server, "en")
    script = (
        "window.fetch = ((old) => (url, o) => old(url, {...o, credentials: 'omit'}))(window.fetch)"
    )
    browser.driver.execute_script(script)
    enter(browser, server.token)
    browser.until(lambda: "cookie" in browser.text("#wrong"), "message")
