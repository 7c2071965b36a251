"""Commands as processes in surroundings that a shell, cron, a container or systemd may give them.

The commands of one surrounding are processes that one process forks, which has loaded the program once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger

ROOT = Path(__file__).parent.parent
#: Seconds that a command may take on a busy machine.
DEADLINE = 120.0
#: Commands and the codes with which they end. They do not paint.
COMMANDS = [
    ("--help", 0),
    ("presets", 0),
    ("model list", 0),
    ("status", 0),
    ("history --json", 2),
    ("gallery", 7),
    ("submit none.jpg none.png", 2),
    ("batch none.batch.yaml", 4),
    ("rerun none.png", 4),
    ("nonsense", 2),
]
#: Runs each line of its first argument as a command, and writes the codes into the file that the second names. A zero
#: byte in the output, where there is any, follows what each has said.
EACH = """
import os, sys
from contextlib import suppress
from nst_daemon.cli import main
codes = []
for line in sys.argv[1].splitlines():
    if not (child := os.fork()):
        sys.argv[1:] = line.split()
        # What the program restarts itself with where the locale is not UTF-8.
        sys.orig_argv[1:] = ["-P", "-m", "nst_daemon", *line.split()]
        sys.exit(main())
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    for stream in (1, 2):
        with suppress(OSError):  # closed, or on a full disk
            os.write(stream, bytes(1))
with open(sys.argv[2], "w") as file:
    print(*codes, file=file)
"""


@dataclass
class Surroundings:
    """Where and how a command is run.

    Attributes:
        environment: All variables, besides that of the root.
        shell: A line of sh; `"$@"` is the command.
        instead: The code with which a command ends there instead of another.
    """

    environment: dict[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"]})
    shell: str = 'exec "$@"'
    instead: dict[int, int] = field(default_factory=dict)

    def run(self, folder: Path, line: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command line of ours."""
        return self.python(folder, "-m", "nst_daemon", *line.split())

    def python(self, folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run Python."""
        root = {"NST_FOLDERS__ROOT": str(folder / "nst")}
        return subprocess.run(
            ["/bin/sh", "-c", self.shell, "sh", sys.executable, "-P", *words],
            env=root | self.environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )


def of(**environment: str) -> Surroundings:
    """Variables besides PATH."""
    return Surroundings({"PATH": os.environ["PATH"], **environment})


#: A user without a name, a home or a group, as in a container that is started with a number.
NAMELESS = Surroundings(shell='exec unshare --user --map-user=12345 "$@"')
SURROUNDINGS = {
    "nothing": Surroundings({}),
    "nameless": NAMELESS,
    "missing-home": of(HOME="/proc/none", XDG_CACHE_HOME="", TMPDIR="/proc/none"),
    "home-is-a-file": of(HOME="/dev/null"),
    "relative-home": of(HOME="~", XDG_CACHE_HOME="cache", TORCH_HOME="~nobody-at-all/x"),
    "ascii": of(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    "strict-output": of(PYTHONIOENCODING="ascii:strict"),
    "unknown-locale": of(LC_ALL="xx_XX.UTF-8", LANG="tlh", LANGUAGE="xx"),
    "terminal": of(TERM="unknown", COLUMNS="1", LINES="x", FORCE_COLOR="1"),
    "closed": Surroundings(shell='exec "$@" <&- >&- 2>&-'),
    "closed-output": Surroundings(shell='exec "$@" >&-'),
    "full-disk": Surroundings(shell='exec "$@" >/dev/full', instead={0: 7}),
    "full-disk-for-errors": Surroundings(shell='exec "$@" 2>/dev/full'),
    "removed-folder": Surroundings(
        shell='mkdir gone; cd gone; rmdir ../gone; exec "$@"', instead=dict.fromkeys(range(11), 2)
    ),
    "kubernetes": of(
        NST_PORT="tcp://10.0.0.1:8787",
        NST_SERVICE_HOST="10.0.0.1",
        NST_SERVICE="x",
        NST_PORT_8787_TCP_ADDR="10.0.0.1",
    ),
}


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    """A locale of Latin-1."""
    folder = tmp_path_factory.mktemp("locales")
    made = folder / "de_DE.ISO-8859-1"
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(made)]
    if not shutil.which("localedef") or subprocess.run(command, check=False).returncode:
        pytest.skip("localedef cannot make the locale")
    return of(LOCPATH=str(folder), LC_ALL=made.name)


def check(surroundings: Surroundings, folder: Path, line: str, code: int) -> str:
    """Run a command, check that it works or ends in one line, and return what it printed."""
    run = surroundings.run(folder, line)
    said = (run.stdout + run.stderr).decode(errors="backslashreplace")
    check_end(surroundings, said, run.returncode, code)
    return said


def check_end(surroundings: Surroundings, said: str, ended: int, code: int) -> None:
    """Check that a command that should end with this code works or ends in one line."""
    assert "Traceback" not in said
    assert ended == surroundings.instead.get(code, code), said
    ours = [words for words in said.splitlines() if words.startswith("nst-daemon: ")]
    assert len([words for words in ours if "warning: " not in words]) <= 1


def check_all(surroundings: Surroundings, folder: Path) -> None:
    """The same for each of COMMANDS."""
    lines = "\n".join(line for line, _ in COMMANDS)
    run = surroundings.python(folder, "-c", EACH, lines, str(folder / "codes"))
    assert run.returncode == 0, run.stderr
    ended = (folder / "codes").read_text().split()
    said = [
        stream.decode(errors="backslashreplace").split("\0") for stream in (run.stdout, run.stderr)
    ]
    for number, (line, code) in enumerate(COMMANDS):
        words = "".join(f"{stream[number]}\n" for stream in said if number < len(stream))
        check_end(surroundings, f"{line}\n{words}", int(ended[number]), code)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_commands_work_or_end_in_one_line(tmp_path: Path, name: str) -> None:
    """No command shows a traceback, and each ends with a documented code."""
    surroundings = SURROUNDINGS[name]
    if "unshare" in surroundings.shell and surroundings.run(tmp_path, "--version").returncode:
        pytest.skip("user namespaces are not allowed here")
    check_all(surroundings, tmp_path)


def test_commands_work_in_a_latin1_locale(tmp_path: Path, latin1: Surroundings) -> None:
    """Characters of the locale are written in its encoding, others are escaped, and names of files stay UTF-8."""
    check_all(latin1, tmp_path)
    (tmp_path / "é").mkdir()
    (tmp_path / "é" / "→.png").write_bytes(b"no picture")
    run = latin1.run(tmp_path, "rerun é/→.png")
    assert run.returncode == 4
    assert rb"\u2192.png is neither" in run.stderr
    run = latin1.run(tmp_path, "batch é.yaml")
    assert run.stderr.startswith(b"nst-daemon: \xe9.yaml")


@pytest.mark.parametrize(
    ("line", "code"),
    [("once --wait 0", 3), ("run", 3), ("submit none.jpg none.png", 3), ("status", 0)],
)
def test_nothing_runs_in_folders_that_contain_one_another(
    tmp_path: Path, line: str, code: int
) -> None:
    """What takes or writes drops is refused with both keys before any folder is made; `status` still works."""
    said = check(of(NST_FOLDERS__RESULTS="inbox/out"), tmp_path, line, code)
    assert ("folders.results" in said and "folders.inbox" in said) == bool(code)
    assert not (tmp_path / "nst").exists()


@pytest.mark.parametrize("line", ["status", "presets", "history", "--help", "--version"])
def test_a_reader_that_ends_first_is_no_error(tmp_path: Path, line: str) -> None:
    """`nst-daemon … | true` is quiet and ends with 0, and with --watch it ends at all."""
    (tmp_path / "nst" / "state").mkdir(parents=True)
    with Ledger.open(tmp_path / "nst" / "state" / "ledger.sqlite") as ledger:
        ledger.add(Job("0" * 32, "dog", "pair", JobState.CLAIMED, (), created=1.0, updated=1.0))
    gone = Surroundings(shell='("$@"; echo $? >code) | true; sleep 0.1; cat code')
    for more in ("", " --watch", " --watch --json") if line == "status" else ("",):
        run = gone.run(tmp_path, line + more)
        assert (run.stdout.strip(), run.stderr) == (b"0", b"")


@pytest.mark.parametrize("name", ["lock", "status.json"])
def test_a_named_pipe_in_the_state_folder_keeps_no_command_waiting(
    tmp_path: Path, name: str
) -> None:
    """`status` passes over it, and a start is refused if it is in the place of the lock."""
    (tmp_path / "nst" / "state").mkdir(parents=True)
    os.mkfifo(tmp_path / "nst" / "state" / name)
    check(of(), tmp_path, "status", 0)
    said = check(of(), tmp_path, "once --wait 0", 7 if name == "lock" else 0)
    assert ("lock is a named pipe and not a file" in said) == (name == "lock")


def test_odd_arguments_end_in_one_line(tmp_path: Path) -> None:
    """A job's name that is not UTF-8 and a limit of twenty digits are refused as mistakes of the user."""
    (tmp_path / "nst" / "state").mkdir(parents=True)
    Ledger.open(tmp_path / "nst" / "state" / "ledger.sqlite").close()
    for line in ("history a\udcff", "cancel a\udcff", "history --limit 99999999999999999999"):
        check(of(), tmp_path, line, 2)


def test_a_file_in_the_place_of_the_inbox_is_named(tmp_path: Path) -> None:
    """`submit` names the file and blames no rights."""
    (tmp_path / "nst").mkdir()
    (tmp_path / "nst" / "inbox").write_text("in the way")
    assert "inbox is a file and not a folder" in check(of(), tmp_path, "submit a.png b.png", 7)


def test_the_demo_obeys_variables_that_name_no_folder(tmp_path: Path) -> None:
    """A configuration in the current folder, NST_CONFIG and folders do not reach the demo; other variables do."""
    (tmp_path / "config.yaml").write_text("someone: else")
    surroundings = of(NST_FOLDERS__INBOX="/nowhere", NST_CONFIG="none")
    (tmp_path / "demo").write_text("in the way")
    assert "not a folder" in check(surroundings, tmp_path, "demo", 2)
    (tmp_path / "demo").unlink()
    said = check(of(NST_RENDER__SIZE="huge", NST_CONFIG="none"), tmp_path, "demo", 3)
    assert "NST_RENDER__SIZE" in said


@pytest.mark.slow
def test_doctor_works_for_a_user_without_a_name(tmp_path: Path) -> None:
    """`doctor` checks everything without a home, a name and a locale."""
    if NAMELESS.run(tmp_path, "--version").returncode:
        pytest.skip("user namespaces are not allowed here")
    said = check(NAMELESS, tmp_path, "doctor", 0)
    assert "good     folders" in said
    assert "bad" not in said
