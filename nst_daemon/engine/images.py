"""Pillow ↔ tensors: pictures in, sRGB out.

`load_picture` is a short chain: open (only the parsers allowed, limits before any decoding), decode, turn upright, then
to sRGB with its transparency apart. `save_picture` is the way back.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from nst_daemon.errors import PictureError

#: Pillow's parsers that may touch a dropped file; `Image.open` would otherwise choose any of its forty by magic bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")

#: What the result takes over from the content. Places and thumbnails stay behind.
CARRIED = {
    "datetime": ExifTags.Base.DateTime,
    "artist": ExifTags.Base.Artist,
    "copyright": ExifTags.Base.Copyright,
}
_TAKEN = "datetime_original"  # lives in EXIF's sub-directory

#: The keyword of PNG's iTXt chunk that says how the picture was made; the others have it in EXIF's UserComment.
ABOUT = "nst-daemon"
#: EXIF 2.32, 4.6.5: a UserComment begins with the name of its character code.
ASCII = b"ASCII\0\0\0"

_SAVERS = {"png": "PNG", "jpeg": "JPEG", "jpg": "JPEG", "webp": "WEBP", "tiff": "TIFF"}


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    rgb: (3, H, W) float32 in [0, 1], sRGB; alpha: (1, H, W) in [0, 1] or None; metadata: what is carried over to the
    result, by the names of `CARRIED` and `datetime_original`; notes: what was converted, for the sidecar.
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
    """Decode a file by its path, or by an open descriptor (which stays open, wherever its offset is left).

    max_pixels, max_side: limits that are checked before anything is decoded; name: what people call the file, for
    messages. Raises PictureError where it is empty, no picture of `formats`, beyond a limit, damaged or truncated.
    """
    label = name or (f"descriptor {source}" if isinstance(source, int) else os.fspath(source))
    try:
        with _opened(source) as file, _pillow_limit(max_pixels):
            if os.fstat(file.fileno()).st_size == 0:
                raise PictureError(f"{label} is empty", remedy="drop the file again")
            image = _identify(file, formats, label)
            _check_limits(image, max_pixels, max_side, label)
            _decode(image, label)
            return _as_picture(image, label)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise PictureError(
            f"{label} cannot be read: {error.strerror}",
            remedy="check that the file is there and its rights",
        ) from error


def from_image(image: Image.Image) -> Picture:
    """A drawing that is in memory as the engine takes pictures; it is taken as sRGB."""
    return Picture(_tensor_of(image.convert("RGB")), _alpha_of(image))


def to_image(image: Tensor) -> Image.Image:
    """An 8-bit RGB or RGBA picture of (C, H, W) or (1, C, H, W) in [0, 1]."""
    pixels = image.detach().reshape(-1, *image.shape[-2:]).clamp(0, 1) * 255
    return Image.fromarray(pixels.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) or (C, H, W) in [0, 1] resampled to (height, width): bicubic, antialiased where it shrinks."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image if image.ndim == 4 else image[None]
    out = F.interpolate(batch, size=size, mode="bicubic", antialias=True, align_corners=False)
    return out.clamp(0, 1).reshape(*image.shape[:-2], *size)


def save_picture(
    image: Tensor,
    path: str | os.PathLike[str],
    *,
    format: str = "png",
    quality: int = 92,
    alpha: Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
    about: str = "",
) -> None:
    """Write (3, H, W) or (1, 3, H, W) in [0, 1] with sRGB's profile embedded; the same input gives the same bytes.

    format: png, jpeg, webp or tiff; quality: 1 to 100, of JPEG and WebP; alpha: (1, H, W) (JPEG, which has none, shows
    white instead); metadata: as in `Picture`; about: ASCII that says how the picture was made (`report.sidecar.embed`).
    """
    kind = _SAVERS[format.lower()]
    pixels = image.detach().reshape(3, *image.shape[-2:])
    if alpha is not None and kind == "JPEG":
        pixels = pixels * alpha.to(pixels) + (1 - alpha.to(pixels))
    elif alpha is not None:
        pixels = torch.cat([pixels, alpha.to(pixels)])
    exif = _exif_of(metadata or {}, "" if kind == "PNG" else about)
    options: dict[str, object] = {"icc_profile": srgb_profile(), "exif": exif}
    if kind == "PNG" and about:
        options["pnginfo"] = chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt(ABOUT, about)
    if kind in ("JPEG", "WEBP"):
        options["quality"] = quality
    if kind == "JPEG":
        options["subsampling"] = 0  # strokes are colour edges: halved chroma smears them
    # TIFF stays uncompressed: libtiff, which would compress, cannot write the EXIF directory from Pillow.
    to_image(pixels).save(Path(path), format=kind, **options)


@cache
def srgb_profile() -> bytes:
    """An sRGB profile with a fixed date: littlecms writes the current one, and equal pictures shall be equal bytes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # ICC.1:2022, 7.2.8
    return bytes(profile)


def _opened(source: str | os.PathLike[str] | int) -> IO[bytes]:
    if isinstance(source, int):
        file = os.fdopen(os.dup(source), "rb")
        file.seek(0)
        return file
    return Path(source).open("rb")


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Pillow only warns at its own limit and raises at twice as much: let it raise at ours."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _identify(file: IO[bytes], formats: Sequence[str], label: str) -> Image.Image:
    try:
        return Image.open(file, formats=tuple(formats))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{label} has too many pixels", remedy="reduce it, or raise limits.max_pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{label} is no picture that can be read here", remedy=f"known are {', '.join(formats)}"
        ) from error
    except Exception as error:  # Pillow's parsers raise whatever the damage leads them to
        raise _damaged(label, error) from error


def _check_limits(image: Image.Image, max_pixels: int, max_side: int, label: str) -> None:
    width, height = image.size
    if width * height > max_pixels or max(image.size) > max_side:
        raise PictureError(
            f"{label} is {width} × {height} pixels; the limits are {max_pixels} in all and {max_side} a side",
            remedy="reduce it, or raise limits.max_pixels and limits.max_side",
        )


def _decode(image: Image.Image, label: str) -> None:
    try:
        image.load()
    except Exception as error:  # as above
        raise _damaged(label, error) from error


def _damaged(label: str, error: Exception) -> PictureError:
    return PictureError(f"{label} is damaged or truncated: {error}", remedy="drop it again, whole")


def _as_picture(image: Image.Image, label: str) -> Picture:
    metadata = _metadata_of(image)
    notes = []
    if (frames := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"the first of {frames} frames was taken")
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    alpha = _alpha_of(image)
    if image.mode.startswith(("I", "F")):
        rgb = _from_deep_grey(image, label)
    else:
        upright, note = _to_srgb(image, profile, label)
        notes += note
        rgb = _tensor_of(upright)
    return Picture(rgb, alpha, metadata, tuple(notes))


def _alpha_of(image: Image.Image) -> Tensor | None:
    """(1, H, W) in [0, 1]; None where the picture is opaque."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    alpha = _tensor_of(image.convert("RGBA").getchannel("A"))
    return None if bool((alpha == 1).all()) else alpha


def _to_srgb(
    image: Image.Image, profile: bytes | None, label: str
) -> tuple[Image.Image, list[str]]:
    """RGB in sRGB, and what was done about a profile."""
    direct = image.mode in ("L", "RGB", "CMYK", "LAB")
    if not direct:
        target = "L" if image.mode in ("1", "LA", "La") else "RGB"
        image = (
            image.convert("RGBA").convert(target) if image.mode == "PA" else image.convert(target)
        )
    if profile is None:
        return image.convert("RGB"), []
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        if "srgb" in name.lower():
            return image.convert("RGB"), []
        target_profile = ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))
        converted = ImageCms.profileToProfile(image, source, target_profile, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise PictureError(
            f"{label} has a colour profile that cannot be read: {error}",
            remedy="save it without the profile, or in sRGB",
        ) from error
    assert converted is not None
    return converted, [f"colours were converted to sRGB from {name}"]


def _from_deep_grey(image: Image.Image, label: str) -> Tensor:
    """(3, H, W) from 16-bit, 32-bit or floating-point grey; what exceeds 1 in floating point is cut."""
    values = np.asarray(image, dtype=np.float32)
    if not np.isfinite(values).all():
        raise PictureError(
            f"{label} has pixels that are no numbers", remedy="save it as 8 or 16 bit"
        )
    top = 1.0 if image.mode.startswith("F") else 65535.0
    return torch.from_numpy(values / top).clamp(0, 1).expand(3, -1, -1).contiguous()


def _tensor_of(image: Image.Image) -> Tensor:
    """(C, H, W) in [0, 1] from 8 bits a channel."""
    array = np.array(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    return torch.from_numpy(array).permute(2, 0, 1).float().div(255).contiguous()


def _metadata_of(image: Image.Image) -> dict[str, str]:
    try:
        exif = image.getexif()
        found = {name: exif.get(tag) for name, tag in CARRIED.items()}
        found[_TAKEN] = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
    except Exception:  # noqa: BLE001 (EXIF is a courtesy: damage in it is no reason to refuse the picture)
        return {}
    return {name: _readable(value) for name, value in found.items() if isinstance(value, str)}


def _readable(value: str) -> str:
    """EXIF says ASCII, cameras and people write UTF-8, and Pillow reads Latin-1."""
    raw = value.strip("\0 ").encode("latin-1", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _exif_of(metadata: Mapping[str, str], about: str) -> Image.Exif:
    exif = Image.Exif()
    for name, tag in CARRIED.items():
        if name in metadata:
            exif[tag] = metadata[
                name
            ].encode()  # bytes pass as they are; text would lose its accents
    sub = cast("dict[int, str | bytes]", exif.get_ifd(ExifTags.IFD.Exif))
    if _TAKEN in metadata:
        sub[ExifTags.Base.DateTimeOriginal] = metadata[_TAKEN]
    if about:
        sub[ExifTags.Base.UserComment] = ASCII + about.encode("ascii")
    if sub:
        exif[ExifTags.IFD.Exif] = sub  # Pillow's TIFF writer overlooks it otherwise
    return exif
