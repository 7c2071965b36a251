"""`NAME.progress.webp`: the painting as it came into being, at an even pace of change."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

#: Longer side in pixels, and the most frames: together they stay under `LIMIT` bytes at the first quality.
SIDE, FRAMES = 400, 40
LIMIT = 2_000_000
QUALITIES = (70, 45, 20, 5)
#: Root mean square difference, of 255, below which two frames look the same.
LEAST = 0.5
#: Milliseconds that a frame is shown, and the last one.
SHOWN, LAST = 125, 2500


@dataclass(frozen=True, slots=True)
class _Frame:
    """A picture as JPEG, and as (24, 24, 3) to compare it."""

    jpeg: bytes
    small: np.ndarray[tuple[int, ...], np.dtype[np.float32]]

    def unlike(self, other: _Frame) -> float:
        """Root mean square difference, of 255."""
        return float(np.sqrt(np.square(self.small - other.small).mean()))


class TimeLapse:
    """Keeps at most FRAMES of all the pictures that it is shown, so chosen that each differs as much from the next.

    frames: what `frames` of an interrupted one has said, to go on from there.
    """

    def __init__(self, frames: Iterable[bytes] = ()) -> None:
        self._frames = [_Frame(jpeg, _small(_decoded(jpeg))) for jpeg in frames]

    @property
    def frames(self) -> tuple[bytes, ...]:
        """The frames so far, as JPEG."""
        return tuple(frame.jpeg for frame in self._frames)

    def add(self, picture: Image.Image) -> None:
        """Look at the next picture, RGB; all are of one size."""
        small = _small(picture)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        frame = _Frame(buffer.getvalue(), small)
        if self._frames and frame.unlike(self._frames[-1]) < LEAST:
            return
        self._frames.append(frame)
        if len(self._frames) > FRAMES:
            gaps = [a.unlike(b) for a, b in zip(self._frames, self._frames[2:], strict=False)]
            del self._frames[1 + int(np.argmin(gaps))]  # neither the first nor the last

    def encode(self) -> bytes:
        """An animated WebP of at most LIMIT bytes that ends with the last picture and begins again."""
        first, *rest = [_decoded(frame.jpeg) for frame in self._frames]
        data = b""
        for quality in QUALITIES:
            buffer = io.BytesIO()
            first.save(
                buffer,
                "WEBP",
                save_all=True,
                append_images=rest,
                duration=[SHOWN] * len(rest) + [LAST],
                loop=0,
                quality=quality,
                method=1,
            )
            data = buffer.getvalue()
            if len(data) <= LIMIT:
                break
        return data


def _decoded(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg), formats=("JPEG",)).convert("RGB")


def _small(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(picture.resize((24, 24), Image.Resampling.BOX), dtype=np.float32)
