"""One look at a real inbox."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest

from nst_daemon.errors import StorageError
from nst_daemon.intake.scan import Scan, arrival_or_complete
from nst_daemon.intake.settle import Arrival
from nst_daemon.intake.walk import MAX_FOLDER_DEPTH, always_complete, list_folder, open_inner
from nst_daemon.intake.writers import Writers
from nst_daemon.jobs import Role
from nst_daemon.units import size
from tests.intake.conftest import MAX_BYTES, NEVER, PNG, House, tree


def names(scan: Scan) -> list[str]:
    """The names of the jobs that are asked for."""
    return [request.name for request in scan.requests]


def test_a_pair_settles_and_is_asked_for(house: House) -> None:
    """A pair is asked for at the first look that comes settle_seconds after it was seen first."""
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    assert [names(house.scan(wait)) for wait in (0, 1.9, 0.1)] == [[], [], ["dog"]]


def test_a_restart_is_no_shortcut(house: House) -> None:
    """After a restart, what has stood in the inbox for long has to be seen twice as well."""
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    house.settled()
    house.restart()
    assert names(house.scan(1000)) == []
    assert names(house.scan(2)) == ["dog"]


def test_a_file_that_grows_is_never_taken(house: House) -> None:
    """As long as a file is written to between looks, its pair is not asked for, however long that takes."""
    house.drop("dog.style.png")
    path = house.drop("dog.content.png")
    for _ in range(20):
        with path.open("ab") as file:
            file.write(b"more")
        scan = house.scan(100)
        assert names(scan) == []
        assert "dog.content.png" in scan.settling


def test_a_touch_begins_the_wait_anew(house: House) -> None:
    """A file that is touched, with the same contents, has to be quiet once more."""
    house.drop("dog.style.png")
    path = house.drop("dog.content.png")
    house.scan()
    os.utime(path, ns=(1, 1))
    assert names(house.scan(3)) == []
    assert names(house.scan(2)) == ["dog"]


@pytest.mark.parametrize("data", [b"", PNG[:-10]])
def test_an_unfinished_picture_has_its_grace(house: House, data: bytes) -> None:
    """An empty or truncated picture is left alone until truncated_grace is over, then the decoder may judge it."""
    house.drop("dog.style.png")
    house.drop("dog.content.png", data)
    house.scan()
    assert names(house.scan(59)) == []
    assert names(house.scan(1)) == ["dog"]


def test_hot_folders_are_made(house: House) -> None:
    """Every settled style of the library gets a folder in the inbox, and what is dropped there is its job."""
    house.style("starry.jpg")
    house.style("notes.txt")
    house.settled()
    assert tree(house.inbox) == {"starry/"}
    house.drop("starry/a.png")
    house.drop("starry/album/b.png")
    assert names(house.settled()) == ["starry/a", "starry/album/b"]


def test_a_style_is_not_used_before_it_has_settled(house: House) -> None:
    """While a new style is still being copied, its folder is not made and its pictures wait."""
    house.drop("starry/a.png")
    house.scan()
    house.style("starry.jpg", PNG[:-10])
    scan = house.scan(3)
    assert scan.settling == ("starry/a.png",)
    assert not scan.waiting


def test_style_settings_reach_the_job(house: House) -> None:
    """styles/starry.yaml gives a hot folder's jobs their settings, and NAME.yaml overrides them."""
    house.style("starry.jpg")
    house.style("starry.yaml", "size: 100\nseed: 1\n")
    house.drop("starry/a.png")
    house.drop("starry/b.png")
    house.drop("starry/b.yaml", "seed: 2\n")
    settings = {request.name: request.settings for request in house.settled().requests}
    assert settings == {
        "starry/a": {"size": 100, "seed": 1},
        "starry/b": {"size": 100, "seed": 2},
    }


def test_two_styles_of_one_name_are_refused(house: House) -> None:
    """starry.jpg and starry.png in the library refuse the pictures for it, and name both files."""
    house.style("starry.jpg")
    house.style("starry.png")
    house.drop("starry/a.png")
    (rejection,) = house.settled().rejections
    assert (
        rejection.reason
        == "the style starry cannot be used: starry.jpg and starry.png have the same name; keep one of them"
    )


def test_a_folder_of_the_library_is_one_style(house: House) -> None:
    """All pictures directly in styles/monet/ are the style of its hot folder, by name, with styles/monet.yaml."""
    (house.styles / "monet" / "more").mkdir(parents=True)
    (house.styles / "empty").mkdir()
    for name in ("b.jpg", "a.png", "notes.txt", "more/c.jpg"):
        house.style(f"monet/{name}")
    house.style("monet.yaml", "seed: 3\n")
    house.settled()
    assert tree(house.inbox) == {"monet/"}
    house.drop("monet/dog.png")
    (request,) = house.settled().requests
    assert [file.path for file in request.files] == ["monet/dog.png", "monet/a.png", "monet/b.jpg"]
    assert request.settings == {"seed": 3}
    job = house.take(request)
    assert [i.name for i in job.inputs if i.role is Role.STYLE] == ["a.png", "b.jpg"]


def test_a_folder_of_the_library_settles_as_a_whole(house: House) -> None:
    """While pictures still come into a style's folder, what is to be painted in it waits."""
    (house.styles / "monet").mkdir()
    house.style("monet/a.png")
    house.settled()
    house.drop("monet/dog.png")
    house.style("monet/b.png", PNG[:-10])
    assert house.scan(3).settling == ("monet/dog.png",)
    house.style("monet/b.png")
    (request,) = house.settled().requests
    assert len(request.files) == 3


def test_what_is_wrong_in_a_folder_of_the_library_is_said(house: House, tmp_path: Path) -> None:
    """A link in a style's folder, or a picture of the folder's name, refuses what is dropped for it."""
    for name in ("monet", "degas"):
        (house.styles / name).mkdir()
        house.style(f"{name}/a.png")
    (house.styles / "monet" / "b.png").symlink_to(tmp_path)
    house.style("degas.jpg")
    house.drop("monet/dog.png")
    house.drop("degas/dog.png")
    reasons = sorted(rejection.reason for rejection in house.settled().rejections)
    assert "degas and degas.jpg have the same name" in reasons[0]
    assert "b.png is a symbolic link" in reasons[1]


def test_settings_are_read_once_per_version(house: House) -> None:
    """A settings file that changes is read again after it has settled."""
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    path = house.drop("dog.yaml", "size: 64\n")
    assert house.settled().requests[0].settings == {"size": 64}
    path.write_text("size: 65\n")
    assert house.settled().requests[0].settings == {"size": 65}


def test_groups_take_turns(house: House) -> None:
    """A full hot folder does not hold up another: requests come in turns."""
    for style in ("night", "starry"):
        house.style(f"{style}.jpg")
    for number in range(4):
        house.drop(f"night/{number}.png")
    house.drop("starry/a.png")
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    groups = [request.group for request in house.settled().requests]
    assert sorted(groups[:3]) == ["", "night", "starry"]


def test_jobs_of_a_scan_keep_the_natural_order_of_their_names(house: House) -> None:
    """IMG_2 is requested before IMG_10, in whatever order they were dropped and the file system lists them."""
    house.style("starry.jpg")
    for number in (10, 9, 100, 2, 1):
        house.drop(f"starry/IMG_{number}.png")
        house.drop(f"img_{number}.content.png")
        house.drop(f"img_{number}.style.png")
    found = names(house.settled())
    assert found == [name for n in (1, 2, 9, 10, 100) for name in (f"img_{n}", f"starry/IMG_{n}")]


def test_special_files_are_refused(house: House, tmp_path: Path) -> None:
    """Links, pipes, sockets and hard links are refused by what they are; nothing of them is opened."""
    house.drop("real.style.png")
    (tmp_path / "secret.png").write_bytes(PNG)
    (house.inbox / "link.content.png").symlink_to(tmp_path / "secret.png")
    (house.inbox / "dangling.png").symlink_to("/nonexistent")
    os.mkfifo(house.inbox / "pipe.content.png")
    os.link(tmp_path / "secret.png", house.inbox / "hard.content.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(house.inbox / "socket.png"))
        reasons = {rejection.name: rejection.reason for rejection in house.settled().rejections}
    assert {name: reason.split("; ")[0] for name, reason in reasons.items()} == {
        "link": "link.content.png is a symbolic link",
        "dangling": "dangling.png is a symbolic link",
        "pipe": "pipe.content.png is a named pipe",
        "hard": "hard.content.png has 2 hard links, so another name may change its contents",
        "socket": "socket.png is a socket",
    }


def test_special_files_of_others_are_left_alone(house: House, tmp_path: Path) -> None:
    """Links, pipes and sockets that are not named like pictures stay, and the log says so."""
    (house.inbox / "folder").symlink_to(tmp_path)
    (house.inbox / "dangling").symlink_to("/nonexistent")
    os.mkfifo(house.inbox / "pipe")
    (tmp_path / "text").write_text("x")
    os.link(tmp_path / "text", house.inbox / "hard.txt")
    scan = house.settled()
    assert (scan.requests, scan.rejections, scan.settling) == ((), (), ())
    assert sorted(scan.problems) == [
        "left alone: inbox/dangling is a symbolic link; drop a copy of the file itself",
        "left alone: inbox/folder is a symbolic link; drop a copy of the file itself",
        "left alone: inbox/hard.txt has 2 hard links, so another name may change its "
        "contents; drop a copy",
        "left alone: inbox/pipe is a named pipe; drop a copy of the file itself",
    ]


def test_a_file_whose_structure_cannot_be_checked_is_complete(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unexpected exception of the check of a file is logged and leaves the file to the decoder."""

    def arrival(writers: Writers) -> Arrival:
        raise ZeroDivisionError("in a parser")

    writers = Writers()
    assert arrival_or_complete(arrival, writers) == always_complete(writers)
    assert "ZeroDivisionError: in a parser" in caplog.text


def test_many_files_of_others_are_a_few_lines(house: House) -> None:
    """Of 500 unknown files in a folder 20 are named, in natural order; the line about the rest is not repeated."""
    house.style("starry.jpg")
    for number in range(500):
        house.drop(f"starry/MVI_{number}.mov", "x")
    scan = house.settled()
    assert len(scan.left_alone) == 500
    assert len(scan.problems) == 21
    assert scan.problems[2].startswith("left alone: inbox/starry/MVI_2.mov is a video")
    assert scan.problems[20] == (
        "at least 100 more files in inbox/starry stay where they are: they are not image files"
    )
    for number in range(500, 900):
        house.drop(f"starry/MVI_{number}.mov", "x")
    assert house.settled().problems == scan.problems


def test_many_folders_of_others_are_a_few_lines(house: House) -> None:
    """Of 300 folders with unknown files 20 are named, in natural order, and one line is about the others."""
    for number in range(300):
        house.drop(f"project-{number}/readme.txt", "x")
    scan = house.settled()
    assert len(scan.left_alone) == 300
    assert len(scan.problems) == 21
    assert scan.problems[2].startswith("left alone: inbox/project-2/readme.txt is ")
    assert scan.problems[20] == (
        "at least 100 more files in other folders of the inbox stay where they are: "
        "they are not image files"
    )


SIDECARS = ["content.png:Zone.Identifier", "content.png.xmp", "content.xmp", "content.AAE", "content.png.json",
            "content.png.supplemental-metadata.json", "content.png.supplemental-me.json", "Thumbs.db", "._content.png",
            "content.png.pp3", "content.dop", "content.THM", "Desktop.ini", "page.url", "picasa.ini",
            "content.png\uf03aZone.Identifier", "content.png.cos", "metadata.json"]  # fmt: skip


@pytest.mark.parametrize("name", SIDECARS)
def test_sidecars_are_no_parts_of_a_job(house: House, name: str) -> None:
    """A job folder and a hot folder with files that other programs keep beside pictures are painted without them."""
    house.style("starry.jpg")
    for path in (
        "w/content.png",
        "w/style.png",
        f"w/{name}",
        "starry/content.png",
        f"starry/{name}",
    ):
        house.drop(path)
    scan = house.settled()
    assert (scan.rejections, scan.waiting, scan.problems) == ((), (), ())
    assert sorted(names(scan)) == ["starry/content", "w"]


def test_a_sidecar_stays_when_its_picture_is_taken(house: House) -> None:
    """A job folder that is taken keeps a person's sidecar, is no job any more, and nothing is said about it."""
    for name in (
        "content.png",
        "style.png",
        "content.png.xmp",
        "notes.txt",
        "style.png:Zone.Identifier",
    ):
        house.drop(f"w/{name}")
    for name in ("content.png", "style.png", "style.png:Zone.Identifier", ".DS_Store"):
        house.drop(f"v/{name}")
    for request in house.settled().requests:
        house.take(request)
    assert tree(house.inbox) == {
        "w/",
        "w/content.png.xmp",
        "w/notes.txt",
        "w/style.png:Zone.Identifier",
    }
    (house.inbox / "w" / "notes.txt").unlink()
    for scan in (house.settled(), house.scan(5000), house.scan(5000)):
        assert scan == Scan()
    assert (house.inbox / "w" / "content.png.xmp").exists()


def test_an_empty_picture_stays(house: House) -> None:
    """A picture without bytes, as virtual files of cloud clients look, settles for the grace and then stays."""
    house.style("starry.jpg")
    house.drop("starry/a.png", b"")
    assert house.settled().settling == ("starry/a.png",)
    scan = house.scan(60)
    assert (scan.requests, scan.rejections, scan.settling) == ((), (), ())
    assert scan.problems[0].startswith("left alone: inbox/starry/a.png is empty")
    house.drop("starry/a.png")
    assert names(house.settled()) == ["starry/a"]


def test_a_style_whose_folder_would_be_ignored_is_refused(house: House) -> None:
    """styles/wave.temp.png cannot have a hot folder, and the log says so."""
    house.style("wave.temp.png")
    house.drop("wave.temp/a.png")
    scan = house.settled()
    assert scan.problems == (
        "the style wave.temp cannot be used: wave.temp is the name of a temporary file, which is ignored in the inbox; "
        "give the style another name",
    )


def test_a_folder_in_latin_1_is_a_folder(house: House) -> None:
    """Folders and styles with undecodable bytes in their names give jobs that the ledger takes."""
    odd = os.fsdecode(b"M\xfcnchen")
    house.style(f"{odd}.png")
    (house.styles / f"{odd}2").mkdir()
    house.style(f"{odd}2/{odd}.png")
    for path in (f"{odd}/a.png", f"{odd}2/{odd}.png", f"x{odd}/content.png", f"x{odd}/style.png",
                 f"y{odd}/a.content.png", f"y{odd}/a.style.png", f"{odd}.batch.yaml"):  # fmt: skip
        house.drop(path)
    scan = house.settled()
    assert (scan.rejections, scan.problems) == ((), ())
    assert {request.group for request in scan.requests} == {"", "M_nchen", "M_nchen2", "yM_nchen"}
    jobs = [house.take(request) for request in scan.requests]
    assert {job.name for job in jobs} == {
        "M_nchen/a", "M_nchen2/M_nchen", "xM_nchen", "yM_nchen/a", "M_nchen"
    }  # fmt: skip
    assert tree(house.inbox) == {f"{odd}/", f"{odd}2/", f"y{odd}/"}


def test_a_file_beyond_the_limit_is_refused_unread(house: House) -> None:
    """A file larger than max_bytes is refused by its size; a sparse one of a terabyte costs no time."""
    path = house.drop("huge.content.png", b"")
    os.truncate(path, 2**40)
    (rejection,) = house.settled().rejections
    assert rejection.reason == (
        f"huge.content.png has 1 TiB, more than limits.max_bytes ({size(MAX_BYTES)}); "
        "drop a smaller file, or raise that limit"
    )


def test_odd_names_are_only_names(house: House) -> None:
    """Names in any encoding, with control characters or dots, or of 255 bytes give jobs with harmless names."""
    odd = [
        b"caf\xe9",
        b"line\nbreak",
        b"esc\x1b[31m",
        b"..",
        b"a..b",
        b" ",
        "日本".encode(),
        b"x" * 243,
    ]
    for name in odd:
        for role in (".content.png", ".style.png"):
            house.drop("_" * (name == b"..") + os.fsdecode(name) + role)
    scan = house.settled()
    assert not scan.rejections
    found = names(scan)
    assert len(found) == len(odd)
    assert {"caf_", "line_break", "esc_[31m", "a..b", "日本"} <= set(found)
    assert all(name.isprintable() and len(name.encode()) <= 200 for name in found)


def test_ignored_names_are_passed_over(house: House) -> None:
    """Partial downloads and litter are neither taken nor refused nor settling."""
    for name in ("dog.content.png.part", ".hidden.png", "Thumbs.db", "starry/.DS_Store"):
        house.drop(name)
    scan = house.settled()
    assert (scan.requests, scan.rejections, scan.waiting, scan.settling) == ((), (), (), ())


def test_folders_have_a_bottom(house: House) -> None:
    """A folder that lies too deep is refused as a whole, and what lies above it is taken."""
    deep = "/".join("abcdefghijkl")
    house.drop(f"{deep}/dog.content.png")
    house.drop("a/cat.content.png")
    house.drop("a/cat.style.png")
    scan = house.settled()
    assert names(scan) == ["a/cat"]
    (rejection,) = scan.rejections
    assert f"more than {MAX_FOLDER_DEPTH} folders deep" in rejection.reason
    house.take(rejection)
    assert len(list(house.failed.rglob("dog.content.png"))) == 1
    assert not list(house.inbox.rglob("dog*"))


def test_a_directory_named_like_a_picture_is_a_folder(house: House) -> None:
    """An empty folder dog.content.png is not the content of a pair: it stays, and the style waits."""
    (house.inbox / "dog.content.png").mkdir()
    house.drop("dog.style.png")
    scan = house.settled()
    assert (scan.requests, scan.rejections) == ((), ())
    assert [waiting.name for waiting in scan.waiting] == ["dog"]


def test_what_is_left_stays_unseen_until_it_changes(house: House) -> None:
    """A file that was dealt with but cannot be removed is not asked for again, but a new version is."""
    house.style("starry.jpg")
    path = house.drop("starry/a.png")
    house.intake.leave(house.settled().requests[0].files)
    assert names(house.settled()) == []
    path.write_bytes(PNG + b"new")
    assert names(house.settled()) == ["starry/a"]


def test_drops_that_wait_are_in_natural_order_and_each_folder_in_its_turn(house: House) -> None:
    """The first drops of a long list are those of all folders, not of one."""
    for path in ("d10.content.png", "d9.content.png", "d1.content.png", "trip/cat.content.png"):
        house.drop(path)
    names = [waiting.name for waiting in house.settled().waiting]
    assert names == ["d1", "trip/cat", "d9", "d10"]


def test_a_folder_that_was_emptied_before_a_restart_is_not_mentioned(tmp_path: Path) -> None:
    """Only a folder that never had a job is said to be empty; the other one is removed after pair_timeout."""
    house = House(tmp_path, had_jobs=lambda path: path == "trip")
    for name in ("trip", "new"):
        (house.inbox / name).mkdir()
    assert house.settled().problems == (
        "inbox/new is an empty folder; put content.jpg and style.jpg into it",
    )
    house.scan(3700.0)
    assert [path.name for path in house.inbox.iterdir()] == ["new"]


def test_a_dropped_folder_goes_when_it_has_long_been_empty(house: House) -> None:
    """A folder whose files were taken is removed once it was quiet for pair_timeout; hot folders stay."""
    house.style("starry.jpg")
    house.drop("trip/dog.content.png")
    house.drop("trip/dog.style.png")
    house.drop("starry/a.png")
    for request in house.settled().requests:
        house.take(request)
    (house.inbox / "mine").mkdir()
    house.scan(1)
    house.scan(3599)
    assert tree(house.inbox) == {"trip/", "starry/", "mine/"}
    house.scan(10)
    assert tree(house.inbox) == {"starry/", "mine/"}


def test_a_default_style_that_is_not_there_hurts_no_picture(house: House) -> None:
    """Where default_style is not in the library, pictures wait and the log says what is wrong."""
    house.options["default_style"] = "nosuch"
    house.restart()
    house.drop("dog.png")
    scan = house.settled()
    assert [waiting.name for waiting in scan.waiting] == ["dog"]
    assert scan.problems[0].startswith("default_style is nosuch, which is not in")


def test_a_half_is_given_up_by_its_own_age(house: House) -> None:
    """pair_timeout counts from the file's ctime, through restarts; with an endless one it is never given up."""
    house.drop("dog.content.png")
    house.scan(3590)
    house.restart()
    house.settled()
    assert [rejection.name for rejection in house.scan(10).rejections] == ["dog"]
    house.options["pair_timeout"] = NEVER
    house.restart()
    house.scan(1e9)
    assert house.scan(10).rejections == ()


def test_an_old_half_is_not_given_up_at_the_first_looks(house: House) -> None:
    """A half older than pair_timeout has a settle and a rescan after a restart for the other half to arrive."""
    house.drop("late.content.png")
    house.drop("lone.content.png")
    house.wall += 7200
    house.restart()
    house.scan()
    scan = house.scan(6.9)
    assert scan.rejections == ()
    assert {waiting.name: round(waiting.left, 6) for waiting in scan.waiting} == {
        "late": 0.1,
        "lone": 0.1,
    }
    house.drop("late.style.png")
    assert [rejection.name for rejection in house.scan(0.1).rejections] == ["lone"]
    assert names(house.scan(2)) == ["late"]


def test_the_grace_of_an_old_half_is_not_longer_than_its_time(house: House) -> None:
    """With a pair_timeout below a settle and a rescan, an old half has this time, like a new one."""
    house.options["pair_timeout"] = 3.0
    for age in (0, 7200):
        house.drop(f"half{age}.content.png")
        house.wall += age
        house.restart()
        house.scan()
        assert house.scan(2.9).rejections == ()
        (rejection,) = house.scan(0.2).rejections
        house.take(rejection)


def test_an_inbox_that_has_gone_is_the_disks_fault(house: House) -> None:
    """Without its inbox or its library a scan raises StorageError; when they come back it goes on as before."""
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    for folder in (house.inbox, house.styles):
        folder.rename(folder.with_suffix(".away"))
        with pytest.raises(StorageError, match="mount it or create it"):
            house.scan()
        folder.with_suffix(".away").rename(folder)
    assert names(house.settled()) == ["dog"]


def test_ten_thousand_pairs_are_all_seen(house: House) -> None:
    """Of 10,000 pairs that are dropped at once, each is asked for exactly once."""
    folder = os.open(house.inbox, os.O_RDONLY)
    for number in range(10_000):
        for role in ("content", "style"):
            name = f"{number}.{role}.png"
            descriptor = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=folder)
            os.write(descriptor, b"x")
            os.close(descriptor)
    os.close(folder)
    house.options["truncated_grace"] = 0.0
    house.restart()
    found = names(house.settled())
    assert sorted(found, key=int) == [str(number) for number in range(10_000)]


@pytest.mark.parametrize("jump", [-(10**8), -3600.0, 3601.0, 10**8])
def test_a_clock_that_is_set_hurries_and_delays_nothing(house: House, jump: float) -> None:
    """Whatever the wall clock is set to while a half waits, it waits for as long, and a pair settles as fast."""
    house.drop("half.content.png")
    house.drop("dog.content.png")
    house.drop("dog.style.png")
    house.scan()
    house.wall += jump
    scan = house.scan(2)
    assert names(scan) == ["dog"]
    assert [waiting.name for waiting in scan.waiting] == ["half"]
    assert house.scan(3500).rejections == ()
    house.wall -= jump
    assert [rejection.name for rejection in house.scan(200).rejections] == ["half"]


def test_files_from_the_future_and_from_1970_settle_like_others(house: House) -> None:
    """The times that a file brings along say nothing about whether it is complete."""
    for name, mtime in (("a", 0), ("b", 2**40)):
        for role in ("content", "style"):
            os.utime(house.drop(f"{name}.{role}.png"), (mtime, mtime))
    assert names(house.scan()) == []
    assert sorted(names(house.scan(2))) == ["a", "b"]


def test_too_few_descriptors_are_no_empty_folder(tmp_path: Path) -> None:
    """A folder that cannot be listed for lack of descriptors is an error of all, or `once` would end with 0."""
    folder = os.open(tmp_path, os.O_RDONLY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (folder + 1, hard))
        with pytest.raises(StorageError, match="Too many open files; raise the limit"):
            list_folder(folder, "inbox", [])
        with pytest.raises(StorageError), open_inner(".", folder, "inbox", []):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(folder)
