"""The files of the page: how they are served, and that every text is kept apart from the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import nst_daemon.web

STATIC = Path(nst_daemon.web.__file__).parent / "static"
MODULES = sorted(STATIC.glob("*.js"))
LANGUAGES = ("en", "de")
PLACEHOLDER = re.compile(r"\{(\w+)\}")
#: Comments, then strings in any quotes. A comment never begins in a string here, except after "http:".
COMMENT = re.compile(r"(?<![\w\"'`])/\*.*?\*/|(?<![:\w\"'`])//[^\n]*", re.DOTALL)
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|`(?:[^`\\]|\\.)*`')
#: A sentence: two words in a row of which the first has a capital letter, or a word alone with one.
SENTENCE = re.compile(r"\b[A-Z][a-z]+\b[ .!?:…]|^[A-Z][a-z]+$")
#: Names of keys, headers and types that are not texts.
NAMES = re.compile(
    r"^(Enter|Escape|Tab|Home|End|Delete|Backspace|Accept|Arrow\w*|Page\w*|[A-Z]\w+-Type|\w*Error|Esc|Shift|Control|Space|Files|English|Deutsch)$"
)
#: What a visitor reads or hears must come from texts/*.json.
SHOWN = re.compile(
    r"\b(textContent|title|alt|placeholder|\"aria-label\"|ariaLabel|label):\s*[\"'`](?=[^\"'`]*[A-Za-z]{2})(?!\$\{[^}]*\}[\"'`])"
)


def texts(language: str) -> dict[str, dict[str, object]]:
    """The texts of a language by section and key."""
    found: dict[str, dict[str, object]] = json.loads(
        (STATIC / "texts" / f"{language}.json").read_text(encoding="utf-8")
    )
    return found


def flat(language: str) -> dict[str, object]:
    """The texts of a language by their whole key."""
    return {f"{s}.{key}": text for s, keys in texts(language).items() for key, text in keys.items()}


def forms(text: object) -> list[str]:
    """The plural forms of a text."""
    return [str(form) for form in text.values()] if isinstance(text, dict) else [str(text)]


def code(module: Path) -> str:
    """A module without its comments."""
    return COMMENT.sub("", module.read_text(encoding="utf-8"))


def test_all_languages_have_the_same_texts() -> None:
    """Every language has the same keys in the same order, and every text the same placeholders and kinds of forms."""
    english, german = flat("en"), flat("de")
    assert list(english) == list(german)
    for key, text in english.items():
        other = german[key]
        assert isinstance(text, dict) == isinstance(other, dict), key
        for form in forms(other):
            wanted = set(PLACEHOLDER.findall(" ".join(forms(text))))
            assert set(PLACEHOLDER.findall(form)) <= wanted, key
        assert set(PLACEHOLDER.findall(" ".join(forms(other)))) == set(
            PLACEHOLDER.findall(" ".join(forms(text)))
        ), key
        if isinstance(text, dict):
            assert text.keys() == {"one", "other"} == other.keys(), key  # type: ignore[attr-defined]


def test_every_text_is_used_and_every_used_text_exists() -> None:
    """Keys in the code exist; keys of texts occur in the code, whole or as the variable end of a key."""
    source = "\n".join(map(code, MODULES))
    whole = set(re.findall(r"[\"'`]([a-z]+\.[a-z0-9_]+)[\"'`]", source))
    sections = texts("en").keys()
    known = flat("en").keys()
    assert {key for key in whole if key.split(".")[0] in sections} <= known
    begun = tuple(prefix for prefix in re.findall(r"`([a-z]+\.[a-z_]*)\$\{", source))
    views = {f"{section}.title" for section in sections}  # of the navigation
    assert [k for k in known if k not in whole | views and not k.startswith(begun)] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_no_module_has_a_text_of_its_own(module: Path) -> None:
    """No string in the code is a sentence or a word for visitors."""
    found = code(module)
    for string in STRING.findall(found):
        inner = re.sub(r"\$\{[^}]*\}", "", string[1:-1])
        assert NAMES.match(inner) or not SENTENCE.search(inner), string
    assert SHOWN.findall(found) == []


@pytest.mark.parametrize("name", [path.name for path in MODULES] + ["index.html", "login.html"])
def test_the_page_holds_nothing_inline(name: str) -> None:
    """No file has inline scripts, styles or handlers, which the policy would refuse, nor HTML made from strings."""
    text = (STATIC / name).read_text(encoding="utf-8")
    inline = r"<style|\son\w+\s*=\s*\"|style=\"|<script(?! type=\"module\" src=)|innerHTML|insertAdjacentHTML|outerHTML"
    assert not re.search(inline, text)


def test_no_file_is_too_long() -> None:
    """No module or style sheet has more than 600 lines."""
    for path in (*MODULES, *STATIC.glob("*.css")):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 600, path.name


def test_browsers_may_keep_the_files(visitor: TestClient) -> None:
    """A file with the version that the page names is kept forever; with another version, it is asked for again."""
    page = visitor.get("/")
    assert page.headers["cache-control"] == "no-store"
    addresses = re.findall(r'"(/static/\w+/[\w.]+)"', page.text)
    assert {address.rpartition("/")[2] for address in addresses} >= {"app.js", "theme.css"}
    for address in addresses:
        found = visitor.get(address)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
    old = visitor.get("/static/000000000000/app.js")
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-store")
    assert visitor.get("/static/x/texts/de.json").json().keys() == texts("en").keys()
    for name in ("index.html", "%2e%2e/app.py", "texts", ""):
        assert visitor.get(f"/static/x/{name}").status_code == 404, name
