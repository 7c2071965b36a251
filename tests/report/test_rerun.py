"""`rerun`: the inputs are found by their contents, and the weights are compared."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from nst_daemon import cli
from nst_daemon.errors import UsageError
from nst_daemon.weights_file import find_weights
from tests.report.conftest import Root


@pytest.fixture
def dropped(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The inbox of the root that the command line uses."""
    configuration = tmp_path / "config.yaml"
    configuration.touch()
    monkeypatch.setenv("NST_CONFIG", str(configuration))
    monkeypatch.setenv("NST_FOLDERS__ROOT", str(root.folder))
    inbox = root.folder / "inbox"
    inbox.mkdir()
    return inbox


def rerun(*arguments: object) -> Result:
    """What the command has printed; errors are raised, as `main` gets them."""
    done = CliRunner().invoke(cli.app, ["rerun", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def record_weights(picture: Path, sha256: str) -> None:
    """Change the digest of the weights in a picture's sidecar."""
    path = picture.with_suffix(".json")
    document = json.loads(path.read_bytes())
    document["model"]["weights_sha256"] = sha256
    path.write_text(json.dumps(document))


def test_other_weights_are_an_error(root: Root, dropped: Path) -> None:
    """A picture painted with other weights is not submitted, and the message has both digests and the option."""
    picture = root.add()
    with pytest.raises(
        UsageError, match=rf"c{{12}}.*{find_weights().sha256[:12]}.*--other-weights"
    ):
        rerun(picture)
    assert list(dropped.iterdir()) == []


def test_other_weights_are_accepted_on_request(root: Root, dropped: Path) -> None:
    """With --other-weights the job is submitted, and the difference is still printed."""
    picture = root.add()
    said = rerun(picture, "--other-weights").stderr
    assert "painted with the weights" in said
    assert {path.name for path in dropped.iterdir()} == {
        "dog.content.jpg",
        "dog.style.png",
        "dog.yaml",
    }


def test_the_same_weights_are_not_mentioned(root: Root, dropped: Path) -> None:
    """A picture painted with the configured weights is submitted, and only the job's name is printed."""
    picture = root.add()
    record_weights(picture, find_weights().sha256)
    done = rerun(picture)
    assert done.stdout == "dog\n"
    assert "weights" not in done.stderr
    assert len(list(dropped.iterdir())) == 3


def test_the_command_of_the_gallery_works_from_any_folder(
    root: Root, dropped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another configuration in force and inputs in a folder that was named, the page's command still works."""
    picture = root.add()
    record_weights(picture, find_weights().sha256)
    (root.folder / "done" / "dog").rename(tmp_path / "photos")
    configuration = tmp_path / "own.yaml"
    configuration.write_text(f"folders: {{root: '{root.folder}'}}")
    monkeypatch.delenv("NST_FOLDERS__ROOT")
    monkeypatch.chdir(tmp_path)
    arguments = ["gallery", "--input", "photos", "--config", "own.yaml"]
    page = Path(CliRunner().invoke(cli.app, arguments, catch_exceptions=False).stdout.strip())
    data = page.read_text().split('<script id="data" type="application/json">')[1]
    command = json.loads(data.split("</script>")[0])["entries"][0]["command"]
    monkeypatch.chdir("/")
    assert shlex.split(command)[:2] == ["nst-daemon", "rerun"]
    assert rerun(*shlex.split(command)[2:]).stdout == "dog\n"
    assert len(list(dropped.iterdir())) == 3


@pytest.mark.parametrize("place", ["done", "failed", "styles"])
def test_inputs_are_found_in_each_folder_of_the_root(root: Root, dropped: Path, place: str) -> None:
    """The inputs may have been moved to any folder that the gallery searches as well."""
    picture = root.add()
    record_weights(picture, find_weights().sha256)
    target = root.folder / place / "elsewhere"
    target.parent.mkdir(exist_ok=True)
    (root.folder / "done" / "dog").rename(target)
    assert rerun(picture).stdout == "dog\n"
