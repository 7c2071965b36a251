"""Originals that cannot be removed from the inbox: they are recognised, so that no job takes them again."""

from __future__ import annotations

import os
from dataclasses import replace

from nst_daemon import files
from nst_daemon.digests import sha256_stream
from nst_daemon.errors import InputError
from nst_daemon.intake import claim
from nst_daemon.intake.drops import Drop
from nst_daemon.jobs import Job, JobInput
from nst_daemon.service.state import State


class Unremovable:
    """Removes originals, and keeps a list in the ledger of those that stay.

    A file in the list is recognised by its contents after a change of its mode, owner, times or inode. Any other file
    with the contents of an earlier one is a new drop.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        #: The job that took a file, and the file as this job knows it, by the path below the inbox.
        self._known: dict[str, tuple[str, JobInput]] = state.ledger.unremovable()

    def job_of(self, drop: Drop) -> Job | None:
        """The job that has already taken this file of the inbox. Raises StorageError."""
        ledger = self._state.ledger
        job = ledger.claimed_before(drop.path, drop.fingerprint)
        job_id, file = self._known.get(drop.path, ("", None))
        if job is None and file is not None and self._is_same(file, drop):
            ledger.recognise(job_id, drop.path, drop.fingerprint)
            self._known[drop.path] = job_id, replace(file, fingerprint=drop.fingerprint)
            job = ledger.get(job_id)
        return job

    def remove(self, job: Job, *, keep: bool = False) -> list[str]:
        """Remove the originals of a job; see `claim.remove_originals`. Raises StorageError."""
        folders = self._state.folders
        problems = claim.remove_originals(job, folders.inbox, folders.spool, keep=keep)
        staying: list[JobInput] = []
        if problems:
            dropped = [file for file in job.inputs if file.fingerprint is not None]
            found = zip(dropped, claim.find_originals(job, folders.inbox), strict=True)
            staying = [file for file, original in found if original is claim.Original.SAME]
        listed = [file for file in job.inputs if self._known.get(file.origin, ("",))[0] == job.id]
        if staying or listed:
            self._state.ledger.mark_unremovable(job.id, [file.origin for file in staying])
            for file in listed:
                del self._known[file.origin]
            self._known.update({file.origin: (job.id, file) for file in staying})
        return problems

    def forget_removed(self) -> None:
        """Take files from the list that are gone, so that a file that comes in their place is a new drop."""
        inbox = self._state.folders.inbox
        for path in [path for path in self._known if not os.path.lexists(inbox / path)]:
            job_id, _ = self._known.pop(path)
            others = [other for other, (owner, _) in self._known.items() if owner == job_id]
            self._state.ledger.mark_unremovable(job_id, others)

    def _is_same(self, file: JobInput, drop: Drop) -> bool:
        """Whether a file has the contents that it had; the modification time decides where they were never read."""
        now, before = drop.fingerprint, file.fingerprint
        if before is None or now.size != before.size:
            return False
        if not file.sha256:
            return now.mtime_ns == before.mtime_ns
        limit = self._state.config.limits.max_bytes
        try:
            with files.folder_of(self._state.folders.inbox, drop.path) as (folder, name):
                descriptor, status = files.open_regular(name, folder, limit)
                with os.fdopen(descriptor, "rb") as stream:
                    return files.fingerprint(status) == now and sha256_stream(stream) == file.sha256
        except (OSError, InputError):
            return False
