"""The job for what is dropped or asked for: its settings are resolved, and its files copied into the spool."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace

from nst_daemon.errors import InputError, SettingsError
from nst_daemon.identity import picture_identity
from nst_daemon.intake import claim
from nst_daemon.intake.drops import ANYWHERE, Rejection, Request
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.job_settings import correction, resolve_job
from nst_daemon.jobs import Job
from nst_daemon.names import printable
from nst_daemon.service.batches import weights_digest
from nst_daemon.service.state import Moment, State

log = logging.getLogger(__name__)

#: Two jobs are created at least this many seconds apart, so that the queue keeps the order of one scan.
CREATION_STEP = 1e-5


@dataclass(frozen=True, slots=True)
class Postponed:
    """Why a drop is left in the inbox, and until when, in seconds of the monotonic clock."""

    reason: str
    until: float


class Claimer:
    """Makes jobs, and remembers which drops cannot be read at the moment.

    Args:
        state: What the parts share.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._last_created = 0.0
        #: Drops that stay in the inbox for a while because they cannot be read at the moment, by name.
        self.postponed: dict[str, Postponed] = {}

    def claim(self, wanted: Request | Rejection, now: Moment, job_id: str = "") -> Job | None:
        """The job for what is wanted: with an error if it is refused; None if its files have just changed.

        Its copies are not durable yet (`claim.make_durable`). job_id: of the job; "" for a new one.
        """
        created = self._last_created = max(now.wall, self._last_created + CREATION_STEP)
        if isinstance(wanted, Rejection):
            return claim.refuse(wanted, now=created, job_id=job_id)
        folders, config = self._state.folders, self._state.config
        try:
            settings, outputs = resolve_job(
                config, wanted.settings, wanted.places, wanted.style_pictures
            )
            weights = weights_digest(
                config
            )  # before the copies, which an unexpected error would leave behind
            job = claim.claim(
                replace(wanted, settings=asdict(settings), outputs=outputs.picture),
                folders.spool,
                {
                    "inbox": folders.inbox,
                    "styles": folders.styles,
                    "failed": folders.failed,
                    "anywhere": ANYWHERE,
                },
                max_bytes=config.limits.max_bytes,
                now=created,
                job_id=job_id,
            )
            digests = [(file.role.value, file.sha256) for file in job.inputs]
            identity = picture_identity(digests, settings, config.model.network, weights)
            return replace(job, identity=identity, weights=weights)
        except ChangedMeanwhile as error:
            if wanted.batch is None:  # the next scan sees it as it is then
                log.debug("%s", error)
                return None
            reason = f"{error}; run the batch again"
        except claim.UnreadableNow as error:
            if wanted.batch is None:
                self._postpone(wanted, now, str(error))
                return None
            reason = f"{error}; run the batch again"
        except SettingsError as error:
            command = correction(wanted.name, error.key, wanted.own_settings)
            reason = f"{error} To do that: {command}" if command else str(error)
        except InputError as error:
            reason = str(error)
        return claim.refuse(wanted.refuse(reason), now=created, job_id=job_id)

    def is_postponed(self, wanted: Request | Rejection, now: Moment) -> bool:
        later = self.postponed.get(wanted.name)
        return later is not None and now.steady < later.until

    def _postpone(self, wanted: Request | Rejection, now: Moment, reason: str) -> None:
        """Leave a drop in the inbox that cannot be read at the moment, and try it again later."""
        before = self.postponed.get(wanted.name)
        if before is None or before.reason != reason:
            log.warning(
                "%s stays in the inbox and is tried again: %s", printable(wanted.name), reason
            )
        until = now.steady + self._state.config.service.rescan_seconds
        self.postponed[wanted.name] = Postponed(reason, until)
