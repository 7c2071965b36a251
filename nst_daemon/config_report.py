"""What the commands for configuration and settings print: values, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ByteSize

from nst_daemon.config import Config, Examined, config_keys
from nst_daemon.config_problems import ConfigKey
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import resolve
from nst_daemon.pictures.output_formats import OUTPUT_KEYS

MASKED = "********"
#: The settings that some preset sets.
_OF_PRESETS = frozenset(
    key for p in PRESETS.values() for part in (p.settings, p.bare, p.calibrated) for key in part
)


@dataclass(frozen=True, slots=True)
class KeyValue:
    """The value of a key. origin: "default", "preset bold", FILE:LINE or a variable."""

    key: ConfigKey
    value: Any
    origin: str

    @property
    def line(self) -> str:
        """The entry in YAML, without its section."""
        return f"{self.key.name.rpartition('.')[2]}: {as_yaml(self.value)}"

    def as_json(self) -> dict[str, Any]:
        """The entry for JSON."""
        return {"value": plain(self.value), "origin": self.origin}


def entries(examined: Examined, config: Config) -> dict[str, KeyValue]:
    """The effective value of every key by its dotted name. Secrets are masked."""
    render = config.render_settings()
    found = {}
    for name, key in config_keys().items():
        section, _, leaf = name.rpartition(".")
        origin = examined.origins.setter(tuple(name.split(".")))
        if section == "render":
            value = getattr(render, leaf)
            if leaf == "content_style_ratio":  # resolved settings have it as content_weight
                value = config.render.get(leaf)
            origin = origin if leaf in config.render else ""
            origin = origin or (f"preset {render.preset}" if leaf in _OF_PRESETS else "")
        else:
            value = getattr(getattr(config, section) if section else config, leaf)
        value = MASKED if key.secret and value else value
        found[name] = KeyValue(key, value, origin or "default")
    return found


def setting_keys() -> dict[str, ConfigKey]:
    """The keys of a job's settings, as `--set` takes them: the render settings, then format, depth and quality."""
    keys = config_keys()
    render = {n.partition(".")[2]: key for n, key in keys.items() if n.startswith("render.")}
    return render | {key: keys[f"outputs.{key}"] for key in OUTPUT_KEYS}


def preset_values(name: str) -> Mapping[str, object]:
    """The value of each render setting with a preset. Raises SettingsError."""
    settings = resolve({"preset": name})
    return {leaf: getattr(settings, leaf) for leaf in settings.__dataclass_fields__}


def as_yaml(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(
        plain(value), default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()


def _size(value: int) -> str | int:
    """A size in its largest unit that is exact: 4GiB, 1234567890."""
    if not value:
        return 0
    power = next(p for p in range(5, -1, -1) if value % 1024**p == 0)
    return (
        f"{value // 1024**power}{('', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power]}"
        if power
        else int(value)
    )


def plain(value: Any) -> Any:
    """A value as plain data: sizes with their unit, paths as text, tuples as lists."""
    if isinstance(value, ByteSize):
        return _size(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    return dict(value) if isinstance(value, Mapping) else value
