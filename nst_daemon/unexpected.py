"""What is said about an exception: one line for people, and for one that no code expects a traceback in the log."""

from __future__ import annotations

import logging
import traceback
from functools import lru_cache

from nst_daemon.errors import NstError, first_line
from nst_daemon.names import printable, shortened

log = logging.getLogger(__name__)

#: Characters of an unexpected exception's message.
MESSAGE = 300


def explain(error: Exception) -> str:
    """One line for people. The traceback of an unexpected exception is logged, once for each different one."""
    if isinstance(error, NstError):
        return str(error)
    _log_once("".join(traceback.format_exception(error)))
    message = shortened(printable(first_line(error)), MESSAGE)
    return f"unexpected error ({type(error).__name__}: {message}); report it with the traceback in the log"


@lru_cache(maxsize=256)
def _log_once(text: str) -> None:
    log.error("%s", text.encode(errors="backslashreplace").decode())
