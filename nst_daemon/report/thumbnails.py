"""Thumbnails: image files of all formats, reduced, upright and in sRGB.

The libraries that decode are imported with the first thumbnail: the process of the status page stays small without one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nst_daemon.pictures.formats import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from nst_daemon.pictures.decode import DecodedFile, PictureLimits, Source


@dataclass(frozen=True, slots=True)
class ResultLimits:
    """The limits of our own results, which may have formats that `limits.formats` does not list.

    Attributes:
        max_bytes, max_pixels, max_side: see `config.Limits`.
        formats: of all files that can be read.
    """

    max_bytes: int
    max_pixels: int
    max_side: int
    formats: Sequence[str] = NAMES

    @classmethod
    def of(cls, limits: PictureLimits) -> ResultLimits:
        """The same limits for all formats."""
        return cls(limits.max_bytes, limits.max_pixels, limits.max_side)


def reduced(
    source: Source, side: int, limits: PictureLimits | None = None, *, name: str | None = None
) -> bytes:
    """A thumbnail as WebP; the arguments and errors are those of `load`."""
    buffer = io.BytesIO()
    load(source, side, limits, name=name).save(buffer, "WEBP", quality=75)
    return buffer.getvalue()


def load(
    source: Source, side: int, limits: PictureLimits | None = None, *, name: str | None = None
) -> Image.Image:
    """A picture in sRGB and upright, reduced if its longer side exceeds `side` pixels.

    Args:
        source: A path, an open descriptor, or an open file, which is closed.
        side: In pixels.
        limits: Checked before decoding; `pictures.decode.DEFAULT_LIMITS` if None.
        name: What messages call the file.

    Returns:
        An image in RGB, or in RGBA if a part of it is transparent.

    Raises:
        NstError: See `pictures.decode.decode_file`.
    """
    from PIL.Image import Resampling  # noqa: PLC0415 (see above)

    from nst_daemon.pictures.decode import DEFAULT_LIMITS, decode_file  # noqa: PLC0415
    from nst_daemon.pictures.memory import MARGIN  # noqa: PLC0415

    # Decoding reduces a picture to MARGIN times the side that is used.
    limits = limits or DEFAULT_LIMITS
    decoded = decode_file(source, limits, name=name, used=lambda _: side / MARGIN)
    image = image_of(decoded)
    image.thumbnail((side, side), Resampling.LANCZOS)
    return image


def image_of(decoded: DecodedFile) -> Image.Image:
    """An 8-bit image in RGB, or in RGBA if a part of it is transparent."""
    import numpy as np  # noqa: PLC0415 (see above)
    from PIL import Image  # noqa: PLC0415

    values = decoded.colours
    if decoded.alpha is not None:
        values = np.concatenate([values, decoded.alpha], axis=2)
    return Image.fromarray((values * 255).round().astype(np.uint8))
