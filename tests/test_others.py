"""What users outside the group can read of a root: nothing, or the results if they were opened."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nst_daemon import files, rights
from nst_daemon.config import Folders
from nst_daemon.ops import doctor
from tests.service.conftest import Served
from tests.shared_root import (
    GROUP,
    MEMBER,
    OUTSIDER,
    SERVICE,
    configured,
    installed,
    modes,
    own,
    shell,
)
from tests.users import User, needs_root


@pytest.fixture
def folders(reachable: Path) -> Folders:
    """The folders of a root as an installation creates them."""
    return installed(reachable)


def readable(folders: Folders, user: User) -> set[str]:
    """The files under the root that a user can open, relative to it."""
    files = [path for path in folders.root.rglob("*") if path.is_file()]
    read, write = os.pipe()

    def try_all() -> None:
        for path in files:
            with suppress(PermissionError):
                path.open("rb").close()
                os.write(write, f"{path.relative_to(folders.root)}\n".encode())

    user.run(try_all)
    os.close(write)
    with os.fdopen(read) as pipe:
        return set(pipe.read().splitlines())


def painted(folders: Folders, user: User, python: Path) -> None:
    """Let a member drop a pair, and a daemon of a user paint it and end."""
    served = Served(folders.root, python)
    served.environment["NST_OUTPUTS__GALLERY"] = "true"
    MEMBER.run(lambda: served.pair("dog", iterations=5))
    served.start(user=user)
    try:
        served.until((folders.done / "dog").exists, "job in done/")
        served.until((folders.results / "index.html").exists, "gallery")
        assert served.end() == 0, served.text()
    finally:
        if served.process and served.process.poll() is None:
            served.process.kill()
            served.process.wait()


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    """An interpreter with the packages of the tests that every user can start."""
    here, system = Path(sys.executable), Path("/usr/bin/python3")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if all(map(reached, (here, here.resolve()))):
        yield here
        return
    if system.resolve().name != version or not reached(Path(__file__)):
        pytest.skip(f"other users cannot reach {here.resolve()}")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        subprocess.run([system, "-m", "venv", "--without-pip", f"{folder}/env"], check=True)
        libraries = [path for path in sys.path if path.endswith("-packages")]
        site = Path(folder, "env", "lib", version, "site-packages")
        (site / "borrowed.pth").write_text("\n".join(libraries))
        yield Path(folder, "env", "bin", "python")


def reached(path: Path) -> bool:
    return all(above.stat().st_mode & 0o001 for above in path.parents)


@needs_root
@pytest.mark.parametrize("umask", [0o007, 0o022])
def test_other_users_can_read_nothing(folders: Folders, umask: int, python: Path) -> None:
    """No file that a daemon made is readable for others; members read all. The umask of cron does not matter."""
    painted(folders, User(SERVICE.uid, SERVICE.gid, [GROUP], umask), python)
    (folders.root / "log").unlink()
    paths = [path for path in folders.root.rglob("*") if not path.is_symlink()]
    assert {"dog.png", "dog.json", "index.html", "ledger.sqlite", "README.txt"} <= {
        path.name for path in paths
    }
    assert [str(path) for path in paths if path.stat().st_mode & 0o007] == []
    assert readable(folders, OUTSIDER) == set()
    files = {str(path.relative_to(folders.root)) for path in paths if path.is_file()}
    assert readable(folders, MEMBER) == files
    SERVICE.run(lambda: said_of_others(folders, "good", "can read nothing under"))


@needs_root
def test_results_can_be_opened_alone(folders: Folders, python: Path) -> None:
    """With the modes and the umask of public-results.conf, others read every result and nothing else."""
    drop_in = (Path(__file__).parent.parent / "systemd" / "public-results.conf").read_text()
    mode, umask = (
        int(re.findall(rf"^{key}=(\d+)$", drop_in, re.MULTILINE)[0], 8)
        for key in ("StateDirectoryMode", "UMask")
    )
    folders.root.chmod(mode)
    shell(f"chmod -R o+rX '{folders.results}'")
    painted(folders, User(SERVICE.uid, SERVICE.gid, [GROUP], umask), python)
    results = {
        str(path.relative_to(folders.root)) for path in folders.results.rglob("*") if path.is_file()
    }
    assert {"results/dog.png", "results/dog.json", "results/index.html"} <= results
    assert readable(folders, OUTSIDER) - {"log", "README.txt"} == results
    SERVICE.run(lambda: said_of_others(folders, "good", "results and nothing else"))


def said_of_others(folders: Folders, level: str, text: str) -> None:
    found = doctor.check_others(folders)
    assert found.level == level
    assert text in found.message


@needs_root
def test_open_folders_of_an_older_version_are_named_with_the_command(folders: Folders) -> None:
    """Folders that others can read are a warning, and its command closes them and keeps the setgid bit."""
    folders.root.chmod(0o2755)
    for name in ("inbox", "styles", "results", "done", "failed"):
        getattr(folders, name).chmod(0o2775)
    SERVICE.run(lambda: said_of_others(folders, "warning", f"other users can read {folders.inbox}"))
    command, _, hint = doctor.check_others(folders).remedy.partition("; ")
    assert hint == f"leave out {folders.results} if others shall read the results"
    shell(command.removeprefix("sudo "))
    said_of_others(folders, "good", "can read nothing")
    for name in ("inbox", "styles", "results", "done", "failed"):
        assert getattr(folders, name).stat().st_mode & 0o7777 == 0o2770
    assert folders.root.stat().st_mode & 0o7777 == 0o2755


@needs_root
def test_a_root_of_one_person_keeps_the_umask(reachable: Path) -> None:
    """In folders that no group shares, new files follow the umask; doctor names what others read, as no problem."""
    own(reachable, 0o755)
    made = configured(reachable).folders
    user = User(SERVICE.uid, SERVICE.gid, umask=0o022)

    def start() -> None:
        rights.check_start(made)
        rights.share_with_group(made)
        files.make_folder(made.results)
        files.write_atomic(made.results / "dog.json", b"")
        said_of_others(made, "good", f"other users can read {made.results}")

    user.run(start)
    assert modes(made.results) == {"dog.json": "0o644"}
    assert modes(reachable) == {"results": "0o755"}
    reachable.chmod(0o700)
    user.run(lambda: said_of_others(made, "good", "can read nothing"))
