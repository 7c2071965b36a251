"""The id that a settings file gives to its job."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_daemon.jobs import JobState
from tests.bench import PNG, Bench

S = JobState
ID = "0123456789abcdef" * 2
OWN = f"id: {ID}\n".encode()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A root with an empty inbox."""
    return Bench(tmp_path)


def test_a_job_gets_the_id_of_its_settings_file(bench: Bench) -> None:
    """The id counts for a job that is painted, and is not one of its settings."""
    bench.drop(yaml=OWN)
    assert bench.job().id == ID
    bench.executor.paint()
    bench.step(times=3)
    assert bench.job().state is S.DONE
    assert (bench.folders.done / "dog" / "dog.yaml").read_bytes() == OWN


@pytest.mark.parametrize(
    "yaml", [OWN + b"size: enormous", OWN + b"style: nothing", OWN + b"colour: 3"]
)
def test_a_refused_drop_gets_its_id_too(bench: Bench, yaml: bytes) -> None:
    """A job that is refused because of a setting or a style is found by its id."""
    bench.drop(yaml=yaml)
    assert (bench.job().id, bench.job().state) == (ID, S.FAILED)


def test_an_incomplete_drop_keeps_its_id(bench: Bench) -> None:
    """A drop that waited for a picture in vain fails under its id."""
    (bench.folders.inbox / "dog.content.png").write_bytes(PNG)
    (bench.folders.inbox / "dog.yaml").write_bytes(OWN)
    bench.step(1.5, times=4)
    bench.change(service={"pair_timeout": 1.0})
    bench.step(2000, times=4)
    assert (bench.job().id, bench.job().state) == (ID, S.FAILED)


def test_an_invalid_id_is_refused(bench: Bench) -> None:
    """A drop with another value of `id` fails, and the message says what is allowed."""
    bench.drop(yaml=b"id: 12")
    assert bench.error().startswith("dog.yaml: id must be 32 hex digits")


def test_an_id_in_use_is_replaced_by_a_new_one(bench: Bench) -> None:
    """A settings file that was copied from done/ makes another job, and its history says why."""
    bench.drop(yaml=OWN)
    bench.executor.paint()
    bench.step(times=3)
    bench.drop("cat", yaml=OWN)
    first, second = bench.ledger.jobs()
    assert (first.id, first.state) == (ID, S.DONE)
    assert second.id != ID
    assert "has the id of another job" in bench.ledger.events(second.id)[0].note


def test_two_drops_with_one_id_are_two_jobs(bench: Bench) -> None:
    """Of two drops of one scan with the same id, one gets it, and both are painted."""
    for name in ("cat", "dog"):
        for ending, data in (("content.png", PNG), ("style.png", PNG), ("yaml", OWN)):
            (bench.folders.inbox / f"{name}.{ending}").write_bytes(data)
    bench.step(1.5, times=4)
    jobs = bench.ledger.jobs()
    assert len(jobs) == 2
    assert [job.id == ID for job in jobs].count(True) == 1


def test_a_retried_job_keeps_its_id(bench: Bench) -> None:
    """A retry of a job with `id:` is the same job, not a copy under a new id."""
    bench.drop(yaml=OWN + b"size: enormous")
    (bench.folders.failed / "dog" / "dog.yaml").write_bytes(OWN)
    bench.ledger.request(ID, "retry", now=bench.now.wall)
    bench.step(2, times=3)
    assert bench.job().id == ID
    assert bench.job().state is S.RUNNING


def test_a_leftover_of_an_interrupted_claim_does_not_take_the_id(bench: Bench) -> None:
    """A folder of the spool without a complete job is removed, and the drop gets its id."""
    leftover = bench.folders.spool / ID
    leftover.mkdir()
    (leftover / "dog.content.png").write_bytes(PNG)
    bench.drop(yaml=OWN)
    assert bench.job().id == ID


def test_hot_folders_take_ids(bench: Bench) -> None:
    """The settings file of a picture in a hot folder gives its id to the job of that picture."""
    (bench.folders.styles / "starry.png").write_bytes(PNG)
    folder = bench.folders.inbox / "starry"
    folder.mkdir()
    (folder / "dog.png").write_bytes(PNG)
    (folder / "dog.yaml").write_bytes(OWN)
    bench.step(1.5, times=5)
    assert (bench.job().id, bench.job().name) == (ID, "starry/dog")
