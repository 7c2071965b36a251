"""The coordinates in which the optimiser moves the picture."""

from __future__ import annotations

import torch
from torch import Tensor


class Preconditioner:
    """A linear change of variables: picture = base + irfft(rfft(z) · gain), gain = (0.52/(f + 0.02))^exponent.

    f is the frequency in cycles per pixel. The finest detail keeps its scale, and broad changes become many times as
    easy. The map is self-adjoint. With exponent 0, z is the picture itself.

    Args:
        base: (1, 3, h, w), the picture to start from.
        exponent: ≥ 0; `RenderSettings.precondition`.
    """

    def __init__(self, base: Tensor, exponent: float) -> None:
        self.shape = base.shape
        self.exponent = exponent
        self.base = base
        if exponent:
            h, w = base.shape[-2:]
            fy = torch.fft.fftfreq(h, device=base.device)[:, None]
            fx = torch.fft.rfftfreq(w, device=base.device)[None]
            self.gain = (0.52 / ((fy.square() + fx.square()).sqrt() + 0.02)) ** exponent

    def start(self) -> Tensor:
        """The z (n,) of the picture to start from."""
        return (torch.zeros_like(self.base) if self.exponent else self.base).flatten()

    def picture(self, z: Tensor) -> Tensor:
        """The picture (1, 3, h, w) of z (n,), in memory of its own."""
        if not self.exponent:
            return z.view(self.shape).clone()
        return self._filtered(z.view(self.shape)).add_(self.base)

    def gradient(self, g: Tensor) -> Tensor:
        """The gradient (n,) by z, from g (1, 3, h, w), that by the picture; g is overwritten."""
        return (self._filtered(g, g) if self.exponent else g).flatten()

    def _filtered(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """rfft(x) · gain, transformed back; on a CPU in the memory of `out`, which may be x."""
        if x.device.type != "cpu":
            filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * self.gain, s=x.shape[-2:])
            return filtered
        # One channel at a time: three spectra of a large picture would take as much memory as the picture.
        out = torch.empty_like(x) if out is None else out
        for channel, into in zip(x[0], out[0], strict=True):
            spectrum = torch.fft.rfft2(channel).mul_(self.gain)
            into.copy_(torch.fft.irfft2(spectrum, s=channel.shape))
        return out
