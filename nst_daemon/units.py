"""Times, durations, sizes and rates for people, each written in one way everywhere."""

from __future__ import annotations

import time


def when(seconds: float) -> str:
    """A local date and time, from seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def span(seconds: float) -> str:
    """A rounded duration: 0.5 s, 42 s, 7 min, 3 h 05 min, 12 days."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(0.0, round(seconds, 1)):g} s" if seconds < 1 else f"{round(seconds)} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // (24 * 60)} days"


def size(number: float) -> str:
    """A rounded number of bytes: 512 MiB, 1.5 GiB."""
    return f"{number / 2**20:,.0f} MiB" if number < 2**30 else f"{number / 2**30:,.1f} GiB"


def rate(speed: float) -> str:
    """Iterations per second: 0.05 it/s, 1.4 it/s, 120 it/s."""
    return f"{speed:.2g} it/s" if speed < 10 else f"{speed:.0f} it/s"
