"""Jobs are put into the inbox completely, all or none."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from nst_daemon.errors import StorageError, UsageError
from nst_daemon.intake.submit import (
    Delivery,
    DroppedJob,
    Part,
    appear_all,
    complete_killed,
    drop_all,
)
from nst_daemon.jobs import Role


@pytest.fixture
def pair(tmp_path: Path) -> list[Part]:
    """The pictures of a job."""
    parts = []
    for role in (Role.CONTENT, Role.STYLE):
        path = tmp_path / f"any {role}.PNG"
        path.write_bytes(role.encode())
        parts.append(Part(role, path))
    return parts


def names(inbox: Path) -> set[str]:
    """The names of all files in the inbox."""
    return {path.name for path in inbox.iterdir()}


def test_several_jobs(inbox: Path, pair: list[Part]) -> None:
    """Each job has its files under its own name, and jobs of the same name are numbered."""
    found = drop_all(inbox, [("dog", pair), ("cat", pair), ("dog", pair)], {"size": 64})
    assert [job.name for job in found] == ["dog", "cat", "dog-2"]
    assert names(inbox) == {
        f"{job.name}.{ending}" for job in found for ending in ("yaml", "content.png", "style.png")
    }


@pytest.mark.parametrize("bad", ["name", "suffix", "missing", "format"])
def test_none_if_one_is_refused(inbox: Path, pair: list[Part], tmp_path: Path, bad: str) -> None:
    """If one of several jobs is refused, nothing is in the inbox."""
    other = tmp_path / {"suffix": "a.txt", "format": "b.jpg"}.get(bad, "c.png")
    if bad != "missing":
        other.write_bytes(b"GIF89a" + bytes(20))
    jobs = [("dog", pair), ("~cat" if bad == "name" else "cat", [Part(Role.CONTENT, other)])]
    with pytest.raises(UsageError):
        drop_all(inbox, jobs, {}, ("jpeg", "png") if bad == "format" else ("jpeg", "png", "gif"))
    assert names(inbox) == set()


def two_deliveries(inbox: Path) -> list[Delivery]:
    """Two jobs of one file each; the file of the second has been lost."""
    deliveries = [Delivery(inbox), Delivery(inbox)]
    for delivery in deliveries:
        hidden = Path(delivery.file(".content.png").name)
        delivery.complete()
    hidden.unlink()
    return deliveries


WANTED = [DroppedJob("1" * 32, "dog"), DroppedJob("2" * 32, "cat")]


def test_jobs_are_withdrawn_if_a_later_one_cannot_appear(inbox: Path) -> None:
    """If the second of two jobs cannot get its name, the first is removed again."""
    with pytest.raises(StorageError) as refused:
        appear_all(two_deliveries(inbox), WANTED)
    assert names(inbox) == set()
    assert "has taken" not in str(refused.value)


def test_a_job_that_was_taken_is_named(inbox: Path) -> None:
    """If the daemon has taken the first job when the second fails, the message says so."""
    first, second = two_deliveries(inbox)

    class TakenDelivery(Delivery):
        """A job that the daemon takes at once."""

        def appear(self, name: str, folder: str = "") -> str:
            """Give the files their names, and move them away."""
            found = first.appear(name, folder)
            (inbox / f"{found}.content.png").unlink()
            return found

        def withdraw(self) -> bool:
            """Remove the files."""
            return first.withdraw()

    with pytest.raises(StorageError, match="the daemon has taken dog already"):
        appear_all([TakenDelivery(inbox), second], WANTED)
    assert names(inbox) == set()


def test_a_submission_of_a_killed_process_is_completed(inbox: Path, pair: list[Part]) -> None:
    """A process that is killed while files get their names leaves all jobs complete, with their masks."""

    class Killed(Delivery):
        """Its process is killed."""

        def appear(self, name: str, folder: str = "") -> str:
            """Name the first file only."""
            (hidden, target), *_ = self.renames(name)
            (inbox / hidden).rename(inbox / target)
            os.kill(os.getpid(), signal.SIGKILL)
            return name

    def submit() -> None:
        deliveries = [Delivery(inbox), Killed(inbox), Delivery(inbox)]
        for delivery in deliveries:
            for ending in (".yaml", ".content.png", ".style.png", ".content-mask.png"):
                delivery.file(ending)
            delivery.complete()
        appear_all(deliveries, [DroppedJob(str(n) * 32, "dog") for n in range(3)])

    process = multiprocessing.get_context("fork").Process(target=submit)
    process.start()
    process.join()
    assert {name for name in names(inbox) if name.startswith("dog-2")} == {"dog-2.yaml"}
    complete_killed(inbox)
    endings = ("yaml", "content.png", "style.png", "content-mask.png")
    assert names(inbox) == {f"{n}.{e}" for n in ("dog", "dog-2", "dog-3") for e in endings}


def test_a_submission_of_a_running_process_is_left_alone(inbox: Path) -> None:
    """What another process is submitting is not touched."""
    delivery = Delivery(inbox)
    delivery.file(".png")

    class Slow(Delivery):
        """Looks for killed submissions at the wrong moment."""

        def appear(self, name: str, folder: str = "") -> str:
            """Call it."""
            process = multiprocessing.get_context("fork").Process(
                target=complete_killed, args=(inbox,)
            )
            process.start()
            process.join()
            assert process.exitcode == 0
            return name

    slow = Slow(inbox)
    slow.file(".png")
    appear_all([slow], [DroppedJob("1" * 32, "dog")])
    assert all(name.startswith(".") for name in names(inbox))
