"""What is said about the jobs that have ended."""

from __future__ import annotations

import pytest

from nst_daemon.jobs import JobState
from nst_daemon.service.completion import ended_jobs


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        ({JobState.FAILED: 9}, "9 jobs failed"),
        ({JobState.CANCELLED: 1}, "1 job cancelled"),
        ({JobState.DONE: 1}, "1 picture painted"),
        ({JobState.FAILED: 1, JobState.DONE: 1200}, "1,200 painted, 1 failed"),
    ],
)
def test_the_end_of_once_counts_jobs(ended: dict[JobState, int], text: str) -> None:
    """A single state names its unit; several are a list of numbers."""
    assert ended_jobs(ended) == text
