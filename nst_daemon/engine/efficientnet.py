"""EfficientNet-B0 (Tan & Le 2019) instead of VGG, for comparisons: its stages are the layers."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nst_daemon.engine.vgg import VGG


class EfficientNet(VGG):
    """torchvision's `efficientnet_b0().features` up to the deepest of some layers.

    A convolution that halves an odd side rounds it down, as VGG's pooling does, so losses, masks and the exported
    graph treat both alike. As trained, it is rounded up.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for i, convolution in enumerate(m for m in self.modules() if isinstance(m, nn.Conv2d)):
            if convolution.stride == (2, 2):
                convolution.padding = (0, 0)
                replicate = i == 0 and self.padding == "replicate"
                convolution.register_forward_pre_hook(_repeat_edge if replicate else _pad)

    def stages(self) -> list[range]:
        """One stage per module."""
        return [range(i, i + 1) for i in range(len(self.names))]


def _pad(convolution: nn.Module, inputs: tuple[Tensor], mode: str = "constant") -> Tensor:
    """Pad one row and column less at the end than at the beginning; an even side does not need the last ones."""
    assert isinstance(convolution, nn.Conv2d)
    first = convolution.kernel_size[0] // 2
    return F.pad(inputs[0], (first, first - 1, first, first - 1), mode=mode)


def _repeat_edge(convolution: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return _pad(convolution, inputs, "replicate")
