"""Batch files: every content in every style with every combination of swept settings.

    contents: [holiday/*.jpg, portraits/**/*.png]    globs
    styles: [starry, paintings/*.jpg]                names of library styles, or globs
    settings: {size: 1024, format: tiff}             for all pictures
    sweep: {style_scale: [0.5, 1], seed: [1, 2, 3]}  each combination of these
    priority: -5

`expansion` turns a batch into requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nst_daemon import strict_yaml
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import InputError, SettingsError
from nst_daemon.files import unreadable
from nst_daemon.intake.drops import SETTINGS_SUFFIXES, checked_priority, stem_of, suffix_of
from nst_daemon.names import clean_name, printable
from nst_daemon.pictures.output_formats import OUTPUT_KEYS
from nst_daemon.suggestions import similar

SUFFIX = ".batch"


@dataclass(frozen=True, slots=True)
class Batch:
    """The contents of a batch file; see above. label: its printable name, for messages."""

    contents: tuple[str, ...]
    styles: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    priority: int = 0
    label: str = field(default="", kw_only=True)

    @property
    def combinations(self) -> int:
        """The number of combinations of swept values."""
        return math.prod(len(values) for values in self.sweep.values())


#: The keys of a batch file.
KEYS = tuple(key.name for key in fields(Batch) if key.name != "label")
#: The keys of `settings` and `sweep`.
_INNER_KEYS = frozenset(key.name for key in fields(RenderSettings)) | frozenset(OUTPUT_KEYS)


def read(path: Path) -> Batch:
    """Read a batch file that is named on the command line. Raises InputError."""
    try:
        with path.open("rb") as file:
            data = file.read(strict_yaml.MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(printable(str(path)), error) from error
    return parse(strict_yaml.parse_mapping(data, path.name), path.name)


def parse(values: Mapping[str, Any], name: str) -> Batch:
    """Check the mapping of a batch file. Raises SettingsError, which names the file and the key."""
    label = printable(name)
    if unknown := sorted(values.keys() - set(KEYS)):
        # `settings` may hold what a batch file does not.
        wrong = [key for key in unknown if key not in _INNER_KEYS]
        meant = [near for key in wrong for near in similar(key, KEYS)[:1]]
        hint = f" (did you mean {', '.join(meant)}?)" if meant else ""
        if inner := [key for key in unknown if key in _INNER_KEYS]:
            hint += f" ({', '.join(inner)}: write it into settings or sweep)"
        raise SettingsError(
            f"{label}: unknown keys: {', '.join(map(printable, unknown))}",
            remedy=f"allowed: {', '.join(KEYS)}{hint}",
        )
    sweep = values.get("sweep") or {}
    if not isinstance(sweep, dict) or not all(isinstance(v, list) and v for v in sweep.values()):
        raise SettingsError(f"{label}: sweep must map each setting to a list of values")
    for key, listed in sweep.items():
        if (again := repeated(listed)) is not None:
            raise SettingsError(
                f"{label}: {printable(str(key))} has the value {printable(str(listed[again]))} twice",
                remedy="remove one",
            )
    settings = values.get("settings") or {}
    if not isinstance(settings, dict):
        raise SettingsError(f"{label}: settings must be a mapping")
    if not all(isinstance(key, str) for key in (*settings, *sweep)):
        raise SettingsError(f"{label}: settings and sweep must have names of settings as keys")
    if both := settings.keys() & sweep.keys():
        raise SettingsError(
            f"{label}: {', '.join(map(printable, sorted(both)))} is in both settings and sweep",
            remedy="keep one of them",
        )
    return Batch(
        _words(values, "contents", label),
        _words(values, "styles", label),
        settings,
        {key: tuple(listed) for key, listed in sweep.items()},
        checked_priority(values.get("priority", 0), label),
        label=label,
    )


def repeated(values: Sequence[object]) -> int | None:
    """The position of the first value that equals an earlier one, also as 512 and "512"; None if there is none."""
    before: set[object] = set()
    for position, value in enumerate(values):
        plain = _number(value)
        key = plain if type(plain) in {int, float} else repr(plain)
        if key in before:
            return position
        before.add(key)
    return None


def _number(value: object) -> object:
    """The number that a text is; any other value as it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            return int(value)
        with suppress(ValueError):
            return float(value)
    return value


def _words(values: Mapping[str, Any], key: str, label: str) -> tuple[str, ...]:
    found = values.get(key)
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not found or not all(isinstance(w, str) for w in found):
        raise SettingsError(
            f"{label}: {key} must be a glob, or a list of them",
            remedy=f"for example {key}: ['*.jpg']",
        )
    if not all(word.strip() for word in found):
        raise SettingsError(
            f"{label}: {key} contains an empty name", remedy="remove it, or write a glob or a name"
        )
    return tuple(found)


def is_batch_file(name: str) -> bool:
    """Whether a file of this name in the inbox is a batch."""
    return suffix_of(name) in SETTINGS_SUFFIXES and stem_of(name).lower().endswith(SUFFIX)


def name_of(path: Path) -> str:
    """night.batch.yaml → night. Raises InputError for a file without a name before .batch.yaml."""
    stem = path.stem[: -len(SUFFIX)] if path.stem.lower().endswith(SUFFIX) else path.stem
    if reason := name_fault(stem, path.name):
        raise InputError(reason)
    return clean_name(stem)


def name_fault(stem: str, file: str) -> str:
    """Why a batch cannot be called `stem`, the beginning of the name of its file; "" if it can."""
    if stem.strip(" ."):
        return ""
    return f"{printable(file)!r} has no name before {SUFFIX}; rename it, for example to night{SUFFIX}.yaml"
