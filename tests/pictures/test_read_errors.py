"""A disk that fails while an image file is read is an error of storage, and never called damage of the file."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from nst_daemon.errors import DamagedPicture, PictureError, Retry, StorageError
from nst_daemon.pictures.decode import decode_file

NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


class FailingDisk(io.RawIOBase):
    """A file that cannot be read beyond an offset."""

    def __init__(self, data: bytes, readable: int) -> None:
        self.data, self.left, self.size = io.BytesIO(data[:readable]), readable, len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            return self.data.seek(self.size + offset)
        return self.data.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        if self.left <= self.data.tell() < self.size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self.data.readinto(buffer)


def pillow(kind: str, **options: Any) -> bytes:
    """Noise in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(**options: Any) -> bytes:
    """Noise as a TIFF by tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, NOISE, photometric="rgb", **options)
    return buffer.getvalue()


def heic() -> bytes:
    """Noise as HEIC."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(NOISE)).save(buffer, quality=90)
    return buffer.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: pillow("JPEG", quality=95),
    "JPEG, progressive": lambda: pillow("JPEG", quality=95, progressive=True),
    "PNG": lambda: pillow("PNG"),
    "WebP": lambda: pillow("WEBP"),
    "GIF": lambda: pillow("GIF"),
    "BMP": lambda: pillow("BMP"),
    "TIFF": lambda: pillow("TIFF"),
    "TIFF, LZW": lambda: pillow("TIFF", compression="tiff_lzw"),
    "TIFF, ZIP in tiles": lambda: tiff(compression="zlib", tile=(32, 32)),
    "AVIF": lambda: pillow("AVIF"),
    "HEIC": heic,
    "JPEG XL": lambda: bytes(imagecodecs.jpegxl_encode(NOISE, level=90)),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
def test_a_failing_disk_is_not_damage(kind: str, share: float) -> None:
    """Wherever reading fails, the error is one for which the queue pauses, with the file and the cause."""
    data = FILES[kind]()
    decode_file(io.BytesIO(data))
    with pytest.raises(
        StorageError, match=r"dog cannot be read: Input/output error; check"
    ) as raised:
        disk = FailingDisk(data, int(share * len(data)))
        decode_file(io.BufferedReader(disk), name="dog")
    assert raised.value.retry is Retry.PAUSED


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_cut_off_is_still_damage(kind: str) -> None:
    """Without an error of the disk, half a file is refused as damaged."""
    data = FILES[kind]()
    with pytest.raises(DamagedPicture):
        decode_file(io.BytesIO(data[: len(data) // 2]))


def test_the_kernels_error_of_a_descriptor_is_reported() -> None:
    """A descriptor whose first byte cannot be read is an error of storage, one without rights is not."""
    descriptor = os.open("/proc/self/mem", os.O_RDONLY)  # nothing is mapped at its beginning
    try:
        with pytest.raises(StorageError, match="Input/output error"):
            decode_file(descriptor)
    finally:
        os.close(descriptor)
    with pytest.raises(PictureError, match="does not exist; check the path"):
        decode_file("/nowhere/dog.png")
