"""File systems in the inbox and the library that fail or forbid. They are real, so these tests need root."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.intake.conftest import House
from tests.users import needs_root

pytestmark = needs_root


@pytest.fixture
def dead_mounts(tmp_path: Path) -> Iterator[list[Path]]:
    """FUSE mounts in the inbox, in a folder of it, and in the library, whose servers have ended."""
    house = tmp_path
    folders = [house / "inbox/cloud", house / "inbox/trip/cloud", house / "styles/cloud"]
    system = ctypes.CDLL(None)
    try:
        for folder in folders:
            folder.mkdir(parents=True)
            device = os.open("/dev/fuse", os.O_RDWR)
            options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
            failed = system.mount(b"none", os.fsencode(folder), b"fuse", 0, options)
            os.close(device)
            if failed:
                pytest.skip("mounting is not allowed here")
        yield folders
    except FileNotFoundError:
        pytest.skip("there is no FUSE here")
    finally:
        for folder in folders:
            system.umount2(os.fsencode(folder), 2)


def test_a_dead_mount_hides_nothing_else(tmp_path: Path, dead_mounts: list[Path]) -> None:
    """What lies beside a folder whose server has gone is taken, and the folder is named once with the cause."""
    house = House(tmp_path)
    for number in range(8):  # the mount is somewhere between them, in the order of the listing
        for name in (f"{number}", f"trip/{number}"):
            house.drop(f"{name}.content.png")
            house.drop(f"{name}.style.png")
        house.style(f"{number}.png")
    scan = house.settled()
    wanted = [*map(str, range(8)), *(f"trip/{number}" for number in range(8))]
    assert sorted(request.name for request in scan.requests) == wanted
    assert len(house.intake.rules(house.now, house.wall).styles) == 8
    cause = "cannot be read: Transport endpoint is not connected; check the disk or the mount"
    assert scan.problems == tuple(f"{place}/cloud {cause}" for place in ("styles", "inbox", "trip"))


@pytest.mark.parametrize("attribute", ["i", "a"])
def test_what_forbids_the_removal_is_named(tmp_path: Path, attribute: str) -> None:
    """Where an attribute keeps a file in the inbox, the message says how to remove the attribute."""
    house = House(tmp_path)
    house.drop("dog.content.png")
    kept = house.drop("dog.style.png")
    if subprocess.run(["chattr", f"+{attribute}", str(kept)], stderr=-3, check=False).returncode:
        pytest.skip("this file system has no attributes")
    try:
        (request,) = house.settled().requests
        (problem,) = house.remove(house.claim(request))
    finally:
        subprocess.run(["chattr", f"-{attribute}", str(kept)], check=True)
    assert problem == (
        "dog.style.png cannot be removed from the inbox: Operation not permitted; "
        "remove its attributes i and a (chattr -ia), or the sticky bit of its folder"
    )
