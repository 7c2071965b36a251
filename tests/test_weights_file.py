"""The configured weights and their digest, as the daemon's process sees them: without torch."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from nst_daemon import weights_file
from nst_daemon.config import Model
from nst_daemon.errors import ModelError
from nst_daemon.weights_file import configured_weights, find_weights, imagenet_path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file of one's own. Its contents do not matter here."""
    path = tmp_path / "own.pth"
    path.write_bytes(b"first")
    return path


def digest(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def test_configured_weights_are_found_with_their_digest(own: Path, tmp_path: Path) -> None:
    """A configured file has its stem as name, and the digest of its contents."""
    found = configured_weights(Model(weights=str(own)), tmp_path / "cache")
    assert (found.name, found.path, found.sha256) == ("own", own, digest(b"first"))


def test_changed_weights_have_a_new_digest(own: Path, tmp_path: Path) -> None:
    """The cached digest is not used for a file that was replaced or written to."""
    model, cache = Model(weights=str(own)), tmp_path / "cache"
    configured_weights(model, cache)
    own.write_bytes(b"other")
    os.utime(own, (1, 1))  # size and mtime may be equal; the time of change is not
    assert configured_weights(model, cache).sha256 == digest(b"other")
    (tmp_path / "new").write_bytes(b"third")
    (tmp_path / "new").replace(own)
    assert configured_weights(model, cache).sha256 == digest(b"third")


def test_unchanged_weights_are_not_read_again(own: Path, tmp_path: Path) -> None:
    """The second answer comes from the cache: an entry that is altered there is what is returned."""
    model, cache = Model(weights=str(own)), tmp_path / "cache"
    real = configured_weights(model, cache).sha256
    kept = cache / weights_file.DIGESTS
    kept.write_text(kept.read_text().replace(real, "f" * 64))
    assert configured_weights(model, cache).sha256 == "f" * 64


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{", b'{"x": 3}'])
def test_a_damaged_cache_is_ignored(own: Path, tmp_path: Path, damage: bytes) -> None:
    """A cache file with anything else in it is replaced."""
    (tmp_path / weights_file.DIGESTS).write_bytes(damage)
    for _ in range(2):
        assert configured_weights(Model(weights=str(own)), tmp_path).sha256 == digest(b"first")
    assert digest(b"first") in (tmp_path / weights_file.DIGESTS).read_text()


def test_a_cache_that_cannot_be_written_is_not_needed(own: Path, tmp_path: Path) -> None:
    """Where the cache folder cannot be created, the file is read each time."""
    assert configured_weights(Model(weights=str(own)), own / "cache").sha256 == digest(b"first")


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    """A configured file that does not exist is a ModelError that names it."""
    with pytest.raises(ModelError, match=r"no weights file at .*gone\.pth"):
        configured_weights(Model(weights=str(tmp_path / "gone.pth")), tmp_path)


@pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", "HOME"])
def test_imagenet_path_is_where_torch_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """TORCH_HOME, XDG_CACHE_HOME and the home folder lead to the folder that torch.hub names."""
    from torch import hub

    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert weights_file.imagenet_path("vgg19").parent == Path(hub.get_dir()) / "checkpoints"
    assert tmp_path in weights_file.imagenet_path("vgg19").parents


def test_a_file_that_cannot_be_weights_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file of a terabyte is refused at once, `auto` takes the bundled weights, and a bad record is none."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = imagenet_path("vgg19")
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    path.with_name(path.name + ".sha256").write_bytes(b"\xff\xfe")
    found = find_weights("auto")
    assert found.name == "bundled"
    assert "is not a weights file: it has 1 TiB" in found.warning
    with path.open("wb") as file:
        file.truncate(1)
    assert "is damaged" in find_weights("auto").warning
