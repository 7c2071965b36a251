"""What `make install` and `make uninstall` do with the program's environment (systemd/program.sh)."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.users import needs_root

SYSTEMD = Path(__file__).parent.parent / "systemd"
#: Says where it runs, waits for the end of its input, and only then imports the rest of itself.
MAIN = """
import sys
print(sys.prefix, flush=True)
sys.stdin.read()
from nst_daemon import later
print(later.VERSION, flush=True)
"""


def wheel(folder: Path, version: int, more: bytes = b"") -> Path:
    """A small package in the place of ours. more: a file of it that cannot be compressed."""
    path = folder / f"nst_daemon-{version}-py3-none-any.whl"
    information = f"nst_daemon-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("nst_daemon/__init__.py", "")
        file.writestr("nst_daemon/__main__.py", MAIN)
        file.writestr("nst_daemon/later.py", f"VERSION = {version}")
        file.writestr("nst_daemon/more", more)
        metadata = f"Metadata-Version: 2.1\nName: nst-daemon\nVersion: {version}\n"
        file.writestr(f"{information}/METADATA", metadata)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{information}/WHEEL", kind)
        file.writestr(f"{information}/RECORD", "")
    return path


class Prefix:
    """A PREFIX with the launcher."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "lib" / "nst-daemon"
        self.launcher = folder / "bin" / "nst-daemon"
        self.launcher.parent.mkdir(parents=True)
        self.place.parent.mkdir()
        shutil.copy2(SYSTEMD / "nst-daemon.sh", self.launcher)

    def program(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run program.sh."""
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("DESTDIR", "PYTHON"))
        }
        command = list(map(str, (SYSTEMD / "program.sh", *words)))
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, umask=0o022
        )

    def install(self, file: object) -> subprocess.CompletedProcess[str]:
        """Install a wheel."""
        options = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
        return self.program("install", sys.executable, self.place, *options, file)

    def start(self) -> tuple[subprocess.Popen[str], Path]:
        """Start the program; it and the folder in which it runs."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        process = subprocess.Popen(
            [self.launcher],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())


def finish(process: subprocess.Popen[str]) -> str:
    """Let a program end; the version that it has imported."""
    return process.communicate(timeout=60)[0].strip()


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    """An empty prefix."""
    return Prefix(tmp_path / "prefix")


@pytest.mark.slow
def test_an_upgrade_leaves_a_running_program_alone(prefix: Prefix, tmp_path: Path) -> None:
    """A program that runs imports its own files after an upgrade, and the next start has the new ones."""
    first = prefix.install(wheel(tmp_path, 1))
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    running, folder = prefix.start()
    try:
        second = prefix.install(wheel(tmp_path, 2))
        assert second.returncode == 0, second.stderr
        assert second.stdout.startswith("the former program still runs; ")
        assert second.stdout.endswith(f"then: rm -r {folder}\n")
        newer, beside = prefix.start()
        assert beside.parent == folder.parent
        assert beside != folder
        assert finish(newer) == "2"
        refused = prefix.program("remove", prefix.place)
        assert refused.returncode == 1
        assert "nst-daemon is running; first: systemctl disable --now" in refused.stderr
    finally:
        version = finish(running)
    assert version == "1"
    failed = prefix.install(tmp_path / "missing.whl")
    assert failed.returncode != 0
    assert finish(prefix.start()[0]) == "2", "a failed installation changes nothing"
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, beside.name}
    assert prefix.install(wheel(tmp_path, 3)).stdout == ""
    (left,) = folder.parent.iterdir()
    assert prefix.place.resolve() == left, "the former programs are removed"
    assert left.stat().st_mode & 0o777 == 0o755
    assert not (left / "tmp").exists()
    assert prefix.program("remove", prefix.place).returncode == 0
    assert list(prefix.place.parent.iterdir()) == []


@pytest.mark.slow
def test_an_older_installation_is_replaced_when_it_has_stopped(
    prefix: Prefix, tmp_path: Path
) -> None:
    """A folder in the place of the link is refused while a program runs in it, and replaced by the link later."""
    environment = {"DESTDIR": str(tmp_path)}  # with DESTDIR a folder is made, as older versions did
    command = [SYSTEMD / "program.sh", "install", sys.executable, prefix.place]
    options = ["--quiet", "--no-index", "--no-deps", wheel(tmp_path, 1)]
    subprocess.run([*command, *options], check=True, env={**os.environ, **environment})
    assert not prefix.place.is_symlink()
    running, folder = prefix.start()
    assert folder == prefix.place
    try:
        refused = prefix.install(wheel(tmp_path, 2))
        assert refused.returncode == 1
        assert "stop the service before this upgrade" in refused.stderr
        assert prefix.program("remove", prefix.place).returncode == 1
    finally:
        assert finish(running) == "1"
    done = prefix.install(wheel(tmp_path, 2))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert finish(prefix.start()[0]) == "2"
    (left,) = prefix.place.with_name("nst-daemon.versions").iterdir()
    assert prefix.place.resolve() == left


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a wheel of 4 MB, which pip stores before it unpacks it."""
    wheel(tmp_path, 1, os.urandom(4_000_000))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/nst_daemon-1-py3-none-any.whl"
        server.shutdown()


@needs_root
@pytest.mark.slow
def test_a_small_tmp_is_enough(prefix: Prefix, served: str, tmp_path: Path) -> None:
    """With 1 MB for temporary files a wheel of 4 MB is installed, which pip alone cannot do."""
    small = tmp_path / "small"
    small.mkdir()
    alone = prefix.place.parent / "alone"
    mounted = f"mount --make-rprivate / && mount -t tmpfs -o size=1M none {small} && exec "
    options = f"--no-deps --no-cache-dir --disable-pip-version-check {served}"

    def run(command: str) -> subprocess.CompletedProcess[str]:
        words = ["unshare", "-m", "sh", "-c", mounted + command]
        environment = {**os.environ, "TMPDIR": str(small)}
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)

    if run("true").returncode:
        pytest.skip("nothing can be mounted here")
    assert (
        "No space left" in run(f"{sys.executable} -m pip install --target {alone} {options}").stderr
    )
    done = run(f"{SYSTEMD}/program.sh install {sys.executable} {prefix.place} {options}")
    assert done.returncode == 0, done.stderr
    assert finish(prefix.start()[0]) == "1"
