"""The message and the exit code of a command that fails. A traceback is written to a file and never shown."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from nst_daemon import __version__, files
from nst_daemon.errors import (
    Cancelled,
    InternalError,
    NstError,
    OutOfMemory,
    UsageError,
)
from nst_daemon.machine import lacks_memory, memory_limit
from nst_daemon.names import printable
from nst_daemon.ops import streams
from nst_daemon.unexpected import kind_and_message
from nst_daemon.units import size

#: So many files with tracebacks are kept in a folder.
KEPT = 20
#: Where the tracebacks of the configured root belong, once it is known.
log_folders: list[Path] = []


def run(command: Callable[[], object]) -> NoReturn:
    """Run the command line and exit with its code. No exception but SystemExit leaves this function."""
    streams.prepare()
    try:
        _check_current_folder()
        command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException as error:  # noqa: BLE001 (it is reported, with its traceback in a file)
        code = report(error)
    sys.exit(streams.finish(code))


def usage_in_one_line(app: Callable[[], object]) -> None:
    """Run typer's application outside of its standalone mode, and raise its errors of usage as ours.

    Raises:
        UsageError: An unknown command or option, a missing argument, or a value of another kind.
        SystemExit: The command ended with an exit code.
    """
    try:
        code = app()
    except Exception as error:
        text = getattr(error, "format_message", None)  # typer may use its own copy of click
        if text is None:
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "nst-daemon"
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            raise SystemExit(UsageError.exit_code) from error
        message = " ".join(str(text()).split()).removesuffix(".")
        message = re.sub(r"\. Did you mean (.*)\?$", r" (did you mean \1?)", message)
        for theirs, ours in _OF_PYDANTIC.items():
            message = message.replace(theirs, ours)
        raise UsageError(
            message[:1].lower() + message[1:], remedy=f"see `{path} --help`"
        ) from error
    sys.exit(code if isinstance(code, int) else 0)


#: What typer says about values, in plain words.
_OF_PYDANTIC = {
    "Value error, ": "",
    "Input should be less than or equal to": "the largest value is",
    "Input should be greater than or equal to": "the smallest value is",
    "Input should be a valid integer, unable to parse string as an integer": "it is not a whole number",
    "Input should be a valid number, unable to parse string as a number": "it is not a number",
}


def report(error: BaseException) -> int:
    """Print one line about what ended a command, and return its exit code."""
    if isinstance(error, KeyboardInterrupt):
        streams.notice("interrupted")
        return Cancelled.exit_code
    if isinstance(error, streams.OutputClosed):
        return 0  # as for other tools, nothing went wrong
    if isinstance(error, OSError):
        error = _of_system(error) or error
    if not isinstance(error, NstError):
        error = _out_of_memory() if lacks_memory(error) else _internal(error)
    streams.notice(printable(str(error)))
    return error.exit_code


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory(
        f"there is not enough memory: this process may use {size(memory_limit())}",
        remedy="free some memory, or raise the limit of the process (ulimit) or of its control group",
    )


def _internal(error: BaseException) -> InternalError:
    """The error of this program that an unexpected exception is; its traceback is in a file."""
    written = _write_traceback(error)
    where = f"the details are in {written}" if written else "no details could be saved"
    return InternalError(f"unexpected {kind_and_message(error)}", remedy=where)


def _check_current_folder() -> None:
    """Raise UsageError if the current folder was removed: relative paths mean nothing, and torch cannot be loaded."""
    try:
        Path.cwd()
    except OSError as error:
        raise UsageError(
            "the current folder no longer exists", remedy="change to another folder"
        ) from error


def _of_system(error: OSError) -> NstError | None:
    """What the system refused, if the error says so."""
    if not error.filename or isinstance(error.filename, int) or not error.strerror:
        return files.process_error(error)
    return files.storage_error(error, Path(os.fsdecode(error.filename)))


def _write_traceback(error: BaseException) -> Path | None:
    """Write the traceback to the first folder that can be written; None if there is none."""
    text = (
        f"nst-daemon {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{sys.argv}\n\n{''.join(traceback.format_exception(error))}"
    )
    state = Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"))  # noqa: PTH111
    own = state / "nst-daemon"
    for place in (*log_folders, *([own] if own.is_absolute() else []), Path("/tmp")):  # noqa: S108
        with suppress(OSError):
            if place == own:
                own.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(".log", "nst-daemon-error-", place)
            with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
                file.write(text)
            _remove_old(Path(name).parent)
            return Path(name)
    return None


def _remove_old(folder: Path) -> None:
    def age(path: Path) -> float:
        with suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    for path in sorted(folder.glob("nst-daemon-error-*.log"), key=age)[:-KEPT]:
        with suppress(OSError):
            path.unlink()
