"""docs/http-api.md and docs/client.md against the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.drawings import draw_painting
from docs.make_api import PAGE, document
from tests.service.conftest import REPOSITORY
from tests.web.site import Site, serving

HTTP, CLIENT = PAGE, PAGE.parent / "client.md"


def blocks(page: Path, language: str) -> list[str]:
    """The examples of a page in a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A daemon with the pictures and the style of the examples."""
    with serving(tmp_path_factory.mktemp("site")) as made:
        for name in ("dog.jpg", "painting.jpg", "styles/starry.png"):
            draw_painting(160, 120, seed=len(name)).save(made.root / name)
        yield made


def run(site: Site, command: list[str], text: str) -> str:
    """The output of a program that reads an example from standard input."""
    done = subprocess.run(
        command,
        input=text.replace("http://127.0.0.1:8787", site.address.rstrip("/")),
        cwd=site.root,
        env={**site.environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}\n{site.text()[-3000:]}"
    return done.stdout


def test_the_endpoints_are_those_of_the_description() -> None:
    """The generated part of the page is up to date."""
    text = HTTP.read_text(encoding="utf-8")
    assert document(text) == text, "run `python -m docs.make_api`"


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
def test_the_examples_with_curl_work(site: Site) -> None:
    """The shell examples run one after the other as they stand, and fetch the picture."""
    found = blocks(HTTP, "bash")
    said = run(site, ["bash", "-euo", "pipefail"], "\n".join(found))
    assert said.startswith("done\n")
    assert (site.root / "painted.png").read_bytes().startswith(b"\x89PNG")
    assert (site.root / "small.webp").read_bytes()[8:12] == b"WEBP"
    assert (site.root / "results.zip").read_bytes().startswith(b"PK")


def test_the_examples_of_the_client_work(site: Site) -> None:
    """Each Python example runs as it stands, and fetches what it says."""
    for name in ("painted.png", "both.zip", "settings.json"):
        (site.root / name).unlink(missing_ok=True)
    said = [run(site, [sys.executable, "-"], text) for text in blocks(CLIENT, "python")]
    assert said[0] == "done \n"
    assert "settings.sise unknown setting" in said[1]
    assert "404 there is no job" in said[2]
    assert said[3].splitlines()[-2].startswith("done ")
    assert said[4].startswith("{")
    for name in ("painted.png", "both.zip", "settings.json", "large.png"):
        assert (site.root / name).stat().st_size > 0, name
