"""Pillow images and arrays in memory, in the form in which the readers return image files."""

from __future__ import annotations

import numpy as np
from PIL import Image

from nst_daemon.errors import PictureError
from nst_daemon.pictures.metadata import parsed_exif
from nst_daemon.pictures.raster import Array, Raster, StoredPicture, Tags

#: How far values of a floating-point array may be outside of [0, 1], as after resampling; they are clipped.
OVERSHOOT = 0.01
_CHANNELS = {1: "GRAY", 2: "GRAY", 3: "RGB", 4: "RGB"}


def stored_image(image: Image.Image, label: str) -> StoredPicture:
    """A Pillow image with its colour profile and EXIF.

    EXIF turns an image only if it comes straight from a file (`Image.open`): Pillow's operations, such as `rotate`,
    keep the orientation of the file in their result.

    Raises:
        PictureError: Its values are no colours.
    """
    profile = image.info.get("icc_profile")

    def exif() -> Tags:
        tags = parsed_exif(image.getexif().tobytes())
        if image.format is None:
            tags.pop(0x0112, None)  # Orientation
        return tags

    raster = _image_raster(image, label)
    return _stored(raster, profile if isinstance(profile, bytes) else None, exif)


def stored_array(array: Array, label: str) -> StoredPicture:
    """An array (H, W) or (H, W, C) in sRGB; C is 1 or 3, or 2 or 4 with transparency.

    Args:
        array: bool, uint8, uint16, or floating-point values in [0, 1].
        label: Names it in messages.

    Raises:
        PictureError: It has another shape, another type or other values.
    """
    values = _checked_values(array, label)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in _CHANNELS or not values.size:
        raise _wrong_shape(array, label)
    channels = values.shape[2]
    return _stored(_raster(values, _CHANNELS[channels], alpha=channels in (2, 4)))


def _stored(raster: Raster, profile: bytes | None = None, exif: object = dict) -> StoredPicture:
    height, width = raster.colours.shape[:2]
    return StoredPicture(
        size=(height, width),
        alpha=raster.alpha is not None,
        cmyk=raster.space == "CMYK",
        decode=lambda _: raster,
        decoding_bytes=lambda _: 0.0,
        profile=profile,
        exif=exif,  # type: ignore[arg-type]
    )


def _raster(values: Array, space: str, *, alpha: bool) -> Raster:
    return Raster(values[..., :-1], space, values[..., -1:]) if alpha else Raster(values, space)


def _image_raster(image: Image.Image, label: str) -> Raster:
    """The pixels of an image of any mode, with all their bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if image.mode == "I" and values.min(initial=0) >= 0 and values.max(initial=0) < 1 << 16:
            values = values.astype(np.uint16)  # Pillow's mode of grey pictures with 16 bits
        return stored_array(values, label).decode(None)
    if image.has_transparency_data:
        grey = image.mode in ("LA", "La")
        return _raster(
            np.asarray(image.convert("LA" if grey else "RGBA")),
            "GRAY" if grey else "RGB",
            alpha=True,
        )
    if image.mode in ("1", "L"):
        return Raster(np.asarray(image.convert("L"))[..., None], "GRAY")
    space = image.mode if image.mode in ("CMYK", "LAB") else "RGB"
    return Raster(np.asarray(image.convert(space)), space)


def _checked_values(array: Array, label: str) -> Array:
    """uint8, uint16, or float32 in [0, 1]."""
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if kind != "f":
        raise PictureError(
            f"{label} has values of the type {array.dtype}",
            remedy="convert it to uint8 (0 to 255), uint16 (0 to 65535) or floats from 0 to 1",
        )
    if not np.isfinite(array).all():
        raise PictureError(f"{label} has non-finite values", remedy="replace them")
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise PictureError(
            f"{label} has values from {low:g} to {high:g}, and floats must be from 0 to 1",
            remedy="divide them by 255, or convert the array to uint8",
        )
    clipped: Array = array.astype(np.float32).clip(0, 1)
    return clipped


def _wrong_shape(array: Array, label: str) -> PictureError:
    shape = " × ".join(map(str, array.shape)) or "no dimensions"
    turned = array.ndim == 3 and array.shape[0] in _CHANNELS and array.size
    return PictureError(
        f"{label} has the shape {shape}; height × width × channels is needed, with 1 to 4 channels",
        remedy="use array.transpose(1, 2, 0)" if turned else "give one picture",
    )
