"""Adam and L-BFGS that stay on the device: no loop here waits for the host.

Both have the same interface. `propose()` is the next point to evaluate; `tell(loss, gradient)` takes the result at
that point; `solution()` is the optimiser's best point, and `accepted` tells on the device whether that is the point
told last. All vectors are flat, float32, of length n.

The state is changed in place, so that an iteration can be repeated as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nst_daemon.engine.device import widest_float

State = dict[str, Tensor]


class LBFGS:
    """L-BFGS (Liu & Nocedal 1989) without a line search, with safeguards computed on the device.

    The direction is the compact form of the two-loop recursion (Byrd, Nocedal & Schnabel 1994, eq. 3.1) over the
    inner products of the history (the vector-free form of Chen et al., NIPS 2014): two products of the history with
    single vectors per step, and one small triangular system in float64 (see `widest_float`).

    Safeguards instead of a line search: a pair (s, y) is used only if sᵀy > ε‖s‖‖y‖; a direction that is non-finite or
    not a descent direction is replaced by −g; no step has a root mean square above `longest`; a point with a
    non-finite loss, or a loss above the least one by more than `slack`, is rejected, and the step from the last
    accepted point is shortened.

    Args:
        start: (n,).
        step: Factor on every step.
        history: Number of pairs.
        first: Root mean square of the first step.
        longest: Largest root mean square of any step.
    """

    epsilon = 1e-6
    slack = (
        0.02  # small rises are normal for L-BFGS without a line search, and lead to better optima
    )
    shorten = 0.3

    def __init__(
        self, start: Tensor, *, step: float = 1.0, history: int = 20, first: float, longest: float
    ) -> None:
        n, m, device, dtype = start.numel(), history, start.device, start.dtype
        self.m, self.first, self.longest = m, first, longest
        self.step = torch.full((), step, device=device, dtype=dtype)
        self.pairs = torch.zeros(2 * m, n, device=device, dtype=dtype)  # S above Y, a ring buffer
        self.products = torch.zeros(2 * m, 2 * m, device=device, dtype=widest_float(device))
        self.valid = torch.zeros(m, dtype=torch.bool, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)  # number of points told
        self.base = start.clone()  # the last accepted point
        self.least = torch.full(
            (), torch.inf, device=device, dtype=dtype
        )  # of the losses of accepted points
        self.base_gradient = torch.zeros_like(start)
        self.move = torch.zeros_like(start)  # from the base to the next proposal
        # Factor on the move, less than 1 after rejected points.
        self.damping = torch.ones((), device=device, dtype=dtype)
        self.accepted = torch.ones((), dtype=torch.bool, device=device)

    def propose(self) -> Tensor:
        return self.base + self.move

    def solution(self) -> Tensor:
        return self.base

    def tell(self, loss: Tensor, gradient: Tensor) -> None:
        limit = self.least + self.slack * self.least.abs()
        finite = loss.isfinite() & gradient.isfinite().all()
        accepted = finite & ((self.count == 0) | (loss <= limit))
        change = gradient - self.base_gradient
        self.base_gradient.copy_(torch.where(accepted, gradient, self.base_gradient))
        # The curvature along a rejected step is valid too, if it is finite.
        along = self._remember(self.move, change, finite & (self.count > 0), self.base_gradient)
        self.accepted.copy_(accepted)
        self.base.copy_(torch.where(accepted, self.base + self.move, self.base))
        self.least.copy_(torch.where(accepted, torch.minimum(loss, self.least), self.least))
        self.damping.copy_(torch.where(accepted, 1.0, self.damping * self.shorten))
        self.move.copy_(self.damping * self._step(self.base_gradient, along))
        self.count += 1

    def _remember(self, s: Tensor, y: Tensor, wanted: Tensor, g: Tensor) -> Tensor:
        """Put a pair into the next slot and update the inner products; an unusable pair leaves the slot empty.

        Returns:
            (2m,), the products of all pairs with g: the history is read once for them and for the new pair.
        """
        m = self.m
        sy, ss, yy = s @ y, s @ s, y @ y
        good = wanted & (sy > self.epsilon * (ss * yy).sqrt())
        # The first point has no predecessor: its empty pair goes into slot m − 1, the last to be filled.
        slot = (self.count - 1) % m
        rows = torch.stack([slot, slot + m])
        new = torch.where(good, torch.stack([s, y]), 0.0)
        self.pairs.index_copy_(0, rows, new)
        found = self._history_products(*new, g)  # (2m, 3)
        block = found[:, :2].to(self.products.dtype)
        self.products.index_copy_(1, rows, block)
        self.products.index_copy_(0, rows, block.T.contiguous())
        self.valid.index_copy_(0, slot[None], good[None])
        return found[:, 2]

    def _history_products(self, *vectors: Tensor) -> Tensor:
        """The inner products (2m, k) of all pairs with k vectors (n,)."""
        if self.pairs.is_cuda:
            # cuBLAS multiplies by one vector at the speed of the memory, by several at a fifth of it.
            return torch.stack([self.pairs @ vector for vector in vectors], 1)
        return self.pairs @ torch.stack(vectors).T

    def _step(self, g: Tensor, along: Tensor) -> Tensor:
        """−step·H·g (n,), or −g if that is not a descent direction, limited in length.

        along: The products (2m,) of the pairs with g.
        """
        newton = -self._times_inverse_hessian(g, along)
        descent = newton.isfinite().all() & (newton @ g < 0) & self.valid.any()
        move = torch.where(descent, self.step * newton, -g)
        rms = move.square().mean().sqrt().clamp_min(1e-30)
        # −g has no natural length: it is scaled to `first`.
        return move * torch.where(descent, (self.longest / rms).clamp_max(1.0), self.first / rms)

    def _times_inverse_hessian(self, g: Tensor, along: Tensor) -> Tensor:
        """H·g = γg + S·R⁻ᵀ((D + γYᵀY)·p − γYᵀg) − γY·p with p = R⁻¹Sᵀg, R the upper triangle of SᵀY, D its diagonal."""
        m = self.m
        order = (self.count + torch.arange(m, device=g.device)) % m  # oldest first
        both = torch.cat([order, order + m])
        valid = self.valid[order]
        B = self.products[both][:, both]
        SY, YY = B[:m, m:], B[m:, m:]
        D = SY.diagonal()
        R = (
            SY.triu() + (~valid).to(B.dtype).diag()
        )  # an empty pair has zeros, and a 1 on the diagonal
        # keepdim: the host would read an index without dimensions.
        newest = torch.where(valid, torch.arange(m, device=g.device), -1).argmax(0, keepdim=True)
        gamma = torch.where(valid[newest], D[newest] / YY.diagonal()[newest], 1.0)[:, None]
        Sg, Yg = along.to(B.dtype)[both][:, None].chunk(2)
        p = torch.linalg.solve_triangular(R, Sg, upper=True)
        q = torch.linalg.solve_triangular(
            R.T, (D.diag() + gamma * YY) @ p - gamma * Yg, upper=False
        )
        coefficients = torch.zeros_like(self.products[0])
        coefficients.index_copy_(0, both, torch.cat([q, -gamma * p])[:, 0])
        return gamma[0].to(g.dtype) * g + coefficients.to(g.dtype) @ self.pairs

    def set_step(self, step: float) -> None:
        self.step.fill_(step)

    def state(self) -> State:
        names = (
            "pairs", "products", "valid", "count", "base", "least", "base_gradient", "move", "damping", "accepted",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


class Adam:
    """torch's Adam (Kingma & Ba 2015) with averaged iterates, and moments that can be carried to another size.

    Args:
        start: (n,).
        step: Learning rate.
        betas: Decay rates of the first and second moments.
        averaging: Decay of the running average of the iterates, which is the result, with its bias corrected; 0 for
            the last iterate.
        clamp: Clamp the iterates to [0, 1].
        moments: State of an earlier scale, already enlarged.
    """

    def __init__(
        self,
        start: Tensor,
        *,
        step: float,
        betas: tuple[float, float] = (0.9, 0.999),
        averaging: float = 0.0,
        clamp: bool = False,
        moments: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.averaging, self.clamp = averaging, clamp
        self.x = start.clone()
        self.told = start.clone()  # the iterate evaluated last
        # A number would be a constant of a CUDA graph.
        rate: Any = torch.tensor(step, device=start.device) if start.is_cuda else step
        self.inner = torch.optim.Adam([self.x], lr=rate, betas=betas, capturable=start.is_cuda)
        zeros = {"step": torch.zeros((), device=start.device)} | {
            name: torch.zeros_like(start) for name in ("exp_avg", "exp_avg_sq")
        }
        self.inner.state[self.x] = zeros
        self.average = torch.zeros_like(start)
        self.missing = torch.ones((), device=start.device)  # averaging ** (number of terms)
        self.accepted = torch.ones((), dtype=torch.bool, device=start.device)
        for name, tensor in (moments or {}).items():
            zeros[name].copy_(tensor)

    def propose(self) -> Tensor:
        return self.x

    def tell(self, loss: Tensor, gradient: Tensor) -> None:
        self.told.copy_(self.x)
        self.average.lerp_(self.told, 1 - self.averaging)
        self.missing *= self.averaging
        self.x.grad = gradient
        self.inner.step()
        if self.clamp:
            self.x.clamp_(0, 1)

    def solution(self) -> Tensor:
        averaged = self.average / (1 - self.missing)
        return torch.where(self.missing < 1, averaged, self.told)  # nothing told yet: the start

    def set_step(self, step: float) -> None:
        for group in self.inner.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(step)
            else:
                group["lr"] = step

    def moments(self) -> State:
        """`step` (), `exp_avg` and `exp_avg_sq` (n,)."""
        moments: State = self.inner.state[self.x]
        return moments

    def state(self) -> State:
        own = {name: getattr(self, name) for name in ("x", "told", "average", "missing")}
        return own | self.moments()

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
