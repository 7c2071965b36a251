"""The size of a frame in the headers of AV1 data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nst_daemon.pictures.av1 import largest_frame
from tests.pictures.heif_writer import av1


def sequence_header(height: int, width: int, *, timing: bool, model: bool, points: int) -> bytes:
    """A sequence header that is not reduced (AV1 specification, 5.5.1)."""
    bits = "000" + "0" + "0"  # profile, not still, not reduced
    bits += (
        "1" + "0" * 64 + "1" + "0001" + "011" if timing else "0"
    )  # equal interval, uvlc of 3 bits
    if timing:
        bits += "1" + "00100" + "0" * 32 + "0" * 10 if model else "0"
    bits += "1" + f"{points - 1:05b}"  # initial display delay
    for _ in range(points):
        bits += "0" * 12 + "01000" + "0"  # a level above 7 has a tier
        if timing and model:
            bits += "1" + "0" * 11
        bits += "1" + "0000"
    bits += f"{15:04b}{15:04b}{width - 1:016b}{height - 1:016b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def unit(kind: int, content: bytes) -> bytes:
    """An OBU with its size."""
    size = len(content)
    return bytes([kind << 3 | 2]) + bytes([size & 0x7F | 0x80, size >> 7]) + content


@pytest.mark.parametrize(
    ("timing", "model", "points"), list(itertools.product((0, 1), (0, 1), (1, 2, 32)))
)
def test_every_sequence_header_is_read(timing: int, model: int, points: int) -> None:
    """The size is found behind timing, the decoder model and operating points; the greatest one counts."""
    options = {"timing": bool(timing), "model": bool(model), "points": points}
    first = unit(1, sequence_header(300, 7000, **options))
    second = unit(1, sequence_header(4000, 20, **options))
    assert largest_frame(unit(2, b"") + first + unit(6, bytes(1000))) == (300, 7000)
    assert largest_frame(first + second) == (4000, 7000)


def test_an_encoded_image_has_its_own_size() -> None:
    """What libavif writes has the size of the pixels."""
    assert largest_frame(av1(np.zeros((33, 65), np.uint8), 8).payload) == (33, 65)


def test_damaged_data_ends() -> None:
    """Data without a header has no size; cut headers and endless units raise ValueError."""
    assert largest_frame(b"") == (0, 0)
    with pytest.raises(ValueError, match="cut off"):
        largest_frame(unit(1, b"\0\0"))
    with pytest.raises(ValueError, match="too many units"):
        largest_frame(b"\x12\0" * 200_000)
