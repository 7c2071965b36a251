"""From the inbox into the spool and the archive, cut short in every place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nst_daemon import files
from nst_daemon.errors import InputError, StorageError
from nst_daemon.intake import archive, claim
from nst_daemon.intake.drops import Drop, Request
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.jobs import BatchCell, Job, JobState, Role
from tests.conftest import largest_file
from tests.intake.conftest import PNG, House, tree


@pytest.fixture
def pair(house: House) -> House:
    """A house with a settled pair in its inbox."""
    house.drop("dog.content.png", PNG + b"content")
    house.drop("dog_style.png", PNG + b"style")
    house.drop("dog.yaml", "size: 64\n")
    return house


def ask(house: House) -> Any:
    """The one request."""
    (request,) = house.settled().requests
    return request


def test_a_claim_copies_and_leaves_the_originals(pair: House) -> None:
    """After a claim every byte is in the spool under its digest, and the inbox is as it was."""
    before = tree(pair.inbox)
    job = pair.claim(ask(pair))
    assert tree(pair.inbox) == before
    assert (job.state, job.name, dict(job.settings)) == (JobState.CLAIMED, "dog", {"size": 64})
    assert [file.role for file in job.inputs] == [Role.CONTENT, Role.STYLE, Role.SETTINGS]
    for file in job.inputs:
        data = (pair.spool / job.id / file.spooled).read_bytes()
        assert data == (pair.inbox / file.origin).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.size)


def test_a_copy_keeps_the_time_of_its_original(pair: House) -> None:
    """The spooled copy, which ends in the archive, has the original's mtime."""
    os.utime(pair.inbox / "dog.content.png", ns=(10**18, 10**18))
    job = pair.claim(ask(pair))
    assert (pair.spool / job.id / "dog.content.png").stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("change", ["grow", "shrink", "replace", "touch", "vanish", "link"])
def test_what_changed_since_the_scan_is_not_claimed(pair: House, change: str) -> None:
    """Whatever happens to a file between scan and claim, the claim raises and leaves nothing in the spool."""
    request = ask(pair)
    path = pair.inbox / "dog.content.png"
    if change == "grow":
        path.write_bytes(path.read_bytes() + b"more")
    elif change == "shrink":
        os.truncate(path, 10)
    elif change == "replace":
        other = pair.drop("other", path.read_bytes())
        other.rename(path)
    elif change == "touch":
        os.utime(path)
    else:
        path.unlink()
        if change == "link":
            path.symlink_to("/etc/passwd")
    with pytest.raises(InputError):
        pair.claim(request)
    assert tree(pair.spool) == set()


def test_a_writer_that_goes_on_during_the_copy_is_noticed(pair: House) -> None:
    """A file that is appended to after its last byte was copied is not claimed."""
    request = ask(pair)
    path = pair.inbox / "dog_style.png"
    real_utime = os.utime

    def write_then_touch(descriptor: int, **times: Any) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "dog_style.png":
            with path.open("ab") as file:
                file.write(b"!")
        real_utime(descriptor, **times)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "utime", write_then_touch)
        with pytest.raises(ChangedMeanwhile, match=r"dog_style.png changed while it was copied"):
            pair.claim(request)
    assert tree(pair.spool) == set()


def test_no_link_is_followed_on_the_way(house: House, tmp_path: Path) -> None:
    """A folder of the inbox that is replaced by a link between scan and claim leads nowhere."""
    house.drop("w/content.png")
    house.drop("w/style.png")
    request = ask(house)
    (house.inbox / "w").rename(tmp_path / "elsewhere")
    (house.inbox / "w").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ChangedMeanwhile):
        house.claim(request)


def test_the_original_goes_after_the_ledger_knows(pair: House) -> None:
    """A pair that was taken in is out of the inbox, in the spool and queued."""
    job = pair.take(ask(pair))
    assert tree(pair.inbox) == set()
    assert pair.ledger.next_queued() == job
    assert {file.spooled for file in job.inputs} < tree(pair.spool / job.id) | {archive.CARD}


def test_a_new_version_is_not_removed(pair: House) -> None:
    """A file that was replaced after the claim stays in the inbox: it is a new drop."""
    job = pair.claim(ask(pair))
    pair.drop("dog.content.png", PNG + b"newer")
    assert pair.remove(job) == []
    assert tree(pair.inbox) == {"dog.content.png"}


def test_a_job_folder_goes_with_its_files(house: House) -> None:
    """A job folder is removed together with the litter in it, unless something else has come meanwhile."""
    for name in ("w", "v"):
        house.drop(f"{name}/content.png")
        house.drop(f"{name}/style.png")
        house.drop(f"{name}/.DS_Store")
    jobs = {request.name: house.claim(request) for request in house.settled().requests}
    house.drop("v/style-2.png")
    for job in jobs.values():
        house.remove(job)
    assert tree(house.inbox) == {"v/", "v/style-2.png"}


def test_what_is_dropped_into_a_folder_that_is_being_removed_stays(house: House) -> None:
    """A file that comes at the first removal in a folder with nothing but litter is not removed with it."""
    wanted = ["wedding/dog.png"]
    litter = house.drop("wedding/.DS_Store")

    def drop(event: str, arguments: tuple[object, ...]) -> None:
        if wanted and event in {"os.remove", "shutil.rmtree"}:  # Python says it before it does it
            house.drop(wanted.pop())

    sys.addaudithook(drop)
    claim.remove_if_empty(litter.parent)
    assert (wanted, tree(house.inbox)) == ([], {"wedding/", "wedding/dog.png"})


def test_library_files_stay_where_they_are(house: House) -> None:
    """A style of the library is copied for the job, stays in the library, and is not archived when done."""
    house.style("starry.png", PNG + b"style")
    house.drop("starry/a.png")
    job = house.take(ask(house))
    assert tree(house.styles) == {"starry.png"}
    assert (house.spool / job.id / "starry.png").read_bytes() == PNG + b"style"
    assert archive.archive(job, house.spool, house.done) == "starry/a"
    assert tree(house.done) == {"starry/", "starry/a/", "starry/a/a.png"}


def test_equal_names_get_distinct_copies(house: House) -> None:
    """A picture and its style of the same name do not share a copy."""
    house.style("starry.png", PNG + b"style")
    house.drop("starry/starry.png", PNG + b"content")
    job = house.take(ask(house))
    copies = [(house.spool / job.id / file.spooled).read_bytes() for file in job.inputs]
    assert copies == [PNG + b"content", PNG + b"style"]


def test_a_refusal_moves_the_file_to_failed(house: House) -> None:
    """What is refused ends in failed/NAME/ as it was, with error.txt, whose first line is the reason."""
    house.drop("notes.content.txt", "hello")
    (rejection,) = house.settled().rejections
    job = house.take(rejection)
    assert tree(house.inbox) == set()
    assert (house.failed / "notes" / "notes.content.txt").read_text() == "hello"
    assert (house.failed / "notes" / "error.txt").read_text().splitlines()[0] == job.error
    assert job.state is JobState.FAILED


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_what_cannot_be_copied_can_be_refused(house: House, make: Any) -> None:
    """A pipe or a link moves to failed/ as what it is."""
    make(house.inbox / "odd.content.png")
    kind = stat.S_IFMT((house.inbox / "odd.content.png").lstat().st_mode)
    house.take(house.settled().rejections[0])
    assert stat.S_IFMT((house.failed / "odd" / "odd.content.png").lstat().st_mode) == kind
    assert tree(house.inbox) == set()


def test_a_refused_folder_moves_as_a_whole(house: House) -> None:
    """The files of a refused job folder end in one folder, and the folder in the inbox is gone."""
    house.drop("w/content.png")
    house.drop("w/more.png")
    house.take(house.settled().rejections[0])
    assert tree(house.inbox) == set()
    assert tree(house.failed) == {"w/", "w/content.png", "w/more.png", "w/error.txt"}


def test_archives_never_merge(house: House) -> None:
    """Two jobs of one name are archived beside each other."""
    for number in range(3):
        house.drop("dog.content.png", PNG + bytes([number]))
        house.drop("dog.style.png")
        job = house.take(ask(house))
        archive.archive(job, house.spool, house.done)
    assert {path.name for path in house.done.iterdir()} == {"dog", "dog-2", "dog-3"}
    contents = {(path / "dog.content.png").read_bytes()[-1] for path in house.done.iterdir()}
    assert contents == {0, 1, 2}


def test_archiving_again_finds_what_is_there(pair: House) -> None:
    """An archive that was finished before a crash is recognised, also behind others of that name."""
    first = pair.take(ask(pair))
    archive.archive(first, pair.spool, pair.done)
    pair.drop("dog.content.png")
    pair.drop("dog.style.png")
    second = pair.take(ask(pair))
    assert archive.archive(second, pair.spool, pair.done) == "dog-2"
    assert archive.archive(second, pair.spool, pair.done) == "dog-2"
    assert archive.archive(first, pair.spool, pair.done) == "dog"
    assert {path.name for path in pair.done.iterdir()} == {"dog", "dog-2"}


def test_error_txt_is_one_safe_line_and_then_the_detail(pair: House) -> None:
    """The first line of error.txt is the escaped reason; the way to try again and the detail follow."""
    job = pair.take(ask(pair))
    archive.archive(
        job, pair.spool, pair.failed, error="bad\x1b[31m\nline", detail="Traceback\n  x"
    )
    text = (pair.failed / "dog" / "error.txt").read_text()
    first, way, detail = text.split("\n\n")
    assert first == "bad\\x1b[31m\\x0aline"
    assert "nst-daemon retry dog" in way
    assert detail == "Traceback\n  x\n"


def archived(house: House) -> Request:
    """A request for the files of a failed job, which lie in failed/dog/."""
    job = house.take(ask(house))
    place = archive.archive(job, house.spool, house.failed, error="x")
    drops = []
    for file in job.inputs:
        mark = files.fingerprint((house.failed / place / file.spooled).stat())
        drops.append(Drop(file.role, f"{place}/{file.spooled}", mark, "failed", file.origin))
    return Request("dog", "pair", "", tuple(drops))


def test_files_of_failed_are_claimed_like_those_of_the_inbox(pair: House) -> None:
    """A claim copies and hashes archived inputs, leaves them where they are, and archives them when the job is done."""
    request = archived(pair)
    (pair.failed / "dog" / "dog.content.png").write_bytes(PNG + b"another content")
    with pytest.raises(ChangedMeanwhile):
        pair.claim(request)
    (first, *rest) = request.files
    mark = files.fingerprint((pair.failed / first.path).stat())
    job = pair.claim(replace(request, files=(replace(first, fingerprint=mark), *rest)))
    assert job.inputs[0].sha256 == hashlib.sha256(PNG + b"another content").hexdigest()
    before = tree(pair.failed)
    assert pair.remove(job) == []
    assert tree(pair.failed) == before
    assert claim.recover_spool(pair.spool, set(), pair.inbox) == [job]
    archive.archive(job, pair.spool, pair.done)
    assert tree(pair.done / "dog") == {"dog.content.png", "dog_style.png", "dog.yaml"}


def test_a_link_in_failed_is_not_followed(pair: House, tmp_path: Path) -> None:
    """An archived input that was replaced by a link to a private file is not claimed."""
    request = archived(pair)
    (tmp_path / "private.png").write_bytes(PNG)
    path = pair.failed / request.files[0].path
    path.unlink()
    path.symlink_to(tmp_path / "private.png")
    mark = files.fingerprint(path.lstat())
    linked = replace(request.files[0], fingerprint=mark)
    with pytest.raises(InputError, match="is a symbolic link"):
        pair.claim(replace(request, files=(linked,)))
    assert tree(pair.spool) == set()


def test_the_cell_of_a_batch_is_on_the_card(pair: House) -> None:
    """A job of a batch that is found in the spool knows its cell."""
    cell = BatchCell("night", "starry", {"seed": 1}, (0, 1, 2))
    job = pair.claim(replace(ask(pair), batch=cell))
    pair.remove(job)
    assert [found.batch for found in claim.recover_spool(pair.spool, set(), pair.inbox)] == [cell]


def test_pruning_takes_only_what_is_the_jobs(pair: House) -> None:
    """Pruning removes the job's own files; a person's file beside them stays, and so does another's folder."""
    job = pair.take(ask(pair))
    job = pair.ledger.note(job.id, now=1.0, archive=archive.archive(job, pair.spool, pair.done))
    (pair.done / "dog" / "mine.txt").write_text("keep")
    assert archive.prune_archive(job, pair.done)
    assert tree(pair.done) == {"dog/", "dog/mine.txt"}
    assert not archive.prune_archive(job, pair.done)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_cannot_be_read_is_not_removed(
    pair: House, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """While a card cannot be read, neither recovery nor pruning removes anything or takes the folder for empty."""
    job = pair.claim(ask(pair))
    pair.remove(job)
    before = tree(pair.spool)

    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as broken:
        broken.setattr(files, "read_file", fail)
        one_file_only = number == errno.EACCES
        with nullcontext() if one_file_only else pytest.raises(StorageError):
            assert claim.recover_spool(pair.spool, set(), pair.inbox) == []
        with pytest.raises(StorageError):
            archive.prune_archive(replace(job, archive=job.id), pair.spool)
    assert tree(pair.spool) == before
    assert claim.recover_spool(pair.spool, set(), pair.inbox) == [job]


def test_an_unfinished_claim_is_swept_and_claimed_again(pair: House) -> None:
    """After a crash before the ledger's row, the copies go, the originals stay, and the pair is asked for again."""
    request = ask(pair)
    whole = pair.claim(request)
    torn = pair.claim(request)
    (pair.spool / torn.id / archive.CARD).unlink()
    assert claim.recover_spool(pair.spool, pair.ledger.ids(), pair.inbox) == []
    assert tree(pair.spool) == set()
    assert {whole.name} == {request.name for request in pair.settled().requests}


def test_known_jobs_are_not_swept(pair: House) -> None:
    """The spool of a job that the ledger knows is left alone."""
    job = pair.take(ask(pair))
    assert claim.recover_spool(pair.spool, pair.ledger.ids(), pair.inbox) == []
    assert f"{job.id}/" in tree(pair.spool)


def test_a_job_that_the_ledger_forgot_comes_back_from_the_spool(pair: House) -> None:
    """Where the ledger was lost, a spooled job whose originals are gone is returned as it was claimed."""
    job = pair.claim(ask(pair))
    pair.remove(job)
    assert claim.recover_spool(pair.spool, set(), pair.inbox) == [job]


def test_a_crash_between_row_and_removal_is_finished(pair: House) -> None:
    """With the row written and one original still there, removing again takes it and only it."""
    job = pair.claim(ask(pair))
    pair.ledger.add(job)
    (pair.inbox / "dog.content.png").unlink()
    pair.restart()
    assert pair.remove(job) == []
    assert tree(pair.inbox) == set()


def test_a_full_disk_is_not_the_files_fault(pair: House) -> None:
    """If the spool cannot take a copy, the claim raises StorageError and leaves nothing behind."""
    request = ask(pair)
    with largest_file(50), pytest.raises(StorageError, match="File too large; raise the limit"):
        pair.claim(request)
    assert tree(pair.spool) == set()
    assert len(tree(pair.inbox)) == 3


def test_the_card_tells_the_whole_job(pair: House) -> None:
    """What is written beside the copies is the job, readable for people and complete."""
    job = pair.claim(ask(pair))
    card = json.loads((pair.spool / job.id / archive.CARD).read_text())
    assert card["name"] == "dog"
    assert {file["origin"] for file in card["inputs"]} == tree(pair.inbox)
    recovered: list[Job] = []
    for name in list(tree(pair.inbox)):
        (pair.inbox / name).unlink()
    recovered = claim.recover_spool(pair.spool, set(), pair.inbox)
    assert recovered == [job]


def test_refused_files_move_between_file_systems(house: House, other_file_system: Path) -> None:
    """If the spool is on another file system than the inbox, a refused file is copied, and a link created again."""
    house.spool = other_file_system
    house.drop("notes.content.txt", "hello")
    (house.inbox / "link.content.png").symlink_to("/etc/passwd")
    os.mkfifo(house.inbox / "pipe.content.png")
    for rejection in house.settled().rejections:
        house.take(rejection)
    assert tree(house.inbox) == set()
    assert (house.failed / "notes" / "notes.content.txt").read_text() == "hello"
    assert (house.failed / "link" / "link.content.png").readlink() == Path("/etc/passwd")
    assert (
        (house.failed / "pipe" / "error.txt")
        .read_text()
        .startswith("pipe.content.png is a named pipe")
    )
