from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.experiments import EXPERIMENTS
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import RenderSettings

PAGE = Path(__file__).parents[2] / "docs" / "objective.md"
TEXT = PAGE.read_text(encoding="utf-8")
HEADINGS = " ".join(re.findall(r"(?m)^### (.*)$", TEXT))


@pytest.mark.parametrize("name", [field.name for field in fields(RenderSettings)])
def test_every_option_has_a_section(name: str) -> None:
    """docs/objective.md has a heading with the option's name."""
    assert f"`{name}`" in HEADINGS


def test_no_section_is_about_an_option_that_is_not_there() -> None:
    """Each name in a heading is a setting."""
    assert set(re.findall(r"`(\w+)`", HEADINGS)) == {f.name for f in fields(RenderSettings)}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_row(preset: str) -> None:
    """The table of presets begins a row with its name."""
    assert f"\n| `{preset}`" in TEXT


def test_the_default_presets_row_has_its_numbers() -> None:
    """α, w, γ, the coarsest scale and the iterations in the table are those of the code."""
    row = next(line for line in TEXT.splitlines() if line.startswith("| `painting`"))
    settings = RenderSettings()
    (weight,) = set(settings.style_layers.values())
    assert f"α = {settings.content_weight:g} " in row
    assert f"w = {weight:g} " in row
    assert f"{settings.tv_weight:g} · {settings.tv}" in row
    assert f"halves from {settings.coarsest} px" in row
    assert ", ".join(map(str, settings.iterations)) in row


def test_every_picture_is_there_and_has_a_command() -> None:
    """Each sheet that the page shows exists and is one that `benchmarks.experiments` makes."""
    shown = re.findall(r"!\[[\w-]+\]\((images/objective/([\w-]+)\.jpg)\)", TEXT)
    assert shown
    for path, name in shown:
        assert name in EXPERIMENTS
        assert (PAGE.parent / path).stat().st_size > 1000
