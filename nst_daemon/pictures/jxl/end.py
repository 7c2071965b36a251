"""Where a JPEG XL file ends, found without decoding."""

from __future__ import annotations

from nst_daemon.pictures.jxl.frames import walk
from nst_daemon.pictures.jxl.header import SIGNATURE, Bits, Data, read_header
from nst_daemon.pictures.jxl.icc import read_profile

#: A codestream does not end with so many zeros.
_BLANK = 16


def end_of(data: Data) -> int:
    """The byte after the last box, or after the last frame of a naked codestream.

    Raises:
        EOFError: Bytes are missing.
        ValueError: The structure is invalid, or too large to walk.
    """
    return _last_frame(data) if data[0:2] == SIGNATURE else _last_box(data)


def _last_box(data: Data) -> int:
    """The end of the boxes (ISO/IEC 18181-2). Other bytes may follow."""
    position, whole = 0, False
    while position + 8 <= len(data):
        head = data[position : position + 16]
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if 0 in kind:
            raise EOFError
        if not kind.isascii() or not kind.decode().isprintable():
            break
        start = position + 8
        if length == 1:
            length, start = int.from_bytes(head[8:], "big"), position + 16
        end = position + length if length else len(data)
        if end < start:
            raise ValueError("a box of the JPEG XL file has an invalid length")
        if end > len(data):
            raise EOFError
        if kind in {b"jxlc", b"jxlp"}:
            contents = min(start + 4 * (kind == b"jxlp"), end)  # after the number of the part
            if contents < end and not any(data[max(contents, end - _BLANK) : end]):
                raise EOFError
            whole |= kind == b"jxlc" or data[start : start + 1] >= b"\x80"
        position = end
    if not whole:
        raise EOFError
    return position


def _last_frame(data: Data) -> int:
    header = read_header(data)
    bits = Bits(data, header.end)
    if header.encoding.icc:
        read_profile(bits)
    bits.align()
    frames = walk(data, header, bits.position // 8)
    if frames.cut_off:
        raise EOFError
    if not frames.whole:
        raise ValueError("the frames of the JPEG XL file are invalid")
    return frames.frames[-1].end
