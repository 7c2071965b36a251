"""The colours of TIFF: palettes, YCbCr, L*a*b*, LogLuv and floating point → those of rasters."""

from __future__ import annotations

import numpy as np

from nst_daemon.pictures.raster import Array, UnsupportedPicture, full
from nst_daemon.pictures.srgb import from_light
from nst_daemon.pictures.tiff.layout import CIELAB, ITULAB, Layout

#: So many rows are converted at once.
_ROWS = 64
#: ITU-T T.42: the ranges of L*, a* and b* in a fax.
_FAX_RANGES = (0.0, 100.0, -85.0, 85.0, -75.0, 125.0)
#: XYZ relative to the white of D65 → linear sRGB (IEC 61966-2-1).
_XYZ_TO_RGB = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ],
    np.float32,
)
#: Values beyond 0 to 1 by no more than this are not noted: half a step of 8 bits.
_BEYOND = 0.5 / 255
CLIPPED = "values outside of 0 to 1 were clipped"


def palette_colours(indices: Array, table: Array) -> Array:
    """(H, W, 3) uint8 or uint16 of (H, W, 1). table: all red values, all green ones, all blue ones.

    The values of a table have 16 bits; some programs write 8. Indices beyond the table mean its last colour.
    """
    number = len(table) // 3
    if not number:
        raise ValueError("it has no colour map")
    entries = table[: 3 * number].reshape(3, number).T.astype(np.uint16)
    if entries.max() <= 0xFF:
        entries = entries.astype(np.uint8)
    elif not (entries & 0xFF).any() or not (entries % 257).any():
        entries = (entries >> 8).astype(np.uint8)
    found: Array = entries[
        np.minimum(indices[..., 0], indices.dtype.type(min(number - 1, full(indices))))
    ]
    return found


def ycbcr_to_rgb(values: Array, coefficients: Array, black_white: Array) -> Array:
    """(H, W, 3) of the same dtype (TIFF 6.0, section 21).

    Args:
        values: Y, Cb and Cr.
        coefficients: YCbCrCoefficients, or empty.
        black_white: ReferenceBlackWhite, or empty.
    """
    red, green, blue = (
        coefficients if len(coefficients) == 3 and coefficients.all() else (0.299, 0.587, 0.114)
    )
    ends = black_white if len(black_white) == 6 else np.array((0, 255, 128, 255, 128, 255.0))
    ranges = np.where(ends[1::2] == ends[::2], 1, ends[1::2] - ends[::2])
    most = full(values)
    result = np.empty_like(values)
    for top in range(0, len(values), _ROWS):
        codes = values[top : top + _ROWS].astype(np.float32) * np.float32(255 / most)
        y = (codes[..., 0] - ends[0]) * (255 / ranges[0])
        cb, cr = ((codes[..., n] - ends[2 * n]) * (127 / ranges[n]) for n in (1, 2))
        r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
        rgb = np.stack([r, (y - blue * b - red * r) / green, b], -1)
        shares = (rgb / 255).clip(0, 1) * most
        result[top : top + _ROWS] = shares if values.dtype.kind == "f" else shares.round()
    return result


def lab_colours(values: Array, layout: Layout, decode: Array) -> Array:
    """(H, W, 3) in the encoding of Raster: L* of 0 to 100, a* and b* + 128 of 0 to 255 over the range of the dtype.

    Args:
        values: (H, W, 1 or 3) as stored; one sample is L*.
        layout: Its photometric tells which encoding.
        decode: The ranges of ITULab; empty for those of ITU-T T.42.
    """
    bits, photometric = layout.bits[0], layout.photometric
    if bits == 8 and photometric != ITULAB:
        signs = np.array((0, 0x80, 0x80) if photometric == CIELAB else (0, 0, 0), np.uint8)
        if values.shape[2] == 1:
            return np.concatenate([values, np.full((*values.shape[:2], 2), 0x80, np.uint8)], axis=2)
        found: Array = values ^ signs
        return found
    result = np.empty((*values.shape[:2], 3), np.float32)
    result[..., 1:] = 128 / 255
    for n in range(values.shape[2]):
        result[..., n] = _lab_channel(values[..., n], n, layout, decode)
    return result.clip(0, 1, out=result)


def _lab_channel(values: Array, number: int, layout: Layout, decode: Array) -> Array:
    bits, photometric = layout.bits[0], layout.photometric
    if layout.kind == "f":
        found = values.astype(np.float32)
    elif photometric == ITULAB:
        ranges = decode if len(decode) == 6 else np.array(_FAX_RANGES)
        low, high = ranges[2 * number : 2 * number + 2]
        found = values.astype(np.float32) * np.float32(
            (high - low) / ((1 << bits) - 1)
        ) + np.float32(low)
    elif bits != 16:
        raise UnsupportedPicture(f"has L*a*b* of {bits} bits")
    elif number == 0:  # ICCLab: 0xFF00 is 100
        found = values.astype(np.float32) * np.float32(
            100 / (0xFFFF if photometric == CIELAB else 0xFF00)
        )
    elif photometric == CIELAB:
        found = values.view(np.int16).astype(np.float32) / np.float32(256)
    else:
        found = values.astype(np.float32) / np.float32(256) - np.float32(128)
    return found / np.float32(100) if number == 0 else (found + np.float32(128)) / np.float32(255)


def log_colours(values: Array) -> tuple[Array, list[str]]:
    """sRGB of XYZ (H, W, 3), or grey of Y (H, W, 1), of LogLuv; 1 is white. Also notes."""
    light = values @ _XYZ_TO_RGB.T if values.shape[2] == 3 else values.copy()
    notes = [CLIPPED] if light.max() > 1 + _BEYOND else []
    light = np.nan_to_num(light).clip(0, 1)
    return from_light(light).astype(np.float32), notes


def unit_floats(values: Array) -> list[str]:
    """Bring floating-point values into 0 to 1, in place, and return notes.

    Pixels without a single finite value are left as they are.
    """
    notes = []
    finite = np.isfinite(values)
    missing = finite.size - int(np.count_nonzero(finite))
    if missing == finite.size:
        return []
    if missing:
        notes.append(f"{missing} non-finite values were replaced")
        most = float(values[finite].max())
        np.nan_to_num(values, copy=False, nan=0.0, posinf=most, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high > 1 and np.count_nonzero(values > 1) > values.size / 2:
        for steps in (255, 65535):
            if high <= steps:
                values /= np.float32(steps)
                return [*notes, f"its floating-point values were divided by {steps}"]
    if low < -_BEYOND or high > 1 + _BEYOND:
        notes.append(CLIPPED)
    values.clip(0, 1, out=values)
    return notes
