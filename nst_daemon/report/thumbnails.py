"""Thumbnails."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from nst_daemon.report.contact_sheet import READ_FORMATS


def reduced(source: Path | BinaryIO, side: int) -> bytes:
    """The picture as upright WebP, its longer side at most `side` pixels. Raises any error of Pillow."""
    buffer = io.BytesIO()
    with Image.open(source, formats=READ_FORMATS) as image:
        image.draft("RGB", (side, side))  # JPEG: decode at reduced size
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in ("RGB", "RGBA"):
            upright = upright.convert("RGBA" if "transparency" in image.info else "RGB")
        upright.thumbnail((side, side), Image.Resampling.LANCZOS)
        profile = image.info.get("icc_profile")
        upright.save(buffer, "WEBP", quality=75, icc_profile=profile)
    return buffer.getvalue()
