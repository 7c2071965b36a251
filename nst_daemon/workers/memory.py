"""How large a picture would have fitted: learnt from those that were painted."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass
from math import floor, sqrt
from pathlib import Path

import torch

#: The share of what is there that a picture may take, for what else is needed at its size.
SHARE = 0.9


@dataclass
class Footprint:
    """Memory for each pixel of a painting.

    limit: bytes that there are for everything; base: bytes that are in use before any painting; peak: the most bytes
    that were in use while `pixels` pixels were painted, the most so far.
    """

    limit: int
    base: int
    peak: int = 0
    pixels: int = 0

    def painted(self, pixels: int, peak: int) -> None:
        """Take notice of so many pixels, at which at most `peak` bytes were in use so far."""
        if pixels >= self.pixels and peak > self.base:
            self.pixels, self.peak = pixels, peak

    def largest_side(self) -> int | None:
        """The longer side in pixels of a 4:3 picture that should fit, in tens; None where nothing is known yet."""
        if not self.pixels:
            return None
        pixels = SHARE * (self.limit - self.base) * self.pixels / (self.peak - self.base)
        return 10 * floor(sqrt(pixels * 4 / 3) / 10)


def footprint(device: torch.device) -> Footprint:
    """What is in use now, and what there is; peaks count from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        used = peak_bytes(device)
        free, _ = torch.cuda.mem_get_info(device)
        return Footprint(limit=free + used, base=used)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: proc_pid_clear_refs(5)
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return Footprint(limit=limit, base=peak_bytes(device))


def peak_bytes(device: torch.device) -> int:
    """The most bytes that this process has had in use: of the GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
