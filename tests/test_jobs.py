"""The states of a job."""

from __future__ import annotations

import itertools

import pytest

from nst_daemon.jobs import TRANSITIONS, JobState

S = JobState


def reachable(start: JobState) -> set[JobState]:
    """Every state that moves can lead to."""
    found, todo = {start}, [start]
    while todo:
        for state in TRANSITIONS[todo.pop()] - found:
            found.add(state)
            todo.append(state)
    return found


def test_every_state_has_its_moves() -> None:
    """The table speaks of every state, and of no other."""
    assert set(TRANSITIONS) == set(S)
    assert set(itertools.chain(*TRANSITIONS.values())) <= set(S)


def test_every_state_can_be_reached_and_can_end() -> None:
    """From `claimed` every state can be reached, and from every state `done` or another end."""
    assert reachable(S.CLAIMED) == set(S)
    assert all(any(state.terminal for state in reachable(start)) for start in S)


@pytest.mark.parametrize("state", S)
def test_ends_are_left_only_by_a_retry(state: JobState) -> None:
    """What has ended goes nowhere by itself: `done` never, the others only back to the queue."""
    if state.terminal:
        assert TRANSITIONS[state] <= {S.QUEUED}
    assert TRANSITIONS[S.DONE] == frozenset()


def test_a_published_picture_is_never_taken_back() -> None:
    """Once the picture is in results/, the job can only be done."""
    assert TRANSITIONS[S.PUBLISHED] == {S.DONE}


def test_no_picture_without_an_attempt() -> None:
    """`staged` follows `running`, or the queue with the picture of another job; `published` follows `staged` alone."""
    assert [state for state in S if S.STAGED in TRANSITIONS[state]] == [S.QUEUED, S.RUNNING]
    assert [state for state in S if S.PUBLISHED in TRANSITIONS[state]] == [S.STAGED]
