"""Make the pictures of the documentation from this program's own samples: `make docs-images`.

Everything is drawn and painted here; run it again after a change to the engine, and look at the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from nst_daemon import stylize
from nst_daemon.engine.images import Picture, resize, save_picture
from nst_daemon.samples import draw_painting, draw_scene

IMAGES = Path(__file__).parent / "images"
GAP = 8  # white pixels between two pictures of a row


def main() -> None:
    """Make all of them."""
    IMAGES.mkdir(exist_ok=True)
    readme()


def readme() -> None:
    """The harbour, the painting, and the harbour in the manner of the painting."""
    scene, painting = draw_scene(640, 480), draw_painting(640, 480)
    painted = stylize(as_picture(scene), as_picture(painting), size=512)
    save_row([as_picture(scene), as_picture(painting), painted], IMAGES / "harbour.jpg", height=384)


def as_picture(image: Image.Image) -> Picture:
    """A drawing as the engine takes it."""
    pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return Picture(pixels.reshape(image.height, image.width, 3).permute(2, 0, 1).float() / 255)


def save_row(pictures: Sequence[Picture], path: Path, *, height: int) -> None:
    """Write pictures side by side, all of one height, with white between them."""
    cells: list[torch.Tensor] = []
    for picture in pictures:
        _, rows, columns = picture.rgb.shape
        cells += [resize(picture.rgb, (height, round(columns * height / rows)))]
        cells += [torch.ones(3, height, GAP)]
    save_picture(torch.cat(cells[:-1], dim=2), path, format="jpeg", quality=88)


if __name__ == "__main__":
    main()
