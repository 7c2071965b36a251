"""The objective and its gradient with respect to a picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nst_daemon.engine.losses import Objective
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
