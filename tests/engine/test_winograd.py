"""The convolution with fewer multiplications against torch's direct one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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


@pytest.mark.parametrize("masked", [False, True])
def test_the_relu_is_part_of_it(masked: bool) -> None:
    """With `relu` negative results are 0 and get no gradient, unless the caller masks the gradient itself."""
    x, weight, bias = _drawn((2, 6, 9, 13), 8, torch.float64)
    kernels = winograd.transformed(weight)
    found = winograd.convolve(x, kernels, bias, relu=True, masked=masked)
    plain = nnf.conv2d(x, weight, bias, padding=1)
    slope = torch.randn(plain.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    wanted = plain if masked else plain.relu()
    torch.testing.assert_close(found, plain.relu(), rtol=0, atol=1e-10)
    gradients = [torch.autograd.grad(y, x, slope, retain_graph=True)[0] for y in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_float32_is_accurate_to_a_ten_thousandth() -> None:
    """With 256 channels in float32 no value is off by more than 1e-4 of the largest one."""
    _assert_equal(*_drawn((1, 256, 16, 16), 256, torch.float32), within=1e-4)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 2e-6), (torch.bfloat16, 0.025)])
def test_its_error_is_small(dtype: torch.dtype, most: float) -> None:
    """With 256 channels the error is below 2e-6 of the result in float32, and below 2.5 % in bfloat16."""
    for found, wanted in _compared(*_drawn((1, 256, 16, 16), 256, dtype)):
        assert (found - wanted).norm() < most * wanted.norm()


def test_the_factors_are_exact_in_bfloat16() -> None:
    """Rounding to bfloat16 does not change the matrices that transform inputs and outputs."""
    for matrix in (winograd.INPUT, winograd.OUTPUT):
        assert torch.equal(matrix.bfloat16().double(), matrix)


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
    """A 64 px picture's relu3_1 passes through it; maps agree with the direct ones to 1e-4, or 1e-5 of their norm."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fast = VGG(weights, ["relu1_2", "relu3_1"])(image)
        monkeypatch.setattr(winograd, "pays", lambda conv, x: False)
        direct = VGG(weights, ["relu1_2", "relu3_1"])(image)
    assert not torch.equal(fast["relu3_1"], direct["relu3_1"])
    torch.testing.assert_close(fast, direct, rtol=1e-4, atol=1e-4)
    for layer, wanted in direct.items():
        assert (fast[layer] - wanted).norm() < 1e-5 * wanted.norm()


def test_only_a_quick_network_uses_it_in_bfloat16(
    weights: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 only a network's quick copy uses it, within 5 % of the original, which the copy does not change."""
    monkeypatch.setattr(winograd, "cpu_supports", {"avx512_bf16"}.__contains__)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    network = VGG(weights, ["relu3_1"]).computing_in(torch.bfloat16)
    with torch.no_grad():
        maps = [each(image)["relu3_1"] for each in (network, network.quick(), network)]
        monkeypatch.setattr(winograd, "pays", lambda conv, x: False)
        direct = network(image)["relu3_1"]
    before, quick, after = maps
    assert torch.equal(before, direct) and torch.equal(after, direct)
    assert 0 < (quick - direct).norm() < 0.05 * direct.norm()


def test_each_precision_has_its_own_kernels(
    weights: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that has convolved in float32 returns, when made to compute in bfloat16, maps in bfloat16."""
    monkeypatch.setattr(winograd, "cpu_supports", {"avx512_bf16"}.__contains__)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    network = VGG(weights, ["relu3_1"])
    with torch.no_grad():
        first = network(image)["relu3_1"]
        other = network.computing_in(torch.bfloat16).quick()(image)["relu3_1"]
    assert (first.dtype, other.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(network(image)["relu3_1"], first)


def test_narrow_layers_and_small_maps_are_left_to_torch() -> None:
    """It is not used for few channels, nor for a map that is small compared with its kernels."""
    wide, narrow = nn.Conv2d(512, 512, 3), nn.Conv2d(64, 64, 3)
    assert winograd.pays(wide, torch.empty(1, 512, 16, 32))
    assert not winograd.pays(wide, torch.empty(1, 512, 16, 31))
    assert not winograd.pays(narrow, torch.empty(1, 64, 64, 64))


@pytest.mark.parametrize(
    ("instructions", "pays"),
    [({"avx512_bf16"}, True), ({"avx512_bf16", "amx_tile"}, False), (set(), False)],
)
def test_bfloat16_pays_with_one_set_of_instructions(
    monkeypatch: pytest.MonkeyPatch, instructions: set[str], pays: bool
) -> None:
    """In bfloat16 narrower layers pay than in float32, and none does with AMX or without AVX512-BF16."""
    monkeypatch.setattr(winograd, "cpu_supports", instructions.__contains__)
    conv, x = nn.Conv2d(128, 128, 3), torch.empty(1, 128, 64, 64)
    assert winograd.pays(conv, x.bfloat16()) is pays
    assert not winograd.pays(conv, x)
    assert winograd.pays(nn.Conv2d(128, 256, 3), x)


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
    for found, wanted in _compared(x, weight, bias):
        assert (found - wanted).abs().max() <= within * wanted.abs().max()


def _compared(x: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Values and gradient, and those of the direct convolution in float64."""
    found = winograd.convolve(x, winograd.transformed(weight), bias)
    wanted = nnf.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    slope = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2)).to(x.dtype)
    (gradient,) = torch.autograd.grad(found, x, slope)
    (expected,) = torch.autograd.grad(wanted, x, slope.double())
    yield found.double(), wanted
    yield gradient.double(), expected.double()
