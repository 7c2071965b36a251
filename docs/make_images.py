"""Make the pictures of the documentation from the sample drawings: a part of `make docs-images`.

Run it again after a change to the engine, and look at the result. To make one picture:
`python -m docs.make_images keep_colors`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.captioned import captioned_sheet
from benchmarks.drawings import PAIRS, draw_painting, draw_scene
from nst_daemon import stylize
from nst_daemon.config import Outputs
from nst_daemon.engine.images import Picture, from_image, resize, to_image
from nst_daemon.painter import decode, save
from nst_daemon.samples import CONTENT, STYLE

IMAGES = Path(__file__).parent / "images"
GAP = 8  # white pixels between two pictures of a row
GUIDE_SIZE = 320  # of the pictures of docs/looks.md
SHOWN = 144  # height of a cell of a sheet in pixels
#: The upper edge of the mountains, and of the hills in the painting: (x, y) in fractions of width and height.
RIDGE = ((0, 0.31), (0.16, 0.35), (0.38, 0.25), (0.5, 0.31), (0.62, 0.21), (0.75, 0.29), (1, 0.28))
HILLS = ((0, 0.9), (0.3, 0.72), (0.6, 0.84), (1, 0.75))


def main() -> None:
    """Make the pictures that the command line names, or all."""
    IMAGES.mkdir(exist_ok=True)
    for picture in sys.argv[1:] or PICTURES:
        PICTURES[picture]()


def readme() -> None:
    """The sample content, the sample style, and what `demo` paints of them, larger."""
    scene, painting = decode(CONTENT), decode(STYLE)
    painted = stylize(scene, painting, size=640)
    save_row([scene, painting, painted.rendering.picture], IMAGES / "riverside.jpg", height=384)


def looks() -> None:
    """Drawn pairs with the presets that are named by their looks."""
    cells = []
    for scene, style in PAIRS[:5]:
        content, painting = (
            as_picture(i) for i in (draw_scene(scene=scene), draw_painting(style=style))
        )
        cells += [(scene, to_image(content.rgb)), (style, to_image(painting.rgb))]
        for preset in ("painting", "bold", "sketch" if style == "pencil" else "gentle"):
            painted = stylize(content, painting, size=384, preset=preset)
            cells.append((preset, painted.image))
    captioned_sheet(cells, columns=5, height=216).save(IMAGES / "looks.jpg", quality=85)


def content_weight() -> None:
    """More or less of the content, with the same pair."""
    save_variants(
        "content-weight", "riverside", "swirls", *({"content_weight": w} for w in (0.1, 1, 10))
    )


def style_scale() -> None:
    """Smaller and larger strokes."""
    save_variants("style-scale", "mountains", "market", *({"style_scale": s} for s in (0.5, 1, 2)))


def size() -> None:
    """A small picture as a preview of a larger one."""
    save_variants("size", "lighthouse", "knife", *({"size": side} for side in (128, 256, 384)))


def blend() -> None:
    """Two styles in two proportions."""
    names = ("swirls", "embers")
    scene, paintings = draw_scene(scene="mountains"), [draw_painting(style=name) for name in names]
    cells = [("content", scene), *zip(("first style", "second style"), paintings, strict=True)]
    for weights in ((0.75, 0.25), (0.25, 0.75)):
        pictures = [as_picture(painting) for painting in paintings]
        painted = stylize(as_picture(scene), pictures, size=GUIDE_SIZE, style_weights=weights)
        cells.append((f"style_weights={list(weights)}", to_image(painted.rgb)))
    save_guide("blend", cells)


def save_variants(name: str, scene: str, style: str, *variants: Mapping[str, Any]) -> None:
    """A row of the guide to looks: the content, the style, and the picture with each of these settings."""
    content, painting = draw_scene(scene=scene), draw_painting(style=style)
    cells = [("content", content), ("style", painting)]
    for chosen in variants:
        painted = stylize(
            as_picture(content), as_picture(painting), **{"size": GUIDE_SIZE, **chosen}
        )
        cells.append((" ".join(f"{k}={v}" for k, v in chosen.items()), to_image(painted.rgb)))
    save_guide(name, cells)


def save_guide(name: str, cells: Sequence[tuple[str, Image.Image]]) -> None:
    """Save a row of five pictures for docs/looks.md."""
    folder = IMAGES / "guide"
    folder.mkdir(exist_ok=True)
    captioned_sheet(cells, columns=5, height=168).save(folder / f"{name}.jpg", quality=85)


def keep_colors() -> None:
    """The methods that keep colours, before and after, with the same content and style."""
    scene, painting = draw_scene(), draw_painting(style="embers")
    cells = [("content", scene), ("style", painting), ("off", quick(scene, painting))]
    cells += [("", Image.new("RGB", scene.size, "white"))]
    for when in ("before", "after"):
        for method in ("luminance", "histogram", "pca", "cholesky"):
            picture = quick(scene, painting, keep_colors=method, keep_colors_when=when)
            cells.append((f"{method}, {when}", picture))
    save_sheet(cells, "keep-colors.jpg", columns=4)


def masks() -> None:
    """A sky in the style of the painting's sky, and two styles in separate regions."""
    scene = draw_scene(scene="mountains")
    swirls, embers = draw_painting(style="swirls"), draw_painting(style="embers")
    content_mask, style_mask = mask(RIDGE, "red", "lime"), mask(HILLS, "red", "lime")
    sky, land = mask(RIDGE, "white", "black"), mask(RIDGE, "black", "white")
    regions = {"content_mask": as_picture(content_mask), "style_masks": [as_picture(style_mask)]}
    each = {"style_masks": [as_picture(sky), as_picture(land)]}
    cells = [
        ("content", scene),
        ("content.mask", content_mask),
        ("style", swirls),
        ("style.mask", style_mask),
        ("without masks", quick(scene, swirls)),
        ("with them", quick(scene, swirls, **regions)),
        ("style-1.mask, of two styles", sky),
        ("each where its mask is white", quick(scene, swirls, embers, **each)),
    ]
    save_sheet(cells, "masks.jpg", columns=4)


def mask(line: Sequence[tuple[float, float]], above: str, below: str) -> Image.Image:
    """A mask of two flat colours with a soft border along a line, given in fractions of width and height."""
    image = Image.new("RGB", (640, 480), above)
    corners = [(x * 640, y * 480) for x, y in (*line, (1, 1), (0, 1))]
    ImageDraw.Draw(image).polygon(corners, fill=below)
    return image.filter(ImageFilter.GaussianBlur(4))


def quick(content: Image.Image, *styles: Image.Image, **choices: Any) -> Image.Image:
    """A small picture with few iterations."""
    pictures = [as_picture(style) for style in styles]
    painted = stylize(as_picture(content), pictures, size=192, iterations=60, **choices)
    return painted.image


def transparency() -> None:
    """A cut-out with a soft edge: the file, its hidden black, what the network sees, the result."""
    scene, painting = draw_scene(), draw_painting(style="embers")
    down, across = torch.meshgrid(
        torch.linspace(-1, 1, scene.height), torch.linspace(-1, 1, scene.width), indexing="ij"
    )
    alpha = ((0.85 - (down**2 + across**2).sqrt()) * 12).clamp(0, 1)[None]
    cut = torch.where(alpha > 0, as_picture(scene).rgb, 0)
    content = from_image(to_image(torch.cat([cut, alpha])))
    painted = stylize(content, as_picture(painting), size=192).rendering.picture
    assert painted.alpha is not None
    cells = [
        ("content", to_image(on_chequers(cut, alpha))),
        ("hidden in its file", to_image(cut)),
        ("seen by the network", to_image(content.rgb)),
        ("result", to_image(on_chequers(painted.rgb, painted.alpha))),
    ]
    save_sheet(cells, "transparency.jpg", columns=4)


def on_chequers(rgb: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """A picture (3, H, W) on a chequerboard of light greys, 16 squares high."""
    _, height, width = rgb.shape
    square = max(1, height // 16)
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    board = 0.8 + 0.2 * ((down // square + across // square) % 2)
    return rgb * alpha + board * (1 - alpha)


def as_picture(image: Image.Image) -> Picture:
    """A drawing as a `Picture`."""
    pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return Picture(pixels.reshape(image.height, image.width, 3).permute(2, 0, 1).float() / 255)


def save_row(pictures: Sequence[Picture], path: Path, *, height: int) -> None:
    """Save pictures of one height side by side, with white gaps."""
    cells: list[torch.Tensor] = []
    for picture in pictures:
        _, rows, columns = picture.rgb.shape
        cells += [resize(picture.rgb, (height, round(columns * height / rows)))]
        cells += [torch.ones(3, height, GAP)]
    save(Picture(torch.cat(cells[:-1], dim=2)), path, Outputs(format="jpg", quality=88))


def save_sheet(cells: Sequence[tuple[str, Image.Image]], name: str, *, columns: int) -> None:
    """Save captioned pictures in rows."""
    captioned_sheet(cells, columns=columns, height=SHOWN).save(IMAGES / name, quality=85)


PICTURES: Mapping[str, Callable[[], None]] = {
    "readme": readme,
    "looks": looks,
    "keep_colors": keep_colors,
    "masks": masks,
    "transparency": transparency,
    "content_weight": content_weight,
    "style_scale": style_scale,
    "size": size,
    "blend": blend,
}

if __name__ == "__main__":
    main()
