"""A process that the daemon starts and watches: its start, its deadline, its output, its end.

A worker, a hook, a chore and the status page are all one of these; each owner keeps only its policy. Not
`multiprocessing`: its spawn imports the daemon's `__main__` again in each process, keeps a helper process and speaks
pickle.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
#: Signals that end a process whose native code has a fault.
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
#: Only the daemon talks to systemd.
_OF_SYSTEMD = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
#: Names of credentials: AWS_SECRET_ACCESS_KEY, GH_TOKEN, PGPASSWORD, SSH_AUTH_SOCK.
_CREDENTIAL_NAME = re.compile(
    r"PASSW(?:OR)?D|PASSPHRASE|PASSCOMMAND|SECRET|CREDENTIAL|TOKEN(?!IZER)|API_?KEY|WEBHOOK|CONN(?:ECTION)?_?STR"
    r"|(?:^|_)(?:AUTH|COOKIE|CREDS|DSN|JWT|KEYS?|PASS|PAT|PWD|SAS|SK)(?:_|$)|(?-i:[a-z](?:Key|Pass|Pwd)(?![a-z]))",
    re.IGNORECASE,
)
#: A value with one of these is one too: https://name:password@host, Server=x;Password=y, a private key.
_CREDENTIAL_VALUE = re.compile(
    r"://[^/@\s]*:[^/@\s]+@|(?:^|[;&?\s])(?:password|pwd|secret|sig|[a-z]*key|[a-z]*token)=|PRIVATE KEY-----",
    re.IGNORECASE,
)


def own_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this program.

    `-P` keeps the current folder off the module path; `-X utf8` reads names as UTF-8 in every locale.
    """
    return [sys.executable, "-X", "utf8", "-P", "-m", module, *arguments]


def child_environment(
    environ: Mapping[str, str] | None = None, *, keep: Sequence[str] = ()
) -> dict[str, str]:
    """What every child process inherits: the environment without secrets.

    Left out are the NST_ variables (a child gets its settings from the daemon), systemd's, and credentials, by their
    name or by a password in an address.

    Args:
        environ: The daemon's own environment; None for that of this process.
        keep: Names of variables to pass in any case.
    """
    environ = os.environ if environ is None else environ
    return {k: v for k, v in environ.items() if k in keep or not _is_private(k, v)}


def _is_private(name: str, value: str) -> bool:
    if name.startswith("NST_") or name in _OF_SYSTEMD:
        return True
    by_name = name not in {"PWD", "OLDPWD"} and _CREDENTIAL_NAME.search(name)
    return bool(by_name or _CREDENTIAL_VALUE.search(value))


class ManagedProcess:
    """One run of a command, in a session of its own: Ctrl-C in a terminal reaches the daemon alone.

    Args:
        command: Arguments; no shell reads them.
        environment: None for `child_environment`.
        pass_fds: Descriptors that the process inherits.
        first_input: Written to its standard input, which then stays open until `close`; None for no input.
        log: A file for its output, truncated first.
        capture: Keep its output in a temporary file. Without `log` and `capture`, standard output is discarded, and
            standard error is the daemon's.
        deadline: When `overdue` becomes true, on the caller's clock.

    Raises:
        OSError: The process cannot be started.
        ValueError: An argument or a variable contains a null character.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        first_input: bytes | None = None,
        log: Path | None = None,
        capture: bool = False,
        deadline: float = math.inf,
    ) -> None:
        self.deadline = deadline
        self._output = _output_file(log, capture=capture)
        self._pidfd: int | None = None
        try:
            self._popen = subprocess.Popen(  # noqa: S603 (our own program, or the administrator's command)
                list(command),
                env=child_environment() if environment is None else environment,
                pass_fds=tuple(pass_fds),
                stdin=subprocess.DEVNULL if first_input is None else subprocess.PIPE,
                stdout=self._output or subprocess.DEVNULL,
                stderr=self._output,
                cwd=_current_folder(),
                start_new_session=True,
            )
        except BaseException:
            self._close_output()
            raise
        self.pid = self._popen.pid
        if first_input is not None and self._popen.stdin is not None:
            # The process may have ended already: its exit code tells.
            with suppress(BrokenPipeError):
                self._popen.stdin.write(first_input)
                self._popen.stdin.flush()

    def exit_code(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        return self._popen.poll()

    def overdue(self, now: float) -> bool:
        """True if the process runs past its deadline."""
        return now >= self.deadline and self.exit_code() is None

    def terminate(self, deadline: float = math.inf) -> None:
        """Ask the process to end (SIGTERM) by `deadline`."""
        self.deadline = min(self.deadline, deadline)
        self._popen.terminate()

    def kill(self) -> None:
        """End the process and everything that it has started (SIGKILL)."""
        # Until `poll` has seen the end, the process id cannot belong to another process.
        if self.exit_code() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> int | None:
        """Wait for the end for at most `seconds`; the exit status, or None."""
        with suppress(subprocess.TimeoutExpired):
            return self._popen.wait(seconds)
        return None

    def waitables(self) -> list[object]:
        """A descriptor for `multiprocessing.connection.wait` that becomes ready when the process has ended."""
        if self._pidfd is None:
            self._pidfd = os.pidfd_open(self.pid)
        return [self._pidfd]

    def last_output(self, limit: int) -> str:
        """The end of what the process printed, `limit` bytes at most; "" if its output is not kept."""
        if self._output is None:
            return ""
        number = self._output.fileno()
        start = max(0, os.fstat(number).st_size - limit)
        return os.pread(number, limit, start).decode(errors="replace").strip()

    def close(self, patience: float = 0.0) -> None:
        """Wait for the end for at most `patience` seconds, and free the descriptors."""
        self.wait(patience)
        self._close_output()
        if self._popen.stdin is not None:
            with suppress(OSError):
                self._popen.stdin.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _close_output(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None


def _current_folder() -> Path:
    """The current folder, or another one if it was removed: torch cannot be loaded there."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def _output_file(log: Path | None, *, capture: bool) -> IO[bytes] | None:
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("w+b")
    return tempfile.TemporaryFile() if capture else None


def crashed(code: int) -> bool:
    """Whether an exit status is that of a crash in native code, and not of a signal that was sent."""
    return -code in _CRASHES


def exit_reason(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    words = f"was killed by signal {-code} ({name})"
    if -code == signal.SIGKILL:
        words += ": by a person, or by the kernel because memory ran out"
    return words


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends; without effect on other kernels."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def begin() -> socket.socket:
    """In a new process: end with the daemon; the socket to the daemon, which `sys.argv[1]` names."""
    end_with_parent()  # where the kernel cannot do that, the end of the socket tells
    faulthandler.enable()  # a crash in native code leaves the Python stacks in the worker's log
    # What a terminal sends is for the daemon to interpret.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    return end
