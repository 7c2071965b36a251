"""The images of the Containerfile and the services of compose.yaml, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nst_daemon.config import load
from nst_daemon.units import parse_duration
from tests.test_docs import COMMANDS
from tests.test_package import tracked

ROOT = Path(__file__).parent.parent
CONTAINERFILE = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENTRYPOINT = ROOT / "container" / "entrypoint.sh"


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of this name."""
    return re.findall(rf"(?m)^{name} +(.*)$", CONTAINERFILE)


def words(name: str) -> list[str]:
    """The words of an instruction in the form of a JSON list."""
    (found,) = instructions(name)
    listed: list[str] = json.loads(found[found.index("[") :])
    return listed


def variables() -> dict[str, str]:
    """The environment of the images."""
    return dict(pair.split("=", 1) for line in instructions("ENV") for pair in line.split())


def substituted(text: str, environ: Mapping[str, str]) -> str:
    """A value of compose.yaml with its variables, as `docker compose` replaces them."""

    def value(found: re.Match[str]) -> str:
        name, _, default = found.groups()
        return environ.get(name) or default

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", value, text)


def repository() -> set[str]:
    """The files that git tracks, by their path in the repository."""
    return {str(path.relative_to(ROOT)) for path in tracked()}


def sent() -> set[str]:
    """The tracked files that .dockerignore sends to the engine."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    first, *others = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    kept = [line.removeprefix("!") for line in others if line.startswith("!")]
    return {n for n in repository() if any(n == k or n.startswith(f"{k}/") for k in kept)}


def test_the_engine_is_sent_what_it_needs() -> None:
    """The engine is sent every tracked file of the package, each that a COPY or RUN names, and no others."""
    files = sent()
    needed = {"pyproject.toml", "README.md", "LICENSE", "config.yaml", ".git_archival.txt"}
    needed |= {name for name in repository() if name.startswith(("nst_daemon/", "export/"))}
    copied = [line.split()[-2] for line in instructions("COPY") if "--from" not in line]
    for name in (*copied, *re.findall(r" \./([\w-]+) ", CONTAINERFILE)):
        if name != ".":
            found = {file for file in files if file == name or file.startswith(f"{name}/")}
            assert found, f"{name} is not sent to the engine"
            needed |= found
    assert files == needed


def test_the_images_set_variables_of_ours() -> None:
    """Each NST_ variable is a setting with an accepted value, the root is the volume, and the port is published."""
    (volume,) = instructions("VOLUME")
    for name, service in SERVICES.items():
        given = {
            k: substituted(v, {"NST_STATUS_PAGE_TOKEN": "x" * 32})
            for k, v in service["environment"].items()
        }
        environ = {**variables(), **given}
        environ.pop("NST_CONFIG")
        config = load(None, environ)
        assert config.warnings == (), name
        assert str(config.folders.root) == volume
        assert config.folders.inbox.is_relative_to(volume)
        port = config.status_page.rpartition(":")[2]
        assert instructions("EXPOSE") == [port]
        (published,) = service["ports"]
        assert substituted(published, {}) == f"127.0.0.1:8787:{port}"


def test_the_images_run_commands_that_exist() -> None:
    """CMD and the health check name commands of ours, and the entrypoint is the file that is copied."""
    assert set(words("CMD")) <= COMMANDS.keys()
    program, *command = words("HEALTHCHECK")
    assert program == "nst-daemon"
    assert " ".join(command) in COMMANDS
    assert words("ENTRYPOINT")[-1] == ENTRYPOINT.name
    assert f"{ENTRYPOINT.relative_to(ROOT)} /usr/local/bin/{ENTRYPOINT.name}" in CONTAINERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_confined_and_have_time_to_stop(name: str) -> None:
    """A service cannot write to its image, gain rights or run as root, and stops after the workers' checkpoints."""
    service = SERVICES[name]
    assert service["profiles"] == [name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = substituted(service["user"], {})
    assert instructions("USER")[0] == user
    assert "0" not in user.split(":")
    grace, needed = (
        parse_duration(service["stop_grace_period"]),
        load(None, {}).service.stop_seconds,
    )
    assert grace is not None
    assert grace >= 2 * needed
    (mount,) = service["volumes"]
    assert (mount["target"], mount["type"]) == (instructions("VOLUME")[0], "bind")


@pytest.mark.parametrize("name", SERVICES)
def test_services_build_their_image(name: str) -> None:
    """A service builds a stage of the Containerfile under its name, with arguments that the file declares."""
    service = SERVICES[name]
    build = service["build"]
    stages = re.findall(r"(?m)^FROM \S+ AS (\S+)$", CONTAINERFILE)
    assert build["target"] in stages
    assert service["image"] == f"nst-daemon:{build['target']}"
    declared = {line.partition("=")[0] for line in instructions("ARG")}
    assert build["args"].keys() <= declared
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_a_service_without_a_token_is_refused() -> None:
    """compose.yaml does not start a page that other machines may reach without a token."""
    for service in SERVICES.values():
        assert service["environment"]["NST_STATUS_PAGE_TOKEN"].startswith(
            "${NST_STATUS_PAGE_TOKEN:?"
        )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with this nst-daemon, for PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "nst-daemon"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} -m nst_daemon "$@"\n')
    file.chmod(0o755)
    return folder


def enter(home: Path, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the entrypoint with a home folder."""
    environ = {
        "HOME": str(home),
        "PATH": f"{program}:/usr/bin:/bin",
        "NST_CONFIG": str(home),
        "NST_FOLDERS__ROOT": str(home),
        "PYTHONPATH": str(ROOT),
    }
    command = ["sh", str(ENTRYPOINT), *arguments]
    return subprocess.run(
        command, env=environ, cwd="/", capture_output=True, text=True, check=False
    )


def test_the_first_start_makes_the_root(tmp_path: Path, program: Path) -> None:
    """The first start makes folders and config.yaml in silence; later ones leave a changed config.yaml as it is."""
    home = tmp_path / "data"
    home.mkdir()
    done = enter(home, program, "config", "path")
    assert (done.returncode, done.stdout) == (0, f"{home}/config.yaml\n")
    assert (home / "inbox").is_dir()
    (home / "config.yaml").write_text("render: {size: 700}\n")
    done = enter(home, program, "config", "show", "render.size")
    assert done.stdout.startswith("render.size: 700 "), done.stderr
    assert (home / "config.yaml").read_text() == "render: {size: 700}\n"


def test_a_volume_that_cannot_be_used_ends_the_start(tmp_path: Path, program: Path) -> None:
    """If the root cannot be made, the container ends with one line that names the folder, and runs no command."""
    home = tmp_path / "data"
    home.write_text("a file")
    done = enter(home, program, "config", "path")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert str(home) in line
