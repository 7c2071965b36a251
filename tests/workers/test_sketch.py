"""What the time-lapse and the preview show of a step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nst_daemon.painter import Prepared


def sketch(pixels: torch.Tensor, side: int, alpha: torch.Tensor | None = None) -> Image.Image:
    """The sketch of a step of a 64 × 48 picture."""
    prepared: Any = SimpleNamespace(alpha=alpha, scene=SimpleNamespace(size=(48, 64)))
    step: Any = SimpleNamespace(image=lambda: pixels)
    return Prepared.sketch(prepared, step, side)


@pytest.mark.parametrize(("side", "size"), [(32, (32, 24)), (64, (64, 48)), (400, (64, 48))])
def test_every_scale_is_shown_in_one_size(side: int, size: tuple[int, int]) -> None:
    """Coarse and fine scales give pictures of one size, which is never larger than the result."""
    for factor in (0.25, 0.5, 1.0):
        pixels = torch.rand(1, 3, int(48 * factor), int(64 * factor))
        shown = sketch(pixels, side)
        assert (shown.size, shown.mode) == (size, "RGB")


def test_what_is_transparent_is_white() -> None:
    """Where the result is transparent the sketch is white, and elsewhere as painted."""
    alpha = torch.ones(1, 48, 64)
    alpha[..., 32:] = 0
    shown = np.asarray(sketch(torch.zeros(1, 3, 12, 16), 64, alpha))
    assert (shown[:, 40:] == 255).all()
    assert (shown[:, :24] == 0).all()
