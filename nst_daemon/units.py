"""Times, durations, sizes, rates and counts in messages, each written in one way everywhere."""

from __future__ import annotations

import math
import re
import time

#: Seconds of each unit of a duration that people write.
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)", re.IGNORECASE)
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def when(seconds: float) -> str:
    """A local date and time, from seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def parse_duration(text: str) -> float | None:
    """The seconds of a text such as `90s`, `5m`, `1.5h`, `7d` or `2w`; None for other texts."""
    match = _DURATION.fullmatch(text.strip())
    unit = SECONDS.get(match[2].lower()) if match else None
    return float(match[1]) * unit if match and unit else None


def duration(seconds: float) -> str:
    """A rounded duration: 0.5 s, 42 s, 2 min 30 s, 45 min, 3 h 05 min, 12 days."""
    if seconds < 9.95:
        return f"{round(max(0.0, seconds), 1):g} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 600:
        return _two(whole, 60, "min", "s")
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return _two(minutes, 60, "h", "min")
    return f"{minutes // (24 * 60)} days"


def _two(number: int, base: int, large: str, small: str) -> str:
    whole, rest = divmod(number, base)
    return f"{whole} {large} {rest:02} {small}" if rest else f"{whole} {large}"


def size(number: float, *, up: bool = False) -> str:
    """A number of bytes, rounded down or up: 812 bytes, 9.5 MiB, 512 MiB, 1.5 GiB."""
    if number < 1024:
        return count(int(number), "byte")
    power = min(int(math.log2(number) // 10), len(_UNITS))
    value = number / 1024**power
    digits = 10 if value < 100 else 1
    value = (math.ceil if up else math.floor)(value * digits) / digits
    return f"{value:,g} {_UNITS[power - 1]}"


def rate(per_second: float) -> str:
    """A number of iterations in a second with two digits: 0.42 it/s, 1.4 it/s, 120 it/s."""
    return f"{per_second:.0f} it/s" if per_second >= 10 else f"{per_second:.2g} it/s"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 picture, 1,204 pictures."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
