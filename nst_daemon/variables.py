"""The NST_… variables: `NST_SERVICE__SETTLE_SECONDS=5` sets `service.settle_seconds`.

Text (a path, a name, an address, a token) is the value as it is. Numbers, booleans, lists and mappings are written as
in YAML. An empty variable sets only text; for any other key it is as if the variable were not set.

Other programs use the prefix too: Kubernetes and Docker set NST_PORT and NST_SERVICE_HOST for a service called "nst".
Such variables are ignored, and `Found.warning` names them.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from nst_daemon import strict_yaml
from nst_daemon.config_problems import EVERY_KEY
from nst_daemon.errors import ConfigError, SettingsError
from nst_daemon.key_types import members
from nst_daemon.names import printable
from nst_daemon.suggestions import did_you_mean, question, similar_keys

PREFIX = "NST_"
#: Names the configuration file; not a key of it.
CONFIG_FILE = "NST_CONFIG"
#: How similar a variable that may belong to another program must be to one of ours to be called a misspelling.
MISSPELT = 0.92

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What the variables set.

    Attributes:
        values: The settings, nested by section.
        names: The variable of each key that is set.
        warning: One line that names the variables that are not settings, with what may have been meant; "" for none.
    """

    values: dict[str, Any]
    names: dict[Key, str]
    warning: str


def read(environ: Mapping[str, str], config: type, **free: type) -> Found:
    """The settings in the environment.

    Args:
        environ: All variables.
        config: The dataclass of the configuration; its fields are keys, or sections that are dataclasses.
        free: Sections that are mappings, each with the dataclass of its keys.

    Raises:
        ConfigError: A value is not YAML where it has to be, or a section of ours has no such key.
    """
    kinds = _kinds(config, tuple(free.items()))
    sections = {*free, *(key[0] for key in kinds if len(key) > 1)}
    found = Found({}, {}, "")
    ignored = []
    given = {key_of(name): name for name in environ if name.startswith(PREFIX)}
    given.pop(key_of(CONFIG_FILE), None)
    # A section as a whole comes before its keys.
    for key, name in sorted(given.items(), key=lambda item: (len(item[0]), item[1])):
        if key in kinds:
            value = _value(name, environ[name], kinds[key])
        elif key[0] in free and key[:2] in kinds:
            value = _yaml(name, environ[name])
        elif key[0] in sections and len(key) > 1:
            raise _unknown(name, key, kinds)
        elif key[0] in sections and environ[name].lstrip().startswith("{"):
            value = _yaml(name, environ[name])
        else:
            ignored.append(name)
            continue
        if value is not _UNSET:
            _put(found.values, key, value, name)
            found.names[key] = name
    return dataclasses.replace(found, warning=_warning(ignored, kinds))


def key_of(name: str) -> Key:
    """NST_A__B → ("a", "b")."""
    return tuple(name.removeprefix(PREFIX).lower().split("__"))


def name_of(key: Key) -> str:
    """("a", "b") → NST_A__B."""
    return PREFIX + "__".join(key).upper()


_UNSET = object()


@cache
def _kinds(config: type, free: tuple[tuple[str, type], ...]) -> dict[Key, Any]:
    """The type of each key."""
    found: dict[Key, Any] = {}
    for f in dataclasses.fields(config):
        kind = get_type_hints(config, include_extras=True)[f.name]
        if dataclasses.is_dataclass(kind):
            hints = get_type_hints(kind, include_extras=True)
            found |= {(f.name, inner.name): hints[inner.name] for inner in dataclasses.fields(kind)}
        elif "internal" not in f.metadata and f.name not in dict(free):
            found[f.name,] = kind
    for section, kind in free:
        hints = get_type_hints(kind, include_extras=True)
        found |= {(section, f.name): hints[f.name] for f in dataclasses.fields(kind)}
    return found


def _value(name: str, text: str, kind: Any) -> Any:
    if kind is str:
        return text
    allowed = members(kind)
    if not text.strip():
        return _UNSET
    if types.NoneType in allowed and text == "null":
        return None
    if Path in allowed:
        return text
    if list[str] in allowed or list[Path] in allowed:
        return _texts(name, text, allowed)
    return _yaml(name, text)


def _texts(name: str, text: str, allowed: Sequence[Any]) -> Any:
    """The value of a key that is a list of texts, or one of some words."""
    value = _yaml(name, text) if text.lstrip().startswith("[") else None
    if isinstance(value, list):
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 (every scalar is text)
    words = [word for m in allowed if get_origin(m) is Literal for word in get_args(m)]
    # One device or folder needs no brackets. A command does, or its arguments would be part of its name.
    single = text not in words and allowed != [list[str]]
    return [text] if single else text


def _yaml(name: str, text: str) -> Any:
    try:
        return strict_yaml.parse(text, name)
    except SettingsError as error:
        raise ConfigError(error.message, remedy=error.remedy) from error


def _put(values: dict[str, Any], key: Key, value: Any, name: str) -> None:
    place = values
    for part in key[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{printable(name)}: {part} is not a section", remedy="remove it")
    place[key[-1]] = value


def _warning(ignored: Sequence[str], kinds: Mapping[Key, Any]) -> str:
    if not ignored:
        return ""
    guesses = [f"{name}: {hint}" for name in ignored if (hint := _guess(name, kinds))]
    verb = "is not a setting and is" if len(ignored) == 1 else "are not settings and are"
    hint = f" ({' '.join(guesses)})" if guesses else ""
    return printable(f"{', '.join(ignored)} {verb} ignored{hint}")


def _unknown(name: str, key: Key, kinds: Mapping[Key, Any]) -> ConfigError:
    meant = similar_keys(".".join(key), [".".join(known) for known in kinds])
    return ConfigError(
        f"{printable(name)}: {printable('.'.join(key))} is not a setting",
        remedy=question([name_of(tuple(m.split("."))) for m in meant]) or EVERY_KEY,
    )


def _guess(name: str, kinds: Mapping[Key, Any]) -> str:
    """The question for the variable that was probably meant. A long key is also recognised without its section."""
    for key in kinds:
        if "_" in key[-1] and name == name_of(key[-1:]):
            return question([name_of(key)])
    return did_you_mean(name, [name_of(key) for key in kinds], cutoff=MISSPELT)
