"""Pillow ↔ tensors: image files of many kinds in, sRGB out.

`load_picture` opens a file (only allowed parsers, limits before decoding), decodes it with all its bits
(`high_bit_depth`), turns it upright, converts it to sRGB (`icc`) and replaces colours hidden by transparency.
`save_picture` writes one.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import IO, cast

import numpy as np
import pillow_heif
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from nst_daemon.engine import decoding, high_bit_depth
from nst_daemon.engine.icc import Array, Raster, plain, scaled, srgb_profile, to_srgb
from nst_daemon.errors import (
    DamagedPicture,
    NstError,
    PictureError,
    SettingsError,
    first_line,
)
from nst_daemon.files import copied
from nst_daemon.machine import lacks_memory

Size = tuple[int, int]  # (height, width) in pixels

#: Pillow's parsers that may read a file; otherwise `Image.open` would choose any of its forty by magic bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "BMP", "GIF")

#: Metadata that the result takes over from the content; locations and thumbnails are dropped.
CARRIED = {
    "datetime": ExifTags.Base.DateTime,
    "artist": ExifTags.Base.Artist,
    "copyright": ExifTags.Base.Copyright,
}
_TAKEN = "datetime_original"  # in EXIF's sub-directory

#: The keyword of PNG's iTXt chunk with the picture's essentials; other formats have them in EXIF's UserComment.
ABOUT = "nst-daemon"
#: EXIF 2.32, 4.6.5: a UserComment begins with the name of its character code.
ASCII = b"ASCII\0\0\0"

_SAVERS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tiff": "TIFF"}

#: EXIF 2.32, 4.6.4, Orientation → the function that turns an array (H, W, …) upright.
_UPRIGHT: Mapping[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}

#: The orientations that exchange width and height.
_TURNED = (5, 6, 7, 8)

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
        notes: What was converted, one line each.
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
    source: str | os.PathLike[str] | int,
    *,
    max_pixels: int,
    max_side: int,
    max_bytes: int | None = None,
    formats: Sequence[str] = FORMATS,
    name: str | None = None,
    used: Callable[[Size], float] | None = None,
) -> Picture:
    """Decode an image file.

    Args:
        source: A path, or an open descriptor, which stays open with its offset undefined. A pipe is read to its end.
        max_pixels: Limit of width × height, checked before decoding.
        max_side: Limit of each side in pixels, checked before decoding.
        max_bytes: Limit of what is read from a pipe; None for no limit.
        formats: Pillow's parsers to try.
        name: What messages call the file.
        used: The longer side in pixels at which a picture of this size is used: a much larger one is reduced while it
            is decoded (`decoding`).

    Raises:
        PictureError: The file cannot be read, is empty, not an image of `formats`, too large, damaged, truncated,
            fully transparent, or has an unreadable colour profile.
        OutOfMemory: Memory is short.
    """
    label = name or (f"descriptor {source}" if isinstance(source, int) else os.fspath(source))
    try:
        with _opened(source, max_bytes, label) as file, _pillow_limit(max_pixels):
            if os.fstat(file.fileno()).st_size == 0:
                raise PictureError(f"{label} is empty", remedy="copy the file again")
            image = _identify(file, formats, label)
            _check_limits(image, max_pixels, max_side, label)
            size = image.height, image.width
            raster, reduced = _decode(image, file, label, used)
            return _as_picture(image, raster, label, size if reduced else None)
    except OSError as error:
        raise PictureError(
            f"{label} cannot be read: {error.strerror or error}",
            remedy="check that the file exists and its permissions",
        ) from error
    except Exception as error:
        if not lacks_memory(error) or isinstance(error, NstError):
            raise
        raise decoding.out_of_memory(label) from error


def from_image(image: Image.Image) -> Picture:
    """A `Picture` of an image in memory, which is taken as sRGB."""
    raster = _shallow_raster(image)
    rgb = _tensor_of(plain(raster.colours, raster.space))
    alpha = None if raster.alpha is None else _tensor_of(scaled(raster.alpha))
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
        picture: JPEG, which has no transparency, shows white instead.
        path: The file.
        format: png, jpg, webp or tiff.
        quality: 1 to 100, of JPEG and WebP.
        depth: Bits per channel: 8, or 16 for PNG and TIFF.
        about: The picture's essentials, in ASCII (`report.sidecar.embed`).

    Raises:
        SettingsError: The format does not support the depth.
    """
    kind = _SAVERS[format]
    if depth == 16 and kind not in ("PNG", "TIFF"):
        raise SettingsError(
            f"{format} has 8 bits per channel, not 16", remedy="choose png or tiff, or a depth of 8"
        )
    pixels, alpha = picture.rgb.detach(), picture.alpha
    if alpha is not None and kind == "JPEG":
        pixels = pixels * alpha.to(pixels) + (1 - alpha.to(pixels))
    elif alpha is not None:
        pixels = torch.cat([pixels, alpha.to(pixels)])
    exif = _exif_of(picture.metadata, "" if kind == "PNG" else about)
    text = PngImagePlugin.PngInfo()
    if about:
        text.add_itxt(ABOUT, about)
    if depth == 16:
        deeply = _whole(pixels, 65535).numpy().astype(np.uint16, order="C")
        data = (
            high_bit_depth.encode_png(deeply, srgb_profile(), exif, text)
            if kind == "PNG"
            else high_bit_depth.encode_tiff(deeply, srgb_profile(), exif)
        )
        Path(path).write_bytes(data)
        return
    options: dict[str, object] = {"icc_profile": srgb_profile(), "exif": exif}
    if kind == "PNG":
        options["pnginfo"] = text
    if kind in ("JPEG", "WEBP"):
        options["quality"] = quality
    if kind == "JPEG":
        options["subsampling"] = 0  # subsampled chroma would blur the colour edges of strokes
    # TIFF is written uncompressed: through libtiff, which compresses, Pillow cannot write the EXIF directory.
    to_image(pixels).save(Path(path), format=kind, **options)


def _opened(source: str | os.PathLike[str] | int, max_bytes: int | None, label: str) -> IO[bytes]:
    descriptor = os.dup(source) if isinstance(source, int) else os.open(source, os.O_RDONLY)
    file = os.fdopen(descriptor, "rb")  # raises IsADirectoryError for a folder
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.seek(0)
        return file
    with file:
        return copied(file, max_bytes, label)


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow raise at our limit; by itself it warns at its own limit and raises at twice as much."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@cache
def _know_heif() -> None:
    """Register Pillow's HEIC parser, once, for the main image only."""
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def _identify(file: IO[bytes], formats: Sequence[str], label: str) -> Image.Image:
    _know_heif()
    try:
        return Image.open(file, formats=tuple(formats))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{label} has too many pixels", remedy="reduce it, or raise limits.max_pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{label} is not an image file of a known format",
            remedy=f"known formats are {', '.join(formats)}",
        ) from error
    except Exception as error:  # Pillow's parsers raise any exception for damaged files
        raise _failed(label, error) from error


def _check_limits(image: Image.Image, max_pixels: int, max_side: int, label: str) -> None:
    width, height = image.size
    if width * height > max_pixels or max(image.size) > max_side:
        raise PictureError(
            f"{label} is {width} × {height} pixels; the limits are {max_pixels} pixels and {max_side} per side",
            remedy="reduce it, or raise limits.max_pixels and limits.max_side",
        )


def _decode(
    image: Image.Image, file: IO[bytes], label: str, used: Callable[[Size], float] | None
) -> tuple[Raster, bool]:
    """The decoded file, and whether it is reduced."""
    try:
        bits = high_bit_depth.bits_of(image, file)
        pixels, reduced, box = image.width * image.height, None, None
        if used and image.mode != "LAB":
            reduced = decoding.reduced_size(image.size, used((image.height, image.width)))
        if reduced and bits <= 8:
            box = decoding.draft(image, reduced)
        decoding.require_memory(decoding.peak_bytes(image, pixels, bits, reduced), label)
        if bits > 8 and (raster := high_bit_depth.read(image, file)):
            return (decoding.reduced_raster(raster, reduced) if reduced else raster), bool(reduced)
        image.load()
        lost = (f"its {bits} bits per channel were reduced to 8",) if bits > 8 else ()
        return replace(_reduced(image, reduced, box), notes=lost), bool(reduced)
    except Exception as error:  # the parsers raise any exception for damaged files
        raise _failed(label, error) from error


def _reduced(
    image: Image.Image,
    size: tuple[int, int] | None,
    box: tuple[float, float, float, float] | None,
) -> Raster:
    """The raster of a decoded image, resampled to (width, height) if there is such a size."""
    if size is None:
        return _shallow_raster(image)
    if decoding.has_alpha(image):
        return decoding.reduced_raster(_shallow_raster(image), size)
    return _shallow_raster(decoding.reduced_image(image, size, box))


def _shallow_raster(image: Image.Image) -> Raster:
    """The raster with 8 bits per channel, as Pillow has decoded it."""
    alpha = None
    if decoding.has_alpha(image):
        rgba = image.convert("RGBA")
        alpha = np.array(rgba.getchannel("A"))[..., None]
        image = image.convert("L") if image.mode in ("1", "L", "LA") else rgba.convert("RGB")
    mode = {"1": "L", "L": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(image.mode, "RGB")
    array = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
    return Raster(array, "GRAY" if mode == "L" else mode, alpha)


def _failed(label: str, error: Exception) -> NstError:
    """What an error of the parsers means: a lack of memory is not called damage."""
    if isinstance(error, NstError):
        return error
    if lacks_memory(error):
        return decoding.out_of_memory(label)
    return DamagedPicture(
        f"{label} is damaged or truncated: {first_line(error)}",
        remedy="copy the complete file again",
    )


def _as_picture(image: Image.Image, raster: Raster, label: str, file_size: Size | None) -> Picture:
    """The picture, upright and in sRGB. file_size: of the file as it is stored, if the raster is reduced."""
    notes = list(raster.notes)
    if (frames := _frames(image)) != 1:
        notes.append(f"only the first of {frames or 'several'} frames was used")
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    upright = _UPRIGHT.get(orientation, _UPRIGHT[1])
    if file_size and orientation in _TURNED:
        file_size = file_size[::-1]
    colours, note = to_srgb(raster, image.info.get("icc_profile"), label)
    rgb, alpha = _tensor_of(upright(colours)), None
    if raster.alpha is not None:
        alpha = _tensor_of(upright(scaled(raster.alpha)))
        if not alpha.any():
            raise PictureError(
                f"{label} is fully transparent", remedy="use a picture with visible pixels"
            )
        alpha = None if bool((alpha == 1).all()) else alpha
    if alpha is not None:
        rgb = solid(rgb, alpha)
    return Picture(rgb, alpha, _metadata_of(image), (*notes, *note), file_size)


def _tensor_of(values: Array) -> Tensor:
    """(C, H, W) of float32 (H, W, C)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def _frames(image: Image.Image) -> int:
    """The number of frames or pages; 0 if the file is damaged after the first one, which is not used."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 (the parsers raise any exception for damaged files)
        return 0


def _metadata_of(image: Image.Image) -> dict[str, str]:
    try:
        exif = image.getexif()
        found = {name: exif.get(tag) for name, tag in CARRIED.items()}
        found[_TAKEN] = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
    except Exception:  # noqa: BLE001 (damaged EXIF is no reason to refuse the picture)
        return {}
    return {name: _readable(value) for name, value in found.items() if isinstance(value, str)}


def _readable(value: str) -> str:
    """Decode text that EXIF specifies as ASCII, programs write as UTF-8 and Pillow reads as Latin-1."""
    raw = value.strip("\0 ").encode("latin-1", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _exif_of(metadata: Mapping[str, str], about: str) -> Image.Exif:
    exif = Image.Exif()
    for name, tag in CARRIED.items():
        if name in metadata:
            exif[tag] = metadata[name].encode()  # Pillow would replace non-ASCII characters of text
    sub = cast("dict[int, str | bytes]", exif.get_ifd(ExifTags.IFD.Exif))
    if _TAKEN in metadata:
        sub[ExifTags.Base.DateTimeOriginal] = metadata[_TAKEN]
    if about:
        sub[ExifTags.Base.UserComment] = ASCII + about.encode("ascii")
    if sub:
        exif[ExifTags.IFD.Exif] = sub  # Pillow's TIFF writer overlooks it otherwise
    return exif
