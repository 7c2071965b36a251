"""GIF."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.pictures.corpus.case import Case


def cases() -> Iterator[Case]:
    """Palettes of every size."""
    for bits in range(1, 9):
        colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), dtype=np.uint8)
        indices = (np.arange(24 * 16).reshape(16, 24) % 2**bits).astype(np.uint8)

        def make(indices: np.ndarray = indices, colours: np.ndarray = colours) -> bytes:
            image = Image.fromarray(indices, "P")
            image.putpalette(colours.tobytes())
            buffer = io.BytesIO()
            image.save(buffer, "GIF")
            return buffer.getvalue()

        yield Case(f"palette of {bits} bits", make, colours[indices] / 255)
