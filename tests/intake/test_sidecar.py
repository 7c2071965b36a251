"""YAML from strangers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.errors import SettingsError
from nst_daemon.intake.sidecar import MAX_BYTES, MAX_DEPTH, parse_sidecar, read_mapping

LAUGHS = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n"
HOSTILE = {
    "aliases": (LAUGHS, "line 1: anchors and aliases are not read"),
    "a lone alias": ("a: *b\n", "line 1: anchors and aliases are not read"),
    "python objects": ("a: !!python/object/apply:os.system [id]\n", "line 1: tags are not read"),
    "a tag": ("a: 1\nb: !!str 1\n", "line 2: tags are not read"),
    "depth": ("a: " + "[" * 10 + "]" * 10, f"line 1: nested deeper than {MAX_DEPTH}"),
    "great depth": ("a: " + "[" * 5000, f"line 1: nested deeper than {MAX_DEPTH}"),
    "many entries": ("a: [" + "1, " * 5000 + "1]", "more than 2000 entries"),
    "size": ("a: " + "x" * MAX_BYTES, "has more than 65,536 bytes; write only the settings"),
    "a list": ("- a\n- b\n", "is not a mapping of settings"),
    "a word": ("hello", "is not a mapping of settings"),
    "number keys": ("1: 2\n", "is not a mapping of settings"),
    "complex keys": ("? [a, b]\n: 1\n", "only plain words may be keys"),
    "merge keys": ("<<: {a: 1}\n", "only plain words may be keys"),
    "the same key twice": ("size: 1\nseed: 2\nsize: 3\n", "line 3: 'size' stands twice"),
    "two documents": ("a: 1\n---\nb: 2\n", "more than one document"),
    "bad syntax": ("a: [1, 2\nb: 3\n", "line 2"),
    "control characters": ("a: \x1b[31m\n", "special characters are not allowed"),
    "a value sign": ("a: =\n", "line 1"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_yaml_is_refused_with_its_reason(what: str) -> None:
    """Each kind of YAML that is more than plain data is refused in one line that names the file and the reason."""
    text, reason = HOSTILE[what]
    with pytest.raises(SettingsError) as refused:
        read_mapping(text.encode(), "dog.yaml")
    assert reason in str(refused.value)
    assert str(refused.value).startswith("dog.yaml ")
    assert "\n" not in str(refused.value)


def test_other_encodings_are_refused() -> None:
    """Bytes that are not UTF-8 are refused, whatever they would mean elsewhere."""
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        read_mapping("größe: 1".encode("latin-1"), "dog.yaml")


def test_plain_settings_come_through() -> None:
    """Numbers, words, lists and mappings arrive as they were written, behind a byte order mark as well."""
    text = "size: 128\nstep: 0.5\ntv: squared\nscales: [0.5, 1]\nstyle_layers: {relu1_1: 1.0}\n"
    expected = {
        "size": 128,
        "step": 0.5,
        "tv": "squared",
        "scales": [0.5, 1],
        "style_layers": {"relu1_1": 1.0},
    }
    assert read_mapping(text.encode("utf-8-sig"), "dog.yaml") == expected
    assert read_mapping(b"# nothing\n", "dog.yaml") == {}


def test_a_date_stays_text() -> None:
    """What YAML calls a date is text, so that every setting can be written as JSON."""
    assert read_mapping(b"a: 2026-01-01\n", "x.yaml") == {"a": "2026-01-01"}


@given(st.text(max_size=200))
def test_any_text_is_plain_data_or_an_error_of_ours(text: str) -> None:
    """Whatever a file holds, reading it gives JSON-ready data or a SettingsError of one line."""
    try:
        json.dumps(read_mapping(text.encode(errors="surrogatepass"), "x.yaml"))
    except SettingsError as error:
        assert "\n" not in str(error)


def test_the_inbox_keeps_its_own_keys() -> None:
    """`style` and `priority` are taken out, one style or several; the rest are settings of the painting."""
    one = parse_sidecar({"style": "starry", "priority": 3, "size": 64}, "dog.yaml")
    assert (one.styles, one.priority, dict(one.settings)) == (("starry",), 3, {"size": 64})
    assert parse_sidecar({"style": ["a", "b"]}, "dog.yaml").styles == ("a", "b")


@pytest.mark.parametrize("values", [{"style": 3}, {"style": [1]}, {"style": {"a": "b"}}])
def test_a_style_is_named(values: dict[str, object]) -> None:
    """A style that is not a name or a list of names is refused."""
    with pytest.raises(SettingsError, match=r"dog.yaml: style must be the name"):
        parse_sidecar(values, "dog.yaml")


@pytest.mark.parametrize("priority", ["high", True, 1.5, 5000])
def test_a_priority_is_a_small_whole_number(priority: object) -> None:
    """A priority that is no whole number from -1000 to 1000 is refused."""
    with pytest.raises(SettingsError, match="priority must be a whole number"):
        parse_sidecar({"priority": priority}, "dog.yaml")
