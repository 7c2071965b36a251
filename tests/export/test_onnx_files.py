"""ONNX files are made once, by the package's graphs or by torch in another process, and failures say why."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from docs.make_graphs import FOLDER, specs
from nst_daemon.engine.settings import resolve
from nst_daemon.errors import ModelError, OutOfMemory
from nst_daemon.export.graph import GraphSpec
from nst_daemon.export.onnx_files import OnnxFiles, filled, packaged_graph, stripped
from nst_daemon.export.parity import parity, require_parity
from nst_daemon.export.weights import load
from nst_daemon.painter import Painter
from nst_daemon.weights_file import WeightsFile
from tests.users import User, needs_root
from tests.weights import random_weights


@pytest.fixture
def own_spec(bundled: WeightsFile) -> GraphSpec:
    """A graph that the package does not have; it is quick to export."""
    return GraphSpec.of(bundled.sha256, ["relu1_1"], ["relu1_2"])


def exports(caplog: pytest.LogCaptureFixture) -> int:
    """How many exports by torch the log has."""
    return sum(message.startswith("exporting ") for message in caplog.messages)


def test_the_package_has_the_graph_of_each_preset(tmp_path: Path) -> None:
    """For each preset the package has the graph, without weights and paths, and none that no preset uses."""
    wanted = specs(Painter(weights="bundled", device="cpu", cache_dir=tmp_path))
    files = {path.name: path.read_bytes() for path in FOLDER.glob("*.onnx")}
    assert set(files) == set(wanted)
    assert sum(map(len, files.values())) < 150_000
    assert not any(str(Path.home()).encode() in content for content in files.values())


def test_packaged_graphs_agree_with_torch_for_any_weights(
    tmp_path: Path, bundled: WeightsFile, build: Callable[[GraphSpec], torch.nn.Module]
) -> None:
    """A packaged graph with the weights filled in agrees with torch at every output; no weight is left out."""
    for _, spec in specs(Painter(weights="bundled", device="cpu", cache_dir=tmp_path)).values():
        path = OnnxFiles(tmp_path).make(spec, bundled, load(bundled))
        require_parity(parity(path, build(spec), spec))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["painting", "gatys2016"])
def test_a_packaged_graph_is_what_torch_exports(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, preset: str
) -> None:
    """The file that is made from the package's graph is byte for byte the one that torch exports."""
    painter, settings = (
        Painter(weights="bundled", device="cpu", cache_dir=tmp_path),
        resolve({"preset": preset}),
    )
    with caplog.at_level(logging.INFO):
        made = painter.targets(settings).file.read_bytes()
        assert exports(caplog) == 0
        exported = painter.export(settings).read_bytes()
        assert exports(caplog) == 1
    about = [
        {p.key: p.value for p in onnx.load_from_string(f).metadata_props} for f in (made, exported)
    ]
    if about[0] != about[1]:
        pytest.skip("the package's graphs were exported by other versions")
    assert made == exported
    assert stripped(exported) == packaged_graph(painter.spec(settings))


def test_weights_that_do_not_fit_are_named(bundled: WeightsFile) -> None:
    """Filling in weights that lack a tensor names it."""
    spec = GraphSpec.of(bundled.sha256, [], ["relu1_1", "relu2_1", "relu3_1", "relu4_1"])
    graph = packaged_graph(spec)
    assert graph is not None
    with pytest.raises(ModelError, match=r"features\.2\.weight.*\(64, 64, 3, 3\).*complete file"):
        filled(graph, spec, random_weights("vgg19", ["relu1_1"]))


def test_two_that_need_a_file_make_it_once(
    tmp_path: Path, bundled: WeightsFile, own_spec: GraphSpec, caplog: pytest.LogCaptureFixture
) -> None:
    """The second one waits for the first one's export, says so, and uses its file."""
    reports: list[str] = []
    state = load(bundled)
    with caplog.at_level(logging.INFO):
        threads = [
            threading.Thread(
                target=lambda: OnnxFiles(tmp_path, report=reports.append).make(
                    own_spec, bundled, state
                )
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert exports(caplog) == 1
    assert {
        "exporting vgg19 to ONNX",
        "waiting for another process that makes the ONNX file",
    } == set(reports)
    assert [path.name for path in tmp_path.iterdir()] == [own_spec.filename]


def test_weights_that_have_changed_are_not_exported(
    tmp_path: Path, bundled: WeightsFile, own_spec: GraphSpec
) -> None:
    """Where the file no longer holds the weights that were loaded, the export says so and writes nothing."""
    from dataclasses import replace

    other = tmp_path / "other.safetensors"
    shutil.copy(bundled.path, other)
    with other.open("ab") as file:
        file.write(b" ")
    with pytest.raises(
        ModelError, match=r"other\.safetensors have changed.*start the program again"
    ):
        OnnxFiles(tmp_path / "onnx").make(own_spec, replace(bundled, path=other), {})
    assert not list((tmp_path / "onnx").iterdir())


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGKILL, (OutOfMemory, "SIGKILL.*free some memory")),
        (signal.SIGABRT, (ModelError, "SIGABRT.*check the versions")),
    ],
)
def test_an_export_that_is_killed_says_so(
    tmp_path: Path,
    bundled: WeightsFile,
    own_spec: GraphSpec,
    number: int,
    expected: tuple[type[Exception], str],
) -> None:
    """An export that the kernel ends for memory is out of memory, one that crashes a fault of the installation."""
    kind, said = expected

    def kill(step: str) -> None:
        assert step == "exporting vgg19 to ONNX"
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                if b"export_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), number)

    with pytest.raises(
        kind, match=f"export of vgg19 to ONNX failed: its process was killed by .*{said}"
    ):
        OnnxFiles(tmp_path, report=kill).make(own_spec, bundled, {})
    assert not list(tmp_path.iterdir())


@needs_root
def test_a_folder_that_is_not_writable_is_replaced_by_a_temporary_one(
    reachable: Path, bundled: WeightsFile, caplog: pytest.LogCaptureFixture
) -> None:
    """A user without rights in the cache folder uses the files there, and makes others in a temporary folder."""
    painting, gatys = (
        GraphSpec.of(bundled.sha256, style, content)
        for style, content in (
            ([], ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]),
            (["relu1_1", "relu2_1", "relu3_1"], ["relu3_1"]),
        )
    )
    state = load(bundled)
    there = OnnxFiles(reachable).make(painting, bundled, state)

    def use() -> None:
        torch.set_num_threads(
            1
        )  # a forked process does not have the threads of its parent, and would wait for them
        files = OnnxFiles(reachable)
        made = files.make(gatys, bundled, state)
        assert made.exists()
        assert reachable not in made.parents
        assert files.path(gatys) == made
        assert files.path(painting) == there

    User(65534, 65534).run(use)
    assert [path.name for path in reachable.iterdir()] == [there.name]
