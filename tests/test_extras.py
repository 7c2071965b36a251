"""The remedy for a missing optional package."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nst_daemon import extras

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
LINES = [
    "torch>=2",
    "onnxruntime>=1; platform_machine == 'none'",
    'uvicorn>=0.34; extra == "web"',
    'fastapi[standard]>=0.120,<1; extra == "web"',
    'ray>=2; python_version < "3" and extra == "web"',
    'apprise>=1.9; extra == "notify"',
]


def test_the_packages_of_an_extra() -> None:
    """The packages of one extra are listed without markers; other extras and other Pythons are left out."""
    assert list(extras.packages("web", LINES)) == ["uvicorn>=0.34", "fastapi[standard]<1,>=0.120"]
    assert list(extras.packages("none", LINES)) == []


def test_the_command_installs_what_pyproject_lists() -> None:
    """For each extra that the code names, the command has the packages that pyproject.toml lists for it."""
    sources = [*(ROOT / "nst_daemon").rglob("*.py"), *(ROOT / "export").glob("*.py")]
    named = {
        name
        for path in sources
        for name in re.findall(r'extras\.install\(["\'](\w+)["\']\)', path.read_text("utf-8"))
    }
    assert named == {"client", "import", "notify", "ray", "web"}
    for name in named:
        words = shlex.split(extras.install(name))
        wanted = {Requirement(line).name for line in EXTRAS[name]}
        assert {Requirement(word).name for word in words[words.index("install", 2) + 1 :]} == wanted


def test_the_command_works_where_there_is_no_pip() -> None:
    """The command calls this interpreter's pip, or uv for this interpreter where pip is not installed."""
    assert f"{shlex.quote(sys.executable)} -m pip install" in extras.install("web")
    code = (
        "import sys\n"
        "sys.modules['pip'] = None\n"
        "from nst_daemon import extras\n"
        "print(extras.install('web'))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"uv pip install --python {shlex.quote(sys.executable)} 'fastapi" in run.stdout


@pytest.mark.parametrize("name", ["client", "import", "notify", "ray", "web"])
def test_every_package_of_an_extra_has_a_lowest_version(name: str) -> None:
    """Each package of an extra has a lowest version, so that the command cannot keep one that is too old."""
    assert [line for line in EXTRAS[name] if ">=" not in line] == []
