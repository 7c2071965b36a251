"""The benchmarks and the scripts of the documentation use the package as it is now."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    f"{path.parent.name}.{path.stem}"
    for path in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("make_*.py")]
    if path.stem != "__init__"
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_can_be_imported(name: str) -> None:
    """Importing a script finds everything that it uses of the package, and the script explains itself."""
    if name == "benchmarks.cluster":
        pytest.importorskip("ray")
    assert importlib.import_module(name).__doc__
