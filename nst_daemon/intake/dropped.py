"""Jobs that are still in the inbox, by the id in their settings files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nst_daemon import files
from nst_daemon.intake.drops import SETTINGS_SUFFIXES, stem_of, suffix_of
from nst_daemon.intake.ignore import ignored
from nst_daemon.intake.parts import job_name
from nst_daemon.intake.walk import opened

#: The most settings files that `find` opens.
MOST_OPENED = 50_000
#: So much of each file is read: `submit` writes the id into the first line.
_HEAD_BYTES = 1024
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def find(inbox: Path, job_id: str) -> str:
    """The name of the job with this id whose files are directly in the inbox; "" if there is none.

    A job leaves the inbox after the ledger has it: look into the ledger again if nothing was found. Links are not
    followed.

    Raises:
        StorageError: The inbox cannot be read.
    """
    line = re.compile(
        rb"^id:[ \t]+(['\"]?)%b\1[ \t]*(?:#|\r?$)" % re.escape(job_id.encode()), re.MULTILINE
    )
    looked = 0
    with opened(inbox) as folder, files.storage(inbox), os.scandir(folder) as items:
        for item in items:
            if suffix_of(item.name) not in SETTINGS_SUFFIXES:
                continue
            looked += 1
            if looked > MOST_OPENED:
                break
            if line.search(_head(item, folder)) and not ignored(item.name):
                return job_name("", stem_of(item.name))
    return ""


def _head(item: os.DirEntry[str], folder: int) -> bytes:
    """The first bytes of a regular file; b"" if it cannot be read."""
    try:
        if not item.is_file(follow_symlinks=False):
            return b""
        descriptor = os.open(item.name, _FLAGS, dir_fd=folder)
        try:
            return os.read(descriptor, _HEAD_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
