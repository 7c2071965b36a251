"""Labelled pictures for the training of weights: from a folder for each class, or from packed files.

A folder of pictures is `DATA/CLASS/…` or, with validation pictures of its own, `DATA/train/CLASS/…` and
`DATA/val/CLASS/…`. Pictures may have any size and any format that can be painted; each is reduced to a square, the
middle of the picture.

A packed file (`DATA/*.nstw`) holds small pictures as mosaics. It begins with the four bytes `NSTW` and the number of
mosaics. Each mosaic follows as the size of its image in bytes, 100 bytes with the labels (0 to 255) of its pictures,
and the image: a WebP of 10 × 10 square pictures, row by row. Numbers are unsigned, 32 bits, little-endian. A file with
a name that ends in `val.nstw` holds validation pictures.

Without validation pictures, a tenth of each class is held out.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nst_daemon.engine.images import load_picture, resize
from nst_daemon.errors import InputError
from nst_daemon.names import natural_key
from nst_daemon.pictures.formats import IMAGE_SUFFIXES

MAGIC = b"NSTW"
GRID = 10  # pictures in a row, and in a column, of a mosaic
PACKED = GRID * GRID  # pictures in a mosaic
_NUMBER = struct.Struct("<I")

HELD_OUT = 0.1  # of each class, without validation pictures

Source = TypeVar("Source")


@dataclass(frozen=True, slots=True)
class LabelledPictures:
    """Pictures of one size with their classes.

    Attributes:
        pixels: (N, 3, S, S) uint8, RGB.
        labels: (N,) int64, the number of each picture's class.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> LabelledPictures:
        """Some of the pictures."""
        return LabelledPictures(self.pixels[index], self.labels[index])

    def to(self, device: torch.device) -> LabelledPictures:
        """The same pictures on a device."""
        return LabelledPictures(self.pixels.to(device), self.labels.to(device))

    def sample(self, count: int) -> Tensor:
        """At most `count` pictures (n, 3, S, S), evenly spaced over all of them."""
        return self.pixels[:: max(1, len(self) // count)][:count]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Pictures to train with, pictures to validate with, and the number of classes."""

    training: LabelledPictures
    validation: LabelledPictures
    classes: int

    def to(self, device: torch.device) -> TrainingData:
        """The same pictures on a device."""
        return TrainingData(self.training.to(device), self.validation.to(device), self.classes)


def read_data(folder: Path, side: int) -> TrainingData:
    """Read the pictures of a folder.

    Args:
        folder: Packed files, or a folder for each class (see the module's text).
        side: Of each picture, in pixels.

    Raises:
        InputError: There are no pictures, or only one class, or a file is damaged.
        PictureError: A picture cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", remedy="name the folder of the pictures")
    packed = sorted(folder.glob("*.nstw"), key=lambda path: natural_key(path.name))
    training, validation = _read_packed(packed, side) if packed else _read_classes(folder, side)
    if not len(training):
        raise InputError(
            f"{folder} has no pictures to train with",
            remedy="it needs a folder of pictures for each class, or packed files (*.nstw)",
        )
    if bool((training.labels == training.labels[0]).all()):
        raise InputError(
            f"all pictures in {folder} have one class", remedy="training needs two or more classes"
        )
    if not len(validation):
        training, validation = hold_out(training)
    if not len(validation):
        raise InputError(
            f"{folder} has one picture of each class, so none can be held out for validation",
            remedy="add pictures",
        )
    labels = torch.cat([training.labels, validation.labels])
    return TrainingData(training, validation, int(labels.max()) + 1)


def hold_out(pictures: LabelledPictures) -> tuple[LabelledPictures, LabelledPictures]:
    """The pictures without a tenth of each class, and this tenth, chosen at random.

    At least one picture of a class is held out, unless it is the only one.
    """
    order = torch.randperm(len(pictures))
    grouped = order[pictures.labels[order].argsort(stable=True)]
    kept, held = [], []
    for members in torch.split(grouped, pictures.labels.bincount().tolist()):
        count = max(int(HELD_OUT * len(members)), int(len(members) > 1))
        held.append(members[:count])
        kept.append(members[count:])
    return pictures[torch.cat(kept)], pictures[torch.cat(held)]


def _decode_all(
    sources: Sequence[Source], decode: Callable[[Source], Tensor], each: int, side: int
) -> Tensor:
    """(N·each, 3, S, S) uint8: what `decode`, which runs in threads, makes of each source."""
    pixels = torch.empty(len(sources) * each, 3, side, side, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        for i, part in enumerate(pool.map(decode, sources)):
            pixels[i * each : (i + 1) * each] = part
    return pixels


# A folder for each class


def _read_classes(folder: Path, side: int) -> tuple[LabelledPictures, LabelledPictures]:
    """The pictures to train and to validate with; the latter are empty if there is no folder for them."""
    apart = (folder / "train").is_dir()
    training, validation = (folder / "train", folder / "val") if apart else (folder, None)
    names = _class_names(training)
    empty = _read_split([], [], side)
    if validation is None or not validation.is_dir():
        return _read_split(*_files(training, names), side), empty
    if strange := [name for name in _class_names(validation) if name not in names]:
        raise InputError(
            f"{validation / strange[0]} belongs to no class in {training}",
            remedy="sort the validation pictures into the classes' folders, or remove them: a tenth is then held out",
        )
    return (
        _read_split(*_files(training, names), side),
        _read_split(*_files(validation, names), side),
    )


def _class_names(folder: Path) -> list[str]:
    names = [p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return sorted(names, key=natural_key)


def _files(folder: Path, names: Sequence[str]) -> tuple[list[Path], list[int]]:
    """The picture files of some classes, at any depth, and the number of each file's class."""
    files, labels = [], []
    for label, name in enumerate(names):
        found = sorted(
            p for p in (folder / name).rglob("[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES
        )
        files += found
        labels += [label] * len(found)
    return files, labels


def _read_split(files: Sequence[Path], labels: Sequence[int], side: int) -> LabelledPictures:
    pixels = _decode_all(files, lambda path: _square(path, side), 1, side)
    return LabelledPictures(pixels, torch.tensor(labels, dtype=torch.int64))


def _square(path: Path, side: int) -> Tensor:
    """(3, S, S) uint8: the middle of a picture. Raises PictureError."""
    rgb = load_picture(path).rgb
    height, width = rgb.shape[-2:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return _bytes(resize(rgb[:, top : top + short, left : left + short], (side, side)))


def _bytes(rgb: Tensor) -> Tensor:
    """uint8 of values in [0, 1]."""
    return (rgb * 255).round().to(torch.uint8)


# Packed files


@dataclass(frozen=True, slots=True)
class Mosaic:
    """A mosaic of a packed file: what messages call it, its image file (WebP) and its pictures' labels."""

    name: str
    image: bytes
    labels: bytes


def _read_packed(files: Sequence[Path], side: int) -> tuple[LabelledPictures, LabelledPictures]:
    """The pictures of the files, and those of the validation files."""
    validation = [path for path in files if path.name.endswith("val.nstw")]
    training = [path for path in files if path not in validation]
    return _unpack(training, side), _unpack(validation, side)


def _unpack(files: Sequence[Path], side: int) -> LabelledPictures:
    mosaics = [mosaic for path in files for mosaic in read_mosaics(path)]
    pixels = _decode_all(mosaics, lambda mosaic: _cut(mosaic, side), PACKED, side)
    labels = np.frombuffer(b"".join(mosaic.labels for mosaic in mosaics), np.uint8)
    return LabelledPictures(pixels, torch.from_numpy(labels.astype(np.int64)))


def read_mosaics(path: Path) -> list[Mosaic]:
    """The mosaics of a packed file, not yet decoded. Raises InputError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", remedy="check its permissions"
        ) from error
    if not data.startswith(MAGIC):
        raise InputError(
            f"{path} is not a packed file: it does not begin with {MAGIC.decode()}",
            remedy="copy it again, or remove it",
        )
    mosaics: list[Mosaic] = []
    try:
        (count,), at = _NUMBER.unpack_from(data, len(MAGIC)), len(MAGIC) + _NUMBER.size
        for number in range(1, count + 1):
            start = at + _NUMBER.size + PACKED
            end = start + _NUMBER.unpack_from(data, at)[0]
            if end > len(data):
                raise struct.error
            name = f"mosaic {number} of {count} in {path}"
            mosaics.append(Mosaic(name, data[start:end], data[start - PACKED : start]))
            at = end
    except struct.error as error:
        raise InputError(
            f"{path} is truncated after {len(mosaics)} mosaics", remedy="copy the whole file again"
        ) from error
    if at != len(data):
        raise InputError(
            f"{path} is damaged: {len(data) - at} bytes follow its last mosaic",
            remedy="copy the file again",
        )
    return mosaics


def _cut(mosaic: Mosaic, side: int) -> Tensor:
    """(100, 3, S, S) uint8: the pictures of a mosaic. Raises InputError."""
    rgb = load_picture(io.BytesIO(mosaic.image), name=mosaic.name).rgb
    _, height, width = rgb.shape
    if height != width or width % GRID:
        raise InputError(
            f"{mosaic.name} is {width} × {height} pixels, which is not {GRID} × {GRID} square pictures",
            remedy="pack the pictures again",
        )
    own = width // GRID
    cells = rgb.view(3, GRID, own, GRID, own).permute(1, 3, 0, 2, 4)
    return _bytes(resize(cells.reshape(PACKED, 3, own, own), (side, side)))
