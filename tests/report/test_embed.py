"""The recipe in the metadata of a picture."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nst_daemon.config import Outputs
from nst_daemon.engine.images import Picture
from nst_daemon.engine.settings import resolve
from nst_daemon.errors import InputError
from nst_daemon.jobs import JobInput, Role
from nst_daemon.painter import decode, save
from nst_daemon.report import sidecar

INPUTS = (
    JobInput(Role.CONTENT, "Ünïcode “quotes”.jpg", "content.jpg", "a" * 64, 10),
    JobInput(Role.STYLE, "<script>.jpg", "style.jpg", "b" * 64, 20),
)
SETTINGS = asdict(resolve({"preset": "wasserstein", "size": 300, "seed": 7}))
MACHINE = {"device": "cpu", "network": "vgg19", "weights": "bundled", "weights_sha256": "c" * 64}
OUTPUTS = {"format": "jxl", "depth": 16, "quality": 77}
METADATA = {"artist": "Zoë", "datetime_original": "2020:02:29 12:00:00"}
PICTURE = Picture(
    torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0)), metadata=METADATA
)
FORMATS: dict[str, Any] = {
    "png": "png",
    "jpg": "jpg",
    "webp": "webp",
    "tif": "tiff",
    "avif": "avif",
    "jxl": "jxl",
}


def painted(folder: Path, suffix: str) -> Path:
    """A picture with a recipe and other metadata."""
    path = folder / f"dog.{suffix}"
    about = sidecar.embed(INPUTS, SETTINGS, MACHINE, OUTPUTS)
    save(PICTURE, path, Outputs(format=FORMATS[suffix]), about=about)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_picture_alone_is_enough(tmp_path: Path, suffix: str) -> None:
    """The recipe read from a picture has the settings, inputs and weights that it was painted with."""
    recipe = sidecar.read(painted(tmp_path, suffix))
    assert resolve(recipe.settings) == resolve(SETTINGS)
    assert recipe.outputs == OUTPUTS
    assert recipe.name == "dog"
    assert recipe.weights_sha256 == "c" * 64
    assert [(i["role"], i["sha256"], i["bytes"]) for i in recipe.inputs] == [
        ("content", "a" * 64, 10),
        ("style", "b" * 64, 20),
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_metadata_stays(tmp_path: Path, suffix: str) -> None:
    """Metadata copied from the content is in the picture together with the recipe."""
    assert decode(painted(tmp_path, suffix)).metadata == METADATA


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_picture_tells_no_names(tmp_path: Path, suffix: str) -> None:
    """The names of the inputs are not in the picture, so equal paintings of renamed files are equal bytes."""
    first = painted(tmp_path, suffix).read_bytes()
    about = sidecar.embed([replace(i, name="other") for i in INPUTS], SETTINGS, MACHINE, OUTPUTS)
    other = tmp_path / "other"
    save(PICTURE, other, Outputs(format=FORMATS[suffix]), about=about)
    assert other.read_bytes() == first


@pytest.mark.parametrize("suffix", FORMATS)
def test_any_other_picture_has_no_recipe(tmp_path: Path, suffix: str) -> None:
    """A picture without a recipe is refused, and the message has its name and a remedy."""
    path = tmp_path / f"holiday.{suffix}"
    save(Picture(torch.zeros(3, 8, 8)), path, Outputs(format=FORMATS[suffix]))
    with pytest.raises(
        InputError, match=rf"holiday\.{suffix} is neither a picture .* name a result"
    ):
        sidecar.read(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_damage_is_an_input_error(tmp_path: Path, suffix: str) -> None:
    """A picture that is cut off anywhere in its first kilobyte gives its recipe or an InputError, nothing else."""
    whole = painted(tmp_path, suffix).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for end in range(0, 1024, 7):
        cut.write_bytes(whole[:end])
        try:
            sidecar.read(cut)
        except InputError as error:
            assert "cut" in str(error)
