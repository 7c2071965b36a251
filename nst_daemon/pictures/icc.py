"""Colour profiles: decoded colours of any space → sRGB, by littlecms.

imagecodecs gives littlecms all the bits, which Pillow cannot; Pillow reads the profiles' names and spaces.
"""

from __future__ import annotations

import io
import struct
from functools import cache

import imagecodecs
import numpy as np
from PIL import ImageCms

from nst_daemon.errors import PictureError
from nst_daemon.machine import lacks_memory
from nst_daemon.pictures.raster import Array, Raster, full, scaled

#: Longer names of profiles are cut to this many characters.
MAX_NAME = 80
UNREADABLE = "its colour profile cannot be read and was not used"


def to_srgb(raster: Raster, profile: bytes | None, label: str) -> tuple[Array, list[str]]:
    """Convert to sRGB.

    Args:
        raster: The decoded file.
        profile: Its ICC profile, or None.
        label: Names the file in messages.

    Returns:
        (H, W, 3) float32 in [0, 1], and notes on what was converted.

    Raises:
        PictureError: There are non-finite pixels.
    """
    colours, space = raster.colours, raster.space
    if colours.dtype.kind == "f" and not np.isfinite(colours).all():
        raise PictureError(
            f"{label} has non-finite pixels", remedy="save it with 8 or 16 bits per channel"
        )
    if profile is None:
        return plain(colours, space), _guessed(space)
    try:
        name, meant = _described(profile)
        space = "RGB" if space == "GRAY" and meant == "RGB" else space  # not allowed, but common
        if meant != space:
            unused = f"its colour profile {name} is for {meant} and was not used"
            return plain(colours, raster.space), [unused, *_guessed(raster.space)]
        if meant == "RGB" and _is_srgb(profile):
            return plain(colours, raster.space), []
        converted = _transformed(colours, profile, space)
        return converted, [f"colours were converted to sRGB from {name}"]
    except Exception as error:
        if lacks_memory(error):
            raise
        return plain(colours, raster.space), [UNREADABLE, *_guessed(raster.space)]


def plain(colours: Array, space: str) -> Array:
    """(H, W, 3) float32 in [0, 1] of colours (H, W, C) without a profile: grey and RGB are taken as sRGB."""
    if space == "LAB":  # CIE L*a*b* with D50 by definition
        return _transformed(colours, _lab_profile(), space)
    values = scaled(colours)
    if space == "CMYK":
        painted: Array = (1 - values[..., :3]) * (1 - values[..., 3:])
        return painted
    return values if space == "RGB" else values.repeat(3, axis=2)


@cache
def srgb_profile() -> bytes:
    """An sRGB profile with a fixed date, so that equal pictures are equal bytes; littlecms writes the current date."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # ICC.1:2022, 7.2.8
    return bytes(profile)


@cache
def _lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def _guessed(space: str) -> list[str]:
    return [f"{space} was converted to sRGB without a profile"] if space == "CMYK" else []


def _described(profile: bytes) -> tuple[str, str]:
    """A profile's name, in one short line, and its colour space (GRAY, RGB, CMYK, LAB, …)."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    name = opened.profile_description or ""
    printable = "".join(letter if letter.isprintable() else " " for letter in name)
    return " ".join(printable.split())[:MAX_NAME] or "unnamed", opened.xcolor_space.strip().upper()


def _is_srgb(profile: bytes) -> bool:
    """True if an RGB profile, whatever its name, changes no colour of a grid by half an 8-bit step."""
    axis = np.linspace(0, 255, 16).astype(np.uint8)
    grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(1, -1, 3)
    moved = np.abs(_transformed(grid, profile, "RGB") - scaled(grid)).max()
    return bool(moved < 0.5 / 255)


def _transformed(colours: Array, profile: bytes, space: str) -> Array:
    """(H, W, 3) float32 in [0, 1], sRGB, of (H, W, C). One channel in RGB stands for three equal ones.

    The intent is relative colorimetric without black-point compensation, as in libvips and browsers.

    8 bits use littlecms' fast path, which is accurate to a quarter of a step. Its fast path for 16 bits has errors of
    up to twenty 8-bit steps in dark colours, so 16 bits, grey and L*a*b* use floating point, at about 0.2 µs a pixel.

    Raises:
        ValueError: The profile gives non-finite colours.
    """
    integers = colours.dtype in (np.uint8, np.uint16)
    if colours.shape[2] == 1 and integers and colours.size > full(colours):
        levels = np.arange(full(colours) + 1, dtype=np.float32)[None, :, None] / full(colours)
        table = _transformed(levels, profile, space)[0]
        found: Array = table[colours[..., 0]]
        return found
    if colours.shape[2] == 1 and space == "RGB":
        colours = colours.repeat(3, axis=2)
    quick = colours.dtype == np.uint8 and space in {"RGB", "CMYK"}
    given = colours if integers else _lcms_floats(colours, space)
    converted = imagecodecs.cms_transform(
        np.ascontiguousarray(given[..., 0] if space == "GRAY" else given),
        profile,
        srgb_profile(),
        colorspace=space.lower(),
        outcolorspace="rgb",
        outdtype=np.uint16 if quick else np.float32,
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
    )
    if not quick and not np.isfinite(converted).all():
        raise ValueError("the profile gives non-finite colours")
    return scaled(np.asarray(converted))


def _lcms_floats(colours: Array, space: str) -> Array:
    """float32 with the units of littlecms: ink in percent, L*a*b* as it is defined."""
    values = scaled(colours)
    if space == "CMYK":
        values *= 100
    if space == "LAB":
        values *= np.array((100, 255, 255), np.float32)
        values -= np.array((0, 128, 128), np.float32)
    return values
