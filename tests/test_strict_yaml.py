"""YAML as plain data, within limits."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.errors import SettingsError
from nst_daemon.strict_yaml import MAX_BYTES, MAX_NESTING, parse, parse_mapping

LAUGHS = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n"
HOSTILE = {
    "aliases": (LAUGHS, "line 1: anchors and aliases are not supported"),
    "a lone alias": ("a: *b\n", "line 1: anchors and aliases are not supported"),
    "python objects": (
        "a: !!python/object/apply:os.system [id]\n",
        "line 1: tags are not supported",
    ),
    "a tag": ("a: 1\nb: !!str 1\n", "line 2: tags are not supported"),
    "depth": ("a: " + "[" * 10 + "]" * 10, f"line 1: nested deeper than {MAX_NESTING}"),
    "great depth": ("a: " + "[" * 5000, f"line 1: nested deeper than {MAX_NESTING}"),
    "many entries": ("a: [" + "1, " * 5000 + "1]", "more than 2000 entries"),
    "size": ("a: " + "x" * MAX_BYTES, "has more than 64 KiB; write only the settings"),
    "a list": ("- a\n- b\n", "is not a mapping of settings"),
    "a word": ("hello", "is not a mapping of settings"),
    "number keys": ("1: 2\n", "is not a mapping of settings"),
    "complex keys": ("? [a, b]\n: 1\n", "keys must be plain words"),
    "merge keys": ("<<: {a: 1}\n", "keys must be plain words"),
    "the same key twice": ("size: 1\nseed: 2\nsize: 3\n", "line 3: duplicate key 'size'"),
    "two documents": ("a: 1\n---\nb: 2\n", "more than one document"),
    "bad syntax": ("a: [1, 2\nb: 3\n", "line 2"),
    "control characters": ("a: \x1b[31m\n", "special characters are not allowed"),
    "a character beyond Unicode": ('a: "\\UFFFFFFFF"\n', "dog.yaml cannot be read"),
    "half of a surrogate pair": (
        'a: "\\ud800"\n',
        "line 1: the text contains a character that is not allowed",
    ),
    "a NUL in a key": (
        'b: 1\n"a\\0": 2\n',
        "line 2: the text contains a character that is not allowed",
    ),
    "a value sign": ("a: =\n", "line 1"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_yaml_is_refused_with_its_reason(what: str) -> None:
    """Each kind of YAML that is more than plain data is refused in one line that names the file and the reason."""
    text, reason = HOSTILE[what]
    with pytest.raises(SettingsError) as refused:
        parse_mapping(text.encode(), "dog.yaml")
    assert reason in str(refused.value)
    assert str(refused.value).startswith("dog.yaml ")
    assert "\n" not in str(refused.value)


def test_other_encodings_are_refused() -> None:
    """Bytes that are not UTF-8 are refused, whatever they would mean elsewhere."""
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        parse_mapping("größe: 1".encode("latin-1"), "dog.yaml")


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
    assert parse_mapping(text.encode("utf-8-sig"), "dog.yaml") == expected
    assert parse_mapping(b"# nothing\n", "dog.yaml") == {}


def test_a_date_stays_text() -> None:
    """What YAML calls a date is text, so that every setting can be written as JSON."""
    assert parse_mapping(b"a: 2026-01-01\n", "x.yaml") == {"a": "2026-01-01"}


@pytest.mark.parametrize("text", ["12:30", "1" + ":0" * 3000, "-1:30", "190:20:30.15", "1:00:00."])
def test_a_time_stays_text(text: str) -> None:
    """What YAML 1.1 reads as a number of base 60 is text, however long it is."""
    assert parse_mapping(f"a: {text}\n".encode(), "x.yaml") == {"a": text}
    assert parse(text, "--set size") == text


def test_numbers_are_read_in_every_notation() -> None:
    """Signs, underscores, octal, hexadecimal, binary, exponents and infinities are numbers."""
    text = "[+1_000, 0, -0x1F, 0b101, 017, .5, -.5, 1., 1.5e+3, -.inf, 1.0e+999]"
    assert parse(text, "x") == [1000, 0, -31, 5, 15, 0.5, -0.5, 1.0, 1500.0, -math.inf, math.inf]
    assert parse("[0b, 0x, _1, 08, 1e3, 0b2]", "x") == ["0b", "0x", "_1", "08", "1e3", "0b2"]


def test_a_message_never_repeats_a_long_document() -> None:
    """The message about a key of 10,000 characters that occurs twice is short."""
    key = "k" * 10_000
    with pytest.raises(SettingsError) as refused:
        parse_mapping(f"? {key}\n: 1\n? {key}\n: 2\n".encode(), "x.yaml")
    assert "duplicate key" in str(refused.value) and len(str(refused.value)) < 500


@given(st.binary(max_size=200))
def test_any_bytes_are_plain_data_or_an_error_of_ours(data: bytes) -> None:
    """Whatever bytes a file holds, reading it gives a mapping or a SettingsError of one line."""
    try:
        assert isinstance(parse_mapping(data, "x.yaml"), dict)
    except SettingsError as error:
        assert "\n" not in str(error)


@given(
    st.text(
        st.sampled_from("0123456789.:_-+eExXobnaif'\"\\[]{},?!&*%@`|>#~<= \n\tuU\0\ud800"),
        max_size=60,
    )
)
def test_any_scalar_is_plain_data_or_an_error_of_ours(text: str) -> None:
    """Whatever is put together from YAML's own characters is a value that JSON and UTF-8 take, or one line."""
    try:
        json.dumps(parse(f"a: {text}", "x"), ensure_ascii=False).encode()
    except SettingsError as error:
        assert "\n" not in str(error)


@given(st.text(max_size=200))
def test_any_text_is_plain_data_or_an_error_of_ours(text: str) -> None:
    """Whatever a file holds, reading it gives JSON-ready data or a SettingsError of one line."""
    try:
        json.dumps(parse_mapping(text.encode(errors="surrogatepass"), "x.yaml"))
    except SettingsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "number",
    ["9" * 5000, "-" + "9" * 60, "0x" + "f" * 5000, "0" + "7" * 5000, str(2**63), "0b" + "1" * 70],
)
def test_a_long_integer_is_refused(number: str) -> None:
    """An integer of more than 63 bits is an error in any notation, and not an exception of Python."""
    with pytest.raises(SettingsError, match="line 2: the integer is too large"):
        parse_mapping(f"size: 1\nseed: {number}\n".encode(), "x.yaml")
    with pytest.raises(SettingsError, match="--set seed"):
        parse(number, "--set seed")


def test_the_largest_seed_is_read() -> None:
    """Integers of 63 bits are read, in any notation."""
    values = parse_mapping(f"a: {2**63 - 1}\nb: 0x{2**63 - 1:x}\nc: -{2**63 - 1}\n".encode(), "x")
    assert values == {"a": 2**63 - 1, "b": 2**63 - 1, "c": -(2**63 - 1)}


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("[1, 2]", [1, 2]), ("", None), ("2026-01-01", "2026-01-01")],
)
def test_a_value_is_parsed_as_in_a_file(text: str, value: object) -> None:
    """The value of an option or a variable is the same as in a file."""
    assert parse(text, "NST_X") == value
