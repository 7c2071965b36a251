"""How much memory is free, how much a painting takes, and plans to paint with less.

The preflight check and an out-of-memory error go through the same list of plans: a shorter history for L-BFGS, then
recomputed activations, then smaller and smaller tiles. The picture keeps its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor, sqrt

import torch
from torch import nn

from nst_daemon import machine
from nst_daemon.engine import fusion
from nst_daemon.engine.evaluation import Evaluation, checkpointed, whole
from nst_daemon.engine.neighbours import BLOCKS, CELL
from nst_daemon.engine.networks import channels, minimum_side
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.tiles import Tiled, margin
from nst_daemon.engine.vgg import VGG, compute_dtype
from nst_daemon.errors import NstError, OutOfMemory
from nst_daemon.pictures.raster import Size

#: The share of the free memory that a plan may take: estimates are inexact, and other processes may allocate.
SHARE = 0.9
#: Bytes that a painting takes at any size: Gram matrices, kernels and strips of `engine.winograd` (40 MB in bfloat16,
#: 65 MB in float32 with the default's layers), the libraries' working memory.
FIXED_BYTES = 160 << 20
#: Bytes of one of the optimiser's vectors per pixel: three channels in float32.
VECTOR_BYTES = 12
#: Further vectors of a picture in one piece: the temporaries of total variation, which in tiles is computed in strips.
WHOLE_VECTORS = 14.5
#: Vectors besides L-BFGS's pairs in tiles: the content at all scales in float16, the start and the best picture, the
#: optimiser's point, gradient and step, the picture that is evaluated with its gradient and mask, and a spectrum.
VECTORS = 8.5
#: Maps that exist besides the kept activations at the worst moment of a backward pass: a gradient and the one before.
TRANSIENT_MAPS = 2
#: The same where a convolution and its ReLU are one operation: there is the masked gradient too.
FUSED_TRANSIENT_MAPS = 3
#: Pairs that L-BFGS keeps at least.
MINIMUM_HISTORY = 5
#: The same in bfloat16, for tiles of at most this side: then a picture is so large that vectors fill the memory.
HALF_HISTORY, HALF_SIDE = 2, 512
#: Bytes that `style_loss: neighbours` takes per pixel, and at any size, if its styles are samples (`engine.sampled`).
SAMPLED_BYTES, SAMPLED_FIXED = 6.0, 448 << 20
#: Longest sides of tiles in pixels. Below the last one, halos would be most of the work.
TILE_SIDES = (4096, 2048, 1024, 512, 256, 128)


def exhausted(error: BaseException) -> bool:
    """True if this error of a library means a lack of memory."""
    if isinstance(error, NstError):
        return False  # it may quote such an error
    return isinstance(error, torch.OutOfMemoryError) or machine.lacks_memory(error)


def out_of_memory(
    size: Size, cause: str, settings: RenderSettings, *, largest_side: int = 0
) -> OutOfMemory:
    """The error for a picture that no plan fits.

    Args:
        size: Of the picture.
        cause: In a few words.
        settings: Of the picture.
        largest_side: The longer side of a 4:3 picture that would fit; 0 if unknown.
    """
    hint = f": about {largest_side} px should fit (4:3)" if largest_side else ""
    less = ", a preset that needs less (spst)" if settings.style_loss == "neighbours" else ""
    return OutOfMemory(
        f"{size[1]} × {size[0]} pixels do not fit into memory, even in tiles ({cause})",
        remedy=f"choose a smaller size{hint}{less}, or free some memory (or raise limits.max_memory, if it is set)",
    )


def free_memory(device: torch.device) -> float:
    """Bytes that this process can still allocate: of the GPU's memory, or of the machine's (`machine.free_memory`)."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":  # a part of the machine's memory
        unused = torch.mps.driver_allocated_memory() - torch.mps.current_allocated_memory()
        left = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return min(float(left + unused), machine.free_memory())
    return machine.free_memory()


def empty_cache(device: torch.device) -> None:
    """Return memory that torch or the C library keeps for reuse: to a GPU, or to the system."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:
        machine.trim_heap()


@dataclass(frozen=True)
class MemoryPlan:
    """How to paint: everything that trades time for memory.

    Attributes:
        history: Pairs that L-BFGS keeps; 0 for Adam.
        recompute: Recompute activations in the backward pass.
        tile: Longest side of tiles in pixels; 0 for the whole picture at once.
        features: Bytes per pixel of the features that are kept and compared.
        search: Bytes per pixel of the search for neighbours, which ends before activations are kept.
        block: Bytes of that search at any size.
        fixed: Bytes that the painting takes at any size.
        half: L-BFGS stores its pairs in bfloat16.
        cosine: The objective compares directions only.
    """

    history: int
    recompute: bool = False
    tile: int = 0
    features: float = 0.0
    search: float = 0.0
    block: int = 0
    fixed: int = FIXED_BYTES
    half: bool = False
    cosine: bool = False

    def __str__(self) -> str:
        half = " in bfloat16" if self.half else ""
        history = f"a history of {self.history}{half}" if self.history else ""
        recomputed = "recomputed activations" if self.recompute else ""
        tiles = f"tiles of {self.tile} px" if self.tile else ""
        return ", ".join(filter(None, (history, recomputed, tiles))) or "everything in memory"

    @property
    def evaluation(self) -> Evaluation:
        """Computes loss and gradient by this plan."""
        if self.tile:
            return Tiled(self.tile)
        return checkpointed if self.recompute else whole

    def optimizer_bytes(self, size: Size) -> float:
        """Bytes of everything that is as large as the picture and not in tiles: vectors, copies and features."""
        pairs = 2 * self.history * (0.5 if self.half else 1.0)
        others = VECTORS if self.tile else VECTORS + WHOLE_VECTORS
        vectors = (pairs + others) * VECTOR_BYTES
        return (vectors + self.features) * size[0] * size[1] + self.fixed

    @property
    def stored(self) -> torch.dtype | None:
        """The type of L-BFGS's pairs; None for that of its vectors."""
        return torch.bfloat16 if self.half else None

    def least_bytes(self, size: Size) -> float:
        """Bytes of everything that is not in tiles."""
        return self.optimizer_bytes(size) + self.search_bytes(size)

    def search_bytes(self, size: Size) -> float:
        """Peak bytes of the search for neighbours, besides the features that are kept. It is not in tiles."""
        return self.search * size[0] * size[1] + self.block

    def peak_bytes(self, size: Size, network: VGG) -> float:
        """Peak bytes of the painting: of a search, or of the iterations after it."""
        return max(self.least_bytes(size), self.iteration_bytes(size, network))

    def iteration_bytes(self, size: Size, network: VGG) -> float:
        """Peak bytes of an iteration."""
        return self.optimizer_bytes(size) + self.activation_bytes(size, network)

    def activation_bytes(self, size: Size, network: VGG) -> float:
        """Peak bytes of the network's activations."""
        h, w = size
        if self.tile:
            around = 2 * margin(network.names)
            h, w = min(h, self.tile + around), min(w, self.tile + around)
        cosine = self.cosine
        return h * w * bytes_per_pixel(network, recompute=self.recompute, cosine=cosine)

    def largest_side(self, memory: float) -> int:
        """The longer side, in tens of pixels, of the largest 4:3 picture of which `memory` bytes hold `least_bytes`."""
        at_any_size = self.least_bytes((0, 0))
        pixels = max(0.0, memory - at_any_size) / (self.least_bytes((1, 1)) - at_any_size)
        return 10 * floor(sqrt(pixels * 4 / 3) / 10)


def memory_plans(
    settings: RenderSettings,
    device: torch.device,
    tile_sides: Sequence[int] = TILE_SIDES,
    *,
    styles: int = 1,
    sampled: bool = False,
) -> list[MemoryPlan]:
    """The plans from the fastest to the one that takes least memory.

    Args:
        settings: Of the picture.
        device: Where it is painted.
        tile_sides: Longest sides of tiles, largest first.
        styles: The number of style pictures.
        sampled: The styles of `style_loss: neighbours` are samples.
    """
    history = settings.history if settings.optimizer == "lbfgs" else 0
    if settings.style_loss != "neighbours":
        plans = [MemoryPlan(history, features=_content_bytes(settings))]
    elif sampled:
        fixed = FIXED_BYTES + SAMPLED_FIXED
        plans = [MemoryPlan(history, features=SAMPLED_BYTES, fixed=fixed, cosine=True)]
    else:
        plans = [_searching(MemoryPlan(history, cosine=True), settings, device, styles)]
    while (history := max(MINIMUM_HISTORY, history // 4)) < plans[-1].history:
        plans.append(replace(plans[-1], history=history))
    last = plans[-1]
    short = replace(last, history=min(last.history, HALF_HISTORY), half=last.history > 0)
    if settings.style_loss != "neighbours":
        short = replace(short, features=last.features / 2)  # in float16
    tiled = (replace(short if side <= HALF_SIDE else last, tile=side) for side in tile_sides)
    return [*plans, replace(last, recompute=True), *tiled]


def memory_is_short(
    settings: RenderSettings, size: Size, device: torch.device, memory: float, *, styles: int = 1
) -> bool:
    """Whether what is not in tiles does not fit into `memory` bytes if features are kept as they are computed."""
    plan = memory_plans(settings, device, (HALF_SIDE + 1,), styles=styles)[-1]
    return plan.least_bytes(size) > SHARE * memory


def _content_bytes(settings: RenderSettings) -> float:
    """Bytes per pixel of the content's features in float32 at all scales, which have 4/3 of the last one's at most."""
    return 4 * _values(settings.content_layers) * 4 / 3


def _searching(
    plan: MemoryPlan, settings: RenderSettings, device: torch.device, styles: int
) -> MemoryPlan:
    """The plan with what `style_loss: neighbours` takes, if the styles are no samples.

    The targets of a scale and the features of each style at all scales are kept. The search has the picture's features
    and, in float32, the hypercolumns of picture and styles, twice: as they are and with length 1. The network's first
    maps and the features of its first layer, twice, exist at other times and take less.
    """
    values = _values(settings.style_layers)
    itemsize = compute_dtype(settings.precision, device).itemsize
    area = styles * settings.style_scale**2
    hypercolumn = sum(channels(layer) for layer in settings.style_layers) / CELL**2
    compared = max(2 * hypercolumn * (1 + area), 3 * channels("relu1_1"))
    return replace(
        plan,
        features=itemsize * values * (1 + area * 4 / 3),
        search=itemsize * values + 4 * compared,
        block=4 * BLOCKS[device.type],
    )


def _values(layers: Iterable[str]) -> float:
    """Features per pixel of a picture."""
    return sum(channels(layer) / minimum_side([layer]) ** 2 for layer in layers)


def bytes_per_pixel(network: VGG, *, recompute: bool, cosine: bool = False) -> float:
    """Peak bytes of activations of an evaluation, per pixel of the picture.

    Counts all that the backward pass needs and the largest gradient; memory freed in between is not subtracted,
    because allocators return it late. Within a tenth of what `python -m benchmarks.memory` measures.

    It depends on the network's device: with the operations that `engine.fusion` has on a GPU and on a CPU, pooling
    keeps no indices, cosine distances no sums in float32, and convolutions no inputs, so that pooled maps are freed.

    Args:
        network: Its layers, dtype and device.
        recompute: Only what passes between stages is kept, and all of one stage.
        cosine: The objective compares directions only.
    """
    kept = worst = widest = 0.0
    maps = FUSED_TRANSIENT_MAPS if _fusions(network)[0] else TRANSIENT_MAPS
    transient = maps * network.dtype.itemsize
    for stage in network.stages():
        here, handed, widest_here = _stage_bytes(network, stage, cosine)
        worst = max(worst, kept + here + transient * widest_here)
        widest = max(widest, widest_here)
        kept += handed if recompute else here
    return worst if recompute else kept + transient * widest


def _stage_bytes(network: VGG, stage: range, cosine: bool) -> tuple[float, float, float]:
    """Per pixel: the bytes that a stage keeps and that it hands on, and the values of its widest map."""
    size = network.dtype.itemsize
    convolves, kernels = _fusions(network)
    here = handed = widest = 0.0
    for i in stage:
        name = network.names[i]
        values = _channels_at(network, i) / minimum_side([name]) ** 2
        widest = max(widest, values)
        handed = values * size
        wanted, pooled = name in network.layers, name.startswith("pool")
        following = network.names[i + 1 : i + 2]
        freed = pooled and convolves and not network.layers.intersection(following)
        if wanted or not (freed or name.startswith("conv")):
            here += handed
        if pooled and network.pooling == "max" and not kernels:
            here += 8 * values  # int64 indices of the maxima
        if wanted and cosine and not kernels:
            here += 8 * values  # relative to the mean, and of length 1, in float32
        elif wanted and size < 4 and not cosine:
            here += 4 * values  # sums are taken in float32
    return here, handed, widest


def _fusions(network: VGG) -> tuple[bool, bool]:
    """Whether convolutions with their ReLUs are one operation, and whether there are fused kernels for the rest."""
    device = network.mean.device
    return (
        fusion.convolves(device, network.dtype),
        fusion.kernels(device, network.dtype) is not None,
    )


def _channels_at(network: VGG, index: int) -> int:
    """The channels of the map after a module."""
    before = list(network.features)[: index + 1]
    widths = [module.out_channels for module in before if isinstance(module, nn.Conv2d)]
    return widths[-1] if widths else 0


def first_fitting(plans: Sequence[MemoryPlan], size: Size, network: VGG, memory: float) -> int:
    """The index of the first plan that fits into `memory` bytes; the last index if none does.

    The search for neighbours does not count: it takes the same with any plan (`memory_is_short`).
    """
    fits = (plan.iteration_bytes(size, network) <= SHARE * memory for plan in plans)
    return next((i for i, fitting in enumerate(fits) if fitting), len(plans) - 1)
