"""Commands after a job."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nst_daemon.config import Hooks as Options
from nst_daemon.jobs import Job, JobState
from nst_daemon.service import hooks
from nst_daemon.service.hooks import HookRunner
from nst_daemon.workers.messages import Failed, Retry
from tests.bench import Bench

ENDED = Job("1" * 32, "dog; touch x", "pair", JobState.DONE, (), 0.0, 0.0)


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def python(code: str) -> list[str]:
    """A command that runs this."""
    return [sys.executable, "-c", code]


def write_environment(path: Path) -> list[str]:
    """A command that writes the job that it was told of."""
    return python(
        "import json, os; json.dump({k: v for k, v in os.environ.items() if k.startswith('JOB_')},"
        f" open({str(path)!r}, 'w'))"
    )


def test_hooks_are_told_of_results_and_failures(tmp_path: Path) -> None:
    """After a result `done` runs and after a failure `failed`, each with its job, and neither holds the loop up."""
    done, failed = tmp_path / "done.json", tmp_path / "failed.json"
    options = Options(done=write_environment(done), failed=write_environment(failed), timeout=60)
    bench = Bench(tmp_path / "nst", hooks=options)
    bench.drop("dog")
    bench.executor.paint()
    bench.step(1)
    bench.drop("cat")
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "no\x1b[31m"))
    bench.step(1, times=2)
    bench.supervisor.stop(bench.now)
    told = {path.stem: eval(path.read_text()) for path in (done, failed)}
    assert told["done"]["JOB_NAME"] == "dog"
    assert Path(told["done"]["JOB_RESULT"]) == bench.folders.results / "dog.png"
    assert (Path(told["done"]["JOB_INPUTS"]) / "dog.content.png").exists()
    assert told["failed"]["JOB_STATE"] == "failed"
    assert told["failed"]["JOB_RESULT"] == ""
    assert told["failed"]["JOB_ERROR"] == "no\\x1b[31m"
    assert (Path(told["failed"]["JOB_INPUTS"]) / "error.txt").exists()


def test_no_shell_reads_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job called "dog; touch x" makes no file, and what is between systemd and the daemon is not handed on."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    seen = tmp_path / "seen"
    code = f"import os; open({str(seen)!r}, 'w').write(os.environ['JOB_NAME'] + str('NOTIFY_SOCKET' in os.environ))"
    running = HookRunner()
    running.add(python(code), ENDED, result=None, inputs=tmp_path, timeout=60)
    running.close(60)
    assert seen.read_text() == "dog; touch xFalse"


def test_hooks_get_only_the_secrets_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's token and other credentials are not inherited, those in `pass_environment` are."""
    for name in ("NST_STATUS_PAGE_TOKEN", "GH_TOKEN", "SMTP_PASSWORD"):
        monkeypatch.setenv(name, "x" * 16)
    seen = tmp_path / "seen"
    code = f"import os; open({str(seen)!r}, 'w').write(' '.join(k for k, v in os.environ.items() if v == 'x' * 16))"
    options = Options(done=python(code), pass_environment=["SMTP_PASSWORD"])
    bench = Bench(tmp_path / "nst", hooks=options)
    bench.drop("dog")
    bench.executor.paint()
    bench.step(1)
    bench.supervisor.stop(bench.now)
    assert seen.read_text() == "SMTP_PASSWORD"


def test_a_hook_that_hangs_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After its timeout a hook and what it has started are gone, and the log says so; before, nothing happens."""
    clock = Clock()
    running = HookRunner(clock)
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid) + ' ')\n"
        "time.sleep(600)"
    )
    running.add(python(code), ENDED, result=None, inputs=tmp_path, timeout=30)
    while not (child.exists() and child.read_text().endswith(" ")):
        os.sched_yield()
    clock.now = 29
    running.tend()
    assert len(running._running) == 1
    clock.now = 30
    with caplog.at_level(logging.WARNING, "nst_daemon"):
        running.tend()
    assert running._running == []
    assert "took too long" in caplog.text
    state = subprocess.run(
        ["ps", "-o", "stat=", child.read_text().strip()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert state.stdout.strip()[:1] in ("", "Z")


def test_what_goes_wrong_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hook that fails is logged with the end of what it said, and one that does not exist with that."""
    running = HookRunner()
    with caplog.at_level(logging.WARNING, "nst_daemon"):
        command = python("import sys; print('x' * 9999, 'no mail today'); sys.exit(3)")
        running.add(command, ENDED, result=None, inputs=tmp_path, timeout=60)
        running.add(["/no/such/file"], ENDED, result=None, inputs=tmp_path, timeout=60)
        running.close(60)
    assert "ended with 3" in caplog.text
    assert "no mail today" in caplog.text
    assert "/no/such/file could not be started" in caplog.text
    assert "x" * 600 not in caplog.text


def test_they_do_not_all_run_at_once(tmp_path: Path) -> None:
    """A thousand results start no thousand processes; at the end those that wait are dropped, and that is said."""
    clock = Clock()
    running = HookRunner(clock)
    for _ in range(10):
        sleep = python("import time; time.sleep(600)")
        running.add(sleep, ENDED, result=None, inputs=tmp_path, timeout=60)
    assert len(running._running) == hooks.MAX_RUNNING
    running.close(0)
    assert running._running == []
    assert not running._waiting
