"""Jobs by what a person calls them: an id, the beginning of one, a name, or a pattern of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nst_daemon.errors import UsageError
from nst_daemon.jobs import ID_DIGITS, Job
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import composed, printable
from nst_daemon.suggestions import MOST, did_you_mean, question
from nst_daemon.units import when

#: What to do about an unknown job.
LISTED = "`nst-daemon history` lists names and ids"
#: Jobs that a message lists.
MOST_LISTED = 8
WILDCARDS = frozenset("*?[")


def find_job(ledger: LedgerReader, text: str) -> Job:
    """One job by its id, a prefix of its id, or its name; the newest of that name.

    Raises:
        UsageError: There is no such job, or several ids have this prefix.
    """
    return find_jobs(ledger, text, lambda job: False)[0]


def find_jobs(ledger: LedgerReader, text: str, wanted: Callable[[Job], bool]) -> list[Job]:
    """The jobs that a person means.

    Args:
        ledger: The ledger.
        text: An id, a prefix of one, a name, or a pattern of names with * and ?.
        wanted: Whether something can be done with a job. If jobs share a name, the others are not meant.

    Returns:
        One job, or for a pattern those that are wanted. The newest of a name if none is wanted.

    Raises:
        UsageError: There is no such job, or several jobs may be meant.
    """
    found = ledger.find(text) or ledger.find(composed(text))
    named = [job for job in found if job.name == composed(text) or job.name == text]
    if not found and WILDCARDS & set(text):
        matching = ledger.history(name=text, limit=-1)
        if not matching:
            raise UsageError(
                f"no job has a name like {printable(text)}",
                remedy="`nst-daemon history` lists names and ids",
            )
        return list(filter(wanted, matching)) or matching[:1]
    if not found:
        raise _unknown(ledger, text)
    if len(named) == 1 or (named and not any(map(wanted, named))):
        return named[:1]
    candidates = list(filter(wanted, named)) if named else found
    if len(candidates) > 1:
        what = (
            f"jobs are called {printable(text)}"
            if named
            else f"jobs have an id that begins with {printable(text)}"
        )
        raise UsageError(
            f"{len(candidates)} {what}: {_listed(candidates)}", remedy="name one of these ids"
        )
    return candidates


def _distinct_id(job: Job, others: Sequence[Job]) -> str:
    """The first digits of an id, as many as the ids of other jobs need."""
    digits = ID_DIGITS
    while any(o.id != job.id and o.id.startswith(job.id[:digits]) for o in others):
        digits += 1
    return job.id[:digits]


def _listed(jobs: Sequence[Job]) -> str:
    shown = [
        f"{_distinct_id(job, jobs)} ({printable(job.name)}, {job.state}, {when(job.updated)})"
        for job in jobs[:MOST_LISTED]
    ]
    more = f", and {len(jobs) - MOST_LISTED} more" if len(jobs) > MOST_LISTED else ""
    return ", ".join(shown) + more


def _unknown(ledger: LedgerReader, text: str) -> UsageError:
    wanted, names = composed(text), ledger.names()
    inside = [printable(name) for name in names if name.endswith(f"/{wanted}")]  # in a folder
    guess = question(inside[:MOST]) or did_you_mean(wanted, map(printable, names))
    return UsageError(
        f"there is no job {printable(text)}",
        remedy=guess or LISTED,
    )
