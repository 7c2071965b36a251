"""Log lines on standard error: for a terminal, for journald, or as JSON.

A line about a job contains its name and id (`job_logger`). Names come from users and from the network, so control
characters are escaped.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

from nst_daemon.jobs import short_id
from nst_daemon.names import printable
from nst_daemon.ops.streams import is_journal

Format = Literal["auto", "text", "journal", "json"]

#: syslog's severities, which journald reads from a `<N>` prefix (sd-daemon(3)).
_SYSLOG = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": self.extra}


def job_logger(
    logger: logging.Logger, name: str, job_id: str
) -> logging.LoggerAdapter[logging.Logger]:
    """A logger whose lines contain the job's name and the first eight digits of its id."""
    return _JobLogger(logger, {"job": name, "job_id": job_id})


class _Formatter(logging.Formatter):
    def __init__(self, format: Literal["text", "journal", "json"]) -> None:
        super().__init__()
        self.kind = format

    def format(self, record: logging.LogRecord) -> str:
        job: str = getattr(record, "job", "")
        job_id: str = getattr(record, "job_id", "")
        if self.kind == "json":
            return json.dumps(_as_mapping(record, job, job_id, self), ensure_ascii=True)
        text = printable(record.getMessage())
        if job:
            text = f"{printable(job)} [{short_id(job_id)}]: {text}"
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        if self.kind == "journal":
            # journald stores each line as an entry, so each line of a traceback needs a prefix.
            prefix = f"<{_SYSLOG.get(record.levelno, 6)}>"
            return "\n".join(prefix + line for line in (text + trace).splitlines())
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{stamp} {record.levelname.lower():7} {text}{trace}"


def _as_mapping(
    record: logging.LogRecord, job: str, job_id: str, formatter: logging.Formatter
) -> Mapping[str, object]:
    line: dict[str, object] = {
        "time": round(record.created, 3),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    if job:
        line |= {"job": job, "job_id": job_id}
    if record.exc_info:
        line["traceback"] = formatter.formatException(record.exc_info)
    return line


def setup(format: Format = "auto", level: str = "info") -> None:
    """Send log lines to standard error. `auto` selects `journal` if standard error is connected to journald."""
    if format == "auto":
        format = "journal" if is_journal() else "text"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(format))
    logger = logging.getLogger("nst_daemon")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
    # watchdog reports each regular end of its threads as an error.
    logging.getLogger("watchdog").addHandler(logging.NullHandler())
    logging.getLogger("watchdog").propagate = False
