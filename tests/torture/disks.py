"""Real file systems in files, for tests that fill, cut, lock and forbid. Only root can mount them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: `make torture` sets it: these tests take long, and need root and packages.
TORTURE = "NST_TORTURE"


def only_in_torture(*programs: str) -> pytest.MarkDecorator:
    """Skip a test outside `make torture`, without root, or without these programs."""
    missing = [program for program in programs if shutil.which(program) is None]
    reason = ""
    if TORTURE not in os.environ:
        reason = "only in `make torture`"
    elif os.geteuid() != 0:
        reason = "only root can mount"
    elif missing:
        reason = f"needs {', '.join(missing)}"
    return pytest.mark.skipif(bool(reason), reason=reason)


def make_image(path: Path, kind: str, megabytes: int) -> None:
    """Make a file with an empty file system of a kind that there is a `mkfs.KIND` for."""
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    force = ["-F"] if kind.startswith("ext") else []
    subprocess.run([f"mkfs.{kind}", *force, str(path)], check=True, capture_output=True)


@contextmanager
def mounted(image: Path, place: Path, *options: str) -> Iterator[None]:
    """Mount an image at a folder, on a loop device of its own; skip where that is not possible."""
    found = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=False, capture_output=True, text=True
    )
    if found.returncode:
        pytest.skip(f"no loop device: {found.stderr.strip()}")
    device = found.stdout.strip()
    try:
        place.mkdir(exist_ok=True)
        command = ["mount", *options, device, str(place)]
        tried = subprocess.run(command, check=False, capture_output=True, text=True)
        if tried.returncode:
            pytest.skip(f"cannot be mounted here: {tried.stderr.strip()}")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
