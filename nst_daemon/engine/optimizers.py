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

from nst_daemon.engine.blocks import blocks
from nst_daemon.engine.device import widest_float

State = dict[str, Tensor]

#: Elements of long vectors that L-BFGS works on at a time on a CPU, where memory is short before time is.
PART = 1 << 22


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
        stored: The type in which pairs are stored, that of `start` unless given. The inner products are those of the
            stored pairs, so that a rounded pair is only a slightly different one.
    """

    epsilon = 1e-6
    slack = (
        0.02  # small rises are normal for L-BFGS without a line search, and lead to better optima
    )
    shorten = 0.3

    def __init__(
        self,
        start: Tensor,
        *,
        step: float = 1.0,
        history: int = 20,
        first: float,
        longest: float,
        stored: torch.dtype | None = None,
    ) -> None:
        n, m, device, dtype = start.numel(), history, start.device, start.dtype
        self.m, self.first, self.longest = m, first, longest
        self.step = torch.full((), step, device=device, dtype=dtype)
        # S above Y, a ring buffer.
        self.pairs = torch.zeros(2 * m, n, device=device, dtype=stored or dtype)
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
        # The curvature along a rejected step is valid too, if it is finite.
        along = self._remember(gradient, accepted, finite & (self.count > 0))
        self.accepted.copy_(accepted)
        for part in self._parts():
            base, old = self.base[part], self.base_gradient[part]
            base.copy_(torch.where(accepted, base + self.move[part], base))
            old.copy_(torch.where(accepted, gradient[part], old))
        self.least.copy_(torch.where(accepted, torch.minimum(loss, self.least), self.least))
        self.damping.copy_(torch.where(accepted, 1.0, self.damping * self.shorten))
        self._move(along)
        self.count += 1

    def _parts(self) -> list[slice]:
        """Parts of the vectors that are worked on at a time, so that no step needs another vector of their length."""
        n = self.base.numel()
        return blocks(n, PART if self.base.device.type == "cpu" else n)

    def _remember(self, gradient: Tensor, accepted: Tensor, wanted: Tensor) -> Tensor:
        """Put the last step's pair into the next slot and update the inner products.

        An unusable pair leaves the slot empty.

        Args:
            gradient: (n,), at the point that is told.
            accepted: Whether that point becomes the base.
            wanted: Whether there is a pair.

        Returns:
            (2m,), the products of all pairs with the base's gradient: the history is read once for them and for the
            new pair.
        """

        def pair(part: slice) -> Tensor:  # (2, length)
            return torch.stack([self.move[part], gradient[part] - self.base_gradient[part]])

        m = self.m
        sy, ss, yy = (torch.zeros_like(self.least) for _ in range(3))
        for part in self._parts():
            s, y = pair(part)
            sy, ss, yy = sy + s @ y, ss + s @ s, yy + y @ y
        good = wanted & (sy > self.epsilon * (ss * yy).sqrt())
        # The first point has no predecessor: its empty pair goes into slot m − 1, the last to be filled.
        slot = (self.count - 1) % m
        rows = torch.stack([slot, slot + m])
        found = torch.zeros_like(self.products[:, :3])  # (2m, 3)
        for part in self._parts():
            new = torch.where(good, pair(part), 0.0).to(self.pairs.dtype)
            self.pairs[:, part].index_copy_(0, rows, new)
            g = torch.where(accepted, gradient[part], self.base_gradient[part])
            found += self._history_products(part, *new.to(g.dtype), g).to(found.dtype)
        block = found[:, :2]
        self.products.index_copy_(1, rows, block)
        self.products.index_copy_(0, rows, block.T.contiguous())
        self.valid.index_copy_(0, slot[None], good[None])
        return found[:, 2]

    def _stored(self, part: slice) -> Tensor:
        """A part (2m, length) of the pairs, in the type of the vectors."""
        return self.pairs[:, part].to(self.base.dtype)

    def _history_products(self, part: slice, *vectors: Tensor) -> Tensor:
        """The inner products (2m, k) of a part of all pairs with that of k vectors (length,)."""
        pairs = self._stored(part)
        if pairs.is_cuda:
            # cuBLAS multiplies by one vector at the speed of the memory, by several at a fifth of it.
            return torch.stack([pairs @ vector for vector in vectors], 1)
        return pairs @ torch.stack(vectors).T

    def _move(self, along: Tensor) -> None:
        """Set the move to −step·H·g, or −g if that is not a descent direction, limited in length and damped.

        along: The products (2m,) of the pairs with g.
        """
        g, move = self.base_gradient, self.move
        finite = torch.ones((), dtype=torch.bool, device=g.device)
        slope, squares, steepest = (torch.zeros_like(self.least) for _ in range(3))
        gamma, coefficients = self._inverse_hessian(along)
        for part in self._parts():
            newton = -(gamma * g[part] + coefficients @ self._stored(part))
            finite = finite & newton.isfinite().all()
            slope, squares = slope + newton @ g[part], squares + newton.square().sum()
            steepest = steepest + g[part].square().sum()
            move[part] = newton
        descent = finite & (slope < 0) & self.valid.any()
        squares = torch.where(descent, self.step.square() * squares, steepest)
        rms = (squares / g.numel()).sqrt().clamp_min(1e-30)
        # −g has no natural length: it is scaled to `first`.
        factor = torch.where(descent, (self.longest / rms).clamp_max(1.0), self.first / rms)
        factor = self.damping * factor * torch.where(descent, self.step, -1.0)
        for part in self._parts():
            move[part] = factor * torch.where(descent, move[part], g[part])

    def _inverse_hessian(self, along: Tensor) -> tuple[Tensor, Tensor]:
        """γ () and coefficients c (2m,) with H·g = γg + cᵀ(S above Y) at the last accepted point.

        H·g = γg + S·R⁻ᵀ((D + γYᵀY)·p − γYᵀg) − γY·p with p = R⁻¹Sᵀg, R the upper triangle of SᵀY, D its diagonal.

        along: The products (2m,) of the pairs with g.
        """
        g, m = self.base_gradient, self.m
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
        Sg, Yg = along[both][:, None].chunk(2)
        p = torch.linalg.solve_triangular(R, Sg, upper=True)
        q = torch.linalg.solve_triangular(
            R.T, (D.diag() + gamma * YY) @ p - gamma * Yg, upper=False
        )
        coefficients = torch.zeros_like(self.products[0])
        coefficients.index_copy_(0, both, torch.cat([q, -gamma * p])[:, 0])
        return gamma[0, 0].to(g.dtype), coefficients.to(g.dtype)

    def release(self) -> None:
        """Free all but the solution: nothing more will be told."""
        del self.pairs, self.move, self.base_gradient

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

    def release(self) -> None:
        """Nothing is freed: the moments and the average are needed for the next scale."""

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
