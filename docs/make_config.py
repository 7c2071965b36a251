"""Write config.yaml, with every key, its default and its help text, from the settings in the code: `make config`."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nst_daemon.config import Config, config_keys
from nst_daemon.config_report import as_yaml

FILE = Path(__file__).parent.parent / "config.yaml"
WIDTH = 100

HEAD = """\
# The settings of nst-daemon. Each key stands behind a # and shows its default. To change one, remove its # and edit
# the value; keys behind a # follow the defaults of the version that is installed. Unknown keys are refused.
# Relative paths are relative to this file.
# Each key is also an environment variable: NST_SERVICE__SETTLE_SECONDS=5 sets service.settle_seconds.
# Text in a variable needs no quotes: NST_FOLDERS__ROOT=/srv/a #1. Text here that looks like a number does.
"""
RENDER = (
    "The defaults of each job. styles/NAME.yaml, then NAME.yaml or job.yaml override them. A preset sets most of these "
    "keys: the values here are those of `painting`, and a key that is set here overrides every preset."
)


#: Descriptions of values that a default shows already.
OBVIOUS = frozenset(["true or false", "a path", "text"])


def main() -> None:
    """Write the file."""
    FILE.write_text(document(), encoding="utf-8")


def document() -> str:
    """The whole text of config.yaml."""
    sections = [
        "\n".join(section(f)) for f in dataclasses.fields(Config) if "internal" not in f.metadata
    ]
    return "\n".join([HEAD, "\n\n".join(sections), ""])


def section(f: dataclasses.Field[Any]) -> Iterator[str]:
    """The lines of one top-level key."""
    keys = {name: key for name, key in config_keys().items() if name.partition(".")[0] == f.name}
    if f.name not in keys:
        section = getattr(Config(), f.name)
        yield from comment(RENDER if f.name == "render" else type(section).__doc__ or "")
        yield f"{f.name}:"
    for name, key in keys.items():
        leaf = name.rpartition(".")[2]
        indent = "  " if leaf != name else ""
        allowed = "" if key.allowed in OBVIOUS else f" ({key.allowed})"
        yield from comment(key.help.removesuffix(".") + allowed, indent)
        yield f"{indent}#{leaf}: {as_yaml(key.default)}"


def comment(text: str, indent: str = "") -> list[str]:
    """The text as wrapped comment lines."""
    return textwrap.wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    main()
