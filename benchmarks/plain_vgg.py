"""The network as published programs have it, for the contenders of `benchmarks.peers`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nst_daemon.engine.vgg import VGG


class PlainVGG(nn.Module):
    """torchvision's layers in sequence on contiguous tensors, as in published programs."""

    def __init__(self, network: VGG) -> None:
        super().__init__()
        self.padding, self.names, self.layers = network.padding, network.names, network.layers
        self.features = network.features.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.mean, self.std = network.mean, network.std

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The maps of the layers of a picture (1, 3, H, W)."""
        x, found = (image - self.mean) / self.std, {}
        for i, (name, module) in enumerate(zip(self.names, self.features, strict=True)):
            if i == 0 and self.padding == "replicate":
                x = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
                x = nn.functional.conv2d(x, module.weight, module.bias)
            else:
                x = module(x)
            if name in self.layers:
                found[name] = x
        return found
