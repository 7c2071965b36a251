"""TIFF, with 8 bits per channel, by Pillow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import IO

import numpy as np
from PIL import (
    Image,
    TiffImagePlugin,
)

from nst_daemon.pictures import memory
from nst_daemon.pictures.raster import Raster, Size, StoredPicture

#: Pillow's parsers by the names of the formats. They are called directly: `Image.open` would check Pillow's own limit
#: of pixels, which is global to the process. The caller checks ours before anything is decoded.
PARSERS: dict[str, Callable[[IO[bytes]], Image.Image]] = {
    "tiff": TiffImagePlugin.TiffImageFile,
}

# Bytes at the worst moment, measured as the growth of VmHWM and VmData with 24 megapixels of 3 channels
# (Pillow 12.0, x86-64) and rounded up.

#: Per pixel of the file. Measured: TIFF 7.7.
FILE_BYTES = {
    "TIFF": 9,
}


def open_picture(file: IO[bytes], name: str) -> StoredPicture:
    """Read the header of a file of a format of `PARSERS`. Damaged files raise any exception of Pillow."""
    image = open_image(file, name)
    return stored(image, decoder(image))


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
        decoding_bytes=lambda _: FILE_BYTES[image.format or ""] * image.width * image.height,
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


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture has an alpha channel or a transparent colour."""
    return "A" in image.getbands() or "transparency" in image.info


def decoder(image: Image.Image, notes: tuple[str, ...] = ()) -> Callable[[Size | None], Raster]:
    """The function that decodes an image that Pillow has opened. notes: what is lost."""

    def decode(reduced: Size | None) -> Raster:
        image.load()
        if reduced and not has_alpha(image) and image.mode != "LAB":
            return replace(shallow_raster(_reduced(image, reduced)), notes=notes)
        return replace(shallow_raster(image), notes=notes)

    return decode


def _reduced(image: Image.Image, size: Size) -> Image.Image:
    """A decoded image without alpha, resampled."""
    if image.mode not in ("L", "RGB", "CMYK", "YCbCr"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image.resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=memory.REDUCING_GAP)


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
