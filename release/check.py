"""Installs what was built into clean environments, paints with it, and lists what was installed."""

from __future__ import annotations

import json
import os
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from release.artefacts import at, run

LAY_OUT = "from pathlib import Path; from nst_daemon.samples import lay_out; lay_out(Path())"
SIZE = 64


def install(artefact: Path, folder: Path, options: Sequence[str]) -> Path:
    """Install a file with all packages that it needs into a new environment.

    Args:
        artefact: an sdist or a wheel.
        folder: where the environment is made.
        options: of pip, such as an index.

    Returns:
        The interpreter of the environment, which has no pip.
    """
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run([*pip, *options, artefact], cwd=Path.cwd())  # the options may have relative paths
    return python


def paint(python: Path, version: str, folder: Path) -> Path:
    """Paint the sample pair with an installed version.

    Args:
        python: the interpreter of its environment.
        version: the version that it must have.
        folder: where the picture and a cache are written.

    Returns:
        The picture.

    Raises:
        ValueError: The version is another one, or the picture is missing.
    """
    # No variable and no cache of this user may decide what happens.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NST_", "PYTHON"))}
    env = kept | {"XDG_CACHE_HOME": str(folder / "cache")}
    program = python.parent / "nst-daemon"
    found = run([program, "--version"], cwd=folder, env=env).strip()
    if found != f"nst-daemon {version}":
        raise ValueError(f"{program} is {found}, and not {version}")
    run([python, "-c", LAY_OUT], cwd=folder, env=env)
    pair = ["riverside.content.png", "riverside.style.png"]
    run([program, "stylize", *pair, "-o", "painted.png", "--size", str(SIZE)], cwd=folder, env=env)
    picture = folder / "painted.png"
    if not picture.is_file():
        raise ValueError(f"{program} stylize has not written {picture}")
    return picture


def bill_of_materials(python: Path, output: Path, seconds: int) -> None:
    """Write the packages of an environment, with versions and licences, as CycloneDX JSON.

    Args:
        python: the interpreter of the environment.
        output: the file.
        seconds: its time, since 1970.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    document = json.loads(run([*command, python], cwd=output.parent, env=at(seconds)))
    output.write_text(json.dumps(about_us(document), indent=1) + "\n", encoding="utf-8")


def about_us(document: dict[str, Any]) -> dict[str, Any]:
    """A CycloneDX document of an environment, as one about nst-daemon and the packages that it needs.

    The tool lists nst-daemon as one package of many, and names the file from which it was installed.
    """
    (own,) = [part for part in document["components"] if part["name"] == "nst-daemon"]
    others = [part for part in document["components"] if part is not own]
    links = [
        link for link in own.get("externalReferences", []) if not link["url"].startswith("file:")
    ]
    program = own | {"type": "application", "externalReferences": links}
    metadata = document["metadata"] | {"component": program}
    return document | {"metadata": metadata, "components": others}
