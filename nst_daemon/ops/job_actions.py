"""Requests for several jobs at once: each that is possible is stored, and the others are listed with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nst_daemon import rights
from nst_daemon.config import Config
from nst_daemon.errors import NotFoundError, NstError, UsageError
from nst_daemon.intake import dropped
from nst_daemon.jobs import Changes, Job, JobState
from nst_daemon.ledger_reader import LedgerReader, Verb
from nst_daemon.names import printable
from nst_daemon.ops import requests, retry_check
from nst_daemon.ops.job_names import LISTED


@dataclass(slots=True)
class ActionOutcome:
    """What was requested.

    Attributes:
        requested: Jobs for which a request was stored, or which had been cancelled before.
        problems: Why the request is not possible for a job, by its id.
    """

    requested: list[Job] = field(default_factory=list)
    problems: dict[str, NstError] = field(default_factory=dict)


def act(
    config: Config,
    ledger: LedgerReader,
    verb: Verb,
    *,
    ids: Sequence[str] = (),
    states: Sequence[JobState] = (),
    batch: str = "",
    changes: Changes,
) -> ActionOutcome:
    """Store a request for each job for which it is possible.

    Args:
        config: The configuration.
        ledger: The ledger.
        verb: What is requested.
        ids: Of jobs.
        states: Also all jobs in these states for which the request is possible.
        batch: Only those of this batch; without states all of them.
        changes: For "retry", of the settings file; for "priority", the new one.

    Raises:
        StorageError: This user may not change the ledger.
    """
    rights.check_member(ledger.path, write=True)
    asked = requests.pending(ledger, None if states or batch else ids)
    outcome = ActionOutcome()
    chosen: dict[str, Job] = {}
    for job_id in ids:
        job = ledger.get(job_id)
        if job is None:
            outcome.problems[job_id] = _unknown(config, job_id)
        elif requests.possible(verb, job, asked.get(job_id, ())):
            chosen[job_id] = job
        else:
            outcome.problems[job_id] = requests.impossible(verb, job, config.folders.results)
    for job in _all_in(ledger, states, batch):
        if verb in requests.actions(job, asked.get(job.id, ())):
            chosen[job.id] = job
    if verb == "retry":
        outcome.problems |= retry_check.refused(config, ledger, list(chosen.values()), changes)
    outcome.requested = [job for job in chosen.values() if job.id not in outcome.problems]
    requests.store(ledger, verb, outcome.requested, changes)
    return outcome


def _unknown(config: Config, job_id: str) -> UsageError:
    """Why nothing can be requested for a job that is not in the ledger."""
    if found := dropped.get(config.folders.inbox, job_id):
        remedy = "try again in a few seconds, when the daemon has taken it"
        return UsageError(f"{printable(found.name)} is still in the inbox", remedy=remedy)
    return NotFoundError(f"there is no job {job_id}", remedy=LISTED)


def _all_in(ledger: LedgerReader, states: Sequence[JobState], batch: str) -> list[Job]:
    """The jobs in some states, of a batch if one is named."""
    if batch:
        return [job for job in ledger.batch(batch) if not states or job.state in states]
    return ledger.jobs(*states) if states else []


def changes_for(
    verb: Verb, written: Mapping[str, object], removed: Sequence[str], priority: int | None
) -> Changes:
    """The changes of a request. Raises UsageError for changes that do not belong to it."""
    if verb != "retry" and (written or removed):
        raise UsageError(f"{verb} does not change settings", remedy="leave them out")
    if verb in {"cancel", "delete"} and priority is not None:
        raise UsageError(f"{verb} does not change the priority", remedy="leave it out")
    if verb == "priority" and priority is None:
        raise UsageError("the new priority is missing", remedy="give a number")
    return retry_check.changes_of(written, removed, priority)
