"""Write config.yaml, with every key, its default and its help text, from the settings in the code: `make config`."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ByteSize

from nst_daemon.config import Config
from nst_daemon.engine.settings import RenderSettings

FILE = Path(__file__).parent.parent / "config.yaml"
WIDTH = 100

HEAD = """\
# Every setting of nst-daemon with its default. You can remove what you do not change.
# Unknown keys are refused. Relative paths are relative to this file.
# Keys written as `#key: value` show the preset's value; uncomment one to override it.
# Each key is also an environment variable: NST_SERVICE__SETTLE_SECONDS=5 sets service.settle_seconds.
# Text in a variable needs no quotes: NST_FOLDERS__ROOT=/srv/a #1. Text here that looks like a number does.
"""
RENDER = "The defaults of each job. styles/NAME.yaml, then NAME.yaml or job.yaml override them."
#: The keys that no preset sets.
PERSONAL = frozenset(
    [
        "preset",
        "size",
        "style_weights",
        "keep_colors",
        "keep_colors_when",
        "precision",
        "seed",
        "min_improvement",
        "deterministic",
    ]
)


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
    value = getattr(Config(), f.name)
    if f.name == "render":
        yield from comment(RENDER)
        yield "render:"
        yield from render()
    elif dataclasses.is_dataclass(value):
        yield from comment(type(value).__doc__ or "")
        yield f"{f.name}:"
        for key in dataclasses.fields(value):
            yield from comment(key.metadata["help"], indent="  ")
            yield f"  {key.name}: {as_yaml(getattr(value, key.name))}"
    else:
        yield from comment(f.metadata["help"])
        yield f"{f.name}: {as_yaml(value)}"


def render() -> Iterator[str]:
    """The lines of the `render` section."""
    for key in dataclasses.fields(RenderSettings):
        yield from comment(f"{key.metadata['help']} ({key.metadata['allowed']})", indent="  ")
        mark = "" if key.name in PERSONAL else "#"
        yield f"  {mark}{key.name}: {as_yaml(getattr(RenderSettings(), key.name))}"


def comment(text: str, indent: str = "") -> list[str]:
    """The text as wrapped comment lines."""
    return textwrap.wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_on_hyphens=False,
    )


def as_yaml(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, ByteSize):
        return value.human_readable().replace(".0", "")
    plain = value if isinstance(value, str | int | float | dict | None) else _plain(value)
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value)


if __name__ == "__main__":
    main()
