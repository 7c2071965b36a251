"""Does an image file look complete? A cheap check of its structure, without decoding.

The answer only delays a file: a slow copy that pauses gets more time. After `truncated_grace` the file goes to the
decoder in any case, which decides whether it is an image.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_HEAD = 64
_TAIL = 64 * 1024


def looks_whole(descriptor: int, size: int) -> bool:
    """False if the file is empty or ends before its format says; True for unknown formats.

    descriptor: open for reading, its position does not change; size: in bytes.
    """
    if size == 0:
        return False
    head = os.pread(descriptor, _HEAD, 0)
    for recognises, whole in _CHECKS:
        if recognises(head):
            return whole(descriptor, size)
    return True


def _tail(descriptor: int, size: int, length: int) -> bytes:
    length = min(length, size)
    return os.pread(descriptor, length, size - length)


def _jpeg(descriptor: int, size: int) -> bool:
    # Cameras append previews and padding after the end-of-image marker.
    tail = _tail(descriptor, size, _TAIL)
    return b"\xff\xd9" in tail if size > 4 else False


def _png(descriptor: int, size: int) -> bool:
    return b"IEND\xae\x42\x60\x82" in _tail(descriptor, size, _TAIL)


def _gif(descriptor: int, size: int) -> bool:
    return b";" in _tail(descriptor, size, 4)


def _riff(descriptor: int, size: int) -> bool:
    return size >= 8 + int.from_bytes(os.pread(descriptor, 4, 4), "little")


def _bmp(descriptor: int, size: int) -> bool:
    return size >= int.from_bytes(os.pread(descriptor, 4, 2), "little")


def _tiff(descriptor: int, size: int) -> bool:
    """Whether the first image directory is inside the file; many writers put it at the end."""
    head = os.pread(descriptor, 8, 0)
    return size > int.from_bytes(head[4:8], "little" if head[:2] == b"II" else "big")


def _boxes(descriptor: int, size: int) -> bool:
    """ISO base media (HEIC, AVIF): boxes, each with its length, fill the file."""
    position = 0
    while position < size:
        head = os.pread(descriptor, 16, position)
        length = int.from_bytes(head[:4], "big")
        if length == 0:  # the last box reaches to the end
            return True
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        position += max(length, 8)
    return position == size


_CHECKS: tuple[tuple[Callable[[bytes], bool], Callable[[int, int], bool]], ...] = (
    (lambda head: head.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda head: head[:6] in {b"GIF87a", b"GIF89a"}, _gif),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", _riff),
    (lambda head: head[:2] == b"BM" and head[6:10] == b"\0\0\0\0", _bmp),
    (lambda head: head[:4] in {b"II*\0", b"MM\0*"}, _tiff),
    (lambda head: head[4:8] == b"ftyp", _boxes),
)
