"""The API reference that `make docs` generates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_imports import modules

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_every_module_has_a_page(tmp_path: Path) -> None:
    """The generator ends without a warning and writes one page for each module but the entry points."""
    command = [sys.executable, str(ROOT / "docs" / "make_reference.py"), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    pages = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.html")}
    hidden = ("__init__", "samples.")  # `samples` lists its public names and no modules
    for name, _ in modules():
        if not name.endswith("__main__") and not name.startswith(hidden):
            assert Path("nst_daemon", *name.split(".")).with_suffix(".html") in pages, name


def test_make_docs_runs_the_generator() -> None:
    """The target `docs` of the Makefile runs the script, and git ignores the folder that it writes."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\ndocs:", 1)[1].split("\n\n", 1)[0]
    assert "docs/make_reference.py" in recipe
    ignored = ["git", "check-ignore", "--quiet", "build/docs/index.html"]
    assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0
