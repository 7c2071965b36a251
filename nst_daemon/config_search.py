"""Which configuration file is read, and why.

`--config` or $NST_CONFIG names a file, or a folder that contains one. Otherwise the first of the usual files is read.
Many programs have a file called config.yaml: one in the current folder is read only if it has a key of ours.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nst_daemon import strict_yaml
from nst_daemon.errors import ConfigError, SettingsError
from nst_daemon.names import printable
from nst_daemon.suggestions import similar
from nst_daemon.variables import CONFIG_FILE

#: The names of a configuration file in a folder, the preferred one first.
NAMES = ("nst-daemon.yaml", "config.yaml")
#: The name that many programs use.
SHARED_NAME = "config.yaml"
#: The folder of the configuration of services.
SYSTEM = Path("/etc/nst-daemon")
#: The files that are tried, in this order, if no configuration file is named.
SEARCH = (*map(Path, NAMES), SYSTEM / SHARED_NAME)

_TOP_LEVEL_KEY = re.compile(r"""^["']?([A-Za-z_][\w-]*)["']?[ \t]*:(?:\s|$)""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that was looked for. outcome: "read", "missing", or why it is ignored or not needed."""

    path: Path
    outcome: str


@dataclass(frozen=True, slots=True)
class FileSearch:
    """The result of a search.

    Attributes:
        path: The file to read, or None to use the defaults.
        reason: Why this one: "named by --config".
        named: Whether --config or $NST_CONFIG names it.
        candidates: The files that were looked for.
        warning: One line about files that look like a configuration and are ignored; "" for none.
    """

    path: Path | None
    reason: str
    named: bool
    candidates: tuple[Candidate, ...] = ()
    warning: str = ""

    def outcome(self, path: Path) -> str:
        """The outcome for a file that was looked for."""
        return next(c.outcome for c in self.candidates if c.path == path)


def search(
    named: Path | None,
    environ: Mapping[str, str],
    usual: Sequence[Path],
    keys: Collection[str],
) -> FileSearch:
    """Find the configuration file.

    Args:
        named: The file or folder of `--config`.
        environ: The environment variables.
        usual: The files to try if none is named.
        keys: The top-level keys of a configuration.

    Raises:
        ConfigError: The named file does not exist.
    """
    variable = environ.get(CONFIG_FILE)
    if named or variable:
        path = _in_folder(named or Path(str(variable)))
        reason = "named by --config" if named else f"named by ${CONFIG_FILE}"
        return FileSearch(path, reason, True, (Candidate(path, "read"),))
    candidates: list[Candidate] = []
    warnings: list[str] = []
    found: Path | None = None
    for path in usual:
        outcome = "not needed" if found else _outcome(path, keys)
        if outcome == "read":
            found = path
        elif outcome not in {"missing", "not needed"}:
            shown = f"./{path}" if not path.is_absolute() else str(path)
            warnings.append(f"{shown} {outcome}")
        candidates.append(Candidate(path, outcome))
    reason = "the first file that exists" if found else "no file exists"
    return FileSearch(found, reason, False, tuple(candidates), "; ".join(warnings))


def read(path: Path) -> tuple[dict[str, Any], str]:
    """The mapping in a configuration file, and its text. Raises ConfigError."""
    label = printable(str(path))
    try:
        if path.is_fifo() and path.parts[1:2] != ("dev",):  # `--config <(…)` is /dev/fd/63
            raise ConfigError(f"{label} is a named pipe", remedy="name a regular file")
        with path.open("rb") as file:
            data = file.read(strict_yaml.MAX_BYTES + 1)
        return strict_yaml.parse_mapping(data, str(path)), data.decode("utf-8-sig")
    except OSError as error:
        denied = isinstance(error, PermissionError)
        remedy = "check its permissions" if denied or _is_file(path) else "name a regular file"
        raise ConfigError(f"{label} cannot be read: {error.strerror}", remedy=remedy) from error
    except SettingsError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            raise ConfigError(f"{label} is not a text file", remedy="name a YAML file") from error
        raise ConfigError(error.message, remedy=error.remedy) from error


def _in_folder(path: Path) -> Path:
    """The file, or the configuration file in a folder. Raises ConfigError."""
    label = printable(str(path))
    if not os.path.lexists(path):
        raise ConfigError(
            f"the configuration file {label} does not exist",
            remedy="name an existing file, or none to use the defaults",
        )
    if not path.is_dir():
        return path
    for name in NAMES:
        if os.path.lexists(path / name):
            return path / name
    raise ConfigError(
        f"the folder {label} has no {' or '.join(NAMES)}",
        remedy="name a configuration file, or make one with `nst-daemon init`",
    )


def _outcome(path: Path, keys: Collection[str]) -> str:
    """ "read", "missing", or why the file is ignored."""
    try:
        status = path.stat()
    except PermissionError:
        # Another user's folder. A file of the system that this user may not read would hold other settings.
        return "read" if path.is_absolute() else "missing"
    except OSError:
        return "missing"
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        return f"is ignored: it is {kind}"
    return _foreign(path, keys) if path.name == SHARED_NAME and path.parent != SYSTEM else "read"


def _foreign(path: Path, keys: Collection[str]) -> str:
    """ "read" for a file that has a key of ours, is empty or cannot be read; otherwise why it is ignored."""
    try:
        with path.open("rb") as file:
            data = file.read(strict_yaml.MAX_BYTES + 1)
    except OSError:
        return "read"  # It may be ours. The error names it.
    written = _top_level_keys(data)
    if written is None or set(written) & set(keys):
        return "read"
    close = [
        f"{w}: did you mean {s[0]}?" for w in written[:20] if (s := similar(w, keys, cutoff=0.8))
    ]
    hint = f" ({printable(close[0])})" if close else ""
    return f"is ignored: it has no key of nst-daemon{hint}; to use it, name it with --config"


def _top_level_keys(data: bytes) -> list[str] | None:
    """The keys that a file seems to have, also if it is no valid YAML; None for an empty one."""
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
    try:
        value = strict_yaml.parse(text, "")
    except SettingsError:
        return list(dict.fromkeys(_TOP_LEVEL_KEY.findall(text)))
    if value is None:
        return None
    return [key for key in value if isinstance(key, str)] if isinstance(value, dict) else []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
