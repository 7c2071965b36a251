"""PNG, with all its bits: Pillow, which reduces 16 bits to 8, and imagecodecs (libpng)."""

from __future__ import annotations

from dataclasses import replace
from typing import IO

import imagecodecs
import numpy as np

from nst_daemon.pictures.raster import Raster, Size, StoredPicture
from nst_daemon.pictures.readers import pillow

#: Per pixel and channel of the file, with 16 bits. Measured with 24 megapixels of 3 channels: 3.9 (imagecodecs
#: 2025.11).
DEEP_BYTES = 4.0


def open_picture(file: IO[bytes], name: str) -> StoredPicture:
    """Read the header. Damaged files raise any exception of the libraries."""
    image = pillow.open_image(file, name)
    header = pillow.stored(image, pillow.decoder(image))
    file.seek(24)  # IHDR is always the first chunk: PNG (3rd edition), 5.6
    if file.read(1)[0] <= 8:
        return header
    needed = DEEP_BYTES * len(image.getbands()) * image.width * image.height
    return replace(header, decode=lambda _: _deep(file), decoding_bytes=lambda _: needed)


def _deep(file: IO[bytes], _: Size | None = None) -> Raster:
    file.seek(0)
    values = np.asarray(imagecodecs.png_decode(file.read()))
    values = values[..., None] if values.ndim == 2 else values
    colours = 1 if values.shape[2] < 3 else 3
    alpha = values[..., colours:] if values.shape[2] > colours else None
    return Raster(values[..., :colours], "GRAY" if colours == 1 else "RGB", alpha)
