"""What is wrong with a configuration, in words: one line for each problem, with its file and line or its variable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from nst_daemon.errors import ConfigError, first_line
from nst_daemon.key_types import Kind
from nst_daemon.names import printable, shortened
from nst_daemon.pictures.output_formats import listed
from nst_daemon.suggestions import did_you_mean, question, similar_keys

Key = tuple[str, ...]

EVERY_KEY = "`nst-daemon config show` lists every key"
#: Keys of earlier versions, and why they have gone.
REMOVED = {"batch": "pictures are painted one after the other, which became faster"}


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """A key of the configuration.

    Attributes:
        name: With its section: `service.settle_seconds`.
        default: Its value if nothing sets it.
        help: What it is for.
        allowed: Its values, in words.
        choices: The words among its values.
        secret: Whether its value is never shown.
        kind: Of its values, for forms.
        minimum, maximum: Of its values, if they are numbers; they may be excluded (`allowed`).
    """

    name: str
    default: Any
    help: str
    allowed: str
    choices: tuple[str, ...] = ()
    secret: bool = False
    kind: Kind = "text"
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Origins:
    """Where values come from.

    Attributes:
        source: The configuration file, as messages name it; "" without a file.
        lines: The line of each key and section in it.
        names: The variable of each key that is set by one.
    """

    source: str = ""
    lines: Mapping[Key, int] = field(default_factory=dict)
    names: Mapping[Key, str] = field(default_factory=dict)

    def of(self, key: Key) -> str:
        """Where a key is set: a variable, or file:line; without the line for a key that the file does not have."""
        if found := self.setter(key):
            return found
        for length in range(len(key) - 1, 0, -1):
            if key[:length] in self.lines:
                return f"{self.source}:{self.lines[key[:length]]}"
        return self.source or "the environment"

    def setter(self, key: Key) -> str:
        """The variable or file:line that sets a key; "" if it has its default."""
        if key in self.names:
            return self.names[key]
        if key in self.lines:
            return f"{self.source}:{self.lines[key]}"
        # A variable can set a section as a whole.
        return next(
            (self.names[key[:n]] for n in range(len(key) - 1, 0, -1) if key[:n] in self.names), ""
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of one key. message: names the key."""

    key: Key
    message: str
    remedy: str
    where: str = ""

    def error(self) -> ConfigError:
        """The problem as an exception."""
        return ConfigError(
            printable(f"{self.where}: {self.message}"), remedy=printable(self.remedy)
        )


def validation_problems(error: ValidationError, keys: Mapping[str, ConfigKey]) -> Iterator[Problem]:
    """A problem for each key that pydantic refused. keys: every key by its dotted name."""
    sections = {name.partition(".")[0] for name in keys if "." in name}
    grouped: dict[Key, list[Any]] = {}
    for found in error.errors(include_url=False):
        grouped.setdefault(_key_of(found["loc"], sections), []).append(found)
    for key, errors in grouped.items():
        yield _problem(key, errors[0], keys)


def unknown_key(key: Key, known: Iterable[str]) -> Problem:
    """The problem of a key that does not exist."""
    name = shortened(".".join(key))
    if name in REMOVED:
        return Problem(key, f"{name} has been removed: {REMOVED[name]}", "delete it")
    meant = similar_keys(name, list(known))
    remedy = question(meant) or EVERY_KEY
    leaf = name.rpartition(".")[2]
    if meant and all(m.rpartition(".")[2] == leaf and "." in m for m in meant):
        remedy = f"{leaf} belongs to the section {listed(m.rpartition('.')[0] for m in meant)}"
    return Problem(key, f"{name} is not a setting", remedy)


def _key_of(location: tuple[Any, ...], sections: set[str]) -> Key:
    """The key in a location, which may also name branches of a union and elements of a list."""
    first, *others = map(str, location)
    return (first, others[0]) if first in sections and others else (first,)


def _problem(key: Key, error: Any, keys: Mapping[str, ConfigKey]) -> Problem:
    name = ".".join(key)
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return unknown_key(key, keys)
    if name not in keys:
        said = f"{name} is a section, and {_shown(error['input'])} is not a mapping"
        return Problem(key, said, f"write its keys below it; {EVERY_KEY}")
    known, value = keys[name], error["input"]
    shown = "its value" if known.secret else _shown(value)
    if error["type"] == "value_error":
        return Problem(key, f"{name}: {first_line(error['ctx']['error'])}", "")
    if error["type"] in {"string_type", "path_type"} and not isinstance(value, list | dict | None):
        # YAML reads yes and 007 as other things than text.
        plain = known.allowed in {"text", "a path"}
        remedy = "write it in quotes" if plain else f"write {known.allowed}, in quotes"
        return Problem(key, f"{name}: {shown} is not text", remedy)
    hint = did_you_mean(value, known.choices) if isinstance(value, str) else ""
    remedy = f"write {known.allowed}" + (f" ({hint})" if hint else "")
    return Problem(key, f"{name}: {shown} is not allowed", remedy)


def _shown(value: object) -> str:
    return shortened(printable(repr(value)))
