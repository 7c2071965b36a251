"""`style_loss: neighbours` for pictures whose features do not fit into memory: the search goes from tile to tile.

A style is a regular sample of its cells (`CELLS`), with their hypercolumns and their features. The search passes over
the picture twice: first for the means that are subtracted, the layers' deviations and the sample for the hub penalty,
then for the nearest cells. Only their numbers are kept, and each tile's targets are looked up when it is painted. Apart
from the sample the targets are those of `engine.neighbours`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.engine.directions import SharedDirections, Window
from nst_daemon.engine.images import size_of
from nst_daemon.engine.neighbours import (
    BLOCKS,
    BORDER,
    CELL,
    HUB,
    MARGIN,
    SAMPLE,
    Maps,
    TargetSearch,
    cells_of,
    most_similar,
    nearby,
)
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.tiles import margin
from nst_daemon.engine.vgg import VGG, layer_names
from nst_daemon.pictures.raster import Size

#: Cells of all styles that take part in a search, at most.
CELLS = 1 << 14
#: Longest side of a tile in pixels.
SIDE = 512
#: Pixels around a tile whose features are needed to interpolate those of its outermost cells.
EDGE = 16


@dataclass
class Moments:
    """Sums over the positions of a layer, in float64: their number, Σ F (N,) and Σ ‖F‖²."""

    count: int = 0
    features: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, rows: Tensor) -> None:
        """Count some positions (M, N)."""
        self.count += len(rows)
        self.features = self.features + rows.sum(0, dtype=torch.float64)
        self.squares = self.squares + rows.square().sum(dtype=torch.float64)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.features + other.features,
            self.squares + other.squares,
        )

    @property
    def mean(self) -> Tensor:
        """(N,)."""
        return torch.as_tensor(self.features) / max(1, self.count)

    @property
    def deviation(self) -> Tensor:
        """(), the root mean square distance of a value from its channel's mean."""
        mean = self.mean
        variance = (self.squares / max(1, self.count) - mean.square().sum()) / len(mean)
        return torch.as_tensor(variance).clamp_min(1e-24).sqrt()


@dataclass(frozen=True)
class Keys:
    """Features that are compared with those of the picture.

    Attributes:
        rows: (K, N).
        labels: (K,), the numbers of their regions.
    """

    rows: Tensor
    labels: Tensor


@dataclass(frozen=True)
class StyleSample:
    """A sample of a style at the size of one scale.

    Attributes:
        share: Of the blend, > 0.
        moments: Layer → of all its positions.
        columns: Its hypercolumns, the layers' features side by side and not scaled, in float16.
        features: Layer → (K, per², N), the features at the positions of each of the same cells.
        single: Layer → features of the layer by itself.
    """

    share: float
    moments: Mapping[str, Moments]
    columns: Keys
    features: Mapping[str, Tensor]
    single: Mapping[str, Keys]

    def mean(self, layer: str) -> Tensor:
        """(N,), of the features of a layer."""
        return self.moments[layer].mean


@dataclass(frozen=True)
class FeatureTile:
    """A part of a picture: its pixels, and the maps (1, N, h, w) of its layers in a window that contains them."""

    core: Window
    window: Window
    maps: Maps

    def rows(self, layer: str) -> tuple[Tensor, Window]:
        """The features (M, N) at the core's positions of a layer, and their place in the whole picture's map."""
        stride = minimum_side([layer])
        at = _divided(self.core, stride)
        inside = _shifted(at, _divided(self.window, stride))
        return self.maps[layer][(0, slice(None), *inside)].flatten(1).T, at

    def columns(self) -> tuple[Tensor, Window]:
        """The hypercolumns (M, ΣN) of the core's cells, not scaled, and their place among the picture's cells."""
        at = _divided(self.core, CELL)
        inside = _shifted(at, _divided(self.window, CELL))
        cells = cells_of((_length(self.window[0]), _length(self.window[1])))
        parts = []
        for layer, map_ in self.maps.items():
            if minimum_side([layer]) < CELL:
                values = nnf.adaptive_avg_pool2d(map_, cells)
            else:
                values = nnf.interpolate(map_, size=cells, mode="bilinear", align_corners=False)
            parts.append(values[(0, slice(None), *inside)].flatten(1).T)
        return torch.cat(parts, 1), at

    def features(self, layer: str, y: Tensor, x: Tensor) -> Tensor:
        """(K, per², N): a layer's features at the positions of K of the picture's cells, in rows y and columns x."""
        stride, map_ = minimum_side([layer]), self.maps[layer][0]
        per = max(1, CELL // stride)
        top, left = _divided(self.window, stride)
        offsets = torch.arange(per, device=map_.device)
        rows = (y * CELL // stride - top.start)[:, None] + offsets
        columns = (x * CELL // stride - left.start)[:, None] + offsets
        rows, columns = (
            index.clamp(0, length - 1)
            for index, length in zip((rows, columns), map_.shape[1:], strict=True)
        )
        return map_[:, rows[:, :, None], columns[:, None, :]].flatten(2).permute(1, 2, 0)


def sampled(
    picture: Tensor,
    features: Callable[[Tensor], Maps],
    layers: Sequence[str],
    *,
    labels: Tensor | None,
    share: float,
    relative: float,
) -> StyleSample:
    """A sample of a style.

    Args:
        picture: (1, 3, h, w), at the size of the scale.
        features: Computes the maps of a part of it.
        layers: Their names.
        labels: (h, w) in cells, the number of each cell's region; None for region 0.
        share: Of the blend.
        relative: The share, relative to the largest one of all styles.
    """
    cells = cells_of(size_of(picture))
    chosen = _sample(cells, round(CELLS * share), 1 / relative)
    columns: list[Tensor] = []
    kept: dict[str, list[Tensor]] = {}
    places: list[Tensor] = []
    moments: dict[str, Moments] = {}
    single: dict[str, list[Tensor]] = {}
    labelled: dict[str, list[Tensor]] = {}
    for tile in _tiles(picture, features, _around(layers), mirrored=False):
        rows, at = tile.columns()
        y, x = _within(chosen, at)
        columns.append(rows[(y - at[0].start) * _length(at[1]) + x - at[1].start].half())
        places.append(_labels_at(labels, cells, y, x))
        for layer in tile.maps:
            own, where = tile.rows(layer)
            moments.setdefault(layer, Moments()).add(own)
            kept.setdefault(layer, []).append(tile.features(layer, y, x).half())
            size = _map_size(size_of(picture), layer)
            v, u = _within(_sample(size, round(SAMPLE * relative), 1.0), where)
            single.setdefault(layer, []).append(
                own[(v - where[0].start) * _length(where[1]) + u - where[1].start]
            )
            labelled.setdefault(layer, []).append(_labels_at(labels, size, v, u))
    return StyleSample(
        share,
        moments,
        Keys(torch.cat(columns), torch.cat(places)),
        {layer: torch.cat(parts) for layer, parts in kept.items()},
        {layer: Keys(torch.cat(single[layer]), torch.cat(labelled[layer])) for layer in single},
    )


class SampledMatching(TargetSearch[StyleSample]):
    """A search among samples of the styles, from tile to tile."""

    def _by_hypercolumn(self, network: VGG, picture: Tensor) -> dict[str, SharedDirections]:
        size, styles = size_of(picture), self.styles
        together = {
            layer: sum((style.moments[layer] for style in styles), Moments())
            for layer in styles[0].moments
        }
        keys = _joined([style.columns for style in styles])
        search = _Search(keys, _factors(together), self.labels, cells_of(size))
        own: dict[str, Moments] = {layer: Moments() for layer in together}
        for tile in _tiles(picture, network, _around(network.layers), mirrored=True):
            search.measure(*tile.columns())
            for layer, moments in own.items():
                moments.add(tile.rows(layer)[0])
        search.begin(_factors(own))
        for tile in _tiles(picture, network, _around(network.layers), mirrored=True):
            search.find(*tile.columns())
        found = {}
        for layer in together:
            mean, stride = self._mean(layer).to(picture), minimum_side([layer])
            features = torch.cat([style.features[layer] for style in styles]).flatten(0, 1)
            found[layer] = SharedDirections(
                mean,
                _unit(features, mean),
                search.found,
                per=max(1, CELL // stride),
                skip=max(1, stride // CELL),
                size=_map_size(size, layer),
            )
        return found

    def _by_layer(self, network: VGG, picture: Tensor) -> dict[str, SharedDirections]:
        size, searches, tables = size_of(picture), {}, {}
        for layer in self.styles[0].single:
            keys = _joined([style.single[layer] for style in self.styles])
            tables[layer] = keys.rows
            even = torch.ones(keys.rows.shape[1], device=keys.rows.device)
            searches[layer] = _Search(keys, even, self.labels, _map_size(size, layer))
        for tile in _tiles(picture, network, _around(network.layers), mirrored=True):
            for layer, search in searches.items():
                search.measure(*tile.rows(layer))
        for search in searches.values():
            search.begin(search.factors)
        for tile in _tiles(picture, network, _around(network.layers), mirrored=True):
            for layer, search in searches.items():
                search.find(*tile.rows(layer))
        found = {}
        for layer, search in searches.items():
            mean = self._mean(layer).to(picture)
            found[layer] = SharedDirections(
                mean,
                _unit(tables[layer], mean),
                search.found,
                per=1,
                skip=1,
                size=_map_size(size, layer),
            )
        return found


class _Search:
    """For each position of a map the nearest key, as `neighbours.nearest` finds it, from tile to tile.

    Args:
        keys: What is compared.
        factors: (N,), on the keys' values.
        labels: (h, w), the numbers of the picture's regions; None for region 0.
        size: Rows and columns of the map.

    Attributes:
        found: (h, w), the index of the key.
    """

    def __init__(self, keys: Keys, factors: Tensor, labels: Tensor | None, size: Size) -> None:
        device = keys.rows.device
        self.keys, self.factors, self.labels, self.size = keys, factors, labels, size
        self.found = torch.zeros(size, dtype=torch.int32, device=device)
        self._moments: dict[int, Moments] = {}
        self._samples: dict[int, list[Tensor]] = {}
        self._step = max(1, -(-size[0] * size[1] // SAMPLE))
        # Region → the numbers of its keys, their directions and penalties, and the mean of its queries.
        self._ready: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def measure(self, rows: Tensor, at: Window) -> None:
        """The first pass: features (M, N) at a place of the map."""
        y, x = _positions(at, rows.device)
        labels = _labels_at(self.labels, self.size, y, x)
        chosen = (y * self.size[1] + x) % self._step == 0
        for label in labels.unique().tolist():  # type: ignore[no-untyped-call]
            here = labels == label
            self._moments.setdefault(label, Moments()).add(rows[here])
            self._samples.setdefault(label, []).append(rows[here & chosen])

    def begin(self, factors: Tensor) -> None:
        """Prepare the second pass. factors: (N,), on the picture's values."""
        own = self.keys.labels
        first = next(iter(self._samples.values()))[0]
        scaled = self.keys.rows.to(first) * self.factors.to(first)
        self.factors = factors.to(first)
        for label, moments in self._moments.items():
            numbers = (own == label).nonzero()[:, 0]
            if not len(numbers):
                numbers = torch.arange(len(own), device=own.device)
            rows = scaled[numbers]
            keys = nnf.normalize(rows - rows.mean(0), dim=1)
            mean = moments.mean.to(scaled) * self.factors
            sample = torch.cat(self._samples.pop(label)) * self.factors - mean
            sample = nnf.normalize(sample, dim=1)
            penalty = HUB * nearby(keys, sample, self._block)
            self._ready[label] = numbers, keys, penalty, mean

    def find(self, rows: Tensor, at: Window) -> None:
        """The second pass: note the nearest key of each of the features (M, N) at a place of the map."""
        labels = _labels_at(self.labels, self.size, *_positions(at, rows.device))
        found = torch.zeros_like(labels)
        for label in labels.unique().tolist():  # type: ignore[no-untyped-call]
            numbers, keys, penalty, mean = self._ready[label]
            here = labels == label
            queries = nnf.normalize(rows[here] * self.factors - mean, dim=1)
            found[here] = numbers[most_similar(queries, keys, penalty, self._block)]
        height, width = (axis.stop - axis.start for axis in at)
        self.found[at] = found.view(height, width).to(torch.int32)

    @property
    def _block(self) -> int:
        """The number of similarities that are computed at a time."""
        return BLOCKS[self.found.device.type]


def _tiles(
    picture: Tensor, features: Callable[[Tensor], Maps], around: int, *, mirrored: bool
) -> Iterator[FeatureTile]:
    """A picture (1, 3, h, w) part by part.

    Args:
        picture: Whose features are wanted.
        features: Computes the maps of a part of it.
        around: Pixels that its cells see beyond themselves, rounded up to a multiple of the deepest layer's stride.
        mirrored: With mirrored surroundings, as `neighbours.maps_within`.
    """
    size = size_of(picture)
    if mirrored:
        around = min(around, (min(size) - 1) // 16 * 16)
        picture = nnf.pad(picture, (around,) * 4, mode="reflect")
    for corner in product(range(0, size[0], SIDE), range(0, size[1], SIDE)):
        rows, columns = (
            _axis(start, length, around, mirrored=mirrored)
            for start, length in zip(corner, size, strict=True)
        )
        found = features(picture[..., rows.area, columns.area])
        window = rows.window, columns.window
        maps = {}
        for layer, map_ in sorted(found.items()):
            stride = minimum_side([layer])
            height, width = (_length(axis) for axis in _divided(window, stride))
            top, left = rows.edge // stride, columns.edge // stride
            inside = map_[..., top : top + height, left : left + width]
            maps[layer] = inside.to(torch.promote_types(map_.dtype, torch.float32))
        yield FeatureTile((rows.core, columns.core), window, maps)


@dataclass(frozen=True)
class _Axis:
    """The extents of a tile along one axis, in pixels: `area` is what the network reads, in which `window` begins at
    `edge`."""

    core: slice
    window: slice
    area: slice
    edge: int


def _axis(start: int, length: int, around: int, *, mirrored: bool) -> _Axis:
    """A tile's axis that begins at `start`, of a picture of `length` pixels."""
    stop = min(start + SIDE, length)
    begin, end = max(0, start - EDGE), min(length, stop + EDGE)
    if mirrored:  # the picture has got `around` more pixels on each side
        area = slice(begin, end + 2 * around)
        return _Axis(slice(start, stop), slice(begin, end), area, around)
    area = slice(max(0, begin - around), min(length, end + around))
    return _Axis(slice(start, stop), slice(begin, end), area, begin - area.start)


def _around(layers: Iterable[str]) -> int:
    """How far the cells of these layers see beyond themselves, at least `neighbours.MARGIN`.

    Raises:
        SettingsError: The network is EfficientNet, whose cells see the whole picture.
    """
    names, layers = layer_names(), set(layers)
    if not layers <= set(names):
        return margin(layer_names("efficientnet_b0"))
    return max(MARGIN, margin(names[: 1 + max(names.index(layer) for layer in layers)]))


def _factors(moments: Mapping[str, Moments]) -> Tensor:
    """(ΣN,), the factors that give each layer of a hypercolumn the same weight (`neighbours.hypercolumns`)."""
    each = []
    for layer in sorted(moments):
        mean = moments[layer].mean
        each.append((1 / (moments[layer].deviation * len(mean) ** 0.5)).expand(len(mean)))
    return torch.cat(each)


def _joined(keys: Sequence[Keys]) -> Keys:
    return Keys(torch.cat([each.rows for each in keys]), torch.cat([each.labels for each in keys]))


def _unit(features: Tensor, mean: Tensor) -> Tensor:
    """(K, N) in float16, the directions of some features from a mean."""
    return nnf.normalize(features.to(mean) - mean, dim=1).half()


def _sample(size: Size, count: int, step: float) -> tuple[Tensor, Tensor]:
    """Rows and columns (K,) of at most `count` positions of a map without its border, at least `step` apart."""
    border = BORDER if min(size) > 4 * BORDER else 0
    width = size[1] - 2 * border
    total = (size[0] - 2 * border) * width
    step = max(step, total / max(1, count))
    chosen = torch.arange(0, total, step, dtype=torch.float64).long().clamp_max(total - 1)
    return chosen // width + border, chosen % width + border


def _within(chosen: tuple[Tensor, Tensor], at: Window) -> tuple[Tensor, Tensor]:
    """The positions that are in a window."""
    y, x = chosen
    here = (y >= at[0].start) & (y < at[0].stop) & (x >= at[1].start) & (x < at[1].stop)
    return y[here], x[here]


def _positions(at: Window, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns (M,) of the positions of a window."""
    y, x = (torch.arange(axis.start, axis.stop, device=device) for axis in at)
    grid = torch.meshgrid(y, x, indexing="ij")
    return grid[0].flatten(), grid[1].flatten()


def _labels_at(labels: Tensor | None, size: Size, y: Tensor, x: Tensor) -> Tensor:
    """(M,), the regions' numbers at some rows and columns of a map of this size."""
    if labels is None:
        return torch.zeros_like(y)
    rows, columns = (
        index * length // whole
        for index, length, whole in zip((y, x), labels.shape, size, strict=True)
    )
    return labels[rows, columns]


def _map_size(size: Size, layer: str) -> Size:
    """Rows and columns of a layer's map of a picture."""
    stride = minimum_side([layer])
    return size[0] // stride, size[1] // stride


def _divided(window: Window, stride: int) -> Window:
    """A window of pixels in positions."""
    rows, columns = (slice(axis.start // stride, axis.stop // stride) for axis in window)
    return rows, columns


def _shifted(window: Window, base: Window) -> Window:
    """A window in a map that begins where another window begins."""
    rows, columns = (
        slice(axis.start - first.start, axis.stop - first.start)
        for axis, first in zip(window, base, strict=True)
    )
    return rows, columns


def _length(axis: slice) -> int:
    return int(axis.stop - axis.start)
