"""Pillow ↔ tensors: pictures in, sRGB out.

`load_picture` is a short chain: open (only the parsers allowed, limits before any decoding), decode with all its bits
(`deep`), turn upright, then to sRGB, and the colours that transparency hides replaced. `save_picture` is the way back.
"""

from __future__ import annotations

import os
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

from nst_daemon.engine import high_bit_depth
from nst_daemon.engine.icc import Array, Raster, plain, scaled, srgb_profile, to_srgb
from nst_daemon.errors import PictureError, SettingsError

Size = tuple[int, int]  # (height, width) in pixels

#: Pillow's parsers that may touch a dropped file; `Image.open` would otherwise choose any of its forty by magic bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "BMP", "GIF")

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

#: EXIF 2.32, 4.6.4, Orientation: what turns the rows and columns of an array (H, W, …) upright.
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

#: Colours less opaque than this count less than their neighbours'. A file that was once premultiplied, with 8 bits,
#: holds a colour of opacity a to within 1/(510 a): at 1/16 that is 1/32, and at 1/255 nothing at all.
_TELLING = 1 / 16


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    rgb: (3, H, W) float32 in [0, 1], sRGB, not premultiplied, and where alpha is 0 the colours of the visible
    surroundings (`solid`); alpha: (1, H, W) in [0, 1] or None; metadata: what is carried over to the result, by the
    names of `CARRIED` and `datetime_original`; notes: what was converted, for the sidecar.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_picture(
    source: str | os.PathLike[str] | int,
    *,
    max_pixels: int,
    max_side: int,
    formats: Sequence[str] = FORMATS,
    name: str | None = None,
) -> Picture:
    """Decode a file by its path, or by an open descriptor (which stays open, wherever its offset is left).

    max_pixels, max_side: limits that are checked before anything is decoded; name: what people call the file, for
    messages. Raises PictureError where it is empty, no picture of `formats`, beyond a limit, damaged, truncated,
    invisible, or has a colour profile that cannot be read.
    """
    label = name or (f"descriptor {source}" if isinstance(source, int) else os.fspath(source))
    try:
        with _opened(source) as file, _pillow_limit(max_pixels):
            if os.fstat(file.fileno()).st_size == 0:
                raise PictureError(f"{label} is empty", remedy="drop the file again")
            image = _identify(file, formats, label)
            _check_limits(image, max_pixels, max_side, label)
            return _as_picture(image, _decode(image, file, label), label)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise PictureError(
            f"{label} cannot be read: {error.strerror}",
            remedy="check that the file is there and its rights",
        ) from error


def from_image(image: Image.Image) -> Picture:
    """A drawing that is in memory as the engine takes pictures; it is taken as sRGB."""
    raster = _shallow_raster(image)
    rgb = _tensor_of(plain(raster.colours, raster.space))
    alpha = None if raster.alpha is None else _tensor_of(scaled(raster.alpha))
    return Picture(rgb if alpha is None else solid(rgb, alpha), alpha)


def to_image(image: Tensor) -> Image.Image:
    """An 8-bit RGB or RGBA picture of (C, H, W) or (1, C, H, W) in [0, 1]."""
    return Image.fromarray(_whole(image, 255).to(torch.uint8).numpy())


def _whole(image: Tensor, top: int) -> Tensor:
    """(H, W, C) on the CPU, whole numbers up to `top`, of (C, H, W) or (1, C, H, W) in [0, 1]."""
    pixels = image.detach().reshape(-1, *image.shape[-2:]).clamp(0, 1) * top
    return pixels.round().permute(1, 2, 0).cpu()


def size_of(image: Tensor) -> Size:
    """Height and width of (…, H, W)."""
    return int(image.shape[-2]), int(image.shape[-1])


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) or (C, H, W) in [0, 1] resampled to (height, width): bicubic, antialiased where it shrinks."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image if image.ndim == 4 else image[None]
    out = F.interpolate(batch, size=size, mode="bicubic", antialias=True, align_corners=False)
    return out.clamp(0, 1).reshape(*image.shape[:-2], *size)


def solid(rgb: Tensor, alpha: Tensor) -> Tensor:
    """(3, H, W) with the colours that (1, H, W) transparency hides replaced by those of the visible surroundings.

    What lies under alpha 0 is arbitrary, black as a rule; resized, or seen by the network, it would bleed into the
    edge. Pull-push (Gortler et al. 1996, The Lumigraph, §3.5): averages of the visible, coarser and coarser, fill what
    finer ones leave open. Colours with an alpha of 1/16 or more stay as they are.
    """
    weight = (alpha / _TELLING).clamp(max=1).square()
    return _pull_push((rgb * weight)[None], weight[None])[0].clamp(0, 1)


def _pull_push(premultiplied: Tensor, weight: Tensor) -> Tensor:
    """(1, 3, h, w): premultiplied (1, 3, h, w) where weight (1, 1, h, w) is 1, and the coarser level where it is 0."""
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
    image: Tensor,
    path: str | os.PathLike[str],
    *,
    format: str = "png",
    quality: int = 92,
    depth: int = 8,
    alpha: Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
    about: str = "",
) -> None:
    """Write (3, H, W) or (1, 3, H, W) in [0, 1] with sRGB's profile embedded; the same input gives the same bytes.

    format: png, jpeg, webp or tiff; quality: 1 to 100, of JPEG and WebP; depth: 8, or 16 bits a channel of PNG and
    TIFF; alpha: (1, H, W) (JPEG, which has none, shows white instead); metadata: as in `Picture`; about: ASCII that
    says how the picture was made (`report.sidecar.embed`). Raises SettingsError for a depth that the format has not.
    """
    kind = _SAVERS[format.lower()]
    if depth == 16 and kind not in ("PNG", "TIFF"):
        raise SettingsError(
            f"{format} holds 8 bits a channel, not 16", remedy="choose png or tiff, or a depth of 8"
        )
    pixels = image.detach().reshape(3, *image.shape[-2:])
    if alpha is not None and kind == "JPEG":
        pixels = pixels * alpha.to(pixels) + (1 - alpha.to(pixels))
    elif alpha is not None:
        pixels = torch.cat([pixels, alpha.to(pixels)])
    exif = _exif_of(metadata or {}, "" if kind == "PNG" else about)
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
        options["subsampling"] = 0  # strokes are colour edges: halved chroma smears them
    # TIFF stays uncompressed: libtiff, which would compress, cannot write the EXIF directory from Pillow.
    to_image(pixels).save(Path(path), format=kind, **options)


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


@cache
def _know_heif() -> None:
    """Give Pillow its parser for HEIC, once. Only the picture itself is parsed."""
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


def _decode(image: Image.Image, file: IO[bytes], label: str) -> Raster:
    try:
        bits = high_bit_depth.bits_of(image, file)
        if bits > 8 and (raster := high_bit_depth.read(image, file)):
            return raster
        image.load()
        lost = (f"8 of its {bits} bits a channel were taken",) if bits > 8 else ()
        return replace(_shallow_raster(image), notes=lost)
    except Exception as error:  # the parsers raise whatever the damage leads them to
        raise _damaged(label, error) from error


def _shallow_raster(image: Image.Image) -> Raster:
    """8 bits a channel, as Pillow has decoded them."""
    alpha = None
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = np.array(rgba.getchannel("A"))[..., None]
        image = image.convert("L") if image.mode in ("1", "L", "LA") else rgba.convert("RGB")
    mode = {"1": "L", "L": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(image.mode, "RGB")
    array = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
    return Raster(array, "GRAY" if mode == "L" else mode, alpha)


def _damaged(label: str, error: Exception) -> PictureError:
    return PictureError(f"{label} is damaged or truncated: {error}", remedy="drop it again, whole")


def _as_picture(image: Image.Image, raster: Raster, label: str) -> Picture:
    notes = list(raster.notes)
    if (frames := _frames(image)) != 1:
        notes.append(f"the first of {frames or 'several'} frames was taken")
    upright = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1), _UPRIGHT[1])
    colours, note = to_srgb(raster, image.info.get("icc_profile"), label)
    rgb, alpha = _tensor_of(upright(colours)), None
    if raster.alpha is not None:
        alpha = _tensor_of(upright(scaled(raster.alpha)))
        if not alpha.any():
            raise PictureError(
                f"{label} is transparent everywhere", remedy="give a picture that can be seen"
            )
        alpha = None if bool((alpha == 1).all()) else alpha
    if alpha is not None:
        rgb = solid(rgb, alpha)
    return Picture(rgb, alpha, _metadata_of(image), (*notes, *note))


def _tensor_of(values: Array) -> Tensor:
    """(C, H, W) of float32 (H, W, C)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def _frames(image: Image.Image) -> int:
    """How many frames or pages there are; 0 where there is damage behind the first, which nobody wants."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 (the parsers raise whatever the damage leads them to)
        return 0


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
