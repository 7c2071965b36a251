"""The hours in which the daemon paints: `Mon-Fri 22:00-06:00, Sat-Sun 00:00-24:00 Europe/Berlin`.

A window belongs to the day on which it starts, and may end on the next day. Times are local times, so a window that
contains a change to or from summer time is one hour shorter or longer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from nst_daemon.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
_DAYS = r"(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?"
_TIME = r"([01]?\d|2[0-4]):([0-5]\d)"
_WINDOW = re.compile(rf"(?:{_DAYS}\s+)?{_TIME}-{_TIME}", re.IGNORECASE)
EXAMPLE = "write, for example, Mon-Fri 22:00-06:00, or Sat-Sun 08:00-20:00 Europe/Berlin"


@dataclass(frozen=True, slots=True)
class Hours:
    """The parsed setting.

    Attributes:
        windows: Start and end of each window in minutes since Monday 00:00; the end is not included. Empty: always.
        zone: The time zone, or None for the system's.
    """

    windows: tuple[tuple[int, int], ...]
    zone: ZoneInfo | None

    def active(self, now: float) -> bool:
        """True if `now`, in seconds since the epoch, is inside a window."""
        if not self.windows:
            return True
        local = datetime.fromtimestamp(now, self.zone)
        minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
        # A window may reach from Sunday into Monday.
        return any(
            start <= m < end for start, end in self.windows for m in (minute, minute + WEEK_MINUTES)
        )

    def change(self, now: float) -> datetime | None:
        """The next time at which `active` changes, in local time; None if it never does."""
        state, minute = self.active(now), int(now // 60) * 60
        for later in range(minute + 60, minute + (WEEK_MINUTES + DAY_MINUTES) * 60, 60):
            if self.active(later) != state:
                return datetime.fromtimestamp(later, self.zone)
        return None


def parse(text: str) -> Hours:
    """Parse the setting; "" means always. Raises ConfigError."""
    text = text.strip()
    zone = None
    windows, _, last = text.rpartition(" ")
    if last[:1].isalpha():
        zone, text = _zone(last), windows
    found: list[tuple[int, int]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found += _windows(part)
    if zone and not found:
        raise _refusal(text)
    return Hours(tuple(found), zone)


def _windows(part: str) -> list[tuple[int, int]]:
    """One window for each day of a part such as `Mon-Fri 22:00-06:00`."""
    match = _WINDOW.fullmatch(part)
    if match is None:
        raise _refusal(part)
    first, last, *times = match.groups()
    first, last = (first or "mon").lower(), (last or first or "sun").lower()
    if first not in DAYS or last not in DAYS:
        raise _refusal(part)
    hour, minute, until_hour, until_minute = map(int, times)
    start, end = hour * 60 + minute, until_hour * 60 + until_minute
    if start >= DAY_MINUTES or end > DAY_MINUTES or start == end:
        raise _refusal(part)
    length = (end - start) % DAY_MINUTES or DAY_MINUTES
    begin = DAYS.index(first)
    number = (DAYS.index(last) - begin) % 7 + 1
    days = ((begin + i) % 7 for i in range(number))
    return [(day * DAY_MINUTES + start, day * DAY_MINUTES + start + length) for day in days]


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise _refusal(name) from error
    except KeyError as error:
        raise ConfigError(
            f"service.active_hours: this machine has no time zone {name!r}", remedy=EXAMPLE
        ) from error


def _refusal(text: str) -> ConfigError:
    return ConfigError(f"service.active_hours: {text!r} is not a time window", remedy=EXAMPLE)
