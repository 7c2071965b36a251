"""The names that file systems refuse; see `strict_fs`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

#: While this file is there with the name of an error, each change answers that error.
ERRNO = ".errno"
#: Why a name is refused (0: it is not), by the name of the rule.
RULES: dict[str, Callable[[str], int]] = {
    "nothing": lambda name: 0,
    "characters": lambda name: (
        errno.EINVAL * (bool(set(name) & set('\\:*?"<>|')) or name[-1:] in {".", " "})
    ),
    "length": lambda name: errno.ENAMETOOLONG * (len(os.fsencode(name)) > 143),
    "encoding": lambda name: errno.EILSEQ * (not name.isascii()),
}
