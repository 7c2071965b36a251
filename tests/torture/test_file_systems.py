"""Results and archives on file systems that refuse names, and on disks that fail: one job, or a pause."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from tests.torture.disks import make_image, mounted, only_in_torture
from tests.torture.root import REPOSITORY, Root, Victim
from tests.torture.strict_rules import ERRNO, RULES

S = JobState
#: Names that some file system refuses.
NAMES = [
    "what now?", "a: b", 'say "x"', "<1>|<2>", "star*", "back\\slash", "dots...", "trail ", "con", "aux.x", "x" * 190,
    "é" * 95, "café", "犬", "🐕" * 40, "trip?/dog", "é/dog", "y" * 150 + "/dog",
]  # fmt: skip
#: Where the folders are that must be on one file system with the inputs' copies or not.
LAYOUTS = {
    "results": ("results",),
    "results and archives": ("results", "done", "failed"),
}

needs_fuse = pytest.mark.skipif(
    importlib.util.find_spec("mfusepy") is None or not os.access("/dev/fuse", os.W_OK),
    reason="needs /dev/fuse, libfuse2 and the package mfusepy",
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts the file system that refuses; see `strict_fs`."""
    store, place = tmp_path / "store", tmp_path / "place"
    store.mkdir()
    place.mkdir()
    servers: list[subprocess.Popen[bytes]] = []

    def mount(rule: str) -> Path:
        command = [sys.executable, "-m", "tests.torture.strict_fs", str(store), str(place), rule]
        servers.append(subprocess.Popen(command, cwd=REPOSITORY))
        deadline = time.monotonic() + 30
        while not os.path.ismount(place):
            assert servers[0].poll() is None and time.monotonic() < deadline, "no mount"
            time.sleep(0.05)
        return place

    yield mount
    subprocess.run(["umount", "-l", str(place)], check=False)
    for server in servers:
        server.wait(30)


def jobs(root: Root) -> dict[str, Job]:
    """The jobs of the ledger by name."""
    with Ledger.attach(root.ledger_path) as ledger:
        return {job.name: job for job in ledger.jobs()}


def all_are_painted(root: Root, place: Path, layout: str) -> None:
    """Drop pairs with all those names and one with a plain one; each must be done, with a picture, without a pause."""
    for folder in LAYOUTS[layout]:
        (place / folder).mkdir()
        root.settings[f"NST_FOLDERS__{folder.upper()}"] = str(place / folder)
    for name in NAMES:
        root.pair(name)
    root.pair("next")
    root.pair("bad?", do="raise", at=2)
    root.run()
    found = jobs(root)
    pictures = {job.result for job in found.values() if job.state is S.DONE}
    assert len(found) == len(NAMES) + 2
    wrong = {job.name: job.error for job in found.values() if job.state is not S.DONE}
    assert wrong.keys() == {"bad?"}, wrong
    assert len(pictures) == len(NAMES) + 1
    assert all((place / "results" / picture).is_file() for picture in pictures)
    assert "paused" not in root.text()


@only_in_torture()
@needs_fuse
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", RULES)
def test_names_that_are_refused_are_replaced(
    rule: str, layout: str, strict: Callable[[str], Path], tmp_path: Path
) -> None:
    """Where a file system refuses a name, the picture gets another one, and the queue never waits."""
    all_are_painted(Root(tmp_path / "root"), strict(rule), layout)


@only_in_torture("losetup", "mkfs.vfat")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fat_takes_all_results(layout: str, tmp_path: Path) -> None:
    """On FAT each picture gets a name that it can have."""
    make_image(tmp_path / "stick", "vfat", 64)
    with mounted(tmp_path / "stick", tmp_path / "place", "-o", "utf8"):
        all_are_painted(Root(tmp_path / "root"), tmp_path / "place", layout)


def status(root: Root) -> dict[str, object]:
    """What `nst-daemon status --json` says."""
    environment = {**os.environ, **root.settings, "NST_FOLDERS__ROOT": str(root.path)}
    found = subprocess.run(
        [sys.executable, "-m", "nst_daemon", "status", "--json"],
        env=environment, cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    shown = json.loads(found.stdout)
    assert isinstance(shown, dict)
    return shown


def pauses_and_goes_on(
    root: Root,
    victims: list[Victim],
    words: str,
    begin: Callable[[], object],
    end: Callable[[], object],
) -> None:
    """A pair is dropped while a disk fails: one line at the begin, a status that says why, one line at the end."""
    began = time.time()
    victims.append(root.start(once=False))
    victim = victims[0]
    assert victim.until(lambda: "serving" in root.text()), root.text()
    begin()
    root.pair("second", padding="x" * 300_000)
    assert victim.until(lambda: "paused: " in root.text()), root.text()
    several_rounds = time.monotonic() + 4.0
    victim.until(lambda: time.monotonic() > several_rounds)
    live = status(root)["live"]
    assert isinstance(live, dict)
    assert live["state"] == "paused"
    assert words in live["reason"]
    assert began - 1 < live["paused_since"] < time.time()
    end()
    assert victim.until(lambda: victim.state("second") is S.DONE), root.text()
    assert victim.until(lambda: "resumed" in root.text()), root.text()
    victim.process.terminate()
    assert victim.wait() == 0
    assert root.text().count("paused: ") == 1
    assert root.text().count("resumed") == 1


@only_in_torture()
@needs_fuse
@pytest.mark.parametrize("folder", ["results", "done"])
@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EROFS", "EIO"])
def test_a_disk_that_fails_makes_the_queue_wait(
    name: str,
    folder: str,
    strict: Callable[[str], Path],
    tmp_path: Path,
    victims: list[Victim],
) -> None:
    """While the disk of a folder answers an error of disks, the queue waits; then it goes on by itself."""
    place, root = strict("nothing"), Root(tmp_path / "root")
    (place / folder).mkdir()
    root.settings[f"NST_FOLDERS__{folder.upper()}"] = str(place / folder)
    flag = tmp_path / "store" / ERRNO
    words = {"ENOSPC": "No space", "EDQUOT": "quota", "EROFS": "Read-only", "EIO": "Input/output"}
    pauses_and_goes_on(root, victims, words[name], lambda: flag.write_text(name), flag.unlink)


@only_in_torture("losetup", "mkfs.ext4")
@pytest.mark.parametrize("folder", ["results", "done"])
def test_a_disk_that_becomes_read_only_makes_the_queue_wait(
    folder: str, tmp_path: Path, victims: list[Victim]
) -> None:
    """While a folder's disk is mounted read-only, the queue waits; then it goes on by itself."""
    make_image(tmp_path / "disk", "ext4", 32)
    place = tmp_path / "place"

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)

    with mounted(tmp_path / "disk", place):
        (place / folder).mkdir()
        root = Root(tmp_path / "root")
        root.settings[f"NST_FOLDERS__{folder.upper()}"] = str(place / folder)
        pauses_and_goes_on(root, victims, "Read-only", lambda: remount("ro"), lambda: remount("rw"))
