"""The types of configuration keys, described for people: "a whole number from 1 to 100", "png, jpg or webp"."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator, ByteSize

from nst_daemon.durations import counted_in
from nst_daemon.pictures.output_formats import listed


@dataclass(frozen=True, slots=True)
class Allowed:
    """Metadata of an annotation: the text that describes its values."""

    text: str


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
    found = [str(v) for part in _parts(kind) if get_origin(part) is Literal for v in get_args(part)]
    if bool in _parts(kind):
        found += ["true", "false"]
    return tuple(found)


def _parts(kind: Any) -> list[Any]:
    """The members of unions, without annotations."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _parts(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return [part for member in get_args(kind) for part in _parts(member)]
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
