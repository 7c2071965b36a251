"""ICC profiles of colour spaces that files describe by code points (CICP) or by chromaticities and a gamma."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

import numpy as np

from nst_daemon.pictures.raster import Array

Chromaticities = tuple[float, ...]  # x and y of white, red, green and blue

D65, DCI, C = (0.3127, 0.3290), (0.314, 0.351), (0.310, 0.316)
BT709 = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_SMPTE170 = (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
#: ITU-T H.273, ColourPrimaries: name and chromaticities.
PRIMARIES: dict[int, tuple[str, Chromaticities]] = {
    1: ("BT.709", BT709),
    4: ("BT.470 M", (*C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.470 BG", (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: ("SMPTE 170M", _SMPTE170),
    7: ("SMPTE 240M", _SMPTE170),
    9: ("BT.2020", (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ("DCI-P3", (*DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: ("Display P3", (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
}
SRGB_TRANSFER, PQ, HLG = 13, 16, 18
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
#: ITU-T H.273, TransferCharacteristics: the name, and g, or g, a, b, c and d of the curve from values to light:
#: (a × v + b)^g from d, c × v below.
TRANSFERS: dict[int, tuple[str, tuple[float, ...]]] = {
    1: ("BT.709", _BT709_CURVE),
    4: ("gamma 2.2", (2.2,)),
    5: ("gamma 2.8", (2.8,)),
    6: ("BT.601", _BT709_CURVE),
    7: ("SMPTE 240M", (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 0.25, 0.0913)),
    8: ("linear", (1.0,)),
    SRGB_TRANSFER: ("sRGB", (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)),
    14: ("BT.2020", _BT709_CURVE),
    15: ("BT.2020", _BT709_CURVE),
    PQ: ("PQ", ()),
    HLG: ("HLG", ()),
}
UNSPECIFIED = 2

#: The luminance of white in pictures with PQ, in cd/m² (ITU-R BT.2408, 2.1), and the value of white with HLG.
PQ_WHITE, HLG_WHITE = 203.0, 0.75
_HDR_STEPS = 4096

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


@cache
def cicp_profile(primaries: int, transfer: int) -> bytes | None:
    """The profile of a colour space given by code points of ITU-T H.273; unspecified ones are those of sRGB.

    PQ and HLG are clipped at diffuse white.

    Returns:
        The profile; None for sRGB.

    Raises:
        ValueError: A code point is unknown.
    """
    primaries = 1 if primaries == UNSPECIFIED else primaries
    transfer = SRGB_TRANSFER if transfer == UNSPECIFIED else transfer
    if (primaries, transfer) == (1, SRGB_TRANSFER):
        return None
    if primaries not in PRIMARIES or transfer not in TRANSFERS:
        raise ValueError(f"unknown colour primaries {primaries} or transfer function {transfer}")
    (space, points), (curve, parameters) = PRIMARIES[primaries], TRANSFERS[transfer]
    name = space if transfer == SRGB_TRANSFER else f"{space} with the transfer function {curve}"
    return _profile(name, _curve(parameters) if parameters else _hdr_curve(transfer), points)


def gamma_profile(gamma: float, points: Chromaticities) -> bytes:
    """The profile of a colour space with a power function.

    Args:
        gamma: The exponent from values to light.
        points: x and y of white, red, green and blue.

    Raises:
        ValueError: The chromaticities are those of no colour space.
    """
    return _profile(f"gamma {gamma:.3g}", _curve((gamma,)), points)


def _profile(name: str, curve: bytes, points: Chromaticities) -> bytes:
    """A profile with one curve for all channels (ICC.1:2022, 7 to 10)."""
    text = name.encode("utf-16-be")
    described = b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(text), 28) + text
    tags = {b"desc": described, b"wtpt": _xyz(_D50)}
    for colour, column in zip("rgb", _columns(points).T, strict=True):
        tags[f"{colour}XYZ".encode()] = _xyz(column)
        tags[f"{colour}TRC".encode()] = curve
    position = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", position + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s6H4s28s3i48s",
        position + len(body), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ",
        2000, 1, 1, 0, 0, 0, b"acsp", b"", *_fixed(_D50), b"",
    )  # fmt: skip
    return header + table + body


def _columns(points: Chromaticities) -> Array:
    """The matrix from linear RGB to XYZ of D50 (SMPTE RP 177; Bradford, ICC.1:2022, Annex E)."""
    xy = np.array(points, np.float64).reshape(4, 2)
    if not (xy[:, 1] > 0).all():
        raise ValueError("the chromaticities are invalid")
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    white, colours = xyz[:, 0], xyz[:, 1:]
    try:
        matrix = colours * np.linalg.solve(colours, white)
    except np.linalg.LinAlgError as error:
        raise ValueError("the chromaticities are invalid") from error
    gain = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted: Array = np.linalg.solve(_BRADFORD, gain[:, None] * (_BRADFORD @ matrix))
    if not (np.abs(adapted) < 100).all():
        raise ValueError("the chromaticities are invalid")
    return adapted


def _curve(parameters: tuple[float, ...]) -> bytes:
    """parametricCurveType with one parameter or five (ICC.1:2022, 10.18)."""
    kind = 0 if len(parameters) == 1 else 3
    values = _fixed(parameters)
    return b"para" + struct.pack(f">IHH{len(values)}i", 0, kind, 0, *values)


def _hdr_curve(transfer: int) -> bytes:
    """curveType (ICC.1:2022, 10.6) from values with PQ or HLG to light, up to diffuse white (ITU-R BT.2100)."""
    values = np.linspace(0, 1, _HDR_STEPS)
    if transfer == PQ:
        root = values ** (1 / 78.84375)
        share = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        light = 10_000 * share ** (1 / 0.1593017578125) / PQ_WHITE
    else:  # the display's gamma of 1.2 is applied to each channel
        light = (_hlg_scene(values) / _hlg_scene(np.array(HLG_WHITE))) ** 1.2
    steps = (65535 * light.clip(0, 1)).round().astype(">u2")
    return b"curv" + struct.pack(">II", 0, len(steps)) + steps.tobytes()


def _hlg_scene(values: Array) -> Array:
    """Light of the scene of values with HLG."""
    high = (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(values <= 0.5, values**2 / 3, high)


def _xyz(values: Sequence[float] | Array) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *_fixed(values))


def _fixed(values: Sequence[float] | Array) -> list[int]:
    """s15Fixed16Number (ICC.1:2022, 4.6)."""
    return [round(float(value) * 65536) for value in values]
