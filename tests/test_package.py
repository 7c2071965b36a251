"""The wheel, installed outside the checkout."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tracked() -> list[Path]:
    """The files that git tracks, and new ones that it does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, cwd=ROOT, check=True).stdout
    paths = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    return [path for path in paths if path.exists()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ folder of a clean environment with the built wheel; it uses this environment's dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in tracked():  # a copy: setuptools leaves what it has built beside what it builds from
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
    ]
    subprocess.run([*build, str(source)], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    # Python adds the folders that a .pth file names, but does not read the .pth files in them: the clean environment
    # uses this environment's libraries, and not the checkout that is installed there in editable form.
    libraries = [path for path in sys.path if path.endswith("-packages")]
    (site / "borrowed.pth").write_text("\n".join(libraries))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    return python.parent


def run(installed: Path, *arguments: str, cwd: Path) -> str:
    """Standard output of the installed program; standard error is shown if it fails."""
    done = subprocess.run(
        [installed / "nst-daemon", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_paints_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    """The wheel, in a clean environment, exports its network, paints, and takes nothing from the checkout."""
    code = "import nst_daemon.export as e, nst_daemon as n; print(e.__file__, n.__file__)"
    where = subprocess.run(
        [installed / "python", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    ).stdout
    assert str(ROOT) not in where
    lay_out = "from pathlib import Path; from nst_daemon.samples import lay_out; lay_out(Path())"
    subprocess.run([installed / "python", "-c", lay_out], cwd=tmp_path, check=True)
    said = run(
        *(installed, "stylize", "riverside.content.png", "riverside.style.png", "-o", "c.png"),
        *("--size", "48", "--set", "iterations=2", "--sidecar"),
        cwd=tmp_path,
    )
    assert said.strip() == "c.png"
    assert (tmp_path / "c.png").stat().st_size > 1000
    # The version of a copy without .git
    assert json.loads((tmp_path / "c.json").read_text())["version"] == "0.1.dev0"
    assert run(installed, "--version", cwd=tmp_path) == "nst-daemon 0.1.dev0\n"


def test_wheel_holds_no_module_called_export(installed: Path, tmp_path: Path) -> None:
    """`import export` finds nothing where the wheel is installed."""
    done = subprocess.run(
        [installed / "python", "-c", "import export"],
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert b"No module named 'export'" in done.stderr


def test_wheel_holds_its_data(installed: Path, tmp_path: Path) -> None:
    """The wheel has the bundled weights, their card, and the config.yaml of the checkout."""
    code = "import nst_daemon, pathlib; print(pathlib.Path(nst_daemon.__file__).parent)"
    package = Path(
        subprocess.run(
            [installed / "python", "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=True,
        ).stdout.strip()
    )
    assert (package / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert {p.name for p in (package / "weights").iterdir()} >= {
        "README.md",
        "vgg19-tinyimagenet.safetensors",
    }


RIGHT = """
from pathlib import Path

import numpy as np
from PIL import Image

from nst_daemon import NstError, RenderSettings, Result, Stylizer, stylize
from nst_daemon.client import ApiError, Client

result: Result = stylize("dog.jpg", [Path("a.jpg"), "b.jpg"], size=512, progress=True)
saved: Path = result.save("painted.png")
width: int = result.size[0]
settings: RenderSettings = result.settings
try:
    with Stylizer(device="cpu") as stylizer:
        stylizer.stylize("dog.jpg", "a.jpg", settings=settings).show()
        again = stylizer.stylize(result.array, np.ones((9, 9, 3)), start=Path("dog.jpg"), iterations=[3, 4])
        again.save("again.jpg", quality=9)
    stylize("dog.jpg", ["a.jpg", Image.new("RGB", (9, 9))], preset="bold", seed=3)
except NstError as error:
    print(error.message, error.remedy, error.exit_code)
with Client("http://127.0.0.1:8787", token="secret") as client:
    (job,) = client.submit("dog.jpg", "starry", {"size": 512})
    state: str = client.wait(job).state
    try:
        client.download(job, "painted.png")
    except ApiError as error:
        print(error.status)
"""
WRONG = """\
from nst_daemon import Stilizer
from nst_daemon import stylize
from nst_daemon.client import Client
number: int = stylize("dog.jpg", "a.jpg").save("painted.png")
stylize("dog.jpg", "a.jpg", size="large")
stylize("dog.jpg", "a.jpg", sizes=512)
stylize("dog.jpg")
Client(8787)
Client("http://127.0.0.1:8787").wait(job=None)
"""


@pytest.mark.slow
def test_wheel_is_typed(installed: Path, tmp_path: Path) -> None:
    """Outside the checkout mypy accepts a program that uses the public API, and refuses each wrong line of another."""
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    command = [*mypy, "--config-file", "", "--python-executable", str(installed / "python")]
    said = subprocess.run(
        [*command, "right.py", "wrong.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    ).stdout
    refused = re.findall(r"(?m)^(\w+)\.py:(\d+): error:.*\[([\w-]+)\]$", said)
    kinds = [
        "attr-defined",
        "assignment",
        "arg-type",
        "call-arg",
        "call-arg",
        "arg-type",
        "arg-type",
    ]
    assert refused == [("wrong", *pair) for pair in zip("1456789", kinds, strict=True)], said
    assert said.endswith("Found 7 errors in 1 file (checked 2 source files)\n")


def test_every_package_is_listed() -> None:
    """pyproject.toml lists every package, so that none is missing from the wheel."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(document["tool"]["setuptools"]["packages"])
    folders = {p.parent for p in (ROOT / "nst_daemon").rglob("__init__.py")}
    found = {".".join(p.relative_to(ROOT).parts) for p in folders} | {"nst_daemon.export"}
    assert listed == found


def test_tracked_tree_is_small() -> None:
    """The tracked files have less than 60 MB in total, and none is an exported network with its weights."""
    files = tracked()
    assert sum(f.stat().st_size for f in files) < 60_000_000
    assert not [f for f in files if f.suffix == ".onnx" and f.stat().st_size > 30_000]
