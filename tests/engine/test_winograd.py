"""The convolution with fewer multiplications against torch's direct one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from nst_daemon.engine import winograd
from nst_daemon.engine.vgg import VGG

SIZES = [((1, 5, 13, 18), 7), ((2, 3, 4, 4), 2), ((1, 4, 1, 1), 4), ((3, 6, 9, 33), 8)]


@pytest.mark.parametrize(("shape", "outputs"), SIZES)
def test_values_and_gradient_are_those_of_the_direct_convolution(
    shape: tuple[int, int, int, int], outputs: int
) -> None:
    """In float64 both agree to rounding with torch's convolution at sizes that are no multiples of a tile."""
    _assert_equal(*_drawn(shape, outputs, torch.float64), within=1e-12)


def test_strips_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that is convolved strip by strip has the values and the gradient of the direct convolution."""
    monkeypatch.setattr(winograd, "STRIP", 36 * 9 * 8 * 2)  # two rows of tiles
    _assert_equal(*_drawn((1, 6, 22, 33), 8, torch.float64), within=1e-12)


def test_float32_is_accurate_to_a_ten_thousandth() -> None:
    """With 256 channels in float32 no value is off by more than 1e-4 of the largest one."""
    _assert_equal(*_drawn((1, 256, 16, 16), 256, torch.float32), within=1e-4)


def test_the_result_is_channels_last() -> None:
    """Values and gradient are channels last."""
    x, weight, bias = _drawn((1, 8, 8, 8), 8, torch.float32)
    y = winograd.convolve(x, winograd.transformed(weight), bias)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_the_network_uses_it_where_it_pays(
    weights: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 64 px picture's relu3_1 passes through it, and the maps agree with the direct ones to 1e-4."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fast = VGG(weights, ["relu1_2", "relu3_1"])(image)
        monkeypatch.setattr(winograd, "pays", lambda conv, x: False)
        direct = VGG(weights, ["relu1_2", "relu3_1"])(image)
    assert not torch.equal(fast["relu3_1"], direct["relu3_1"])
    torch.testing.assert_close(fast, direct, rtol=1e-4, atol=1e-4)


def test_narrow_layers_and_small_maps_are_left_to_torch() -> None:
    """It is not used for few channels, nor for a map that is small compared with its kernels."""
    wide, narrow = nn.Conv2d(512, 512, 3), nn.Conv2d(64, 64, 3)
    assert winograd.pays(wide, torch.empty(1, 512, 16, 32))
    assert not winograd.pays(wide, torch.empty(1, 512, 16, 31))
    assert not winograd.pays(narrow, torch.empty(1, 64, 64, 64))


def _drawn(
    shape: tuple[int, int, int, int], outputs: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """A map of `shape` (B, C, H, W) that requires a gradient, kernels and a bias."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=dtype)

    return normal(*shape).requires_grad_(), normal(outputs, shape[1], 3, 3), normal(outputs)


def _assert_equal(x: Tensor, weight: Tensor, bias: Tensor, *, within: float) -> None:
    """Values and gradient agree, relative to the largest."""
    found = winograd.convolve(x, winograd.transformed(weight), bias)
    wanted = nnf.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    slope = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    (gradient,) = torch.autograd.grad(found, x, slope)
    (expected,) = torch.autograd.grad(wanted, x, slope.double())
    for a, b in ((found, wanted), (gradient, expected)):
        assert (a - b).abs().max() <= within * b.abs().max()
