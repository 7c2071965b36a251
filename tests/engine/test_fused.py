"""The fused kernels, in Triton's interpreter without a GPU, against plain torch in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from nst_daemon.engine import fused
from nst_daemon.engine.cuda_graph import cuda_graph
from nst_daemon.engine.directions import WHOLE, Directions, Window, cosine_distances

pytest.importorskip("triton")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # read by Triton when it is imported
#: Triton's kernels are either interpreted or compiled in one process.
kernels = pytest.mark.skipif(not INTERPRETED, reason="run by test_in_the_interpreter")
DTYPES = {"float32": (torch.float32, 2e-5), "bfloat16": (torch.bfloat16, 1e-2)}
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), DTYPES.values(), ids=DTYPES)


@pytest.mark.skipif(INTERPRETED, reason="is the interpreter")
def test_in_the_interpreter() -> None:
    """All tests of the kernels in this file pass in a process whose Triton interprets."""
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def maps(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return x.to(device, dtype, memory_format=torch.channels_last)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def with_gradient(function: Callable[[Tensor], Tensor], x: Tensor, slope: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = function(x)
    return [y.detach(), *torch.autograd.grad(y, x, slope.to(y.dtype))]


def check_cosine(F: Tensor, T: Tensor, window: Window, tolerance: float) -> None:
    mean = maps(1, F.shape[1], 1, 1, device=str(F.device)).flatten() * 0.3
    slope = torch.tensor(0.7, device=F.device)
    found = with_gradient(lambda x: fused.cosine_distances(x, mean, T[(..., *window)]), F, slope)
    exact = Directions(mean.double(), T.double())
    wanted = with_gradient(lambda x: cosine_distances(x, exact, window), F.double(), slope)
    assert found[0].dtype == torch.float32 and found[1].dtype == F.dtype
    assert relative(found[0], wanted[0]) < 2e-5
    assert relative(found[1], wanted[1]) < tolerance


@kernels
@dtypes
@pytest.mark.parametrize("N", [64, 128, 256, 512])
@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16], ids=["T32", "T16"])
def test_cosine_distances_and_their_gradient(
    dtype: torch.dtype, tolerance: float, N: int, target: torch.dtype
) -> None:
    """The sum and its gradient agree with float64 for windows of features and of directions, at odd sizes."""
    T = nnf.normalize(maps(1, N, 7, 71), dim=1).to(target)
    F = maps(1, N, 6, 77, dtype=dtype)[..., 1:6, 3:70]
    check_cosine(F, T, (slice(2, 7), slice(4, 71)), tolerance)
    check_cosine(F.contiguous(), T.contiguous(), (slice(2, 7), slice(4, 71)), tolerance)


@kernels
@dtypes
def test_a_position_at_the_mean(dtype: torch.dtype, tolerance: float) -> None:
    """Where F = μ the gradient is finite and that of nnf.normalize."""
    F, mean = torch.zeros(1, 64, 1, 1, dtype=dtype), torch.zeros(64)
    T = nnf.normalize(maps(1, 64, 1, 1), dim=1)
    one = torch.tensor(1.0)
    found = with_gradient(lambda x: fused.cosine_distances(x, mean, T), F, one)
    plain = Directions(mean, T)
    wanted = with_gradient(lambda x: cosine_distances(x, plain, WHOLE), F, one)
    assert float(found[0]) == 1.0 and found[1].isfinite().all()
    assert relative(found[1], wanted[1]) < tolerance


def check_pool(x: Tensor) -> None:
    slope = maps(
        *x.shape[:2], x.shape[2] // 2, x.shape[3] // 2, dtype=x.dtype, device=str(x.device)
    )
    found = with_gradient(fused.max_pool2, x, slope)
    wanted = with_gradient(lambda x: nnf.max_pool2d(x, 2), x, slope)
    assert all(map(torch.equal, found, wanted))
    assert found[0].is_contiguous(memory_format=torch.channels_last)


@kernels
def test_max_pool_keeps_nan() -> None:
    """A window with NaN has the maximum NaN, so that a painter sees that a step went wrong."""
    x = maps(1, 64, 4, 4)
    x[0, 5, 2, 3] = torch.nan
    assert fused.max_pool2(x).isnan().nonzero().tolist() == [[0, 5, 1, 1]]


@kernels
@dtypes
@pytest.mark.parametrize("shape", [(1, 64, 7, 71), (2, 512, 5, 9), (1, 128, 4, 8), (2, 64, 2, 3)])
def test_max_pool(dtype: torch.dtype, tolerance: float, shape: tuple[int, ...]) -> None:
    """Maxima and gradients equal torch's to the bit, with equal values in a window and odd sides."""
    assert tolerance > 0
    check_pool(maps(*shape, dtype=dtype).relu())


STRIDES = "1 i32 i32 1 i32 i32"
COMPILED = [
    (
        "_cosine",
        f"*bf16 *fp32 *fp32 *fp32 *fp32 i32 {STRIDES}",
        {"N": 64, "BLOCK": 64, "BACKWARD": False},
    ),
    (
        "_cosine",
        f"*bf16 *fp32 *fp32 *fp32 *bf16 i32 {STRIDES}",
        {"N": 512, "BLOCK": 8, "BACKWARD": True},
    ),
    (
        "_cosine",
        f"*fp32 *bf16 *fp32 *fp32 *fp32 1 {STRIDES}",
        {"N": 64, "BLOCK": 64, "BACKWARD": True},
    ),
    ("_max_pool", "*bf16 *bf16 i32 i32", {"N": 64, "BLOCK": 32}),
    ("_max_pool", "*bf16 *bf16 i32 1", {"N": 64, "BLOCK": 32}),
    ("_max_pool_backward", "*bf16 *bf16 *bf16 i32 i32", {"N": 64, "BLOCK": 32}),
    ("_max_pool_backward", "*bf16 *bf16 *bf16 1 1", {"N": 64, "BLOCK": 32}),
]


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
@pytest.mark.parametrize(("name", "types", "constants"), COMPILED)
def test_kernels_compile_without_a_gpu(
    name: str,
    types: str,
    constants: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each kernel compiles for an H100, with accesses of 16 bytes where pointers and strides are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(fused, name)
    given = types.split() + ["constexpr"] * len(constants)
    signature = dict(zip(kernel.arg_names, given, strict=True))
    ones = {k: 1 for k, kind in signature.items() if kind == "1"}
    values = {(kernel.arg_names.index(k),): v for k, v in (constants | ones).items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(given) if t[0] in "*i"}
    source = ASTSource(kernel, signature | dict.fromkeys(ones, "constexpr"), values, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert ".v4.b32" in made.asm["ptx"]


@pytest.mark.gpu
@GPU
@dtypes
def test_on_a_gpu(dtype: torch.dtype, tolerance: float) -> None:
    """Compiled, each kernel agrees with plain torch as it does in the interpreter."""
    assert not fused.problem()
    for N in (64, 128, 256, 512):
        T = nnf.normalize(maps(1, N, 70, 171, device="cuda"), dim=1)
        F = maps(1, N, 69, 177, dtype=dtype, device="cuda")[..., 1:69, 3:170]
        check_cosine(F, T, (slice(2, 70), slice(4, 171)), tolerance)
        check_cosine(F.contiguous(), T.bfloat16(), (slice(2, 70), slice(4, 171)), tolerance)
        x = maps(1, N, 63, 65, dtype=dtype, device="cuda")
        check_pool(x.relu())


@pytest.mark.gpu
@GPU
def test_in_a_captured_graph() -> None:
    """In a captured CUDA graph the kernels find the same bits for new inputs as directly."""
    assert not fused.problem()
    T = nnf.normalize(maps(1, 64, 32, 48, device="cuda"), dim=1)
    mean = maps(1, 64, 1, 1, device="cuda").flatten()
    image = maps(1, 64, 64, 96, device="cuda")

    made: list[Tensor] = []

    def run() -> None:
        x = image.detach().requires_grad_()
        y = fused.max_pool2(x)
        total = fused.cosine_distances(y, mean, T)
        (gradient,) = torch.autograd.grad(total, x)
        made[:] = total.detach(), y.detach(), gradient

    run()  # compiles
    replay = cuda_graph(run)
    outputs = list(made)
    for factor in (1.0, 0.5):
        image.mul_(factor)
        replay()
        run()
        assert all(map(torch.equal, outputs, made))
