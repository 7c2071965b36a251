"""The feature networks, as far as the settings need to know them: without torch.

Layers have names. Presets name VGG19's layers; each other network has counterparts for them. Layers that a person
names must be the network's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Network:
    """A feature network.

    Attributes:
        layers: Each layer, in order → how often the picture has been halved before it.
        spelled: The layers' names in short, for messages.
        weights: torchvision's file of ImageNet weights; its name holds the first eight digits of its SHA-256.
        counterparts: VGG19's layers that the network does not have → its own layers to use instead.
        pooling: The kind of pooling can be chosen.
    """

    layers: Mapping[str, int]
    spelled: str
    weights: str
    counterparts: Mapping[str, str] = field(default_factory=dict)
    pooling: bool = True

    def translated(self, layers: Mapping[str, float]) -> dict[str, float]:
        """A preset's layers and weights in this network's names; weights of the same layer add up."""
        translated: dict[str, float] = {}
        for name, weight in layers.items():
            own = self.counterparts.get(name, name)
            translated[own] = translated.get(own, 0.0) + weight
        return translated


def _vgg(*convolutions: int) -> dict[str, int]:
    """conv1_1, relu1_1, conv1_2, …, pool5 of a VGG with these numbers of convolutions per block."""
    layers = {}
    for block, count in enumerate(convolutions, start=1):
        for i in range(1, count + 1):
            layers[f"conv{block}_{i}"] = layers[f"relu{block}_{i}"] = block - 1
        layers[f"pool{block}"] = block
    return layers


_VGG19 = _vgg(2, 2, 4, 4, 4)
#: Tan & Le 2019, table 1: the stem, seven stages and the head.
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
#: The last stage at each number of halvings; no stage has full resolution, so the stem is used for it.
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
    """The smallest side in pixels that leaves at least one position in each of the layers; also a layer's stride."""
    return int(2 ** max((_HALVINGS[name] for name in layers), default=0))


def channels(layer: str) -> int:
    """The number of channels of a VGG's layer."""
    return min(64 * minimum_side([layer]), 512)


_HALVINGS = {name: times for network in NETWORKS.values() for name, times in network.layers.items()}
