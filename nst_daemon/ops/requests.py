"""Requests to the daemon about jobs. They are stored in the ledger; only the daemon changes a job."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

from nst_daemon import rights
from nst_daemon.config import Folders
from nst_daemon.errors import InputError, UsageError
from nst_daemon.jobs import NO_CHANGES, TRANSITIONS, Changes, Job, JobState
from nst_daemon.ledger_reader import LedgerReader, Verb
from nst_daemon.names import printable
from nst_daemon.ops.job_names import find_jobs

S = JobState
#: States of jobs that no worker has.
QUEUED = (S.CLAIMED, S.QUEUED, S.RETRYING)
#: Requests that are stored together.
AT_ONCE = 1000
UNFINISHED = tuple(state for state in JobState if not state.terminal)


def selected(
    ledger: LedgerReader,
    verb: Verb,
    named: Sequence[str],
    states: Sequence[JobState],
    results: Path,
) -> list[Job]:
    """The jobs that are named or in one of the states, each once.

    Args:
        ledger: The ledger.
        verb: What is requested.
        named: Ids, prefixes of ids, names or patterns.
        states: Of jobs that need no name. Jobs that were deleted are left out.
        results: The folder of results, for messages.

    Raises:
        StorageError: This user may not change the ledger.
        UsageError: A name matches no job or several, or the request is not possible for a job.
    """
    rights.check_member(ledger.path, write=True)
    asked = pending(ledger)

    def wanted(job: Job) -> bool:
        return possible(verb, job, asked.get(job.id, ())) and not done_before(verb, job)

    jobs = [job for text in named for job in find_jobs(ledger, text, wanted)]
    jobs += [job for job in ledger.jobs(*states) if not job.deleted] if states else []
    for job in jobs:
        if not possible(verb, job, asked.get(job.id, ())):
            raise impossible(verb, job, results)
    return list({job.id: job for job in jobs}.values())


def pending(ledger: LedgerReader, job_ids: Sequence[str] | None = None) -> dict[str, list[Verb]]:
    """The requests that the daemon has not handled yet, in order, by the job's id. job_ids: of these; None for all."""
    found: dict[str, list[Verb]] = {}
    for job_id, verb in ledger.pending_verbs(job_ids):
        found.setdefault(job_id, []).append(verb)
    return found


def possible(verb: Verb, job: Job, asked: Sequence[Verb] = ()) -> bool:
    """Whether something can be requested for a job. What was done before can be requested again, and is not done.

    Args:
        verb: The request.
        job: As the ledger has it.
        asked: Requests that the daemon has not handled yet. A job that will be cancelled can be retried and deleted.
    """
    if verb == "retry":
        retried = bool(job.state.terminal and TRANSITIONS[job.state] and not job.deleted)
        return (retried or "cancel" in asked) and "delete" not in asked
    if verb == "delete":
        return job.state.terminal or "cancel" in asked
    return not job.state.terminal or done_before(verb, job)


def done_before(verb: Verb, job: Job) -> bool:
    """Whether a job was cancelled or deleted before, so that requesting it again does nothing."""
    return job.state is S.CANCELLED if verb == "cancel" else verb == "delete" and job.deleted


def actions(job: Job, asked: Sequence[Verb] = ()) -> list[Verb]:
    """What is useful to request for a job now. For the arguments see `possible`."""
    if "delete" in asked:
        return []
    useless = set(asked) - {"priority"}
    return [
        verb
        for verb in get_args(Verb)
        if verb not in useless and possible(verb, job, asked) and not done_before(verb, job)
    ]


def store(
    ledger: LedgerReader, verb: Verb, jobs: Sequence[Job], changes: Changes = NO_CHANGES
) -> None:
    """Store a request for each job, unless it was done before.

    Args:
        ledger: The ledger.
        verb: What is requested.
        jobs: Those of `selected`.
        changes: For a retry, of the settings; for a priority, `priority_of`.
    """
    ids = [job.id for job in jobs if not done_before(verb, job)]
    for begin in range(0, len(ids), AT_ONCE):  # the daemon may write in between
        part = ids[begin : begin + AT_ONCE]
        ledger.request_all(part, verb, now=time.time(), changes=changes)


def priority_of(priority: int) -> Changes:
    """The changes of a request for a priority."""
    return Changes({"priority": priority})


def check_not_deleted(folders: Folders, result: Path) -> None:
    """Raise InputError if a result is not there because its files were deleted by request.

    Args:
        folders: The folders of the root.
        result: A path in results/, of a picture or its sidecar.
    """
    if result.exists() or not folders.ledger.exists():
        return
    with suppress(ValueError):
        name = str(result.absolute().relative_to(folders.results.absolute()).with_suffix(""))
        with LedgerReader.attach(folders.ledger) as ledger:
            # Publishing may have numbered the name.
            found = [*ledger.find(name), *ledger.find(re.sub(r"-\d+$", "", name))]
        if any(job.deleted for job in found):
            raise InputError(
                f"{printable(str(result))} was deleted by request, with its inputs",
                remedy="drop its pictures again",
            )


def impossible(verb: Verb, job: Job, results: Path) -> UsageError:
    """Why something cannot be requested for a job. results: the folder of results."""
    name = f"{printable(job.name)} ({job.short_id})"
    if verb == "cancel":
        return UsageError(f"{name} has ended already ({job.state}): there is nothing to cancel")
    if verb == "priority":
        return UsageError(f"{name} has ended already ({job.state}): it is not in the queue")
    if verb == "delete":
        return UsageError(
            f"{name} has not ended ({job.state}); only the files of a job that has ended can be deleted",
            remedy="cancel it first",
        )
    if job.state is S.DONE and not job.deleted:
        picture = shlex.quote(printable(str(results / job.result)))
        return UsageError(
            f"{name} is done; only a job without a picture can be retried",
            remedy=f"paint it again on the page, or with `nst-daemon rerun {picture}`",
        )
    if job.state.terminal:
        when = "were" if job.deleted else "are being"
        return UsageError(
            f"the files of {name} {when} deleted by request", remedy="drop its pictures again"
        )
    return UsageError(
        f"{name} has not ended ({job.state}); only a job that has ended can be retried",
        remedy="cancel it first to change its settings",
    )
