"""Colours described by code points (CICP, ITU-T H.273) → sRGB; HDR is tone-mapped."""

from __future__ import annotations

from functools import cache

import numpy as np

from nst_daemon.pictures.raster import Array, Raster, scaled
from nst_daemon.pictures.srgb import from_light, to_light

#: Chromaticities (x, y) of red, green, blue and white.
Points = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]

_D65, _C, _THEATRE = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
#: H.273, table 2: name, chromaticities of red, green, blue and white.
PRIMARIES = {
    1: ("BT.709", (0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: ("BT.470 M", (0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ("BT.470 BG", (0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: ("BT.601", (0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ("SMPTE 240M", (0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    8: ("generic film", (0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ("BT.2020", (0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ("DCI-P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _THEATRE),
    12: ("Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ("EBU 3213", (0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
#: H.273, table 3: exponents. All other transfer functions, also those of BT.709 and BT.2020, are shown as sRGB's.
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
PQ, HLG = 16, 18
#: cd/m² of white (ITU-R BT.2408), and of the brightest light that is not clipped.
WHITE, PEAK = 203.0, 1000.0
#: Light above this share of white is compressed.
KNEE = 0.5
#: Bytes per pixel that the conversion takes at most, with its result. Measured: 12.8.
CONVERSION_BYTES = 13.0
#: Pixels that are converted at once.
_BLOCK = 1 << 18


def is_srgb(primaries: int | Points, transfer: int) -> bool:
    """Whether these code points are shown like sRGB: also unspecified and unknown ones."""
    shown = isinstance(primaries, int) and (primaries == 1 or primaries not in PRIMARIES)
    return shown and transfer not in GAMMAS and transfer not in (PQ, HLG)


def in_srgb(raster: Raster, primaries: int | Points, transfer: int) -> Raster:
    """A grey or RGB raster in sRGB, float32, with a note.

    Args:
        raster: With values encoded by the transfer function.
        primaries: H.273, table 2; or the chromaticities themselves.
        transfer: H.273, table 3.
    """
    if is_srgb(primaries, transfer):
        return raster
    height, width, channels = raster.colours.shape
    values = raster.colours.reshape(-1, channels)
    converted = np.empty((height * width, 3), np.float32)
    for start in range(0, len(values), _BLOCK):
        part = scaled(values[start : start + _BLOCK])
        converted[start : start + _BLOCK] = _converted(part, primaries, transfer)
    name = "custom primaries" if isinstance(primaries, tuple) else _known(primaries)[0]
    hdr = {PQ: " (HDR, PQ)", HLG: " (HDR, HLG)"}.get(transfer)
    gamma = f" with a gamma of {GAMMAS[transfer]:g}" if transfer in GAMMAS else ""
    verb = "tone-mapped" if hdr else "converted"
    note = f"colours were {verb} to sRGB from {name}{hdr or gamma}"
    return Raster(converted.reshape(height, width, 3), "RGB", raster.alpha, (*raster.notes, note))


def _converted(values: Array, primaries: int | Points, transfer: int) -> Array:
    """(N, 3) sRGB in [0, 1] of encoded values (N, 1 or 3)."""
    if values.shape[1] == 1:
        values = values.repeat(3, axis=1)
    light = _linear(values, primaries, transfer) @ _to_srgb(primaries).T
    if transfer in (PQ, HLG):
        light = _compressed(light)
    return from_light(light.clip(0, 1))


def _linear(values: Array, primaries: int | Points, transfer: int) -> Array:
    """Light, 1 for white, of encoded values."""
    if transfer == PQ:  # SMPTE ST 2084
        root = values ** np.float32(32 / 2523)
        ratio = (root - 0.8359375).clip(0) / (18.8515625 - 18.6875 * root)
        pq: Array = ratio ** np.float32(8192 / 1305) * (10_000 / WHITE)
        return pq
    if transfer == HLG:  # ITU-R BT.2100, table 5, on a display of 1000 cd/m²
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
        luminance = scene @ _to_own_xyz(primaries)[1].astype(np.float32)
        hlg: Array = scene * np.maximum(luminance, 1e-6)[:, None] ** 0.2 * (1000 / WHITE)
        return hlg
    if transfer in GAMMAS:
        return values ** np.float32(GAMMAS[transfer])
    return to_light(values)


def _compressed(light: Array) -> Array:
    """Light in which what is brighter than the knee, up to the peak, is brought below 1; hues stay.

    The part above the knee goes through Reinhard et al. 2002, equation 4, by the greatest channel of a pixel.
    """
    greatest = light.max(axis=1, keepdims=True).clip(1e-6, PEAK / WHITE)
    above = (greatest - KNEE).clip(0) / (1 - KNEE)
    most = (PEAK / WHITE - KNEE) / (1 - KNEE)
    mapped = KNEE + (1 - KNEE) * above * (1 + above / most**2) / (1 + above)
    compressed: Array = light * np.where(greatest > KNEE, mapped / greatest, 1)
    return compressed


def _known(primaries: int) -> tuple[str, *Points]:
    """Name and chromaticities; those of BT.709 for an unspecified or unknown number."""
    return PRIMARIES.get(primaries, PRIMARIES[1])


@cache
def _to_srgb(primaries: int | Points) -> Array:
    """The matrix (3, 3) from linear light of these primaries to that of sRGB."""
    matrix: Array = np.linalg.solve(_to_xyz(1), _to_xyz(primaries)).astype(np.float32)
    return matrix


@cache
def _to_xyz(primaries: int | Points) -> Array:
    """The matrix (3, 3) from linear light to XYZ of D65 (Bradford's adaptation, ICC.1:2022, E)."""
    white = _points(primaries)[3]
    cones = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    gain = (cones @ _xyz(*_D65)) / (cones @ _xyz(*white))
    adapted: Array = np.linalg.solve(cones, gain[:, None] * cones) @ _to_own_xyz(primaries)
    return adapted


def _to_own_xyz(primaries: int | Points) -> Array:
    """The matrix (3, 3) from linear light to XYZ of its own white (SMPTE RP 177)."""
    *colours, white = _points(primaries)
    columns = np.array([_xyz(*xy) for xy in colours]).T
    matrix: Array = columns * np.linalg.solve(columns, _xyz(*white))
    return matrix


def _points(primaries: int | Points) -> Points:
    return primaries if isinstance(primaries, tuple) else _known(primaries)[1:]


def _xyz(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1 - x - y) / y
