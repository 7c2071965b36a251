"""YAML that strangers wrote: read as plain data, or refused.

Besides what `plain_yaml` refuses, aliases are not expanded (a few lines become gigabytes), and depth and size have an
end; all of that is an error that names the line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from nst_daemon.errors import SettingsError
from nst_daemon.names import printable
from nst_daemon.strict_yaml import PlainLoader, one_line

MAX_BYTES = 64 * 1024
MAX_DEPTH = 6
MAX_NODES = 2000


def read_mapping(data: bytes, name: str) -> dict[str, Any]:
    """The mapping that a YAML document holds; an empty one is an empty mapping.

    name: of the file, for messages. Raises SettingsError for anything but plain data within the limits.
    """
    label = printable(name)
    if len(data) > MAX_BYTES:
        raise SettingsError(
            f"{label} has more than {MAX_BYTES:,} bytes", remedy="write only the settings"
        )
    try:
        text = data.decode("utf-8-sig")
        _check_events(text)
        value = yaml.load(text, Loader=PlainLoader)  # noqa: S506 (derived from the safe loader, and stricter)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{label} is not UTF-8 text", remedy="save it as UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"{label} cannot be read: {printable(one_line(error))}",
            remedy="write plain `key: value` lines",
        ) from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise SettingsError(
            f"{label} is not a mapping of settings", remedy="write plain `key: value` lines"
        )
    return value


def _check_events(text: str) -> None:
    """Refuse aliases, anchors, tags, depth and size before anything is built."""
    depth = documents = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(f"line {line}: anchors and aliases are not read")
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"line {line}: tags are not read")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"line {line}: nested deeper than {MAX_DEPTH}")
        if number > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES} entries")
    if documents > 1:
        raise yaml.YAMLError("more than one document")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a settings file says: library styles by name, a priority, and the settings of the painting."""

    styles: tuple[str, ...] = ()
    priority: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def parse_sidecar(values: Mapping[str, Any], name: str) -> Sidecar:
    """What `NAME.yaml` or `job.yaml` says: `style` (one or a list) and `priority` are the inbox's own keys.

    Raises SettingsError. The other keys are checked by `engine.settings.resolve`.
    """
    settings = dict(values)
    styles = settings.pop("style", [])
    styles = [styles] if isinstance(styles, str) else styles
    if not isinstance(styles, list) or not all(isinstance(style, str) for style in styles):
        raise SettingsError(
            f"{printable(name)}: style must be the name of a style in the library, or a list of names"
        )
    priority = settings.pop("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > 1000:
        raise SettingsError(
            f"{printable(name)}: priority must be a whole number from -1000 to 1000"
        )
    return Sidecar(tuple(styles), priority, settings)
