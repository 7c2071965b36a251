"""Region masks: which region of the content takes its strokes from which region of the styles.

Guided Gram matrices (Gatys et al. 2017, Controlling Perceptual Factors in Neural Style Transfer, §4). A mask is a
picture in flat colours, one for each region. Between two of them, where an edge is antialiased or blurred, a pixel
belongs to both in proportion.

Or there is no mask of the content and one of each style: then they say, by their brightness, where in the content
that style goes, and the styles are taken whole.

Masks are (3, H, W) in [0, 1], guides (1, R, H, W): the weight of each region at each pixel, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.engine.color import luminance
from nst_daemon.engine.images import Size, resize
from nst_daemon.engine.networks import minimum_side
from nst_daemon.errors import PictureError

#: A guide at any size.
Guide = Callable[[Size], Tensor]

#: A region's colour fills, somewhere, a square of this fraction of the longer side: no step of a soft edge does.
FLAT = 0.02
#: Colours are the same where no channel differs by more: JPEG moves them.
NEAR = 16 / 255
MOST = 16  # regions
LOOKED_AT = 512  # pixels of the longer side, in search of flat colours


@dataclass(frozen=True)
class StyleRegions:
    """The regions that one style has, by their numbers in the content's guide; guide: None where it is taken whole."""

    numbers: tuple[int, ...] = (0,)
    guide: Guide | None = None


@dataclass(frozen=True)
class Regions:
    """Where everything is; content: None where there is one region, which covers everything."""

    styles: tuple[StyleRegions, ...]
    content: Guide | None = None

    @property
    def count(self) -> int:
        """How many regions there are."""
        return 1 + max(number for style in self.styles for number in style.numbers)


def regions(
    content: Tensor | None,
    styles: Sequence[Tensor],
    content_size: Size,
    style_sizes: Sequence[Size],
) -> Regions:
    """What the masks mean.

    content, styles: the masks, as many as there are; the sizes are those of the pictures that they belong to. Raises
    PictureError where a mask is missing, has other proportions than its picture, no flat colours or other ones than
    the rest.
    """
    if content is None and not styles:
        return Regions((StyleRegions(),) * len(style_sizes))
    if len(styles) != len(style_sizes):
        raise PictureError(
            f"there are {len(style_sizes)} styles and {len(styles)} masks of styles",
            remedy="give a mask for each style, or none",
        )
    if content is None:
        for i, mask in enumerate(styles, 1):
            _check_size(mask, content_size, f"style {i}", "the content")
            if luminance(mask).max() < NEAR:
                raise PictureError(
                    f"the mask of style {i} is black: it goes nowhere",
                    remedy="paint white where in the content it goes, or add a mask of the content",
                )
        whole = tuple(StyleRegions((i,)) for i in range(len(styles)))
        return Regions(whole, partial(_levels, tuple(styles)))
    _check_size(content, content_size, "the content", "its picture")
    for i, (mask, size) in enumerate(zip(styles, style_sizes, strict=True), 1):
        _check_size(mask, size, f"style {i}", "its picture")
    colors = flat_colors(content, "the content")
    matched = [_match(mask, colors, f"style {i}") for i, mask in enumerate(styles, 1)]
    for number, color in enumerate(colors):
        if not any(number in found.numbers for found in matched):
            raise PictureError(
                f"the mask of the content has {_hex(color)}, and no mask of a style has it",
                remedy="use the same flat colours in all of them",
            )
    return Regions(tuple(matched), partial(_mixture, content, colors))


def flat_colors(mask: Tensor, label: str) -> Tensor:
    """(R, 3) in [0, 1], the flat colours of a mask, the most frequent first; label: whose mask, for messages."""
    r, g, b = (mask * 255).round().to(torch.int64)
    code = (r * 256 + g) * 256 + b
    step = -(-max(code.shape) // LOOKED_AT)
    code = code[::step, ::step]
    side = min(1 + 2 * max(1, round(FLAT * max(code.shape) / 2)), *code.shape)
    exact = code[None, None].float()  # 24 bits: no rounding
    largest = nnf.max_pool2d(exact, side, stride=1)
    flat = largest[largest == -nnf.max_pool2d(-exact, side, stride=1)].to(torch.int64)
    codes, counts = torch.unique(flat, return_counts=True)
    found: list[Tensor] = []
    for c in codes[counts.argsort(descending=True)].tolist():
        color = torch.tensor([c >> 16, c >> 8 & 255, c & 255]) / 255
        if all((color - other).abs().max() > NEAR for other in found):
            found.append(color)
    if not 0 < len(found) <= MOST:
        raise PictureError(
            f"the mask of {label} has {len(found) or 'no'} flat colours",
            remedy=f"draw each of at most {MOST} regions in one colour, without shading, and save it as PNG",
        )
    return torch.stack(found)


def _match(mask: Tensor, colors: Tensor, label: str) -> StyleRegions:
    """A style's regions, each with the number of the content's nearest colour."""
    own = flat_colors(mask, label)
    numbers = []
    for color in own:
        distance = (colors - color).abs().amax(1)
        if distance.min() > NEAR:
            raise PictureError(
                f"the mask of {label} has {_hex(color)}, and the mask of the content has not",
                remedy="use the same flat colours in all of them",
            )
        numbers.append(int(distance.argmin()))
    return StyleRegions(tuple(numbers), partial(_mixture, mask, own))


def _mixture(mask: Tensor, colors: Tensor, size: Size) -> Tensor:
    """The guide (1, R, h, w) of a mask in these colours (R, 3).

    Each pixel is taken for a mixture of the two colours whose connecting line it is nearest to.
    """
    pixels = resize(mask, size).flatten(1).T  # (M, 3)
    M, R = len(pixels), len(colors)
    nearest = pixels.new_full((M,), torch.inf)
    share = pixels.new_zeros(M)
    first, second = torch.zeros(2, M, dtype=torch.int64)
    for i, j in combinations(range(R), 2):
        line = colors[j] - colors[i]
        along = ((pixels - colors[i]) @ line / line.square().sum()).clamp(0, 1)
        distance = (pixels - colors[i] - along[:, None] * line).square().sum(1)
        here = distance < nearest
        nearest = torch.where(here, distance, nearest)
        share = torch.where(here, along, share)
        first, second = first.masked_fill(here, i), second.masked_fill(here, j)
    weights = pixels.new_zeros(M, R).scatter_(1, first[:, None], 1 - share[:, None])
    weights.scatter_add_(1, second[:, None], share[:, None])
    return weights.T.reshape(1, R, *size)


def _levels(masks: tuple[Tensor, ...], size: Size) -> Tensor:
    """The guide (1, R, h, w) of one mask for each region."""
    return torch.cat([luminance(resize(mask, size)) for mask in masks])[None]


def at_layer(guide: Tensor, layer: str) -> Tensor:
    """A guide (1, R, H, W) averaged down to the map of a layer, as the ONNX graph does it."""
    return nnf.avg_pool2d(guide, minimum_side([layer]))


def _check_size(mask: Tensor, picture: Size, label: str, whose: str) -> None:
    """Refuse other proportions, but for what rounding to whole pixels does to them."""
    H, W = mask.shape[-2:]
    h, w = picture
    if abs(W * h / (H * w) - 1) > 1 / min(H, W, h, w):
        raise PictureError(
            f"the mask of {label} is {W} × {H} pixels, and {whose} is {w} × {h}",
            remedy="a mask needs the proportions of its picture: export it at the same size",
        )


def _hex(color: Tensor) -> str:
    return "#" + "".join(f"{round(float(c) * 255):02x}" for c in color)
