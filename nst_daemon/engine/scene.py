"""A scene: a picture's sizes, targets and start, ready to be painted by `engine.stylize`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from nst_daemon import machine, units
from nst_daemon.engine import color, pyramid
from nst_daemon.engine.images import resize, size_of
from nst_daemon.engine.losses import Objective, StyleStatistics, TargetSource
from nst_daemon.engine.masks import Regions, StyleRegions, at_layer
from nst_daemon.engine.memory import (
    MemoryPlan,
    free_memory,
    memory_is_short,
    memory_plans,
    out_of_memory,
)
from nst_daemon.engine.neighbours import CELL, Matching, StyleMaps, cell_labels
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.sampled import CELLS, SampledMatching, StyleSample, sampled
from nst_daemon.engine.settings import AUTO_SIZE, RenderSettings, scale_fractions
from nst_daemon.engine.vgg import MEAN, compute_dtype
from nst_daemon.errors import PictureError, SettingsError
from nst_daemon.pictures.raster import Size

#: The least sum of a style region's weights at its deepest layer, in positions.
MINIMUM_REGION = 0.1


@dataclass(frozen=True)
class Scale:
    """One of the sizes that a picture is painted at, with its targets.

    Attributes:
        size: Height and width in pixels.
        content: (1, 3, h, w), as the network sees it; in float16 if memory is short.
        colors: (1, 3, h, w), the content in its own colours, for `color.after`.
        objective: What is minimised at this size.
    """

    size: Size
    content: Tensor
    colors: Tensor
    objective: Pyramid | Matching | SampledMatching


@dataclass(frozen=True)
class Scene:
    """Everything about a picture that can be prepared while another one is painted.

    Attributes:
        size: Of the result.
        scales: From coarse to fine.
        start: (1, 3, h, w), the initial image at the coarsest scale.
        notes: One line each, for the log and the sidecar.
        plans: How to paint it, from the fastest to the one that takes least memory.
        short_memory: As long as the scene exists, if it hardly fits into the memory of a CPU.
    """

    size: Size
    scales: tuple[Scale, ...]
    start: Tensor
    notes: tuple[str, ...]
    plans: tuple[MemoryPlan, ...]
    short_memory: machine.ShortMemory | None = None

    @property
    def held_bytes(self) -> int:
        """The memory of the start, of the contents and of features, which `MemoryPlan` counts too."""
        held = [self.start, *(scale.content for scale in self.scales)]
        for scale in self.scales:
            held += _features(scale.objective)
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in held}.values())

    @property
    def calibration(self) -> list[dict[str, float | list[float]]]:
        """The divisor of each term, for each scale; a list of divisors where there are several regions."""
        energies = (scale.objective.energies for scale in self.scales)
        return [{name: e.squeeze().tolist() for name, e in each.items()} for each in energies]


def _features(objective: Pyramid | Matching | SampledMatching) -> list[Tensor]:
    """The features that an objective holds from the start."""
    if isinstance(objective, Pyramid):
        return [P for level in objective.levels for P in level.content.values()]
    if isinstance(objective, Matching):
        return [map_ for style in objective.styles for map_ in style.maps.values()]
    return [sample for style in objective.styles for sample in style.features.values()]


def prepare(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: RenderSettings,
    targets: TargetSource,
    *,
    device: torch.device,
    start: Tensor | None = None,
    regions: Regions | None = None,
    content_size: Size | None = None,
    free: Callable[[torch.device], float] = free_memory,
) -> Scene:
    """Resize the pictures and compute targets and calibration for each scale.

    Args:
        content: (3, H, W), RGB in [0, 1].
        styles: (3, H, W) each.
        settings: How to paint.
        targets: Computes features and statistics.
        device: Where the scene will be painted.
        start: (3, H, W), the initial image if `settings.start` is `given`.
        regions: What the masks mean; without them every style applies everywhere.
        content_size: Of the content's file, if `content` was reduced while it was decoded.
        free: Bytes of memory that are free on a device.

    Raises:
        SettingsError: The settings do not fit the pictures.
        PictureError: A region is too small.
        OutOfMemory: The picture is too large for the device, even in tiles.
    """
    regions = regions or Regions((StyleRegions(),) * len(styles))
    shares = _shares(settings, styles, regions)
    colors = content
    content, styles = color.before(content, styles, settings)
    if (settings.start == "given") != (start is not None):
        raise SettingsError(
            f"setting start is {settings.start!r}, but {'no' if start is None else 'a'} start picture was given",
            remedy="add a start picture, or choose another start"
            if start is None
            else "set start to 'given', or leave out the picture",
        )
    content_size = content_size or size_of(content)
    size = picture_size(content_size, settings.size, device)
    sizes = scale_sizes(size, settings)
    memory = free(device)
    used = sum(share > 0 for share in shares)
    short = memory_is_short(settings, size, device, memory, styles=used)
    short_memory = machine.ShortMemory() if short and device.type == "cpu" else None
    by_sample = short and settings.style_loss == "neighbours"
    plans = memory_plans(settings, device, styles=used, sampled=by_sample)
    _check_memory(size, settings, plans[-1], memory)
    reference = _Styles(styles, shares, regions)
    kept = torch.float16 if short else None
    objectives: Sequence[Pyramid | Matching | SampledMatching]
    if settings.style_loss == "neighbours":
        pixels = torch.cat([style.flatten(1) for style in styles], 1)
        content = color.match_covariance(content, pixels, "pca")
        sizes = sizes + [size] * settings.layer_passes
        contents = [resize(content[None], scale_size) for scale_size in sizes]
        objectives = _matchings(contents, reference, settings, targets, device, by_sample=by_sample)
    else:
        contents = [resize(content[None], scale_size) for scale_size in sizes]
        objectives = [
            _objective(c, reference, settings, targets, device, kept=kept) for c in contents
        ]
    scales = []
    as_shown = colors is content or not color.needs_content_after(settings)
    for small, objective in zip(contents, objectives, strict=True):
        shown = small.to(device, kept)
        own = shown if as_shown else resize(colors[None], size_of(small)).to(device)
        scales.append(Scale(size_of(small), shown, own, objective))
    first = _start(settings, scales[0].content.float(), styles[0], start)
    return Scene(
        size,
        tuple(scales),
        first.to(device),
        _notes(content_size, styles, size, settings),
        tuple(plans),
        short_memory,
    )


def picture_size(content: Size, size: int | str, device: torch.device) -> Size:
    """The size of the result, in the content's proportions.

    Args:
        content: The content's size.
        size: The longer side in pixels, `original` or `auto`.
        device: Its type limits `auto`.
    """
    longer = max(content)
    if size == "original":
        return content
    wanted = min(longer, AUTO_SIZE.get(device.type, 512)) if size == "auto" else int(size)
    h, w = (max(1, round(side * wanted / longer)) for side in content)
    return h, w


def scale_sizes(size: Size, settings: RenderSettings) -> list[Size]:
    """The sizes to paint at, from coarse to fine; the last one is `size`.

    Scales too small for the deepest layer are left out.

    Raises:
        SettingsError: `size` itself is too small for the deepest layer.
    """
    least = minimum_side(settings.layers)
    if min(size) < least:
        raise SettingsError(
            f"a picture of {size[1]} × {size[0]} pixels is too small for layer "
            f"{max(settings.layers, key=lambda name: minimum_side([name]))}",
            remedy=f"its shorter side must be at least {least} pixels: set a larger size",
        )
    fractions = scale_fractions(settings.scales, max(size), settings.coarsest)
    sizes = [(round(size[0] * f), round(size[1] * f)) for f in fractions]
    return [s for s in sizes if min(s) >= least]


def style_size(style: Size, painted: Size, settings: RenderSettings) -> Size:
    """The size at which a style has `style_scale`² times the area of the picture being painted.

    So strokes keep their proportion to the picture at any size.

    Raises:
        SettingsError: It is too small for the deepest layer.
    """
    factor = settings.style_scale * sqrt(painted[0] * painted[1] / (style[0] * style[1]))
    size = (max(1, round(style[0] * factor)), max(1, round(style[1] * factor)))
    least = minimum_side(settings.style_layers)
    if min(size) < least:
        raise SettingsError(
            f"setting style_scale {settings.style_scale} reduces the style to {size[1]} × {size[0]} pixels",
            remedy=f"its style layers need at least {least}: set a larger style_scale or size",
        )
    return size


def used_side(style: Size, painted: Size, settings: RenderSettings) -> float:
    """The longer side in pixels at which a style of this size is used at most, for a picture of size `painted`."""
    side = max(style) * settings.style_scale * sqrt(painted[0] * painted[1] / (style[0] * style[1]))
    return max(side, *painted) if settings.start == "style" else side


def _check_memory(size: Size, settings: RenderSettings, plan: MemoryPlan, free: float) -> None:
    """Raise OutOfMemory if what is not in tiles does not fit, instead of failing after hours."""
    if plan.least_bytes(size) > free:
        raise out_of_memory(
            size,
            f"{units.size(free)} is free",
            settings,
            largest_side=plan.largest_side(free),
        )


def _shares(settings: RenderSettings, styles: Sequence[Tensor], regions: Regions) -> list[float]:
    """Each style's share of the blend; they sum to 1."""
    if not styles:
        raise SettingsError("there is no style", remedy="give at least one style picture")
    weights = settings.style_weights or (1.0,) * len(styles)
    if len(weights) != len(styles):
        raise SettingsError(
            f"setting style_weights has {len(weights)} weights for {len(styles)} styles",
            remedy="give one weight for each style, or none",
        )
    used = zip(weights, regions.styles, strict=True)
    painted = {number for weight, own in used if weight for number in own.numbers}
    if len(painted) < regions.count:
        raise SettingsError(
            f"setting style_weights {list(weights)} leaves a region of the masks without a style",
            remedy="give its style a weight above 0",
        )
    return [w / sum(weights) for w in weights]


@dataclass(frozen=True)
class _Styles:
    """What the style is taken from: pictures (3, H, W), each one's share of the blend, and what their masks mean."""

    pictures: Sequence[Tensor]
    shares: Sequence[float]
    regions: Regions


def _objective(
    content: Tensor,
    styles: _Styles,
    settings: RenderSettings,
    targets: TargetSource,
    device: torch.device,
    *,
    kept: torch.dtype | None,
) -> Pyramid:
    """The objective of a scale.

    Args:
        content: (1, 3, h, w).
        styles: What the style is taken from.
        settings: How to paint.
        targets: Computes features.
        device: Where the scene will be painted.
        kept: The type in which the content's features are kept; as they are computed unless given.
    """
    size, regions = size_of(content), styles.regions
    shown = [resize(s[None], style_size(size_of(s), size, settings)) for s in styles.pictures]
    guides = [
        None if r.guide is None else r.guide(size_of(s))
        for r, s in zip(regions.styles, shown, strict=True)
    ]
    smallest = min((size_of(style) for style in shown), key=min)
    shares = pyramid.shares(size, smallest, settings, limit=_usable_levels(guides, settings))
    contents = pyramid.levels_of(content, len(shares))
    levels = []
    for picture, own in zip(contents, shares, strict=True):
        compared = any(name.startswith("content") for name in own)
        P = targets.content(picture) if compared else {}
        each = [targets.style(s, g) for s, g in zip(shown, guides, strict=True)]
        statistics = {
            layer: StyleStatistics(S.gram.to(device), S.mean.to(device))
            for layer, S in _blend(each, styles.shares, regions).items()
        }
        features = {layer: map_.to(device, kept) for layer, map_ in P.items()}
        here = _content_guides(regions, size_of(picture), settings, device)
        levels.append(Objective(features, statistics, settings, here, shares=own))
        shown = [pyramid.reduced(style) for style in shown]
        guides = [None if guide is None else pyramid.reduced_guide(guide) for guide in guides]
    return Pyramid(tuple(levels))


def _matchings(
    contents: Sequence[Tensor],
    styles: _Styles,
    settings: RenderSettings,
    targets: TargetSource,
    device: torch.device,
    *,
    by_sample: bool,
) -> list[Matching | SampledMatching]:
    """The objectives of all scales with `style_loss: neighbours`; the last `layer_passes` match layers.

    Args:
        contents: (1, 3, h, w), of all scales and passes.
        styles: What the style is taken from.
        settings: How to paint.
        targets: Computes features.
        device: Where the scene will be painted.
        by_sample: Keep samples of the styles instead of all of their features.
    """
    found: list[Matching | SampledMatching] = []
    for i, content in enumerate(contents):
        if i >= len(contents) - settings.layer_passes:
            found.append(replace(found[-1], by_layer=True))
            continue
        size, regions = size_of(content), styles.regions
        # Of a small scale all cells are kept: its features take little memory.
        here_by_sample = by_sample and size[0] * size[1] > CELLS * CELL**2
        maps: list[StyleMaps] = []
        samples: list[StyleSample] = []
        for picture, share, own in zip(styles.pictures, styles.shares, regions.styles, strict=True):
            if not share:
                continue
            shown = resize(picture[None], style_size(size_of(picture), size, settings))
            labels = _style_labels(own, size_of(shown))
            if here_by_sample:
                relative = share / max(styles.shares)
                samples.append(
                    sampled(
                        shown,
                        targets.content,
                        settings.map_layers,
                        labels=labels,
                        share=share,
                        relative=relative,
                    )
                )
            else:
                kept = compute_dtype(settings.precision, device)
                features = {k: map_.to(device, kept) for k, map_ in targets.content(shown).items()}
                maps.append(StyleMaps(features, labels, share))
        here = None
        if regions.content is not None:
            here = cell_labels(regions.content(size), range(regions.count)).to(device)
        shown = content.to(device, torch.float16 if by_sample else None)
        found.append(
            SampledMatching(settings, shown, samples, here, len(found))
            if here_by_sample
            else Matching(settings, shown, maps, here, len(found))
        )
    return found


def _style_labels(own: StyleRegions, size: Size) -> Tensor:
    """(h, w) in cells: the regions of a style at its size."""
    if own.guide is None:
        return cell_labels(torch.ones(1, 1, *size), own.numbers)
    return cell_labels(own.guide(size), own.numbers)


def _usable_levels(guides: Sequence[Tensor | None], settings: RenderSettings) -> int:
    """The number of levels at which no region of a style (1, R, H, W) is too small for the deepest layer.

    Raises:
        PictureError: Not even level 0 is usable.
    """
    deepest = max(settings.style_layers, key=lambda layer: minimum_side([layer]))
    count = settings.style_levels
    for guide in guides:
        smaller, k = guide, 0
        while smaller is not None and k < count:
            if at_layer(smaller, deepest).sum((2, 3)).min() < MINIMUM_REGION:
                count = k
            smaller, k = pyramid.reduced_guide(smaller), k + 1
    if not count:
        raise PictureError(
            f"a region of a style's mask is too small for layer {deepest}",
            remedy="draw it larger, or set a larger size",
        )
    return count


def _blend(
    each: Sequence[Mapping[str, StyleStatistics]], shares: Sequence[float], regions: Regions
) -> dict[str, StyleStatistics]:
    """The statistics of a mixture: second moments and means are averaged in each region."""

    def mixed(tensors: Sequence[Tensor]) -> Tensor:  # each (R of that style, …) -> (R, …)
        rows = []
        for number in range(regions.count):
            parts = [
                (share, tensor[own.numbers.index(number)])
                for share, tensor, own in zip(shares, tensors, regions.styles, strict=True)
                if number in own.numbers
            ]
            whole = sum(share for share, _ in parts)
            rows.append(torch.stack([share / whole * row for share, row in parts]).sum(0))
        return torch.stack(rows)

    return {
        layer: StyleStatistics(
            mixed([s[layer].gram for s in each]), mixed([s[layer].mean for s in each])
        )
        for layer in each[0]
    }


def _content_guides(
    regions: Regions, size: Size, settings: RenderSettings, device: torch.device
) -> dict[str, Tensor]:
    """The content's guide at each style layer; empty if one region covers everything."""
    if regions.content is None:
        return {}
    guide = regions.content(size).to(device)
    return {layer: at_layer(guide, layer) for layer in settings.style_layers}


def _start(
    settings: RenderSettings, content: Tensor, style: Tensor, given: Tensor | None
) -> Tensor:
    """The initial image (1, 3, h, w) at the coarsest scale."""
    size = size_of(content)
    match settings.start:
        case "style":
            return resize(style[None], size)
        case "given":
            assert given is not None
            return resize(given[None], size)
        case "grey":
            return torch.full_like(content, 0.5)
        case "content":
            return content
    # The CPU's generator: the same seed gives the same noise on every device.
    noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(settings.seed))
    noise = noise * settings.noise_std + torch.tensor(MEAN).view(1, 3, 1, 1)
    if settings.start == "noise":
        return noise
    return settings.noise_ratio * noise + (1 - settings.noise_ratio) * content.cpu()


def _notes(
    content: Size, styles: Sequence[Tensor], size: Size, settings: RenderSettings
) -> tuple[str, ...]:
    notes = [f"painted at {size[1]} × {size[0]} pixels (size: {settings.size})"]
    if max(size) > max(content):
        notes.append(f"the content was enlarged from {content[1]} × {content[0]} pixels")
    for i, style in enumerate(styles, 1):
        factor = style_size(size_of(style), size, settings)[1] / style.shape[2]
        if factor > 1.5:
            notes.append(
                f"style {i} was enlarged {factor:.1f} times: a larger picture gives finer strokes"
            )
    return tuple(notes)
