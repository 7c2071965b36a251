"""The exceptions of this program, with their exit codes and retry classes.

    NstError
    ├── UsageError            2  wrong usage of a command
    ├── ConfigError           3  config.yaml, an NST_… variable or a folder is invalid
    ├── InputError            4  a dropped file is invalid
    │   ├── PictureError         a picture cannot be read
    │   │   └── DamagedPicture   … because its data is damaged or not complete
    │   └── SettingsError        a render setting is unknown, out of range or contradicts another
    ├── ModelError            5  weights or the ONNX file are missing, damaged or do not match
    ├── BusyError             6  another process is running on this root
    ├── StorageError          7  full disk, read-only file system, or missing folder (the queue pauses)
    │   └── PathError            the file system refuses one file or name, and its folder can be used
    ├── DeviceError           8  the device failed; another attempt may succeed
    │   ├── NoDevice             there is no such device, or its driver is missing
    │   └── OutOfMemory          the picture does not fit into the free memory
    ├── PaintingError         9  the optimisation diverged (non-finite even after rolling back)
    ├── LedgerError          10  a transition is illegal, or the ledger is of another version
    │   └── DamagedLedger        the ledger's file is damaged
    ├── InternalError        70  an error in this program: any other exception; the traceback is in a file
    └── Cancelled           130  the work was cancelled or interrupted

Each has an exit code (used only by `cli`), a retry class (used only by the service) and a message of the form "what
happened to which file: the cause; the remedy".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Self

#: The exit code of `once` if no job failed, and something is left in the inbox. No exception has it.
LEFT_OVER = 11


class Retry(StrEnum):
    """Whether and how a failed job is retried."""

    NEVER = "never"  # the same input fails again: the job goes to failed/
    LATER = "later"  # transient: retry after a pause; attempts are counted
    ALONE = "alone"  # out of memory: retry without other jobs on the device
    PAUSED = "paused"  # not caused by the job: the queue pauses until the problem is fixed


class NstError(Exception):
    """Base class. `str(error)` is one line: the message, then the remedy."""

    exit_code = 1
    retry = Retry.NEVER

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive pickle's default, and errors cross process borders.
        return (_rebuild, (type(self), self.message, self.remedy))


def _rebuild(cls: type[NstError], message: str, remedy: str) -> NstError:
    return cls(message, remedy=remedy)


class UsageError(NstError):
    """Wrong usage of a command."""

    exit_code = 2


class NotFoundError(UsageError):
    """There is no such job, style, upload, batch or file."""


class NameInUseError(UsageError):
    """Another thing has the name that a new one should get."""


class ConfigError(NstError):
    """The configuration, an environment variable or a configured folder is invalid."""

    exit_code = 3


class InputError(NstError):
    """A dropped file is invalid."""

    exit_code = 4


class PictureError(InputError):
    """A picture cannot be read: it is damaged, has another format, or exceeds a limit."""


class DamagedPicture(PictureError):  # noqa: N818 (the state of a file)
    """The data of a picture is damaged or not complete."""


class SettingsError(InputError):
    """A render setting is unknown, out of range or contradicts another. key: of the setting, or ""."""

    key = ""

    def placed(self, places: Mapping[str, str]) -> Self:
        """This error with the file of its setting before the message. places: the file of each setting."""
        files = list(dict.fromkeys(filter(None, places.values())))
        place = places.get(self.key) or (" and ".join(files) if len(files) <= 2 else "")
        error = type(self)(
            f"{place}: {self.message}" if place else self.message, remedy=self.remedy
        )
        error.key = self.key
        return error


class ModelError(NstError):
    """Weights or the ONNX file are missing, damaged or do not match."""

    exit_code = 5


class BusyError(NstError):
    """Another process is running on this root."""

    exit_code = 6


class StorageError(NstError):
    """Full disk, read-only file system or missing folder."""

    exit_code = 7
    retry = Retry.PAUSED


class LockedLedger(StorageError):  # noqa: N818 (it names the state)
    """Another process has locked the ledger for longer than one waits."""


class PathError(StorageError):
    """The file system refuses one file or name, although its folder can be used: only the job of that file fails."""

    retry = Retry.NEVER


class DeviceError(NstError):
    """The device failed; another attempt, perhaps on another device, may succeed."""

    exit_code = 8
    retry = Retry.LATER


class NoDevice(DeviceError):  # noqa: N818 (it names the state)
    """There is no such device in this machine, or its driver is not loaded."""


class OutOfMemory(DeviceError):  # noqa: N818 (the usual name)
    """The picture does not fit into the free memory with any memory plan."""

    retry = Retry.ALONE


class PaintingError(NstError):
    """The optimisation diverged: non-finite even after rolling back."""

    exit_code = 9


class LedgerError(NstError):
    """A transition is illegal, or the ledger is of another version."""

    exit_code = 10


class DamagedLedger(LedgerError):  # noqa: N818 (it names the state)
    """The ledger's file is damaged: the next start replaces it by its backup."""


class InternalError(NstError):
    """An error in this program: any exception that is not an NstError."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h


class Cancelled(NstError):  # noqa: N818 (a decision, not an error)
    """The work was cancelled or interrupted."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
