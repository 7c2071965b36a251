"""When a file settles. There is no real clock here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.intake.settle import Arrival, Look, Settler
from nst_daemon.intake.steps import finish
from nst_daemon.jobs import Fingerprint

FILE = Fingerprint(ino=2, size=3, mtime_ns=4, ctime_ns=100 * 10**9)


def look(
    settler: Settler,
    now: float,
    mark: Fingerprint = FILE,
    *,
    arrival: Arrival = Arrival.COMPLETE,
    wall: float = 0.0,
) -> Look:
    """One look at one path."""
    return settler.look("dog.png", mark, lambda: arrival, now=now, wall=wall)


def test_one_look_is_never_enough() -> None:
    """A file that was seen once has not settled, whatever its own times say."""
    assert not look(Settler(0.0, 0.0), 10.0).settled


def test_two_looks_far_enough_apart_settle() -> None:
    """A file that is unchanged settles at the first look that comes settle_seconds after the first."""
    settler = Settler(2.0, 60.0)
    assert [look(settler, t).settled for t in (0.0, 1.9, 2.0)] == [False, False, True]


def test_each_part_of_the_fingerprint_counts() -> None:
    """A change of inode, size, mtime or ctime begins the wait anew."""
    for field in Fingerprint._fields:
        settler = Settler(2.0, 60.0)
        look(settler, 0.0)
        changed = FILE._replace(**{field: getattr(FILE, field) + 1})
        assert not look(settler, 2.0, changed).settled, field
        assert look(settler, 4.0, changed).settled, field


@pytest.mark.parametrize("arrival", [Arrival.INCOMPLETE, Arrival.OPEN])
def test_an_unfinished_file_waits_for_its_grace(arrival: Arrival) -> None:
    """A file that is incomplete or open for writing settles after truncated_grace and not after settle_seconds."""
    settler = Settler(2.0, 60.0)
    looks = [look(settler, t, arrival=arrival).settled for t in (0.0, 2.0, 59.9, 60.0)]
    assert looks == [False, False, False, True]


def test_a_file_settles_when_its_writer_has_closed_it() -> None:
    """A file that was open for writing settles at the first look after that, and stays settled."""
    settler = Settler(2.0, 60.0)
    arrivals = [Arrival.OPEN, Arrival.OPEN, Arrival.OPEN, Arrival.COMPLETE, Arrival.OPEN]
    looks = [look(settler, 2.0 * n, arrival=arrival).settled for n, arrival in enumerate(arrivals)]
    assert looks == [False, False, False, True, True]


def test_the_grace_is_never_shorter_than_the_wait_of_a_complete_file() -> None:
    """With a truncated_grace below settle_seconds, an unfinished file waits for settle_seconds."""
    settler = Settler(2.0, 0.0)
    looks = [look(settler, t, arrival=Arrival.INCOMPLETE).settled for t in (0.0, 1.9, 2.0)]
    assert looks == [False, False, True]


def test_completeness_is_asked_once_per_version() -> None:
    """However often a file is looked at, its contents are read once, and again after a change."""
    settler, asked = Settler(2.0, 60.0), []

    def read() -> Arrival:
        asked.append(1)
        return Arrival.INCOMPLETE

    for now in (0.0, 1.0, 2.0, 3.0, 4.0):
        settler.look("a", FILE, read, now=now, wall=0.0)
    assert len(asked) == 1
    for now in (5.0, 7.0, 9.0):
        settler.look("a", FILE._replace(size=9), read, now=now, wall=0.0)
    assert len(asked) == 2


def test_a_file_that_was_away_begins_anew() -> None:
    """A path that was missing in one scan has to be seen twice again."""
    settler = Settler(2.0, 60.0)
    look(settler, 0.0)
    finish(settler.forget_all_but(set()))
    assert not look(settler, 5.0).settled


def test_age_survives_a_restart() -> None:
    """The age at first sight is taken from the ctime, so a restart does not make a file younger."""
    assert look(Settler(2.0, 60.0), 0.0, wall=150.0).age == 50.0


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_a_clock_that_jumps_changes_nothing(jumps: list[float]) -> None:
    """However the wall clock is set while a file is watched, its age grows by monotonic seconds alone."""
    settler = Settler(2.0, 60.0)
    ages = [
        look(settler, float(t), wall=150.0 + jump * (t > 0)).age for t, jump in enumerate(jumps)
    ]
    assert ages == [50.0 + t for t in range(len(jumps))]


def test_a_ctime_in_the_future_is_now() -> None:
    """A file from the future is of age zero, not of a negative one."""
    assert look(Settler(2.0, 60.0), 0.0, wall=1.0).age == 0.0
