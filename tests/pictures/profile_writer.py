"""ICC profiles written by hand, with the light or the colours that they mean (ICC.1:2022)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import numpy as np

from tests.pictures import colorimetry
from tests.pictures.corpus.case import Array

D50 = (0.9642, 1.0, 0.8249)


def fixed(values: Sequence[float] | Array) -> bytes:
    """s15Fixed16Number."""
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in np.ravel(values))


def xyz(values: Sequence[float] | Array) -> bytes:
    """XYZType."""
    return b"XYZ " + bytes(4) + fixed(values)


def table_curve(light: Callable[[Array], Array], entries: int = 1024) -> bytes:
    """curveType with a table."""
    steps = (65535 * light(np.linspace(0, 1, entries))).round().astype(">u2")
    return b"curv" + struct.pack(">II", 0, entries) + steps.tobytes()


def gamma_curve(gamma: float) -> bytes:
    """curveType with an exponent, or none for 1."""
    if gamma == 1:
        return b"curv" + bytes(8)
    return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))


def parametric_curve(kind: int, *parameters: float) -> bytes:
    """parametricCurveType."""
    return b"para" + struct.pack(">IHH", 0, kind, 0) + fixed(parameters)


def description(text: str, version: int) -> bytes:
    """multiLocalizedUnicodeType, or textDescriptionType of version 2."""
    if version == 2:
        data = text.encode("ascii") + b"\0"
        return b"desc" + struct.pack(">II", 0, len(data)) + data + bytes(8 + 3 + 67)
    data = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(data), 28) + data


def profile(
    space: str,
    tags: dict[str, bytes],
    *,
    kind: str = "mntr",
    pcs: str = "XYZ ",
    version: int = 4,
    intent: int = 0,
    name: str = "handmade",
) -> bytes:
    """A profile with some tags."""
    every = {"desc": description(name, version), "wtpt": xyz(D50)} | tags
    position = 128 + 4 + 12 * len(every)
    index, body = struct.pack(">I", len(every)), b""
    for tag, data in every.items():
        index += tag.encode() + struct.pack(">II", position + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI", position + len(body), b"", version << 24)
    header += kind.encode() + space.encode().ljust(4) + pcs.encode()
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(24)
    header += struct.pack(">I", intent) + fixed(D50)
    return header.ljust(128, b"\0") + index + body


def matrix_profile(points: colorimetry.Points, curve: bytes, **options: object) -> bytes:
    """RGB with primaries and one curve."""
    columns = colorimetry.to_xyz(points).T
    tags = {f"{c}XYZ": xyz(column) for c, column in zip("rgb", columns, strict=True)}
    tags |= {f"{c}TRC": curve for c in "rgb"}
    return profile("RGB", tags, **options)  # type: ignore[arg-type]


def grey_profile(curve: bytes, **options: object) -> bytes:
    """Grey with a curve."""
    return profile("GRAY", {"kTRC": curve}, **options)  # type: ignore[arg-type]


def nodes(channels: int, grid: int) -> Array:
    """(grid^channels, channels) in [0, 1], the last channel varies fastest."""
    axes = np.meshgrid(*[np.linspace(0, 1, grid)] * channels, indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, channels)


Lab = Callable[[Array], Array]


def lut8(channels: int, lab: Lab, grid: int = 9) -> bytes:
    """lut8Type from device values to L*a*b*."""
    values = lab(nodes(channels, grid)) * (255 / 100, 1, 1) + (0, 128, 128)
    table = values.round().clip(0, 255).astype(np.uint8).tobytes()
    straight = bytes(range(256))
    head = b"mft1" + struct.pack(">IBBBB", 0, channels, 3, grid, 0) + fixed(np.eye(3))
    return head + channels * straight + table + 3 * straight


def lut16(channels: int, lab: Lab, grid: int = 9) -> bytes:
    """lut16Type from device values to L*a*b*, which has 100 at 0xFF00 (6.3.4.2)."""
    values = (lab(nodes(channels, grid)) * (652.8, 256, 256) + (0, 32768, 32768)).round()
    table = values.clip(0, 65535).astype(">u2").tobytes()
    straight = struct.pack(">2H", 0, 65535)
    head = b"mft2" + struct.pack(">IBBBB", 0, channels, 3, grid, 0) + fixed(np.eye(3))
    return head + struct.pack(">2H", 2, 2) + channels * straight + table + 3 * straight


def lut_a_to_b(channels: int, lab: Lab, grid: int = 9, *, deep: bool = True) -> bytes:
    """lutAToBType with A curves, a table of 8 or 16 bits, and B curves."""
    full = 65535 if deep else 255
    values = (lab(nodes(channels, grid)) / (100, 255, 255) + (0, 128 / 255, 128 / 255)) * full
    table = values.round().clip(0, full).astype(">u2" if deep else "u1").tobytes()
    table += bytes(-len(table) % 4)
    curve = gamma_curve(1)
    clut = bytes([grid] * channels).ljust(16, b"\0") + bytes([2 if deep else 1, 0, 0, 0]) + table
    b_curves, a_curves = 32, 32 + 3 * len(curve) + len(clut)
    offsets = (b_curves, 0, 0, b_curves + 3 * len(curve), a_curves)
    head = b"mAB " + struct.pack(">IBBH", 0, channels, 3, 0) + struct.pack(">5I", *offsets)
    return head + 3 * curve + clut + channels * curve
