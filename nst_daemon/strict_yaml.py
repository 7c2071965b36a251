"""YAML as plain data: null, booleans, numbers, text, lists and mappings, within limits.

Anchors, aliases, tags, merge keys and duplicate keys are errors. So are documents that exceed the limits below: a few
lines with aliases expand to gigabytes, and Python refuses to print very long integers. Dates and times stay text: no
setting is a date, JSON has none, and YAML 1.1 reads `12:30` as the number 750.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from nst_daemon.errors import SettingsError
from nst_daemon.names import printable, shortened
from nst_daemon.units import size

MAX_BYTES = 64 * 1024
MAX_NESTING = 6
MAX_EVENTS = 2000
#: Bits of an integer: JSON readers and SQLite hold no more.
MAX_INTEGER_BITS = 63
#: Characters of an integer; checked before it is converted.
_MAX_DIGITS = 80


def parse(text: str, label: str) -> Any:
    """The value of a YAML document.

    Args:
        text: one document; an empty one is None.
        label: where it comes from, for messages: a file name, a variable or an option.

    Raises:
        SettingsError: the text is not plain data within the limits. No text leads to any other exception.
    """
    label = printable(label)
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise SettingsError(
            f"{label} has more than {size(MAX_BYTES)}", remedy="write only the settings"
        )
    try:
        _check_events(text)
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 (derived from the safe loader)
    except MemoryError:
        raise
    except Exception as error:
        # PyYAML raises more than YAMLError: ValueError, OverflowError, RecursionError, …
        raise SettingsError(
            f"{label} cannot be read: {shortened(printable(_one_line(error)), 300)}",
            remedy="write plain `key: value` lines",
        ) from error


def parse_mapping(data: bytes, label: str) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Args:
        data: the bytes of the file, UTF-8 with or without a byte order mark.
        label: the name of the file, for messages.

    Raises:
        SettingsError: the file is not a mapping of plain data within the limits.
    """
    label = printable(label)
    try:
        value = parse(data.decode("utf-8-sig"), label)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{label} is not UTF-8 text", remedy="save it as UTF-8") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise SettingsError(
            f"{label} is not a mapping of settings", remedy="write plain `key: value` lines"
        )
    return value


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line of each key of a mapping that `parse` accepts, and of the keys of its mappings."""
    found: dict[tuple[str, ...], int] = {}

    def add(node: yaml.Node | None, above: tuple[str, ...]) -> None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            found[*above, key.value] = key.start_mark.line + 1
            add(value, (*above, key.value))

    add(yaml.compose(text, Loader=_PlainLoader), ())
    return found


def _check_events(text: str) -> None:
    """Refuse aliases, anchors, tags, depth and size before any value is built."""
    depth = documents = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(f"line {line}: anchors and aliases are not supported")
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"line {line}: tags are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_NESTING:
            raise yaml.YAMLError(f"line {line}: nested deeper than {MAX_NESTING}")
        if number > MAX_EVENTS:
            raise yaml.YAMLError(f"more than {MAX_EVENTS} entries")
    if documents > 1:
        raise yaml.YAMLError("more than one document")


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without dates, numbers of base 60, merge keys, duplicate keys and long integers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise _error("keys must be plain words", key)
            if key.value in seen:
                raise _error(f"duplicate key {key.value!r}", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep=True)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = 0
        if fits := len(node.value) <= _MAX_DIGITS:
            value = super().construct_yaml_int(node)
        if not fits or value.bit_length() > MAX_INTEGER_BITS:
            raise _error("the integer is too large", node)
        return value

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        text = str(super().construct_yaml_str(node))
        # Only an escape can contain one: the reader refuses the characters themselves.
        if _NOT_TEXT.search(text):
            raise _error("the text contains a character that is not allowed", node)
        return text


#: NUL and halves of surrogate pairs, which no file name, JSON reader or database takes.
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_INTEGER = r"[-+]?(?:0b_*[01][01_]*|0x_*[0-9a-fA-F][0-9a-fA-F_]*|0[0-7_]*|[1-9][0-9_]*)"
_FLOAT = (
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
#: YAML 1.1's patterns of plain scalars, by tag; without base 60, which PyYAML's own have.
_PATTERNS = {
    "tag:yaml.org,2002:int": re.compile(rf"(?:{_INTEGER})\Z"),
    "tag:yaml.org,2002:float": re.compile(rf"(?:{_FLOAT})\Z"),
}

_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)
_PlainLoader.add_constructor("tag:yaml.org,2002:str", _PlainLoader.construct_yaml_str)
_PlainLoader.yaml_implicit_resolvers = {
    first: [
        (tag, _PATTERNS.get(tag, pattern))
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:timestamp"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _one_line(error: Exception) -> str:
    """The problem and the line where it is."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())
