"""Whatever values a settings or batch file holds, they are used or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.engine.settings import RenderSettings, resolve, restore
from nst_daemon.errors import SettingsError
from nst_daemon.intake import batch
from nst_daemon.intake.drops import JobSettings
from nst_daemon.intake.library import merge_settings

KEYS = [field.name for field in fields(RenderSettings)]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["auto", "off", "original", "nan", "1e999", "12:30", "9" * 5000, "adam", 1e308]
    ),
)
#: Any value that `strict_yaml` returns.
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(SCALARS, st.sampled_from(["relu1_1", "conv4_2"])), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


def one_line(use: Callable[[], object]) -> None:
    """`use` works, or it raises a SettingsError whose message is one short line."""
    try:
        use()
    except SettingsError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000


@given(st.sampled_from(KEYS), VALUES, st.sampled_from(["vgg19", "efficientnet_b0"]))
def test_any_value_of_any_setting_is_kept_as_json_or_refused(
    key: str, value: Any, network: str
) -> None:
    """Settings that are resolved are finite, and the same after a round through JSON."""

    def use() -> None:
        resolved = resolve({key: value}, network=network)
        assert restore(json.loads(json.dumps(asdict(resolved), allow_nan=False))) == resolved

    one_line(use)


@given(
    st.dictionaries(
        st.one_of(st.sampled_from([*KEYS, "style", "priority"]), st.text(max_size=5)),
        VALUES,
        max_size=4,
    )
)
def test_any_settings_file_is_used_or_refused(values: dict[str, Any]) -> None:
    """A settings file with any keys and values is parsed, merged and resolved, or refused."""
    one_line(lambda: resolve(merge_settings([], JobSettings.parse(values, "x").settings, own=2)))


@given(st.dictionaries(st.sampled_from([*batch.KEYS, "other"]), VALUES))
def test_any_batch_file_is_used_or_refused(values: dict[str, Any]) -> None:
    """A batch file with any values is parsed or refused."""
    one_line(lambda: batch.parse(values, "x"))


def test_a_ratio_beyond_all_numbers_is_refused() -> None:
    """A content_style_ratio whose product with style_weight is infinite is refused by its name."""
    with pytest.raises(SettingsError, match="content_style_ratio: 1e\\+300 is not allowed"):
        resolve({"content_style_ratio": 1e300, "style_weight": 1e300})


def test_a_refusal_does_not_repeat_a_long_value() -> None:
    """The message about a value or a key of 60,000 characters is short."""
    for values in ({"size": "x" * 60_000}, {"x" * 60_000: 1}):
        with pytest.raises(SettingsError) as refused:
            resolve(values)
        assert len(str(refused.value)) < 2000
