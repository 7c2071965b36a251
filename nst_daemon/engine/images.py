"""Pillow ↔ tensors: image files of many kinds in, sRGB out.

`load_picture` decodes a file (`pictures.decode`) and replaces colours hidden by transparency.
`encoded` makes the bytes of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nst_daemon.errors import PictureError, SettingsError
from nst_daemon.pictures.decode import (
    DEFAULT_LIMITS,
    DecodedFile,
    PictureLimits,
    Source,
    decode_file,
    decode_stored,
    label_of,
    reading,
)
from nst_daemon.pictures.encode import encode_picture
from nst_daemon.pictures.in_memory import stored_array, stored_image
from nst_daemon.pictures.output_formats import depth_problem, formats_with, output_format
from nst_daemon.pictures.raster import Array, Size

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
        return _picture(decoded)


def _picture(decoded: DecodedFile) -> Picture:
    rgb, alpha = _tensor_of(decoded.colours), None
    if decoded.alpha is not None:
        alpha = _tensor_of(decoded.alpha)
        rgb = solid(rgb, alpha)
    return Picture(rgb, alpha, decoded.metadata, decoded.notes, decoded.file_size)


def from_image(image: Image.Image, label: str = "the image") -> Picture:
    """A `Picture` of a Pillow image (`pictures.in_memory`). Raises PictureError."""
    return _picture(decode_stored(stored_image(image, label), label))


def from_array(array: Array, label: str = "the array") -> Picture:
    """A `Picture` of an array (H, W) or (H, W, C) (`pictures.in_memory`). Raises PictureError."""
    return _picture(decode_stored(stored_array(array, label), label))


def from_tensor(tensor: Tensor, label: str = "the tensor") -> Picture:
    """A `Picture` of a tensor (C, H, W) or (1, C, H, W), with values as in `from_array`. Raises PictureError."""
    values = tensor.detach().cpu()
    values = values.float() if values.dtype == torch.bfloat16 else values
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim != 3 or values.shape[0] > 4:
        shape = " × ".join(map(str, tensor.shape))
        raise PictureError(
            f"{label} has the shape {shape}; channels × height × width is needed, with 1 to 4 channels",
            remedy="use tensor.permute(2, 0, 1), or give tensor.numpy()",
        )
    return from_array(values.permute(1, 2, 0).numpy(), label)


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


def encoded(
    picture: Picture, *, format: str, quality: int, depth: int, about: str = ""
) -> bytes | memoryview:
    """The file of a picture, with its metadata and an sRGB profile; the same input gives the same bytes.

    Args:
        picture: A format that has no transparency (JPEG) shows white instead.
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
    return encode_picture(pixels, format, quality=quality, metadata=picture.metadata, about=about)


def _tensor_of(values: Array) -> Tensor:
    """(C, H, W) of float32 (H, W, C)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
