"""Durations, sizes, rates and counts as people read them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from nst_daemon.units import count, duration, rate, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.5, "0.5 s"),
        (20.0, "20 s"),
        (9.97, "10 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (154, "2 min 34 s"),
        (599.7, "10 min"),
        (5400, "90 min"),
        (7200, "2 h"),
        (11_100, "3 h 05 min"),
        (10**6, "11 days"),
    ],
)
def test_durations_have_the_unit_and_the_digits_that_people_need(seconds: float, text: str) -> None:
    """A duration has one or two units, and no digits that do not matter."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "down", "up"),
    [
        (0, "0 bytes", "0 bytes"),
        (1, "1 byte", "1 byte"),
        (64 * 1024, "64 KiB", "64 KiB"),
        (2**28 + 1, "256 MiB", "257 MiB"),
        (1.55 * 2**30, "1.5 GiB", "1.6 GiB"),
        (79.44 * 2**30, "79.4 GiB", "79.5 GiB"),
        (3 * 2**50, "3,072 TiB", "3,072 TiB"),
    ],
)
def test_sizes_are_rounded_down_or_up(number: float, down: str, up: str) -> None:
    """What is free is rounded down and what is needed up, so that the two of one message differ."""
    assert (size(number), size(number, up=True)) == (down, up)


def test_rates_have_two_digits() -> None:
    """A speed has two digits, also one below 1 and one above 100."""
    assert [rate(r) for r in (0.0421, 1.4, 9.99, 123.4)] == [
        "0.042 it/s",
        "1.4 it/s",
        "10 it/s",
        "123 it/s",
    ]


def test_one_thing_is_singular() -> None:
    """Nouns are singular for 1 alone, and large numbers have commas."""
    assert [count(n, "job") for n in (0, 1, 1204)] == ["0 jobs", "1 job", "1,204 jobs"]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_pages_write_the_same_texts() -> None:
    """units.js of the pages gives the same texts as Python."""
    seconds = [0, 0.5, 9.97, 42, 119.4, 154, 599.7, 5400, 7200, 11_100, 10**6]
    sizes = [0, 812, 65536, 2**28 + 1, 1.55 * 2**30]
    rates = [0.0421, 1.4, 123.4]
    script = Path("nst_daemon/report/units.js").read_text()
    script += f"; console.log(JSON.stringify([{seconds}.map(duration), {sizes}.map(size), {rates}.map(rate)]))"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [
        [duration(s) for s in seconds],
        [size(s) for s in sizes],
        [rate(r) for r in rates],
    ]
