"""Builds the sdist and the wheel, so that the same commit gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MODE_MASK = 0o755  # as with a umask of 022


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a command.

    Args:
        command: the program and its arguments.
        cwd: the folder in which it runs.
        env: its variables; those of this process if None.

    Raises:
        CalledProcessError: It failed; its messages are shown.
    """
    done = subprocess.run(command, cwd=cwd, env=env, check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout


def at(seconds: int) -> dict[str, str]:
    """The variables of this process, with the time that tools write into what they build."""
    return os.environ | {"SOURCE_DATE_EPOCH": str(seconds)}


def commit_time(root: Path) -> int:
    """The time of the last commit in seconds since 1970."""
    return int(run(["git", "log", "-1", "--format=%ct"], cwd=root))


def build(root: Path, version: str, folder: Path) -> list[Path]:
    """Build a version from the last commit.

    The clone has the tag that a person will set later, so that the version is found as it will be then.

    Args:
        root: a git checkout.
        version: such as 1.2.3.
        folder: an empty folder for the clone and the results.

    Returns:
        The sdist, and the wheel that was built from it.
    """
    clone, built = folder / "clone", folder / "built"
    run(["git", "clone", "--quiet", f"file://{root}", clone], cwd=folder)
    run(["git", "tag", f"v{version}"], cwd=clone)
    seconds = commit_time(clone)
    build_sdist: list[str | Path] = [sys.executable, "-m", "build", "--sdist", "--outdir", built]
    run([*build_sdist, clone], cwd=folder, env=at(seconds))
    sdist = built / f"nst_daemon-{version}.tar.gz"
    normalise(sdist, seconds)
    with tarfile.open(sdist) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    build_wheel: list[str | Path] = [sys.executable, "-m", "build", "--wheel", "--outdir", built]
    run([*build_wheel, folder / "unpacked" / f"nst_daemon-{version}"], cwd=folder, env=at(seconds))
    return [sdist, built / f"nst_daemon-{version}-py3-none-any.whl"]


def normalise(sdist: Path, seconds: int) -> None:
    """Write an sdist again without what depends on the machine and the hour.

    setuptools keeps owners, modes and times of files, and gzip the time of the build.

    Args:
        sdist: a .tar.gz.
        seconds: the time of every file, since 1970.
    """
    with tarfile.open(sdist) as source:
        members = sorted(source.getmembers(), key=lambda member: member.name)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as target:
            for member in members:
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mtime = seconds
                member.mode = MODE_MASK if member.isdir() or member.mode & 0o100 else 0o644
                member.pax_headers = {}
                target.addfile(member, source.extractfile(member) if member.isfile() else None)
    sdist.write_bytes(gzip.compress(buffer.getvalue(), mtime=seconds))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
