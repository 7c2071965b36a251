"""From the inbox into the queue: scan, claim, open batches, and take archived jobs in again.

Every way in goes through `Admission._admit`: a drop, a picture of a batch and a retry are checked, copied, hashed and
resolved by the same code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nst_daemon import files
from nst_daemon.config import Config
from nst_daemon.errors import InputError, ModelError, StorageError
from nst_daemon.identity import picture_identity
from nst_daemon.intake import archived, claim
from nst_daemon.intake import batch as batches
from nst_daemon.intake.drops import ANYWHERE, Rejection, Request
from nst_daemon.intake.expansion import Expansion, Reach
from nst_daemon.intake.scan import Intake, Scan
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.intake.walk import read_settings
from nst_daemon.jobs import Job, JobState, Role
from nst_daemon.ops.logs import job_logger
from nst_daemon.service.completion import Completion
from nst_daemon.service.state import Moment, State
from nst_daemon.weights_file import configured_weights

log = logging.getLogger(__name__)

S = JobState
#: Seconds between two scans, however much changes in the inbox.
SHORTEST_SCAN_INTERVAL = 0.2
#: Two jobs are created at least this many seconds apart, so that the queue keeps the order of one scan.
CREATION_STEP = 1e-5


class Admission:
    """Owns the inbox, the batches that are being read, and the jobs that are claimed and not in the queue yet.

    Args:
        state: What the parts share.
        completion: Takes what is refused.
        batch: Paint this instead of what is in the inbox.
    """

    def __init__(
        self, state: State, completion: Completion, batch: Expansion | None = None
    ) -> None:
        self._state, self._completion, self._batch = state, completion, batch
        #: What the last scan saw; None before the first.
        self.seen: Scan | None = None
        #: When the last round ended, in seconds of the monotonic clock.
        self.last_round = state.began.steady
        self.next_scan = -math.inf
        self._last_scan = -math.inf
        self._last_created = 0.0
        self._wanted: list[Request | Rejection] = []
        self._claimed: dict[str, Job] = {}
        self._expansions: list[Expansion] = []
        self.reconfigure()
        if batch:
            self._begin(batch)

    def reconfigure(self) -> None:
        """Take over what a reload may have changed; what was settling settles again."""
        config = self._state.config
        self._wanted.clear()
        self.next_scan = -math.inf
        self._inbox = Intake(
            config.folders.inbox,
            config.folders.styles,
            settle_seconds=config.service.settle_seconds,
            truncated_grace=config.service.truncated_grace,
            # `once` leaves incomplete pairs in the inbox: the other half may come with the next drop.
            pair_timeout=math.inf if self._state.drain else config.service.pair_timeout,
            max_bytes=config.limits.max_bytes,
            default_style=config.default_style,
        )

    @property
    def busy(self) -> bool:
        """Whether there is more to admit at once."""
        return bool(self._wanted or self._expansions)

    @property
    def drained(self) -> bool:
        """Whether the last scan found nothing to admit, and everything that was claimed is in the queue."""
        if self.busy or self._claimed or self.seen is None:
            return False
        return not self.seen.requests and not self.seen.rejections

    def wake(self) -> None:
        """Something has changed in the inbox: scan soon."""
        self.next_scan = min(self.next_scan, self._last_scan + SHORTEST_SCAN_INTERVAL)

    def resume(self, job: Job) -> None:
        """Go on with a job that an earlier process has claimed."""
        self._claimed[job.id] = job

    def take_in(self, now: Moment) -> None:
        """Do one round: scan when it is time, and admit a few jobs. Raises StorageError."""
        for job in list(self._claimed.values()):
            self._enter(job, now)
        if not self._wanted and now.steady >= self.next_scan:
            self._scan(now)
        for wanted in self._wanted[: self._state.pacing.claims_a_round]:
            if isinstance(wanted, Request) and wanted.is_batch_file:
                self._open_batch(wanted, now)
            else:
                self._admit(wanted, now)
            self._wanted.remove(wanted)
        if not self._wanted:
            self._expand(now)
        self.last_round = now.steady

    def _scan(self, now: Moment) -> None:
        seen = Scan() if self._batch else self._inbox.scan(now.steady, now.wall)
        for problem in set(seen.problems) - (set(self.seen.problems) if self.seen else set()):
            log.warning("%s", problem)
        self._wanted = [*seen.rejections, *seen.requests]
        self.seen, self._last_scan = seen, now.steady
        pause = self._state.config.service.rescan_seconds
        if seen.settling or seen.requests:
            # A second look is all that a file needs that has stopped changing.
            settle = self._state.config.service.settle_seconds
            pause = min(pause, max(settle / 2, SHORTEST_SCAN_INTERVAL))
        self.next_scan = now.steady + pause

    # One job

    def _admit(self, wanted: Request | Rejection, now: Moment) -> None:
        """Copy into the spool, add to the ledger, take out of the inbox; in this order."""
        if self._claimed_before(wanted):
            return
        job = self._claim(wanted, now)
        if job is None:
            return
        try:
            self._state.ledger.add(job)
        except StorageError:
            if self._state.ledger.get(job.id) is None:  # the next round claims the files again
                files.remove_tree(self._state.folders.spool / job.id)
            raise
        self._claimed[job.id] = job
        self._enter(job, now)

    def _claim(self, wanted: Request | Rejection, now: Moment, job_id: str = "") -> Job | None:
        """The job for what is wanted; with its reason where it is refused, None where its files have just changed."""
        options = {"make_id": lambda: job_id} if job_id else {}
        created = self._last_created = max(now.wall, self._last_created + CREATION_STEP)
        if isinstance(wanted, Rejection):
            return claim.refuse(wanted, now=created, **options)
        folders, config = self._state.folders, self._state.config
        try:
            settings = config.render_settings(wanted.settings)
            job = claim.claim(
                replace(wanted, settings=asdict(settings)),
                folders.spool,
                {
                    "inbox": folders.inbox,
                    "styles": folders.styles,
                    "failed": folders.failed,
                    "anywhere": ANYWHERE,
                },
                max_bytes=config.limits.max_bytes,
                now=created,
                **options,
            )
            weights = weights_digest(config)
            digests = [(file.role.value, file.sha256) for file in job.inputs]
            identity = picture_identity(digests, settings, config.model.network, weights)
            return replace(job, identity=identity, weights=weights)
        except ChangedMeanwhile as error:
            if wanted.batch is None:  # the next scan sees it as it is then
                log.debug("%s", error)
                return None
            reason = f"{error}; run the batch again"
        except InputError as error:
            reason = str(error)
        return claim.refuse(wanted.refuse(reason), now=created, **options)

    def _claimed_before(self, wanted: Request | Rejection) -> bool:
        """Whether the files were claimed already and are still there: not removable, or back after a power cut."""
        folders = self._state.folders
        own = [file for file in wanted.files if file.root == "inbox"]
        jobs = [self._state.ledger.claimed_before(file.path, file.fingerprint) for file in own]
        if not own or not all(jobs):
            return False
        for job in jobs:
            assert job is not None
            if claim.remove_originals(job, folders.inbox, folders.spool):
                self._inbox.mute(own)
            elif job.state.terminal and (folders.spool / job.id).is_dir():
                self._completion.add(job)  # something refused that can be moved at last
        return True

    def _enter(self, job: Job, now: Moment) -> None:
        """From `claimed` on: the originals leave the inbox, and the job joins the queue or has failed already."""
        said = job_logger(log, job.name, job.id)
        folders = self._state.folders
        for problem in claim.remove_originals(job, folders.inbox, folders.spool):
            said.warning("%s", problem)
        if job.error:
            self._completion.fail(job, S.FAILED, now, error=job.error)
        else:
            said.info("taken in: %s", ", ".join(file.name for file in job.inputs))
            self._state.move(job, S.QUEUED, now)
        del self._claimed[job.id]

    # Retry

    def readmit(self, job: Job, now: Moment) -> None:
        """Admit the archived inputs of an ended job once more, as if they had been dropped now.

        They are read as a drop, checked, copied and hashed anew, with the settings that are beside them now. What is
        refused again stays in failed/ with the new reason. May be called again after a crash.

        Raises:
            ChangedMeanwhile: A file or a style of the library has not settled; call it again later.
            StorageError: The disk.
        """
        said = job_logger(log, job.name, job.id)
        if job.state is S.QUEUED and job.archive:  # a crash interrupted an earlier call
            self._leave_archive(job, now)
        elif job.state.terminal and not job.archive and job.state is not S.DONE:
            raise ChangedMeanwhile(f"{job.name} is not in failed/ yet")
        elif not job.state.terminal or job.state is S.DONE:
            said.warning("only a job that has ended without a picture can be tried again")
        else:
            try:
                self._readmit(job, now)
            except ChangedMeanwhile:
                raise
            except InputError as error:
                said.warning("%s", error)

    def _readmit(self, job: Job, now: Moment) -> None:
        """Do what `readmit` says. Raises InputError where the inputs are gone."""
        folders, config = self._state.folders, self._state.config
        if [file.role for file in job.inputs] == [Role.BATCH]:
            self._put_batch_back(job)
            return
        rules = self._inbox.rules(now.steady, now.wall)
        rules = replace(rules, pair_timeout=config.service.pair_timeout)
        wanted = archived.read(job, folders.failed, rules, config.limits.max_bytes)
        files.remove_tree(folders.spool / job.id)  # of an earlier call that was interrupted
        again = self._claim(wanted, now, job.id)
        if again is None:
            raise ChangedMeanwhile(f"files in {folders.failed / job.archive} are changing")
        if again.error:
            self._refuse_again(job, again.error, now)
        else:
            job = self._state.ledger.readmit(again, now=now.wall, note="retried by request")
            self._leave_archive(job, now)

    def _put_batch_back(self, job: Job) -> None:
        """Move the file of a batch back into the inbox, and forget that it was refused. Raises InputError."""
        folders = self._state.folders
        archived.put_back(job, folders.failed, folders.inbox)
        claim.prune_archive(job, folders.failed)
        self._state.ledger.forget(job.id)
        job_logger(log, job.name, job.id).info("retried by request: it is in the inbox again")

    def _refuse_again(self, job: Job, reason: str, now: Moment) -> None:
        """The job stays in failed/, with the reason of today."""
        claim.write_error(self._state.folders.failed / job.archive, reason)
        note = f"retried by request: {reason}"
        self._state.ledger.note(job.id, now=now.wall, note=note, error=reason)
        job_logger(log, job.name, job.id).error("refused again: %s", reason)

    def _leave_archive(self, job: Job, now: Moment) -> None:
        """The inputs are in the spool and in the ledger again: remove them from failed/."""
        claim.prune_archive(job, self._state.folders.failed)
        self._state.ledger.note(job.id, now=now.wall, archive="")

    # Batches

    def _begin(self, expansion: Expansion) -> None:
        log.info("batch %s asks for %d pictures", expansion.name, len(expansion.combinations))
        self._expansions.append(expansion)
        self._completion.batch_opened(expansion.name)

    def _open_batch(self, wanted: Request, now: Moment) -> None:
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
            reach = batch_reach(config, config.batch_roots)
            expansion = Expansion(wanted.name, asked, reach, since=since, file=file)
        except ChangedMeanwhile as error:
            log.debug("%s", error)
        except InputError as error:
            self._admit(wanted.refuse(str(error)), now)
        else:
            self._begin(expansion)

    def _expand(self, now: Moment) -> None:
        """Admit the next pictures of the first batch, a few at a time, except those that it has already."""
        for expansion in self._expansions[:1]:
            for _ in range(self._state.pacing.claims_a_round):
                wanted = expansion.current()
                if wanted is None:
                    self._close_batch(expansion)
                    return
                if known := self._known(wanted, expansion):
                    expansion.skipped[wanted.name] = known.id
                else:
                    self._admit(wanted, now)
                expansion.advance()

    def _known(self, wanted: Request | Rejection, expansion: Expansion) -> Job | None:
        """The job of this batch that has painted the same picture, or is going to."""
        if isinstance(wanted, Rejection):
            return None
        for job in self._state.ledger.alike(wanted.identity):
            if job.source != "batch" or job.group != expansion.name:
                continue
            if job.state is S.DONE:
                known = (self._state.folders.results / job.result).exists()
            else:
                known = not job.state.terminal or job.created >= expansion.since
            if known:
                return job
        return None

    def _close_batch(self, expansion: Expansion) -> None:
        folders = self._state.folders
        if expansion.file:
            claim.put_away(expansion.file, folders.inbox, folders.done, expansion.name)
        self._expansions.remove(expansion)
        log.info(
            "batch %s is in the queue; %d of its %d pictures were there already",
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


def weights_digest(config: Config) -> str:
    """The SHA-256 of the weights in use; "" where they are missing or damaged, which the workers report."""
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
        resolve=config.render_settings,
        network=config.model.network,
        weights_sha256=weights_digest(config),
        max_bytes=config.limits.max_bytes,
    )
