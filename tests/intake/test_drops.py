"""The contents of a settings file."""

from __future__ import annotations

import pytest

from nst_daemon.errors import SettingsError
from nst_daemon.intake.drops import JobSettings


def test_the_inbox_keeps_its_own_keys() -> None:
    """`style` and `priority` are taken out, one style or several; the rest are settings of the painting."""
    one = JobSettings.parse({"style": "starry", "priority": 3, "size": 64}, "dog.yaml")
    assert (one.styles, one.priority, dict(one.settings)) == (("starry",), 3, {"size": 64})
    assert JobSettings.parse({"style": ["a", "b"]}, "dog.yaml").styles == ("a", "b")


@pytest.mark.parametrize("values", [{"style": 3}, {"style": [1]}, {"style": {"a": "b"}}])
def test_a_style_is_named(values: dict[str, object]) -> None:
    """A style that is not a name or a list of names is refused."""
    with pytest.raises(SettingsError, match=r"dog.yaml: style must be the name"):
        JobSettings.parse(values, "dog.yaml")


@pytest.mark.parametrize("priority", ["high", True, 1.5, 5000])
def test_a_priority_is_a_small_whole_number(priority: object) -> None:
    """A priority that is no whole number from -1000 to 1000 is refused."""
    with pytest.raises(SettingsError, match="priority must be a whole number"):
        JobSettings.parse({"priority": priority}, "dog.yaml")
