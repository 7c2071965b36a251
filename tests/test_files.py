"""Files that can be trusted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nst_daemon import files
from nst_daemon.errors import InputError, StorageError
from nst_daemon.mounts import free_bytes, network_file_system
from nst_daemon.names import NAME_BYTES, clean_name, printable
from nst_daemon.publishing import move_folder, publish
from tests.conftest import largest_file


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A stage with a finished set in it."""
    folder = tmp_path / "stage"
    folder.mkdir()
    for name, data in (
        ("picture.json", b"{1}"),
        ("picture.loss.png", b"loss"),
        ("picture.png", b"image"),
    ):
        (folder / name).write_bytes(data)
    return folder


SET = ("picture.json", "picture.loss.png", "picture.png")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An empty results folder."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def names(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# Publishing


def test_a_set_is_published_under_one_name(stage: Path, results: Path) -> None:
    """Every file of the set gets the job's name and keeps what follows the picture's stem."""
    picture = publish(stage, SET, results, "starry/dog.v2")
    assert picture == results / "starry" / "dog.v2.png"
    assert names(results) == {"starry/dog.v2.json", "starry/dog.v2.loss.png", "starry/dog.v2.png"}
    assert picture.read_bytes() == b"image"


def test_nothing_is_overwritten(stage: Path, results: Path) -> None:
    """Where any file of the set's name exists, the whole set takes the next number."""
    (results / "dog.loss.png").write_bytes(b"somebody's")
    (results / "dog-2.json").symlink_to("nowhere")
    assert publish(stage, SET, results, "dog") == results / "dog-3.png"
    assert (results / "dog.loss.png").read_bytes() == b"somebody's"
    assert not (results / "dog.png").exists()


def test_publishing_again_finds_what_it_had_placed(stage: Path, results: Path) -> None:
    """After a crash at any point the same set goes to the same name, once."""
    (results / "dog.json").write_bytes(b"another job's")
    for placed in range(len(SET) + 1):
        for name in SET[:placed]:
            target = results / name.replace("picture", "dog-2")
            target.unlink(missing_ok=True)
            os.link(stage / name, target)
        assert publish(stage, SET, results, "dog") == results / "dog-2.png"
    assert names(results) == {"dog.json", "dog-2.json", "dog-2.loss.png", "dog-2.png"}


def test_overwriting_is_atomic_and_only_on_request(stage: Path, results: Path) -> None:
    """With overwrite the old set is replaced name by name, also when it is done again."""
    (results / "dog.png").write_bytes(b"old")
    for _ in range(2):
        assert publish(stage, SET, results, "dog", overwrite=True) == results / "dog.png"
    assert (results / "dog.png").read_bytes() == b"image"
    assert names(results) == {"dog.json", "dog.loss.png", "dog.png"}


def test_overwriting_leaves_nothing_of_the_old_result(stage: Path, results: Path) -> None:
    """A curve, a time-lapse or a picture in another format that the new set lacks goes; other results stay."""
    for name in ("dog.png", "dog.loss.png", "dog.progress.webp", "dog.webp", "dog-2.loss.png"):
        (results / name).write_bytes(b"old")
    publish(stage, ("picture.json", "picture.png"), results, "dog", overwrite=True)
    assert names(results) == {"dog.json", "dog.png", "dog-2.loss.png"}
    for name in ("dog.loss.png", "dog.loss.json"):
        (results / name).write_bytes(b"the picture of a job that is called dog.loss")
    publish(stage, ("picture.json", "picture.png"), results, "dog", overwrite=True)
    assert (results / "dog.loss.png").exists()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.ENOTSUP])
def test_without_hard_links_copies_are_published(
    stage: Path, results: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where hard links do not exist or do not reach, the result is the same, also when it is done again."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    (results / "dog.png").write_bytes(b"somebody's")
    for _ in range(2):
        assert publish(stage, SET, results, "dog") == results / "dog-2.png"
    assert names(results) == {"dog.png", "dog-2.json", "dog-2.loss.png", "dog-2.png"}
    assert (results / "dog-2.png").read_bytes() == b"image"
    assert names(stage) == set(SET)


def test_a_name_that_is_taken_at_the_last_moment_is_not_overwritten(
    stage: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If dog.png is created between the check and the link, the whole set is published as dog-2."""
    real = os.link

    def race(source: Path, target: Path) -> None:
        if target.name == "dog.png":
            target.write_bytes(b"somebody's")
        real(source, target)

    monkeypatch.setattr(os, "link", race)
    assert publish(stage, SET, results, "dog") == results / "dog-2.png"
    assert names(results) == {"dog.png", "dog-2.json", "dog-2.loss.png", "dog-2.png"}
    assert (results / "dog.png").read_bytes() == b"somebody's"


@pytest.mark.parametrize("place", range(len(SET)))
def test_the_picture_comes_last(
    stage: Path, results: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends at any file has placed the files before it, in order, and not the picture."""
    real = os.link

    def end(source: Path, target: Path) -> None:
        if source.name == SET[place]:
            raise SystemExit
        real(source, target)

    monkeypatch.setattr(os, "link", end)
    with pytest.raises(SystemExit):
        publish(stage, SET, results, "dog")
    assert names(results) == {name.replace("picture", "dog") for name in SET[:place]}


@pytest.mark.parametrize("place", range(len(SET)))
def test_a_failed_publication_leaves_nothing(stage: Path, results: Path, place: int) -> None:
    """A publication that fails at any file leaves no file of the set in the results."""
    (stage / SET[place]).unlink()
    with pytest.raises(StorageError, match="No such file"):
        publish(stage, SET, results, "dog")
    assert names(results) == set()


def test_results_that_have_gone_are_not_invented(stage: Path, results: Path) -> None:
    """Where the results folder is missing (not mounted), publishing raises and does not create it."""
    results.rmdir()
    with pytest.raises(StorageError, match="does not exist; mount it or create it"):
        publish(stage, SET, results, "dog")
    assert not results.exists()


# Writing and moving


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """If a write fails in the middle, the old contents stay, and the temporary file is removed."""
    path = tmp_path / "file"
    files.write_atomic(path, b"old")
    with largest_file(100), pytest.raises(StorageError) as raised:
        files.write_atomic(path, b"new" * 100)
    assert str(raised.value) == (
        f"{path}: File too large; raise the limit on file sizes (ulimit -f, LimitFSIZE=)"
    )
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_files_obey_the_umask(tmp_path: Path) -> None:
    """What is written can be read by the group where the umask says so."""
    before = os.umask(0o002)
    try:
        files.write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o664


def test_folders_move_beside_each_other(tmp_path: Path) -> None:
    """A folder of a taken name gets a number, and the other one stays as it was."""
    for number in range(3):
        source = tmp_path / "source"
        source.mkdir()
        (source / "file").write_text(str(number))
        move_folder(source, tmp_path, "a/b")
    assert {p: (tmp_path / p).read_text() for p in names(tmp_path)} == {
        "a/b/file": "0",
        "a/b-2/file": "1",
        "a/b-3/file": "2",
    }


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "mount it writable"),
        (errno.EIO, "check the disk or the mount"),
    ],
)
def test_an_error_of_the_disk_has_its_remedy(tmp_path: Path, code: int, remedy: str) -> None:
    """A StorageError names the place, the cause and what to do."""
    with pytest.raises(StorageError) as raised, files.storage(tmp_path):
        raise OSError(code, os.strerror(code))
    assert str(raised.value) == f"{tmp_path}: {os.strerror(code)}; {remedy}"


def test_folders_move_between_file_systems(tmp_path: Path, other_file_system: Path) -> None:
    """A folder from another file system arrives whole, and is removed at its source."""
    source = other_file_system / "source"
    source.mkdir()
    (source / "file").write_text("data")
    (source / "link").symlink_to("nowhere")
    moved = move_folder(source, tmp_path, "target")
    assert not source.exists()
    assert (moved / "file").read_text() == "data"
    assert (moved / "link").is_symlink()


# Names


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("dog.jpg", "dog.jpg"),
        ("日本 dog.jpg", "日本 dog.jpg"),
        ("..", "_"),
        (".hidden", "_hidden"),
        ("", "_"),
        (" \t", "_"),
        ("a/b\\c", "a_b_c"),
        ("esc\x1b[31m\n.jpg", "esc_[31m_.jpg"),
        ("caf\udce9.jpg", "caf_.jpg"),
        ("e\u0301.jpg", "é.jpg"),
        ("x" * 300 + ".jpg", "x" * 196 + ".jpg"),
        ("日" * 100 + ".jpg", "日" * 65 + ".jpg"),
        ("\U0001f468\u200d\U0001f469.jpg", "\U0001f468\u200d\U0001f469.jpg"),
        ("می\u200cخواهم.jpg", "می\u200cخواهم.jpg"),
        ("\u200d \u200c", "_"),
        ("\u200d.hidden", "_hidden"),
    ],
)
def test_clean_names(name: str, clean: str) -> None:
    """Unicode stays; what could harm a path or a terminal goes; a long name keeps its suffix."""
    assert clean_name(name) == clean


@settings(deadline=None)  # a slow machine is not a failure
@given(st.text() | st.binary().map(os.fsdecode))
def test_a_clean_name_is_always_usable(name: str) -> None:
    """Whatever a name was, the clean one is one harmless path component of at most 200 bytes of UTF-8."""
    clean = clean_name(name)
    assert 1 <= len(clean.encode()) <= NAME_BYTES
    assert clean == printable(clean)
    assert not clean[0].isspace()
    assert not clean[-1].isspace()
    assert "/" not in clean
    assert not clean.startswith(".")
    assert clean_name(clean) == clean


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("日本 dog.jpg", "日本 dog.jpg"),
        ("esc\x1b[31m", "esc\\x1b[31m"),
        ("two\nlines", "two\\x0alines"),
        ("caf\udce9", "caf\\xe9"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_names_are_shown_safely(name: str, shown: str) -> None:
    """Letters and emoji are shown as they are, what could fool or steer a terminal is escaped."""
    assert printable(name) == shown


# Opening


def open_in(folder: Path, name: str, limit: int = 100) -> int:
    """Open a dropped file by a descriptor of its folder."""
    descriptor = files.open_folder(folder)
    try:
        opened, _ = files.open_regular(name, descriptor, limit)
    finally:
        os.close(descriptor)
    return opened


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "is a named pipe"),
        (lambda path: path.symlink_to("/etc/passwd"), "is a symbolic link"),
        (Path.mkdir, "is a folder"),
        (
            lambda path: path.write_bytes(bytes(101)),
            r"has 101 bytes, more than limits\.max_bytes \(100 bytes\)",
        ),
        (lambda path: (path.touch(), os.link(path, path.with_name("other"))), "has 2 hard links"),
    ],
)
def test_only_plain_files_are_opened(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    """A pipe, a link, a folder, a hard link or a file beyond the limit is refused at once and by its kind."""
    make(tmp_path / "dog.jpg")
    with pytest.raises(InputError, match=reason):
        open_in(tmp_path, "dog.jpg")


@pytest.mark.skipif(not os.access("/dev/null", os.R_OK), reason="no devices here")
def test_devices_are_not_opened() -> None:
    """A device is refused by its kind."""
    with pytest.raises(InputError, match="is a character device"):
        open_in(Path("/dev"), "null")


def test_folders_are_not_reached_through_links(tmp_path: Path) -> None:
    """A link in the middle of a path below the root stops the way; one above the root does not."""
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "root").symlink_to("real")
    (tmp_path / "real" / "link").symlink_to("inner")
    with files.folder_of(tmp_path / "root", "inner/dog.jpg") as (_, name):
        assert name == "dog.jpg"
    with (
        pytest.raises(OSError, match=r"Not a directory|Too many levels"),
        files.folder_of(tmp_path / "root", "link/dog.jpg"),
    ):
        pass


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """A hundred refused and a hundred opened files leave no descriptor behind."""
    (tmp_path / "dog.jpg").write_bytes(b"x")
    (tmp_path / "big.jpg").write_bytes(bytes(500))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(100):
        os.close(open_in(tmp_path, "dog.jpg"))
        with pytest.raises(InputError):
            open_in(tmp_path, "big.jpg")
        with files.folder_of(tmp_path, "dog.jpg"):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# File systems

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/pool /srv/pool nfs4 rw 0 0
//nas/share /mnt/with\\040space cifs rw 0 0
/dev/sdb1 /srv/pool/local xfs rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
/dev/sdc1 /mnt/usb fuseblk rw 0 0
/dev/sdd1 /mnt/twice ext4 rw 0 0
server:/x /mnt/twice nfs rw 0 0
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/pool/inbox", "nfs4"),
        ("/srv/pool", "nfs4"),
        ("/srv/pooled/inbox", ""),
        ("/srv/pool/local/inbox", ""),
        ("/mnt/with space/inbox", "cifs"),
        ("/mnt/ssh/a/b", "fuse.sshfs"),
        ("/mnt/usb/inbox", ""),
        ("/mnt/twice", "nfs"),
        ("/home/inbox", ""),
    ],
)
def test_network_file_systems_are_found_in_the_mount_table(path: str, kind: str) -> None:
    """The innermost mount decides, the later one of two on a point, and escapes are read."""
    assert network_file_system(Path(path), MOUNTS) == kind


def test_this_machines_own_table_is_read(tmp_path: Path) -> None:
    """Without a table given, the kernel's is read, and a temporary folder is not on a network."""
    assert network_file_system(tmp_path) == ""
    assert free_bytes(tmp_path) > 0
