"""Converts weights of other layouts to torchvision's layout in a .safetensors file. Nothing in a file is executed.

| file | layout | what its first layer expects |
|---|---|---|
| .pth or .safetensors, `features.0.weight` … | torchvision | RGB, normalised by ImageNet's mean and deviation |
| the same keys (jcjohnson's conversion), or `conv1_1.weight` … (Gatys') | Caffe | BGR, 0 to 255, mean subtracted |
| .pth, `0.weight` (3, 3, 1, 1), `2.weight` … | normalised VGG (AdaIN) | RGB in [0, 1]; its 1×1 layer does the rest |
| .mat, `layers` with `name` and `weights` | MatConvNet | RGB, 0 to 255, mean subtracted |
| .h5, `block1_conv1` … | Keras without top | BGR, 0 to 255, mean subtracted |

What the first layer expects is folded into its weights, so every network takes the same input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from nst_daemon import extras
from nst_daemon.digests import sha256_file
from nst_daemon.engine.vgg import MEAN, STD, bare_features, layer_names
from nst_daemon.errors import ModelError, UsageError
from nst_daemon.files import make_folder, write_atomic
from nst_daemon.weights_file import WeightsFile, check_size, find_weights

from .weights import read_tensors, unreadable

#: `auto` recognises layouts by their keys; Caffe files with torchvision's keys are recognised by known digests.
Layout = Literal["auto", "torchvision", "caffe"]

#: First digits of the SHA-256 of jcjohnson's conversions, as in their names (vgg19-d01eb7cb.pth).
CAFFE_DIGESTS = ("d01eb7cb", "00b39a1b")
#: The mean colour that Caffe's VGG subtracts, as RGB from 0 to 255 (Simonyan & Zisserman's release).
CAFFE_MEAN = (123.68, 116.779, 103.939)

_NAME = re.compile(r"(?:block(\d)_conv|conv(\d)_)(\d)$")


@dataclass(frozen=True, slots=True)
class Expected:
    """The input of the first convolution, y = A·rgb + a, for RGB in [0, 1]; A is (3, 3), a is (3,)."""

    A: Tensor
    a: Tensor


@dataclass(frozen=True, slots=True)
class Stack:
    """The convolutions of a file.

    Attributes:
        layers: Name (`conv1_1`) → weight (out, in, height, width) and bias (out,).
        expected: The input of the first one; None for torchvision's.
        layout: Its name.
    """

    layers: Mapping[str, tuple[Tensor, Tensor]]
    expected: Expected | None
    layout: str


def import_weights(
    source: Path, target: Path, *, network: str = "vgg19", layout: Layout = "auto"
) -> WeightsFile:
    """Convert a weights file to torchvision's layout.

    Args:
        source: .pth, .safetensors, .mat or .h5.
        target: .safetensors, float32; must not exist.
        network: `vgg19` or `vgg16`.
        layout: Of a file with torchvision's keys and an unknown digest; `auto` takes it as torchvision's.

    Returns:
        The target, as `weights: TARGET` finds it.

    Raises:
        ModelError: The source is damaged or does not fit; the message names the layer.
        UsageError: The target exists or has another suffix.
    """
    if layout not in get_args(Layout):
        raise UsageError(
            f"there is no layout {layout!r}", remedy=f"choose from {', '.join(get_args(Layout))}"
        )
    if not network.startswith("vgg"):
        raise UsageError(
            f"weights of {network} have one layout, torchvision's, and need no import",
            remedy="name the file as model.weights",
        )
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} does not end in .safetensors", remedy="choose such a name")
    if target.exists():
        raise UsageError(f"{target} exists already", remedy="choose another name or remove it")
    digest = _digest_of(source)
    stack = _read(source, layout, digest)
    tensors = _as_torchvision(stack, network, source)
    about = {"source": source.name, "source_sha256": digest, "layout": stack.layout}
    make_folder(target.parent)
    write_atomic(target, save(tensors, about))
    return find_weights(target, network)


def _digest_of(source: Path) -> str:
    """The SHA-256 of the source. Raises ModelError if it is not a file that can be read."""
    try:
        if not source.exists():
            raise ModelError(f"there is no file {source}", remedy="name the file to import")
        if not source.is_file():
            raise ModelError(f"{source} is not a regular file", remedy="name the file to import")
        check_size(source)
        return sha256_file(source)
    except OSError as error:
        raise unreadable(source, error) from error


def _read(source: Path, layout: Layout, digest: str) -> Stack:
    match source.suffix.lower():
        case ".mat":
            return _read_matconvnet(source)
        case ".h5" | ".hdf5":
            return _read_keras(source)
        case _:
            return _from_tensors(read_tensors(source), source, layout, digest)


def _as_torchvision(stack: Stack, network: str, source: Path) -> dict[str, Tensor]:
    """The tensors in torchvision's layout; shapes and finiteness are checked."""
    out = {}
    for i, (name, module) in enumerate(
        zip(layer_names(network), bare_features(network), strict=True)
    ):
        if not isinstance(module, nn.Conv2d):
            continue
        if name not in stack.layers:
            raise ModelError(
                f"{source} lacks {name} ({stack.layout} layout)",
                remedy=f"use a complete file of {network}; its classifier is not needed",
            )
        weight, bias = (t.double() for t in stack.layers[name])
        for kind, found, wanted in (
            ("weight", weight, module.weight),
            ("bias", bias, module.bias),
        ):
            assert wanted is not None
            if found.shape != wanted.shape:
                raise ModelError(
                    f"{source}: the {kind} of {name} has shape {tuple(found.shape)}",
                    remedy=f"{tuple(wanted.shape)} is needed: it may be a file of another network than {network}",
                )
            if not found.isfinite().all():
                raise ModelError(
                    f"{source}: the {kind} of {name} has non-finite values",
                    remedy="the file is damaged: get it again",
                )
        if i == 0 and stack.expected is not None:
            weight, bias = _fold(weight, bias, stack.expected)
        out[f"features.{i}.weight"] = weight.float().contiguous()
        out[f"features.{i}.bias"] = bias.float().contiguous()
    return out


def _fold(weight: Tensor, bias: Tensor, expected: Expected) -> tuple[Tensor, Tensor]:
    """The first convolution for the input x = (rgb − mean) / std, from one for y = A·rgb + a.

    y = A·diag(std)·x + (A·mean + a), so W'·x + b' = W·y + b. Only zero padding differs: it
    means x = 0 now and y = 0 before, which for Caffe is half a grey level of 255 apart.
    """
    mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
    A, a = expected.A.double(), expected.a.double()
    shift = A @ mean + a
    folded = torch.einsum("okyx,kc->ocyx", weight, A * std)
    return folded, bias + torch.einsum("okyx,k->o", weight, shift)


def _caffe(order: Literal["RGB", "BGR"]) -> Expected:
    """255·rgb minus the mean colour, in this order of channels."""
    A, a = 255 * torch.eye(3, dtype=torch.float64), -torch.tensor(CAFFE_MEAN, dtype=torch.float64)
    return Expected(A, a) if order == "RGB" else Expected(A.flip(0), a.flip(0))


def _from_tensors(
    tensors: Mapping[str, Tensor], source: Path, layout: Layout, digest: str
) -> Stack:
    """.pth and .safetensors: the keys say which layout it is."""
    if any(key.startswith("features.") for key in tensors):
        caffe = layout == "caffe" or (layout == "auto" and digest.startswith(CAFFE_DIGESTS))
        layers = _in_order(tensors, "features.")
        return Stack(layers, _caffe("BGR") if caffe else None, "Caffe" if caffe else "torchvision")
    if "conv1_1.weight" in tensors:
        names = [key.removesuffix(".weight") for key in tensors if key.endswith(".weight")]
        layers = {n: (tensors[f"{n}.weight"], _bias(tensors, n, source)) for n in names}
        return Stack(layers, _caffe("BGR"), "Caffe")
    first = tensors.get("0.weight")
    if first is not None and first.shape == (3, 3, 1, 1) and "0.bias" in tensors:
        rest = {key: t for key, t in tensors.items() if not key.startswith("0.")}
        expected = Expected(first[:, :, 0, 0], tensors["0.bias"])
        return Stack(_in_order(rest, ""), expected, "normalised")
    raise _unknown(source, list(tensors))


def _in_order(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Numbered convolutions: the n-th is the n-th of VGG19, or of VGG16 if there are 13."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.weight")
    numbers = sorted(int(m[1]) for key in tensors if (m := pattern.fullmatch(key)))
    network = "vgg16" if len(numbers) == 13 else "vgg19"
    names = [name for name in layer_names(network) if name.startswith("conv")]
    nothing = torch.empty(0)  # of a shape that never fits, so that the error names its layer
    return {
        name: (tensors[f"{prefix}{n}.weight"], tensors.get(f"{prefix}{n}.bias", nothing))
        for name, n in zip(names, numbers, strict=False)
    }


def _bias(tensors: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    if f"{name}.bias" not in tensors:
        raise ModelError(f"{source} lacks {name}.bias", remedy="use a complete VGG file")
    return tensors[f"{name}.bias"]


def _read_matconvnet(source: Path) -> Stack:
    """`layers`: a cell array of structs with `name` and `weights` = {filters, biases} (older: those two fields).

    Filters are (height, width, in, out), as MatConvNet's manual has them.
    """
    scipy_io = _module("scipy.io", source)
    try:
        # Structs become plain objects with attributes; MATLAB's objects stay data and are not executed.
        content = scipy_io.loadmat(source, struct_as_record=False, squeeze_me=True)
    except Exception as error:  # the reader raises any exception
        raise unreadable(source, error) from error
    if "layers" not in content:
        raise _unknown(source, [key for key in content if not key.startswith("__")])
    layers = {}
    for layer in np.atleast_1d(content["layers"]):
        name = str(getattr(layer, "name", ""))
        if not _NAME.fullmatch(name):
            continue
        pair = getattr(layer, "weights", None)
        if pair is None:
            pair = (getattr(layer, "filters", None), getattr(layer, "biases", None))
        layers[name] = _pair(pair, name, source)
    return Stack(layers, _caffe("RGB"), "MatConvNet")


def _read_keras(source: Path) -> Stack:
    """Groups `block1_conv1` … with a kernel (height, width, in, out) and a bias somewhere inside."""
    h5py = _module("h5py", source)
    try:
        with h5py.File(source, "r") as file:
            root = file.get("model_weights", file)
            layers = {}
            for key in root:
                if match := _NAME.fullmatch(key):
                    name = f"conv{match[1] or match[2]}_{match[3]}"
                    found = sorted(_datasets(root[key]), key=lambda array: -array.ndim)
                    layers[name] = _pair(found, name, source)
            keys = list(root)
    except ModelError:
        raise
    except Exception as error:  # the reader raises any exception
        raise unreadable(source, error) from error
    if not layers:
        raise _unknown(source, keys)
    return Stack(layers, _caffe("BGR"), "Keras")


def _datasets(group: Any) -> Iterator[np.ndarray[Any, Any]]:
    for item in group.values():
        if hasattr(item, "values"):
            yield from _datasets(item)
        else:
            yield item[()]


def _pair(pair: Any, name: str, source: Path) -> tuple[Tensor, Tensor]:
    """Filters (height, width, in, out) and biases → weight (out, in, height, width) and bias (out,)."""
    try:
        filters, biases = (np.asarray(array, dtype=np.float64) for array in pair)
        weight = torch.from_numpy(filters.transpose(3, 2, 0, 1).copy())
        return weight, torch.from_numpy(np.atleast_1d(biases).copy())
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{source}: {name} is not a pair of filters and biases", remedy="use a complete file"
        ) from error


def _module(name: str, source: Path) -> ModuleType:
    """Import a library that only this layout needs. Raises ModelError if it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ModelError(
            f"{package} is needed to read {source}",
            remedy=extras.install("import"),
        ) from error


def _unknown(source: Path, keys: Sequence[str]) -> ModelError:
    found = ", ".join(sorted(keys)[:3]) or "nothing"
    return ModelError(
        f"{source} has an unknown layout (it has {found})",
        remedy="known layouts are torchvision, Caffe, normalised VGG, MatConvNet and Keras",
    )
