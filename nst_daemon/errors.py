"""Every exception that this program raises on purpose.

    NstError
    ├── UsageError            2  a command was called in a way that cannot work
    ├── ConfigError           3  config.yaml, an NST_… variable or a folder is unusable
    ├── InputError            4  something that a person dropped is unusable
    │   ├── PictureError         a picture cannot be read
    │   └── SettingsError        a render setting is unknown, out of range or contradicts another
    ├── ModelError            5  weights or the ONNX file are missing, damaged or do not fit
    ├── BusyError             6  another daemon serves this root
    ├── StorageError          7  no space, read-only, or a folder that is not there (the queue waits)
    ├── DeviceError           8  the device failed; another attempt may succeed
    │   └── OutOfMemory          the picture does not fit into the memory that is free
    ├── PaintingError         9  the optimisation cannot go on (non-finite even after rolling back)
    ├── LedgerError          10  the ledger is damaged or was asked for an illegal transition
    └── Cancelled           130  somebody asked for the end of this work

Each carries its exit code (used by `cli` alone), its retry class (used by the supervisor alone) and a message of the
form "what happened to which file: the cause; the remedy".
"""

from __future__ import annotations

from enum import StrEnum


class Retry(StrEnum):
    """What another attempt would bring."""

    NEVER = "never"  # the same input fails again: the job goes to failed/
    LATER = "later"  # transient: back off and try again, attempts are counted
    ALONE = "alone"  # out of memory: try again with nothing beside it
    PAUSED = "paused"  # not the job's fault: the whole queue waits until it is mended


class NstError(Exception):
    """Base of all: `str(error)` is one line for people, with `remedy` as its second half."""

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
    """A command was called in a way that cannot work."""

    exit_code = 2


class ConfigError(NstError):
    """The configuration, the environment or the folders it names are unusable."""

    exit_code = 3


class InputError(NstError):
    """Something that a person dropped is unusable."""

    exit_code = 4


class PictureError(InputError):
    """A picture cannot be read: damaged, of another kind, or beyond a limit."""


class SettingsError(InputError):
    """A render setting is unknown, out of range or contradicts another."""


class ModelError(NstError):
    """Weights or the ONNX file are missing, damaged or do not fit."""

    exit_code = 5


class BusyError(NstError):
    """Another process serves this root."""

    exit_code = 6


class StorageError(NstError):
    """No space, a read-only file system or a folder that has gone."""

    exit_code = 7
    retry = Retry.PAUSED


class DeviceError(NstError):
    """The device failed; another attempt, perhaps on another device, may succeed."""

    exit_code = 8
    retry = Retry.LATER


class OutOfMemory(DeviceError):  # noqa: N818 (it is called this everywhere)
    """The picture does not fit into the memory that is free, in whatever way it is painted."""

    retry = Retry.ALONE


class PaintingError(NstError):
    """The optimisation cannot go on: non-finite even after rolling back."""

    exit_code = 9


class LedgerError(NstError):
    """The ledger is damaged, or was asked for an illegal transition."""

    exit_code = 10


class Cancelled(NstError):  # noqa: N818 (a decision of a person, not an error)
    """Somebody asked for the end of this work."""

    exit_code = 130
