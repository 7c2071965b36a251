"""Does a process still have a file open for writing? The system does not always tell; the answer only delays a file."""

from __future__ import annotations

import fcntl
import os
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

#: Open files that are looked at in one listing; processes beyond that are not seen.
MAX_OPEN_FILES = 50_000


class Writers:
    """The processes that have files open for writing, as they are now. Use a new instance for each scan.

    Args:
        proc: where the proc file system is mounted.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        #: Links to open files, by the last part of the path; None before they were listed.
        self._open: dict[str, list[str]] | None = None

    def have(self, descriptor: int, name: str) -> bool:
        """Whether a process that this one may ask about has the file open for writing.

        Args:
            descriptor: opened for reading only.
            name: the last part of its path.
        """
        answer = _lease_refused(descriptor)
        return self._listed(descriptor, name) if answer is None else answer

    def _listed(self, descriptor: int, name: str) -> bool:
        """The answer of the proc file system, for processes of this user (of all users, for root)."""
        if self._open is None:
            self._open = self._list()
        wanted = os.fstat(descriptor)
        for link in self._open.get(name, ()):
            with suppress(OSError):  # the process has ended or closed it
                if os.path.samestat(Path(link).stat(), wanted) and _is_for_writing(link):
                    return True
        return False

    def _list(self) -> dict[str, list[str]]:
        """Every open file of every process, by name: a status would wait for other file systems."""
        found: dict[str, list[str]] = defaultdict(list)
        left, own = MAX_OPEN_FILES, str(os.getpid())
        with suppress(OSError):
            for process in os.listdir(self._proc):  # noqa: PTH208 (names, and many)
                if not process.isdecimal() or process == own:
                    continue
                folder = f"{self._proc}/{process}/fd"
                with suppress(OSError):  # of another user, or ended
                    for number in os.listdir(folder):  # noqa: PTH208 (names, and many)
                        left -= 1
                        if left < 0:
                            return found
                        link = f"{folder}/{number}"
                        with suppress(OSError):
                            target = os.readlink(link)  # noqa: PTH115 (a string, and many)
                            if target.startswith("/"):
                                found[target.rpartition("/")[2]].append(link)
        return found


def _is_for_writing(link: str) -> bool:
    info = Path(link.replace("/fd/", "/fdinfo/")).read_text()
    flags = (line.split()[1] for line in info.splitlines() if line.startswith("flags:"))
    return int(next(flags, "0"), 8) & os.O_ACCMODE != os.O_RDONLY


def _lease_refused(descriptor: int) -> bool | None:
    """Whether a read lease is refused, as it is while a file is open for writing; None where leases do not work.

    They need the owner of the file or CAP_LEASE, and a local file system.
    """
    try:
        # A process that opens the file at this moment breaks the lease. SIGURG is ignored by default; the usual
        # signal, SIGIO, would end this process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    # Its open call waits until the lease is returned, which is now.
    with suppress(OSError):  # closing returns it as well
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
