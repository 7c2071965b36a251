"""Whether each strange drop has exactly one outcome."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nst_daemon.config import Folders
from nst_daemon.intake.ignore import ignored
from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from nst_daemon.names import printable
from tests.torture.strange import Dropped, key_of

S = JobState


class OutcomeError(AssertionError):
    """Something that must not happen."""


def check_outcomes(
    folders: Folders, ledger: Ledger, dropped: Dropped, said: Callable[[str], bool]
) -> Counter[str]:
    """Check each file and each job; the figures.

    Args:
        folders: Of the root.
        ledger: Of the root; all jobs have ended.
        dropped: What was dropped.
        said: Whether the log has a line with this text.

    Raises:
        OutcomeError: A file is lost or doubled, was left in the inbox without a word, or a job has no outcome.
    """
    archived, left = Counter[str | int](), Counter[str | int]()
    for root in (folders.done, folders.failed):
        count(root, archived)
    for path in count(folders.inbox, left):
        parts = os.fsdecode(os.path.relpath(path, dropped.inbox_bytes)).split("/")
        if not _is_mentioned(parts, said):
            raise OutcomeError(f"left in the inbox without a word: {path!r}")
    for key in dropped.names.keys() - dropped.withdrawn:
        names = dropped.names[key]
        if archived[key] + left[key] < names:
            raise OutcomeError(f"lost: {key}")
        # What cannot be removed stays in the inbox, and the log says so.
        stays = said("files stay in failed/")
        if isinstance(key, str) and max(archived[key], left[key]) > names and not stays:
            raise OutcomeError(f"doubled: {key}")
    if left_over := [*folders.spool.iterdir(), *folders.stage.iterdir()]:
        raise OutcomeError(f"left over: {left_over}")
    return Counter({"left": sum(left.values())}) + check_jobs(folders, ledger)


def _is_mentioned(parts: list[str], said: Callable[[str], bool]) -> bool:
    """Whether a path below the inbox is ignored, or the log names it or counts it with others of its folder."""
    folder = printable("/".join(("inbox", *parts[:-1])))
    return any(
        ignored(part, folder=part is not parts[-1]) or said(printable(part))
        for part in reversed(parts)
    ) or any(
        said(f" in {where} stay where they are") for where in (folder, "other folders of the inbox")
    )


def check_jobs(folders: Folders, ledger: Ledger) -> Counter[str]:
    """Check that each job has a result or a reason; how many are in each state. Raises OutcomeError."""
    figures: Counter[str] = Counter()
    for job in ledger.jobs():
        figures[str(job.state)] += 1
        if job.state is S.QUARANTINED:
            raise OutcomeError(f"{job.name} is quarantined: {job.error}")
        if job.state is not S.DONE:
            if not (folders.failed / job.archive / "error.txt").read_text().strip():
                raise OutcomeError(f"{job.name} failed without a reason")
        elif not (folders.results / job.result).is_file():
            raise OutcomeError(f"{job.name} is done without a result")
    results = sum(1 for path in folders.results.rglob("*.png") if ".preview" not in path.parts)
    if figures["done"] != results:
        raise OutcomeError(f"{results} results of {figures['done']} jobs")
    return figures


def count(root: Path, found: Counter[str | int]) -> list[bytes]:
    """Count the files and links below a folder by their keys; their paths."""
    paths = []
    for top, folders, names in os.walk(os.fsencode(root)):
        for name in names + folders:
            path = os.path.join(top, name)
            if name in names or os.path.islink(path):
                with suppress(FileNotFoundError):
                    if (key := key_of(path)) is not None:
                        found[key] += 1
                        paths.append(path)
    return paths


def give_rights_back(inbox: bytes) -> None:
    """Let everybody see into each folder again."""
    for top, folders, _ in os.walk(inbox):
        for last in folders:
            path = os.path.join(top, last)
            if not os.path.islink(path):
                os.chmod(path, 0o755)
