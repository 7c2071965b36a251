"""What `make docs` generates: the API reference, and the tables of docs/design.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs import make_design
from tests.test_imports import modules

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_every_module_has_a_page(tmp_path: Path) -> None:
    """The generator ends without a warning and writes one page for each module but the entry points."""
    command = [sys.executable, "-m", "docs.make_reference", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    pages = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.html")}
    hidden = ("__init__", "samples.")  # `samples` lists its public names and no modules
    for name, _ in modules():
        if not name.endswith("__main__") and not name.startswith(hidden):
            assert Path("nst_daemon", *name.split(".")).with_suffix(".html") in pages, name


def test_the_tables_of_the_design_page_are_current() -> None:
    """docs/design.md has the tables that the code and tests/test_imports.py give; `make docs` writes them."""
    committed = make_design.PAGE.read_text(encoding="utf-8")
    assert committed == make_design.document(committed)


def test_make_docs_runs_the_generators() -> None:
    """The target `docs` of the Makefile runs both scripts, and git ignores the folder of the reference."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\ndocs:", 1)[1].split("\n\n", 1)[0]
    assert "-m docs.make_reference" in recipe
    assert "-m docs.make_design" in recipe
    ignored = ["git", "check-ignore", "--quiet", "build/docs/index.html"]
    assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0
