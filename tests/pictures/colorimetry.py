"""Expected colours in float64, by the formulas of the standards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Points = Sequence[float]  # x and y of white, red, green and blue

D65 = (0.3127, 0.3290)
BT709 = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
#: Adobe RGB (1998), 4.3.
ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
#: SMPTE EG 432-1 with D65.
DISPLAY_P3 = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
#: ITU-R BT.2020-2, table 3.
BT2020 = (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
#: ROMM RGB (ISO 22028-2), with D50.
PROPHOTO = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)

D50_XYZ = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def srgb_curve(linear: Array) -> Array:
    """IEC 61966-2-1, 4.2: light → stored value; light outside of 0 to 1 is clipped."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_light(values: Array) -> Array:
    """IEC 61966-2-1, 4.3: stored value → light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def hdr_light(values: Array, transfer: int, points: Points) -> Array:
    """Light of values (…, 3) encoded by PQ (16) or HLG (18), with 203 cd/m² as 1."""
    if transfer == 16:  # SMPTE ST 2084, 5.1
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = values ** (1 / m2)
        return (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / 203
    a, b = 0.17883277, 1 - 4 * 0.17883277  # BT.2100, table 5
    c = 0.5 - a * np.log(4 * a)
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return scene * (scene @ luminance(points))[..., None] ** 0.2 * 1000 / 203


def tone_mapped(linear: Array) -> Array:
    """HDR light in sRGB's primaries, compressed above 0.5 by the greatest channel (Reinhard et al. 2002, eq. 4)."""
    peak, knee = 1000 / 203, 0.5
    most = linear.max(axis=-1, keepdims=True).clip(1e-9, peak)
    x, end = (most - knee) / (1 - knee), (peak - knee) / (1 - knee)
    mapped = knee + (1 - knee) * x * (1 + x / end**2) / (1 + x)
    return np.where(most > knee, linear * mapped / most, linear)


def xyz_of(x: float, y: float) -> Array:
    """XYZ with Y = 1 of a chromaticity."""
    return np.array([x / y, 1, (1 - x - y) / y])


def to_d50(white: Array) -> Array:
    """The matrix of Bradford's adaptation from a white to D50 (ICC.1:2022, Annex E)."""
    gain = (BRADFORD @ D50_XYZ) / (BRADFORD @ white)
    return np.linalg.inv(BRADFORD) @ np.diag(gain) @ BRADFORD


def to_xyz(points: Points) -> Array:
    """The matrix from linear RGB to XYZ of D50 (SMPTE RP 177)."""
    return to_d50(xyz_of(*points[:2])) @ _to_own_xyz(points)


def luminance(points: Points) -> Array:
    """The shares of R, G and B in the luminance."""
    return np.asarray(_to_own_xyz(points)[1])


def _to_own_xyz(points: Points) -> Array:
    """The matrix from linear RGB to XYZ of its own white."""
    white, *colours = (xyz_of(*points[i : i + 2]) for i in range(0, 8, 2))
    columns = np.array(colours).T
    return columns * np.linalg.solve(columns, white)


def from_light(light: Array, points: Points) -> Array:
    """sRGB of linear RGB (…, 3) with other primaries."""
    return from_xyz(light @ to_xyz(points).T)


def from_xyz(xyz: Array) -> Array:
    """sRGB of XYZ (…, 3) of D50."""
    return srgb_curve(xyz @ np.linalg.inv(to_xyz(BT709)).T)


def from_lab(lab: Array) -> Array:
    """sRGB of CIE L*a*b* (…, 3) of D50 (ICC.1:2022, 6.3.4)."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    return from_xyz(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50_XYZ)
