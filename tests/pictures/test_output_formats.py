"""The table of output formats, and what is checked before painting."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from nst_daemon.errors import PictureError, StorageError
from nst_daemon.mounts import Space
from nst_daemon.pictures.destination import Destination
from nst_daemon.pictures.encode import encode_picture
from nst_daemon.pictures.output_formats import (
    OUTPUT_FORMATS,
    OUTPUT_NAMES,
    OutputFormat,
    check_size,
    format_of_suffix,
    listed,
)


@pytest.mark.parametrize(
    ("suffixes", "name"),
    [
        (".png .PNG", "png"),
        (".jpg .jpeg .jpe .jfif .JPG .Jpeg", "jpg"),
        (".webp", "webp"),
        (".tif .tiff .TIF", "tiff"),
        (".avif .AVIF", "avif"),
        (".jxl", "jxl"),
    ],
)
def test_every_usual_suffix_means_its_format(suffixes: str, name: str) -> None:
    """Each spelling of a suffix, in any case, means one format."""
    for suffix in suffixes.split():
        found = format_of_suffix(suffix)
        assert found is not None, suffix
        assert found.name == name, suffix
    assert format_of_suffix(".bmp") is None
    assert format_of_suffix("") is None


def test_every_name_is_in_the_table() -> None:
    """The configuration's names and the table's rows are the same, in one order."""
    assert tuple(known.name for known in OUTPUT_FORMATS) == OUTPUT_NAMES


@pytest.mark.parametrize("known", OUTPUT_FORMATS, ids=lambda known: str(known.name))
def test_limits_are_what_is_allowed_and_no_more(known: OutputFormat) -> None:
    """A side at the limit is allowed; one pixel more is refused with a remedy."""
    name, side = known.name, known.max_side
    check_size(name, (1, side), "dog")
    check_size(name, (side, 1), "dog")
    for size in ((1, side + 1), (side + 1, 1)):
        with pytest.raises(PictureError, match=rf"^dog .*{side:,} pixels per side.*; choose "):
            check_size(name, size, "dog")


def test_a_picture_that_no_format_holds_needs_a_smaller_size() -> None:
    """Beyond the limits of all formats the only remedy is a smaller size."""
    with pytest.raises(PictureError, match=r"; choose a smaller size$"):
        check_size("png", (1, 1 << 31), "dog")


def test_avif_is_limited_in_pixels_too() -> None:
    """An AVIF with allowed sides and more pixels than decoders take is refused, and the remedy omits AVIF."""
    with pytest.raises(
        PictureError, match="268,435,456 pixels in total; choose the format png, jpg, tiff or jxl,"
    ):
        check_size("avif", (20_000, 20_000), "dog.avif")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("png", imagecodecs.png_decode),
        ("jpg", imagecodecs.jpeg_decode),
        ("webp", imagecodecs.webp_decode),
        ("avif", lambda data: np.asarray(Image.open(io.BytesIO(data)))),
    ],
)
def test_the_encoder_writes_the_longest_side(name: str, read: Callable[[bytes], object]) -> None:
    """The longest side of the table can be written, and a decoder reads it."""
    side = next(known.max_side for known in OUTPUT_FORMATS if known.name == name)
    data = bytes(encode_picture(np.zeros((1, side, 3), np.uint8), name, quality=50, metadata={}))
    assert np.shape(read(data)) == (1, side, 3)


def test_a_file_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path) -> None:
    """The pixels must fit beside the reserve: into the free space later, and into the file system at all."""

    def destination(format: str, depth: int, reserve: int = 0) -> Destination:
        return Destination(
            tmp_path / f"dog.{format}",
            format,
            depth,
            reserve,
            lambda _: Space(400 << 20, 800 << 20),
        )

    size = (10_000, 10_000)  # 286 MiB of 8-bit pixels
    destination("png", 8).check(size, alpha=False)
    destination("jpg", 8, reserve=200 << 20).check(size, alpha=True)
    for full in (destination("png", 8, reserve=200 << 20), destination("tiff", 16)):
        with pytest.raises(
            StorageError, match=r"may need .* and .* has 400 MiB of free space; free some space"
        ):
            full.check(size, alpha=False)
    with pytest.raises(
        PictureError,
        match=r"may need 763 MiB in addition to limits\.min_free_disk \(200 MiB\), and",
    ):
        destination("tiff", 16, reserve=200 << 20).check(size, alpha=True)
    with pytest.raises(PictureError, match="has 800 MiB in total; choose a smaller size"):
        destination("tiff", 16).check((20_000, 10_000), alpha=False)


def test_the_document_lists_the_table() -> None:
    """docs/images.md has one row for each format, with its suffixes, depths and longest side."""
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text(encoding="utf-8")
    rows = {}
    for line in page.partition("## Output")[2].splitlines():
        if line.startswith("| `") and "outputs.format" not in line:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0].strip("`")] = (
                cells[1],
                cells[2],
                bool(cells[4]),
                cells[5],
            )
    assert list(rows) == list(OUTPUT_NAMES)
    for known in OUTPUT_FORMATS:
        suffixes, depths, quality, side = rows[known.name]
        assert suffixes == ", ".join(known.suffixes)
        assert depths == listed(known.depths)
        assert quality == known.quality
        assert side.startswith(f"{known.max_side:,}")
