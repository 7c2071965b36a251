"""The objective and its gradient with respect to a picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nst_daemon.engine.losses import Objective, Sums
from nst_daemon.engine.vgg import VGG

#: Terms (terms,), their weighted sum () and its gradient (1, 3, H, W) at a picture (1, 3, H, W).
Evaluation = Callable[[VGG, Objective, Tensor], tuple[Tensor, Tensor, Tensor]]


def whole(network: VGG, objective: Objective, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The picture in one piece, all activations held at once."""
    image = image.detach().requires_grad_()
    with torch.enable_grad():
        values = objective(network(image), image)
        total = values @ objective.weights
        (gradient,) = torch.autograd.grad(total, image)
    return values.detach(), total.detach(), gradient


def checkpointed(
    network: VGG, objective: Objective, image: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The picture in one piece, the activations of one block at a time (Chen et al. 2016, Training Deep Nets with
    Sublinear Memory Cost): on the way back each block is computed again from what the pooling before it has left.
    """

    def sums_of(x: Tensor, block: range) -> tuple[Tensor, Sums]:
        x, maps = network.part(x, block)
        return x, objective.sums(maps)

    image = image.detach().requires_grad_()
    with torch.enable_grad():
        x, sums = network.normalised(image), Sums()
        for block in network.blocks():
            # There is no randomness here to be restored.
            x, found = checkpoint(sums_of, x, block, use_reentrant=False, preserve_rng_state=False)
            sums += found
        values = objective.terms(sums, image)
        total = values @ objective.weights
        (gradient,) = torch.autograd.grad(total, image)
    return values.detach(), total.detach(), gradient
