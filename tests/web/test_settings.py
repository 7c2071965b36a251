"""Settings and limits: what forms are told is what the daemon accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from nst_daemon.errors import SettingsError
from nst_daemon.job_settings import JOB_KEYS, resolve_job
from nst_daemon.pictures.formats import suffixes
from nst_daemon.web.options import PageOptions
from tests.web.conftest import client, limited


def settings(visitor: TestClient) -> dict[str, Any]:
    """The settings by their names."""
    return {found["name"]: found for found in visitor.get("/api/v1/settings").json()["settings"]}


def test_every_setting_is_listed(visitor: TestClient) -> None:
    """Every setting of a job is listed once, the main ones first."""
    found = settings(visitor)
    assert set(found) == {key for key in JOB_KEYS if key != "content_style_ratio"} | {
        "content_style_ratio"
    }
    main = [name for name, one in found.items() if one["main"]]
    assert main == list(found)[: len(main)]
    assert set(main) == {
        *("size", "preset", "content_weight", "style_scale", "keep_colors", "format", "seed")
    }


def test_defaults_are_those_of_the_configuration(options: PageOptions) -> None:
    """The default of each setting is what a job without settings gets, with render and outputs of this daemon."""
    outputs = replace(options.config.outputs, format="jpg", quality=80)
    config = replace(options.config, render={"preset": "gatys2016", "size": 99}, outputs=outputs)
    found = settings(client(replace(options, config=config)))
    assert (found["size"]["default"], found["preset"]["default"]) == (99, "gatys2016")
    assert (found["format"]["default"], found["quality"]["default"]) == ("jpg", 80)
    assert found["style_loss"]["default"] == "gram"
    given = {name: one["default"] for name, one in found.items() if one["default"] is not None}
    assert resolve_job(config, given) == resolve_job(config, {})


def test_what_forms_offer_is_accepted(options: PageOptions) -> None:
    """Each choice and each bound of a setting is accepted, and what is beyond a bound is refused."""
    config = options.config
    for name, one in settings(client(options)).items():
        for choice in one["choices"]:
            value: Any = {"true": True, "false": False}.get(choice, choice)
            value = int(value) if one["kind"] == "integer" and choice.isdecimal() else value
            extra = {"format": "png"} if name == "depth" and value != 10 else {}
            extra = {"format": "avif"} if name == "depth" and value == 10 else extra
            resolve_job(config, {name: value, **extra})
        if one["kind"] not in {"integer", "number"}:
            continue
        for bound, step in ((one["minimum"], -1), (one["maximum"], 1)):
            if bound is not None and abs(bound) < 1e15:
                wanted = int(bound + step) if one["kind"] == "integer" else bound + step
                with pytest.raises(SettingsError):
                    resolve_job(config, {name: wanted})


def test_presets_are_described(visitor: TestClient) -> None:
    """Each preset has a line, a source and the value of each of its settings."""
    presets = visitor.get("/api/v1/settings").json()["presets"]
    by_name = {preset["name"]: preset for preset in presets}
    assert presets[0]["name"] == "painting"
    assert by_name["gatys2016"]["values"]["style_loss"] == "gram"
    assert all(preset["summary"] and preset["source"] for preset in presets)


def test_limits_are_those_of_the_configuration(options: PageOptions) -> None:
    """The limits are those that uploads are checked against."""
    strict = limited(options, formats=("webp", "gif"), max_side=40, max_pixels=99)
    strict = replace(strict, config=replace(strict.config, default_style="starry"))
    found = client(strict).get("/api/v1/limits").json()
    assert found["suffixes"] == [".gif", ".webp"] == sorted(suffixes(("webp", "gif")))
    assert (found["max_bytes"], found["max_side"], found["max_pixels"]) == (1000, 40, 99)
    assert found["default_style"] == "starry"
    assert (found["max_contents"], found["max_style_pictures"]) == (200, 32)
