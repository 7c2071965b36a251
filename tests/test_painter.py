"""The painter: what it exports, keeps and refuses, and its results."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nst_daemon import painter as module
from nst_daemon import stylize
from nst_daemon.cli import app
from nst_daemon.config import Outputs
from nst_daemon.engine.device import find_device
from nst_daemon.engine.images import Picture
from nst_daemon.engine.settings import resolve
from nst_daemon.errors import (
    DeviceError,
    ModelError,
    PictureError,
    StorageError,
)
from nst_daemon.files import default_cache_dir
from nst_daemon.mounts import Space
from nst_daemon.painter import Painter
from nst_daemon.pictures.destination import Destination
from nst_daemon.report import sidecar
from nst_daemon.samples import lay_out
from tests.weights import random_weights

#: Layers near the input, so that the export takes a second or two.
SHALLOW = {"style_layers": {"relu1_1": 1.0}, "content_layers": {"relu1_2": 1.0}}


def picture(height: int, width: int, alpha: bool = False) -> Picture:
    generator = torch.Generator().manual_seed(height)
    opacity = torch.linspace(0, 1, width).expand(1, height, width) if alpha else None
    return Picture(
        torch.rand(3, height, width, generator=generator), opacity, {"copyright": "© nobody"}
    )


@pytest.fixture(scope="module")
def painter(model_cache: Path) -> Painter:
    return Painter(device="cpu", cache_dir=model_cache)


def test_paths_and_pictures_are_painted_alike(painter: Painter, tmp_path: Path) -> None:
    """A file and the picture decoded from it prepare the same scene."""
    content = picture(32, 40)
    module.save(Picture(content.rgb), tmp_path / "content.png")
    decoded = module.decode(tmp_path / "content.png")
    settings = resolve({"size": 40, "iterations": 1})
    scenes = [
        painter.prepare(source, [picture(24, 24)], settings).scene
        for source in (tmp_path / "content.png", decoded)
    ]
    assert torch.equal(scenes[0].start, scenes[1].start)
    assert scenes[0].calibration == scenes[1].calibration


def test_the_result_keeps_what_belongs_to_the_content(painter: Painter) -> None:
    """The result has the content's transparency, at its own size, its metadata and the notes."""
    content = picture(40, 80, alpha=True)
    prepared = painter.prepare(content, [picture(32, 32)], resolve({"size": 32, "iterations": 1}))
    *_, step = painter.paint(prepared)
    result = painter.finish(prepared, step).picture
    assert result.rgb.shape == (3, 16, 32)
    assert result.alpha is not None
    assert result.alpha.shape == (1, 16, 32)
    assert result.alpha[0, 8, 0] < 0.1
    assert result.alpha[0, 8, -1] > 0.9
    assert result.metadata == content.metadata
    assert set(prepared.notes) <= set(result.notes)


#: The last check of this painting finds no further improvement, and rolls back.
ROLLED_BACK: dict[str, Any] = {
    "preset": "gatys-pytorch", "size": 64, "iterations": [11], "scales": [1.0], "step": 10.0
}  # fmt: skip


def test_a_rollback_at_the_end_is_no_loss_to_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_cache: Path
) -> None:
    """`stylize` returns the last good picture, finite, with a note that says so."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(model_cache.parent))
    content, style = lay_out(tmp_path)
    result = stylize(content, style, device="cpu", **ROLLED_BACK)
    assert result.tensor.isfinite().all()
    assert result.tensor.std() > 0.1
    assert result.notes[-1].endswith("the result is the last good picture")


def test_a_rollback_at_the_end_is_no_loss_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_cache: Path
) -> None:
    """`nst-daemon stylize` writes the same picture as the API gives, with its settings inside."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(model_cache.parent))
    content, style = lay_out(tmp_path)
    output = tmp_path / "out.png"
    chosen = [f"--set={key}={value}" for key, value in ROLLED_BACK.items()]
    arguments = ["stylize", str(content), str(style), "-o", str(output), "--device=cpu", *chosen]
    ran = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "the result is the last good picture" in ran.stderr
    expected = stylize(content, style, device="cpu", **ROLLED_BACK).image
    with Image.open(output) as image:
        assert image.tobytes() == expected.tobytes()
    assert sidecar.read(output).settings["step"] == ROLLED_BACK["step"]


def test_a_picture_that_its_format_cannot_hold_is_refused(painter: Painter, tmp_path: Path) -> None:
    """A WebP wider than the format allows is a PictureError that names the size; a missing folder is a StorageError."""
    settings = resolve({"size": 32, "iterations": 1})
    prepared = painter.prepare(picture(32, 32), [picture(32, 32)], settings)
    *_, step = painter.paint(prepared)
    rendering = painter.finish(prepared, step)
    wide = replace(rendering, picture=Picture(torch.zeros(3, 1, 20_000)))
    with pytest.raises(PictureError, match="20000 × 1 pixels are too many for WebP"):
        wide.save(tmp_path / "wide.webp", Outputs(format="webp"), ())
    with pytest.raises(StorageError, match="gone"):
        rendering.save(tmp_path / "gone" / "a.png", Outputs(), ())


def test_the_output_is_checked_before_the_styles_are_read(painter: Painter, tmp_path: Path) -> None:
    """A size that the format cannot hold, or a disk without room, ends `prepare` before a style is opened."""
    missing = tmp_path / "missing.png"
    with pytest.raises(PictureError, match=r"dog\.webp cannot be written: 16384 × 16384 pixels"):
        painter.prepare(
            picture(32, 32),
            [missing],
            resolve({"size": 16_384}),
            destination=Destination(tmp_path / "dog.webp", "webp", 8),
        )
    with pytest.raises(StorageError, match=r"dog\.png may need 3 KiB, and .* has 0 bytes of free"):
        painter.prepare(
            picture(32, 32),
            [missing],
            resolve({"size": 32}),
            destination=Destination(
                tmp_path / "dog.png", "png", 8, space=lambda _: Space(free=0, total=1 << 40)
            ),
        )


def test_painting_goes_on_from_a_state(painter: Painter) -> None:
    """A painting that goes on from a saved state ends in the same picture to the bit."""
    settings = resolve({"size": 32, "iterations": 4})
    prepared = painter.prepare(picture(32, 32), [picture(40, 40)], settings)
    state = None
    for step in painter.paint(prepared):
        if step.iteration == 2:
            state = step.state()
    assert state is not None
    *_, resumed = painter.paint(prepared, state)
    assert torch.equal(resumed.image(), step.image())


def test_networks_and_sessions_stay_loaded(painter: Painter) -> None:
    """Settings with the same layers and pooling share one network and one source of targets."""
    one, other = resolve({"size": 64}), resolve({"iterations": 7, "tv_weight": 0.1})
    assert painter.network(one) is painter.network(other)
    assert painter.targets(one) is painter.targets(other)


def test_few_networks_stay_loaded(painter: Painter) -> None:
    """However many choices of layers come, only the latest few networks stay in memory."""
    first = painter.network(resolve(SHALLOW))
    for i in range(1, 5):
        painter.network(
            resolve({"style_layers": {f"relu3_{i}": 1.0}, "content_layers": {"relu1_1": 1.0}})
        )
    assert (
        painter.network(
            resolve({"style_layers": {"relu3_4": 1.0}, "content_layers": {"relu1_1": 1.0}})
        )
        is not None
    )
    assert painter.network(resolve(SHALLOW)) is not first


def test_a_missing_onnx_file_is_made_and_a_damaged_one_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing file is made, an existing one is used, and a damaged one is made again."""
    settings = resolve({})

    def file_of_a_new_painter() -> Path:
        painter = Painter(device="cpu", cache_dir=tmp_path)
        painter.targets(settings)
        return painter.onnx_file(settings)

    file = file_of_a_new_painter()
    made = file.stat().st_ino
    assert file_of_a_new_painter().stat().st_ino == made
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with caplog.at_level(logging.WARNING):
        assert file_of_a_new_painter().read_bytes() == whole
    assert file.name in caplog.text


def test_few_onnx_files_stay_on_disk(tmp_path: Path) -> None:
    """Beyond the limit the least recently used ONNX files are removed, but never the new one."""
    folder = tmp_path / "onnx"
    folder.mkdir()
    for age, name in enumerate(("older.onnx", "oldest.onnx")):
        (folder / name).write_text("another")
        os.utime(folder / name, (100 - age, 100 - age))
    file = Painter(device="cpu", cache_dir=tmp_path, onnx_files=2).targets(resolve({})).file
    assert {path.name for path in folder.iterdir()} == {"older.onnx", file.name}


@pytest.mark.parametrize(("preset", "outputs"), [("painting", 4), ("gatys-pytorch", 11)])
def test_parity_holds_without_and_with_statistics(
    painter: Painter, preset: str, outputs: int
) -> None:
    """The files that presets use agree with torch at every output."""
    rows = painter.parity(resolve({"preset": preset}))
    assert len(rows) == 2 * outputs
    assert all(row.passed for row in rows)


def test_info_says_what_is_used(painter: Painter) -> None:
    """The information names device, weights with their digest, versions and the providers that loaded."""
    painter.load()
    info = painter.info()
    assert info["device"] == "cpu"
    assert info["weights_sha256"] == painter.weights.sha256
    assert info["providers"] == ["CPUExecutionProvider"]
    assert isinstance(info["versions"], dict)
    assert info["versions"]["torch"].startswith(torch.__version__.partition("+")[0])


def test_threads_are_torchs(model_cache: Path) -> None:
    """The number of threads asked for is the number that torch then uses."""
    before = torch.get_num_threads()
    try:
        assert Painter(device="cpu", cache_dir=model_cache, threads=1).info()["threads"] == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "meta", "rubbish:x", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    """A device that does not exist or cannot be used is a DeviceError that says what can be."""
    with pytest.raises(DeviceError, match=r"device|supported|NVIDIA"):
        find_device(name)


def test_missing_weights_are_refused_at_once(tmp_path: Path) -> None:
    """Missing weights are refused when the painter is made, not at its first picture."""
    with pytest.raises(ModelError, match=r"gone\.pth"):
        Painter(weights=tmp_path / "gone.pth", cache_dir=tmp_path)


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME moves the default cache; unset or empty it is ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "nst-daemon"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert default_cache_dir() == Path.home() / ".cache" / "nst-daemon"


@pytest.mark.parametrize("network", ["vgg16", "efficientnet_b0"])
def test_other_networks_paint(network: str, tmp_path: Path) -> None:
    """A picture is painted by each of the other networks, with the default preset's layers translated."""
    from safetensors.torch import save_file

    save_file(random_weights(network), tmp_path / "random.safetensors")
    painter = Painter(
        network, tmp_path / "random.safetensors", device="cpu", cache_dir=tmp_path / "cache"
    )
    settings = resolve({"size": 48, "iterations": 2}, network=network)
    prepared = painter.prepare(picture(41, 48), [picture(40, 40)], settings)
    *_, step = painter.paint(prepared)
    assert step.losses["total"] > 0
    assert painter.finish(prepared, step).picture.rgb.shape == (3, 41, 48)


def test_notes_name_their_file(painter: Painter, tmp_path: Path) -> None:
    """The notes of the content, of a style, of masks and of the start begin with the names of their files."""
    other = Image.new("RGB", (32, 32), "red")
    for name in ("content", "style", "content.mask", "style.mask", "start"):
        halves = Image.new("RGB", (32, 32), "red")
        halves.paste("blue", (0, 0, 16, 32))
        halves.save(tmp_path / f"{name}.png", save_all=True, append_images=[other])
    prepared = painter.prepare(
        tmp_path / "content.png",
        [tmp_path / "style.png"],
        resolve({"size": 32, "iterations": 1, "start": "given"}),
        start=tmp_path / "start.png",
        content_mask=tmp_path / "content.mask.png",
        style_masks=[tmp_path / "style.mask.png"],
    )
    used = "only the first of 2 frames was used"
    assert {note for note in prepared.notes if note.endswith(used)} == {
        f"{path}: {used}" for path in tmp_path.glob("*.png")
    }
