"""Write debian/changelog from CHANGELOG.md, for the version of a wheel: `make_changelog.py WHEEL FLAVOUR`."""

from __future__ import annotations

import re
import sys
import textwrap
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: A release: its version, and its date after it in any brackets.
_HEADING = re.compile(r"^## \[?([^\s\]]+)\]?(?:\W+(\d{4}-\d\d-\d\d)\W*)?$")


def debian_version(version: str, flavour: str) -> str:
    """The package's version: development and pre-release versions come before their release, as in Python.

    Args:
        version: the Python version, such as 0.2.0rc1 or 0.2.0.dev3+g123abcd.
        flavour: cpu or cuda.
    """
    public, _, local = version.partition("+")
    public = re.sub(r"\.?(dev|a|b|rc)(?=\d)", r"~\1", public)
    return "+".join(part for part in (public, local, flavour) if part)


def sections(text: str) -> list[tuple[str, str | None, list[str]]]:
    """The version, the date and the entries of each section of CHANGELOG.md, in its order."""
    found: list[tuple[str, str | None, list[str]]] = []
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            found.append((heading[1], heading[2], []))
        elif found and line.startswith("- "):
            found[-1][2].append(line[2:])
        elif found and line.startswith("  ") and found[-1][2]:
            found[-1][2][-1] += " " + line.strip()
    return found


def changelog(text: str, version: str, flavour: str, maintainer: str, now: datetime) -> str:
    """The text of debian/changelog.

    Args:
        text: CHANGELOG.md.
        version: the Python version that is packaged; if it is no release, it gets the entries that are in none.
        flavour: cpu or cuda.
        maintainer: name and address.
        now: the date of entries that have none.
    """
    found = sections(text)
    if version not in [name for name, _, _ in found]:
        found = [(version if name == "Unreleased" else name, date, e) for name, date, e in found]
    parts = []
    for name, date, entries in found:
        if name == "Unreleased" or not entries:
            continue
        when = datetime.fromisoformat(date).replace(tzinfo=UTC) if date else now
        lines = [f"nst-daemon ({debian_version(name, flavour)}) stable; urgency=medium", ""]
        for entry in entries:
            lines += textwrap.wrap(entry, 79, initial_indent="  * ", subsequent_indent="    ")
        lines += ["", f" -- {maintainer}  {format_datetime(when)}", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def main(wheel: str, flavour: str) -> None:
    """Write debian/changelog for a wheel, whose name contains the version."""
    version = Path(wheel).name.split("-")[1]
    (maintainer,) = re.findall(r"^Maintainer: (.+)$", (ROOT / "debian/control").read_text(), re.M)
    text = changelog(
        (ROOT / "CHANGELOG.md").read_text(), version, flavour, maintainer, datetime.now(UTC)
    )
    (ROOT / "debian/changelog").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
