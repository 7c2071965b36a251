"""`NAME.progress.webp`: a time-lapse of the painting. Successive frames differ by about the same amount."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nst_daemon.pictures.decode import decode_file
from nst_daemon.report.thumbnails import image_of

#: Longer side in pixels, and number of frames. At the first quality they usually fit in `SIZE_LIMIT` bytes.
SIDE, FRAMES = 400, 40
SIZE_LIMIT = 2_000_000
QUALITIES = (70, 45, 20, 5)
#: Root mean square difference (0–255) below which two frames count as equal.
MIN_DIFFERENCE = 0.5
#: Duration of a frame, and of the last frame, in milliseconds.
FRAME_MS, LAST_FRAME_MS = 125, 2500


@dataclass(frozen=True, slots=True)
class _Frame:
    """A picture as JPEG, and as an array of (24, 24, 3) for comparisons."""

    jpeg: bytes
    small: np.ndarray[tuple[int, ...], np.dtype[np.float32]]

    def difference(self, other: _Frame) -> float:
        """Root mean square difference, 0–255."""
        return float(np.sqrt(np.square(self.small - other.small).mean()))


class TimeLapse:
    """Keeps at most FRAMES of the pictures that are added, chosen so that successive ones differ equally.

    Args:
        frames: the `frames` of an interrupted time-lapse, to be continued.
    """

    def __init__(self, frames: Iterable[bytes] = ()) -> None:
        self._frames = [_Frame(jpeg, _small(_decoded(jpeg))) for jpeg in frames]

    @property
    def frames(self) -> tuple[bytes, ...]:
        """The frames so far, as JPEG."""
        return tuple(frame.jpeg for frame in self._frames)

    def add(self, picture: Image.Image) -> None:
        """Add the next picture (RGB, always of the same size)."""
        small = _small(picture)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        frame = _Frame(buffer.getvalue(), small)
        if self._frames and frame.difference(self._frames[-1]) < MIN_DIFFERENCE:
            return
        self._frames.append(frame)
        if len(self._frames) > FRAMES:
            gaps = [a.difference(b) for a, b in zip(self._frames, self._frames[2:], strict=False)]
            del self._frames[1 + int(np.argmin(gaps))]  # neither the first nor the last

    def encode(self) -> bytes:
        """An endless animated WebP of at most SIZE_LIMIT bytes, ending with the last picture."""
        first, *rest = [_decoded(frame.jpeg) for frame in self._frames]
        data = b""
        for quality in QUALITIES:
            buffer = io.BytesIO()
            first.save(
                buffer,
                "WEBP",
                save_all=True,
                append_images=rest,
                duration=[FRAME_MS] * len(rest) + [LAST_FRAME_MS],
                loop=0,
                quality=quality,
                method=1,
            )
            data = buffer.getvalue()
            if len(data) <= SIZE_LIMIT:
                break
        return data


def _decoded(jpeg: bytes) -> Image.Image:
    return image_of(decode_file(io.BytesIO(jpeg)))


def _small(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(picture.resize((24, 24), Image.Resampling.BOX), dtype=np.float32)
