"""Two classes of drawn pictures: stripes that run across, and stripes that run down."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("across", "down")


def draw(label: int, seed: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """(H, W, 3): stripes of two random colours; `label` 0 runs across, 1 down."""
    random = np.random.default_rng(seed)
    colors = random.integers(0, 256, (2, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    stripes = (((columns if label else rows) + int(random.integers(8))) // 4) % 2
    return colors[stripes]


def write_classes(folder: Path, count: int = 6, *, seed: int = 0) -> Path:
    """A folder for each class, with pictures of several sizes and formats."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            array = draw(label, seed + 2 * i + label, 32 + 3 * (i % 8), 40 - i % 8)
            suffix = ("png", "jpg", "webp")[i % 3]
            Image.fromarray(array).save(folder / name / f"{i}.{suffix}")
    return folder


def mosaic(labels: Sequence[int], side: int = 32, *, seed: int = 0) -> bytes:
    """The entry of a mosaic in a packed file, with 100 pictures of these classes."""
    grid = np.zeros((10 * side, 10 * side, 3), np.uint8)
    for i, label in enumerate(labels):
        top, left = i // 10 * side, i % 10 * side
        grid[top : top + side, left : left + side] = draw(label, seed + i, side, side)
    file = io.BytesIO()
    Image.fromarray(grid).save(file, "WEBP", lossless=True)
    return struct.pack("<I", len(file.getvalue())) + bytes(labels) + file.getvalue()


def write_packed(path: Path, mosaics: Sequence[bytes]) -> Path:
    """A packed file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"NSTW" + struct.pack("<I", len(mosaics)) + b"".join(mosaics))
    return path
