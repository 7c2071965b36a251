"""Does a file look whole? Held against files that Pillow writes, cut off at every place."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nst_daemon.intake.truncation import looks_whole


def whole(data: bytes, folder: Path) -> bool:
    """What is said about a file with these bytes."""
    path = folder / "file"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return looks_whole(descriptor, len(data))
    finally:
        os.close(descriptor)


def picture(kind: str, **options: object) -> bytes:
    """A noisy picture, which no compression makes small."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


KINDS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_look_whole(kind: str, tmp_path: Path) -> None:
    """Every format that Pillow writes here is called whole."""
    assert whole(picture(kind), tmp_path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "AVIF"])
def test_truncated_files_do_not(kind: str, tmp_path: Path) -> None:
    """Wherever one of these formats is cut off after its head, the rest is not called whole."""
    data = picture(kind)
    for length in range(16, len(data) - 2, 97):
        assert not whole(data[:length], tmp_path), length


def test_a_gif_ends_with_its_trailer(tmp_path: Path) -> None:
    """A GIF without its trailer is not whole (a ";" may stand anywhere, so a cut one can pass for whole)."""
    assert not whole(picture("GIF").rstrip(b";") + b"\x00" * 4, tmp_path)


def test_a_tiff_whose_directory_is_missing(tmp_path: Path) -> None:
    """A TIFF is not whole as long as its first directory lies beyond the end, in either byte order."""
    for order, mark in (("<", b"II*\0"), (">", b"MM\0*")):
        head = mark + struct.pack(order + "I", 1000)
        assert not whole(head + bytes(100), tmp_path)
        assert whole(head + bytes(2000), tmp_path)


def test_an_empty_file_is_not_whole(tmp_path: Path) -> None:
    """A placeholder of 0 bytes is not whole."""
    assert not whole(b"", tmp_path)


def test_what_is_not_known_counts_as_whole(tmp_path: Path) -> None:
    """An unknown format is never held back: only the decoder decides."""
    assert whole(b"something else", tmp_path)


def test_a_jpeg_with_something_behind_it_is_whole(tmp_path: Path) -> None:
    """Padding and previews after the end-of-image marker do not make a JPEG look truncated."""
    assert whole(picture("JPEG") + bytes(500), tmp_path)


def test_the_position_is_left_alone(tmp_path: Path) -> None:
    """The look does not move the descriptor, which others read from."""
    path = tmp_path / "file"
    path.write_bytes(picture("PNG"))
    descriptor = os.open(path, os.O_RDONLY)
    looks_whole(descriptor, path.stat().st_size)
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    os.close(descriptor)
