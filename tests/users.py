"""Parts of tests that run as other users. Only root can become another user."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@dataclass(frozen=True)
class User:
    """A user without special rights. Users with low numbers have names on every Linux."""

    uid: int
    gid: int
    groups: Iterable[int] = ()
    umask: int = 0o022

    def process(self) -> dict[str, Any]:
        """The arguments of `subprocess.Popen` that start a process of this user."""
        groups = list(self.groups)
        return {"user": self.uid, "group": self.gid, "extra_groups": groups, "umask": self.umask}

    def run(self, part: Callable[[], object], *, killed: bool = False) -> None:
        """Run a part of a test in a process of this user (without root: the current one). What fails there fails.

        Args:
            part: The function.
            killed: End the process without closing what `part` has opened.
        """
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.setgroups(list(self.groups))
                    os.setresgid(self.gid, self.gid, self.gid)
                    os.setresuid(self.uid, self.uid, self.uid)
                assert os.geteuid() != 0
                os.umask(self.umask)
                kept = part()  # as long as it is open here, it is not closed
                if killed:
                    os._exit(0)
                del kept
            except BaseException:  # noqa: BLE001 (told to the parent)
                os.write(write, traceback.format_exc().encode()[:60_000])
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        assert not said, said
