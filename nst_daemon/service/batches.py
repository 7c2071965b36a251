"""Batches on their way into the ledger: a batch file or a command asks for many pictures, admitted a few at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from nst_daemon.config import Config
from nst_daemon.errors import InputError, ModelError, PathError
from nst_daemon.intake import batch as batches
from nst_daemon.intake import claim
from nst_daemon.intake.drops import Drop, Rejection, Request
from nst_daemon.intake.expansion import Expansion, Reach
from nst_daemon.intake.globs import describe
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.intake.walk import read_settings
from nst_daemon.job_settings import job_outputs, resolve_job
from nst_daemon.jobs import Job, JobState
from nst_daemon.service.completion import Completion
from nst_daemon.service.containment import contained
from nst_daemon.service.reuse import same_file
from nst_daemon.service.state import Moment, State
from nst_daemon.weights_file import configured_weights

log = logging.getLogger(__name__)

S = JobState


class Admitter(Protocol):
    """What takes in the pictures of a batch (`admission.Admission`)."""

    def admit(self, wanted: Request | Rejection, now: Moment) -> None:
        """Copy into the spool, and add to the ledger."""

    def refuse(self, wanted: Request | Rejection, now: Moment, reason: str, detail: str) -> None:
        """Admit as failed."""

    def leave(self, drops: Iterable[Drop]) -> None:
        """Leave these versions of these files where they are."""


class Batches:
    """Owns the batches whose pictures are not all in the ledger yet.

    Args:
        state: What the parts share.
        completion: Learns when a batch begins and ends.
        admission: Takes in the pictures.
    """

    def __init__(self, state: State, completion: Completion, admission: Admitter) -> None:
        self._state, self._completion, self._admission = state, completion, admission
        self._expansions: list[Expansion] = []

    @property
    def busy(self) -> bool:
        """Whether there are pictures to admit at once."""
        return bool(self._expansions)

    def begin(self, expansion: Expansion) -> None:
        log.info("batch %s has %d pictures", expansion.name, len(expansion.combinations))
        if expansion.passed_over:
            what = describe(expansion.passed_over)
            log.warning("batch %s skips files: %s", expansion.name, what)
        self._expansions.append(expansion)
        self._completion.batch_opened(expansion.name)

    def open(self, wanted: Request, now: Moment) -> None:
        """Begin with a batch file of the inbox, which stays there until all that it asks for is in the ledger."""
        (file,) = wanted.files
        if any(expansion.file == file for expansion in self._expansions):
            return
        config = self._state.config
        try:
            values = read_settings(
                config.folders.inbox, file.path, file.fingerprint, config.limits.max_bytes
            )
            asked = batches.parse(values, file.path)
            since = file.fingerprint.ctime_ns / 1e9
            reach = batch_reach(config, [*_uploads(config, wanted.name), *config.batch_roots])
            expansion = Expansion(wanted.name, asked, reach, since=since, file=file)
        except ChangedMeanwhile as error:
            log.debug("%s", error)
        except InputError as error:
            self._admission.admit(wanted.refuse(str(error)), now)
        else:
            self.begin(expansion)

    def expand(self, now: Moment) -> None:
        """Continue with the first batch. Raises StorageError."""
        for expansion in self._expansions[:1]:
            with contained(expansion.name, partial(self._abandon, expansion)):
                self._expand(expansion, now)

    def _expand(self, expansion: Expansion, now: Moment) -> None:
        """Admit the next pictures of a batch, a few at a time, except those that it has already."""
        for _ in range(self._state.pacing.claims_a_round):
            if self._is_withdrawn(expansion):
                log.warning("batch %s was stopped: its file is not in the inbox", expansion.name)
                self._expansions.remove(expansion)
                self._completion.batch_closed(expansion.name)
                return
            wanted = expansion.current()
            if wanted is None:
                self._close_batch(expansion)
                return
            with contained(wanted.name, partial(self._admission.refuse, wanted, now)):
                if known := self._known(wanted, expansion):
                    expansion.skipped[wanted.name] = known.id
                else:
                    self._admission.admit(wanted, now)
            expansion.advance()

    def _is_withdrawn(self, expansion: Expansion) -> bool:
        """Whether somebody has removed the batch file from the inbox: its other pictures are not wanted."""
        inbox, file = self._state.folders.inbox, expansion.file
        return file is not None and not os.path.lexists(inbox / file.path)

    def _abandon(self, expansion: Expansion, reason: str, detail: str) -> None:
        """A batch cannot continue: its file stays in the inbox until it changes or the daemon starts again."""
        log.error("batch %s was stopped: %s", expansion.name, reason)
        if expansion.file:
            self._admission.leave([expansion.file])
        self._expansions.remove(expansion)
        self._completion.batch_closed(expansion.name)

    def _known(self, wanted: Request | Rejection, expansion: Expansion) -> Job | None:
        """The job of this batch that has painted the same picture into an equal file, or is going to.

        Two pictures of one run may be the same, as of two files with the same contents: the second one is copied.
        """
        if isinstance(wanted, Rejection):
            return None
        outputs = job_outputs(self._state.config, wanted.settings)
        for job in self._state.ledger.alike(wanted.identity):
            if not same_file(job, outputs):
                continue
            if job.source != "batch" or job.group != expansion.name:
                continue
            if job.name != wanted.name and job.name in expansion.names:
                continue
            if job.state is S.DONE and job.result:
                known = (self._state.folders.results / job.result).exists()
            else:
                known = not job.state.terminal or job.created >= expansion.since
            if known:
                return job
        return None

    def _close_batch(self, expansion: Expansion) -> None:
        folders = self._state.folders
        if expansion.file:
            try:
                claim.put_away(expansion.file, folders.inbox, folders.done, expansion.name)
            except PathError as error:
                log.warning("the file of batch %s stays in the inbox: %s", expansion.name, error)
                self._admission.leave([expansion.file])
        self._expansions.remove(expansion)
        log.info(
            "batch %s is in the queue; %d of its %d pictures existed already",
            expansion.name,
            len(expansion.skipped),
            len(expansion.combinations),
        )
        self._say_what_is_repainted(expansion)
        self._completion.batch_closed(expansion.name)

    def _say_what_is_repainted(self, expansion: Expansion) -> None:
        """Log how many pictures the batch has with other weights, and gets once more."""
        before = self._state.ledger.batch_weights(expansion.name)
        wanted = {combination.name for combination in expansion.combinations} - set(
            expansion.skipped
        )
        now = weights_digest(self._state.config)
        others = [name for name in wanted if before.get(name, "") not in {"", now}]
        if others:
            log.warning(
                "batch %s: %d pictures are painted again, because the weights have changed",
                expansion.name,
                len(others),
            )


def _uploads(config: Config, name: str) -> list[Path]:
    """The folder of the pictures that were uploaded for this batch, if there are any. Other batches cannot read it."""
    folder = config.folders.batches / name
    # A batch file in a folder of the inbox has the name of the folder and "/" before its own.
    own = "/" not in name and folder.is_dir() and not folder.is_symlink()
    return [folder] if own else []


def weights_digest(config: Config) -> str:
    """The SHA-256 of the weights in use; "" if they are missing or damaged, which the workers report."""
    try:
        return configured_weights(config.model, config.folders.cache).sha256
    except ModelError as error:
        log.debug("%s", error)
        return ""


def batch_reach(config: Config, roots: Sequence[Path]) -> Reach:
    """What a batch may read on this root. roots: the folders that its globs look into."""
    return Reach(
        roots=tuple(roots),
        library=config.folders.styles,
        resolve=lambda settings, pictures: resolve_job(config, settings, pictures=pictures)[0],
        network=config.model.network,
        weights_sha256=weights_digest(config),
        max_bytes=config.limits.max_bytes,
    )
