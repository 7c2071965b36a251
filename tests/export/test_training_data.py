"""Labelled pictures: folders for each class and packed files, and what is wrong with them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nst_daemon.errors import InputError, PictureError
from nst_daemon.export.training_data import LabelledPictures, hold_out, read_data
from tests.export.stripes import CLASSES, draw, mosaic, write_classes, write_packed

MIXED = [i % 2 for i in range(100)]


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    """Pictures of any size and format become squares; other files and hidden ones are skipped; a tenth is held out."""
    write_classes(tmp_path, 12)
    (tmp_path / "across" / "list.txt").write_text("0.png")
    (tmp_path / "across" / ".hidden.png").write_bytes(b"none")
    data = read_data(tmp_path, 32)
    assert data.training.pixels.shape == (22, 3, 32, 32)
    assert data.training.pixels.dtype == torch.uint8
    assert data.training.labels.bincount().tolist() == [11, 11]
    assert sorted(data.validation.labels.tolist()) == [0, 1]
    assert data.classes == 2


def test_the_middle_of_a_picture_is_used(tmp_path: Path) -> None:
    """A wide picture loses its sides, not its proportions: only the middle third's colour is left."""
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = (200, 100, 50)
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(wide).save(tmp_path / name / f"{i}.png")
    pixels = read_data(tmp_path, 32).training.pixels
    assert torch.equal(pixels, torch.tensor([200, 100, 50]).view(1, 3, 1, 1).expand_as(pixels))


def test_validation_pictures_of_their_own(tmp_path: Path) -> None:
    """With the folders `train` and `val` nothing is held out, and pictures may lie deeper in a class's folder."""
    write_classes(tmp_path / "train", 4)
    (tmp_path / "val" / "down" / "images").mkdir(parents=True)
    Image.fromarray(draw(1, 0)).save(tmp_path / "val" / "down" / "images" / "a.png")
    data = read_data(tmp_path, 32)
    assert len(data.training) == 8
    assert data.validation.labels.tolist() == [1]


def test_validation_pictures_of_no_class_are_refused(tmp_path: Path) -> None:
    """A folder in `val` that is no class of `train` is named, with what to do."""
    write_classes(tmp_path / "train", 2)
    (tmp_path / "val" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match=r"val/images belongs to no class .*; sort .* or remove"):
        read_data(tmp_path, 32)


def test_packed_files(tmp_path: Path) -> None:
    """Each picture of a mosaic has its own label; a file named …val.nstw holds validation pictures only."""
    write_packed(tmp_path / "b.nstw", [mosaic(MIXED, seed=500)])
    write_packed(tmp_path / "a.nstw", [mosaic(MIXED), mosaic([7] * 100)])
    write_packed(tmp_path / "my-val.nstw", [mosaic(MIXED, seed=300)])
    data = read_data(tmp_path, 32)
    assert (len(data.training), len(data.validation), data.classes) == (300, 100, 8)
    assert data.training.labels.tolist() == [*MIXED, *[7] * 100, *MIXED]
    for number, seed in ((13, 13), (213, 513)):
        wanted = torch.from_numpy(draw(1, seed)).permute(2, 0, 1)
        assert torch.equal(data.training.pixels[number], wanted)


def test_packed_files_without_validation_pictures(tmp_path: Path) -> None:
    """A tenth of each class is held out of packed files, too."""
    write_packed(tmp_path / "a.nstw", [mosaic(MIXED)])
    data = read_data(tmp_path, 32)
    assert data.training.labels.bincount().tolist() == [45, 45]
    assert data.validation.labels.bincount().tolist() == [5, 5]


def test_packed_pictures_are_reduced(tmp_path: Path) -> None:
    """Packed pictures of another size are resampled one by one, so that neighbours do not bleed into each other."""
    flat = np.kron(np.arange(100, dtype=np.uint8).reshape(10, 10), np.ones((64, 64), np.uint8))
    image = tmp_path / "image.webp"
    Image.fromarray(np.repeat(flat[..., None] * 2, 3, axis=2)).save(image, lossless=True)
    data = image.read_bytes()
    write_packed(tmp_path / "a.nstw", [struct.pack("<I", len(data)) + bytes(MIXED) + data])
    write_packed(tmp_path / "val.nstw", [mosaic(MIXED)])
    pixels = read_data(tmp_path, 32).training.pixels
    wanted = 2 * torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1)
    assert torch.equal(pixels, wanted.expand(100, 3, 32, 32))


def test_a_tenth_of_each_class_is_held_out() -> None:
    """Of 30, 3 and 1 pictures of three classes 3, 1 and 0 are held out, and no picture is in both parts."""
    labels = torch.tensor([0] * 30 + [1] * 3 + [2])
    kept, held = hold_out(LabelledPictures(torch.arange(34), labels))
    assert held.labels.bincount(minlength=3).tolist() == [3, 1, 0]
    assert sorted([*kept.pixels.tolist(), *held.pixels.tolist()]) == list(range(34))
    assert torch.equal(labels[kept.pixels], kept.labels)


def test_a_sample_is_spread_over_all_pictures() -> None:
    """A sample has pictures from the beginning to the end; of few pictures it has all."""
    pictures = LabelledPictures(torch.arange(100), torch.zeros(100))
    assert pictures.sample(10).tolist() == list(range(0, 100, 10))
    assert len(pictures.sample(1000)) == 100


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"has no pictures to train with; it needs a folder of pictures for each class"),
        (["one/a", "one/b"], r"have one class; training needs two or more classes"),
        (["one/a", "two/b"], r"one picture of each class.*; add pictures"),
    ],
)
def test_too_few_pictures_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    """Without pictures, with one class, or with nothing to validate with, a message says what is needed."""
    for name in names:
        path = (tmp_path / name).with_suffix(".png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw(0, 0)).save(path)
    with pytest.raises(InputError, match=message):
        read_data(tmp_path, 32)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A folder that does not exist is named."""
    with pytest.raises(InputError, match=r"there is no folder .*gone"):
        read_data(tmp_path / "gone", 32)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    """A truncated picture in a class's folder is named."""
    write_classes(tmp_path)
    path = tmp_path / "down" / "1.jpg"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(PictureError, match=r"down/1\.jpg is damaged or truncated"):
        read_data(tmp_path, 32)


def damaged(entry: bytes, kind: str) -> bytes:
    """A packed file of two mosaics with one fault."""
    whole = b"NSTW" + struct.pack("<I", 2) + entry + entry
    faults = {
        "magic": b"RIFF" + whole[4:],
        "header": whole[:6],
        "second mosaic": whole[:-10],
        "size": whole[:8] + struct.pack("<I", 2**31) + whole[12:],
        "appended": whole + b"\0\0",
        "image": whole[:140] + bytes(200) + whole[340:],
        "grid": whole[:4] + struct.pack("<I", 1) + odd_mosaic(),
    }
    return faults[kind]


def odd_mosaic() -> bytes:
    """A mosaic that is not made of squares."""
    path = Path("odd.webp")
    Image.new("RGB", (100, 90)).save(path)
    return struct.pack("<I", path.stat().st_size) + bytes(100) + path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("magic", r"a\.nstw is not a packed file.*; copy it again"),
        ("header", r"a\.nstw is truncated after 0 mosaics; copy"),
        ("second mosaic", r"a\.nstw is truncated after 1 mosaics; copy"),
        ("size", r"a\.nstw is truncated after 0 mosaics; copy"),
        ("appended", r"a\.nstw is damaged: 2 bytes follow.*; copy"),
        ("image", r"mosaic 1 of 2 in .*a\.nstw is damaged or truncated: .*; copy"),
        ("grid", r"mosaic 1 of 1 in .*a\.nstw is 100 × 90 pixels.*; pack"),
    ],
)
def test_a_damaged_packed_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    """Each fault of a packed file is one line with the file, the cause and the remedy."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.nstw").write_bytes(damaged(mosaic(MIXED), kind))
    with pytest.raises(InputError, match=message) as found:
        read_data(tmp_path, 32)
    assert "\n" not in str(found.value)
