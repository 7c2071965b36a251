"""What a daemon without special rights makes of rights that it lacks. Root would pass all of this vacuously."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path

import pytest

from nst_daemon.errors import InputError, StorageError
from nst_daemon.files import remove_tree, write_atomic
from nst_daemon.intake.claim import claim, recover_spool, refuse
from nst_daemon.intake.drops import Root
from nst_daemon.intake.writers import Writers
from nst_daemon.ledger import Ledger
from nst_daemon.publishing import publish
from tests.intake.conftest import PNG, House, tree
from tests.users import User

NOBODY = 65534


def unprivileged(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Run a test in a process of its own, as nobody where we are root; what fails there fails here."""

    @wraps(test)
    def run(place: Path) -> None:
        User(NOBODY, NOBODY).run(lambda: test(place))

    return run


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that an unprivileged user may reach and write to."""
    folder = Path(tempfile.mkdtemp(prefix="nst-rights-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o777)
    shutil.rmtree(folder)


@unprivileged
def test_an_unreadable_picture_is_refused(place: Path) -> None:
    """A file without read permission is refused with the remedy, and moves to failed/ all the same."""
    house = House(place)
    house.drop("dog.content.png").chmod(0)
    house.drop("dog.style.png")
    (request,) = house.settled().requests
    with pytest.raises(InputError) as refused:
        house.claim(request)
    assert str(refused.value) == (
        "dog.content.png cannot be read: Permission denied; "
        "give the daemon's user or group the right to read it"
    )
    assert tree(house.spool) == set()
    house.take(request.refuse(str(refused.value)))
    assert tree(house.inbox) == set()
    assert tree(house.failed) == {
        "dog/",
        "dog/dog.content.png",
        "dog/dog.style.png",
        "dog/error.txt",
    }


@unprivileged
def test_unreadable_settings_are_refused(place: Path) -> None:
    """A settings file without read permission refuses its pair, with the reason."""
    house = House(place)
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    house.drop("dog.yaml", "size: 64\n").chmod(0)
    (rejection,) = house.settled().rejections
    assert rejection.reason.startswith(
        "dog.yaml cannot be read: Permission denied; give the daemon's group"
    )


@pytest.fixture
def theirs(place: Path) -> None:
    """A file of another user (where the tests run as root) that everybody may write to."""
    (place / "dog.png").write_bytes(PNG)
    (place / "dog.png").chmod(0o666)


@pytest.mark.usefixtures("theirs")
@unprivileged
def test_a_writer_is_seen_without_a_lease(place: Path) -> None:
    """Without the right to a lease, a process finds the writers of its own user, and no readers, in /proc."""
    path = place / "dog.png"
    descriptor = os.open(path, os.O_RDONLY)
    if path.stat().st_uid != os.geteuid():
        with pytest.raises(PermissionError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    for sign, answer in ((">>", True), ("<", False)):
        command = ["sh", "-c", f'exec 3{sign}"$0"; echo open; read line', str(path)]
        with subprocess.Popen(command, stdin=-1, stdout=-1) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            assert Writers().have(descriptor, path.name) is answer
            process.communicate(b"\n")
        assert not Writers().have(descriptor, path.name)


@unprivileged
def test_an_unreadable_folder_stops_nothing(place: Path) -> None:
    """A folder that cannot be entered is reported as a problem, and what lies beside it is taken."""
    house = House(place)
    house.drop("closed/x.content.png")
    (house.inbox / "closed").chmod(0)
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    scan = house.settled()
    assert [request.name for request in scan.requests] == ["dog"]
    assert scan.problems == (
        "the folder closed cannot be opened: Permission denied; "
        "give the daemon's group the right to read and enter it",
    )


@unprivileged
def test_a_folder_that_keeps_its_files_is_said_so(place: Path) -> None:
    """Files in a folder without write permission are copied, cannot be removed, and are known as taken afterwards."""
    house = House(place)
    house.drop("trip/dog.content.png")
    house.drop("trip/dog.style.png")
    (house.inbox / "trip").chmod(0o555)
    (request,) = house.settled().requests
    job = house.claim(request)
    house.ledger.add(job)
    assert house.remove(job) == [
        f"trip/dog.{role}.png cannot be removed from the inbox: Permission denied; "
        "give the daemon's group the right to write to its folder"
        for role in ("content", "style")
    ]
    house.restart()
    (again,) = house.settled().requests
    assert len(again.files) == 2
    for file in again.files:
        assert house.ledger.claimed_before(file.path, file.fingerprint) == job


@unprivileged
def test_a_refused_file_that_cannot_be_moved_leaves_no_folder_in_the_spool(place: Path) -> None:
    """Where a refused file has to stay in the inbox, the spool stays empty, however often the move is tried."""
    house = House(place)
    house.drop("trip/dog.png")
    (house.inbox / "trip").chmod(0o555)
    (rejection,) = house.settled(4000.0).rejections
    job = refuse(rejection, now=house.wall)
    for _ in range(2):
        (problem,) = house.remove(job)
        assert "cannot be removed from the inbox: Permission denied" in problem
        assert list(house.spool.iterdir()) == []


@unprivileged
def test_an_inbox_without_write_permission_gets_no_hot_folders(place: Path) -> None:
    """Where hot folders cannot be made, that is a problem for the log and not the end of the scan."""
    house = House(place)
    house.style("starry.png")
    house.inbox.chmod(0o555)
    assert house.settled().problems == (
        "the folder starry cannot be created in the inbox: Permission denied",
    )


@unprivileged
def test_folders_of_our_own_are_matters_of_storage(place: Path) -> None:
    """A spool, results/ or failed/ that cannot be written to makes the queue wait, and loses nothing."""
    house = House(place)
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    house.drop("x.content.txt")
    scan = house.settled()
    for folder in (house.spool, house.failed):
        folder.chmod(0o555)
    with pytest.raises(
        StorageError,
        match="Permission denied; give the user of this process the right to write there",
    ):
        house.claim(scan.requests[0])
    with pytest.raises(StorageError):
        house.take(scan.rejections[0])
    assert tree(house.inbox) == {"dog.content.png", "dog.style.png", "x.content.txt"}
    stage, results = house.root / "stage", house.root / "results"
    for folder in (stage, results):
        folder.mkdir()
    (stage / "picture.png").write_bytes(PNG)
    results.chmod(0o555)
    with pytest.raises(StorageError, match="Permission denied"):
        publish(stage, ["picture.png"], results, "dog")


@unprivileged
def test_what_others_of_the_group_drop_can_be_taken(place: Path) -> None:
    """In a setgid folder with umask 0002 new folders and files belong to the group, which may read and write them."""
    os.umask(0o002)
    house = House(place)
    house.inbox.chmod(0o2775)
    house.style("starry.png")
    house.settled()
    mode = (house.inbox / "starry").stat().st_mode
    assert mode & stat.S_ISGID
    assert mode & 0o070 == 0o070
    write_atomic(house.root / "result", b"")
    assert (house.root / "result").stat().st_mode & 0o777 == 0o664


@unprivileged
def test_a_claim_that_fails_leaves_no_copy(place: Path) -> None:
    """A claim that cannot write its second file leaves nothing in the spool, even under a umask without own rights."""
    house = House(place)
    house.drop("dog.content.png")
    house.drop("dog.style.png").chmod(0)
    (request,) = house.settled().requests
    for umask in (0o022, 0o777, 0o377, 0o277):
        os.umask(umask)
        with pytest.raises((InputError, StorageError)):
            house.claim(request)
        os.umask(0o022)
        assert tree(house.spool) == set()


@unprivileged
def test_a_copy_that_cannot_be_removed_keeps_the_first_error(place: Path) -> None:
    """If the spool loses its rights during a claim, the claim's own error counts, and a restart removes the copy."""
    house = House(place)
    house.drop("dog.content.png")
    house.drop("dog.style.png").chmod(0)
    (request,) = house.settled().requests

    class Roots(dict[Root, Path]):
        def __getitem__(self, root: Root) -> Path:
            house.spool.chmod(0o555)  # the job's folder is there
            return super().__getitem__(root)

    with pytest.raises(InputError, match=r"dog\.style\.png cannot be read"):
        claim(request, house.spool, Roots(inbox=house.inbox), max_bytes=1000, now=1.0)
    house.spool.chmod(0o755)
    assert len(list(house.spool.iterdir())) == 1
    assert recover_spool(house.spool, [], house.inbox) == []
    assert tree(house.spool) == set()


@unprivileged
def test_folders_without_rights_are_removed(place: Path) -> None:
    """A tree of own folders is removed whatever their modes are, and folders behind links keep their modes."""
    outside = place / "outside"
    outside.mkdir(mode=0o555)
    folder = place / "tree"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").touch()
    (folder / "link").symlink_to(outside)
    for path in (folder / "a" / "b", folder / "a", folder):
        path.chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    assert outside.stat().st_mode & 0o777 == 0o555


@unprivileged
def test_a_ledger_that_cannot_be_written_says_so(place: Path) -> None:
    """A state folder without write permission is a StorageError that names the ledger's place."""
    state = place / "state"
    state.mkdir()
    Ledger.open(state / "ledger.sqlite").close()
    for path in state.iterdir():
        path.chmod(0o444)
    state.chmod(0o555)
    with pytest.raises(StorageError, match=r"ledger"):
        Ledger.open(state / "ledger.sqlite")


@unprivileged
def test_a_file_size_limit_is_like_a_full_disk(place: Path) -> None:
    """Under RLIMIT_FSIZE a claim that does not fit raises StorageError, and leaves neither copies nor gaps."""
    house = House(place)
    house.drop("dog.content.png", PNG + bytes(500_000))
    house.drop("dog.style.png")
    (request,) = house.settled().requests
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    with pytest.raises(StorageError, match="File too large; raise the limit on file sizes"):
        house.claim(request)
    assert tree(house.spool) == set()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert house.take(request).name == "dog"
