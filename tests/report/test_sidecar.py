"""The sidecar of a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import resolve
from nst_daemon.errors import InputError
from nst_daemon.jobs import BatchCell, JobInput, Role
from nst_daemon.report import sidecar

NOW = datetime(2024, 2, 29, 12, tzinfo=UTC)
PAINTED = sidecar.Painted(
    job_id="0" * 32,
    name="starry/Ünïcode “quotes”",
    attempt=2,
    inputs=(JobInput(Role.CONTENT, "dog.jpg", "content.jpg", "a" * 64, 10),),
    width=64,
    height=48,
    settings=asdict(resolve({})),
    machine={"device": "cpu", "threads": 2, "weights_sha256": "c" * 64, "versions": {"torch": "2"}},
    iterations=(100, 100),
    losses={"total": 0.25},
    seconds={"paint": 1.23456},
    history={"iteration": [1, 100], "seconds": [0.5, 60.0], "total": [2.0, 0.25]},
    resumed=(40,),
    notes=("mended [1,   2] twice",),
)
WRITTEN = sidecar.Written("dog.png", "b" * 64, 20)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sidecar_makes_the_same_settings_again(tmp_path: Path, preset: str) -> None:
    """The settings read from a sidecar resolve to those that it was written with, for every preset."""
    settings = resolve({"preset": preset, "size": 300, "style_weights": [0.5]})
    document = sidecar.build(replace(PAINTED, settings=asdict(settings)), WRITTEN, NOW)
    path = tmp_path / "dog.json"
    path.write_bytes(sidecar.encode(document))
    recipe = sidecar.read(path)
    assert resolve(recipe.settings) == settings
    assert recipe.weights_sha256 == "c" * 64
    assert [i["sha256"] for i in recipe.inputs] == ["a" * 64]


@pytest.mark.parametrize("preset", ["default", "gatys2016", "wasserstein"])
def test_a_sidecar_without_later_settings_paints_as_it_did(tmp_path: Path, preset: str) -> None:
    """Without levels and moments the style is compared once, at the picture's size, whatever the preset says now."""
    given = {"style_loss": "gram", "content_weight": 0.08, "coarsest": 256}
    older = {**asdict(resolve({"preset": "gatys2016", **given})), "preset": preset}
    for key in sidecar.ADDED_LATER:
        del older[key]
    document = sidecar.build(replace(PAINTED, settings=older), WRITTEN, NOW)
    (tmp_path / "dog.json").write_bytes(sidecar.encode(document))
    settings = asdict(resolve(sidecar.read(tmp_path / "dog.json").settings))
    assert {key: settings[key] for key in given} == given
    assert (settings["style_levels"], settings["style_level_weights"]) == (1, ())
    assert (settings["moments_weight"], settings["content_level"]) == (0, 0)


def test_a_picture_of_a_batch_records_its_cell() -> None:
    """The name, style, swept settings and position are in the sidecar, and only in that of a batch's picture."""
    cell = BatchCell("night", "starry", {"seed": 3, "style_scale": 0.5}, (1, 0, 2))
    data = sidecar.encode(sidecar.build(replace(PAINTED, batch=asdict(cell)), WRITTEN, NOW))
    assert BatchCell.from_json(json.loads(data)["batch"]) == cell
    assert list(json.loads(data)["batch"]["swept"]) == ["seed", "style_scale"]
    assert "batch" not in sidecar.build(PAINTED, WRITTEN, NOW)


def test_time_is_utc() -> None:
    """The end of the painting is recorded in UTC, in any time zone."""
    local = NOW.astimezone(timezone(timedelta(hours=5)))
    assert sidecar.build(PAINTED, WRITTEN, local)["finished"] == "2024-02-29T12:00:00+00:00"


def test_it_is_json_for_people_too() -> None:
    """Lists of numbers are on one line, and no text is changed by that."""
    data = sidecar.encode(sidecar.build(PAINTED, WRITTEN, NOW))
    assert b"[ 2.0, 0.25 ]" in data
    found = json.loads(data)
    assert found["notes"] == list(PAINTED.notes)
    assert found["job"]["name"] == PAINTED.name
    assert found["loss_history"] == PAINTED.history
    assert found["seconds"] == {"paint": 1.235}


def test_names_cannot_harm_a_reader() -> None:
    """Bytes that are not UTF-8 and control characters in a name are escaped, so the file is valid UTF-8."""
    document = sidecar.build(replace(PAINTED, name="a\udcff\x1b[2Jb"), WRITTEN, NOW)
    assert json.loads(sidecar.encode(document))["job"]["name"] == "a\\xff\\x1b[2Jb"


def test_a_nan_loss_is_refused() -> None:
    """NaN never reaches a sidecar: other programs could not read it."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        sidecar.encode(
            sidecar.build(replace(PAINTED, losses={"total": float("nan")}), WRITTEN, NOW)
        )


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": "one"}', b"\xff"])
def test_another_file_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    """Any other file is refused, and the message has its name and a remedy."""
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json is neither a picture"):
        sidecar.read(tmp_path / "x.json")


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    """A sidecar of a later schema names the version that wrote it."""
    document = sidecar.build(PAINTED, WRITTEN, NOW) | {
        "schema": sidecar.SIDECAR_SCHEMA + 1,
        "version": "9.9",
    }
    (tmp_path / "x.json").write_bytes(sidecar.encode(document))
    with pytest.raises(InputError, match=r"written by nst-daemon 9\.9"):
        sidecar.read(tmp_path / "x.json")
