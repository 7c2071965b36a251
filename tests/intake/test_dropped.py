"""Jobs that are still in the inbox, found by their ids."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from nst_daemon.errors import SettingsError, StorageError
from nst_daemon.intake.dropped import find
from nst_daemon.intake.drops import JobSettings, new_job_id
from nst_daemon.intake.submit import Part, drop, settings_file
from nst_daemon.jobs import Role
from tests.intake.conftest import PNG, House

ID = "0123456789abcdef" * 2


def test_a_dropped_job_is_found_by_its_id(house: House) -> None:
    """The id that `drop` returns leads to the name, and an id that no file has leads to none."""
    picture = house.root / "photo.png"
    picture.write_bytes(PNG)
    dropped = drop(house.inbox, "my dog", [Part(Role.CONTENT, picture)], {"seed": 3})
    assert dropped.name == "my dog"
    assert find(house.inbox, dropped.id) == "my dog"
    assert find(house.inbox, new_job_id()) == ""


def test_a_likely_name_is_not_taken_for_the_job(house: House) -> None:
    """The name is only where the search begins: the id counts."""
    house.drop("dog.yaml", settings_file({}, "f" * 32))
    house.drop("cat.yaml", settings_file({}, ID))
    assert find(house.inbox, ID, "cat") == find(house.inbox, ID, "dog") == "cat"
    assert find(house.inbox, "0" * 32, "dog") == ""


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (f"id: {ID}\n", True),
        (f"size: 64\nid:   '{ID}'\r\n", True),
        (f'id: "{ID}"  # of the API', True),
        (f"id: {ID}0\n", False),
        (f"style: {ID}\n", False),
        (f"note: id: {ID}\n", False),
        (f"id: '{ID}\n", False),
    ],
)
def test_an_id_is_a_whole_value_of_its_key(house: House, text: str, known: bool) -> None:
    """Only the value of `id` counts, in any line and with or without quotes."""
    house.drop("dog.yml", text)
    assert find(house.inbox, ID) == ("dog" if known else "")


def test_only_regular_files_at_the_top_are_opened(house: House) -> None:
    """Links, FIFOs, folders, ignored files and files in folders are passed over."""
    outside = house.root / "outside.yaml"
    outside.write_bytes(settings_file({}, ID))
    (house.inbox / "link.yaml").symlink_to(outside)
    os.mkfifo(house.inbox / "fifo.yaml")
    (house.inbox / "folder.yaml").mkdir()
    house.drop("starry/dog.yaml", settings_file({}, ID))
    house.drop(".dog.yaml", settings_file({}, ID))
    house.drop("dog.txt", settings_file({}, ID))
    assert find(house.inbox, ID) == ""


def test_a_missing_inbox_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """An inbox that is not there is not an empty one."""
    with pytest.raises(StorageError):
        find(tmp_path / "inbox", ID)


def test_ten_thousand_drops_take_less_than_a_second(house: House) -> None:
    """The job that is found last among 10,000 is found in a second of processor time."""
    for number in range(10_000):
        house.drop(f"dog{number}.yaml", settings_file({"size": 64}, new_job_id()))
    began = time.process_time()
    assert find(house.inbox, ID) == ""
    assert time.process_time() - began < 1


@pytest.mark.parametrize("value", ["", ID.upper(), ID[1:], ID + "0", 3, None, [ID], "g" * 32])
def test_an_id_has_32_lower_case_hex_digits(value: object) -> None:
    """Any other value of `id` is refused with the name of the file."""
    with pytest.raises(SettingsError, match=r"dog\.yaml: id must be 32 hex digits"):
        JobSettings.parse({"id": value}, "dog.yaml")
