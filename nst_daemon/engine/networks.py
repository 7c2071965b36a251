"""The networks that may look at pictures, as far as settings know them: without torch.

A layer has a name in words. What VGG19 calls relu4_2 has no namesake in every network, so each says what stands for the
layers that the presets name; layers that a person names are taken as they are, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Network:
    """layers: each layer in the network's order, and how often the picture is halved before it; spelled: their names
    in short; weights: torchvision's file of ImageNet's weights, with the first eight digits of its SHA-256;
    counterparts: what stands for those of VGG19's layers that the network has not; pooling: whether it can be chosen.
    """

    layers: Mapping[str, int]
    spelled: str
    weights: str
    counterparts: Mapping[str, str] = field(default_factory=dict)
    pooling: bool = True

    def translated(self, layers: Mapping[str, float]) -> dict[str, float]:
        """A preset's layers with their weights, as they are called here; those that become one add up."""
        translated: dict[str, float] = {}
        for name, weight in layers.items():
            own = self.counterparts.get(name, name)
            translated[own] = translated.get(own, 0.0) + weight
        return translated


def _vgg(*convolutions: int) -> dict[str, int]:
    """conv1_1, relu1_1, conv1_2, …, pool5 of a VGG with so many convolutions in each block."""
    layers = {}
    for block, count in enumerate(convolutions, start=1):
        for i in range(1, count + 1):
            layers[f"conv{block}_{i}"] = layers[f"relu{block}_{i}"] = block - 1
        layers[f"pool{block}"] = block
    return layers


_VGG19 = _vgg(2, 2, 4, 4, 4)
#: Tan & Le 2019, table 1: the stem, seven stages and the head, named by their place.
_EFFICIENTNET = {
    "stem": 1,
    "stage1": 1,
    "stage2": 2,
    "stage3": 3,
    "stage4": 4,
    "stage5": 4,
    "stage6": 5,
    "stage7": 5,
    "head": 5,
}
#: The last stage of the same resolution; there is none of the full one, for which the stem must stand.
_AT_RESOLUTION = ("stem", "stage1", "stage2", "stage3", "stage5", "stage7")

NETWORKS: Mapping[str, Network] = {
    "vgg19": Network(
        _VGG19, "conv1_1 … conv5_4, relu1_1 … relu5_4, pool1 … pool5", "vgg19-dcbb9e9d.pth"
    ),
    "vgg16": Network(
        _vgg(2, 2, 3, 3, 3),
        "conv1_1 … conv5_3, relu1_1 … relu5_3, pool1 … pool5",
        "vgg16-397923af.pth",
        {f"{kind}{b}_4": f"{kind}{b}_3" for kind in ("conv", "relu") for b in (3, 4, 5)},
    ),
    "efficientnet_b0": Network(
        _EFFICIENTNET,
        ", ".join(_EFFICIENTNET),
        "efficientnet_b0_rwightman-7f5810bc.pth",
        {name: _AT_RESOLUTION[halvings] for name, halvings in _VGG19.items()},
        pooling=False,
    ),
}


def minimum_side(layers: Iterable[str]) -> int:
    """The smallest side in pixels that leaves at least one position in each of the layers, of whatever network."""
    return int(2 ** max((_HALVINGS[name] for name in layers), default=0))


_HALVINGS = {name: times for network in NETWORKS.values() for name, times in network.layers.items()}
