"""What a result takes over from EXIF of every state."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_daemon.pictures.decode import decode_file
from tests.pictures.corpus.exif import CONTAINERS, states

#: What is read before such damage is up to the parser.
UNCERTAIN = ("cut to", "a text of 4 GB", "a count of", "a directory at 0")


@pytest.mark.parametrize("container", ["JPEG", "PNG", "PNG, as text", "WebP"])
def test_texts_are_taken_over(container: str, tmp_path: Path) -> None:
    """Artist, copyright and dates of every encoding and type are read as they were meant, or left out."""
    make, _, _ = CONTAINERS[container]
    wrong = []
    for name, data, xmp, _, carried in states():
        if not name.startswith(UNCERTAIN):
            (tmp_path / "picture").write_bytes(make(data, xmp))
            found = decode_file(tmp_path / "picture").metadata
            if found != carried:
                wrong.append((name, found, carried))
    assert wrong == []
