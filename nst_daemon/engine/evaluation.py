"""The objective and its gradient with respect to a picture, with all activations kept or recomputed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nst_daemon.engine.directions import Window
from nst_daemon.engine.losses import Objective, Sums
from nst_daemon.engine.pyramid import AtLevels, Evaluated, Pyramid
from nst_daemon.engine.vgg import VGG

#: Evaluates the objective of a scale at a picture (1, 3, H, W).
Evaluation = Callable[[VGG, Pyramid, Tensor], Evaluated]
#: Calls a function with arguments.
Call = Callable[..., Any]


def direct_call(function: Call, *arguments: Any) -> Any:
    """Call the function, without anything else."""
    return function(*arguments)


def sums_of(
    network: VGG,
    objective: Objective,
    image: Tensor,
    *,
    cells: Mapping[str, tuple[Window, Window]] | None = None,
    call: Call = direct_call,
) -> Sums:
    """The sums over a picture's activations that the objective's terms need.

    Each layer's sums are taken as soon as its map exists. In the backward pass that order is reversed, so a layer's
    gradient is not allocated before it is needed.

    Args:
        network: Computes the activations.
        objective: Says which sums.
        image: (1, 3, H, W), a whole picture or a tile.
        cells: Layer → the positions that count, in the map of the whole picture and in the map of this image; all
            positions unless given.
        call: Calls each stage of the network.
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


def whole_level(
    network: VGG, objective: Objective, image: Tensor, *, call: Call = direct_call
) -> Evaluated:
    """One level, in one piece."""
    image = image.detach().requires_grad_()
    with torch.enable_grad():
        values = objective.terms(sums_of(network, objective, image, call=call), image)
        total = values @ objective.weights
        (gradient,) = torch.autograd.grad(total, image)
    return values.detach(), total.detach(), gradient


#: The picture in one piece, with all activations kept for the backward pass.
whole: Evaluation = AtLevels(whole_level)
#: As `whole`, but keeps the activations of one stage of the network at a time and recomputes them in the backward pass
#: (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost). No random numbers are used, so no generator's
#: state is kept.
checkpointed: Evaluation = AtLevels(
    partial(whole_level, call=partial(checkpoint, use_reentrant=False, preserve_rng_state=False))
)
