"""Exceptions that no code expects, while drops are interpreted: they cost one drop, and the log has the traceback."""

from __future__ import annotations

import logging
import traceback
from functools import lru_cache

from nst_daemon.errors import first_line
from nst_daemon.names import printable, shortened

log = logging.getLogger(__name__)


def internal_error(error: Exception) -> str:
    """One line for people about an unexpected exception. Its traceback is logged, once for each different one."""
    _log_once("".join(traceback.format_exception(error)))
    what = shortened(printable(f"{type(error).__name__}: {first_line(error)}"), 200)
    return f"internal error: {what}; the log has the details, please report them"


@lru_cache(maxsize=256)
def _log_once(text: str) -> None:
    log.error("%s", text.encode(errors="backslashreplace").decode())
