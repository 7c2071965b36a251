"""VGG19 with named layers (Simonyan & Zisserman 2015), module by module torchvision's `vgg19().features`.

`conv4_2` is the map before the ReLU, `relu4_2` the map after it, `pool4` the map after the fourth pooling. In the Caffe
networks of the style-transfer papers the ReLU is in place, so their conv4_2 is `relu4_2` here.

Inputs are RGB in [0, 1]: the normalisation is part of the network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_daemon.engine import fusion, winograd
from nst_daemon.engine.device import cpu_supports
from nst_daemon.engine.networks import NETWORKS
from nst_daemon.errors import ModelError, SettingsError

Pooling = Literal["max", "average", "l2"]
Padding = Literal["replicate", "zeros"]

#: ImageNet's channel means and standard deviations for RGB in [0, 1], as torchvision's models expect them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

#: Average and L2 pooling change the scale of the following maps; these factors restore it for photographs.
POOLING_RESCALE: Mapping[Pooling, float] = {"max": 1.0, "average": 2.0, "l2": 0.78}


def bare_features(network: str = "vgg19") -> nn.Sequential:
    """torchvision's `features` on the meta device, without memory for weights. Raises ModelError if unknown."""
    if network not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise ModelError(f"unknown network {network!r}", remedy=f"known are: {known}")
    with torch.device("meta"):
        layers = NETWORKS[network].layers
        return _vgg(layers) if network.startswith("vgg") else _torchvisions(network)


def _vgg(layers: Mapping[str, int]) -> nn.Sequential:
    """A VGG's modules, without torchvision, whose import takes 130 MB and 1.5 s in each worker."""
    modules: list[nn.Module] = []
    channels = 3
    for name, halvings in layers.items():
        if name.startswith("conv"):
            wider = min(64 << halvings, 512)
            modules.append(nn.Conv2d(channels, wider, kernel_size=3, padding=1))
            channels = wider
        elif name.startswith("relu"):
            modules.append(nn.ReLU(inplace=True))
        else:
            modules.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*modules)


def _torchvisions(network: str) -> nn.Sequential:
    import torchvision.models  # noqa: PLC0415 (slow to import; VGGs do not need it)

    features = getattr(torchvision.models, network)(weights=None).features
    assert isinstance(features, nn.Sequential)
    return features


def layer_names(network: str = "vgg19") -> tuple[str, ...]:
    """The name of each module of `features`, in order: conv1_1, relu1_1, conv1_2, …, relu5_4, pool5."""
    return tuple(NETWORKS[network].layers)


def check_layers(layers: Iterable[str], network: str) -> None:
    """Raise SettingsError if the network does not have one of the layers."""
    names = layer_names(network)
    if unknown := sorted(set(layers) - set(names)):
        raise SettingsError(
            f"{network} has no layer {unknown[0]!r}", remedy=f"its layers are {', '.join(names)}"
        )


def compute_dtype(
    precision: Literal["auto", "float32", "bfloat16"], device: torch.device
) -> torch.dtype:
    """The dtype of the convolutions; `auto` is bfloat16 only where the hardware is faster with it."""
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    if device.type == "cuda":
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        faster = device.type == "cpu" and cpu_supports("avx512_bf16", "amx_tile")
    return torch.bfloat16 if faster else torch.float32


class VGG(nn.Module):
    """The network up to the deepest of some layers.

    Args:
        state: Tensors in torchvision's layout, `features.<i>.weight` and `.bias` (float16 or float32).
        layers: Names of the layers whose maps are returned.
        pooling: `max` as trained, `average` as in Gatys et al. 2016 §2, `l2` for the root of the mean of squares.
        rescale_pooling: Multiply pooled maps by `POOLING_RESCALE` (not in the papers).
        padding: `replicate` repeats the border at the first convolution, because zeros there show as a dark frame (not
            in the papers); deeper layers pad with zeros, as trained.
        network: A key of `networks.NETWORKS`.

    Raises:
        ModelError: A tensor is missing or has another shape.
        SettingsError: A layer is unknown.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        state: Mapping[str, Tensor],
        layers: Iterable[str],
        *,
        pooling: Pooling = "max",
        rescale_pooling: bool = False,
        padding: Padding = "replicate",
        network: str = "vgg19",
    ) -> None:
        super().__init__()
        names = layer_names(network)
        self.layers = frozenset(layers)
        check_layers(self.layers, network)
        if not self.layers:
            raise SettingsError("no layer is given", remedy=f"choose from {', '.join(names)}")
        depth = 1 + max(names.index(name) for name in self.layers)
        features = nn.Sequential(*list(bare_features(network))[:depth])
        self.names = names[:depth]
        self.pooling: Pooling = pooling
        self.pool_factor = POOLING_RESCALE[pooling] if rescale_pooling else 1.0
        self.padding: Padding = padding
        self.dtype = torch.float32  # of the convolutions
        self.features = _with_weights(features, state, self.names)
        for before, module in zip(self.names, list(self.features)[1:], strict=False):
            if isinstance(module, nn.ReLU):
                module.inplace = before not in self.layers  # conv4_2 and relu4_2 may both be needed
        self._kernels: dict[int, Tensor] = {}  # transformed for Winograd, by index
        self._quick = False
        self._others: dict[torch.dtype, VGG] = {}  # see computing_in
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The maps of the layers, in the network's order.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].

        Returns:
            Name → (B, C, H', W'); each pooling halves the sides, rounded down.
        """
        return self.part(self.normalised(image), range(len(self.names)))[1]

    def normalised(self, image: Tensor) -> Tensor:
        """The input of the first convolution, from (B, 3, H, W), RGB in [0, 1]."""
        x = (image - self.mean) / self.std
        return x.to(self.dtype, memory_format=torch.channels_last)

    def stages(self) -> list[range]:
        """The modules of `names` in consecutive parts, each of which ends with one of `layers` or a pooling."""
        ends = [
            i + 1
            for i, name in enumerate(self.names)
            if name in self.layers or name.startswith("pool")
        ]
        return [range(*bounds) for bounds in pairwise([0, *ends])]

    def part(self, x: Tensor, modules: range) -> tuple[Tensor, dict[str, Tensor]]:
        """Run some consecutive modules: the output of the last one, and the maps of `layers` among them."""
        out = {}
        indices = iter(modules)
        for i in indices:
            name, module = self.names[i], self.features[i]
            if name.startswith("pool"):
                x = self._pool(x)
            elif not name.startswith("conv"):
                x = module(x)
            elif i + 1 in modules and self._fuses(i, x):
                masked = i + 2 in modules and self._masks(i + 2, x)
                x = self._convolve(i, x, relu=True, masked=masked)
                name = self.names[next(indices)]
            else:
                x = self._convolve(i, x)
            if name in self.layers:
                out[name] = x
        return x, out

    def compute_in(self, dtype: torch.dtype) -> VGG:
        """Convolve, and return maps, in `dtype` from now on. Returns itself. Not after `quick`: it shares weights."""
        self.features.to(dtype)
        self.dtype = dtype
        self._kernels = {}
        return self

    def computing_in(self, dtype: torch.dtype) -> VGG:
        """This network if it convolves in `dtype`, else a copy that does, made once."""
        if dtype == self.dtype:
            return self
        if dtype not in self._others:
            # setdefault: two threads that make one get the same.
            # The memo, so that what is of no use to the copy is not copied.
            memo: dict[int, Any] = {id(self._kernels): {}, id(self._others): {}}
            self._others.setdefault(dtype, copy.deepcopy(self, memo).compute_in(dtype))
        return self._others[dtype]

    def quick(self) -> VGG:
        """This network, with the same weights in memory, for iterations whose gradients need not be very exact.

        It differs on a CPU in bfloat16 only, where it convolves by Winograd's algorithm too (`engine.winograd`).
        """
        other = copy.copy(self)
        other._quick, other._others = True, {}
        return other

    def _fuses(self, index: int, x: Tensor) -> bool:
        """Whether the convolution at `index`, applied to x, and the ReLU after it are one operation."""
        conv = self.features[index]
        assert isinstance(conv, nn.Conv2d)
        if self.names[index] in self.layers:
            return False
        # In a VGG each convolution has a ReLU after it.
        return self._transforms(conv, x) or fusion.convolves_for(x, conv)

    def _masks(self, index: int, x: Tensor) -> bool:
        """Whether the module at `index`, after a convolution of x and its ReLU, is a pooling that does the ReLU's part
        of the backward pass.
        """
        pools = self.names[index].startswith("pool") and self.pooling == "max"
        return pools and self.names[index - 1] not in self.layers and fusion.pools_mask(x)

    def _convolve(
        self, index: int, x: Tensor, *, relu: bool = False, masked: bool = False
    ) -> Tensor:
        """(B, O, H, W): x (B, C, H, W) through the convolution at `index`.

        Args:
            index: Of the module.
            x: Its input.
            relu: Through the ReLU after it as well.
            masked: A pooling follows that masks the gradient.
        """
        conv = self.features[index]
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        if self._transforms(conv, x):
            if index not in self._kernels:
                self._kernels.setdefault(index, winograd.transformed(conv.weight))
            kernels = self._kernels[index]
            return winograd.convolve(x, kernels, conv.bias, relu=relu, masked=masked)
        padding = 1
        if index == 0 and self.padding == "replicate":
            x, padding = F.pad(x, (1, 1, 1, 1), mode="replicate"), 0
        if relu:
            return fusion.conv_relu(x, conv.weight, conv.bias, padding, masked=masked)
        return F.conv2d(x, conv.weight, conv.bias, padding=padding)

    def _transforms(self, conv: nn.Conv2d, x: Tensor) -> bool:
        """Whether Winograd's algorithm convolves x (B, C, H, W)."""
        # An exported graph must hold for all sizes, and onnxruntime has its own algorithms.
        suitable = x.device.type == "cpu" and not torch.compiler.is_exporting()
        enough = self._quick or x.dtype == torch.float32
        return suitable and enough and winograd.pays(conv, x)

    def _pool(self, x: Tensor) -> Tensor:
        """Halve (B, C, H, W) with the chosen pooling."""
        match self.pooling:
            case "max":
                fused = fusion.kernels_for(x)
                y = F.max_pool2d(x, 2) if fused is None else fused.max_pool2(x)
            case "average":
                y = F.avg_pool2d(x, 2)
            case "l2":
                # The small constant keeps the root's derivative finite for windows of zeros.
                y = (F.avg_pool2d(x.square(), 2) + 1e-12).sqrt()
        return y if self.pool_factor == 1.0 else y * self.pool_factor


def _with_weights(
    features: nn.Sequential, state: Mapping[str, Tensor], names: tuple[str, ...]
) -> nn.Sequential:
    """Load the weights as float32, channels last. Raises ModelError that names the layer that does not fit."""
    wanted = {f"features.{key}": tensor.shape for key, tensor in features.state_dict().items()}
    for key, shape in wanted.items():
        layer = names[int(key.split(".")[1])]
        if key not in state:
            raise ModelError(
                f"the weights lack {key} ({layer})", remedy="use a complete file of this network"
            )
        if state[key].shape != shape:
            raise ModelError(
                f"the weights' {key} ({layer}) has shape {tuple(state[key].shape)}",
                remedy=f"{tuple(shape)} is needed: it may be a file of another network",
            )
    # Copies, so that later changes of the caller's tensors do not affect the network.
    tensors = {k.removeprefix("features."): _own(state[k]) for k in wanted}
    features.load_state_dict(tensors, assign=True)
    return features


def _own(weight: Tensor) -> Tensor:
    """A copy in float32, channels last if it has channels; made at once, because freed copies stay in the heap."""
    order = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
    return weight.to(torch.float32, copy=True, memory_format=order)
