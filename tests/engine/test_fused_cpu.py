"""The fused operations of a CPU against plain torch, in float64 where values are rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.engine import fused_cpu, fusion
from nst_daemon.engine.directions import WHOLE, Directions, cosine_distances
from nst_daemon.engine.vgg import VGG
from tests.engine.conftest import CPU
from tests.engine.test_fusion import LAYERS, maps_and_gradient, picture, relative, without_fusion

DTYPES = {"float32": (torch.float32, 2e-6), "bfloat16": (torch.bfloat16, 4e-3)}
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), DTYPES.values(), ids=DTYPES)


def maps(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return x.to(dtype, memory_format=torch.channels_last)


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor, slope: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = function(x)
    return [y.detach(), *torch.autograd.grad(y, x, slope.to(y.dtype))]


@dtypes
@pytest.mark.parametrize("block", [fused_cpu.BLOCK, 64 * 70])
def test_cosine_distances_and_their_gradient(
    dtype: torch.dtype, tolerance: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum and its gradient agree with float64 for windows of features and directions, in one block or in many."""
    monkeypatch.setattr(fused_cpu, "BLOCK", block)
    T = nnf.normalize(maps(1, 64, 7, 71), dim=1).to(dtype)
    F = maps(1, 64, 6, 77, dtype=dtype)[..., 1:6, 3:70]
    mean, slope, window = (
        maps(1, 64, 1, 1).flatten() * 0.3,
        torch.tensor(0.7),
        (slice(2, 7), slice(4, 71)),
    )
    exact = Directions(mean.double(), T.double())
    found = with_gradient(
        lambda x: fused_cpu.cosine_distances(x, mean, T[(..., *window)]), F, slope
    )
    wanted = with_gradient(lambda x: cosine_distances(x, exact, window), F.double(), slope)
    assert found[0].dtype == torch.float32 and found[1].dtype == dtype
    assert relative(found[0], wanted[0]) < 2e-6
    assert relative(found[1], wanted[1]) < tolerance


def test_a_position_at_the_mean() -> None:
    """Where F = μ the gradient is that of nnf.normalize, also if the sum does not count."""
    F, mean = torch.zeros(1, 64, 1, 1), torch.zeros(64)
    plain = Directions(mean, nnf.normalize(maps(1, 64, 1, 1), dim=1))
    for slope in (torch.tensor(1.0), torch.tensor(0.0)):
        found = with_gradient(lambda x: fused_cpu.cosine_distances(x, mean, plain.unit), F, slope)
        with without_fusion():
            wanted = with_gradient(lambda x: cosine_distances(x, plain, WHOLE), F, slope)
        assert float(found[0]) == 1.0
        assert torch.allclose(found[1], wanted[1], rtol=1e-6)


@dtypes
@pytest.mark.parametrize("shape", [(1, 64, 7, 71), (2, 32, 5, 9), (1, 128, 4, 8), (2, 64, 2, 3)])
def test_max_pool(dtype: torch.dtype, tolerance: float, shape: tuple[int, ...]) -> None:
    """After a ReLU maxima and gradients equal torch's to the bit, with equal values in a window and odd sides."""
    assert tolerance > 0
    x = (maps(*shape, dtype=dtype) * 2).round()
    slope = maps(*shape[:2], shape[2] // 2, shape[3] // 2, dtype=dtype)
    found = with_gradient(lambda x: fused_cpu.max_pool2(x.relu()), x, slope)
    wanted = with_gradient(lambda x: nnf.max_pool2d(x.relu(), 2), x, slope)
    assert all(map(torch.equal, found, wanted))
    inner = with_gradient(fused_cpu.max_pool2, x.relu(), slope)[1]
    assert torch.equal(inner, inner * (x > 0))


def test_max_pool_keeps_nan() -> None:
    """A window with NaN has the maximum NaN, so that a painter sees that a step went wrong."""
    x = maps(1, 64, 4, 4)
    x[0, 5, 2, 3] = torch.nan
    assert fused_cpu.max_pool2(x).isnan().nonzero().tolist() == [[0, 5, 1, 1]]


@pytest.mark.parametrize("dtype", fusion.DTYPES)
@pytest.mark.parametrize("layers", [LAYERS, ("relu1_2", "relu4_1"), ("pool1", "relu2_2", "pool2")])
def test_a_network_computes_the_same(
    weights: Mapping[str, Tensor], dtype: torch.dtype, layers: tuple[str, ...]
) -> None:
    """Maps and gradient are those of torch's own operations, also of maps before and after a pooling."""
    network = VGG(weights, layers).compute_in(dtype)
    found = maps_and_gradient(network, picture())
    assert fusion.kernels(CPU, dtype) is fused_cpu
    with without_fusion():
        wanted = maps_and_gradient(network, picture())
    assert max(map(relative, found, wanted)) < (1e-5 if dtype == torch.float32 else 2e-2)
