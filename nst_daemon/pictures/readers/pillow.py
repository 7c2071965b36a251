"""JPEG, WebP, BMP, GIF, HEIC and AVIF, with 8 bits per channel, by Pillow and pillow-heif."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import IO

import numpy as np
import pillow_heif
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from nst_daemon.pictures import memory
from nst_daemon.pictures.raster import Raster, Size, StoredPicture

#: Pillow's parsers by the names of the formats. They are called directly: `Image.open` would check Pillow's own limit
#: of pixels, which is global to the process. The caller checks ours before anything is decoded.
PARSERS: dict[str, Callable[[IO[bytes]], Image.Image]] = {
    "jpeg": JpegImagePlugin.jpeg_factory,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "heif": pillow_heif.HeifImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
}

# Bytes at the worst moment, measured as the growth of VmHWM and VmData with 24 megapixels of 3 channels
# (Pillow 12.0, pillow-heif 1.1, x86-64) and rounded up.

#: Per pixel of the file. Measured: JPEG 4.4, PNG 4.4, TIFF 7.7, WebP 16.4, HEIC 9.2 (10 bits), AVIF 9.7, BMP 4.4,
#: GIF 1.4. PNG, GIF: a palette or transparent colour is converted (4 more).
FILE_BYTES = {
    "JPEG": 4.5,
    "PNG": 9,
    "TIFF": 9,
    "WEBP": 17,
    "HEIF": 10,
    "AVIF": 10,
    "BMP": 5,
    "GIF": 9,
}
#: A JPEG can be decoded at 1/2, 1/4 and 1/8 of its size.
DRAFTS = (1, 2, 4, 8)
#: Per pixel and channel of a progressive JPEG, whose coefficients are kept at any scale. Measured: 2.0.
PROGRESSIVE_BYTES = 2.0


def open_picture(file: IO[bytes], name: str) -> StoredPicture:
    """Read the header of a file of a format of `PARSERS`. Damaged files raise any exception of Pillow."""
    image = open_image(file, name)
    bits = int(image.info.get("bit_depth", 8))  # set by pillow-heif
    lost = (f"its {bits} bits per channel were reduced to 8",) if bits > 8 else ()
    return stored(image, decoder(image, lost))


def open_image(file: IO[bytes], name: str) -> Image.Image:
    """Pillow's image of a file of a format of `PARSERS`, not decoded."""
    file.seek(0)
    return PARSERS[name](file)


def stored(image: Image.Image, decode: Callable[[Size | None], Raster]) -> StoredPicture:
    """The header of an image that Pillow has opened, with the function that decodes it."""
    return StoredPicture(
        size=(image.height, image.width),
        alpha=has_alpha(image),
        cmyk=image.mode == "CMYK",
        decode=decode,
        decoding_bytes=lambda reduced: _decoding_bytes(image, reduced),
        profile=image.info.get("icc_profile"),
        exif=image.getexif,
        frames=_frames(image),
    )


def _frames(image: Image.Image) -> int:
    """The number of frames or pages; 0 if the file is damaged after the first one, which is not used."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 (the parsers raise any exception for damaged files)
        return 0


def _decoding_bytes(image: Image.Image, reduced: Size | None) -> float:
    """The memory of decoding, estimated; a JPEG that is to be reduced is decoded at a fraction of its size."""
    jpeg, pixels = isinstance(image, JpegImagePlugin.JpegImageFile), image.width * image.height
    decoding = (
        FILE_BYTES["JPEG" if jpeg else image.format or ""] * pixels
    )  # a JPEG may be called MPO
    if jpeg and reduced:
        scale = min(image.height // reduced[0], image.width // reduced[1])
        decoding /= max(part for part in DRAFTS if part <= max(scale, 1)) ** 2
    if "progressive" in image.info:
        decoding += PROGRESSIVE_BYTES * len(image.getbands()) * pixels
    return decoding


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture has an alpha channel or a transparent colour."""
    return "A" in image.getbands() or "transparency" in image.info


def decoder(image: Image.Image, notes: tuple[str, ...] = ()) -> Callable[[Size | None], Raster]:
    """The function that decodes an image that Pillow has opened. notes: what is lost."""

    def decode(reduced: Size | None) -> Raster:
        box = None
        if reduced:
            # A JPEG is decoded at a fraction of its size, but not below this size.
            draft = image.draft(None, (reduced[1], reduced[0]))
            box = draft[1] if draft else None
        image.load()
        if reduced and not has_alpha(image) and image.mode != "LAB":
            return replace(shallow_raster(_reduced(image, reduced, box)), notes=notes)
        return replace(shallow_raster(image), notes=notes)

    return decode


def _reduced(
    image: Image.Image, size: Size, box: tuple[float, float, float, float] | None
) -> Image.Image:
    """A decoded image without alpha, resampled. box: the part that the picture fills, if it is a draft."""
    if image.mode not in ("L", "RGB", "CMYK", "YCbCr"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image.resize(
        (size[1], size[0]), Image.Resampling.BICUBIC, box, reducing_gap=memory.REDUCING_GAP
    )


def shallow_raster(image: Image.Image) -> Raster:
    """The raster with 8 bits per channel of a decoded image."""
    alpha = None
    if has_alpha(image):
        rgba = image.convert("RGBA")
        alpha = np.array(rgba.getchannel("A"))[..., None]
        image = image.convert("L") if image.mode in ("1", "L", "LA") else rgba.convert("RGB")
    mode = {"1": "L", "L": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(image.mode, "RGB")
    array = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
    return Raster(array, "GRAY" if mode == "L" else mode, alpha)
