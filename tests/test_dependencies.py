"""What pip installs for the dependencies, with and without what is for NVIDIA's GPUs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def empty_wheel(folder: Path, name: str, version: str, needs: str = "") -> None:
    """Write a wheel without files into the folder of its name, as an index has it."""
    stem = f"{name.replace('-', '_')}-{version}"
    (folder / name).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name / f"{stem}-py3-none-any.whl", "w") as wheel:
        wanted = f"Requires-Dist: {needs}\n" if needs else ""
        info = f"{stem}.dist-info"
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wanted}"
        wheel.writestr(f"{info}/METADATA", text)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of an index that has each dependency, and of one that has builds of torch for the CPU."""
    folder = tmp_path_factory.mktemp("indexes")
    for line in pyproject("")["dependencies"]:
        needed = Requirement(line)
        lowest = next(s.version for s in needed.specifier if s.operator == ">=")
        empty_wheel(folder / "all", needed.name, lowest)
        if needed.name.startswith("torch"):
            empty_wheel(folder / "cpu", needed.name, f"{lowest}+cpu")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        yield f"{here}/all", f"{here}/cpu"
        server.shutdown()


def pyproject(folder: str) -> dict[str, Any]:
    """The table `project` of a folder's pyproject.toml."""
    document = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())
    return dict(document["project"])


def resolved(tmp_path: Path, indexes: tuple[str, str], *more: str) -> dict[str, str]:
    """The versions that pip would install for the dependencies and something more, from both indexes."""
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--dry-run"]
    pip += ["--ignore-installed", "--report", str(report), "--index-url", indexes[0]]
    needed = pyproject("")["dependencies"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment["PIP_CONFIG_FILE"] = os.devnull
    subprocess.run(
        [*pip, "--extra-index-url", indexes[1], *more, *needed], check=True, env=environment
    )
    items = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"]: item["metadata"]["version"] for item in items}


@pytest.fixture(scope="module")
def plain(indexes: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The versions without anything more."""
    return resolved(tmp_path_factory.mktemp("plain"), indexes)


def test_the_index_for_cpus_wins(plain: dict[str, str]) -> None:
    """With the second index, pip takes torch and torchvision of it although the first has the same versions."""
    assert plain["torch"].endswith("+cpu")
    assert plain["torchvision"].endswith("+cpu")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="others need no onnxruntime-gpu")
def test_the_empty_package_takes_the_place_of_onnxruntime_gpu(
    indexes: tuple[str, str], plain: dict[str, str], tmp_path: Path
) -> None:
    """Without it pip takes onnxruntime-gpu; with it only onnxruntime, and no module comes from the empty package."""
    assert "onnxruntime" not in plain
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    source = shutil.copytree(ROOT / "onnxruntime-cpu", tmp_path / "source")
    subprocess.run([*build, str(tmp_path), str(source)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert all(".dist-info/" in name for name in archive.namelist())
    found = resolved(tmp_path, indexes, str(wheel))
    assert found["onnxruntime-gpu"] == pyproject("onnxruntime-cpu")["version"]
    assert found["onnxruntime"]


def test_both_onnxruntimes_have_the_same_versions() -> None:
    """The empty package asks for the versions of onnxruntime that the program asks for."""
    lines = [*pyproject("")["dependencies"], *pyproject("onnxruntime-cpu")["dependencies"]]
    needed = [r for r in map(Requirement, lines) if r.name.startswith("onnxruntime")]
    assert [r.name for r in needed] == ["onnxruntime-gpu", "onnxruntime", "onnxruntime"]
    assert len({r.specifier for r in needed}) == 1
