"""The network of the training: VGG19 with batch normalisation and a linear classifier, both removed at the end.

Batch normalisation (Ioffe & Szegedy 2015) makes training from random weights fast. In evaluation it is an affine map,
so it is folded into the convolution before it. Then each layer is scaled to a mean activation of 1, as Gatys et al.
(2016, §2) do, so that all layers have statistics of a similar size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_daemon.engine.vgg import MEAN, STD, VGG, bare_features, layer_names
from nst_daemon.errors import ModelError

NETWORK = "vgg19"
#: The names of the modules in torchvision's `features`, without the last pooling, which no layer follows.
LAYERS = layer_names(NETWORK)[:-1]
DROPOUT = 0.1
CHUNK = 50  # pictures in one pass of `scale_layers`


class Classifier(nn.Module):
    """VGG19's convolutions with batch normalisation, the mean of each last map, and a linear layer.

    Inputs are normalised (`normalised`), (B, 3, S, S); outputs are (B, classes) in float32.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        channels = 3
        for module in list(bare_features(NETWORK))[: len(LAYERS)]:
            if isinstance(module, nn.Conv2d):
                modules.append(_convolution(channels, module.out_channels))
                modules.append(nn.BatchNorm2d(channels := module.out_channels))
            else:
                modules.append(module)
        self.features = nn.Sequential(*modules)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The score of each class."""
        means = self.features(x).float().mean((2, 3))
        scores: Tensor = self.head(F.dropout(means, DROPOUT, self.training))
        return scores.float()


def _convolution(before: int, channels: int) -> nn.Conv2d:
    """A convolution with random weights (He et al. 2015), channels last."""
    conv = nn.Conv2d(before, channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    return conv


def normalised(pictures: Tensor) -> Tensor:
    """The network's input, channels last, of pictures (B, 3, H, W) with RGB in [0, 1]."""
    mean, std = (torch.tensor(v, device=pictures.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def fold_batch_norm(features: nn.Sequential) -> dict[str, Tensor]:
    """The convolutions that compute what convolution and batch normalisation compute in evaluation.

    γ (Wx − μ) / √(σ² + ε) + β = (γ/√(σ² + ε)) W x + (β − γ μ / √(σ² + ε)).

    Args:
        features: Of a `Classifier`.

    Returns:
        Weights and biases in float64, in torchvision's layout, `features.<i>.weight` and `.bias`.
    """
    folded = {}
    modules = iter(features)
    for i, name in enumerate(LAYERS):
        conv = next(modules)
        if not name.startswith("conv"):
            continue
        norm = next(modules)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = conv.weight.detach().double()
        folded[f"features.{i}.weight"] = weight * factor.view(-1, 1, 1, 1)
        folded[f"features.{i}.bias"] = norm.bias.detach().double() - norm.running_mean * factor
    return folded


def scale_layers(state: Mapping[str, Tensor], pictures: Tensor) -> dict[str, Tensor]:
    """Scale each layer so that its mean activation after the ReLU is 1.

    ReLU and pooling commute with positive factors, so the features only change by one factor for each layer.

    Args:
        state: Weights and biases in torchvision's layout.
        pictures: (N, 3, S, S) uint8, on which the means are measured.

    Returns:
        The same keys.

    Raises:
        ModelError: A layer is zero, or not finite, on all pictures.
    """
    means = mean_activations(state, pictures)
    scaled, before = {}, 1.0
    for i, name in enumerate(LAYERS):
        if not name.startswith("conv"):
            continue
        mean = means[name.replace("conv", "relu")]
        if not 0 < mean < float("inf"):
            raise ModelError(
                f"the trained network is useless: the mean activation of {name} is {mean}",
                remedy="train for longer, or with a lower --lr",
            )
        scaled[f"features.{i}.weight"] = state[f"features.{i}.weight"] * (before / mean)
        scaled[f"features.{i}.bias"] = state[f"features.{i}.bias"] / mean
        before = mean
    return scaled


def mean_activations(state: Mapping[str, Tensor], pictures: Tensor) -> dict[str, float]:
    """The mean of each ReLU's map over pictures (N, 3, S, S) uint8, borders padded as in training."""
    relus = [name for name in LAYERS if name.startswith("relu")]
    network = VGG(state, relus, padding="zeros").to(pictures.device)
    sums = dict.fromkeys(relus, 0.0)
    with torch.no_grad():
        for part in torch.split(pictures, CHUNK):
            for name, maps in network(part / 255).items():
                sums[name] += float(maps.mean(dtype=torch.float64)) * len(part)
    return {name: total / len(pictures) for name, total in sums.items()}
