"""What a command says when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from nst_daemon.errors import OutOfMemory


def run(
    code: str, place: Path, *, environ: Mapping[str, str] | None = None
) -> tuple[int, str, list[Path]]:
    """The exit code, standard error and tracebacks in `place` of a command that is this code."""
    script = (
        "from pathlib import Path\n"
        "from nst_daemon.ops import failures\n"
        "def command():\n"
        f"    {code}\n"
        f"failures.log_folders[:] = [Path({str(place)!r})]\n"
        "failures.run(command)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (environ or {}),
    )
    return done.returncode, done.stderr, sorted(place.glob("*.log")) if place.is_dir() else []


def test_an_unexpected_error_is_one_line_and_a_file(tmp_path: Path) -> None:
    """The line names the error and the file, the file holds the traceback, and the code is 70."""
    code, said, files = run("{}['a\\\\nb']", tmp_path)
    assert code == 70
    assert said.count("\n") == 1
    assert said.startswith("nst-daemon: unexpected KeyError")
    assert len(files) == 1
    assert str(files[0]) in said
    assert "Traceback" in files[0].read_text()


def test_the_traceback_goes_where_it_can(tmp_path: Path) -> None:
    """If the folder of the root cannot be written to, the user's folder for state is used, then /tmp."""
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    code, said, _ = run("1 / 0", tmp_path / "none", environ=state)
    assert code == 70
    files = list((tmp_path / "state" / "nst-daemon").iterdir())
    assert len(files) == 1
    assert str(files[0]) in said
    code, said, _ = run("1 / 0", tmp_path / "none", environ={"XDG_STATE_HOME": "/dev/null"})
    assert code == 70
    Path(said.split()[-1]).unlink()


def test_only_the_last_tracebacks_are_kept(tmp_path: Path) -> None:
    """A service that fails at each start does not fill the disk."""
    for number in range(30):
        (tmp_path / f"nst-daemon-error-{number}.log").touch()
        os.utime(tmp_path / f"nst-daemon-error-{number}.log", (number, number))
    _, said, files = run("1 / 0", tmp_path)
    assert len(files) == 20
    assert Path(said.split()[-1]) in files


@pytest.mark.parametrize(
    ("code", "ended", "said"),
    [
        ("open('/proc/none/x', 'w')", 7, "/proc/none does not exist; mount it or create it"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("raise LookupError", 70, "unexpected LookupError"),
        (
            "import os; raise OSError(24, os.strerror(24))",
            7,
            "Too many open files; raise the limit",
        ),
        ("import os; raise OSError(27, os.strerror(27))", 7, "File too large; raise the limit"),
        ("raise MemoryError", 8, "there is not enough memory"),
        (
            "import nst_daemon.errors as e; raise e.InputError('a\\x1b[31m', remedy='b')",
            4,
            r"a\x1b[31m; b",
        ),
        ("raise SystemExit(5)", 5, ""),
        ("raise SystemExit", 0, ""),
        ("print('\\udcff\\u2192')", 0, ""),
    ],
)
def test_each_end_has_its_code(tmp_path: Path, code: str, ended: int, said: str) -> None:
    """Errors of the system are those of a file, an interruption is 130, and exits keep their codes."""
    found, line, files = run(code, tmp_path)
    assert found == ended
    assert said in line
    assert line.count("\n") == bool(said)
    assert bool(files) == (ended == 70)


def test_the_journal_gets_priorities(tmp_path: Path) -> None:
    """Where standard error is the journal, an error has the priority 3; where it is another file, no prefix."""
    script = "from nst_daemon.ops import failures; failures.run(lambda: open('/proc/none/x'))"
    for file, prefix in ((tmp_path / "journal", "<3>"), (tmp_path / "other", "")):
        with file.open("w") as stream:
            status = os.fstat(stream.fileno())
            number = status.st_ino if prefix else status.st_ino + 1
            environ = os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{number}"}
            subprocess.run([sys.executable, "-c", script], env=environ, stderr=stream, check=False)
        assert file.read_text().startswith(f"{prefix}nst-daemon: /proc/none does not exist")


def test_output_waits_for_a_slow_reader() -> None:
    """Output to a pipe that another process made non-blocking arrives whole."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    script = "from nst_daemon.ops import failures; failures.run(lambda: print('x' * 1_000_000))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=writing) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            assert len(stream.read()) == 1_000_001
    assert process.returncode == 0


def test_signals_of_the_parent_do_not_matter() -> None:
    """The exit code of a child process is seen, and SIGTERM arrives, whatever the parent process ignored or blocked."""
    script = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "from nst_daemon.ops import failures\n"
        "def command():\n"
        "    assert subprocess.run(['/bin/sh', '-c', 'exit 3']).returncode == 3\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "failures.run(command)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGTERM


def test_a_lack_of_memory_is_one_line_with_the_limit() -> None:
    """Under `ulimit -v`, a command that cannot load torch says that memory is short and exits with 8."""
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))\n"
        "from nst_daemon.ops import failures\n"
        "failures.run(lambda: __import__('torch'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == OutOfMemory.exit_code
    assert done.stderr.startswith(
        "nst-daemon: there is not enough memory: this process may use 900 MiB"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["foo"], "no such command 'foo'; see `nst-daemon --help`"),
        (["statu"], "no such command 'statu' (did you mean 'status'?); see `nst-daemon --help`"),
        (["stylize"], "missing argument 'CONTENT STYLE'; see `nst-daemon stylize --help`"),
        (["submit"], "missing argument 'CONTENT'; see `nst-daemon submit --help`"),
        (
            ["history", "--limit", "x"],
            "invalid value for '--limit': it is not a whole number; see `nst-daemon history --help`",
        ),
        (["history", "--foo"], "no such option: --foo; see `nst-daemon history --help`"),
    ],
)
def test_wrong_usage_is_one_line_with_the_help_to_read(arguments: list[str], line: str) -> None:
    """A wrong command, option, argument or value is one line, with exit code 2."""
    command = [sys.executable, "-m", "nst_daemon", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"nst-daemon: {line}\n")
