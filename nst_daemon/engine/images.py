"""Pillow ↔ tensors: image files of many kinds in, sRGB out.

`load_picture` decodes a file (`pictures.decode`) and replaces colours hidden by transparency.
`save_picture` writes one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nst_daemon.errors import SettingsError
from nst_daemon.pictures.decode import (
    DEFAULT_LIMITS,
    PictureLimits,
    Source,
    decode_file,
    label_of,
    reading,
)
from nst_daemon.pictures.encode import encode_picture
from nst_daemon.pictures.icc import plain
from nst_daemon.pictures.output_formats import depth_problem, formats_with, output_format
from nst_daemon.pictures.raster import Array, Size, scaled

#: Colours less opaque than this are blended with their neighbours'. If a file was once premultiplied with 8 bits, a
#: colour of opacity a has an error of up to 1/(510 a): 1/32 at 1/16, and everything at 1/255.
_RELIABLE_OPACITY = 1 / 16


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        rgb: (3, H, W) float32 in [0, 1], sRGB, not premultiplied; where alpha is 0, the colours of the visible
            surroundings (`solid`).
        alpha: (1, H, W) in [0, 1], or None.
        metadata: What the result takes over, by the names of `CARRIED` and `datetime_original`.
        notes: What was converted, one line each, with the name of the file.
        file_size: Of the file's picture, upright, if it was reduced while it was decoded.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    file_size: Size | None = None

    @property
    def size(self) -> Size:
        """Height and width of the whole picture, whether or not it was reduced while it was decoded."""
        return self.file_size or size_of(self.rgb)


def load_picture(
    source: Source,
    limits: PictureLimits = DEFAULT_LIMITS,
    *,
    name: str | None = None,
    used: Callable[[Size], float] | None = None,
    exact: bool = False,
) -> Picture:
    """Decode an image file; arguments and errors are those of `pictures.decode.decode_file`."""
    decoded = decode_file(source, limits, name=name, used=used, exact=exact)
    with reading(name or label_of(source)):
        rgb, alpha = _tensor_of(decoded.colours), None
        if decoded.alpha is not None:
            alpha = _tensor_of(decoded.alpha)
            rgb = solid(rgb, alpha)
        return Picture(rgb, alpha, decoded.metadata, decoded.notes, decoded.file_size)


def from_image(image: Image.Image) -> Picture:
    """A `Picture` of an image in memory, which is taken as sRGB."""
    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = _tensor_of(scaled(np.array(rgba.getchannel("A"))[..., None]))
        image = rgba.convert("RGB")
    space = image.mode if image.mode in ("CMYK", "LAB") else "RGB"
    rgb = _tensor_of(plain(np.array(image.convert(space)), space))
    return Picture(rgb if alpha is None else solid(rgb, alpha), alpha)


def to_image(image: Tensor) -> Image.Image:
    """An 8-bit RGB or RGBA image of (C, H, W) or (1, C, H, W) in [0, 1]."""
    return Image.fromarray(_whole(image, 255).to(torch.uint8).numpy())


def _whole(image: Tensor, top: int) -> Tensor:
    """Integers (H, W, C) from 0 to `top`, on the CPU, of (C, H, W) or (1, C, H, W) in [0, 1]."""
    pixels = image.detach().reshape(-1, *image.shape[-2:]).clamp(0, 1) * top
    return pixels.round().permute(1, 2, 0).cpu()


def size_of(image: Tensor) -> Size:
    """Height and width of (…, H, W)."""
    return int(image.shape[-2]), int(image.shape[-1])


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) or (C, H, W) in [0, 1] resampled to a size: bicubic, antialiased when it shrinks."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image if image.ndim == 4 else image[None]
    out = F.interpolate(batch, size=size, mode="bicubic", antialias=True, align_corners=False)
    return out.clamp(0, 1).reshape(*image.shape[:-2], *size)


def solid(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Replace colours that transparency hides by those of the visible surroundings.

    The colour under alpha 0 is arbitrary, usually black; resizing and the network would let it bleed into the edge.
    Pull-push (Gortler et al. 1996, The Lumigraph, §3.5): coarser and coarser averages of the visible colours fill the
    gaps of finer ones. Colours with an alpha of 1/16 or more are unchanged.

    Args:
        rgb: (3, H, W).
        alpha: (1, H, W).

    Returns:
        (3, H, W).
    """
    weight = (alpha / _RELIABLE_OPACITY).clamp(max=1).square()
    return _pull_push((rgb * weight)[None], weight[None])[0].clamp(0, 1)


def _pull_push(premultiplied: Tensor, weight: Tensor) -> Tensor:
    """(1, 3, h, w): `premultiplied` (1, 3, h, w) where `weight` (1, 1, h, w) is 1, the coarser level where it is 0."""
    h, w = weight.shape[-2:]
    if h * w == 1:
        return premultiplied / weight.clamp_min(1e-8)
    quarter, covered = (
        F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (premultiplied, weight)
    )
    saturated = (4 * covered).clamp(max=1)
    coarse = _pull_push(quarter / covered.clamp_min(1e-8) * saturated, saturated)
    beneath = F.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False)
    return premultiplied + (1 - weight) * beneath


def save_picture(
    picture: Picture,
    path: str | os.PathLike[str],
    *,
    format: str,
    quality: int,
    depth: int,
    about: str = "",
) -> None:
    """Write a picture with its metadata and an embedded sRGB profile; the same input gives the same bytes.

    Args:
        picture: A format that has no transparency (JPEG) shows white instead.
        path: The file.
        format: A name of `pictures.output_formats`.
        quality: 1 to 100, where it applies.
        depth: Bits per channel.
        about: The picture's essentials, in ASCII (`report.sidecar.embed`).

    Raises:
        SettingsError: The format does not support the depth.
    """
    if problem := depth_problem(format, depth):
        raise SettingsError(problem, remedy=f"choose {formats_with(depth)}, or another depth")
    rgb, alpha = picture.rgb.detach(), picture.alpha
    if alpha is not None and output_format(format).alpha:
        rgb = torch.cat([rgb, alpha.to(rgb)])
    elif alpha is not None:
        rgb = rgb * alpha.to(rgb) + (1 - alpha.to(rgb))
    whole = np.uint8 if depth == 8 else np.uint16
    pixels = _whole(rgb, np.iinfo(whole).max).numpy().astype(whole, order="C")
    data = encode_picture(pixels, format, quality=quality, metadata=picture.metadata, about=about)
    file = Path(path)
    with file.open("wb") as out:
        try:
            out.write(data)
            out.flush()
        except OSError:
            if file.is_file():  # no half of a picture
                file.unlink()
            raise


def _tensor_of(values: Array) -> Tensor:
    """(C, H, W) of float32 (H, W, C)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
