"""Settings of a job that say how its picture is written."""

from __future__ import annotations

from typing import Any

import pytest

from nst_daemon.config import Config, Outputs, load
from nst_daemon.errors import SettingsError
from nst_daemon.job_settings import correction, resolve_job

CONFIG = Config(render={"size": 100}, outputs=Outputs(quality=80, loss_plot=False))


def test_a_job_changes_what_it_names_and_nothing_else() -> None:
    """Format, depth and quality come from the job where it has them, everything else from the configuration."""
    render, outputs = resolve_job(CONFIG, {"seed": 3, "format": "tiff", "depth": 16})
    assert (render.seed, render.size) == (3, 100)
    assert outputs == Outputs(format="tiff", depth=16, quality=80, loss_plot=False)
    assert resolve_job(CONFIG, {})[1] == CONFIG.outputs
    assert resolve_job(CONFIG, {"format": "avif"})[1].picture == {
        "format": "avif",
        "depth": 8,
        "quality": 80,
    }


def test_quality_is_no_part_of_what_has_none() -> None:
    """Two PNGs of one painting are equal files whatever the quality is."""
    pictures = [resolve_job(CONFIG, {"quality": quality})[1].picture for quality in (10, 90)]
    assert pictures == [{"format": "png", "depth": 8}] * 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"format": "tifff"},
            "format: 'tifff' is not allowed; write png.*jxl.*did you mean tiff",
        ),
        ({"format": "gif"}, "format: 'gif' is not allowed"),
        (
            {"format": None},
            "format: None is not allowed; write png, jpg, webp, tiff, avif or jxl$",
        ),
        ({"format": ["png"]}, "format: \\['png'\\] is not allowed"),
        ({"depth": 12}, "depth: 12 is not allowed; write 8, 10 or 16"),
        ({"depth": True}, "depth: True is not allowed"),
        ({"depth": "16"}, "depth: '16' is not allowed"),
        ({"depth": 16.0}, "depth: 16.0 is not allowed"),
        ({"quality": 0}, "quality: 0 is not allowed; write a whole number from 1 to 100"),
        ({"quality": 101}, "quality: 101 is not allowed"),
        ({"quality": "high"}, "quality: 'high' is not allowed"),
        (
            {"format": "webp", "depth": 16},
            "webp has 8 bits per channel, not 16; set depth to 8, or format to png, ",
        ),
        (
            {"format": "png", "depth": 10},
            "png has 8 or 16 bits per channel, not 10; .*format to avif",
        ),
        ({"fromat": "png"}, "unknown setting 'fromat'; did you mean format"),
        ({"detph": 8}, "did you mean depth"),
        ({"steps": 8}, "unknown setting 'steps'; did you mean iterations"),
        ({"render": {"size": 3}}, "unknown setting 'render'; a job's settings have no sections"),
        ({"settle_seconds": 3}, "it belongs to the configuration .service.settle_seconds"),
        ({"devices": "cpu"}, "it belongs to the configuration .devices"),
        (
            {"zzz": 8},
            "unknown setting 'zzz'; `nst-daemon settings` and the page list every setting",
        ),
        ({"sede": 8}, "did you mean seed"),
    ],
)
def test_what_is_not_allowed_is_named(settings: dict[str, Any], words: str) -> None:
    """An unknown key or value, or a depth that the format cannot hold, is one line with what is allowed."""
    with pytest.raises(SettingsError, match=words) as caught:
        resolve_job(CONFIG, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "places", "words"),
    [
        (
            {"sizes": 3},
            {"sizes": "set.yaml"},
            "set.yaml: unknown setting 'sizes'; did you mean size?",
        ),
        ({"size": -3}, {"size": "set.yaml"}, "set.yaml: size: -3 is not allowed"),
        ({"quality": 0}, {"quality": "set.yaml"}, "set.yaml: quality: 0 is not allowed"),
        (
            {"size": 9, "seed": "x"},
            {"size": "a.yaml", "seed": "b.yaml"},
            "b.yaml: seed: 'x' is not",
        ),
        (
            {"content_weight": 1, "content_style_ratio": 1},
            {"content_weight": "a.yaml", "content_style_ratio": "b.yaml"},
            "a.yaml and b.yaml: content_weight and content_style_ratio are both set",
        ),
        ({"sizes": 3}, {}, "unknown setting 'sizes'"),
    ],
)
def test_the_settings_file_is_named(
    settings: dict[str, Any], places: dict[str, str], words: str
) -> None:
    """An error begins with the file of the setting, with both files of a contradiction, or with none."""
    with pytest.raises(SettingsError) as caught:
        resolve_job(CONFIG, settings, places)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("written", "named"),
    [("tif", "tiff"), ("JPEG", "jpg"), ("jpe", "jpg"), ("Png", "png"), ("jxl", "jxl")],
)
def test_a_suffix_names_its_format(written: str, named: str) -> None:
    """`format` takes every suffix of a format, in any case, in a job and in the configuration."""
    assert resolve_job(CONFIG, {"format": written})[1].format == named
    assert load(environ={"NST_OUTPUTS__FORMAT": written}, search=()).outputs.format == named


@pytest.mark.parametrize(("name", "depth"), [("jpg", 8), ("avif", 10), ("png", 16)])
def test_a_configured_depth_is_lowered_to_what_the_format_of_a_job_can_hold(
    name: str, depth: int
) -> None:
    """Under `outputs.depth: 16` a job that chooses only a format gets its largest depth; a stated depth counts."""
    deep = Config(outputs=Outputs(format="tiff", depth=16))
    assert resolve_job(deep, {"format": name})[1].depth == depth
    with pytest.raises(SettingsError, match="bits per channel, not"):
        resolve_job(deep, {"format": name, "depth": 16 if depth < 16 else 10})


@pytest.mark.parametrize(
    ("key", "settings", "command"),
    [
        ("sizee", {"sizee": 96}, "nst-daemon retry dog --unset sizee --set size=96"),
        ("sizee", {"sizee": "auto"}, "nst-daemon retry dog --unset sizee --set size=auto"),
        ("zzzz", {"zzzz": 1}, "nst-daemon retry dog --unset zzzz"),
        ("size", {"size": "huge"}, ""),
        ("sizee", {}, ""),
    ],
)
def test_an_unknown_setting_is_corrected_by_a_command(
    key: str, settings: dict[str, Any], command: str
) -> None:
    """The command has the value of the file; no key that exists, or that the file does not have, gets one."""
    assert correction("dog", key, settings) == command
