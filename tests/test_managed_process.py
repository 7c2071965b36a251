"""Processes that the daemon starts and watches."""

from __future__ import annotations

import gc
import os
import signal
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from nst_daemon.managed_process import ManagedProcess, child_environment, exit_reason

#: Seconds that anything may take on a busy machine.
DEADLINE = 60.0


def python(code: str) -> list[str]:
    """A command that runs this."""
    return [sys.executable, "-c", code]


def test_the_end_of_the_output_is_kept(tmp_path: Path) -> None:
    """The last bytes of both streams can be read, from a log and from a temporary file, after the end too."""
    code = "import sys; print('x' * 5000, flush=True); print('the end', file=sys.stderr)"
    log = tmp_path / "logs" / "one.log"
    log.parent.mkdir()
    log.write_text("of an earlier run")
    for process in (
        ManagedProcess(python(code), log=log),
        ManagedProcess(python(code), capture=True),
    ):
        assert process.wait(DEADLINE) == 0
        assert process.last_output(10) == "x\nthe end"
        process.close()
    assert log.read_text() == "x" * 5000 + "\nthe end\n"


def test_the_input_arrives_and_its_end_tells_of_the_daemon() -> None:
    """A process reads its first line at once, and the end of its input only when it is closed."""
    code = "import sys; print(sys.stdin.readline(), flush=True); sys.stdin.read(); sys.exit(7)"
    process = ManagedProcess(python(code), first_input=b"options\n", capture=True)
    while "options" not in process.last_output(100):
        assert process.exit_code() is None
    process.close()
    assert process.wait(DEADLINE) == 7


def test_a_kill_reaches_what_the_process_has_started(tmp_path: Path) -> None:
    """A process that is killed takes its own children with it, and is reported as killed."""
    file = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(file)!r}, 'w').write(str(p.pid) + ' ')\n"
        "time.sleep(600)"
    )
    process = ManagedProcess(python(code))
    while not (file.exists() and file.read_text().endswith(" ")):
        assert process.exit_code() is None
    child = os.pidfd_open(int(file.read_text()))
    process.kill()
    assert process.wait(DEADLINE) == -signal.SIGKILL
    assert wait([child], timeout=DEADLINE)
    os.close(child)
    process.kill()  # harmless
    process.close()


def test_children_inherit_no_secrets() -> None:
    """Tokens, keys and passwords, by name or in an address, our settings and systemd's variables are left out."""
    secret = {
        "NST_STATUS_PAGE_TOKEN": "t" * 16,
        "NST_THREADS": "2",
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "a",
        "GH_TOKEN": "a",
        "GITHUB_PAT": "a",
        "MYSQL_PWD": "a",
        "PGPASSWORD": "a",
        "SMTP_PASS": "a",
        "SSH_AUTH_SOCK": "/run/agent",
        "apikey": "a",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "SENTRY_DSN": "https://a@sentry.io/1",
        "CI_JOB_JWT": "a",
        "STRIPE_SK": "a",
        "SLACK_WEBHOOK_URL": "https://hooks.slack.com/a",
        "BORG_PASSCOMMAND": "a",
        "ConnectionStrings__Default": "a",
        "accessKey": "a",
        "DbPwd": "a",
        "DATABASE": "Server=x;User=me;Password=pw",
        "STORAGE": "AccountName=x;AccountKey=a",
        "SHARE": "https://host/x?sv=1&sig=a",
        "SIGNER": "-----BEGIN RSA PRIVATE KEY-----",
        "DATABASE_URL": "postgres://me:pw@host/x",
        "https_proxy": "http://me:pw@proxy:3128",
    }
    plain = {
        "PATH": "/bin",
        "PWD": "/",
        "HOME": "/root",
        "CUDA_VISIBLE_DEVICES": "0",
        "OMP_NUM_THREADS": "1",
        "LD_LIBRARY_PATH": "/usr/lib",
        "http_proxy": "http://proxy:3128",
        "KEYBOARD": "de",
        "MONKEY": "a=b",
        "LS_COLORS": "di=01;34:*.key=01",
        "KEYMAP": "de",
        "PASSIVE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "JOURNAL_STREAM": "8:1",
        "XDG_CACHE_HOME": "/cache",
    }
    assert child_environment(secret | plain) == plain
    assert child_environment(secret, keep=["SMTP_PASS"]) == {"SMTP_PASS": "a"}


def test_a_process_is_started_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel shows as the environment of a child has no token of the daemon."""
    monkeypatch.setenv("NST_STATUS_PAGE_TOKEN", "secret" * 4)
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    process = ManagedProcess(["cat", "/proc/self/environ"], capture=True)
    assert process.wait(DEADLINE) == 0
    assert "PATH=" in process.last_output(100_000)
    assert "NST_" not in process.last_output(100_000)
    assert "NOTIFY_SOCKET" not in process.last_output(100_000)
    process.close()


def test_a_process_starts_where_the_current_folder_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon whose folder is removed later can still start processes, in a folder that exists."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    process = ManagedProcess(["pwd", "-P"], capture=True)
    assert process.wait(DEADLINE) == 0
    assert process.last_output(100) == "/"
    process.close()


def test_it_is_overdue_past_its_deadline_and_while_it_runs() -> None:
    """A process is overdue from its deadline on, a request to end moves the deadline forward, and an end clears it."""
    process = ManagedProcess(python("import time; time.sleep(600)"), deadline=100.0)
    assert not process.overdue(99.0)
    assert process.overdue(100.0)
    process.deadline = 1000.0
    process.terminate(deadline=500.0)
    assert process.deadline == 500.0
    assert wait(process.waitables(), timeout=DEADLINE)
    assert process.wait(DEADLINE) == -signal.SIGTERM
    assert not process.overdue(2000.0)
    process.close()


def test_it_is_not_in_the_daemon_s_group() -> None:
    """Ctrl-C in the daemon's terminal does not reach the process."""
    process = ManagedProcess(python("import time; time.sleep(600)"))
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    process.kill()
    process.close(DEADLINE)


def test_what_cannot_be_started_is_an_error_that_leaves_nothing_open() -> None:
    """A missing program raises OSError, and an argument that no program can have ValueError; no descriptor is left."""
    gc.collect()  # descriptors that earlier tests left
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        ManagedProcess(["/no/such/program"], capture=True, first_input=b"")
    with pytest.raises(ValueError, match="null"):
        ManagedProcess(["echo", "\0"], capture=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_end_is_told_in_words() -> None:
    """Exit statuses and signals are explained, also numbers that no signal has."""
    assert exit_reason(3) == "ended with exit status 3"
    assert exit_reason(-signal.SIGSEGV) == "was killed by signal 11 (SIGSEGV)"
    assert exit_reason(-signal.SIGKILL).endswith("because memory ran out")
    assert "unknown" in exit_reason(-250)
