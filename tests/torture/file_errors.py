"""Let calls of the file system fail now and then, below one folder, in this process."""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

#: Audit events of calls that may fail.
_CALLS = frozenset(
    {
        *("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.symlink"),
        *("os.scandir", "os.listdir", "os.chmod", "os.truncate", "os.utime", "shutil.rmtree"),
    }
)
_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
    *(errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.EPERM, errno.EACCES, errno.ESTALE),
    *(errno.ENOENT, errno.EMFILE, errno.ENOTDIR, errno.EISDIR, errno.EBUSY, errno.ETXTBSY),
    *(errno.ELOOP,),
)
#: One of so many calls fails.
_CALLS_BETWEEN = 60


class FileErrors:
    """Python's audit hooks run before each call and can make it fail. They cannot be removed: make only one."""

    def __init__(self) -> None:
        self.figures: Counter[str] = Counter()
        self._chance: Random | None = None
        self._root, self._left = "", 0
        sys.addaudithook(self._before_call)

    @contextmanager
    def one(self, chance: Random, root: Path) -> Iterator[None]:
        """Let at most one call inside fail that concerns a path below `root`, or a relative one."""
        self._root, self._left = str(root), chance.randrange(1, _CALLS_BETWEEN)
        self._chance = chance
        try:
            yield
        finally:
            self._chance = None

    def _before_call(self, event: str, arguments: tuple[Any, ...]) -> None:
        chance = self._chance
        if (
            chance is None
            or event not in _CALLS
            or not isinstance(arguments[0], str | bytes | Path)
        ):
            return
        path = os.fsdecode(arguments[0])
        if path.startswith("/") and not path.startswith(self._root):
            return
        self._left -= 1
        if self._left <= 0:
            self._chance = None
            self.figures[event] += 1
            number = chance.choice(_ERRORS)
            raise OSError(number, os.strerror(number), path)
