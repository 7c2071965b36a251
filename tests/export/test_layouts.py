"""Weights in each layout that people have, built here as their documentation describes them, end in the same network.

The same random network is written in every layout, in that layout's own terms: its colour order, its range of values,
its order of axes. After the import each must see in a picture what the original sees.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nst_daemon.engine.vgg import MEAN, STD, VGG, bare_features, layer_names
from nst_daemon.errors import ModelError, UsageError
from nst_daemon.export import layouts
from nst_daemon.export.layouts import import_weights
from nst_daemon.export.weights import load

State = dict[str, Tensor]
CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB


@pytest.fixture(scope="module")
def ours() -> State:
    """A VGG19 with random weights, in torchvision's layout."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for i, module in enumerate(bare_features()):
        for kind, tensor in module.named_parameters():
            scale = 0.6 / (tensor[0].numel() ** 0.5 if tensor.ndim == 4 else 10)
            values = torch.randn(tensor.shape, generator=generator) * scale
            state[f"features.{i}.{kind}"] = values
    return state


def convolutions(state: State) -> dict[str, tuple[Tensor, Tensor]]:
    """Name → weight and bias."""
    return {
        name: (state[f"features.{i}.weight"], state[f"features.{i}.bias"])
        for i, name in enumerate(layer_names())
        if name.startswith("conv")
    }


def for_caffe(state: State, order: str) -> dict[str, tuple[Tensor, Tensor]]:
    """The same network for pixels from 0 to 255 in that order of colours, Caffe's mean subtracted.

    Our input is x = (rgb − mean)/std and Caffe's y = 255·rgb − m, so x = y/(255·std) + (m/255 − mean)/std.
    """
    layers = convolutions(state)
    weight, bias = (t.double() for t in layers["conv1_1"])
    mean, std = torch.tensor(MEAN).double(), torch.tensor(STD).double()
    m = torch.tensor(CAFFE_MEAN).double()
    bias = bias + (weight.sum((2, 3)) * ((m / 255 - mean) / std)).sum(1)
    weight = weight / (255 * std)[None, :, None, None]
    if order == "BGR":
        weight = weight.flip(1)
    return layers | {"conv1_1": (weight.float(), bias.float())}


def write_torchvision(state: State, folder: Path) -> Path:
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, folder / "x.pth")
    return folder / "x.pth"


def write_safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "x.safetensors")
    return folder / "x.safetensors"


def write_gatys(state: State, folder: Path) -> Path:
    """vgg_conv.pth of Gatys' notebooks: named layers, BGR; written by an old torch, not as a zip."""
    out = {}
    for name, (weight, bias) in for_caffe(state, "BGR").items():
        out[f"{name}.weight"], out[f"{name}.bias"] = weight, bias
    torch.save(out, folder / "x.pth", _use_new_zipfile_serialization=False)
    return folder / "x.pth"


def write_normalised(state: State, folder: Path) -> Path:
    """vgg_normalised.pth of AdaIN: a 1×1 convolution from RGB in [0, 1] to Caffe's input, then numbered layers."""
    out = {
        "0.weight": (255 * torch.eye(3)).flip(0)[:, :, None, None],
        "0.bias": -torch.tensor(CAFFE_MEAN).flip(0),
    }
    number = 2  # after a padding; then padding, convolution, ReLU, and a pooling after each block
    block = "1"
    for name, (weight, bias) in for_caffe(state, "BGR").items():
        if name[4] != block:
            number, block = number + 1, name[4]
        out[f"{number}.weight"], out[f"{number}.bias"] = weight, bias
        number += 3
    torch.save(out, folder / "x.pth")
    return folder / "x.pth"


def _matlab(state: State, folder: Path, fields: Callable[..., dict[str, object]]) -> Path:
    layers = []
    for name, (weight, bias) in for_caffe(state, "RGB").items():
        filters = weight.numpy().transpose(2, 3, 1, 0)  # (height, width, in, out)
        layers.append({"type": "conv", "name": name, **fields(filters, bias.numpy()[:, None])})
        layers.append({"type": "relu", "name": name.replace("conv", "relu")})
    cells = np.empty((1, len(layers)), dtype=object)
    cells[0] = layers
    scipy.io.savemat(folder / "x.mat", {"layers": cells, "meta": {"inputs": 1}})
    return folder / "x.mat"


def write_matconvnet(state: State, folder: Path) -> Path:
    """imagenet-vgg-verydeep-19.mat as of MatConvNet beta 17 and later: `weights` holds both."""

    def weights(filters: np.ndarray, biases: np.ndarray) -> dict[str, object]:
        cell = np.empty((1, 2), dtype=object)
        cell[0] = [filters, biases]
        return {"weights": cell}

    return _matlab(state, folder, weights)


def write_old_matconvnet(state: State, folder: Path) -> Path:
    """The same as of the first versions: `filters` and `biases`."""
    return _matlab(state, folder, lambda f, b: {"filters": f, "biases": b})


def _keras(state: State, folder: Path, names: Callable[[str], tuple[str, str]]) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        for name, (weight, bias) in for_caffe(state, "BGR").items():
            block = f"block{name[4]}_conv{name[6]}"
            kernel_name, bias_name = names(block)
            group = file.create_group(block)
            group[kernel_name] = weight.numpy().transpose(2, 3, 1, 0)
            group[bias_name] = bias.numpy()
        file.create_group("block1_pool")
        file.create_group("input_1")
    return folder / "x.h5"


def write_keras(state: State, folder: Path) -> Path:
    """vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5."""
    return _keras(state, folder, lambda b: (f"{b}_W_1:0", f"{b}_b_1:0"))


def write_keras2(state: State, folder: Path) -> Path:
    """A file that Keras 2's save_weights writes: one group deeper."""
    return _keras(state, folder, lambda b: (f"{b}/kernel:0", f"{b}/bias:0"))


WRITERS = [
    write_torchvision,
    write_safetensors,
    write_gatys,
    write_normalised,
    write_matconvnet,
    write_old_matconvnet,
    write_keras,
    write_keras2,
]


def seen(state: Mapping[str, Tensor], padding: str = "replicate") -> Tensor:
    """What conv1_1 sees in a picture, in float64."""
    network = VGG(state, ["conv1_1"], padding=padding)  # type: ignore[arg-type]
    return network(torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(5)))["conv1_1"]


@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_becomes_the_same_network(
    write: Callable[[State, Path], Path], ours: State, tmp_path: Path
) -> None:
    """All convolutions arrive, the first sees in a picture what the original sees, and the others are unchanged."""
    target = tmp_path / "out" / "mine.safetensors"
    found = import_weights(write(ours, tmp_path), target)
    assert found.path == target
    imported = load(found)
    assert imported.keys() == ours.keys()
    for key, tensor in ours.items():
        if not key.startswith("features.0."):
            assert torch.equal(imported[key], tensor), key
    torch.testing.assert_close(seen(imported), seen(ours), rtol=1e-4, atol=1e-4)


def test_torchvisions_arrives_to_the_bit(ours: State, tmp_path: Path) -> None:
    """Nothing is folded, hence nothing rounded, where the layout is ours already."""
    found = import_weights(write_torchvision(ours, tmp_path), tmp_path / "mine.safetensors")
    imported = load(found)
    assert all(torch.equal(imported[key], ours[key]) for key in ours)


def test_caffes_under_torchvisions_keys(
    ours: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caffe's weights under torchvision's keys are known by their digest, or by being told."""
    caffe = for_caffe(ours, "BGR")
    state = {}
    for i, name in enumerate(layer_names()):
        if name in caffe:
            state[f"features.{i}.weight"], state[f"features.{i}.bias"] = caffe[name]
    source = write_torchvision(state, tmp_path)
    told = load(import_weights(source, tmp_path / "told.safetensors", layout="caffe"))
    torch.testing.assert_close(seen(told), seen(ours), rtol=1e-4, atol=1e-4)
    taken = load(import_weights(source, tmp_path / "taken.safetensors"))
    assert torch.equal(taken["features.0.weight"], state["features.0.weight"])
    monkeypatch.setattr(layouts, "CAFFE_DIGESTS", (layouts.sha256_file(source)[:8],))
    known = load(import_weights(source, tmp_path / "known.safetensors"))
    assert torch.equal(known["features.0.weight"], told["features.0.weight"])


def test_zero_padding_is_half_a_grey_level_apart(ours: State, tmp_path: Path) -> None:
    """With zeros padded the border differs by what half a grey level makes, and the inside not at all."""
    imported = load(import_weights(write_keras(ours, tmp_path), tmp_path / "mine.safetensors"))
    a, b = seen(imported, "zeros"), seen(ours, "zeros")
    torch.testing.assert_close(a[..., 1:-1, 1:-1], b[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
    reach = convolutions(ours)["conv1_1"][0].abs().sum((1, 2, 3)).max()
    assert (a - b).abs().max() <= reach * 0.5 / 255 / min(STD)


def test_the_file_says_where_it_came_from(ours: State, tmp_path: Path) -> None:
    """The new file names its source, the source's digest and its layout."""
    source = write_keras(ours, tmp_path)
    target = import_weights(source, tmp_path / "mine.safetensors").path
    with safe_open(target, "pt") as file:
        assert file.metadata() == {
            "source": "x.h5",
            "source_sha256": layouts.sha256_file(source),
            "layout": "Keras",
        }


@pytest.mark.parametrize("write", WRITERS)
def test_the_layer_that_is_missing_is_named(
    write: Callable[[State, Path], Path], ours: State, tmp_path: Path
) -> None:
    """In every layout a file without its last layer is refused; the message names the layer."""
    source = _without_last(write, ours, tmp_path)
    with pytest.raises(ModelError, match=r"lacks conv5_4"):
        import_weights(source, tmp_path / "mine.safetensors")
    assert not (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize("fault", ["shape", "non-finite"])
def test_the_layer_that_does_not_fit_is_named(fault: str, ours: State, tmp_path: Path) -> None:
    """A layer of another shape, or with non-finite values, is named, and nothing is written."""
    key = f"features.{layer_names().index('conv3_2')}.weight"
    weight = ours[key].clone()
    weight[1, 2, 0, 0] = torch.nan
    broken = weight[:, :-1].contiguous() if fault == "shape" else weight
    source = write_safetensors(ours | {key: broken}, tmp_path)
    with pytest.raises(ModelError, match=rf"weight of conv3_2 .*{fault}"):
        import_weights(source, tmp_path / "mine.safetensors")
    assert not (tmp_path / "mine.safetensors").exists()


def _without_last(write: Callable[[State, Path], Path], state: State, folder: Path) -> Path:
    """The file without conv5_4."""
    source = write(state, folder)
    if source.suffix == ".h5":
        with h5py.File(source, "a") as file:
            del file["block5_conv4"]
    elif source.suffix == ".mat":
        content = scipy.io.loadmat(source)
        scipy.io.savemat(source, {"layers": content["layers"][:, :-2]})
    elif source.suffix == ".safetensors":
        save_file({k: t for k, t in state.items() if not k.startswith("features.34.")}, source)
    else:
        content = torch.load(source)
        last = list(content)[-2:] if "classifier.0.weight" not in content else list(content)[-3:-1]
        torch.save({k: t for k, t in content.items() if k not in last}, source)
    return source


def test_vgg16_is_told_from_vgg19(ours: State, tmp_path: Path) -> None:
    """A VGG16 in place of a VGG19 is refused by the first layer that it lacks."""
    state = {
        f"features.{i}.{kind}": torch.zeros(tensor.shape)
        for i, module in enumerate(bare_features("vgg16"))
        for kind, tensor in module.named_parameters()
    }
    source = write_safetensors(state, tmp_path)
    with pytest.raises(ModelError, match=r"lacks conv3_4"):
        import_weights(source, tmp_path / "mine.safetensors")
    import_weights(source, tmp_path / "sixteen.safetensors", network="vgg16")


def zipped() -> bytes:
    """A zip archive of one text file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x", "x")
    return out.getvalue()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.mat", "x.h5"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 3000, b"<!DOCTYPE html><p>404", b"hello\n", pickle.dumps({1: 2}), zipped()],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    """A file that is not one of tensors is an error of one line that names it and gives no advice of torch's."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name.replace(".", r"\.")) as caught:
        import_weights(tmp_path / name, tmp_path / "mine.safetensors")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_only_files_are_imported(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A folder and a pipe are refused, and nothing waits for the pipe's writer."""
    make(tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"x\.pth is not a regular file"):
        import_weights(tmp_path / "x.pth", tmp_path / "mine.safetensors")


@pytest.mark.parametrize("suffix", ["pth", "mat", "h5"])
def test_unknown_contents_are_named(tmp_path: Path, suffix: str) -> None:
    """A valid file of an unknown layout is refused; the message names some of its keys."""
    source = tmp_path / f"x.{suffix}"
    if suffix == "pth":
        torch.save({"encoder.weight": torch.zeros(1)}, source)
    elif suffix == "mat":
        scipy.io.savemat(source, {"encoder": 1})
    else:
        with h5py.File(source, "w") as file:
            file.create_group("encoder")
    with pytest.raises(ModelError, match=r"unknown layout.*encoder"):
        import_weights(source, tmp_path / "mine.safetensors")


def test_pickled_code_does_not_run(tmp_path: Path) -> None:
    """A .pth that would run code when unpickled is refused, and the code does not run."""

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"features.0.weight": Trap()}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match="objects other than tensors") as caught:
        import_weights(tmp_path / "x.pth", tmp_path / "mine.safetensors")
    assert not (tmp_path / "sprung").exists()
    assert "weights_only" not in str(caught.value)


def test_nothing_is_overwritten(ours: State, tmp_path: Path) -> None:
    """A target that exists, or is no .safetensors, is refused before anything is read."""
    (tmp_path / "mine.safetensors").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        import_weights(tmp_path / "gone.pth", tmp_path / "mine.safetensors")
    assert (tmp_path / "mine.safetensors").read_text() == "precious"
    with pytest.raises(UsageError, match=r"\.safetensors"):
        import_weights(tmp_path / "gone.pth", tmp_path / "mine.pth")


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    """A source that is not there is named."""
    with pytest.raises(ModelError, match=r"no file .*gone\.pth"):
        import_weights(tmp_path / "gone.pth", tmp_path / "mine.safetensors")


def test_a_missing_library_is_named(
    ours: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without h5py a .h5 file is refused with how to install it."""
    source = write_keras(ours, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ModelError, match=r"h5py is needed.*pip install"):
        import_weights(source, tmp_path / "mine.safetensors")
