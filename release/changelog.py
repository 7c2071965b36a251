"""The sections of CHANGELOG.md, which has the form of Keep a Changelog."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

UNRELEASED = "Unreleased"
#: The headings of changes within a section.
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


@dataclass(frozen=True)
class Section:
    """One version.

    Attributes:
        name: The version, or "Unreleased".
        date: As it is written; empty if there is none.
        text: What is below the heading.
    """

    name: str
    date: str
    text: str


def sections(text: str) -> Iterator[Section]:
    """The sections of a changelog, newest first: `## [1.2.3] - 2026-12-31` or `## [Unreleased]`."""
    headings = list(re.finditer(r"(?m)^## \[([^]\n]+)\](?: - (\S+))?$", text))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        end = following.start() if following else len(text)
        yield Section(heading[1], heading[2] or "", text[heading.end() : end].strip())


def section_of(version: str, text: str) -> Section:
    """The section of a version that is about to be released.

    Args:
        version: such as 1.2.3.
        text: the changelog.

    Raises:
        ValueError: It is missing, has no date or no entry, or is not the newest.
    """
    found = [section for section in sections(text) if section.name != UNRELEASED]
    if version not in [section.name for section in found]:
        raise ValueError(
            f"CHANGELOG.md has no section of {version}; write `## [{version}] - YYYY-MM-DD` below `## [{UNRELEASED}]`"
        )
    newest = found[0]
    if newest.name != version:
        raise ValueError(
            f"CHANGELOG.md has {newest.name} above {version}; the newest section is released"
        )
    try:
        date.fromisoformat(newest.date)
    except ValueError:
        raise ValueError(
            f"CHANGELOG.md: the date of {version} is {newest.date or 'missing'}; write it as YYYY-MM-DD"
        ) from None
    if not re.search(r"(?m)^- ", newest.text):
        raise ValueError(f"CHANGELOG.md has no entry below {version}; move them there")
    return newest
