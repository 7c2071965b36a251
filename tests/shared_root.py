"""A root as an installation creates it, and the users that share it or may not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from nst_daemon.config import Config, Folders, load
from tests.users import User

GROUP = 65534
SERVICE = User(1, 1, [GROUP], umask=0o007)
MEMBER = User(2, 2, [GROUP])
OUTSIDER = User(3, 3)


def installed(root: Path) -> Folders:
    """The folders of a root as an installation creates them: setgid, and closed to others."""
    made = configured(root).folders
    own(root, 0o2750)
    for folder in (made.inbox, made.styles, made.results, made.done, made.failed, made.state):
        folder.mkdir()
        own(folder, 0o2770)
    return made


def configured(root: Path) -> Config:
    """The configuration of a root."""
    return load(None, {"NST_FOLDERS__ROOT": str(root)})


def own(path: Path, mode: int) -> None:
    """Give a path to the service, with this mode."""
    os.chown(path, SERVICE.uid, GROUP)
    path.chmod(mode)


def modes(folder: Path) -> dict[str, str]:
    """The mode of each entry of a folder, without special bits."""
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}


def shell(command: str) -> None:
    """Run a command that a message names."""
    subprocess.run(command, shell=True, check=True)
