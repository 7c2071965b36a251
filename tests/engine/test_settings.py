from __future__ import annotations

import json
import pickle
from dataclasses import asdict, fields
from typing import Any

import pytest

from nst_daemon.engine.networks import NETWORKS
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import RenderSettings, describe, resolve, restore
from nst_daemon.errors import SettingsError


def test_no_override_is_the_preset_default() -> None:
    """`resolve()` is the dataclass's own defaults."""
    assert resolve() == RenderSettings()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("calibrate", ["auto", "off"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_every_preset_resolves(preset: str, calibrate: str, optimizer: str) -> None:
    """Each preset is valid with either calibration and either optimiser."""
    settings = resolve({"preset": preset, "calibrate": calibrate, "optimizer": optimizer})
    assert (settings.preset, settings.calibrate, settings.optimizer) == (
        preset,
        calibrate,
        optimizer,
    )


def test_later_overrides_win_whichever_names_the_preset() -> None:
    """The last preset named is the base, and all overrides apply on it in order."""
    settings = resolve(
        {"preset": "gatys2016", "size": 64}, {"preset": "neural-style"}, {"size": 99}
    )
    assert (settings.gram_norm, settings.size) == ("channels", 99)


def test_calibration_chooses_the_weights_and_a_person_overrides_them() -> None:
    """`calibrate: off` brings the source's constants; a weight that is given stands in both cases."""
    assert resolve({"preset": "gatys2016", "calibrate": "off"}).style_weight == 1e3
    assert resolve({"preset": "gatys2016"}).style_weight == 1.0
    for calibrate in ("auto", "off"):
        given = {"preset": "gatys2016", "style_weight": 7, "calibrate": calibrate}
        assert resolve(given).style_weight == 7


def test_another_optimiser_drops_what_the_preset_meant_for_its_own() -> None:
    """Adam's averaging does not follow a preset to L-BFGS, and Adam gets its own step."""
    assert resolve({"preset": "wasserstein", "optimizer": "lbfgs"}).averaging == 0
    assert resolve({"optimizer": "adam"}).step == 0.02


def test_fewer_levels_lower_the_content_of_the_preset() -> None:
    """With fewer levels than the preset has, the content is compared at the last; a level that is given stands."""
    assert resolve({"style_loss": "gram"}).content_level == 1
    assert resolve({"style_loss": "gram", "style_levels": 1}).content_level == 0
    with pytest.raises(SettingsError, match="content_level"):
        resolve({"style_loss": "gram", "style_levels": 1, "content_level": 1})


def test_the_ratio_replaces_the_content_weight() -> None:
    """alpha is ratio times beta; whichever of ratio and content_weight comes later counts."""
    assert resolve({"content_style_ratio": 0.5, "style_weight": 4}).content_weight == 2
    assert resolve({"content_style_ratio": 0.5}, {"content_weight": 3}).content_weight == 3
    assert resolve({"content_weight": 3}, {"content_style_ratio": 0.5}).content_weight == 0.5


def test_what_yaml_and_the_environment_write_is_understood() -> None:
    """A bare `off`, numbers as text and a single number of iterations mean what they say."""
    settings = resolve({"calibrate": False, "size": "256", "iterations": 30})
    assert (settings.calibrate, settings.size, settings.iterations) == ("off", 256, (30,))


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"sizes": 3}, ["'sizes'", "did you mean size?"]),
    ({"zzz": 3}, ["'zzz'", "`nst-daemon settings` and the page list every setting"]),
    ({"preset": "gatys"}, ["preset", "'gatys'", "gatys2016"]),
    ({"preset": 3}, ["preset", "3"]),
    ({"size": "huge"}, ["size", "'huge'", "'original'"]),
    ({"size": 0}, ["size", "0", "≥ 1"]),
    ({"style_scale": float("nan")}, ["style_scale", "nan", "0.05 to 20"]),
    ({"style_layers": {"relu9_1": 1}}, ["style_layers", "relu9_1", "relu5_4"]),
    ({"style_layers": {"relu3_5": 1}}, ["style_layers", "relu3_5"]),
    ({"content_layers": {"conv2_3": 1}}, ["content_layers", "conv2_3"]),
    ({"style_layers": {"relu1_1": -1}}, ["style_layers", "-1", "≥ 0"]),
    ({"style_layers": {}}, ["style_layers"]),
    ({"style_layers": ["relu1_1"]}, ["style_layers", "mapping"]),
    ({"content_weight": -0.1}, ["content_weight", "-0.1"]),
    ({"style_weight": 0}, ["style_weight", "> 0 with style_loss 'neighbours'"]),
    (
        {"style_loss": "gram", "content_weight": 0, "style_weight": 0},
        ["style_weight", "> 0 if content_weight is 0"],
    ),
    ({"content_weight": 1, "content_style_ratio": 2}, ["content_weight", "content_style_ratio"]),
    ({"tv": "l7"}, ["tv", "'l7'", "'absolute'"]),
    ({"scales": [0.5, 0.25, 1]}, ["scales", "increasing"]),
    ({"scales": [0.25, 0.5]}, ["scales", "end with 1"]),
    ({"iterations": [10, 0]}, ["iterations[1]", "0"]),
    ({"iterations": []}, ["iterations"]),
    ({"style_weights": [0, 0]}, ["style_weights"]),
    ({"averaging": 0.9}, ["averaging", "0.9", "lbfgs"]),
    ({"precision": "fp8"}, ["precision", "'fp8'", "'float32'"]),
    ({"seed": -1}, ["seed", "-1"]),
    ({"deterministic": "perhaps"}, ["deterministic", "'perhaps'"]),
    ({"history": 0}, ["history", "0"]),
    ({"min_improvement": 1}, ["min_improvement", "1"]),
]


@pytest.mark.parametrize(("override", "parts"), BAD, ids=[str(list(o)) for o, _ in BAD])
def test_bad_settings_are_refused_by_name(override: dict[str, Any], parts: list[str]) -> None:
    """The message is one line that names the key, the value and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        resolve(override)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_settings_are_plain_data() -> None:
    """They survive pickle, and JSON through asdict and back through resolve."""
    settings = resolve({"preset": "wasserstein", "style_weights": [1, 2]})
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert resolve(json.loads(json.dumps(asdict(settings)))) == settings


def test_every_setting_explains_itself() -> None:
    """Each field has a sentence of help and says what it allows."""
    for field in fields(RenderSettings):
        about = describe(field.name)
        assert about["help"].endswith(".") and about["allowed"]


def test_settings_of_an_older_ledger_are_completed_as_they_were() -> None:
    """Without levels and moments the style is compared once, at the picture's size."""
    settings = resolve({"style_loss": "gram", "style_levels": 1, "preset": "gatys2016"})
    later = ("moments_weight", "style_levels", "style_level_weights", "content_level")
    older = {key: value for key, value in asdict(settings).items() if key not in later}
    assert restore(older) == settings


OVERRIDES: tuple[dict[str, object], ...] = (
    {},
    {"content_style_ratio": 0.25},
    {"content_weight": 0.5},
    {"optimizer": "adam"},
    {"calibrate": "off"},
    {"iterations": 7, "scales": [0.5, 1]},
)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_resolved_settings_resolve_to_themselves(preset: str, network: str) -> None:
    """Resolved settings survive JSON unchanged, and resolving them once more changes nothing."""
    for override in OVERRIDES:
        try:
            settings = resolve({"preset": preset}, override, network=network)
        except SettingsError:
            continue  # refused before anything is carried
        carried = json.loads(json.dumps(asdict(settings)))
        assert restore(carried) == settings
        assert resolve(carried, network=network) == settings
