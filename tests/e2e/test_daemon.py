"""From a dropped pair to a picture, with the real process, the real worker and the real engine."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.drawings import draw_painting, draw_scene
from tests.e2e.conftest import Daemon

pytestmark = pytest.mark.slow


def drop_pair(inbox: Path, name: str = "dog") -> None:
    """Put a small pair into the inbox."""
    inbox.mkdir(exist_ok=True)
    draw_scene(96, 64).save(inbox / f"{name}.content.png")
    draw_painting(80, 80).save(inbox / f"{name}.style.jpg")


def names(folder: Path) -> set[str]:
    """What is in a folder, below it and not hidden."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.name.startswith(".")}


def pictures(results: Path) -> set[str]:
    """The results, without what lies beside them."""
    return {n for n in names(results) if n.endswith(".png") and not n.endswith(".loss.png")}


def said_done(daemon: Daemon, result: str) -> bool:
    """Whether the log says that this picture is done: nothing of its job is left to move or to remove then."""
    return f"done: {daemon.root / 'results' / result}\n" in daemon.text()


def holds_open(process: subprocess.Popen[bytes], path: Path) -> bool:
    """Whether a process has this file open; its descriptors come and go while they are listed."""
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if descriptor.readlink() == path:
                return True
    return False


def test_a_dropped_pair_becomes_a_picture(daemon: Daemon) -> None:
    """A pair dropped while the daemon runs appears in results/ with its JSON, and its inputs in done/; the same name
    again gives NAME-2.png beside it.
    """
    daemon.start()
    daemon.until((daemon.root / "inbox").is_dir, "inbox")
    drop_pair(daemon.root / "inbox")
    daemon.until(lambda: said_done(daemon, "dog.png"), "end of the job")
    with Image.open(daemon.root / "results" / "dog.png") as picture:
        assert picture.size == (64, 43)
        assert len(picture.getcolors(maxcolors=64 * 43) or ()) > 100
    sidecar = json.loads((daemon.root / "results" / "dog.json").read_text())
    assert sidecar["settings"]["size"] == 64
    assert names(daemon.root / "results") == {
        "dog.json", "dog.loss.png", "dog.progress.webp", "dog.png"
    }, "the preview is hidden, and gone"  # fmt: skip
    with Image.open(daemon.root / "results" / "dog.loss.png") as curve:
        assert curve.width > 600
    with Image.open(daemon.root / "results" / "dog.progress.webp") as lapse:
        assert lapse.size == (64, 43)
    assert names(daemon.root / "done") >= {"dog/dog.content.png", "dog/dog.style.jpg"}
    assert names(daemon.root / "inbox") == set()
    first = (daemon.root / "results" / "dog.png").stat().st_ino
    drop_pair(daemon.root / "inbox")
    daemon.until(lambda: said_done(daemon, "dog-2.png"), "end of the second job")
    assert pictures(daemon.root / "results") == {"dog.png", "dog-2.png"}
    assert (daemon.root / "results" / "dog.png").stat().st_ino == first
    assert daemon.end() == 0


def test_bad_input_costs_nothing_else(daemon: Daemon) -> None:
    """Each bad drop ends in failed/ with one clear line, and the good pair beside them is painted."""
    inbox = daemon.root / "inbox"
    drop_pair(inbox, "empty")
    (inbox / "empty.content.png").write_bytes(b"")
    drop_pair(inbox, "text")
    (inbox / "text.style.jpg").write_text("this is not a picture")
    drop_pair(inbox, "half")
    whole = (inbox / "half.content.png").read_bytes()
    (inbox / "half.content.png").write_bytes(whole[: len(whole) // 2])
    drop_pair(inbox, "unknown-key")
    (inbox / "unknown-key.yaml").write_text("sise: 512")
    drop_pair(inbox, "wrong-value")
    (inbox / "wrong-value.yaml").write_text("size: enormous")
    drop_pair(inbox, "vast")
    Image.new("1", (40_000, 40)).save(inbox / "vast.content.png")
    drop_pair(inbox, "good")
    daemon.start("once")
    assert daemon.process is not None
    assert daemon.process.wait(180) == 1, daemon.text()
    said = {
        folder.name: (folder / "error.txt").read_text().splitlines()[0]
        for folder in (daemon.root / "failed").iterdir()
    }
    assert set(said) == {"empty", "text", "half", "unknown-key", "wrong-value", "vast"}
    assert "empty.content.png" in said["empty"]
    assert "text.style.jpg" in said["text"]
    assert "half.content.png" in said["half"]
    assert "sise" in said["unknown-key"]
    assert "size" in said["unknown-key"], "it suggests the key that was meant"
    assert "enormous" in said["wrong-value"]
    assert "vast.content.png" in said["vast"]
    assert pictures(daemon.root / "results") == {"good.png"}
    assert names(daemon.root / "failed" / "half") >= {"half.content.png", "half.style.jpg"}


def test_an_interrupted_job_goes_on(daemon: Daemon) -> None:
    """SIGTERM or SIGINT in the middle of a painting ends the daemon with 0, and a later start finishes the job."""
    # The job keeps this number: settings are resolved once, at admission.
    daemon.environment["NST_RENDER__ITERATIONS"] = "80"
    drop_pair(daemon.root / "inbox")
    for number in (signal.SIGTERM, signal.SIGINT):
        before = daemon.text().count("painting") if daemon.log.exists() else 0
        daemon.start()
        daemon.until(lambda n=before: daemon.text().count("painting") > n, "painting")  # type: ignore[misc]
        assert daemon.end(number) == 0, daemon.text()
        assert not (daemon.root / "results" / "dog.png").exists()
    daemon.start("once")
    assert daemon.process is not None
    assert daemon.process.wait(180) == 0, daemon.text()
    assert (daemon.root / "results" / "dog.png").exists()


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    """A second daemon, or `once`, on a root that is served ends with code 6 and says why."""
    daemon.start()
    daemon.until((daemon.root / "inbox").is_dir, "inbox")
    second = Daemon(daemon.root, daemon.root / "state")
    second.log = daemon.root / "second.log"
    second.start("once")
    assert second.process is not None
    assert second.process.wait(60) == 6
    assert "serves" in second.text()
    assert daemon.end() == 0


def test_a_daemon_starts_while_its_status_is_asked_for(daemon: Daemon) -> None:
    """A command that looks whether a daemon runs, and so holds the lock for an instant, does not stop its start."""
    daemon.start("once")
    assert daemon.process is not None and daemon.process.wait(60) == 0
    lock = Path(daemon.environment["NST_FOLDERS__STATE"]) / "lock"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `ops.status.served` does
        daemon.start("once")
        process = daemon.process
        daemon.until(lambda: holds_open(process, lock), "its lock")
    assert daemon.process.wait(60) == 0, daemon.text()


def test_reload(daemon: Daemon) -> None:
    """SIGHUP brings in a valid configuration, and refuses an invalid one while going on with the old."""
    path = daemon.root / "config.yaml"
    path.write_text("render: {size: 48}\n")
    del daemon.environment["NST_RENDER__SIZE"]
    daemon.start("run", "--config", str(path))
    daemon.until(lambda: "serving" in daemon.text(), "start")
    assert daemon.process is not None
    path.write_text("rendre: {size: 32}\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: "rendre is not a setting" in daemon.text(), "refusal")
    path.write_text("render: {size: 32}\nlimits: {formats: [gif, jpeg]}\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: "new configuration" in daemon.text(), "reload")
    drop_pair(daemon.root / "inbox")
    reason = daemon.root / "failed" / "dog" / "error.txt"
    daemon.until(reason.exists, "refusal")
    assert "is a PNG file, and limits.formats does not list png" in reason.read_text()
    path.write_text("render: {size: 32}\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.text().count("new configuration") > 1, "second reload")
    drop_pair(daemon.root / "inbox")
    daemon.until((daemon.root / "results" / "dog.png").exists, "result")
    with Image.open(daemon.root / "results" / "dog.png") as picture:
        assert max(picture.size) == 32
    assert daemon.end() == 0


def test_the_demo_paints_once(daemon: Daemon) -> None:
    """`demo` paints its own pair, and says where the picture is and what to do next; repeated, it finds the picture,
    and with another size it paints again. Its folder is a root that commands find.
    """
    folder = daemon.root / "demo"
    for size, expected in (
        ("32", {"riverside.png"}),
        ("32", {"riverside.png"}),
        ("48", {"riverside.png", "riverside-2.png"}),
    ):
        daemon.start("demo", "--folder", str(folder), "--size", size)
        assert daemon.process is not None
        assert daemon.process.wait(240) == 0, daemon.text()
        assert pictures(folder / "results") == expected
        assert Path(daemon.text().splitlines()[-1]).name in expected
    assert f"submit PHOTO PAINTING -c {folder}" in daemon.text()
    assert daemon.text().count("the sample is painted already") == 1
    daemon.start("status", "-c", str(folder))
    assert daemon.process.wait(60) == 0, daemon.text()
    assert "riverside" in daemon.text()
