"""The gallery's commands are run by a shell, in a folder that has nothing to do with the root."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from nst_daemon.jobs import BatchCell
from nst_daemon.report import gallery
from nst_daemon.weights_file import find_weights
from tests.report.conftest import Root
from tests.report.test_rerun import record_weights

#: Programs of this environment come first.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def run(command: str, place: Path, environ: Mapping[str, str] | None = None) -> str:
    """What a shell command prints; no settings of this process count."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NST_")}
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=place,
        env={**clean, "PATH": PATH, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commands(page: str) -> dict[str, str]:
    """The command of each result on the page, by its name."""
    data = Path(page).read_text().split('<script id="data" type="application/json">')[1]
    return {e["name"]: e["command"] for e in json.loads(data.split("</script>")[0])["entries"]}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """The root `nst` in a folder whose name needs quotes."""
    made = Root(tmp_path / "it's a place; $(x)" / "nst")
    (made.folder / "inbox").mkdir()
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with a root and a configuration of its own."""
    place = tmp_path / "elsewhere"
    (place / "nst" / "inbox").mkdir(parents=True)
    return place


def dropped(root: Root) -> set[str]:
    return {path.name for path in (root.folder / "inbox").iterdir()}


@pytest.mark.parametrize(
    "name", ["dog", "my dog", "o'dog", "$dog", "-dog", "night/dog", "犬🐕", "two\nlines"]
)
def test_without_a_configuration_file(root: Root, elsewhere: Path, name: str) -> None:
    """The command names the root, and reads every name as it is."""
    (root.results / "night").mkdir()
    record_weights(root.add(name), find_weights().sha256)
    (command,) = commands(run("nst-daemon gallery", root.folder.parent)).values()
    job = run(command, elsewhere)
    assert {file.partition(".")[0] for file in dropped(root)} == {job}
    assert len(dropped(root)) == 3
    assert list((elsewhere / "nst" / "inbox").iterdir()) == []


def test_with_a_configuration_file_and_variables(
    root: Root, elsewhere: Path, tmp_path: Path
) -> None:
    """The command names the file, and the variables that moved a folder and chose the weights."""
    weights = tmp_path / "my weights.safetensors"
    weights.write_bytes(find_weights().path.read_bytes())
    record_weights(root.add(), find_weights().sha256)
    (root.folder / "nst.yaml").write_text("folders: {root: .}")
    (root.folder / "inbox").rename(root.folder / "hot")
    environ = {
        "NST_FOLDERS__INBOX": "hot",
        "NST_MODEL__WEIGHTS": os.path.relpath(weights, root.folder),
    }
    (command,) = commands(run("nst-daemon gallery -c nst.yaml", root.folder, environ)).values()
    run(command, elsewhere)
    assert len(list((root.folder / "hot").iterdir())) == 3


def test_inputs_outside_of_the_root_are_named(root: Root, elsewhere: Path, tmp_path: Path) -> None:
    """A batch's command names its content, also where the page is written again without --input."""
    cell = BatchCell("night", "starry", {}, (0, 0, 0))
    (root.results / "night").mkdir()
    record_weights(root.add("night/dog_starry", batch=cell, hot=True), find_weights().sha256)
    record_weights(root.add("cat"), find_weights().sha256)
    photos = tmp_path / "my photos"
    (root.folder / "done" / "night" / "dog_starry").rename(photos)
    content = photos / "dog.content.jpg"
    run("nst-daemon gallery --input '../my photos'", root.folder.parent)
    found = commands(run("nst-daemon gallery", root.folder.parent))
    assert found["dog_starry"].endswith(f"--input '{content}'")
    assert "--input" not in found["cat"]
    assert run(found["dog_starry"], elsewhere) == "dog_starry"
    assert run(found["cat"], elsewhere) == "cat"
    assert len(dropped(root)) == 6


def test_a_file_that_is_gone_is_not_named(root: Root, tmp_path: Path) -> None:
    """An input that was removed from where it was found is not in the command any more."""
    root.add()
    photos = tmp_path / "photos"
    (root.folder / "done" / "dog").rename(photos)
    first = commands(run("nst-daemon gallery --input ../photos", root.folder.parent))["dog"]
    assert first.count("--input") == 2
    (photos / "dog.content.jpg").unlink()
    again = commands(run("nst-daemon gallery", root.folder.parent))["dog"]
    assert again.count("--input") == 1


def test_rerun_finds_the_inputs_of_a_batch_by_itself(
    root: Root, elsewhere: Path, tmp_path: Path
) -> None:
    """What a batch has noted is enough, without a page and without --input."""
    picture = root.add()
    record_weights(picture, find_weights().sha256)
    photos = tmp_path / "photos"
    (root.folder / "done" / "dog").rename(photos)
    gallery.remember_inputs(root.results, [photos])
    environ = {"NST_FOLDERS__ROOT": str(root.folder)}
    assert run(f"nst-daemon rerun {shlex.quote(str(picture))}", elsewhere, environ) == "dog"
