"""The power goes: what is left is what the disk has at that moment, and the next start sees it on another device."""

from __future__ import annotations

import filecmp
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from nst_daemon.jobs import JobState
from tests.torture.disks import make_image, mounted, only_in_torture
from tests.torture.root import Root, Victim
from tests.torture.victim import children

S = JobState
DROPS = 64
CUTS = 4


@contextmanager
def stopped(victim: Victim) -> Iterator[None]:
    """Nothing of the daemon runs meanwhile."""
    pids = [victim.process.pid, *children(victim.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def cut(victim: Victim, images: Sequence[Path], copies: Sequence[Path]) -> None:
    """Copy the disks as they are at one moment, without anything that is still in memory."""
    with stopped(victim):
        while True:
            for image, copy in zip(images, copies, strict=True):
                shutil.copyfile(image, copy)
            # Else the kernel has written meanwhile.
            if all(map(partial(filecmp.cmp, shallow=False), images, copies)):
                return


@contextmanager
def plugged_in(images: Sequence[Path], place: Path) -> Iterator[None]:
    """Mount the root's disk, and the inbox's where it has its own, which keeps removals in memory for long."""
    with ExitStack() as stack:
        stack.enter_context(mounted(images[0], place))
        (place / "root/inbox").mkdir(parents=True, exist_ok=True)
        for image in images[1:]:
            stack.enter_context(mounted(image, place / "root/inbox", "-o", "commit=300"))
        yield


@only_in_torture("losetup", "mkfs.ext4")
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("disks", [1, 2])
def test_after_a_power_cut_each_drop_is_painted_once(disks: int, tmp_path: Path) -> None:
    """Whenever the power goes, and whatever number the disks have then, no drop is lost and none is painted twice."""
    chance, place = random.Random(3), tmp_path / "place"
    images = [tmp_path / f"disk-{number}" for number in range(disks)]
    for image in images:
        make_image(image, "ext4", 64)
    cuts = []
    with plugged_in(images, place):
        root = Root(place / "root")
        device = root.inbox.stat().st_dev
        for number in range(DROPS):
            root.pair(f"n{number}", iterations=chance.choice([3, 3, 60]), seconds=0.01)
        subprocess.run(["sync"], check=True)
        victim = root.start(once=False)
        victim.until(lambda: victim.state("n0") is not None)
        for number in range(CUTS):
            until = time.monotonic() + chance.uniform(0.2, 2.0)
            victim.until(lambda end=until: time.monotonic() > end)  # type: ignore[misc]
            cuts.append([tmp_path / f"cut-{number}-{image.name}" for image in images])
            cut(victim, images, cuts[-1])
        victim.kill(together=True)
    with plugged_in(images, tmp_path / "first"):  # so that no copy gets its device
        for copies in cuts:
            with plugged_in(copies, place):
                assert root.inbox.stat().st_dev != device
                back = len(list(root.inbox.glob("*.png")))
                assert root.run() == 0, root.text()[-3000:]
                states = root.check_end()
                assert len(states) == DROPS
                assert set(states.values()) == {S.DONE}
                print(f"{back} files were back in the inbox")
