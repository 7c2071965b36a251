"""How much memory there is, how much a painting takes, and the ways to paint in less of it.

Preflight and emergency go down one ladder, the `ways`: a shorter history for L-BFGS, then activations that are computed
again on the way back, then smaller and smaller tiles. The picture keeps its size.
"""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from dataclasses import dataclass
from math import floor, inf, sqrt
from pathlib import Path

import torch
from torch import nn

from nst_daemon.engine.evaluation import Evaluation, checkpointed, whole
from nst_daemon.engine.networks import minimum_side
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.engine.tiles import Tiled, margin
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import NstError

Size = tuple[int, int]  # (height, width) in pixels

#: The share of what is free that a plan may take: estimates are estimates, and something else may grow meanwhile.
SHARE = 0.9
#: Bytes that a painting takes whatever its size: Gram matrices, the libraries' working memory.
FIXED = 160 << 20
#: Bytes of a vector of the optimiser for each pixel: three channels in float32.
VECTOR = 12
#: Vectors besides L-BFGS's pairs: its point, step and gradients, the picture's copies, spectra, what passes by.
VECTORS = 24
#: A map's gradient is there this many times while it is made: its own, and that of the map behind it.
PASSING = 2
#: Pairs that L-BFGS is left with at least.
LEAST_HISTORY = 5
#: Longest sides of tiles, in pixels. Below the last, halos would be most of the work.
SIDES = (4096, 2048, 1024, 512, 256, 128)

#: What oneDNN, CUDA and its libraries, onnxruntime and torch say where memory ends, in errors of their general kind.
_WORDS = (
    "can't allocate memory",
    "Failed to allocate memory",
    "bad_alloc",
    "could not create a memory object",
    "could not create a primitive",
    "_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "out of memory",
    "Resource temporarily unavailable",  # no room for the stack of a new thread
)


def exhausted(error: BaseException) -> bool:
    """Does this error of a library say that there is no memory left?"""
    if isinstance(error, NstError):
        return False  # it may quote one that did
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in _WORDS)


def free(device: torch.device) -> float:
    """Bytes that this process can still take: of the GPU's memory, or of the machine's within the process' limits."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    status = _kibibytes(Path("/proc/self/status"))
    left: list[float] = [_kibibytes(Path("/proc/meminfo")).get("MemAvailable", inf)]
    for limited, used in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        limit, _ = resource.getrlimit(limited)
        if limit != resource.RLIM_INFINITY and used in status:
            left.append(limit - status[used])
    return min(left)


def _kibibytes(file: Path) -> dict[str, float]:
    """The lines `Name: number kB` of a file in /proc, in bytes; nothing where there is no such file."""
    found = {}
    with suppress(OSError):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = 1024.0 * int(value.split()[0])
    return found


def give_back() -> None:
    """Hand what the C library keeps of freed memory back to the machine, where it can (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True)
class Way:
    """A way to paint. history: pairs of L-BFGS, 0 for Adam; again: compute activations again; side: of tiles, or 0."""

    history: int
    again: bool = False
    side: int = 0

    def __str__(self) -> str:
        history = f"a history of {self.history}" if self.history else ""
        again = "activations computed twice" if self.again else ""
        tiles = f"tiles of {self.side} px" if self.side else ""
        return ", ".join(filter(None, (history, again, tiles))) or "all at once"

    @property
    def evaluation(self) -> Evaluation:
        """How loss and gradient are found."""
        if self.side:
            return Tiled(self.side)
        return checkpointed if self.again else whole

    def canvas(self, size: Size) -> float:
        """Bytes of everything that is as large as the picture: the optimiser's memory and copies of the picture."""
        return (2 * self.history + VECTORS) * VECTOR * size[0] * size[1] + FIXED

    def activations(self, size: Size, network: VGG) -> float:
        """Bytes of the network's activations, at the moment when there are most."""
        h, w = size
        if self.side:
            around = 2 * margin(network.names)
            h, w = min(h, self.side + around), min(w, self.side + around)
        return h * w * activation_bytes(network, again=self.again)

    def largest_side(self, memory: float) -> int:
        """The longer side, in tens of pixels, of the 4:3 picture that bytes of memory are just enough for."""
        pixels = max(0.0, memory - FIXED) / (self.canvas((1, 1)) - FIXED)
        return 10 * floor(sqrt(pixels * 4 / 3) / 10)


def ways(settings: RenderSettings) -> list[Way]:
    """From the fastest way to the one that takes least."""
    history = settings.history if settings.optimizer == "lbfgs" else 0
    found = [Way(history)]
    while (history := max(LEAST_HISTORY, history // 4)) < found[-1].history:
        found.append(Way(history))
    least = found[-1].history
    return [*found, Way(least, again=True), *(Way(least, side=side) for side in SIDES)]


def activation_bytes(network: VGG, *, again: bool) -> float:
    """Bytes for each pixel of the activations that an evaluation holds at its worst moment.

    Everything that the way back needs, and the largest gradient on it: what is freed on the way is not counted on, for
    allocators give it back late. again: what goes from stage to stage until then, and all of one stage. Both are within
    a tenth of what `python -m benchmarks.memory` measures.
    """
    size = network.dtype.itemsize
    kept = worst = widest = 0.0
    channels = 0
    for stage in network.stages():
        here = handed = widest_here = 0.0
        for i in stage:
            name, module = network.names[i], network.features[i]
            if isinstance(module, nn.Conv2d):
                channels = module.out_channels
            values = channels / minimum_side([name]) ** 2
            widest_here = max(widest_here, values)
            handed = values * size
            if name in network.layers or not name.startswith("conv"):
                here += handed
            if name.startswith("pool") and network.pooling == "max":
                here += 8 * values  # where the largest were
            if name in network.layers and size < 4:
                here += 4 * values  # sums are taken in float32
        worst = max(worst, kept + here + PASSING * widest_here * size)
        widest = max(widest, widest_here)
        kept += handed if again else here
    return worst if again else kept + PASSING * widest * size


def first_that_fits(ladder: list[Way], size: Size, network: VGG, memory: float) -> int:
    """Which of the ways fits into so many bytes; the last where none does."""

    def fits(way: Way) -> bool:
        return way.canvas(size) + way.activations(size, network) <= SHARE * memory

    return next((i for i, way in enumerate(ladder) if fits(way)), len(ladder) - 1)
