"""Deletion by request: the files of an ended job are removed, and its row stays in the history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nst_daemon.intake import batch
from nst_daemon.intake.expansion import Expansion
from nst_daemon.jobs import Job, JobState
from nst_daemon.service.batches import batch_reach
from nst_daemon.service.state import Pacing
from nst_daemon.workers.messages import Failed, Retry
from tests.bench import PNG, Bench

S = JobState


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A supervisor that has just started."""
    return Bench(tmp_path)


def painted(bench: Bench, name: str = "dog") -> Job:
    """A job whose picture is in results/."""
    bench.drop(name)
    bench.executor.paint()
    bench.step(1, times=2)
    job = bench.ledger.find(name)[0]
    assert job.state is S.DONE
    return job


def failed(bench: Bench) -> Job:
    """A job whose inputs are in failed/."""
    bench.drop()
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "bad luck"))
    bench.step(1, times=2)
    return bench.job()


def delete(bench: Bench, job: Job) -> Job:
    """Request the deletion of a job, and let the daemon do it."""
    bench.ledger.request(job.id, "delete", now=bench.now.wall)
    bench.step(2, times=2)
    assert bench.ledger.pending_requests() == []
    found = bench.ledger.get(job.id)
    assert found is not None
    return found


def below(folder: Path) -> set[str]:
    """All files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def last_note(bench: Bench, job: Job) -> str:
    """The note of the last event of a job."""
    return bench.ledger.events(job.id)[-1].note


def test_a_picture_goes_with_all_its_files(bench: Bench) -> None:
    """Picture, sidecar, loss plot, time-lapse and inputs are removed; the row keeps its state and says why."""
    job = painted(bench)
    job = bench.ledger.note(
        job.id,
        now=job.updated,
        staged_files=("dog.json", "dog.loss.png", "dog.progress.webp", "dog.png"),
    )
    results = bench.folders.results
    for ending in ("loss.png", "progress.webp"):
        (results / f"dog.{ending}").write_bytes(b"of the job")
    thumbnail = results / ".gallery" / f"{job.staged_sha256[:24]}-360.webp"
    thumbnail.parent.mkdir()
    thumbnail.touch()
    after = delete(bench, job)
    assert (after.state, after.result, after.archive, after.deleted) == (S.DONE, "", "", True)
    assert last_note(bench, job) == "deleted by request"
    assert below(results) == below(bench.folders.done) == set()
    assert bench.chores.requests.count(("gallery",)) == 0


def test_the_gallery_is_written_again(tmp_path: Path) -> None:
    """With outputs.gallery a deletion is followed by a new gallery."""
    bench = Bench(tmp_path)
    bench.change(outputs={"gallery": True})
    job = painted(bench)
    bench.chores.requests.clear()
    delete(bench, job)
    assert bench.chores.requests == [("gallery",)]


def test_a_failed_job_goes_with_its_inputs(bench: Bench) -> None:
    """failed/NAME/ and the last preview are removed; the job stays deleted after a restart, and cannot be retried."""
    job = failed(bench)
    preview = bench.folders.previews / "dog.jpg"
    preview.parent.mkdir(parents=True)
    preview.touch()
    after = delete(bench, job)
    assert (after.state, after.archive, after.deleted) == (S.FAILED, "", True)
    assert below(bench.folders.failed) == below(bench.folders.results) == set()
    bench.begin()
    bench.step(1, times=2)
    assert below(bench.folders.failed) == set()
    bench.ledger.request(job.id, "retry", now=bench.now.wall)
    bench.step(1, times=2)
    assert bench.job().state is S.FAILED
    assert "its files were deleted by request" in last_note(bench, job)


def test_only_the_files_of_the_job_go(bench: Bench) -> None:
    """Files that a person has added to the folder of the inputs, and results of other jobs, stay."""
    job, other = painted(bench), painted(bench, "cat")
    (bench.folders.done / "dog" / "notes.txt").write_text("mine")
    before = below(bench.folders.results)
    delete(bench, job)
    assert below(bench.folders.done) == {"dog/notes.txt"} | {
        f"cat/{name}" for name in below(bench.folders.done / "cat")
    }
    assert before - below(bench.folders.results) == {"dog.png", "dog.json"}
    assert (bench.folders.results / other.result).exists()


def test_a_result_that_a_person_has_replaced_stays(bench: Bench) -> None:
    """A picture whose sidecar names another job is left alone, with everything beside it."""
    job = painted(bench)
    results = bench.folders.results
    (results / "dog.json").write_text(json.dumps({"job": {"id": "f" * 32}}))
    (results / "dog.png").write_bytes(b"another picture")
    after = delete(bench, job)
    assert (after.result, after.deleted) == ("", True)
    assert below(results) == {"dog.png", "dog.json"}


@pytest.mark.parametrize(("changed", "left"), [(False, set()), (True, {"dog.png"})])
def test_without_a_sidecar_the_picture_counts(bench: Bench, changed: bool, left: set[str]) -> None:
    """A picture without a sidecar goes if it is as it was painted, and stays if it is another one."""
    job = painted(bench)
    (bench.folders.results / "dog.json").unlink()
    if changed:
        (bench.folders.results / "dog.png").write_bytes(b"another picture")
    delete(bench, job)
    assert below(bench.folders.results) == left


@pytest.mark.parametrize("sidecar", [b"[" * 100_000, b"\xff", b"[]", b"{}", b'{"job": 3}'])
def test_a_damaged_sidecar_does_not_prevent_a_deletion(bench: Bench, sidecar: bytes) -> None:
    """A sidecar that names no job counts as none: the picture goes if it is as it was painted, and the file stays."""
    job = painted(bench)
    (bench.folders.results / "dog.json").write_bytes(sidecar)
    assert delete(bench, job).deleted
    assert below(bench.folders.results) == {"dog.json"}


def test_the_curve_of_another_job_is_not_taken_for_its_own(bench: Bench) -> None:
    """dog.loss.png is not removed with the job dog if it is the picture of the job dog.loss."""
    job = painted(bench)
    bench.ledger.note(job.id, now=job.updated, staged_files=("dog.json", "dog.loss.png", "dog.png"))
    other = painted(bench, "dog.loss")
    delete(bench, job)
    assert below(bench.folders.results) == {other.result, "dog.loss.json"}


def test_what_cannot_be_removed_stays_with_the_job(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A picture that is a folder now is named in the log and the history, and the deletion can be repeated."""
    job = painted(bench)
    picture = bench.folders.results / "dog.png"
    picture.unlink()
    picture.mkdir()
    after = delete(bench, job)
    assert (after.result, after.archive, after.deleted) == ("dog.png", "", False)
    assert "dog.png cannot be removed" in last_note(bench, job)
    assert "dog.png cannot be removed" in caplog.text
    picture.rmdir()
    after = delete(bench, job)
    assert (after.result, after.deleted) == ("", True)
    assert below(bench.folders.results) == set()


def test_a_failed_job_that_keeps_files_keeps_its_archive(bench: Bench) -> None:
    """A failed job of which something stays is not archived once more by the next start."""
    job = failed(bench)
    preview = bench.folders.previews / "dog.jpg"
    preview.mkdir(parents=True)
    after = delete(bench, job)
    assert (after.archive, after.deleted) == ("dog", False)
    bench.begin()
    bench.step(1, times=2)
    assert below(bench.folders.failed) == set()
    preview.rmdir()
    assert delete(bench, job).deleted


@pytest.mark.parametrize("removed", [("dog.png",), ("dog.png", "dog.json"), ()])
def test_an_interrupted_deletion_is_finished(bench: Bench, removed: tuple[str, ...]) -> None:
    """After a crash between two steps the next start removes the rest."""
    job = painted(bench)
    for name in removed:
        (bench.folders.results / name).unlink()
    bench.ledger.request(job.id, "delete", now=bench.now.wall)
    bench.begin()
    bench.step(2, times=2)
    assert bench.job().deleted
    assert below(bench.folders.results) == below(bench.folders.done) == set()


def test_a_job_that_has_not_ended_keeps_its_files(bench: Bench) -> None:
    """The request does nothing with a job that is being painted, and the history says so."""
    bench.drop()
    after = delete(bench, bench.job())
    assert (after.state, after.deleted) == (S.RUNNING, False)
    assert last_note(bench, after) == "not deleted: it has not ended"


def test_a_cancelled_job_is_deleted_after_it_has_ended(bench: Bench) -> None:
    """A deletion that was requested after a cancellation waits for it."""
    bench.executor.room = 0
    bench.drop()
    job = bench.job()
    bench.ledger.request(job.id, "cancel", now=bench.now.wall)
    after = delete(bench, job)
    assert (after.state, after.deleted) == (S.CANCELLED, True)
    assert below(bench.folders.failed) == set()


def test_deletions_are_done_in_portions(bench: Bench) -> None:
    """A round does no more deletions than claims, and the next portion follows without a pause."""
    jobs = [painted(bench, f"dog{number}") for number in range(3)]
    bench.pacing = Pacing(claims_a_round=2)
    bench.begin()
    for job in jobs:
        bench.ledger.request(job.id, "delete", now=bench.now.wall)
    bench.step(2)
    assert len(bench.ledger.pending_requests()) == 1
    assert bench.supervisor.due(bench.now) == 0
    bench.step(0)
    assert bench.ledger.pending_requests() == []
    assert bench.supervisor.due(bench.now) > 0


def run_batch(bench: Bench, pictures: Path) -> list[Job]:
    """Paint a batch of two pictures in one style; the jobs of all its runs."""
    pictures.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (pictures / name).write_bytes(PNG + name.encode())
    (bench.folders.styles / "starry.png").write_bytes(PNG)
    asked = batch.parse({"contents": ["*.png"], "styles": ["starry"]}, "night.batch.yaml")
    reach = batch_reach(bench.config, [pictures])
    bench.begin(Expansion("night", asked, reach, since=bench.now.wall))
    bench.step(1, times=4)
    while bench.executor.tasks:
        bench.executor.paint()
        bench.step(1, times=3)
    return bench.ledger.batch("night")


def test_a_batch_paints_a_deleted_picture_again(tmp_path: Path) -> None:
    """Neither the batch nor the reuse of equal pictures takes a deleted picture for one that exists."""
    bench = Bench(tmp_path / "root")
    first = run_batch(bench, tmp_path / "pictures")
    assert [job.state for job in first] == [S.DONE, S.DONE]
    assert len(run_batch(bench, tmp_path / "pictures")) == 2
    bench.begin()
    delete(bench, first[0])
    jobs = run_batch(bench, tmp_path / "pictures")
    assert len(jobs) == 3
    assert (jobs[-1].name, jobs[-1].result) == (first[0].name, first[0].result)


def test_the_contact_sheet_is_written_without_the_picture(tmp_path: Path) -> None:
    """The sheet of a batch is written again as long as a picture is left, and only if there is one."""
    bench = Bench(tmp_path / "root")
    jobs = run_batch(bench, tmp_path / "pictures")
    bench.begin()
    folder = bench.folders.results / "night"
    delete(bench, jobs[0])
    assert bench.chores.requests == []
    (folder / "contact-sheet.jpg").touch()
    jobs = run_batch(bench, tmp_path / "pictures")
    bench.begin()
    delete(bench, jobs[-1])
    assert bench.chores.requests == [("contact-sheet", str(folder))]
    bench.chores.requests.clear()
    delete(bench, jobs[1])
    assert bench.chores.requests == []
    assert below(folder) == {"contact-sheet.jpg"}


def test_hot_folder_results_are_deleted(bench: Bench) -> None:
    """A result in a folder of results/ goes, and the other one in it stays."""
    (bench.folders.styles / "starry.png").write_bytes(PNG)
    folder = bench.folders.inbox / "starry"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(PNG + name.encode())
    bench.step(1.5, times=5)
    while bench.executor.tasks:
        bench.executor.paint()
    bench.step(1, times=3)
    first = bench.ledger.find("starry/a")[0]
    delete(bench, first)
    assert below(bench.folders.results) == {"starry/b.png", "starry/b.json"}
    assert {name.split("/")[1] for name in below(bench.folders.done)} == {"b"}


def test_a_file_that_appears_later_is_archived_and_can_be_deleted(bench: Bench) -> None:
    """What is found in the spool of a deleted job at a start is archived, and the job is not deleted any more."""
    job = delete(bench, failed(bench))
    spooled = bench.folders.spool / job.id
    spooled.mkdir()
    (spooled / job.inputs[0].spooled).write_bytes(PNG)
    bench.begin()
    bench.step(1, times=2)
    assert not bench.job().deleted
    assert [path.name for path in bench.folders.failed.iterdir()] == ["dog"]
    assert bench.supervisor.ended == 0
    assert delete(bench, job).deleted
