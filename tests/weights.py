"""Weights for networks that have none here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nst_daemon.engine.vgg import bare_features, layer_names


def random_weights(network: str, layers: Sequence[str] = ()) -> dict[str, Tensor]:
    """Weights in torchvision's layout that keep activations alive, up to the deepest of the layers (all if empty)."""
    generator = torch.Generator().manual_seed(0)
    depth = 1 + max((layer_names(network).index(name) for name in layers), default=1000)
    state = {}
    for key, tensor in bare_features(network)[:depth].state_dict().items():
        if tensor.ndim == 4:
            fan = tensor[0].numel()
            values = torch.randn(tensor.shape, generator=generator) * (2 / fan) ** 0.5
        elif key.endswith(("running_var", "weight")):
            values = 0.5 + torch.rand(tensor.shape, generator=generator)
        else:
            values = 0.1 * torch.rand(tensor.shape, generator=generator)
        state[f"features.{key}"] = values.to(tensor.dtype)
    return state
