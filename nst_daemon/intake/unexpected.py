"""Exceptions that no code expects, while drops are interpreted: they cost one drop, and the log has the traceback."""

from __future__ import annotations

import logging
import traceback
from functools import lru_cache

from nst_daemon.errors import reason_of
from nst_daemon.names import printable, shortened

log = logging.getLogger(__name__)


def internal_error(error: Exception) -> str:
    """One line for people about an unexpected exception. Its traceback is logged, once for each different one."""
    _log_once("".join(traceback.format_exception(error)))
    return shortened(printable(reason_of(error)), 300)


@lru_cache(maxsize=256)
def _log_once(text: str) -> None:
    log.error("%s", text.encode(errors="backslashreplace").decode())
