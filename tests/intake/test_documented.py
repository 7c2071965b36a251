"""docs/inbox.md against the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nst_daemon.intake.drops import SETTINGS_SUFFIXES
from nst_daemon.intake.walk import MAX_FOLDER_DEPTH
from tests.intake.conftest import House
from tests.pictures.kinds import with_suffixes

PAGE = (Path(__file__).parents[2] / "docs" / "inbox.md").read_text(encoding="utf-8")
DROPS = re.findall(r"(?m)^(\S.*?) +-> (\S+)$", PAGE)


@pytest.mark.parametrize(("drop", "result"), DROPS)
def test_every_documented_drop_is_one_job_of_that_name(
    house: House, drop: str, result: str
) -> None:
    """Each line's files are exactly one job, which takes all of them, and its picture has the documented name."""
    house.style("starry.jpg")
    paths = drop.split()
    for path in paths:
        house.drop(path, "size: 64\n") if Path(path).suffix in SETTINGS_SUFFIXES else house.drop(
            path
        )
    scan = house.settled()
    assert (scan.rejections, scan.waiting, scan.problems) == ((), (), ())
    (request,) = scan.requests
    assert request.name == result
    assert sorted(file.path for file in request.files if file.root == "inbox") == sorted(paths)


def test_the_page_has_examples() -> None:
    """The examples are found at all."""
    assert len(DROPS) >= 14


def test_suffixes_and_depth_are_the_documented_ones() -> None:
    """The page lists the suffixes of each format, and the depth of folders."""
    assert with_suffixes(PAGE) == PAGE, "run python -m tests.pictures.kinds"
    assert f"up to {MAX_FOLDER_DEPTH} deep" in PAGE
