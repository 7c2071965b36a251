"""Folders that must not contain one another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nst_daemon import config
from nst_daemon.errors import ConfigError
from nst_daemon.mounts import location
from nst_daemon.overlaps import check_separate, overlaps


def load(root: Path, **keys: str) -> config.Config:
    """The configuration of a root; keys of `folders`, or dotted ones with a double underscore."""
    given = {
        f"NST_{'' if '__' in k or k == 'batch_roots' else 'FOLDERS__'}{k.upper()}": v
        for k, v in keys.items()
    }
    return config.load(None, {"NST_FOLDERS__ROOT": str(root), **given}, search=())


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"state": "."},
        {"done": "archive", "failed": "archive"},
        {"done": "archive/done", "failed": "archive/done/failed"},
        {"results": "../pictures", "styles": "../library", "state": "../lib"},
        {"inbox": "in", "results": "in-results", "styles": "inbox2"},
        {"inbox": "drop/here", "results": "drop/there"},
        {"batch_roots": "[/, /srv/photos]"},
        {"metrics__textfile": "nst.prom", "model__weights": "own.safetensors"},
        {"cache__max_bytes": "1GiB", "inbox": "../nst/in"},
    ],
)
def test_folders_side_by_side_are_fine(tmp_path: Path, keys: dict[str, str]) -> None:
    """Everything in the root, elsewhere, or in common parents is accepted, with missing folders and with all there."""
    loaded = load(tmp_path / "nst", **keys)
    assert list(overlaps(loaded)) == []
    for name in ("inbox", "styles", "results", "done", "failed", "previews", "spool", "cache"):
        getattr(loaded.folders, name).mkdir(parents=True, exist_ok=True)
    assert list(overlaps(loaded)) == []


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"results": "inbox/out"}, ["folders.results", "is inside folders.inbox"]),
        ({"styles": "inbox/../inbox/styles"}, ["folders.styles", "is inside folders.inbox"]),
        ({"done": "inbox/done"}, ["folders.done", "is inside folders.inbox"]),
        ({"failed": "inbox/failed"}, ["folders.failed", "is inside folders.inbox"]),
        ({"state": "inbox/.state"}, ["folders.state", "is inside folders.inbox"]),
        ({"inbox": "."}, ["folders.root", "is the same as folders.inbox"]),
        ({"inbox": ".."}, ["folders.root", "is inside folders.inbox"]),
        ({"inbox": "state"}, ["folders.state", "folders.inbox", "is the same as"]),
        ({"inbox": "state/spool"}, ["folders.inbox", "is the same as the spool of folders.state"]),
        ({"results": "state/cache/x"}, ["folders.results", "is inside the cache of folders.state"]),
        ({"results": "styles"}, ["folders.results", "folders.styles", "is the same as"]),
        ({"results": "styles/out"}, ["folders.results", "is inside folders.styles"]),
        ({"styles": "results/styles"}, ["folders.styles", "is inside folders.results"]),
        ({"inbox": "results/in"}, ["folders.inbox", "is inside folders.results"]),
        ({"state": "results/.state"}, ["folders.state", "is inside folders.results"]),
        ({"done": "results/done"}, ["folders.done", "is inside folders.results"]),
        ({"results": "done"}, ["folders.results", "folders.done", "is the same as"]),
        ({"inbox": "failed/again"}, ["folders.inbox", "is inside folders.failed"]),
        ({"batch_roots": "[/srv, inbox/photos]"}, ["batch_roots", "is inside folders.inbox"]),
        ({"metrics__textfile": "inbox/nst.prom"}, ["metrics.textfile", "is inside folders.inbox"]),
        ({"model__weights": "inbox/own.pth"}, ["model.weights", "is inside folders.inbox"]),
    ],
)
def test_harmful_overlaps_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], named: list[str]
) -> None:
    """The error has both keys, both paths and a remedy in one line, whether or not the folders exist."""
    monkeypatch.chdir(tmp_path)
    loaded = load(tmp_path, **keys)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            check_separate(loaded)
        assert all(words in str(caught.value) for words in named)
        assert str(caught.value).count(str(tmp_path)) >= 2
        assert "\n" not in str(caught.value)
        assert "choose" in caught.value.remedy
        for name in ("inbox", "styles", "results", "done", "failed", "spool"):
            getattr(loaded.folders, name).mkdir(parents=True, exist_ok=True)


def test_each_overlap_is_listed_once(tmp_path: Path) -> None:
    """What the daemon keeps in a folder is not listed besides the folder, nor equal folders in both orders."""
    assert len(list(overlaps(load(tmp_path, results="inbox/out")))) == 1
    assert len(list(overlaps(load(tmp_path, results="styles")))) == 1
    assert len(list(overlaps(load(tmp_path, state="inbox", results="styles/x")))) == 2


def test_the_configuration_must_not_be_in_the_inbox(tmp_path: Path) -> None:
    """The daemon would move its own configuration away."""
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "config.yaml"
    file.write_text("folders: {root: .., inbox: in}")
    with pytest.raises(ConfigError, match=r"the configuration file .* is inside folders\.inbox"):
        check_separate(config.load(file, {}))


def test_the_daemons_own_folders_hold_nothing_of_others(tmp_path: Path) -> None:
    """The daemon would remove a configuration and weights that are in its spool or cache."""
    file = tmp_path / "state" / "spool" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("folders: {root: ../..}\nmodel: {weights: ../cache/own.pth}")
    found = " ".join(message for message, _ in overlaps(config.load(file, {})))
    assert f"the configuration file ({file}) is inside the spool" in found
    assert "model.weights" in found


def test_links_are_followed(tmp_path: Path) -> None:
    """Results that are a link into the inbox, and a spool that is one, are found."""
    (tmp_path / "inbox" / "deep").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    (tmp_path / "results").symlink_to("inbox/deep")
    assert [m for m, _ in overlaps(load(tmp_path)) if "folders.results (" in m]
    (tmp_path / "results").unlink()
    (tmp_path / "state" / "spool").symlink_to(tmp_path / "inbox")
    found = [message for message, _ in overlaps(load(tmp_path))]
    assert any("the spool of folders.state" in m and "folders.inbox" in m for m in found)


def test_a_mount_table_tells_where_a_folder_is(tmp_path: Path) -> None:
    """Two mounts from one file system are compared by their paths on it, as in containers with several volumes."""
    table = (
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 20 8:2 /srv/data /drop rw - ext4 /dev/sdb1 rw\n"
        "31 20 8:2 /srv/data/out /pictures\\040of\\040us rw - ext4 /dev/sdb1 rw\n"
        "short\n"
    )
    assert location(Path("/drop"), table) == ("8:2", Path("/srv/data"))
    assert location(Path("/pictures of us/x"), table) == ("8:2", Path("/srv/data/out/x"))
    assert location(Path("/dropped"), table) == ("8:1", Path("/dropped"))
    assert location(tmp_path, "") == ("", tmp_path)


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """A folder that is mounted from `inbox/deep`."""
    (tmp_path / "inbox" / "deep").mkdir(parents=True)
    point = tmp_path / "elsewhere"
    point.mkdir()
    command = ["mount", "--bind", str(tmp_path / "inbox" / "deep"), str(point)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield point
    subprocess.run(["umount", str(point)], check=True)


@pytest.mark.parametrize("source", ["results", "results/deep", "."])
def test_what_a_mount_in_the_inbox_shows_is_found(tmp_path: Path, source: str) -> None:
    """Results that are mounted in the inbox, in whole or in part, or with their parent, would be painted again."""
    point = tmp_path / "inbox" / "mounted"
    for folder in (point, tmp_path / source):
        folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "--bind", str(tmp_path / source), str(point)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        found = [message for message, _ in overlaps(load(tmp_path))]
        assert any("folders.results" in m and "is inside folders.inbox" in m for m in found)
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_bind_mounts_are_followed(tmp_path: Path, bound: Path) -> None:
    """Results in a folder that is mounted from the inbox are found."""
    loaded = load(tmp_path, results=str(bound / "out"))
    with pytest.raises(ConfigError, match=r"folders\.results .* is inside folders\.inbox"):
        check_separate(loaded)
