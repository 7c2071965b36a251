"""What goes wrong with one drop or one job stays with it; only the disk and the ledger concern all of them."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nst_daemon.errors import DamagedLedger, NstError, PathError, StorageError
from nst_daemon.unexpected import explain

log = logging.getLogger(__name__)


def concerns_all(error: BaseException) -> bool:
    """Whether an error is no fault of one job: a disk that fails, a missing folder, a damaged ledger."""
    return isinstance(error, StorageError | DamagedLedger) and not isinstance(error, PathError)


@contextmanager
def contained(subject: str, fail: Callable[[str, str], object]) -> Iterator[None]:
    """Call `fail` for any exception inside that concerns one job.

    Args:
        subject: What is being worked on, for the log.
        fail: Takes the reason in one line and the traceback, which is "" for an error of ours. Where it fails too,
            the log has both.

    Raises:
        StorageError: The disk.
        DamagedLedger: The ledger.
    """
    try:
        yield
    except Exception as error:
        if concerns_all(error):
            raise
        reason, detail = explain(error), ""
        if not isinstance(error, NstError):
            log.error("%s: %s", subject, reason)
            detail = traceback.format_exc()
        try:
            fail(reason, detail)
        except Exception as again:
            if concerns_all(again):
                raise
            log.error("%s is left as it is: %s", subject, explain(again))
