"""Jobs are found by what people call them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nst_daemon.errors import UsageError
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ops.job_names import find_job, find_jobs
from nst_daemon.ops.requests import possible, selected

S = JobState


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def add(ledger: Ledger, number: int, name: str, *states: JobState) -> Job:
    job = Job(f"{number:032x}", name, "pair", S.CLAIMED, (), number % 2**32, number % 2**32)
    ledger.add(job)
    for state in states:
        job = ledger.move(job.id, state, now=number % 2**32)
    return job


def retryable(job: Job) -> bool:
    return possible("retry", job)


def test_a_name_means_the_job_of_which_something_can_be_done(ledger: Ledger) -> None:
    """Of two jobs called dog the failed one is retried, although the other is newer."""
    failed = add(ledger, 1, "dog", S.FAILED)
    newest = add(ledger, 2, "dog", S.QUEUED)
    assert find_jobs(ledger, "dog", retryable) == [failed]
    assert find_job(ledger, "dog") == newest


def test_a_name_that_may_mean_several_jobs_lists_them(ledger: Ledger) -> None:
    """Two failed jobs of one name are listed with enough digits of their ids and their states."""
    for number in (1, 2):
        add(ledger, number, "dog", S.FAILED)
    with pytest.raises(UsageError, match="2 jobs are called dog") as caught:
        find_jobs(ledger, "dog", retryable)
    for number in (1, 2):
        assert f"{number:032x} (dog, failed, " in str(caught.value)
    with pytest.raises(UsageError, match="2 jobs have an id that begins with 0"):
        find_job(ledger, "0")


def test_patterns_name_several_jobs(ledger: Ledger) -> None:
    """A pattern means the jobs of which something can be done; a name with such characters is itself."""
    one, two = (add(ledger, n, f"night/{n}", S.FAILED) for n in (1, 2))
    done = add(ledger, 3, "night/3", S.QUEUED)
    starred = add(ledger, 4, "night/*", S.FAILED)
    assert find_jobs(ledger, "night/?", retryable) == [starred, two, one]
    assert find_jobs(ledger, "night/*", retryable) == [starred]
    assert find_jobs(ledger, "*3", retryable) == [done]
    with pytest.raises(UsageError, match=r"no job has a name like cat\*"):
        find_jobs(ledger, "cat*", retryable)


@pytest.mark.parametrize(
    ("text", "guess"), [("hokusia", "did you mean hokusai"), ("zzz", "history")]
)
def test_a_misspelt_name_is_guessed(ledger: Ledger, text: str, guess: str) -> None:
    """An unknown name is answered with the most similar one, or with the command that lists them."""
    add(ledger, 1, "hokusai", S.QUEUED)
    with pytest.raises(UsageError, match=f"there is no job {text}.*{guess}"):
        find_job(ledger, text)


def test_decomposed_names_are_found(ledger: Ledger) -> None:
    """A name typed on a Mac, with its accents apart, finds the job."""
    add(ledger, 1, "caf\u00e9", S.QUEUED)
    assert find_job(ledger, "cafe\u0301").name == "caf\u00e9"


def test_what_cannot_be_done_is_explained(ledger: Ledger, tmp_path: Path) -> None:
    """The message names rerun for a job with a picture, and cancel for one that has not ended."""
    done = add(ledger, 1, "dog", S.QUEUED, S.RUNNING, S.STAGED)
    ledger.move(done.id, S.PUBLISHED, now=1.0, result="my dog.png")
    ledger.move(done.id, S.DONE, now=1.0)
    add(ledger, 2 << 120, "cat", S.QUEUED)
    with pytest.raises(UsageError, match=r"rerun '.*/my dog\.png'"):
        selected(ledger, "retry", ["dog"], (), tmp_path)
    with pytest.raises(UsageError, match=r"cancel it first to change its settings$"):
        selected(ledger, "retry", ["cat"], (), tmp_path)
    with pytest.raises(UsageError, match=r"has ended already \(done\)"):
        selected(ledger, "cancel", ["dog"], (), tmp_path)
    assert len(selected(ledger, "cancel", ["cat", "02"], (S.QUEUED,), tmp_path)) == 1


def test_a_job_that_is_being_cancelled_can_be_retried(ledger: Ledger, tmp_path: Path) -> None:
    """A retry is accepted once the cancel was requested."""
    job = add(ledger, 1, "dog", S.QUEUED)
    ledger.request(job.id, "cancel", now=1.0)
    assert selected(ledger, "retry", ["dog"], (), tmp_path) == [job]


def test_a_name_inside_a_folder_is_suggested(ledger: Ledger) -> None:
    """The name of a picture without its hot folder is answered with the whole name."""
    add(ledger, 1, "monet/IMG_1", S.FAILED)
    with pytest.raises(UsageError, match=r"there is no job IMG_1; did you mean monet/IMG_1\?"):
        find_job(ledger, "IMG_1")
