from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nst_daemon.engine import optimizers as module
from nst_daemon.engine.optimizers import LBFGS, Adam
from tests.engine.conftest import HostReads

Function = Callable[[Tensor], tuple[Tensor, Tensor]]


def bowl(n: int = 40, dtype: torch.dtype = torch.float64) -> tuple[Function, float]:
    """An ill-conditioned quadratic and its least value."""
    generator = torch.Generator().manual_seed(1)
    half = torch.randn(n, n, generator=generator, dtype=torch.float64)
    A = half @ half.T / n + 0.01 * torch.eye(n, dtype=torch.float64)
    b = torch.randn(n, generator=generator, dtype=torch.float64)

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        x64 = x.double()
        return (0.5 * x64 @ A @ x64 - b @ x64).to(dtype), (A @ x64 - b).to(dtype)

    return function, float(-0.5 * b @ torch.linalg.solve(A, b))


def minimise(optimizer: LBFGS | Adam, function: Function, steps: int) -> float:
    for _ in range(steps):
        optimizer.tell(*function(optimizer.propose()))
    return float(function(optimizer.solution())[0])


def two_loops(pairs: list[tuple[Tensor, Tensor]], g: Tensor) -> Tensor:
    """−H·g by the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4)."""
    q, alphas = g.clone(), []
    for s, y in reversed(pairs):
        alpha = (s @ q) / (s @ y)
        alphas.append(alpha)
        q = q - alpha * y
    s, y = pairs[-1]
    r = (s @ y) / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - (y @ r) / (s @ y))
    return -r


def test_lbfgs_takes_the_steps_of_the_two_loop_recursion() -> None:
    """Each move equals the two-loop recursion over the same pairs to 1e-8, also after the ring buffer wraps."""
    function, _ = bowl()
    m = 5
    optimizer = LBFGS(
        torch.zeros(40, dtype=torch.float64), history=m, first=0.01, longest=float("inf")
    )
    told: list[tuple[Tensor, Tensor]] = []
    for i in range(14):
        x = optimizer.propose()
        loss, g = function(x)
        told.append((x, g))
        optimizer.tell(loss, g)
        assert bool(optimizer.accepted)
        if i:
            pairs = [(x1 - x0, g1 - g0) for (x0, g0), (x1, g1) in pairwise(told)][-m:]
            torch.testing.assert_close(optimizer.move, two_loops(pairs, g), rtol=1e-8, atol=1e-10)


def test_lbfgs_finds_the_minimum_in_float32() -> None:
    """An ill-conditioned quadratic is solved to 1e-5 within 120 evaluations."""
    function, least = bowl(dtype=torch.float32)
    optimizer = LBFGS(torch.zeros(40), history=20, first=0.1, longest=10.0)
    assert minimise(optimizer, function, 120) - least < 1e-5 * abs(least)


def test_lbfgs_needs_no_float64() -> None:
    """The same is solved to 1e-4 where the device has nothing wider than float32."""
    function, least = bowl(dtype=torch.float32)
    optimizer = LBFGS(torch.zeros(40), history=20, first=0.1, longest=10.0)
    optimizer.products = optimizer.products.float()
    assert minimise(optimizer, function, 120) - least < 1e-4 * abs(least)


def test_lbfgs_rejects_a_worse_point() -> None:
    """If the loss jumps up, the solution stays and the next proposal is nearer to it."""
    optimizer = LBFGS(torch.ones(4), history=3, first=1.0, longest=1.0)
    optimizer.tell(torch.tensor(1.0), torch.ones(4))
    far = optimizer.propose()
    optimizer.tell(torch.tensor(50.0), -torch.ones(4))
    assert not bool(optimizer.accepted)
    assert torch.equal(optimizer.solution(), torch.ones(4))
    assert (optimizer.propose() - 1).norm() < (far - 1).norm()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_lbfgs_rejects_non_finite_points(bad: float) -> None:
    """After a non-finite loss or gradient the solution and the next proposal are finite."""
    optimizer = LBFGS(torch.ones(4), history=3, first=0.1, longest=1.0)
    optimizer.tell(torch.tensor(1.0), torch.ones(4))
    optimizer.tell(torch.tensor(bad), torch.full((4,), bad))
    optimizer.tell(torch.tensor(0.5), torch.full((4,), bad))
    assert torch.equal(optimizer.solution(), torch.ones(4))
    optimizer.tell(torch.tensor(0.5), 0.5 * torch.ones(4))
    assert optimizer.propose().isfinite().all()
    assert not torch.equal(optimizer.solution(), torch.ones(4))


def test_lbfgs_leaves_out_pairs_without_curvature() -> None:
    """On a function that curves downwards no pair is kept, and the move is the first step, down the gradient."""
    optimizer = LBFGS(torch.ones(3), history=4, first=0.25, longest=9.0)
    for _ in range(5):
        x = optimizer.propose()
        optimizer.tell(-(x @ x), -2 * x)
    assert not optimizer.valid.any()
    assert optimizer.move.square().mean().sqrt().item() == pytest.approx(0.25)
    assert optimizer.move @ optimizer.solution() > 0


def test_lbfgs_steps_are_no_longer_than_allowed() -> None:
    """No move exceeds `longest` in its root mean square, however flat the function seems."""
    optimizer = LBFGS(torch.zeros(6), history=4, first=0.1, longest=0.3)
    for _ in range(8):
        x = optimizer.propose()
        optimizer.tell(1e-4 * (x - 1000).square().sum(), 2e-4 * (x - 1000))
        assert optimizer.move.square().mean().sqrt() <= 0.3 * 1.0001


def test_lbfgs_never_waits_for_the_host() -> None:
    """Neither `propose` nor `tell` reads a value from the device or moves one off it."""
    optimizer = LBFGS(torch.zeros(9), history=4, first=0.1, longest=1.0)
    with HostReads() as reads:
        for _ in range(7):
            x = optimizer.propose()
            optimizer.tell((x - 1).square().sum(), 2 * (x - 1))
    assert reads.seen == []
    with reads:
        float(optimizer.least)
    assert reads.seen, "the recorder sees what it is meant to see"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_lbfgs_never_synchronises_a_gpu() -> None:
    """A run under sync_debug_mode 'error' does not raise."""
    optimizer = LBFGS(torch.zeros(900, device="cuda"), history=20, first=0.1, longest=1.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(30):
            x = optimizer.propose()
            optimizer.tell((x - 1).square().sum(), 2 * (x - 1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert optimizer.least.item() < 1e-6


def test_adam_is_torchs() -> None:
    """The iterates are those of torch.optim.Adam."""
    function, _ = bowl(dtype=torch.float32)
    ours = Adam(torch.zeros(40), step=0.05, betas=(0.9, 0.99))
    x = torch.zeros(40)
    theirs = torch.optim.Adam([x], lr=0.05, betas=(0.9, 0.99))
    for _ in range(10):
        ours.tell(*function(ours.propose()))
        x.grad = function(x)[1]
        theirs.step()
    torch.testing.assert_close(ours.propose(), x)


def test_adam_averages_its_iterates() -> None:
    """The solution is Σ a^(k−i)·x_i / Σ a^(k−i) over the iterates told, from the first on."""
    function, _ = bowl(dtype=torch.float32)
    optimizer = Adam(torch.ones(40), step=0.1, averaging=0.8)
    told: list[Tensor] = []
    for _ in range(6):
        told.append(optimizer.propose().clone())
        optimizer.tell(*function(told[-1]))
    weights = [0.8 ** (5 - i) for i in range(6)]
    expected = sum(w * x for w, x in zip(weights, told, strict=True)) / sum(weights)
    torch.testing.assert_close(optimizer.solution(), expected)


def test_adam_clamps() -> None:
    """With `clamp` no iterate leaves [0, 1]."""
    optimizer = Adam(torch.full((3,), 0.95), step=0.2, clamp=True)
    for _ in range(3):
        optimizer.tell(torch.tensor(0.0), -torch.ones(3))
    assert torch.equal(optimizer.propose(), torch.ones(3))


@pytest.mark.parametrize("kind", ["lbfgs", "adam"])
def test_a_saved_state_goes_on_to_the_same_bits(kind: str) -> None:
    """A fresh optimiser that loads a copied state proposes exactly what the original proposes."""
    function, _ = bowl(dtype=torch.float32)

    def make() -> LBFGS | Adam:
        if kind == "lbfgs":
            return LBFGS(torch.zeros(40), history=4, first=0.1, longest=1.0)
        return Adam(torch.zeros(40), step=0.05, averaging=0.9)

    first = make()
    minimise(first, function, 7)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    second = make()
    second.load(saved)
    for _ in range(5):
        assert torch.equal(first.propose(), second.propose())
        assert torch.equal(first.solution(), second.solution())
        for optimizer in (first, second):
            optimizer.tell(*function(optimizer.propose()))


def test_lbfgs_works_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of 7 elements the moves are those of whole vectors to 1e-10."""
    function, _ = bowl()

    def moves(part: int) -> list[Tensor]:
        monkeypatch.setattr(module, "PART", part)
        start = torch.zeros(40, dtype=torch.float64)
        optimizer = LBFGS(start, history=4, first=0.01, longest=1.0)
        found = []
        for _ in range(9):
            optimizer.tell(*function(optimizer.propose()))
            found.append(optimizer.move.clone())
        return found

    torch.testing.assert_close(moves(7), moves(1 << 22), rtol=1e-10, atol=1e-12)


def test_lbfgs_finds_the_minimum_with_rounded_pairs() -> None:
    """With pairs in bfloat16 an ill-conditioned quadratic is solved to 1e-3 within 200 evaluations."""
    function, least = bowl(dtype=torch.float32)
    optimizer = LBFGS(torch.zeros(40), history=5, first=0.1, longest=10.0, stored=torch.bfloat16)
    assert optimizer.pairs.dtype == torch.bfloat16
    assert minimise(optimizer, function, 200) - least < 1e-3 * abs(least)
