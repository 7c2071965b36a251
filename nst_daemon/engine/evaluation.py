"""The objective and its gradient with respect to a picture, in more memory or in less."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nst_daemon.engine.losses import Objective, Sums, Window
from nst_daemon.engine.vgg import VGG

#: Terms (terms,), their weighted sum () and its gradient (1, 3, H, W).
Found = tuple[Tensor, Tensor, Tensor]
#: What is found at a picture (1, 3, H, W).
Evaluation = Callable[[VGG, Objective, Tensor], Found]
#: Calls a function with arguments.
Call = Callable[..., Any]


def plainly(function: Call, *arguments: Any) -> Any:
    """A call, and nothing else."""
    return function(*arguments)


def sums_of(
    network: VGG,
    objective: Objective,
    image: Tensor,
    *,
    cells: Mapping[str, tuple[Window, Window]] | None = None,
    call: Call = plainly,
) -> Sums:
    """What the objective's terms need of a picture's activations, each layer's sums as soon as it is there.

    That order is also the reverse of the way back: a layer's own gradient is not made before it is needed.

    image: (1, 3, H, W), of a whole picture or of a tile; cells: layer → the positions that count, in the map of the
    whole picture and in that of this image; all of them unless given; call: how each stage of the network is called.
    """

    def stage_sums(x: Tensor, stage: range) -> tuple[Tensor, Sums]:
        x, maps = network.part(x, stage)
        if cells is None:
            return x, objective.sums(maps)
        own = {layer: maps[layer][(..., *cells[layer][1])] for layer in maps}
        return x, objective.sums(own, {layer: cells[layer][0] for layer in maps})

    x, sums = network.normalised(image), Sums()
    for stage in network.stages():
        x, found = call(stage_sums, x, stage)
        sums += found
    return sums


def whole(network: VGG, objective: Objective, image: Tensor, *, call: Call = plainly) -> Found:
    """The picture in one piece."""
    image = image.detach().requires_grad_()
    with torch.enable_grad():
        values = objective.terms(sums_of(network, objective, image, call=call), image)
        total = values @ objective.weights
        (gradient,) = torch.autograd.grad(total, image)
    return values.detach(), total.detach(), gradient


#: As `whole`, with the activations of one stage of the network at a time: on the way back each is computed again from
#: what the one before has left (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost). Nothing in it is
#: random, so no generator's state has to be kept.
checkpointed: Evaluation = partial(
    whole, call=partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
)
