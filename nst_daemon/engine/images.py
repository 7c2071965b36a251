"""Pillow ↔ tensors: pictures in, sRGB out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

#: Pillow's parsers that may touch a dropped file; `Image.open` would otherwise choose any of its forty by magic bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    rgb: (3, H, W) float32 in [0, 1], sRGB; alpha: (1, H, W) in [0, 1] or None; metadata: what is carried over to the
    result (`datetime`, `copyright`, `artist`), never a place; notes: what was converted, for the sidecar.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_picture(
    source: str | os.PathLike[str] | int,
    *,
    max_pixels: int = 200_000_000,
    max_side: int = 32_768,
    formats: Sequence[str] = FORMATS,
    name: str | None = None,
) -> Picture:
    """Decode a path or an open descriptor. Raises PictureError."""
    raise NotImplementedError


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) or (B, C, H, W) resampled to (height, width), antialiased, in [0, 1]."""
    raise NotImplementedError


def save_picture(
    image: Tensor,
    path: Path,
    *,
    format: str = "PNG",
    quality: int = 92,
    alpha: Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write (3, H, W) or (1, 3, H, W) in [0, 1] as sRGB."""
    raise NotImplementedError
