"""The types of configuration keys, and their values in words: "a whole number from 1 to 100", "png, jpg or webp"."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator, ByteSize

from nst_daemon.pictures.output_formats import listed
from nst_daemon.units import SECONDS, parse_duration


@dataclass(frozen=True, slots=True)
class Allowed:
    """Metadata of an annotation: the text that describes its values."""

    text: str


def counted_in(unit: str) -> Callable[[object], object]:
    """A validator that turns a text with a unit into a number of `unit`; other values stay as they are."""

    def convert(value: object) -> object:
        found = parse_duration(value) if isinstance(value, str) else None
        return value if found is None else found / SECONDS[unit]

    return convert


Seconds = Annotated[
    float, Ge(0), BeforeValidator(counted_in("s")), Allowed("seconds ≥ 0, such as 90 or 5m")
]
PositiveSeconds = Annotated[
    float, Gt(0), BeforeValidator(counted_in("s")), Allowed("seconds > 0, such as 90 or 5m")
]
PositiveMinutes = Annotated[
    float, Gt(0), BeforeValidator(counted_in("m")), Allowed("minutes > 0, such as 90 or 4h")
]
DayCount = Annotated[
    float, Ge(0), BeforeValidator(counted_in("d")), Allowed("days ≥ 0, such as 30 or 12h")
]


def describe(kind: Any) -> str:
    """The values that an annotation allows, in words."""
    return " or ".join(dict.fromkeys(_describe(kind)))


def choices(kind: Any) -> tuple[str, ...]:
    """The words among the values that an annotation allows."""
    found = [
        str(v) for part in members(kind) if get_origin(part) is Literal for v in get_args(part)
    ]
    if bool in members(kind):
        found += ["true", "false"]
    return tuple(found)


#: The kinds of values, as forms need them.
Kind = Literal["integer", "number", "boolean", "choice", "text", "list", "mapping"]


def kind_of(annotation: Any) -> Kind:
    """The main kind of value that an annotation allows; a number that may also be a word is a number."""
    parts = members(annotation)
    origins = [get_origin(part) or part for part in parts]
    literals = [v for part in parts if get_origin(part) is Literal for v in get_args(part)]
    if any(isinstance(origin, type) and issubclass(origin, Mapping) for origin in origins):
        return "mapping"
    if any(origin in (list, tuple) for origin in origins):
        return "list"
    if bool in parts:
        return "boolean"
    if float in parts:
        return "number"
    if int in parts or (literals and all(isinstance(v, int) for v in literals)):
        return "integer"
    return "choice" if literals else "text"


def bounds(annotation: Any) -> tuple[float | None, float | None]:
    """The least and the greatest number that an annotation allows; also bounds that are excluded."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        found = [bounds(member) for member in get_args(annotation)]
        return next((pair for pair in found if pair != (None, None)), (None, None))
    if origin is not Annotated:
        return None, None
    inner, *metadata = get_args(annotation)
    low, high = bounds(inner)
    for item in metadata:
        if isinstance(item, Ge | Gt):
            low = float(f"{item.ge if isinstance(item, Ge) else item.gt}")
        elif isinstance(item, Le | Lt):
            high = float(f"{item.le if isinstance(item, Le) else item.lt}")
    return low, None if high == math.inf else high


def without_booleans(values: Mapping[str, Any], section: type) -> dict[str, Any]:
    """The values, with words instead of booleans where a key is a number, so that pydantic refuses them.

    It takes true for the number 1, and `keep.done_days: yes` would delete files after one day. A key with the choice
    "off" keeps false, because YAML 1.1 reads a bare `off` as that.

    Args:
        values: What is written for the section.
        section: A dataclass; its fields are keys, or sections that are dataclasses.
    """
    kinds = _kinds(section)
    return {key: _without_booleans(value, kinds.get(key)) for key, value in values.items()}


def _without_booleans(value: Any, kind: Any) -> Any:
    if isinstance(value, dict) and isinstance(kind, type) and is_dataclass(kind):
        return without_booleans(value, kind)
    refused = isinstance(value, bool) and _is_number(kind)
    return str(value).lower() if refused and (value or "off" not in choices(kind)) else value


def _is_number(kind: Any) -> bool:
    parts = members(kind)
    return bool not in parts and any(part in parts for part in (int, float, ByteSize))


@cache
def _kinds(section: type) -> dict[str, Any]:
    return get_type_hints(section, include_extras=True)


def members(kind: Any) -> list[Any]:
    """The types that an annotation allows: the members of unions, without metadata."""
    origin = get_origin(kind)
    if origin is Annotated:
        return members(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return [part for member in get_args(kind) for part in members(member)]
    return [kind]


_WORDS: dict[Any, str] = {
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
    ByteSize: "a size such as 512MiB or 4GiB",
    list[str]: "a list such as [one, two]",
    list[Path]: "a list of folders",
}


def _describe(kind: Any, bounds: Sequence[Any] = ()) -> Iterator[str]:
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *metadata = get_args(kind)
        told = [m.text for m in metadata if isinstance(m, Allowed)]
        yield from told or _describe(inner, metadata)
    elif origin in (Union, types.UnionType):
        for member in get_args(kind):
            yield from _describe(member)
    elif origin is Literal:
        yield listed(get_args(kind))
    elif kind in (int, float):
        yield ("a whole number" if kind is int else "a number") + _range(bounds)
    else:
        yield _WORDS.get(kind, "a value")


def _range(bounds: Sequence[Any]) -> str:
    low = next((f"{b.ge:g}" for b in bounds if isinstance(b, Ge)), "")
    high = next((f"{b.le:g}" for b in bounds if isinstance(b, Le)), "")
    if low and high:
        return f" from {low} to {high}"
    parts = [f"≥ {low}"] if low else [f"> {b.gt:g}" for b in bounds if isinstance(b, Gt)]
    parts += [f"≤ {high}"] if high else [f"< {b.lt:g}" for b in bounds if isinstance(b, Lt)]
    return f" {' and '.join(parts)}" if parts else ""
