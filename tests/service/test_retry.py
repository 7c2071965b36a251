"""A retry is a drop: archived inputs go through every check again."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path

import pytest

from nst_daemon.jobs import NO_CHANGES, Changes, Job, JobState, Role
from nst_daemon.ops.retry_check import refusal
from nst_daemon.workers.messages import Failed, Retry, Stopped
from tests.bench import PNG, Bench
from tests.users import User, needs_root

S = JobState


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A supervisor that has just started."""
    return Bench(tmp_path)


def fail(bench: Bench) -> Job:
    """Let the oldest task fail for good."""
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "bad luck"))
    bench.step(1, times=2)
    return bench.job()


def retry(bench: Bench) -> Job:
    """Ask for a retry of the only job, and wait until it was answered."""
    bench.ledger.request(bench.job().id, "retry", now=bench.now.wall)
    bench.step(2, times=2)
    assert bench.ledger.pending_requests() == []
    return bench.job()


def test_it_runs_again_under_its_id(bench: Bench) -> None:
    """The job goes back to the queue with its id, name and fresh attempts, and nothing is left in failed/."""
    bench.drop()
    failed = fail(bench)
    job = retry(bench)
    assert (job.id, job.name, job.state, job.attempts) == (failed.id, "dog", S.RUNNING, 1)
    assert (job.archive, job.error) == ("", "")
    assert list(bench.folders.failed.iterdir()) == []
    bench.executor.paint()
    bench.step(1, times=2)
    assert {p.name for p in (bench.folders.done / "dog").iterdir()} >= {
        "dog.content.png",
        "dog.style.png",
    }


def test_settings_that_were_corrected_count(bench: Bench) -> None:
    """A settings file that was refused, and corrected in failed/, is the one that is used."""
    bench.drop(yaml=b"size: enormous")
    assert "enormous" in bench.error()
    (bench.folders.failed / "dog" / "dog.yaml").write_text("size: 80")
    job = retry(bench)
    assert job.state is S.RUNNING
    assert bench.executor.tasks[0].settings.size == 80


def test_a_picture_that_has_become_empty_is_named(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry of a single picture that has no bytes any more says so, and the job stays as it is."""
    (bench.folders.inbox / "dog.png").write_bytes(PNG)
    bench.step(100, times=4)
    reason = bench.error()
    (bench.folders.failed / "dog" / "dog.png").write_bytes(b"")
    assert retry(bench).state is S.FAILED
    assert "dog.png is empty" in caplog.text
    assert bench.error() == reason


def test_the_digests_are_fresh(bench: Bench) -> None:
    """An input that was replaced in failed/ is hashed anew, and the identity changes with it."""
    bench.drop()
    before = fail(bench)
    (bench.folders.failed / "dog" / "dog.content.png").write_bytes(PNG + b"another")
    job = retry(bench)
    digests = {file.role: file.sha256 for file in job.inputs}
    assert digests[Role.CONTENT] == hashlib.sha256(PNG + b"another").hexdigest()
    assert job.identity != before.identity


def test_no_input_of_a_retry_lacks_a_digest(bench: Bench) -> None:
    """A drop that was refused before anything was hashed has a digest for each input once it is accepted."""
    bench.drop(yaml=b"size: enormous")
    assert {file.sha256 for file in bench.job().inputs} == {""}
    (bench.folders.failed / "dog" / "dog.yaml").write_text("size: 80")
    assert all(len(file.sha256) == 64 for file in retry(bench).inputs)


def test_a_refused_link_is_refused_again(bench: Bench, tmp_path: Path) -> None:
    """A symbolic link in failed/ is not followed, however often a retry is asked for."""
    secret = tmp_path / "private.png"
    secret.write_bytes(PNG + b"private")
    (bench.folders.inbox / "dog.content.png").symlink_to(secret)
    (bench.folders.inbox / "dog.style.png").write_bytes(PNG)
    bench.step(1.5, times=5)
    assert "symbolic link" in bench.error()
    for _ in range(2):
        job = retry(bench)
        assert job.state is S.FAILED
        assert "symbolic link" in bench.error()
    assert bench.executor.tasks == []
    assert (bench.folders.failed / "dog" / "dog.content.png").is_symlink()
    assert "retried by request" in bench.ledger.events(job.id)[-1].note


def test_a_pipe_and_a_large_file_are_refused_again(bench: Bench) -> None:
    """A named pipe does not block, and a file over the limit stays over it."""
    os.mkfifo(bench.folders.inbox / "dog.content.png")
    (bench.folders.inbox / "dog.style.png").write_bytes(PNG)
    bench.step(1.5, times=5)
    assert "named pipe" in bench.error()
    assert retry(bench).state is S.FAILED
    assert "named pipe" in bench.error()
    (bench.folders.failed / "dog" / "dog.content.png").unlink()
    (bench.folders.failed / "dog" / "dog.content.png").write_bytes(PNG + bytes(1000))
    bench.change(limits={"max_bytes": 500})
    assert retry(bench).state is S.FAILED
    assert "has 1,020 bytes, more than limits.max_bytes (500 bytes)" in bench.error()
    bench.change()
    assert retry(bench).state is S.RUNNING


def test_a_missing_half_may_be_added(tmp_path: Path) -> None:
    """A picture that failed for want of a style is painted once a style is put beside it in failed/."""
    bench = Bench(tmp_path)
    bench.change(service={"pair_timeout": 0.0})
    (bench.folders.inbox / "dog.content.png").write_bytes(PNG)
    bench.step(1.5, times=4)
    assert "no style" in bench.error()
    assert retry(bench).state is S.FAILED
    (bench.folders.failed / "dog" / "dog.style.png").write_bytes(PNG)
    job = retry(bench)
    assert job.state is S.RUNNING
    assert [file.role for file in job.inputs] == [Role.CONTENT, Role.STYLE]
    assert list(bench.folders.failed.iterdir()) == []


def test_the_library_counts_as_it_is_now(bench: Bench) -> None:
    """A picture of a hot folder is painted again in the style that the library has now, with its settings."""
    (bench.folders.styles / "waves.png").write_bytes(PNG)
    bench.step(1.5, times=4)
    (bench.folders.inbox / "waves" / "dog.png").write_bytes(PNG)
    bench.step(1.5, times=4)
    assert fail(bench).name == "waves/dog"
    (bench.folders.styles / "waves.png").write_bytes(PNG + b"new")
    (bench.folders.styles / "waves.yaml").write_text("seed: 7")
    bench.step(1.5, times=4)
    job = retry(bench)
    digests = {file.role: file.sha256 for file in job.inputs}
    assert digests[Role.STYLE] == hashlib.sha256(PNG + b"new").hexdigest()
    assert bench.executor.tasks[0].settings.seed == 7


def test_a_retry_waits_for_a_library_that_has_not_settled(bench: Bench) -> None:
    """A retry that was requested before a start is done once the library has settled after it, and is not lost."""
    (bench.folders.styles / "waves.png").write_bytes(PNG)
    bench.step(1.5, times=4)
    (bench.folders.inbox / "waves" / "dog.png").write_bytes(PNG)
    bench.step(1.5, times=4)
    failed = fail(bench)
    bench.ledger.request(failed.id, "retry", now=bench.now.wall)
    bench.begin()
    bench.step(1.5, times=4)
    assert bench.ledger.pending_requests() == []
    assert bench.job().state is S.RUNNING


def test_a_batch_file_is_a_batch_again(tmp_path: Path) -> None:
    """A batch file that was refused, and corrected in failed/, paints its pictures."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PNG)
    bench = Bench(tmp_path / "nst", batch_roots=[tmp_path / "photos"])
    (bench.folders.styles / "one.png").write_bytes(PNG)
    (bench.folders.inbox / "night.batch.yaml").write_text("contents: '*.jpg'\nstyles: one")
    bench.step(1.5, times=5)
    (refused,) = bench.ledger.jobs()
    assert refused.state is S.FAILED
    (bench.folders.failed / "night" / "night.batch.yaml").write_text(
        "contents: '*.png'\nstyles: one"
    )
    bench.ledger.request(refused.id, "retry", now=bench.now.wall)
    bench.step(1.5, times=8)
    assert [(job.name, job.state) for job in bench.ledger.jobs()] == [("night/a_one", S.RUNNING)]
    assert not (bench.folders.failed / "night").exists()


def test_the_picture_of_a_batch_is_painted_again(tmp_path: Path) -> None:
    """A failed picture of a batch keeps its place in it, its settings and its inputs, although the source has gone."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PNG)
    bench = Bench(tmp_path / "nst", batch_roots=[tmp_path / "photos"])
    (bench.folders.styles / "one.png").write_bytes(PNG)
    text = "contents: '*.png'\nstyles: one\nsweep: {content_style_ratio: [0.5]}"
    (bench.folders.inbox / "night.batch.yaml").write_text(text)
    bench.step(1.5, times=6)
    before = bench.job()
    fail(bench)
    (tmp_path / "photos" / "a.png").unlink()
    job = retry(bench)
    assert job.state is S.RUNNING
    assert (job.batch, job.settings, job.identity) == (
        before.batch,
        before.settings,
        before.identity,
    )
    assert [file.sha256 for file in job.inputs] == [file.sha256 for file in before.inputs]


def test_a_killed_daemon_finishes_the_retry(bench: Bench) -> None:
    """Where the daemon dies after the ledger has the job again, the next start removes what is left in failed/."""
    bench.drop()
    failed = fail(bench)
    archive = {p.name: p.read_bytes() for p in (bench.folders.failed / "dog").iterdir()}
    retry(bench)
    # What a kill between the two steps would have left:
    bench.ledger.move(failed.id, S.QUEUED, now=bench.now.wall, archive="dog")
    (bench.folders.failed / "dog").mkdir()
    for name, data in archive.items():
        (bench.folders.failed / "dog" / name).write_bytes(data)
    bench.ledger.request(failed.id, "retry", now=bench.now.wall)
    bench.begin()
    bench.executor.room = 0
    bench.step(2, times=2)
    assert list(bench.folders.failed.iterdir()) == []
    assert (bench.job().state, bench.job().archive) == (S.QUEUED, "")


def test_lost_inputs_are_named(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A retry of a job whose inputs were removed from failed/ changes nothing, and the log says what to do."""
    bench.drop()
    fail(bench)
    for path in (bench.folders.failed / "dog").iterdir():
        path.unlink()
    (bench.folders.failed / "dog").rmdir()
    assert retry(bench).state is S.FAILED
    assert "drop them again" in caplog.text


def test_many_retries_take_turns(bench: Bench) -> None:
    """A retry of many jobs at once is spread over rounds, and none is lost."""
    bench.executor.room = 0
    bench.change(limits={"max_bytes": 10})
    names = [f"dog{number}" for number in range(20)]
    for name in names:
        (bench.folders.inbox / f"{name}.content.png").write_bytes(PNG)
        (bench.folders.inbox / f"{name}.style.png").write_bytes(PNG)
    bench.step(1.5, times=6)
    assert {job.state for job in bench.ledger.jobs()} == {S.FAILED}
    bench.change()
    for job in bench.ledger.jobs():
        bench.ledger.request(job.id, "retry", now=bench.now.wall)
    bench.step(2)
    states = [job.state for job in bench.ledger.jobs()]
    assert 0 < states.count(S.QUEUED) < 20
    bench.step(2, times=2)
    assert {job.state for job in bench.ledger.jobs()} == {S.QUEUED}


def test_a_job_that_is_not_archived_yet_waits(bench: Bench) -> None:
    """A retry that is asked for while a full disk keeps the inputs in the spool is done afterwards."""
    bench.drop()
    bench.change(limits={"min_free_disk": 2**62})
    bench.step(2)
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "bad luck"))
    bench.step(2)
    assert (bench.job().state, bench.job().archive) == (S.FAILED, "")
    bench.ledger.request(bench.job().id, "retry", now=bench.now.wall)
    bench.step(2)
    bench.change()
    bench.step(2, times=4)
    assert bench.job().state is S.RUNNING


def change(bench: Bench, removed: tuple[str, ...] = (), **written: object) -> Job:
    """Ask for a retry of the only job with changed settings, and wait until it was answered."""
    changes = Changes(written, removed)
    bench.ledger.request(bench.job().id, "retry", now=bench.now.wall, changes=changes)
    bench.step(2, times=2)
    assert bench.ledger.pending_requests() == []
    return bench.job()


def test_a_refused_settings_file_is_corrected_by_the_request(bench: Bench) -> None:
    """A key that is unset and one that is set take the place of those in dog.yaml, which stays as it was."""
    bench.drop(yaml=b"sizee: 80\nseed: 3")
    job = change(bench, ("sizee",), size=96, format="jpg", priority=7)
    assert job.state is S.RUNNING
    (task,) = bench.executor.tasks
    assert (task.settings.size, task.settings.seed, task.outputs.format) == (96, 3, "jpg")
    assert job.priority == 7
    events = [event.note for event in bench.ledger.events(job.id)]
    assert "retried by request with size: 96, format: jpg, priority: 7, without sizee" in events
    (file,) = (i for i in job.inputs if i.role is Role.SETTINGS)
    assert (bench.folders.spool / job.id / file.spooled).read_bytes() == b"sizee: 80\nseed: 3"


def test_changes_stay_for_the_next_retry(bench: Bench) -> None:
    """A job that fails again keeps what was set, and a later request adds to it."""
    bench.drop()
    fail(bench)
    change(bench, size=96, seed=5)
    fail(bench)
    job = change(bench, ("seed",), tv_weight=0.5)
    settings = bench.executor.tasks[0].settings
    assert (settings.size, settings.seed, settings.tv_weight) == (96, 0, 0.5)
    assert job.changes == Changes({"size": 96, "tv_weight": 0.5}, ("seed",))


def test_a_picture_without_a_style_gets_one_of_the_library(bench: Bench) -> None:
    """A lone content that has waited too long is painted in the style that the retry names."""
    bench.change(service={"pair_timeout": 5})
    (bench.folders.styles / "starry.png").write_bytes(PNG)
    (bench.folders.inbox / "dog.content.png").write_bytes(PNG)
    bench.step(3, times=4)
    assert bench.job().state is S.FAILED
    assert change(bench, style="starry").state is S.RUNNING


def test_changes_that_are_not_allowed_leave_the_job_failed(bench: Bench) -> None:
    """A value that the daemon refuses is the new reason, and does not stay with the job."""
    bench.drop()
    fail(bench)
    job = change(bench, size="enormous")
    assert (job.state, job.changes) == (S.FAILED, NO_CHANGES)
    assert "enormous" in bench.error()


def test_the_picture_of_a_batch_is_painted_with_other_settings(tmp_path: Path) -> None:
    """Other settings of a batch's picture stay, also a ratio that replaces a weight, and its style cannot change."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PNG)
    bench = Bench(tmp_path / "nst", batch_roots=[tmp_path / "photos"])
    (bench.folders.styles / "one.png").write_bytes(PNG)
    (bench.folders.inbox / "night.batch.yaml").write_text(
        "contents: '*.png'\nstyles: one\nsettings: {size: 77}\nsweep: {preset: [spst]}"
    )
    bench.step(1.5, times=6)
    fail(bench)
    assert change(bench, content_style_ratio=0.5, format="jpg").state is S.RUNNING
    (task,) = bench.executor.tasks
    assert task.settings.content_weight == 0.5 * task.settings.style_weight
    assert (task.settings.size, task.settings.preset, task.outputs.format) == (77, "spst", "jpg")
    fail(bench)
    assert change(bench, preset="gatys2016").state is S.RUNNING
    (task,) = bench.executor.tasks
    assert (task.settings.preset, task.settings.size) == ("gatys2016", 77)
    assert task.settings.pooling == "average"
    fail(bench)
    assert change(bench, style="one").state is S.FAILED
    assert "style cannot be changed" in bench.ledger.events(bench.job().id)[-1].note
    refused = str(refusal(bench.config, bench.job(), Changes({"style": "one"}), {}))
    assert refused.endswith("change the batch file, and run it again")


def test_a_refusal_is_known_before_it_is_asked_for(bench: Bench) -> None:
    """What a retry would be refused for is known without the daemon, and nothing changes."""
    bench.drop(yaml=b"size: enormous")
    job = bench.job()
    problem = refusal(bench.config, job, NO_CHANGES, {})
    assert "would be refused again" in str(problem)
    assert "enormous" in str(problem)
    assert refusal(bench.config, job, Changes({"size": 80}), {}) is None
    problem = refusal(bench.config, job, Changes({"size": 80, "seeed": 1}), {})
    assert "did you mean seed?" in str(problem)
    assert bench.job() == job
    for path in (bench.folders.failed / "dog").iterdir():
        path.unlink()
    assert "drop them again" in str(refusal(bench.config, job, NO_CHANGES, {}))


def test_the_way_to_try_again_is_in_the_folder(bench: Bench) -> None:
    """error.txt names the command, with the name quoted for a shell."""
    bench.drop("my dog", yaml=b"size: enormous")
    text = (bench.folders.failed / "my dog" / "error.txt").read_text()
    assert "nst-daemon retry 'my dog'" in text


def test_the_command_that_corrects_a_setting_is_in_the_reason(bench: Bench) -> None:
    """The reason of an unknown setting ends with a command, and this command paints the picture."""
    bench.drop("my dog", yaml=b"iteration: [7]\nseed: 3")
    command = "nst-daemon retry 'my dog' --unset iteration --set 'iterations=[7]'"
    assert bench.job().error.endswith(f"did you mean iterations? To do that: {command}")
    job = change(bench, ("iteration",), iterations=[7])
    assert job.state is S.RUNNING


def test_two_requests_are_one_retry_with_the_changes_of_both(bench: Bench) -> None:
    """A retry that is asked for again before the daemon has done it adds its changes."""
    bench.drop()
    fail(bench)
    for changes in (Changes({"seed": 5, "size": 80}), Changes({"size": 96}), NO_CHANGES):
        bench.ledger.request(bench.job().id, "retry", now=bench.now.wall, changes=changes)
    assert len(bench.ledger.pending_requests()) == 1
    bench.step(2, times=2)
    assert (bench.job().settings["size"], bench.job().settings["seed"]) == (96, 5)


def test_the_note_of_a_retry_without_a_key_reads_well(bench: Bench) -> None:
    """A retry that only removes a key is noted as "without" it."""
    bench.drop(yaml=b"sizee: 80")
    job = change(bench, ("sizee",))
    assert "retried by request without sizee" in [e.note for e in bench.ledger.events(job.id)]


def test_a_job_that_is_painted_is_changed_by_cancel_and_retry(bench: Bench) -> None:
    """A retry that is asked for right after a cancel waits until the worker has ended the job."""
    bench.drop()
    job = bench.job()
    for verb, changes in (("cancel", NO_CHANGES), ("retry", Changes({"size": 96}))):
        bench.ledger.request(job.id, verb, now=bench.now.wall, changes=changes)
    bench.step(2, times=3)
    assert bench.executor.cancelled == [job.id]
    assert [request.verb for request in bench.ledger.pending_requests()] == ["cancel", "retry"]
    bench.executor.answer(lambda task: Stopped("fake", task.job_id, cancelled=True))
    bench.step(2, times=4)
    assert bench.ledger.pending_requests() == []
    (task,) = bench.executor.tasks
    assert (task.job_id, task.settings.size, bench.job().state) == (job.id, 96, S.RUNNING)


def test_a_job_that_waits_is_changed_by_cancel_and_retry(bench: Bench) -> None:
    """The same holds for a job in the queue."""
    bench.executor.room = 0
    bench.drop()
    for verb, changes in (("cancel", NO_CHANGES), ("retry", Changes({"size": 96}))):
        bench.ledger.request(bench.job().id, verb, now=bench.now.wall, changes=changes)
    bench.step(2, times=4)
    assert (bench.job().state, bench.job().settings["size"]) == (S.QUEUED, 96)


def test_a_cancelled_job_stays_cancelled_if_its_worker_dies(bench: Bench) -> None:
    """A cancel that the worker cannot answer any more is done at the next start."""
    bench.drop()
    bench.ledger.request(bench.job().id, "cancel", now=bench.now.wall)
    bench.step(2)
    assert bench.job().state is S.RUNNING
    bench.begin()
    bench.executor.room = 0
    bench.step(2, times=3)
    assert bench.job().state is S.CANCELLED


@needs_root
def test_only_the_daemon_knows_what_a_user_may_not_read(bench: Bench) -> None:
    """A user without the right to read failed/ or a file in it may ask for the retry all the same."""
    bench.drop(yaml=b"size: enormous")
    folder, job = bench.folders.failed / "dog", bench.job()
    for parent in folder.parents:
        parent.chmod(parent.stat().st_mode | 0o755)

    def ask(known: bool) -> None:
        assert (refusal(bench.config, job, NO_CHANGES, {}) is not None) == known

    outsider = User(3, 3)
    outsider.run(partial(ask, True))
    (folder / "dog.yaml").chmod(0o600)
    outsider.run(partial(ask, False))
    folder.chmod(0o700)
    outsider.run(partial(ask, False))
