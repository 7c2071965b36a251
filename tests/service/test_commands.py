"""retry --set, cancel, priority, delete and submit --wait as processes, against a daemon with a fake painter."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nst_daemon.jobs import JobState
from nst_daemon.ledger import Ledger
from tests.forked import loaded
from tests.torture.root import Root, Victim

S = JobState
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "nst")


@pytest.fixture
def daemon(root: Root) -> Iterator[Victim]:
    victim = root.start(once=False)
    assert victim.until(lambda: "serving" in root.text())
    yield victim
    if victim.process.poll() is None:
        victim.kill()


def environment(root: Root) -> dict[str, str]:
    """The variables of a command of this root."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NST_")}
    return {**clean, "NST_FOLDERS__ROOT": str(root.path)}


def start(root: Root, *arguments: str) -> subprocess.Popen[str]:
    """Begin a command of this root, in a folder of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nst_daemon", *arguments],
        env=environment(root),
        cwd=root.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(root: Root, *arguments: str) -> tuple[int, str, str]:
    """The exit code, output and messages of a command."""
    done = loaded().run(*arguments, cwd=root.path, env=environment(root))
    return done.returncode, done.stdout, done.stderr


def state_of(root: Root, name: str) -> JobState | None:
    with Ledger.attach(root.ledger_path) as ledger:
        found = ledger.find(name)
    return found[0].state if found else None


def picture(root: Root, name: str, **script: object) -> str:
    """A content for the fake painter."""
    path = root.path / name
    path.write_text(json.dumps({"iterations": 3, "tag": name, **script}))
    return str(path)


def test_a_job_with_a_bad_settings_file_is_retried(daemon: Victim, root: Root) -> None:
    """The command refuses what would be refused again, and a correction leads to the picture and its sidecar."""
    for role in ("content", "style"):
        Path(picture(root, f"dog.{role}.png")).rename(root.inbox / f"dog.{role}.png")
    (root.inbox / "dog.yaml").write_text("sizee: 80\nseed: 3\n")
    assert daemon.until(lambda: state_of(root, "dog") is S.FAILED), root.text()
    assert daemon.until((root.path / "failed" / "dog" / "error.txt").exists)
    code, out, said = call(root, "retry", "dog")
    assert (code, out) == (4, "")
    assert "unknown setting 'sizee'; did you mean size?" in said
    assert "nst-daemon retry dog --unset sizee --set size=80" in said
    for wrong, hint in (("size=huge", "'auto'"), ("sede=1", "seed"), ("format=gif", "png")):
        code, out, said = call(root, "retry", "dog", "--unset", "sizee", "--set", wrong)
        assert (code, out) == (4, "")
        assert hint in said
        assert said.count("\n") == 1
    code, out, said = call(
        root,
        *("retry", "dog", "--unset", "sizee", "--unset", "tv_weight"),
        *("--set", "size=96", "--preset", "bold"),
    )
    assert code == 0
    assert said == "nst-daemon: dog does not set tv_weight: --unset changes nothing there\n"
    assert out.startswith("retry: dog (")
    assert daemon.until(lambda: state_of(root, "dog") is S.DONE), root.text()
    sidecar = json.loads((root.path / "results" / "dog.json").read_text())
    assert {k: sidecar["settings"][k] for k in ("size", "seed", "preset")} == {
        "size": 96,
        "seed": 3,
        "preset": "bold",
    }
    _, out, _ = call(root, "history", "dog")
    assert "changed by request" in out
    assert "retried by request with size: 96, preset: bold, without sizee, without tv_weight" in out
    code, _, said = call(root, "retry", "dog")
    assert code == 2
    assert "nst-daemon rerun" in said


def test_waiting_ends_with_the_picture(daemon: Victim, root: Root) -> None:
    """submit --wait prints the path of the picture, and ends with 1 and the reason if the job fails."""
    style = picture(root, "style.png")
    code, out, said = call(root, "submit", picture(root, "my dog.png"), style, "--wait")
    assert (code, out) == (0, f"{root.path}/results/my dog.png\n"), said
    assert Path(out.strip()).is_file()
    bad = picture(root, "bad.png", do="raise", at=1)
    code, out, said = call(root, "submit", bad, style, "--wait")
    assert (code, out) == (1, "")
    assert "bad failed: " in said


def test_an_interrupted_wait_leaves_the_job(daemon: Victim, root: Root) -> None:
    """Ctrl-C ends the command with 130 while the job goes on; cancelling it is no failure anywhere."""
    content = picture(root, "slow.png", iterations=100_000, seconds=0.01)
    waiting = start(root, "submit", content, picture(root, "style.png"), "--wait")
    assert daemon.until(lambda: state_of(root, "slow") is S.RUNNING), root.text()
    waiting.send_signal(signal.SIGINT)
    out, said = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (130, "")
    assert re.search("stopped waiting; slow goes on; see nst-daemon history [0-9a-f]{8}\n", said)
    assert state_of(root, "slow") is S.RUNNING
    code, out, said = call(root, "cancel", "--all")
    assert code == 0
    assert out.startswith("cancel: slow (")
    assert daemon.until(lambda: state_of(root, "slow") is S.CANCELLED), root.text()
    assert daemon.until(lambda: "cancelled by request" in root.text())
    assert (root.path / "failed" / "slow" / "error.txt").exists()
    assert "info" in next(
        line for line in root.text().splitlines() if "cancelled by request" in line
    )
    code, out, said = call(root, "cancel", "slow")
    assert (code, out) == (0, "")
    assert "was cancelled before" in said
    code, out, said = call(root, "cancel", "--queued")
    assert (code, out) == (0, "")
    assert "no jobs to cancel" in said


def test_a_cancelled_job_is_no_failure_of_once(root: Root) -> None:
    """A run that only cancels ends with 0, and its last lines name the cancelled job."""
    root.pair("dog", S.DONE, do="raise", at=1, once="dog-once")
    assert root.run() != 0
    assert call(root, "retry", "dog")[0] == 0
    with Ledger.attach(root.ledger_path) as ledger:
        (job,) = ledger.jobs()
        ledger.request(job.id, "cancel", now=1.0)
    assert root.run() == 0, root.text()
    assert state_of(root, "dog") is S.CANCELLED
    assert "1 job cancelled" in root.text()


def test_an_empty_inbox_is_mentioned(root: Root) -> None:
    """`once` without anything to paint says so, and jobs of a root without a daemon are no damaged ledger."""
    code, out, said = call(root, "history")
    assert (code, out) == (2, "")
    assert said.endswith("or name it with --config\n")
    code, out, said = call(root, "once")
    assert (code, out) == (0, "")
    assert said.endswith(f"nst-daemon: nothing to paint: {root.inbox} is empty\n")
    assert call(root, "history") == (0, "", "nst-daemon: there are no jobs\n")
    assert call(root, "history", "--name", "d*")[2] == "nst-daemon: there are no jobs that match\n"
    assert call(root, "history", "--json") == (0, "[]\n", "")


def test_status_without_a_daemon_lists_what_would_be_refused(root: Root) -> None:
    """A drop that the next daemon moves to failed/ is listed with the reason."""
    (root.path / "styles").mkdir()
    (root.inbox / "cod.content.jepg").write_text("no suffix of ours")
    code, out, said = call(root, "status")
    assert (code, said) == (0, "")
    assert (
        "will be refused: cod.content.jepg is not an image file; did you mean cod.content.jpg?"
        in out
    )


def test_an_interrupted_once_ends_with_130(root: Root) -> None:
    """Ctrl-C ends `once` with its own code, and no line says that there was nothing to paint."""
    (root.path / "styles").mkdir()
    (root.inbox / "lone.content.png").write_bytes(b"\x89PNG still arriving")  # it is waited for
    process = start(root, "once")
    assert process.stderr is not None
    while "serving" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said.endswith("interrupted; the next start continues what is not finished\n")


def test_an_interrupted_wait_without_a_daemon_says_where_the_drop_is(root: Root) -> None:
    """A drop that no daemon has seen does not "go on": it stays in the inbox."""
    style = picture(root, "style.png")
    waiting = start(root, "submit", picture(root, "dog.png"), style, "--wait")
    assert waiting.stderr is not None
    while "no daemon is running" not in waiting.stderr.readline():
        assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    out, said = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (130, "")
    assert "no daemon is running, and dog stays in the inbox" in said


def test_priorities_are_changed(root: Root) -> None:
    """The command takes names, patterns and negative numbers; the next start changes the priority, and then paints."""
    root.pair("dog")
    assert root.run(die_at="claimed>queued") == -signal.SIGKILL
    code, out, said = call(root, "priority", "7", "dog")
    assert code == 0
    assert re.fullmatch(r"priority: dog \([0-9a-f]{8}\), 7\n", out)
    assert "the next one to start does it" in said
    code, out, _ = call(root, "priority", "-5", "d*")
    assert (code, out.split(", ")[-1]) == (0, "-5\n")
    assert root.run() == 0, root.text()
    with Ledger.attach(root.ledger_path) as ledger:
        assert ledger.find("dog")[0].priority == -5
    for arguments, message in (
        (("priority", "1", "dog"), "has ended already (done): it is not in the queue"),
        (("priority", "1"), "name the jobs, or use --queued"),
        (("priority", "1001", "dog"), "the largest value is 1000"),
        (("priority", "1", "x"), "there is no job x"),
    ):
        code, out, said = call(root, *arguments)
        assert (code, out) == (2, "")
        assert message in said
    code, out, said = call(root, "priority", "1", "--queued")
    assert (code, out) == (0, "")
    assert "there are no jobs in the queue" in said


def test_files_are_deleted(root: Root) -> None:
    """The command asks, the next start deletes, and later commands say that the files were deleted."""
    root.pair("dog")
    root.pair("bad", S.FAILED, do="raise", at=2)
    root.run()
    result = root.path / "results" / "dog.png"
    code, out, said = call(root, "delete", "dog")
    assert (code, out) == (2, "")
    assert "add --yes" in said
    code, out, said = call(root, "delete", "--state", "running", "--yes")
    assert code == 2
    assert "have not ended" in said
    code, out, said = call(root, "delete", "--yes")
    assert code == 2
    assert result.exists()
    code, out, _ = call(root, "delete", "dog", "--yes")
    assert code == 0
    assert re.fullmatch(r"delete: dog \([0-9a-f]{8}\)\n", out)
    code, out, _ = call(root, "delete", "--state", "failed", "--state", "cancelled", "--yes")
    assert re.fullmatch(r"delete: bad \([0-9a-f]{8}\)\n", out)
    code, out, said = call(root, "retry", "bad")
    assert (code, out) == (2, "")
    assert "are being deleted by request" in said
    assert root.run() == 0, root.text()
    assert not result.exists()
    code, out, said = call(root, "delete", "dog", "--yes")
    assert (code, out) == (0, "")
    assert "was deleted before" in said
    code, out, said = call(root, "retry", "bad")
    assert code == 2
    assert "were deleted by request; drop its pictures again" in said
    code, out, said = call(root, "rerun", str(result))
    assert code == 4
    assert "dog.json was deleted by request" in said
    _, out, _ = call(root, "history")
    assert "deleted by request" in out
    _, out, _ = call(root, "history", "--json", "bad")
    assert json.loads(out)["deleted"] is True
