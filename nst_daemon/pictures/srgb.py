"""The curve of sRGB: stored values and light (IEC 61966-2-1, 4.2 and 4.3)."""

from __future__ import annotations

import numpy as np

from nst_daemon.pictures.raster import Array


def to_light(values: Array) -> Array:
    """Stored values in [0, 1] → light; 1 is white."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def from_light(light: Array) -> Array:
    """Light → stored values; 1 is white, and negative light becomes 0."""
    light = np.maximum(light, 0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
