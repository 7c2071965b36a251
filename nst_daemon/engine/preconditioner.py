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
        self.base = base if exponent else torch.zeros_like(base)
        self.start = (torch.zeros_like(base) if exponent else base).flatten()
        if exponent:
            h, w = base.shape[-2:]
            fy = torch.fft.fftfreq(h, device=base.device)[:, None]
            fx = torch.fft.rfftfreq(w, device=base.device)[None]
            self.gain = (0.52 / ((fy.square() + fx.square()).sqrt() + 0.02)) ** exponent

    def picture(self, z: Tensor) -> Tensor:
        """The picture (1, 3, h, w) of z (n,)."""
        return self.base + self._filtered(z.view(self.shape))

    def gradient(self, g: Tensor) -> Tensor:
        """The gradient (n,) with respect to z, from g (1, 3, h, w) with respect to the picture."""
        return self._filtered(g).flatten()

    def _filtered(self, x: Tensor) -> Tensor:
        if not self.exponent:
            return x
        filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * self.gain, s=x.shape[-2:])
        return filtered
