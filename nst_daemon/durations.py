"""Times with a unit: `2s`, `5m`, `1.5h`, `7d`."""

from __future__ import annotations

import re
from collections.abc import Callable

#: Seconds of each unit.
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)", re.IGNORECASE)


def seconds(text: str) -> float | None:
    """The seconds of a text such as `90s`, `5m`, `1.5h`, `7d` or `2w`; None for other texts."""
    match = _DURATION.fullmatch(text.strip())
    unit = UNITS.get(match[2].lower()) if match else None
    return float(match[1]) * unit if match and unit else None


def counted_in(unit: str) -> Callable[[object], object]:
    """A validator that turns a text with a unit into a number of `unit`; other values stay as they are."""

    def convert(value: object) -> object:
        found = seconds(value) if isinstance(value, str) else None
        return value if found is None else found / UNITS[unit]

    return convert
