"""Standard input, output and error that may be closed, full, or in a locale without some characters."""

from __future__ import annotations

import io
import locale
import os
import re
import select
import shlex
import signal
import sys
from contextlib import suppress
from typing import Any

from nst_daemon.errors import StorageError

#: The configuration that the command line names, if it does.
named_config: list[str] = []
#: A command of a root in a message, without its own configuration.
_COMMAND = re.compile(
    r"\bnst-daemon (?:run|once|batch|submit|rerun|status|history|retry|cancel|priority|delete|doctor|gallery)\b"
    r"(?![^`;]* -c )(?! --help)"
)


def prepare() -> None:
    """Make output and signals work before anything is printed or started.

    In a locale of another encoding than UTF-8, the program starts again in Python's UTF-8 mode: names of files are
    UTF-8 for the daemon and for every command. Output stays in the encoding of the locale; characters that it lacks
    are escaped.
    """
    _open_closed()
    # Of the parent process: it may have left signals blocked, or the ends of child processes ignored.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    encoding = next((s.encoding for s in (sys.stdout, sys.stderr) if s), "utf-8")
    if "utf8" in sys._xoptions and not os.environ.get("PYTHONIOENCODING"):
        encoding = locale.getencoding()
    sys.stdout = _text(_Output(1, "w", closefd=False), encoding, line_buffering=os.isatty(1))
    sys.stderr = _text(_Messages(2, "w", closefd=False), encoding, line_buffering=True)


def _text(raw: io.FileIO, encoding: str, *, line_buffering: bool) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=line_buffering
    )


class OutputClosed(Exception):  # noqa: N818 (not an error: `nst-daemon … | head`)
    """The reader of our output has exited. Not an OSError: libraries make that an exit code of their own."""


class _Stream(io.FileIO):
    """A file that waits until it can be written to, also if another process made it non-blocking."""

    def write(self, data: Any, /) -> int:
        while (written := super().write(data)) is None:
            select.select([], [self], [])
        return written


class _Output(_Stream):
    """Standard output: what cannot be written is an error with a remedy, unless the reader has exited."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError as error:
            raise StorageError(
                f"the standard output cannot be written: {error.strerror or error}",
                remedy="free some space, or write it elsewhere",
            ) from error


class _Messages(_Stream):
    """Standard error: what cannot be written is lost, because a message must not end a command."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data))


def finish(code: int) -> int:
    """Write what was printed, and return the exit code of the command, or another one if that is impossible."""
    try:
        sys.stdout.flush()
    except OutputClosed:
        _discard(1)
    except StorageError as error:
        _discard(1)
        if not code:
            notice(str(error))
        code = code or error.exit_code
    return code


def notice(message: str, *, level: int = 3) -> None:
    """Print a line on standard error.

    level: syslog's severity, which journald reads from a prefix; 3 is an error, 4 a warning, 6 information.
    """
    prefix = f"<{level}>" if is_journal() else ""
    print(f"{prefix}nst-daemon: {_with_config(message)}", file=sys.stderr, flush=True)


def _with_config(message: str) -> str:
    """A message whose commands mean the same configuration as this one, from the same folder."""
    if not named_config:
        return message
    option = f" -c {shlex.quote(named_config[0])}"
    return _COMMAND.sub(lambda found: found[0] + option, message)


def is_journal() -> bool:
    """True if standard error is connected to journald (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _open_closed() -> None:
    """Open /dev/null in place of closed streams. Another file, such as the ledger, would take their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _discard(number)


def _discard(number: int) -> None:
    """Connect a descriptor to /dev/null."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)
