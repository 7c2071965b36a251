"""An error of one drop or job ends only that one. Errors of the disk and of the ledger concern all of them."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from nst_daemon.errors import DamagedLedger, NstError, PathError, StorageError
from nst_daemon.ledger import Ledger
from nst_daemon.unexpected import explain

log = logging.getLogger(__name__)

T = TypeVar("T")


def concerns_all(error: BaseException) -> bool:
    """Whether an error concerns every job: a disk that fails, a missing folder, a damaged ledger."""
    return isinstance(error, StorageError | DamagedLedger) and not isinstance(error, PathError)


@contextmanager
def contained(subject: str, fail: Callable[[str, str], object]) -> Iterator[None]:
    """Call `fail` for any exception inside that concerns one job.

    Args:
        subject: What is being worked on, for the log.
        fail: Takes the reason in one line, and the traceback, which is "" for an NstError. If `fail` raises an
            exception too, both are in the log.

    Raises:
        StorageError: The disk fails, or a folder is missing. (A PathError is passed to `fail`.)
        DamagedLedger: The ledger is damaged.
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
            log.error("%s stays as it is: %s", subject, explain(again))


def together_or_each(
    ledger: Ledger,
    items: Sequence[T],
    act: Callable[[T], object],
    contain: Callable[[T], AbstractContextManager[None]],
) -> None:
    """Change the ledger for all items in one transaction; if one of them is refused, for each in its own.

    Args:
        ledger: The ledger.
        items: What is changed.
        act: Changes the ledger for an item, and nothing else.
        contain: `contained` for an item.

    Raises:
        StorageError: The disk fails; nothing is changed.
        DamagedLedger: The ledger is damaged.
    """
    if not items:
        return
    try:
        with ledger.together():
            for item in items:
                act(item)
    except Exception as error:
        if concerns_all(error):
            raise
        for item in items:
            with contain(item):
                act(item)


def warn(
    said: logging.Logger | logging.LoggerAdapter[logging.Logger], text: str
) -> Callable[[str, str], None]:
    """A `fail` for `contained` that only logs a warning. text: with %s for the reason."""
    return lambda reason, detail: said.warning(text, reason)
