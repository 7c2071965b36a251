"""When the daemon paints."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from nst_daemon import active_hours
from nst_daemon.config import Service, load
from nst_daemon.errors import ConfigError
from nst_daemon.jobs import JobState
from nst_daemon.service.live_status import LiveStatus
from tests.bench import Bench

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    """Seconds since the epoch of a local time; 2027-01-04 is a Monday."""
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("moment", "active"),
    [
        ("2027-01-04T21:59:59", False),
        ("2027-01-04T22:00", True),
        ("2027-01-05T05:59", True),
        ("2027-01-05T06:00", False),
        ("2027-01-09T05:59", True),  # Saturday morning belongs to Friday night
        ("2027-01-09T22:00", False),
        ("2027-01-10T08:00", True),  # Sunday
        ("2027-01-11T00:30", False),  # Sunday night is not named
    ],
)
def test_windows_belong_to_the_day_they_begin_on(moment: str, active: bool) -> None:
    """A night of Mon-Fri ends on Saturday morning, and does not begin on Sunday."""
    found = active_hours.parse("Mon-Fri 22:00-06:00, sun 8:00-24:00 Europe/Berlin")
    assert found.active(at(moment)) is active


def test_the_week_is_a_ring() -> None:
    """A window that begins on Sunday night reaches into Monday, and days may be counted over the weekend."""
    found = active_hours.parse("Sat-Mon 22:00-06:00 Europe/Berlin")
    assert found.active(at("2027-01-11T05:00"))
    assert found.active(at("2027-01-12T05:00"))
    assert not found.active(at("2027-01-13T05:00"))


@pytest.mark.parametrize(
    ("night", "hours_long"),
    [("2027-03-27T22:00", 7), ("2027-10-30T22:00", 9), ("2027-06-05T22:00", 8)],
)
def test_a_night_that_the_clock_is_set_on(night: str, hours_long: int) -> None:
    """22:00 to 06:00 lasts seven hours in March's night, nine in October's, and begins and ends on the wall's clock."""
    found = active_hours.parse("22:00-06:00 Europe/Berlin")
    begin = at(night)
    end = begin + hours_long * 3600
    assert [found.active(t) for t in (begin - 60, begin, end - 60, end)] == [
        False,
        True,
        True,
        False,
    ]
    change = found.change(begin)
    assert change is not None
    assert change.timestamp() == end
    assert (change.hour, change.minute) == (6, 0)


def test_always_and_never_changing() -> None:
    """No text means always; a window of the whole week never changes."""
    assert active_hours.parse("").active(0)
    assert active_hours.parse("00:00-24:00 UTC").change(0) is None


@pytest.mark.parametrize(
    "text",
    ["22-6", "Mon 25:00-26:00", "Montag 22:00-06:00", "22:00-06:00 Mars/Olympus", "22:00-22:00",
     "22:00-06:00 ../../etc/passwd", "Europe/Berlin", "Mon-Fri"],
)  # fmt: skip
def test_what_is_no_window(text: str) -> None:
    """What cannot be understood is refused, with an example."""
    with pytest.raises(ConfigError, match="write, for example"):
        active_hours.parse(text)


def test_in_the_morning_the_devices_are_let_go(tmp_path: Path) -> None:
    """Outside of its hours the daemon takes files in and stops its workers; in the evening the same job goes on."""
    # The bench's clock begins at 03:33:20 UTC.
    bench = Bench(tmp_path, service=Service(active_hours="22:00-03:34 UTC"))
    bench.drop("dog")
    assert [task.name for task in bench.executor.tasks] == ["dog"]
    bench.step(60)
    assert not bench.executor.started
    assert bench.job().state is JobState.QUEUED
    assert bench.job().attempts == 0, "an interruption is no attempt"
    live = LiveStatus.read(bench.folders.status)
    assert live is not None
    assert (live.state, live.reason) == ("resting", "until Wed 22:00 UTC")
    assert live.headline.startswith("outside active hours: until Wed 22:00 UTC")
    bench.drop("cat")
    assert [job.state for job in bench.ledger.jobs()] == [JobState.QUEUED] * 2
    assert bench.executor.tasks == []
    bench.step(18.5 * 3600)
    assert bench.executor.started
    assert {task.name for task in bench.executor.tasks} == {"dog", "cat"}


def test_once_paints_at_any_time(tmp_path: Path) -> None:
    """Whoever asks for `once` gets it, whatever the hours are."""
    bench = Bench(tmp_path, service=Service(active_hours="22:00-23:00 UTC"))
    bench.drain = True
    bench.begin()
    bench.drop()
    assert len(bench.executor.tasks) == 1


def test_hours_are_checked_with_the_configuration() -> None:
    """A window that makes no sense is refused at the start, and not at night."""
    with pytest.raises(ConfigError, match="active_hours"):
        load(None, {"NST_SERVICE__ACTIVE_HOURS": "'22:00 to 06:00'"})
