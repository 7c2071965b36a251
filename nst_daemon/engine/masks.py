"""Region masks: which region of the content takes its style from which region of the styles.

Guided Gram matrices (Gatys et al. 2017, Controlling Perceptual Factors in Neural Style Transfer, §4). A mask is a
picture in flat colours, one for each region. At a soft edge, a pixel belongs to both regions in proportion.

Alternatively there is no content mask and one mask for each style: its brightness says where in the content that style
applies, and the styles are used whole.

A mask counts as black where it is transparent. Guides are (1, R, H, W), the weight of each region at each pixel, in
[0, 1].
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
from nst_daemon.engine.images import Picture, resize
from nst_daemon.engine.networks import minimum_side
from nst_daemon.errors import PictureError
from nst_daemon.pictures.proportions import check_proportions
from nst_daemon.pictures.raster import Size
from nst_daemon.units import count

#: A guide at any size.
Guide = Callable[[Size], Tensor]

#: A region's colour fills a square of this fraction of the longer side somewhere; no step of a soft edge does.
FLAT_SQUARE = 0.02
#: Colours are equal if no channel differs by more: JPEG changes them.
COLOR_TOLERANCE = 16 / 255
MAX_REGIONS = 16
#: The longer side in pixels of the reduced mask in which flat colours are searched.
SEARCH_SIDE = 512


@dataclass(frozen=True)
class StyleRegions:
    """The regions of one style.

    Attributes:
        numbers: Their indices in the content's guide.
        guide: Of the style; None if the style is used whole.
    """

    numbers: tuple[int, ...] = (0,)
    guide: Guide | None = None


@dataclass(frozen=True)
class Regions:
    """The regions of all styles, and the content's guide; None if one region covers everything."""

    styles: tuple[StyleRegions, ...]
    content: Guide | None = None

    @property
    def count(self) -> int:
        """The number of regions."""
        return 1 + max(number for style in self.styles for number in style.numbers)


def regions(
    content: Picture | None,
    styles: Sequence[Picture],
    content_size: Size,
    style_sizes: Sequence[Size],
) -> Regions:
    """The regions that masks describe.

    Args:
        content: Mask of the content, or None.
        styles: Masks of the styles, in their order; may be empty.
        content_size: Of the content's picture.
        style_sizes: Of the styles' pictures.

    Raises:
        PictureError: A mask is missing, has other proportions than its picture, has no flat colours, or colours that
            the others do not have.
    """
    if content is None and not styles:
        return Regions((StyleRegions(),) * len(style_sizes))
    if len(styles) != len(style_sizes):
        raise PictureError(
            f"{count(len(style_sizes), 'style picture')} with {count(len(styles), 'style mask')}",
            remedy="give one mask for each style picture"
            + (", or none" if content is None else ""),
        )
    if content is None:
        levels = [
            _colours(mask, content_size, f"style {i}", "the content")
            for i, mask in enumerate(styles, 1)
        ]
        for i, mask in enumerate(levels, 1):
            if luminance(mask).max() < COLOR_TOLERANCE:
                raise PictureError(
                    f"the mask of style {i} is black: the style applies nowhere",
                    remedy="paint it white where the style applies in the content, or add a content mask",
                )
        whole = tuple(StyleRegions((i,)) for i in range(len(styles)))
        return Regions(whole, partial(_levels, tuple(levels)))
    whole_mask = _colours(content, content_size, "the content", "its picture")
    style_masks = [
        _colours(mask, size, f"style {i}", "its picture")
        for i, (mask, size) in enumerate(zip(styles, style_sizes, strict=True), 1)
    ]
    colors = flat_colors(whole_mask, "the content")
    matched = [_match(mask, colors, f"style {i}") for i, mask in enumerate(style_masks, 1)]
    for number, color in enumerate(colors):
        if not any(number in found.numbers for found in matched):
            raise PictureError(
                f"the mask of the content has the colour {_hex(color)}, but no style mask has it",
                remedy="use the same flat colours in all masks",
            )
    return Regions(tuple(matched), partial(_mixture, whole_mask, colors))


def flat_colors(mask: Tensor, label: str) -> Tensor:
    """The flat colours (R, 3) of a mask in [0, 1], the most frequent first.

    Args:
        mask: (3, H, W).
        label: Whose mask it is, for messages.

    Raises:
        PictureError: There are none, or too many.
    """
    r, g, b = (mask * 255).round().to(torch.int64)
    code = (r * 256 + g) * 256 + b
    step = -(-max(code.shape) // SEARCH_SIDE)
    code = code[::step, ::step]
    side = min(1 + 2 * max(1, round(FLAT_SQUARE * max(code.shape) / 2)), *code.shape)
    exact = code[None, None].float()  # 24 bits: no rounding
    largest = nnf.max_pool2d(exact, side, stride=1)
    flat = largest[largest == -nnf.max_pool2d(-exact, side, stride=1)].to(torch.int64)
    codes, counts = torch.unique(flat, return_counts=True)
    found: list[Tensor] = []
    for c in codes[counts.argsort(descending=True)].tolist():
        color = torch.tensor([c >> 16, c >> 8 & 255, c & 255]) / 255
        if all((color - other).abs().max() > COLOR_TOLERANCE for other in found):
            found.append(color)
    if not 0 < len(found) <= MAX_REGIONS:
        raise PictureError(
            f"the mask of {label} has {len(found) or 'no'} flat colours",
            remedy=f"draw each of at most {MAX_REGIONS} regions in one colour without shading, and save it as PNG",
        )
    return torch.stack(found)


def _match(mask: Tensor, colors: Tensor, label: str) -> StyleRegions:
    """A style's regions, each with the index of the content's nearest colour."""
    own = flat_colors(mask, label)
    numbers = []
    for color in own:
        distance = (colors - color).abs().amax(1)
        if distance.min() > COLOR_TOLERANCE:
            raise PictureError(
                f"the mask of {label} has the colour {_hex(color)}, but the content mask does not have it",
                remedy="use the same flat colours in all masks",
            )
        numbers.append(int(distance.argmin()))
    return StyleRegions(tuple(numbers), partial(_mixture, mask, own))


def _mixture(mask: Tensor, colors: Tensor, size: Size) -> Tensor:
    """The guide (1, R, h, w) of a mask in these colours (R, 3).

    Each pixel counts as a mixture of the two colours whose connecting line is nearest to it.
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
    """The guide (1, R, h, w) from one brightness mask per region."""
    return torch.cat([luminance(resize(mask, size)) for mask in masks])[None]


def at_layer(guide: Tensor, layer: str) -> Tensor:
    """A guide (1, R, H, W) averaged down to the size of a layer's map, as in the ONNX graph."""
    return nnf.avg_pool2d(guide, minimum_side([layer]))


def _colours(mask: Picture, picture: Size, label: str, whose: str) -> Tensor:
    """(3, H, W) of a mask, black where it is transparent.

    Raises:
        PictureError: It has other proportions than its picture, or shows nothing but black where it is not transparent.
    """
    check_proportions(mask.size, picture, label, whose)
    if mask.alpha is None:
        return mask.rgb
    colours = mask.rgb * mask.alpha
    if colours.max() < COLOR_TOLERANCE:
        raise PictureError(
            f"the mask of {label} is black where it is not transparent, and transparent parts count as black",
            remedy="use another colour than black, or fill the transparent parts with a colour",
        )
    return colours


def _hex(color: Tensor) -> str:
    return "#" + "".join(f"{round(float(c) * 255):02x}" for c in color)
