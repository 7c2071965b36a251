"""Checks and conversions of command-line arguments: `--set KEY=VALUE` and output files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nst_daemon import strict_yaml
from nst_daemon.errors import SettingsError, UsageError
from nst_daemon.names import printable
from nst_daemon.pictures.output_formats import format_of_file, named_format


def assignments(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ["tv_weight=0.1"] as {"tv_weight": 0.1}; values are YAML.

    Raises:
        UsageError: A pair is not KEY=VALUE, or its value is not valid.
    """
    out = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {pair} is not KEY=VALUE", remedy="for example --set seed=3")
        try:
            out[key] = strict_yaml.parse(value, f"--set {key}")
        except SettingsError as error:
            raise UsageError(error.message, remedy="write a number, a word or [a, list]") from error
    return out


def with_output_file(settings: Mapping[str, object], path: Path) -> dict[str, object]:
    """Settings with the picture format that a file's suffix means.

    Raises:
        UsageError: The suffix means no format, or another one than the settings.
    """
    known = format_of_file(path, or_else=f", or {printable(str(path))}/ for a folder")
    asked = settings.get("format", known.name)
    if named_format(asked) != known.name:
        raise UsageError(
            f"{path} has the suffix of {known.title}, and the settings ask for the format {asked}",
            remedy="remove one of them",
        )
    return {**settings, "format": known.name}
