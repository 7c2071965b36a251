"""One iteration of a painting: evaluate the picture, tell the optimiser, note which picture is the best so far.

Everything is on the device and changed in place, so that on a GPU the whole iteration can be one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nst_daemon.engine.blocks import blocks
from nst_daemon.engine.optimizers import LBFGS, Adam
from nst_daemon.engine.preconditioner import Preconditioner
from nst_daemon.engine.pyramid import Evaluated

#: Terms (terms,), their weighted sum () and its gradient, of a picture (1, 3, h, w).
EvaluatePicture = Callable[[Tensor], Evaluated]


class Iteration:
    """An iteration as a function without arguments.

    Args:
        evaluate: Of the objective.
        optimizer: It moves the picture.
        preconditioner: Its coordinates.
        clamp: Keep the picture within [0, 1].
        values: (terms,), replaced by those of the optimiser's solution.
        moved: () bool, becomes True when a step is accepted.

    Attributes:
        told: (terms,), of the picture evaluated last.
    """

    def __init__(
        self,
        evaluate: EvaluatePicture,
        optimizer: LBFGS | Adam,
        preconditioner: Preconditioner,
        *,
        clamp: bool,
        values: Tensor,
        moved: Tensor,
    ) -> None:
        self._evaluate, self._clamp = evaluate, clamp
        self._optimizer, self._preconditioner = optimizer, preconditioner
        self._values, self._moved = values, moved
        self.told = values.clone()

    def __call__(self) -> None:
        """Do an iteration."""
        values, total, gradient = self.evaluate()
        self._optimizer.tell(total, gradient)
        accepted = self._optimizer.accepted
        self.told.copy_(values)
        self._values.copy_(torch.where(accepted, values, self._values))
        self._moved.logical_or_(accepted)

    def evaluate(self) -> Evaluated:
        """Terms (terms,), total () and gradient with respect to the optimiser's coordinates, at its next point."""
        image = self._preconditioner.picture(self._optimizer.propose())
        if not self._clamp:
            values, total, gradient = self._evaluate(image)
        else:
            outside = (image < 0).logical_or_(image > 1)
            # The objective is that of the picture as it is saved.
            values, total, gradient = self._evaluate(image.clamp_(0, 1))
            _project(gradient, image, outside)
            del outside
        del image  # the gradient needs room
        return values, total, self._preconditioner.gradient(gradient)


def _project(gradient: Tensor, image: Tensor, clamped: Tensor) -> None:
    """Drop the part of a gradient that leads further out where the picture was clamped to [0, 1].

    This is a projected gradient (Bertsekas 1982). Done channel by channel on a CPU: four masks of a large picture would
    take more memory than the picture.

    Args:
        gradient: (1, 3, h, w), changed in place.
        image: (1, 3, h, w) in [0, 1].
        clamped: (1, 3, h, w) bool.
    """
    for part in blocks(3, 1 if image.device.type == "cpu" else 3):
        x, g = image[:, part], gradient[:, part]
        outwards = torch.where(x > 0.5, g < 0, g > 0).logical_and_(clamped[:, part])
        g.masked_fill_(outwards, 0.0)
