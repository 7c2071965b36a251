"""The paths of the configuration: relative ones become absolute."""

from __future__ import annotations

import re
from pathlib import Path

from nst_daemon.errors import ConfigError, first_line
from nst_daemon.names import printable


def base_of(source: Path | None) -> Path:
    """The folder of relative paths: that of the file, or the current one; relative if that was removed."""
    try:
        return source.resolve().parent if source else Path.cwd()
    except OSError:
        return Path()


def located(base: Path, path: Path, key: str, *, resolve: bool = False) -> Path:
    """The absolute path, on request without symbolic links. Raises ConfigError."""
    try:
        found = base / path.expanduser()
        if not found.is_absolute():
            raise ValueError("the current folder no longer exists")
        found = found.resolve() if resolve else found
    except (OSError, RuntimeError, ValueError) as error:
        # RuntimeError: ~ without a home, or a loop of links.
        raise ConfigError(
            f"{key}: {printable(str(path))}: {first_line(error)}", remedy="write an absolute path"
        ) from error
    if re.search("[\ud800-\udfff]", str(found)):
        # The ledger, messages to workers and pages hold paths as UTF-8.
        raise ConfigError(
            f"{key}: {printable(str(found))} is not UTF-8", remedy="rename it, or choose another"
        )
    return found
