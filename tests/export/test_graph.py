"""The exported graph computes its formulas at any size; its file is complete and has metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from nst_daemon.engine.efficientnet import EfficientNet
from nst_daemon.engine.losses import statistics as engine_statistics
from nst_daemon.engine.targets import OnnxTargets
from nst_daemon.engine.vgg import VGG, layer_names
from nst_daemon.errors import ModelError, SettingsError, StorageError
from nst_daemon.export.graph import GraphSpec, export_onnx, statistics
from nst_daemon.export.parity import TOLERANCE, parity, require_parity
from nst_daemon.weights_file import WeightsFile
from tests.weights import random_weights

from .conftest import Exported

Build = Callable[[GraphSpec], VGG]


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def halve(guide: np.ndarray) -> np.ndarray:
    """(R, h, w) → (R, h // 2, w // 2), each the mean of four."""
    r, h, w = guide.shape
    return guide[:, : h // 2 * 2, : w // 2 * 2].reshape(r, h // 2, 2, w // 2, 2).mean((2, 4))


@pytest.mark.slow
def test_every_convolution_agrees_with_torch(
    tmp_path: Path, bundled: WeightsFile, build: Build
) -> None:
    """Gram, mean and features after each of the 16 convolutions agree with torch's within 1e-4 at two odd sizes."""
    layers = [name for name in layer_names() if name.startswith("relu")]
    assert len(layers) == 16
    spec = GraphSpec.of(bundled.sha256, layers, layers)
    vgg = build(spec)
    rows = parity(export_onnx(vgg, spec, tmp_path), vgg, spec)
    assert {row.output for row in rows} == set(spec.outputs)
    assert len(rows) == 2 * 3 * 16
    assert len({row.size for row in rows}) == 2
    assert all(side % 2 for row in rows for side in row.size)
    require_parity(rows)


@pytest.mark.parametrize(
    "choice",
    [
        {"pooling": "average", "rescale_pooling": True, "padding": "zeros"},
        {"pooling": "l2", "rescale_pooling": False, "padding": "replicate"},
    ],
)
def test_pooling_and_padding_are_exported(
    tmp_path: Path, bundled: WeightsFile, build: Build, choice: dict[str, Any]
) -> None:
    """Average and L2 pooling, their rescaling and both paddings agree with torch's."""
    spec = GraphSpec.of(bundled.sha256, ["relu2_1"], ["conv1_1"], **choice)
    vgg = build(spec)
    require_parity(parity(export_onnx(vgg, spec, tmp_path), vgg, spec))


def test_statistics_follow_the_formula(small: Exported) -> None:
    """Gram and mean equal Σ w F Fᵀ / Σ w and Σ w F / Σ w in float64, the guide averaged down with floor-halving."""
    file, vgg, _ = small
    image = picture(37, 51)
    guide = torch.rand(1, 3, 37, 51, generator=torch.Generator().manual_seed(1))
    found = OnnxTargets(file).style(image, guide)
    with torch.no_grad():
        maps = {k: v[0].double().numpy() for k, v in vgg(image).items()}
    weights = {"relu1_1": guide[0].double().numpy()}
    weights["relu2_1"] = halve(weights["relu1_1"])
    for layer, w in weights.items():
        F = maps[layer]
        for r in range(3):
            gram = np.einsum("hw,nhw,mhw->nm", w[r], F, F) / w[r].sum()
            mean = np.einsum("hw,nhw->n", w[r], F) / w[r].sum()
            np.testing.assert_allclose(found[layer].gram[r], gram, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found[layer].mean[r], mean, rtol=1e-4, atol=1e-6)


def test_graph_and_engine_define_the_same_statistics() -> None:
    """What the graph computes for a style is what the engine computes for the picture being painted."""
    generator = torch.Generator().manual_seed(2)
    features = torch.rand(1, 7, 5, 9, generator=generator)
    guide = torch.rand(1, 2, 5, 9, generator=generator)
    gram, mean = statistics(features, guide)
    ours = engine_statistics(features, guide)
    torch.testing.assert_close(gram, ours.gram)
    torch.testing.assert_close(mean, ours.mean)


def test_a_region_that_vanishes_gives_zeros() -> None:
    """A region without weight at a layer has a Gram matrix of zeros, and not of NaN."""
    gram, mean = statistics(torch.rand(1, 4, 3, 3), torch.zeros(1, 1, 3, 3))
    assert not gram.any()
    assert not mean.any()


@pytest.mark.parametrize("size", [(16, 16), (16, 31), (129, 17)])
def test_sizes_down_to_the_smallest(
    statistics_file: Path, build: Build, bundled: WeightsFile, size
) -> None:  # type: ignore[no-untyped-def]
    """A side of 16 pixels, the least that relu5_1 can take, works and agrees with torch."""
    targets = OnnxTargets(statistics_file)
    assert "relu5_1" in targets.style_layers
    image = picture(*size)
    found = targets.style(image)
    vgg = build(GraphSpec.of(bundled.sha256, targets.style_layers, []))
    with torch.no_grad():
        wanted = {name: engine_statistics(maps) for name, maps in vgg(image).items()}
    for layer in targets.style_layers:
        torch.testing.assert_close(found[layer].gram, wanted[layer].gram, rtol=1e-3, atol=1e-5)


def test_the_file_says_what_it_is(small: Exported) -> None:
    """The metadata hold the weights' digest, every layer and the versions, and nothing of this machine."""
    file, _, spec = small
    model = onnx.load(file)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["weights_sha256"] == spec.weights_sha256
    assert about["style_layers"] == "relu1_1,relu2_1"
    assert about["content_layers"] == "relu2_2"
    assert about["torch_version"] == torch.__version__.partition("+")[0]
    assert str(Path.home()).encode() not in file.read_bytes()
    assert str(Path(__file__).parent.parent.parent).encode() not in file.read_bytes()


def test_inputs_and_outputs_are_named(small: Exported) -> None:
    """The graph takes `image` and `guide` of any size and names each output by its layer."""
    session = onnxruntime.InferenceSession(small[0], providers=["CPUExecutionProvider"])
    assert {i.name: i.shape for i in session.get_inputs()} == {
        "image": [1, 3, "height", "width"],
        "guide": [1, "regions", "height", "width"],
    }
    names = [output.name for output in session.get_outputs()]
    assert names == [
        "relu1_1.gram",
        "relu1_1.mean",
        "relu2_1.gram",
        "relu2_1.mean",
        "relu2_2",
    ]


def test_the_file_is_one(small: Exported) -> None:
    """The weights are inside the file: nothing else lies in its folder."""
    file, _, _ = small
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    tensors = onnx.load(file).graph.initializer
    assert [len(t.external_data) for t in tensors] == [0] * len(tensors)
    assert sum(len(t.raw_data) for t in tensors) > 1000


def test_each_choice_has_its_own_file(bundled: WeightsFile) -> None:
    """Changing any field of a spec changes the file's name; the order of the layers does not."""
    spec = GraphSpec.of(bundled.sha256, ["relu1_1", "relu2_1"], ["relu4_2"])
    other = {
        "network": "vgg16",
        "weights_sha256": "0" * 64,
        "style_layers": ("relu1_1",),
        "content_layers": ("conv4_2",),
        "pooling": "l2",
        "rescale_pooling": True,
        "padding": "zeros",
        "format": spec.format + 1,
    }
    assert set(other) == {field.name for field in fields(spec)}
    names = {replace(spec, **{key: value}).filename for key, value in other.items()}
    assert len(names | {spec.filename}) == len(other) + 1
    assert GraphSpec.of(bundled.sha256, ["relu2_1", "relu1_1"], ["relu4_2"]) == spec


def test_an_unknown_layer_is_refused(bundled: WeightsFile) -> None:
    """A layer that the network lacks is named, together with those it has."""
    with pytest.raises(SettingsError, match=r"no layer 'relu9_1'.*relu1_1"):
        GraphSpec.of(bundled.sha256, ["relu9_1"], [])


def test_other_weights_fail_the_parity(small: Exported) -> None:
    """A file that was made from other weights does not pass."""
    file, vgg, spec = small
    with torch.no_grad():
        first = vgg.features[0].weight
        kept = first.clone()
        first.mul_(1.001)
        try:
            rows = parity(file, vgg, spec)
        finally:
            first.copy_(kept)
    assert any(row.error > TOLERANCE for row in rows)
    with pytest.raises(ModelError, match="disagree at"):
        require_parity(rows)


def test_nan_fails_the_parity() -> None:
    """An error of NaN does not pass as a small one."""
    from nst_daemon.export.parity import ParityRow

    with pytest.raises(ModelError):
        require_parity([ParityRow("relu1_1.gram", (33, 65), float("nan"))])


def test_a_folder_that_cannot_be_written_is_named(small: Exported, tmp_path: Path) -> None:
    """Where a file stands in the folder's place, the export ends with a StorageError that names it."""
    _, vgg, spec = small
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="taken"):
        export_onnx(vgg, spec, tmp_path / "taken")


@pytest.mark.parametrize(
    ("network", "style", "content"),
    [
        ("vgg16", ["relu1_1", "relu2_1"], ["relu2_2"]),
        ("efficientnet_b0", ["stem", "stage1", "stage3"], ["stage2"]),
    ],
)
def test_other_networks_are_exported(
    tmp_path: Path, network: str, style: list[str], content: list[str]
) -> None:
    """VGG16 and EfficientNet-B0 agree with torch at every output, at two odd sizes, under a guide of two regions."""
    state = random_weights(network, [*style, *content])
    spec = GraphSpec.of("0" * 64, style, content, network=network)
    kind = EfficientNet if network == "efficientnet_b0" else VGG
    torch_network = kind(state, spec.layers, network=network)
    require_parity(parity(export_onnx(torch_network, spec, tmp_path), torch_network, spec))
