"""Files that are found by their contents."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from nst_daemon.digests import find_files, sha256_file

DATA = b"a picture"
DIGEST = hashlib.sha256(DATA).hexdigest()


def put(path: Path, data: bytes = DATA) -> Path:
    """A file with these contents, in folders that are made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def find(*places: Path) -> Path | None:
    """Where the picture is found."""
    return find_files({DIGEST: len(DATA)}, places).get(DIGEST)


def test_digest_is_of_the_contents(tmp_path: Path) -> None:
    """`sha256_file` agrees with hashlib on the file's bytes."""
    assert sha256_file(put(tmp_path / "a")) == DIGEST


def test_files_are_found_at_any_depth_whatever_their_names(tmp_path: Path) -> None:
    """A file deep inside a place is found by its contents, as a place itself is."""
    deep = put(tmp_path / "x" / "y" / "z.png")
    assert find(tmp_path) == deep
    assert find(deep) == deep
    assert find(tmp_path / "gone") is None


def test_the_first_place_counts(tmp_path: Path) -> None:
    """Of equal files the one in the earlier place is named."""
    first, second = put(tmp_path / "b" / "1.png"), put(tmp_path / "a" / "2.png")
    assert find(tmp_path / "b", tmp_path / "a") == first
    assert find(tmp_path / "a", tmp_path / "b") == second


def test_other_contents_of_the_same_size_are_not_taken(tmp_path: Path) -> None:
    """Equal size alone is not a match."""
    put(tmp_path / "a.png", b"another!!"[: len(DATA)])
    assert find(tmp_path) is None


def test_only_files_of_a_wanted_size_are_read(tmp_path: Path) -> None:
    """A file of another size keeps the time of its last access, so it was not opened."""
    other = put(tmp_path / "a.png", DATA * 2)
    os.utime(other, (1, 2))  # relatime renews an access time that lies before the last change
    assert find(tmp_path) is None
    assert other.stat().st_atime == 1


@pytest.mark.parametrize("name", [".hidden/a.png", "a.png.part", "@eaDir/a.png", ".a.png"])
def test_ignored_names_are_skipped(tmp_path: Path, name: str) -> None:
    """What the inbox ignores is not an input."""
    put(tmp_path / name)
    assert find(tmp_path) is None


def test_links_are_not_followed(tmp_path: Path) -> None:
    """Links to files and to folders in a place are skipped; a place may itself be a link."""
    put(tmp_path / "elsewhere" / "a.png")
    place = tmp_path / "place"
    place.mkdir()
    (place / "b.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (place / "folder").symlink_to(tmp_path / "elsewhere")
    assert find(place) is None
    assert find(place / "folder") is not None


def test_what_is_not_a_readable_file_does_not_end_the_search(tmp_path: Path) -> None:
    """A named pipe, a folder with a picture's name and an unreadable file are skipped."""
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    put(tmp_path / "c.png", b"x" * len(DATA)).chmod(0)
    wanted = put(tmp_path / "d.png")
    assert find(tmp_path) == wanted


def test_suffixes_limit_what_is_taken(tmp_path: Path) -> None:
    """With suffixes given, an equal file of another suffix is passed over."""
    put(tmp_path / "a.backup")
    wanted = put(tmp_path / "b.PNG")
    assert find_files({DIGEST: len(DATA)}, [tmp_path], suffixes={".png"}) == {DIGEST: wanted}
