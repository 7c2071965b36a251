"""Make the pictures of the documentation from this program's own samples: `make docs-images`.

Everything is drawn and painted here; run it again after a change to the engine, and look at the result. One picture
alone: `python docs/make_images.py keep_colors`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from nst_daemon import stylize
from nst_daemon.engine.images import Picture, resize, save_picture, to_image
from nst_daemon.report.contact_sheet import contact_sheet
from nst_daemon.samples import draw_painting, draw_scene

IMAGES = Path(__file__).parent / "images"
GAP = 8  # white pixels between two pictures of a row
SMALL, SHOWN = (
    192,
    144,
)  # longer side that sheets are painted at, and height that they show, in pixels


def main() -> None:
    """Make those that the command line names, or all of them."""
    IMAGES.mkdir(exist_ok=True)
    for picture in sys.argv[1:] or PICTURES:
        PICTURES[picture]()


def readme() -> None:
    """The harbour, the painting, and the harbour in the manner of the painting."""
    scene, painting = draw_scene(640, 480), draw_painting(640, 480)
    painted = stylize(as_picture(scene), as_picture(painting), size=512)
    save_row([as_picture(scene), as_picture(painting), painted], IMAGES / "harbour.jpg", height=384)


def keep_colors() -> None:
    """The methods that keep colours, before and after, with the same content and style."""
    scene, painting = draw_scene(), draw_painting(style="embers")

    def painted(**settings: object) -> Image.Image:
        return to_image(
            stylize(as_picture(scene), as_picture(painting), size=SMALL, **settings).rgb
        )

    cells = [("content", scene), ("style", painting), ("off", painted())]
    cells += [("", Image.new("RGB", scene.size, "white"))]
    for when in ("before", "after"):
        for method in ("luminance", "histogram", "pca", "cholesky"):
            picture = painted(keep_colors=method, keep_colors_when=when)
            cells.append((f"{method}, {when}", picture))
    save_sheet(cells, "keep-colors.jpg", columns=4)


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


def save_sheet(cells: Sequence[tuple[str, Image.Image]], name: str, *, columns: int) -> None:
    """Write captioned pictures in rows."""
    contact_sheet(cells, columns=columns, height=SHOWN).save(IMAGES / name, quality=88)


PICTURES: Mapping[str, Callable[[], None]] = {"readme": readme, "keep_colors": keep_colors}

if __name__ == "__main__":
    main()
