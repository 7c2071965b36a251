"""What `make docs` generates: the documentation site, and the tables of docs/design.md."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from docs import make_design
from nst_daemon.config import config_keys
from nst_daemon.engine.settings import RenderSettings
from tests.test_docs import COMMANDS
from tests.test_imports import modules

ROOT = Path(__file__).parent.parent
MODULES = dict(modules())
KEYS = set(config_keys())
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "NOTES.md"]


def references(text: str) -> set[str]:
    """The dotted names in backticks that may be modules of the package, or what is in them."""
    names = re.findall(r"`(?:nst_daemon\.)?([a-z_]+(?:\.\w+)+)(?:\(\))?`", text)
    firsts = {part for module in MODULES for part in module.split(".")}
    files = {name for name in names if re.search(r"\.(html|json|py|sqlite|yaml)\b", name)}
    return {name for name in names if name.split(".")[0] in firsts} - KEYS - files


def resolves(reference: str) -> bool:
    """True if the reference is a module or package, or a name that such a module defines."""
    parts = reference.split(".")
    for i in range(len(parts), 0, -1):
        ending = ".".join(parts[:i])
        found = [path for name, path in MODULES.items() if f".{name}".endswith(f".{ending}")]
        if found:
            return any(set(parts[i:]) <= defined(path) for path in found)
    return any(name.startswith(reference + ".") for name in MODULES)


@cache
def defined(path: Path) -> frozenset[str]:
    """Every name that is defined or assigned anywhere in a module."""
    return frozenset(_names(ast.parse(path.read_text(encoding="utf-8"))))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name):
                yield name
            case ast.Attribute(attr=name):
                yield name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site. A warning, such as a link that leads nowhere, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_every_module_has_a_page(site: Path) -> None:
    """The reference has a section for each module but the entry points."""
    pages = " ".join(page.read_text() for page in (site / "reference" / "modules").glob("*.html"))
    for name, path in modules():
        if path.name not in ("__init__.py", "__main__.py"):
            assert f'id="nst_daemon.{name}"' in pages or f'id="{name}"' in pages, name


def test_the_reference_has_every_option_setting_and_key(site: Path) -> None:
    """The generated pages list each option of each command, each setting of a picture and each key."""
    reference = {page.stem: page.read_text() for page in (site / "reference").glob("*.html")}
    for name, command in COMMANDS.items():
        assert f'id="{name.replace(" ", "-")}"' in reference["commands"], name
        for option in {o for p in command.params for o in p.opts if o.startswith("--")}:
            assert f"{option}" in reference["commands"], (name, option)
    for field in fields(RenderSettings):
        assert f'id="{field.name}"' in reference["settings"], field.name
    for key in KEYS:
        if not key.startswith("render."):
            assert f"<code>{key}</code>" in reference["configuration"], key


def test_the_search_finds_generated_pages(site: Path) -> None:
    """The index of the search has the pages that are generated, and those that are not in docs/."""
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"reference/commands.html", "index.html", "changelog.html", "inbox.html"} <= found


def test_no_page_shows_markdown_as_text(site: Path) -> None:
    """Lists, tables, links and bold text are elements in every page, not text."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        article = text[text.find("<article") : text.find("</article>")]
        article = re.sub(r"(?s)<(pre|code)\b.*?</\1>", "", article)
        for paragraph in re.findall(r"(?s)<p>(.*?)</p>", article):
            assert not re.search(r"(?m)^\s*([-*] |\d+\. |\|)|```|\*\*|\]\(", paragraph), page


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    """No page of the site has an element that fetches an address of another host."""
    loads = re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*"
        r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?(?:https?:)?//[^>]*"
        r"|<(?:object)\b[^>]*\bdata=[\"']?(?:https?:)?//[^>]*"
    )
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not loads.findall(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text()), sheet


def test_the_tables_of_the_design_page_are_current() -> None:
    """docs/design.md has the tables that the code and tests/test_imports.py give; `make docs` writes them."""
    committed = make_design.PAGE.read_text(encoding="utf-8")
    assert committed == make_design.document(committed)


def test_make_docs_runs_the_generators() -> None:
    """The target `docs` of the Makefile runs both generators, and git ignores the folder of the site."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\ndocs:", 1)[1].split("\n\n", 1)[0]
    assert "-m mkdocs build --strict" in recipe
    assert "-m docs.make_design" in recipe
    ignored = ["git", "check-ignore", "--quiet", "build/docs/index.html"]
    assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "path"), MODULES.items(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_references_in_the_code_resolve(name: str, path: Path) -> None:
    """Each dotted name in backticks, in a docstring or comment, is a module or is defined in one."""
    found = references(path.read_text(encoding="utf-8"))
    assert not [reference for reference in found if not resolves(reference)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    """Each Python file, dotted name and `Class.name` that a page names in backticks exists."""
    text = page.read_text(encoding="utf-8")
    folders = ("benchmarks", "docs", "export", "nst_daemon", "tests")
    paths = [
        path.relative_to(ROOT).as_posix()
        for name in folders
        for path in (ROOT / name).rglob("*.py")
    ]
    for file in re.findall(r"`([\w/]+\.py)`", text):
        assert any(f"/{path}".endswith(f"/{file}") for path in paths), file
    assert not [reference for reference in references(text) if not resolves(reference)]
    for pair in re.findall(r"`([A-Z][a-z]\w+)\.(\w+)`", text):
        assert any(set(pair) <= defined(path) for path in MODULES.values()), pair
