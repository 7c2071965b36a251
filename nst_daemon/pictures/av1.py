"""The largest frame that AV1 data says it has, so that no decoder allocates more than the file's header says."""

from __future__ import annotations

from collections.abc import Iterator

_SEQUENCE_HEADER = 1
#: An image has a few OBUs for each of its tiles and layers.
_MOST_UNITS = 100_000
#: A sequence of frames repeats its header now and then.
_MOST_HEADERS = 1000
#: A number of variable length has no more leading zeros (4.10.3).
_MOST_ZEROS = 32


def largest_frame(data: bytes) -> tuple[int, int]:
    """Height and width in pixels: the greatest of all sequence headers (AV1 specification, 5.5); (0, 0) without one."""
    sizes = [_frame_size(unit) for unit in _sequence_headers(data)]
    return max((h for h, _ in sizes), default=0), max((w for _, w in sizes), default=0)


def _sequence_headers(data: bytes) -> Iterator[bytes]:
    """The contents of the sequence headers in the low-overhead format (5.3)."""
    position = found = 0
    for _ in range(_MOST_UNITS):
        if position >= len(data):
            return
        header = data[position]
        position += 2 if header & 4 else 1
        size = len(data) - position
        if header & 2:
            size, position = _leb128(data, position)
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            found += 1
            if found > _MOST_HEADERS:
                break
            yield data[position : position + min(size, 256)]
        position += size
    raise ValueError("AV1 data has too many units")


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number (4.10.5), and the position after it."""
    value = 0
    for i, byte in enumerate(data[position : position + 8]):
        value |= (byte & 0x7F) << 7 * i
        if not byte & 0x80:
            return value, position + i + 1
    raise ValueError("AV1 data is cut off")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def next(self, count: int) -> int:
        """The next bits as a number."""
        self.left -= count
        if self.left < 0:
            raise ValueError("AV1's sequence header is cut off")
        return self.value >> self.left & ((1 << count) - 1)


def _frame_size(header: bytes) -> tuple[int, int]:
    """max_frame_height_minus_1 + 1 and the width of a sequence header (5.5.1)."""
    bits = _Bits(header)
    bits.next(4)  # seq_profile, still_picture
    if bits.next(1):  # reduced_still_picture_header
        bits.next(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.next(4) + 1, bits.next(4) + 1
    width = bits.next(width_bits) + 1
    return bits.next(height_bits) + 1, width


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.next(1):  # timing_info_present_flag
        bits.next(64)
        if bits.next(1):  # equal_picture_interval
            zeros = 0
            while not bits.next(1):
                zeros += 1
                if zeros > _MOST_ZEROS:
                    raise ValueError("AV1's sequence header is invalid")
            bits.next(zeros)
        if bits.next(1):  # decoder_model_info_present_flag
            delay_bits = bits.next(5) + 1
            bits.next(42)
    delayed = bits.next(1)  # initial_display_delay_present_flag
    for _ in range(bits.next(5) + 1):
        bits.next(12)
        if bits.next(5) > 7:
            bits.next(1)
        if delay_bits and bits.next(1):
            bits.next(2 * delay_bits + 1)
        if delayed and bits.next(1):
            bits.next(4)
