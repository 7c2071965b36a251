"""Targets: content features and style statistics, computed by onnxruntime; style statistics are cached.

The ONNX file (`nst_daemon.export.graph`) takes `image` (1, 3, H, W) and `guide` (1, R, H, W). It returns
`<layer>.gram` (R, N, N) and `<layer>.mean` (R, N) of style layers and `<layer>` (1, N, h, w) of content layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.digests import sha256_file
from nst_daemon.engine.images import size_of
from nst_daemon.engine.losses import StyleStatistics
from nst_daemon.engine.memory import SHARE, TILE_SIDES, exhausted, free_memory
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.onnx_session import OnnxSession, output_names, unusable
from nst_daemon.engine.style_cache import StyleCache, style_key
from nst_daemon.engine.tiles import Tile, margin, tiles
from nst_daemon.engine.vgg import layer_names
from nst_daemon.errors import first_line

log = logging.getLogger(__name__)

#: Bytes that onnxruntime takes per pixel: three maps of the first, widest block, and one multiplied by a guide.
PIXEL_BYTES = 4 * 64 * 4


class OnnxTargets:
    """A `TargetSource` over one ONNX file.

    Pictures are (1, 3, H, W), float32, RGB in [0, 1], on any device; results are float32 on `device`.

    Args:
        onnx_file: As `nst_daemon.export.graph` writes it.
        device: Where results are wanted; onnxruntime uses it if its CUDA provider loads, else the CPU.
        threads: CPU threads; torch's number unless given.
        cache: Of style statistics; None for none.
        tile_sides: Longest sides of tiles to try, largest first, if a picture does not fit into memory.
        free: Bytes of memory that are free on a device.
        open_session: Opens a part of the file.

    Raises:
        ModelError: The file is missing, damaged or of another kind.
    """

    def __init__(
        self,
        onnx_file: Path,
        *,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        cache: StyleCache | None = None,
        tile_sides: Sequence[int] = TILE_SIDES,
        free: Callable[[torch.device], float] = free_memory,
        open_session: Callable[..., OnnxSession] = OnnxSession,
    ) -> None:
        self.file = onnx_file
        self.device = torch.device(device)
        self._threads = threads or torch.get_num_threads()
        self._cache = cache
        self._tile_sides, self._free = tile_sides, free
        self._open_session = open_session
        try:
            self.digest = sha256_file(onnx_file)
            outputs = output_names(onnx_file)
        except Exception as error:
            raise unusable(onnx_file, error) from error
        self.style_layers = tuple(n[:-5] for n in outputs if n.endswith(".gram"))
        self.content_layers = tuple(n for n in outputs if "." not in n)
        self._sessions: dict[str, OnnxSession] = {}

    @property
    def providers(self) -> tuple[str, ...]:
        """onnxruntime's providers that loaded, the preferred one first."""
        return self._session("content" if self.content_layers else "style").providers

    def content(self, image: Tensor) -> dict[str, Tensor]:
        """The features (1, N, h, w) of each content layer."""
        if not self.content_layers:
            return {}
        return self._within_memory(self._content, image, self.content_layers)

    def style(self, image: Tensor, guide: Tensor | None = None) -> dict[str, StyleStatistics]:
        """Gram matrices (R, N, N) and means (R, N) of each style layer.

        Args:
            image: (1, 3, H, W).
            guide: (1, R, H, W), weights ≥ 0 of each region; one region everywhere unless given.
        """
        if not self.style_layers:
            return {}
        if guide is None:
            guide = torch.ones_like(image[:, :1])
        key = style_key(self.digest, image, guide) if self._cache else ""
        found = self._cache.get(key) if self._cache else None
        if found is None:
            found = self._within_memory(partial(self._style, guide), image, self.style_layers)
            if self._cache:
                self._cache.put(key, found)
        return {
            name: StyleStatistics(
                gram=found[f"{name}.gram"].to(self.device),
                mean=found[f"{name}.mean"].to(self.device),
            )
            for name in self.style_layers
        }

    def _within_memory(
        self,
        run: Callable[[Tensor, list[Tile]], dict[str, Tensor]],
        image: Tensor,
        layers: Sequence[str],
    ) -> dict[str, Tensor]:
        """Run in one piece if that fits by estimate, else in tiles, and in smaller ones if memory runs out."""
        names = layer_names()  # VGG19's: a VGG16 layer of the same name sees no further
        if not set(layers) <= set(
            names
        ):  # EfficientNet: each cell sees everything, so tiles are impossible
            everything = slice(0, image.shape[-2]), slice(0, image.shape[-1])
            return run(image, [Tile(everything, everything)])
        names = names[: 1 + max(names.index(layer) for layer in layers)]
        size = size_of(image)
        around = 2 * margin(names)
        fits = SHARE * self._free_bytes() / PIXEL_BYTES
        areas = [
            (side, min(side + around, size[0]) * min(side + around, size[1]))
            for side in self._tile_sides
        ]
        sides = [max(size) + around] if size[0] * size[1] <= fits else []  # one tile
        sides += [side for side, area in areas if area <= fits and side < max(size)]
        smallest = self._tile_sides[-1]
        for side in sides or [smallest]:
            try:
                return run(image, list(tiles(size, side, names)))
            except Exception as error:
                if not exhausted(error) or side <= smallest:
                    raise
                log.info("out of memory (%s): smaller tiles", first_line(error))
        raise AssertionError("the last side either returns or raises")

    def _free_bytes(self) -> float:
        """Bytes that onnxruntime can still allocate; on a GPU, torch's unused cache is not available to it."""
        if self.device.type == "cuda" and self.providers[0] == "CUDAExecutionProvider":
            return torch.cuda.mem_get_info(self.device)[0]
        return self._free(torch.device("cpu"))

    def _content(self, image: Tensor, plan: list[Tile]) -> dict[str, Tensor]:
        """The features, assembled from each tile's own cells."""
        session = self._session("content")
        if len(plan) == 1:
            return session.run({"image": image})
        maps: dict[str, Tensor] = {}
        for tile in plan:
            found = session.run({"image": image[(..., *tile.area)]})
            for layer, part in found.items():
                if layer not in maps:
                    stride = minimum_side([layer])
                    h, w = image.shape[-2] // stride, image.shape[-1] // stride
                    maps[layer] = part.new_empty(1, part.shape[1], h, w)
                outside, inside = tile.cells(layer)
                maps[layer][(..., *outside)] = part[(..., *inside)]
        return maps

    def _style(self, guide: Tensor, image: Tensor, plan: list[Tile]) -> dict[str, Tensor]:
        """The statistics: the mean over the tiles' cores, by the weight that the guide gives each core."""
        session = self._session("style")
        if len(plan) == 1:
            return session.run({"image": image, "guide": guide})
        sums: dict[str, Tensor] = {}
        total = _guide_sums(guide, self.style_layers)
        for tile in plan:
            own = torch.zeros_like(guide)
            own[(..., *tile.core)] = guide[(..., *tile.core)]
            own = own[(..., *tile.area)]
            weights = _guide_sums(own, self.style_layers)
            found = session.run({"image": image[(..., *tile.area)], "guide": own})
            for name, value in found.items():
                layer = name.partition(".")[0]
                share = (weights[layer] / total[layer].clamp_min(1e-8)).to(value)
                shared = value * share.view(-1, *[1] * (value.dim() - 1))
                sums[name] = sums[name] + shared if name in sums else shared
        return sums

    def _session(self, kind: str) -> OnnxSession:
        """The session for content or for style, which computes nothing that only the other one needs."""
        if kind not in self._sessions:
            if kind == "content":
                inputs, outputs = ["image"], list(self.content_layers)
            else:
                inputs = ["image", "guide"]
                outputs = [f"{n}.{k}" for n in self.style_layers for k in ("gram", "mean")]
            self._sessions[kind] = self._open_session(
                self.file,
                inputs=inputs,
                outputs=outputs,
                device=self.device,
                threads=self._threads,
            )
        return self._sessions[kind]


def _guide_sums(guide: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Layer → (R,), the sum of a guide (1, R, H, W) averaged down to the layer's size."""
    halved, sums = {1: guide.float()}, {}
    for layer in layers:
        stride = minimum_side([layer])
        while max(halved) < stride:
            halved[2 * max(halved)] = nnf.avg_pool2d(halved[max(halved)], 2)
        sums[layer] = halved[stride].sum((-2, -1))[0]
    return sums
