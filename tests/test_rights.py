"""What the daemon's user, its group, other users and root can do in one root."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nst_daemon import rights
from nst_daemon.config import Folders
from nst_daemon.errors import NstError, StorageError, UsageError
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ledger_file import back_up
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.ops import doctor, requests, status
from tests.shared_root import GROUP, MEMBER, OUTSIDER, SERVICE, configured, installed, modes, shell
from tests.users import User, needs_root


@pytest.fixture
def root() -> Iterator[Path]:
    """A root that every user can reach, with a space in its name."""
    folder = Path(tempfile.mkdtemp(prefix="nst rights-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folders(root: Path) -> Folders:
    """The folders of a root as an installation creates them."""
    return installed(root)


def job() -> Job:
    return Job("a" * 32, "dog", "pair", JobState.CLAIMED, (), 1.0, 1.0)


def started(folders: Folders) -> Ledger:
    """The ledger of a daemon that has just started, with one job."""
    ledger = Ledger.open(folders.ledger)
    if ledger.get("a" * 32) is None:
        ledger.add(job())
    return ledger


def cancel(folders: Folders) -> None:
    with LedgerReader.attach(folders.ledger) as ledger:
        jobs = requests.selected(ledger, "cancel", ["dog"], (), Path())
        requests.store(ledger, "cancel", jobs)


def said(error: NstError | None, *parts: str) -> None:
    text = str(error)
    assert error is not None
    assert "\n" not in text
    assert not [part for part in parts if part not in text], text


# The group


@needs_root
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_the_group_can_write_to_the_ledger(folders: Folders, umask: int) -> None:
    """The ledger, its side files and its backup get the folder's rights for the group, whatever the umask is."""

    def start() -> Ledger:
        ledger = started(folders)
        back_up(folders.ledger)
        wanted = {"ledger.sqlite": "", "ledger.sqlite-wal": "", "ledger.sqlite-shm": ""}
        wanted["ledger.sqlite.backup"] = ""
        found = modes(folders.state)
        assert found.keys() == wanted.keys()
        assert all(int(mode, 8) & 0o660 == 0o660 for mode in found.values()), found
        return ledger

    User(SERVICE.uid, SERVICE.gid, SERVICE.groups, umask).run(start)


@needs_root
@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("killed", [False, True])
def test_a_member_stops_nothing(folders: Folders, umask: int, killed: bool) -> None:
    """After a member has read and changed the ledger of a stopped daemon, even killed, the daemon can write to it."""
    SERVICE.run(lambda: started(folders).close())

    def use() -> LedgerReader:
        status.gather(folders)
        cancel(folders)
        reader = LedgerReader.attach(folders.ledger)
        reader.counts()
        if not killed:
            reader.close()
        return reader

    def start() -> None:
        rights.check_start(folders)
        with started(folders) as ledger:
            assert [request.verb for request in ledger.pending_requests()] == ["cancel"]
            ledger.move("a" * 32, JobState.QUEUED, now=2.0)

    User(MEMBER.uid, MEMBER.gid, MEMBER.groups, umask).run(use, killed=killed)
    assert ("ledger.sqlite-wal" in modes(folders.state)) == killed
    SERVICE.run(start)


@needs_root
def test_members_leave_requests_for_a_running_daemon(folders: Folders) -> None:
    """A member can request a cancel while the daemon has the ledger open."""
    SERVICE.run(lambda: started(folders), killed=True)
    MEMBER.run(lambda: cancel(folders))
    with LedgerReader.attach(folders.ledger) as ledger:
        assert len(ledger.pending_requests()) == 1


@needs_root
def test_files_that_a_member_left_are_taken_over(folders: Folders) -> None:
    """A log of a member that the daemon cannot write to is replaced at the start, and its contents are kept."""
    SERVICE.run(lambda: started(folders).close())
    folders.ledger.chmod(0o666)  # the side files get other modes below

    def change() -> sqlite3.Connection:
        database = sqlite3.connect(folders.ledger)
        with database:
            database.execute("UPDATE jobs SET name = 'cat'")
        return database

    MEMBER.run(change, killed=True)
    for end in ("-wal", "-shm"):
        folders.ledger.with_name(f"ledger.sqlite{end}").chmod(0o644)

    def start() -> None:
        rights.check_start(folders)
        with started(folders) as ledger:
            assert [found.name for found in ledger.jobs()] == ["cat"]
            ledger.move("a" * 32, JobState.QUEUED, now=2.0)

    SERVICE.run(start)


@needs_root
@pytest.mark.parametrize("running", [False, True])
def test_a_group_that_may_only_read_leaves_no_files(folders: Folders, running: bool) -> None:
    """In a folder of mode 2750 a member reads the ledger, and a cancel names the owner's command."""
    folders.state.chmod(0o2750)
    SERVICE.run(lambda: started(folders), killed=running)
    if not running:
        SERVICE.run(lambda: started(folders).close())
    before = modes(folders.state)

    def use() -> None:
        assert status.gather(folders).counts[JobState.CLAIMED] == 1
        with pytest.raises(StorageError) as refused:
            cancel(folders)
        said(refused.value, "may not change", "run the command as its owner: sudo -u daemon")

    MEMBER.run(use)
    assert modes(folders.state) == before


@needs_root
def test_other_users_get_one_line(folders: Folders) -> None:
    """Users outside the group may neither read nor change the ledger, and the line names the group to join."""
    SERVICE.run(lambda: started(folders).close())
    group = rights.group_name(GROUP)

    def use() -> None:
        with pytest.raises(StorageError) as refused:
            status.gather(folders)
        user = rights.user_name(OUTSIDER.uid)
        said(refused.value, f"{user} may not read {folders.ledger}; join the group {group}: ")
        said(refused.value, f"sudo usermod -aG {group} {user}, then log in again")
        with pytest.raises(StorageError, match="may not read"):
            cancel(folders)

    OUTSIDER.run(use)


@needs_root
def test_other_users_may_read_where_the_folder_lets_them(folders: Folders) -> None:
    """With open folders and umask 002 other users read the status, and a cancel names the group to join."""
    for folder in (folders.root, folders.results, folders.state):
        folder.chmod(0o2775)
    User(SERVICE.uid, SERVICE.gid, [GROUP], umask=0o002).run(lambda: started(folders).close())

    def use() -> None:
        assert status.gather(folders).counts[JobState.CLAIMED] == 1
        with pytest.raises(StorageError) as refused:
            cancel(folders)
        said(refused.value, "may not change", f"usermod -aG {rights.group_name(GROUP)} ")

    OUTSIDER.run(use)


@needs_root
@pytest.mark.parametrize("mode", [0o2755, 0o2750])
def test_an_inbox_of_others_gives_one_line(folders: Folders, mode: int) -> None:
    """A member can drop into the inbox; others are told which group to join, also behind a closed root folder."""
    folders.root.chmod(mode)
    MEMBER.run(lambda: rights.check_inbox(folders.inbox))

    def refused() -> None:
        with pytest.raises(StorageError) as refused:
            rights.check_inbox(folders.inbox)
        said(refused.value, f"may not write to {folders.inbox}; join the group ")

    OUTSIDER.run(refused)


@needs_root
def test_an_old_ledger_is_shared_at_the_next_start(folders: Folders) -> None:
    """A member who cannot change a ledger of mode 644 is told to restart the daemon, and can change it afterwards."""
    SERVICE.run(lambda: started(folders).close())
    folders.ledger.chmod(0o644)

    def refused() -> None:
        with pytest.raises(StorageError, match="restart the daemon: it gives the group"):
            cancel(folders)

    MEMBER.run(refused)
    SERVICE.run(lambda: started(folders).close())
    MEMBER.run(lambda: cancel(folders))


# Root


@needs_root
def test_files_of_root_are_named_with_the_command(folders: Folders) -> None:
    """Files that root left are named at the start and by doctor, and the command lets the daemon start."""
    started(folders).close()
    (folders.state / "lock").touch()
    (folders.state / "lock").chmod(0o644)
    for path in folders.state.glob("ledger*"):
        path.chmod(0o644)
    for folder in (folders.spool, folders.logs):
        folder.mkdir()
        folder.chmod(0o755)
    root = folders.root
    command = f"sudo chown -R daemon:{rights.group_name(GROUP)} '{root}'"

    def start() -> None:
        with pytest.raises(StorageError) as refused:
            rights.check_start(folders)
        said(refused.value, f"daemon cannot write to {folders.spool} and 3 more (owner: root); ")
        assert refused.value.remedy == command
        (found,) = doctor.check_folders(folders)
        assert (found.level, found.remedy) == ("bad", command)

    SERVICE.run(start)
    (found,) = doctor.check_folders(folders)
    assert (found.level, found.remedy) == ("bad", command), "root asks for the daemon's user"
    shell(command.removeprefix("sudo "))

    def start_again() -> None:
        rights.check_start(folders)
        started(folders).close()
        (found,) = doctor.check_folders(folders)
        assert found.level == "good"

    SERVICE.run(start_again)


@needs_root
def test_a_root_that_root_made_is_named(root: Path) -> None:
    """If root made all folders, the command gives the root to the user and the group of the daemon."""
    made = configured(root).folders
    for folder in (made.inbox, made.results, made.state):
        folder.mkdir()

    def start() -> None:
        with pytest.raises(StorageError) as refused:
            rights.check_start(made)
        assert refused.value.remedy == f"sudo chown -R daemon:daemon '{root}'"

    User(1, 1).run(start)


@needs_root
def test_a_missing_folder_is_created_and_its_parent_left_alone(root: Path) -> None:
    """If the daemon cannot create a folder, the command creates this folder and changes nothing else."""
    made = configured(root / "new").folders

    def start() -> None:
        with pytest.raises(StorageError) as refused:
            rights.check_start(made)
        said(
            refused.value,
            f"daemon cannot create {made.root} in {root} (owner: root); sudo install -d",
        )

    User(1, 1).run(start)
    shell(f"install -d -o daemon -g daemon '{made.root}'")
    User(1, 1).run(lambda: rights.check_start(made))


@needs_root
def test_a_folder_that_cannot_be_reached_is_named(root: Path) -> None:
    """If a parent of the root is closed, this parent is named, and no command gives it away."""
    made = configured(root / "new").folders
    made.root.mkdir()
    root.chmod(0o700)

    def start() -> None:
        with pytest.raises(StorageError) as refused:
            rights.check_start(made)
        said(refused.value, f"daemon may not enter {root} (owner: root); give daemon the right")

    User(1, 1).run(start)


@needs_root
def test_folders_in_other_places_are_named_in_the_command(folders: Folders) -> None:
    """If only a folder outside the root belongs to root, the command changes only that, without links."""
    with tempfile.TemporaryDirectory(dir="/tmp") as other:
        Path(other).chmod(0o755)
        link = folders.root / "link"
        link.symlink_to(other)
        made = dataclasses.replace(folders, results=link)

        def start() -> None:
            with pytest.raises(StorageError) as refused:
                rights.check_start(made)
            assert (
                refused.value.remedy == f"sudo chown -R daemon:{rights.group_name(GROUP)} {other}"
            )

        SERVICE.run(start)


@needs_root
def test_folders_of_jobs_that_root_left_are_a_warning(folders: Folders) -> None:
    """A folder of root in results/ stops nothing, and doctor names it; one of a member is not reported."""
    for folder, user in ((folders.results / "night", 0), (folders.results / "best", MEMBER.uid)):
        folder.mkdir()
        folder.chmod(0o755)
        os.chown(folder, user, GROUP)

    def start() -> None:
        rights.check_start(folders)
        (found,) = doctor.check_folders(folders)
        assert found.level == "warning"
        assert found.message == f"daemon cannot write to {folders.results / 'night'} (owner: root)"

    SERVICE.run(start)


@needs_root
def test_unused_files_of_others_stop_nothing(folders: Folders) -> None:
    """A copy of the ledger that root made by hand in the state folder does not stop the daemon."""
    (folders.state / "ledger.sqlite.mine").touch(0o600)
    SERVICE.run(lambda: rights.check_start(folders))


@needs_root
def test_root_does_not_run_the_daemon_of_another_user(
    folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    """Root is refused in a state folder of another user, and warned in a root folder of another user."""
    with pytest.raises(UsageError) as refused:
        rights.check_start(folders)
    said(refused.value, f"{folders.state} belongs to daemon", "sudo -u daemon nst-daemon")
    os.chown(folders.state, 12345, GROUP)
    with pytest.raises(UsageError, match="sudo -u '#12345' nst-daemon"):
        rights.check_start(folders)
    os.chown(folders.state, 0, 0)
    rights.check_start(folders)
    (line,) = caplog.messages
    assert line == (
        f"{folders.root} belongs to daemon, and new files will belong to root; "
        "to avoid that, run sudo -u daemon nst-daemon …"
    )


@needs_root
def test_two_people_share_a_root(folders: Folders) -> None:
    """A member can run the daemon in folders of another member; files without group rights are named."""
    SERVICE.run(lambda: started(folders).close())
    MEMBER.run(lambda: (rights.check_start(folders), started(folders).close()))
    folders.ledger.chmod(0o644)

    def start() -> None:
        with pytest.raises(StorageError) as refused:
            rights.check_start(folders)
        names = f"daemon:{rights.group_name(GROUP)}"
        assert refused.value.remedy == (
            f"sudo chown -R {names} '{folders.root}' && sudo chmod -R g+rwX '{folders.root}'"
        )

    MEMBER.run(start)
    OUTSIDER.run(lambda: _runs_as_owner(folders))


def _runs_as_owner(folders: Folders) -> None:
    with pytest.raises(StorageError, match=r"run it as the owner of .*: sudo -u daemon nst-daemon"):
        rights.check_start(folders)


@needs_root
def test_own_modes_are_changed_without_sudo(folders: Folders) -> None:
    """Where the daemon's user owns a folder that it cannot write to, the command is a chmod."""
    folders.results.chmod(0o555)

    def start() -> None:
        with pytest.raises(StorageError) as refused:
            rights.check_start(folders)
        assert refused.value.remedy == f"chmod -R u+rwX '{folders.root}'"

    SERVICE.run(start)


@needs_root
def test_a_read_only_file_system_is_named_as_the_cause(root: Path) -> None:
    """On a read-only file system the ledger of a daemon that crashed can be read, and no command changes its owner."""
    if subprocess.run(["mount", "-t", "tmpfs", "none", root], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        made = configured(root).folders
        root.chmod(0o777)
        made.state.mkdir(mode=0o755)
        os.chown(made.state, SERVICE.uid, GROUP)
        User(SERVICE.uid, SERVICE.gid).run(lambda: started(made), killed=True)
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)

        def use() -> None:
            assert status.gather(made).counts[JobState.CLAIMED] == 1
            with pytest.raises(StorageError, match="is on a read-only file system; mount it"):
                cancel(made)
            rights.check_start(made)
            (found,) = doctor.check_folders(made)
            assert found.message.endswith("is on a read-only file system")

        SERVICE.run(use)
        MEMBER.run(lambda: status.gather(made))
    finally:
        subprocess.run(["umount", "-l", root], check=False)
