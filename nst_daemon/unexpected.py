"""The message for an exception: one line for people. The traceback of an unexpected one goes to the log."""

from __future__ import annotations

import logging
import traceback
from functools import lru_cache

from nst_daemon.errors import NstError, StorageError, first_line
from nst_daemon.names import printable, shortened

log = logging.getLogger(__name__)

#: Characters of an unexpected exception's message.
MESSAGE = 300


def explain(error: Exception) -> str:
    """One line for people. The traceback of an unexpected exception is logged, once for each different one."""
    if isinstance(error, NstError):
        return str(error)
    _log_once("".join(traceback.format_exception(error)))
    return f"unexpected error ({kind_and_message(error)}); report it with the traceback in the log"


def explain_one(error: Exception) -> str:
    """`explain`, for code that continues with the next of many things: StorageError and MemoryError are raised."""
    if isinstance(error, StorageError | MemoryError):
        raise error
    return explain(error)


def kind_and_message(error: BaseException) -> str:
    """An unexpected exception in one line: "KeyError: 'size'"."""
    return f"{type(error).__name__}: {shortened(printable(first_line(error)), MESSAGE)}"


@lru_cache(maxsize=256)
def _log_once(text: str) -> None:
    log.error("%s", text.encode(errors="backslashreplace").decode())
