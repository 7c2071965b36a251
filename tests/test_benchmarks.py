"""The benchmarks and the scripts of the documentation use the package as it is now."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
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
    # Not `importorskip`: Ray reads its settings when it is imported, and other tests set them first.
    if name == "benchmarks.cluster" and find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    assert importlib.import_module(name).__doc__
