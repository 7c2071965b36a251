"""A process of the daemon's own, and the socket to it: how it is started, how it begins, how it ends.

A fresh interpreter with one end of a socket pair. Not `multiprocessing`: its spawn imports the daemon's `__main__`
again in each child, keeps a helper process and speaks pickle (see `messages`).
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nst_daemon.workers import messages

_PR_SET_PDEATHSIG = 1


class Child:
    """One life of a process. module: what it runs; first: its first message; log: where its output goes, begun anew
    (None: to the daemon's own stderr). Raises OSError where it cannot be started."""

    def __init__(self, module: str, first: messages.Message, log: Path | None) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = log
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, (log or Path(os.devnull)).open("wb") as output:
            self._popen = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                # -P: a folder that the daemon happens to stand in lends it no modules.
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output if log else None,
                # A terminal's Ctrl-C goes to a whole group of processes; what it means is for the daemon to say.
                process_group=0,
            )
        self.pid = self._popen.pid
        self._ended = os.pidfd_open(self.pid)
        self.socket.setblocking(False)
        self.open = True
        self.send(first)

    def send(self, message: messages.Message) -> bool:
        """Send, without waiting; False where there is no room now. A process that is gone is noticed elsewhere."""
        try:
            messages.send(self.socket, message)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def messages(self) -> Iterator[messages.Message]:
        """Everything that has arrived; notes when the other end is gone."""
        while self.open:
            try:
                message = messages.receive(self.socket)
            except BlockingIOError:
                return
            if message is None:
                self.open = False
                return
            yield message

    def exit_code(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def waitables(self) -> list[object]:
        """Ready when there are messages, or when it has ended."""
        return [self.socket, self._ended] if self.open else [self._ended]

    def kill(self) -> None:
        """SIGKILL; harmless where it has ended."""
        self._popen.kill()

    def close(self, patience: float) -> None:
        """Reap it and free its descriptors."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(patience)
        self.socket.close()
        os.close(self._ended)

    def last_words(self) -> str:
        """The end of what it printed, if that was kept."""
        if self._log is None:
            return ""
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - messages.TEXT_LIMIT))
            return file.read().decode(errors="replace").strip()
        return ""


def exit_reason(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"ended by itself with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    words = f"was killed by signal {-code} ({name})"
    if -code == signal.SIGKILL:
        words += ": by somebody, or by the kernel for want of memory"
    return words


def begin() -> tuple[socket.socket, messages.Message | None]:
    """In the new process: tie its life to the daemon's; its end of the wire, and the first message."""
    with suppress(OSError, AttributeError):
        # The kernel kills us with the daemon's thread that started us; where it cannot, the wire's end tells.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.enable()  # a crash in native code leaves the Python stacks in the worker's log
    # What a terminal sends is for the daemon to interpret.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    return end, messages.receive(end)
