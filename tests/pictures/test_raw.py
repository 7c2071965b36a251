"""Camera raw files: how they are recognised and developed, and files that are damaged or hostile."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nst_daemon.errors import PictureError
from nst_daemon.pictures.camera_raw import recognise
from nst_daemon.pictures.decode import DecodedFile, decode_file
from nst_daemon.pictures.metadata import upright
from nst_daemon.pictures.raster import Array
from tests.pictures.corpus.raw import (
    HEIGHT,
    LINEAR,
    NEUTRALS,
    PATTERNS,
    WIDTH,
    Camera,
    dng,
    mosaic,
    tags,
)
from tests.pictures.kinds import srgb_curve


class NoRaw:
    """Limits without camera raw files."""

    max_bytes, max_pixels, max_side = 1 << 28, 10**8, 30_000
    formats = ("tiff", "jpeg")


def load(data: bytes, folder: Path, **options: object) -> DecodedFile:
    """A decoded file."""
    path = folder / "picture"
    path.write_bytes(data)
    return decode_file(path, name="picture", **options)  # type: ignore[arg-type]


def name_of(data: bytes) -> str | None:
    """The name of the format that is recognised."""
    known = recognise(io.BytesIO(data))
    return known.name if known else None


def grey_dng(value: int = 8192, **options: object) -> bytes:
    """A flat grey DNG."""
    pattern = PATTERNS["RGGB"]
    return dng(mosaic(np.full(3, value), pattern), Camera(), pattern, **options)  # type: ignore[arg-type]


def four_parts() -> Array:
    """Raw values whose quarters have different greys, and the last enough white: (96, 128)."""
    pixels = np.zeros((96, 128), np.uint16)
    pixels[:48, :64], pixels[:48, 64:], pixels[48:, :64] = 2000, 9000, 25000
    pixels[48:, 64:] = 65535
    return pixels


# Recognition


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("where", ["first", "second", "below"])
def test_raw_data_are_found_wherever_a_tiff_has_them(
    byteorder: str, bigtiff: bool, where: str
) -> None:
    """A TIFF with a colour filter array in the first, the next or a sub-directory is a camera raw file."""
    raw = {"photometric": 32803, "metadata": None}
    raw["extratags"] = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)]
    pixels, preview = np.ones((24, 32), np.uint16), np.ones((8, 8, 3), np.uint8)
    out = io.BytesIO()
    with tifffile.TiffWriter(out, byteorder=byteorder, bigtiff=bigtiff) as file:
        if where != "first":
            below = 2 if where == "below" else 0
            file.write(preview, photometric="rgb", subifds=below, metadata=None)
            if below:
                file.write(preview[..., 0], photometric="minisblack", metadata=None)
        file.write(pixels, **raw)
    assert name_of(out.getvalue()) == "raw"


@pytest.mark.parametrize(
    "head",
    [
        b"II*\0\x10\0\0\0CR\x02\0",
        b"MM\0*\0\0\0\x10CR\x02\0",
        b"II*\0\x08\0\0\0IIIITwaR",
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        b"FUJIFILMCCD-RAW 0201",
        b"IIRO\x08\0\0\0",
        b"IIRS\x08\0\0\0",
        b"MMOR\0\0\0\x08",
        b"IIU\0\x18\0\0\0",
        b"II\x1a\0\0\0HEAPCCDR",
        b"FOVb\0\0\3\0",
        b"\0MRM\0\1\2\3",
    ],
)
def test_files_of_cameras_are_known_by_their_first_bytes(head: bytes) -> None:
    """What Canon, Phase One, Fujifilm, Olympus, Panasonic, Sigma and Minolta write is recognised."""
    assert name_of(head + bytes(100)) == "raw"


def test_a_tiff_with_a_camera_s_tags_is_a_tiff(tmp_path: Path) -> None:
    """A TIFF that a raw program has exported, with the tags of the DNG that it came from, is read as TIFF."""
    out = io.BytesIO()
    pixels = np.full((24, 32, 3), 99, np.uint8)
    tifffile.imwrite(out, pixels, photometric="rgb", extratags=tags(Camera()), metadata=None)
    assert name_of(out.getvalue()) == "tiff"
    found = load(out.getvalue(), tmp_path)
    assert np.allclose(found.colours, 99 / 255)


@pytest.mark.parametrize("following", [8, 2**32 - 1])
def test_directories_in_a_circle_are_no_raw_file(following: int) -> None:
    """A TIFF whose directories refer to themselves or to nowhere is not searched for ever."""
    entries = struct.pack("<HHII", 330, 4, 1, 8) + struct.pack("<HHII", 262, 3, 1, 1)
    data = b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", following)
    assert name_of(data) == "tiff"


def test_limits_formats_tells_raw_from_tiff(tmp_path: Path) -> None:
    """A DNG is refused by the name `raw` if limits.formats has only tiff."""
    with pytest.raises(
        PictureError, match=r"is a camera raw file, and limits\.formats does not list raw"
    ):
        load(grey_dng(), tmp_path, limits=NoRaw())


def test_limits_are_checked_before_raw_data_are_unpacked(tmp_path: Path) -> None:
    """A DNG that claims 60,000 × 60,000 pixels is refused by that size, with little memory."""
    data = bytearray(grey_dng())
    for tag in (256, 257):
        at = data.index(struct.pack("<H", tag), 8)
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 60_000)
    with pytest.raises(PictureError, match="60000 × 60000 pixels; the limits are"):
        load(bytes(data), tmp_path)


# Development


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("used", [None, 20])
def test_a_raw_file_is_turned_once(orientation: int, used: int | None, tmp_path: Path) -> None:
    """The quarters of a picture are where its orientation puts them, whole and reduced."""
    pattern = PATTERNS["GRBG"]
    pixels = np.tile(four_parts(), (1, 1)).repeat(12, 0).repeat(12, 1)
    data = dng(pixels, Camera(orientation=orientation), pattern)
    found = load(data, tmp_path, used=(lambda _: used) if used else None)
    expected = upright(srgb_curve(four_parts() / 65535), orientation)
    if used is None:
        expected = expected.repeat(12, 0).repeat(12, 1)
        assert found.file_size is None
    else:
        assert found.file_size == (expected.shape[0] * 12, expected.shape[1] * 12)
    height, width = found.colours.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    tall, wide = expected.shape[0] / height, expected.shape[1] / width
    for y in rows:
        for x in columns:
            wanted = expected[int(y * tall), int(x * wide)]
            assert np.abs(found.colours[y, x] - wanted).max() < 2 / 255


def test_a_dark_picture_is_brightened_by_three_stops_at_most(tmp_path: Path) -> None:
    """One tenth of white becomes 8 tenths and not white, and half of white becomes white."""
    dark = load(grey_dng(6554), tmp_path).colours
    assert np.abs(dark - srgb_curve(np.array(0.8))).max() < 1 / 255
    assert np.abs(load(grey_dng(32768), tmp_path).colours - 1).max() < 1 / 255


def test_without_a_white_balance_daylight_is_assumed(tmp_path: Path) -> None:
    """A DNG without AsShotNeutral is developed with the neutral of its matrix."""
    camera, pattern = Camera(), PATTERNS["RGGB"]
    data = dng(mosaic(np.full(3, 6000), pattern), camera, pattern)
    at = data.index(struct.pack("<HHI", 50728, 5, 3))
    data = data[:at] + struct.pack("<HHI", 65000, 5, 3) + data[at + 8 :]
    colours = load(data, tmp_path).colours
    assert np.abs(colours - srgb_curve(np.array(8 * 6000 / 65535))).max() < 2 / 255


def test_a_monochrome_camera_gives_grey(tmp_path: Path) -> None:
    """LinearRaw with one sample per pixel is grey."""
    values = np.random.default_rng(1).integers(5000, 60000, (HEIGHT, WIDTH)).astype(np.uint16)
    values[:2] = 65535
    matrix = (50721, 10, 3, (950_000, 1_000_000, 1_000_000, 1_000_000, 1_089_000, 1_000_000), True)
    own = [tag for tag in tags(Camera()) if tag[0] not in (50721, 50728)]
    own += [matrix, (50728, 5, 1, (1, 1), True), (50717, 4, 1, 65535, True)]
    out = io.BytesIO()
    tifffile.imwrite(out, values, photometric="minisblack", extratags=own, metadata=None)
    data = out.getvalue()
    at = data.index(struct.pack("<HHI", 262, 3, 1))
    data = data[: at + 8] + struct.pack("<I", LINEAR) + data[at + 12 :]
    colours = load(data, tmp_path).colours
    assert np.abs(colours - srgb_curve(values / 65535)[..., None]).max() < 2 / 255


def test_non_finite_values_are_noted(tmp_path: Path) -> None:
    """Infinite values, which make LibRaw return black, are noted."""
    pixels = np.full((HEIGHT, WIDTH), 0.1, np.float32)
    pixels[4:8, 4:8] = np.inf
    found = load(dng(pixels, Camera(white=1), PATTERNS["RGGB"]), tmp_path)
    assert any("black or non-finite" in note for note in found.notes)


def test_metadata_are_carried_and_the_orientation_is_not(tmp_path: Path) -> None:
    """Date, artist and copyright of the first directory are found, beside an orientation that was applied."""
    pixels = mosaic(np.full(3, 6000), PATTERNS["RGGB"])
    data = dng(pixels, Camera(orientation=6), PATTERNS["RGGB"])
    found = load(data, tmp_path)
    assert found.metadata == {"datetime": "2024:05:06 07:08:09", "artist": "An Artist"}
    assert found.colours.shape[:2] == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_preview_stands_for_raw_data_that_cannot_be_read(
    orientation: int, tmp_path: Path
) -> None:
    """A DNG with JPEG XL, which LibRaw does not read, becomes its preview if that is large, with a note."""
    preview = np.zeros((640, 800, 3), np.uint8)
    preview[:, :400] = (200, 80, 40)
    pixels = np.full((640, 800), 9000, np.uint16)
    data = dng(
        pixels,
        Camera(orientation=orientation),
        PATTERNS["RGGB"],
        preview=preview,
        compression=52546,
    )
    found = load(data, tmp_path)
    expected = upright(preview / 255, orientation)
    assert np.abs(found.colours - expected)[::7, ::7].mean() < 4 / 255
    assert found.notes == (
        "picture: its raw data cannot be decoded; its preview of 800 × 640 pixels was used",
    )


# Damage


CHILD = """
import json, resource, sys
from pathlib import Path
import numpy as np
from nst_daemon.errors import PictureError, OutOfMemory
from nst_daemon.machine import proc_bytes
from nst_daemon.pictures.decode import decode_file
from nst_daemon.pictures.readers import raw  # loaded before memory is limited
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30,) * 2)
data = Path(sys.argv[1]).read_bytes()
path = Path(sys.argv[1] + ".changed")
random = np.random.default_rng(int(sys.argv[2]))
counts = {}
for step in range(200):
    changed = bytearray(data)
    if step % 4 == 3:
        changed = changed[: random.integers(0, len(data))]
    else:
        for place in random.integers(0, 600 if step % 4 else len(data), random.integers(1, 8)):
            changed[place] = random.integers(0, 256)
    path.write_bytes(changed)
    try:
        found = decode_file(path, name="picture")
        assert np.isfinite(found.colours).all()
        kind = "decoded"
    except (PictureError, OutOfMemory) as error:
        kind = type(error).__name__
    counts[kind] = counts.get(kind, 0) + 1
print(json.dumps([counts, proc_bytes(Path("/proc/self/status"))["VmHWM"]]))
"""


@pytest.mark.parametrize("kind", ["plain", "lossless JPEG", "preview", "linear", "float"])
def test_damaged_raw_files_do_not_end_the_process(kind: str, tmp_path: Path) -> None:
    """200 damaged versions of a DNG are refused or decoded, within a gigabyte and without a crash."""
    from tests.pictures.corpus.raw import lossless_jpeg

    pattern, camera = PATTERNS["RGGB"], Camera(neutral=NEUTRALS["tungsten"])
    pixels = mosaic(np.array([900, 3000, 2000]), pattern)
    preview = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    data = {
        "plain": lambda: dng(pixels, camera, pattern),
        "lossless JPEG": lambda: lossless_jpeg(pixels, camera, pattern),
        "preview": lambda: dng(pixels, camera, pattern, preview=preview),
        "linear": lambda: dng(np.dstack([pixels] * 3), camera),
        "float": lambda: dng(
            (pixels / 65535).astype(np.float32),
            Camera(white=1),
            pattern,
            compression="zlib",
            predictor=3,
        ),
    }[kind]()
    path = tmp_path / "file"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts, peak = json.loads(done.stdout)
    assert sum(counts.values()) == 200
    assert counts.get("decoded", 0) < 200
    assert peak < 600e6


@pytest.mark.parametrize(
    "head",
    [
        b"II*\0\x10\0\0\0CR\x02\0",
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        b"FUJIFILMCCD-RAW 0201",
        b"IIRO\x08\0\0\0",
        b"IIU\0\x18\0\0\0",
        b"II\x1a\0\0\0HEAPCCDR",
        b"FOVb\0\0\3\0",
        b"\0MRM\0\1\2\3",
        b"II*\0\x08\0\0\0IIIITwaR",
    ],
)
def test_only_the_beginning_of_a_raw_file_is_refused(head: bytes, tmp_path: Path) -> None:
    """The first bytes of each camera's format, followed by noise, are refused with a cause."""
    for seed in range(20):
        noise = np.random.default_rng(seed).bytes(5000)
        with pytest.raises(
            PictureError, match=r"damaged or truncated|unknown or damaged kind|the limits are"
        ):
            load(head + noise, tmp_path)
