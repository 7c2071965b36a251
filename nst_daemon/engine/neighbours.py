"""The style loss `neighbours`: each part of the picture is drawn towards the part of the style that resembles it most.

Kolkin, Kucera, Paris, Sypnowich & Shechtman 2022, Neural Neighbor Style Transfer. When a scale begins, a hypercolumn of
the picture's features is compared with all of the style's at every fourth pixel, and the style's own features of each
layer at the nearest one become the target. In the last passes at full size each layer is matched by itself. The loss is
the cosine distance between the picture's features and their targets, both relative to the style's mean.

Departures from the paper, all ours: the content is first recoloured to the style's palette; targets of a layer are
copied from the place of the match instead of compared as hypercolumns; style features that are near to many parts of
the picture are held back (`HUB`), which prevents large areas of one repeated pattern; the style's border is left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isqrt
from typing import Generic, Protocol, TypeVar

import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.engine.blocks import blocks
from nst_daemon.engine.directions import Directions, SharedDirections, precise
from nst_daemon.engine.images import resize, size_of
from nst_daemon.engine.losses import Objective
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.pyramid import Pyramid
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.vgg import VGG
from nst_daemon.pictures.raster import Size

#: Side of a cell, in pixels: hypercolumns are compared at a quarter of the size (Kolkin et al. 2022, §3.1).
CELL = 4
#: Up to this longer side in pixels, hypercolumns are compared in patches of 3 × 3, which keeps large shapes together.
PATCHED_SIDE = 128
#: How far a style feature's similarity to its nearest parts of the picture is subtracted from each comparison.
HUB = 0.8
#: The number of nearest parts for that.
HUB_NEIGHBOURS = 10
#: At most this many positions of the picture count for that, and of the style in the matching of single layers.
SAMPLE = 4096
#: Cells at the style's border that are not used: the network's padding shows in them.
BORDER = 2
#: Pixels of mirrored surroundings: what a cell of relu4_1 sees beyond itself, rounded up.
MARGIN = 32
#: Similarities that are computed at a time: on a CPU what its caches hold, on a GPU what keeps it busy.
BLOCKS = {"cpu": 1 << 22, "cuda": 1 << 26, "mps": 1 << 24}

#: Values of a target that are copied at a time.
COPIED = 1 << 20

#: Layer → (1, N, h, w).
Maps = Mapping[str, Tensor]
#: Layer → its target.
Targets = Mapping[str, Directions | SharedDirections]


@dataclass(frozen=True)
class StyleMaps:
    """A style at the size of one scale.

    Attributes:
        maps: Layer → its features (1, N, h, w). What is copied from them has their type.
        labels: (h, w) in cells, the number of each cell's region; None for region 0.
        share: Of the blend, > 0.
    """

    maps: Maps
    labels: Tensor | None
    share: float

    def mean(self, layer: str) -> Tensor:
        """(N,), of the features of a layer."""
        return precise(self.maps[layer]).mean((0, 2, 3))

    @property
    def cells(self) -> Size:
        """Rows and columns of cells."""
        finest = min(self.maps, key=lambda layer: minimum_side([layer]))
        h, w = size_of(self.maps[finest])
        stride = minimum_side([finest])
        return cells_of((h * stride, w * stride))


class StyleAtScale(Protocol):
    """What is known of a style at the size of one scale."""

    @property
    def share(self) -> float:
        """Of the blend, > 0."""

    def mean(self, layer: str) -> Tensor:
        """(N,), of the features of a layer."""


S = TypeVar("S", bound=StyleAtScale)


@dataclass(frozen=True, eq=False)
class TargetSearch(ABC, Generic[S]):
    """The objective of one scale, whose targets are found when the scale begins.

    Attributes:
        settings: `content_weight` w is the share α = w/(1 + w) of the content in the search; the rest is the picture of
            the coarser scale.
        content: (1, 3, h, w), in the style's palette.
        styles: At least one.
        labels: (h, w) in cells, the number of each cell's region in the content; None for region 0.
        coarser: How many coarser scales are painted before.
        by_layer: Whether each layer is matched by itself.
    """

    settings: RenderSettings
    content: Tensor
    styles: Sequence[S]
    labels: Tensor | None = None
    coarser: int = 0
    by_layer: bool = False

    #: Cosine distances need no divisors.
    energies: Mapping[str, Tensor] = field(default_factory=dict, init=False)

    def begin(self, network: VGG, picture: Tensor) -> Pyramid:
        """Find the targets for a picture (1, 3, h, w), with which the scale begins."""
        with torch.no_grad():
            directions = (
                self._by_layer(network, picture)
                if self.by_layer
                else self._by_hypercolumn(network, self._query(picture))
            )
        return Pyramid((Objective({}, {}, self.settings, directions=directions),))

    @abstractmethod
    def _by_hypercolumn(self, network: VGG, picture: Tensor) -> Targets:
        """Targets at the places of the nearest hypercolumns."""

    @abstractmethod
    def _by_layer(self, network: VGG, picture: Tensor) -> Targets:
        """Targets for each layer by itself."""

    def _query(self, picture: Tensor) -> Tensor:
        """What is searched for: the content, and the coarser picture (1, 3, h, w) with the content's fine detail."""
        content = self.content.to(picture.dtype)
        if not self.coarser:
            return content
        weight = self.settings.content_weight
        alpha = weight / (1 + weight) * 0.5 ** (self.coarser - 1)
        h, w = size_of(picture)
        blurred = resize(resize(content, (max(1, h // 2), max(1, w // 2))), (h, w))
        # In place: these are large.
        detailed = blurred.neg_().add_(picture).add_(content)
        return detailed.mul_(1 - alpha).add_(content, alpha=alpha)

    def _mean(self, layer: str) -> Tensor:
        """(N,), the styles' mean by their shares."""
        total = sum(style.share for style in self.styles)
        means = [style.share / total * style.mean(layer) for style in self.styles]
        return torch.stack(means).sum(0)


class Matching(TargetSearch[StyleMaps]):
    """A search among all features of the styles."""

    def _by_hypercolumn(self, network: VGG, picture: Tensor) -> dict[str, Directions]:
        maps, size = maps_within(network, picture), size_of(picture)
        cells, side = cells_of(size), 3 if max(size) <= PATCHED_SIDE else 1
        scales = _scales([style.maps for style in self.styles])
        candidates = [self._candidates(style) for style in self.styles]
        offsets = [0, *accumulate(style.cells[0] * style.cells[1] for style in self.styles)]
        rows = torch.cat([c + o for c, o in zip(candidates, offsets[:-1], strict=True)])
        labels = torch.cat([_labels_at(s.labels, s.cells, rows.device) for s in self.styles])
        here = _labels_at(self.labels, cells, rows.device)

        queries = patches(hypercolumns(maps, _scales([maps]), cells), side)
        each = zip(self.styles, candidates, strict=True)
        keys = torch.cat(
            [patches(hypercolumns(s.maps, scales, s.cells), side)[own] for s, own in each]
        )
        found = rows[matched(queries, keys, here, labels[rows])].view(cells)
        del queries, keys
        return {layer: self._copied(layer, found, offsets, maps[layer]) for layer in maps}

    def _candidates(self, style: StyleMaps) -> Tensor:
        """The cells of a style that may be matched: not its border, thinned in proportion to its share."""
        return _thinned(_inner(style.cells, self.content.device), 1 / self._relative(style))

    def _relative(self, style: StyleMaps) -> float:
        """A style's share, relative to the largest one."""
        return style.share / max(other.share for other in self.styles)

    def _copied(
        self, layer: str, found: Tensor, offsets: Sequence[int], like: Tensor
    ) -> Directions:
        """The target of a layer: the features of the matched places.

        Args:
            layer: Its name.
            found: (rows, columns) of the picture's cells: the matched cell, counted over all styles.
            offsets: The first cell of each style, and the number of all.
            like: (1, N, h, w), the picture's map.
        """
        mean = self._mean(layer)
        stride, (h, w) = minimum_side([layer]), size_of(like)
        y = torch.arange(h, device=found.device) * stride
        x = torch.arange(w, device=found.device) * stride
        rows, columns = (
            (y // CELL).clamp_max(len(found) - 1),
            (x // CELL).clamp_max(found.shape[1] - 1),
        )
        each = found[rows][:, columns]
        # In the memory order of the maps: mixed orders slow every comparison down.
        kept = self.styles[0].maps[layer].dtype
        unit = torch.empty_like(like, dtype=kept, memory_format=torch.channels_last)
        for here in blocks(h, max(1, COPIED // like[0, :, 0].numel())):
            target = torch.zeros_like(like[0][:, here], dtype=mean.dtype)
            for style, begin, end in zip(self.styles, offsets, offsets[1:], strict=False):
                width = style.cells[1]
                cell = (each[here] - begin).clamp(0, end - begin - 1)
                map_ = style.maps[layer][0]
                top = (cell // width * CELL + (y[here] % CELL)[:, None]) // stride
                left = (cell % width * CELL + (x % CELL)[None]) // stride
                top, left = top.clamp_max(map_.shape[1] - 1), left.clamp_max(map_.shape[2] - 1)
                own = (each[here] >= begin) & (each[here] < end)
                target = torch.where(own, map_[:, top, left].to(mean.dtype), target)
            unit[0][:, here] = nnf.normalize(target.sub_(mean[:, None, None]), dim=0).to(kept)
        return Directions(mean, unit)

    def _by_layer(self, network: VGG, picture: Tensor) -> dict[str, Directions]:
        found = {}
        for layer, map_ in maps_within(network, picture).items():
            mean = self._mean(layer)
            each = [_sampled(style, layer, self._relative(style)) for style in self.styles]
            table, labels = (torch.cat(parts) for parts in zip(*each, strict=True))
            here = _labels_at(self.labels, size_of(map_), map_.device)
            index = matched(precise(map_[0].flatten(1).T), table, here, labels)
            unit = nnf.normalize(table - mean, dim=1).to(self.styles[0].maps[layer].dtype)
            found[layer] = Directions(mean, unit[index].T.reshape(map_.shape))
        return found


def maps_within(network: VGG, picture: Tensor) -> dict[str, Tensor]:
    """The maps (1, N, h, w) of a picture with mirrored surroundings.

    Without them the network's padding would be part of the features, and no part of the style resembles it.
    """
    h, w = size_of(picture)
    around = min(MARGIN, (min(h, w) - 1) // 16 * 16)
    maps = network(nnf.pad(picture, (around,) * 4, mode="reflect"))
    found = {}
    for layer, map_ in maps.items():
        stride = minimum_side([layer])
        first, rows, columns = around // stride, h // stride, w // stride
        found[layer] = map_[..., first : first + rows, first : first + columns]
    return found


def hypercolumns(maps: Maps, scales: Mapping[str, tuple[Tensor, Tensor]], cells: Size) -> Tensor:
    """The features of all layers at each cell, relative to the layer's mean and deviation, as (1, ΣN, h, w).

    Each layer has the same weight, regardless of its number of channels.

    Args:
        maps: Layer → (1, N, h, w).
        scales: Layer → mean (1, N, 1, 1) and root mean square deviation ().
        cells: Rows and columns.
    """
    columns = []
    for layer, map_ in maps.items():
        mean, deviation = scales[layer]
        values = precise(map_)
        if minimum_side([layer]) < CELL:
            values = nnf.adaptive_avg_pool2d(values, cells)
        elif size_of(values) != cells:
            values = nnf.interpolate(values, size=cells, mode="bilinear", align_corners=False)
        columns.append((values - mean) / (deviation * map_.shape[1] ** 0.5))
    return torch.cat(columns, 1)


def patches(columns: Tensor, side: int) -> Tensor:
    """(M, N·side²), the side × side neighbourhood of each of the M positions of (1, N, h, w), edges repeated."""
    if side == 1:
        return columns.flatten(2)[0].T
    around = nnf.pad(columns, (side // 2,) * 4, mode="replicate")
    return nnf.unfold(around, side)[0].T


def matched(queries: Tensor, keys: Tensor, query_labels: Tensor, key_labels: Tensor) -> Tensor:
    """For each query the index (M,) of the nearest key of its own region, or of any region if its own has no keys.

    Args:
        queries: (M, N).
        keys: (K, N).
        query_labels: (M,), numbers of regions.
        key_labels: (K,).
    """
    found = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for label in query_labels.unique().tolist():  # type: ignore[no-untyped-call]
        rows = (query_labels == label).nonzero()[:, 0]
        columns = (key_labels == label).nonzero()[:, 0]
        if not len(columns):
            columns = torch.arange(len(keys), device=keys.device)
        # Large: no copies for a single region.
        own = queries if len(rows) == len(queries) else queries[rows]
        theirs = keys if len(columns) == len(keys) else keys[columns]
        found[rows] = columns[nearest(own, theirs)]
    return found


def nearest(queries: Tensor, keys: Tensor, *, hub: float = HUB, block: int | None = None) -> Tensor:
    """For each query the index (M,) of the key with the largest centred cosine similarity, less its hub penalty.

    The penalty of a key is `hub` times its mean similarity to the queries nearest to it.

    Args:
        queries: (M, N); their mean is subtracted.
        keys: (K, N); their mean is subtracted.
        hub: The factor on the penalty, ≥ 0.
        block: The number of similarities that are computed at a time; that of `BLOCKS` unless given.
    """
    block = block or BLOCKS[queries.device.type]
    q, k = (_directions(rows) for rows in (queries, keys))
    sample = q[:: max(1, -(-len(q) // SAMPLE))]
    return most_similar(q, k, hub * nearby(k, sample, block), block)


def nearby(keys: Tensor, queries: Tensor, block: int) -> Tensor:
    """(K,), the mean similarity of each key to the queries nearest to it; 0 without queries.

    Args:
        keys: (K, N), of length 1.
        queries: (M, N), of length 1.
        block: The number of similarities that are computed at a time.
    """
    if not (count := min(HUB_NEIGHBOURS, len(queries))):
        return keys.new_zeros(len(keys))
    space = _space(keys, queries, block)
    parts = [s.topk(count, dim=1).values.mean(1) for s in _similar(keys, queries, space)]
    return torch.cat(parts)


def most_similar(queries: Tensor, keys: Tensor, penalty: Tensor, block: int) -> Tensor:
    """For each query the index (M,) of the key with the largest similarity, less its penalty.

    Args:
        queries: (M, N), of length 1.
        keys: (K, N), of length 1.
        penalty: (K,).
        block: The number of similarities that are computed at a time.
    """
    best = penalty.new_full((len(queries),), -torch.inf)
    found = torch.zeros_like(best, dtype=torch.int64)
    # Square blocks: products of few rows and many take twice as long on a CPU.
    side = max(1, isqrt(block))
    space = _space(queries, keys[:side], block)
    for some in blocks(len(keys), side):
        each = [s.sub_(penalty[some]).max(1) for s in _similar(queries, keys[some], space)]
        value, index = (torch.cat(parts) for parts in zip(*each, strict=True))
        found = torch.where(value > best, index + some.start, found)
        best = torch.maximum(value, best)
    return found


def _similar(a: Tensor, b: Tensor, space: Tensor) -> Iterator[Tensor]:
    """The similarities (M', K) of all rows (M, N) to the rows (K, N), for some of the M at a time.

    Each is overwritten by the next: if they were freed, what is allocated in between would settle in their place in a
    CPU's heap, and at 1024 px the search would take a gigabyte more.

    Args:
        a: The rows.
        b: The others.
        space: (S,), where similarities are written.
    """
    for part in torch.split(a, max(1, len(space) // max(1, len(b)))):
        yield _products(part, b, space[: len(part) * len(b)].view(len(part), len(b)))


def _space(a: Tensor, b: Tensor, block: int) -> Tensor:
    """(S,), for at most `block` similarities of rows (M, N) to rows (K, N), or for those of one row."""
    size = max(len(b), min(block, len(a) * len(b)))
    return a.new_empty(size, dtype=torch.promote_types(a.dtype, torch.float32))


def _directions(rows: Tensor) -> Tensor:
    """(M, N): the rows relative to their mean, of length 1.

    On NVIDIA's GPUs in float16, which has as many bits as TF32 and is multiplied at ten times the speed of float32.
    """
    unit = rows - rows.mean(0)
    unit /= unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    nvidia = unit.is_cuda and torch.version.hip is None
    return unit.half() if nvidia and unit.dtype == torch.float32 else unit


def _products(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """The inner products (M, K) of rows (M, N) and (K, N), added up in float32 if these are float16.

    Args:
        a: The rows.
        b: The others.
        out: Where they are written.
    """
    if a.dtype == torch.float16:
        return torch.mm(a, b.T, out_dtype=torch.float32, out=out)
    return torch.mm(a, b.T, out=out)


def _scales(pictures: Sequence[Maps]) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer → mean (1, N, 1, 1) and root mean square deviation () over the positions of several pictures."""
    found = {}
    for layer in pictures[0]:
        counts, means, variances = [], [], []
        for maps in pictures:
            flat = precise(maps[layer]).flatten(2)
            variance, mean = torch.var_mean(flat, 2, correction=0, keepdim=True)
            counts.append(flat.shape[2])
            means.append(mean)
            variances.append(variance)
        shares = torch.tensor(counts).to(means[0]) / sum(counts)
        mean = (torch.stack(means, 3) * shares).sum(3)
        spread = [v + (m - mean).square() for v, m in zip(variances, means, strict=True)]
        deviation = (torch.stack(spread, 3) * shares).sum(3).mean().sqrt().clamp_min(1e-12)
        found[layer] = mean[..., None], deviation
    return found


def _sampled(style: StyleMaps, layer: str, share: float) -> tuple[Tensor, Tensor]:
    """At most `SAMPLE` features (K, N) of a style's layer without its border, and their regions' numbers (K,).

    Args:
        style: The style.
        layer: Its layer.
        share: Of the sample, relative to the style with the largest share.
    """
    map_ = style.maps[layer]
    index = _inner(size_of(map_), map_.device)
    rows = _thinned(index, max(1.0, len(index) / max(1, round(SAMPLE * share))))
    labels = _labels_at(style.labels, size_of(map_), map_.device)
    return precise(map_[0].flatten(1).T[rows]), labels[rows]


def _inner(size: Size, device: torch.device) -> Tensor:
    """(K,), the indices of a map's positions without its border; of all positions if the map is small."""
    index = torch.arange(size[0] * size[1], device=device).view(size)
    if min(size) > 4 * BORDER:
        index = index[BORDER:-BORDER, BORDER:-BORDER]
    return index.flatten()


def _thinned(index: Tensor, step: float) -> Tensor:
    """One in `step` ≥ 1 of some indices (K,)."""
    chosen = torch.arange(0, len(index), step, device=index.device).long()
    return index[chosen.clamp_max(len(index) - 1)]  # the last one may be rounded up


def _labels_at(labels: Tensor | None, size: Size, device: torch.device) -> Tensor:
    """(M,), the regions' numbers at the positions of a map."""
    if labels is None:
        return torch.zeros(size[0] * size[1], dtype=torch.int64, device=device)
    image = labels.to(device, torch.float32)[None, None]
    return nnf.interpolate(image, size=size, mode="nearest").long().flatten()


def cells_of(size: Size) -> Size:
    """Rows and columns of the cells of a picture of this size in pixels."""
    return max(1, size[0] // CELL), max(1, size[1] // CELL)


def cell_labels(guide: Tensor, numbers: Sequence[int]) -> Tensor:
    """(h, w), the number of the region that covers most of each cell.

    Args:
        guide: (1, R, H, W), the weight of each region at each pixel.
        numbers: (R,), the regions' numbers.
    """
    largest = nnf.adaptive_avg_pool2d(guide, cells_of(size_of(guide)))[0].argmax(0)
    return torch.tensor(numbers, device=guide.device)[largest]
