"""Networks with the bundled weights, exported at most once for each choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nst_daemon.engine.vgg import VGG
from nst_daemon.export.graph import GraphSpec, export_onnx
from nst_daemon.export.weights import load
from nst_daemon.weights_file import WeightsFile, find_weights

Exported = tuple[Path, VGG, GraphSpec]


@pytest.fixture(scope="session")
def bundled() -> WeightsFile:
    return find_weights("bundled")


@pytest.fixture(scope="session")
def build(bundled: WeightsFile) -> Callable[[GraphSpec], VGG]:
    """The network that a spec describes, with the bundled weights."""
    state = load(bundled)

    def make(spec: GraphSpec) -> VGG:
        return VGG(
            state,
            spec.layers,
            pooling=spec.pooling,
            rescale_pooling=spec.rescale_pooling,
            padding=spec.padding,
        )

    return make


@pytest.fixture(scope="session")
def small(
    tmp_path_factory: pytest.TempPathFactory,
    bundled: WeightsFile,
    build: Callable[[GraphSpec], VGG],
) -> Exported:
    """Two style layers and a content layer near the input: a file that is quick to export and to run."""
    spec = GraphSpec.of(bundled.sha256, ["relu1_1", "relu2_1"], ["relu2_2"])
    vgg = build(spec)
    return export_onnx(vgg, spec, tmp_path_factory.mktemp("small")), vgg, spec
