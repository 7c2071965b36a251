"""One iteration: what the optimiser is told."""

from __future__ import annotations

import torch
from torch import Tensor

from nst_daemon.engine.iteration import Iteration
from nst_daemon.engine.optimizers import Adam
from nst_daemon.engine.preconditioner import Preconditioner


def test_clamped_pixels_are_pushed_back_and_not_further_out() -> None:
    """The objective sees pixels in [0, 1], and where one was outside only the part of the gradient that leads back in
    is left.
    """
    # Below, inside, above; each with a gradient that lowers it, one that raises it, and one that is not finite.
    pixels, slopes = torch.tensor([-0.5, 0.5, 1.5]), torch.tensor([2.0, -3.0, torch.nan])
    picture = pixels[:, None].expand(3, 3).expand(1, 3, 3, 3)
    slope = slopes.expand(1, 3, 3, 3)

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert torch.equal(image, picture.clamp(0, 1))
        return torch.zeros(1), torch.zeros(()), slope.clone()

    iteration = Iteration(
        evaluate,
        Adam(picture.flatten(), step=0.1),
        Preconditioner(picture, 0.0),
        clamp=True,
        values=torch.zeros(1),
        moved=torch.tensor(False),
    )
    gradient = iteration.evaluate()[2].view(1, 3, 3, 3)
    expected = torch.tensor([[0.0, -3.0, torch.nan], [2.0, -3.0, torch.nan], [2.0, 0.0, torch.nan]])
    assert torch.equal(gradient.nan_to_num(9), expected.expand(1, 3, 3, 3).nan_to_num(9))
