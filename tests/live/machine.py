"""A Debian whose process 1 is systemd, in a folder of this machine: systemd-nspawn, without a virtual machine.

The kernel is that of this machine. Users, mounts, namespaces, capabilities, seccomp and the watchdog of the units are
real; GPUs are not there, and memory limits only if this machine's control groups can be written to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SUITE = "bookworm"
PACKAGES = (
    "ca-certificates,curl,dbus,make,procps,python3,python3-venv,sqlite3,sudo,systemd,systemd-sysv"
)
#: What pip downloads is kept here for the next run.
PIP_CACHE = "/root/.cache/pip"
ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "cat",
    "TERM": "dumb",
}
#: Else two machines would share the control groups of their services: what one stops or filters, the other would too.
OWN_CGROUP = """
for tree in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    [ ! -e $tree/cgroup.procs ] || { mkdir -p $tree/nst-live.$$ && echo $$ > $tree/nst-live.$$/cgroup.procs; } || exit 1
done
exec "$@"
"""
POLL = 0.2  # seconds


class Failure(Exception):  # noqa: N818 (the result of a step)
    """A step found something that is not as it should be."""


class OverdueError(Exception):
    """The time of a step is over."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; the time limit of the step ends the wait.

    Args:
        condition: Looks at the machine from outside, so there is no event to wait for.
        what: What is waited for, for the message.

    Raises:
        OverdueError: The time of the step is over.
    """
    try:
        while not condition():
            time.sleep(POLL)
    except OverdueError:
        raise OverdueError(f"time is over; waited for: {what}") from None


class Machine:
    """The Debian in `folder`: `tree` is a fresh system, made once, and `run` the copy that runs.

    Args:
        folder: Where the trees are.
        packages: Folders of Python packages of this machine to bind read-only at /opt/packages-N. The machine then has
            no network. Empty: it shares this machine's network, and pip downloads the packages.
    """

    def __init__(self, folder: Path, packages: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.root = folder / "run"
        self.packages = {f"/opt/packages-{n}": path for n, path in enumerate(packages)}
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Make the fresh system if there is none (some minutes), and the copy that runs (seconds)."""
        tree = self.folder / "tree"
        if not tree.exists():
            part = self.folder / "tree.part"
            _remove(part)
            part.mkdir(parents=True)
            options = ["--variant=minbase", f"--include={PACKAGES}", SUITE]
            with (self.folder / "debootstrap.log").open("wb") as log:
                subprocess.run(["debootstrap", *options, part], stdout=log, stderr=log, check=True)
            part.rename(tree)
        _remove(self.root)
        subprocess.run(["cp", "-a", "--reflink=auto", tree, self.root], check=True)

    def boot(self) -> None:
        """Start systemd, and wait until it has started its units."""
        binds = [f"--bind-ro={path}:{inside}" for inside, path in self.packages.items()]
        if not binds:
            cache = self.folder / "pip-cache"
            cache.mkdir(exist_ok=True)
            binds = [f"--bind={cache}:{PIP_CACHE}", "--resolv-conf=copy-host"]
        command = [
            "systemd-nspawn",
            f"--directory={self.root}",
            "--machine=nst-live",
            "--boot",
            "--register=no",
            # The units of the service set up sandboxes of their own, which needs what nspawn would withhold.
            "--capability=all",
            "--system-call-filter=@known",
            *(["--private-network"] if self.packages else []),
            *binds,
        ]
        if not Path(
            "/run/systemd/system"
        ).exists():  # no systemd here can make a scope for the machine
            command.insert(1, "--keep-unit")
            command = ["sh", "-c", OWN_CGROUP, "sh", *command]
        with (self.folder / "boot.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.wait_for_boot()

    def reboot(self) -> None:
        """Let the systemd inside reboot, and wait until it has started its units again."""
        assert self._process is not None
        process = self._process
        self.call("systemctl reboot", any_code=True)
        until(lambda: not self.on(), "the end of the first boot")
        until(lambda: process.poll() is not None or self.on(), "the second boot")
        if process.poll() is not None:  # systemd-nspawn leaves the restart to what has started it
            self.boot()
        self.wait_for_boot()

    def wait_for_boot(self) -> None:
        """Wait until systemd has started its units.

        Raises:
            Failure: systemd-nspawn has ended.
        """

        def booted() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise Failure(f"systemd-nspawn has ended; see {self.folder / 'boot.log'}")
            if not self._init():
                return False
            state = self.call("systemctl is-system-running", any_code=True).strip()
            return state in {"running", "degraded"}

        until(booted, "the end of the boot")

    def on(self) -> bool:
        """Whether the systemd inside answers."""
        return (
            self._init() is not None and not self.answer("systemctl is-system-running --quiet")[0]
        )

    def off(self) -> None:
        """Stop the machine, as its power switch does; without an answer, end it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for tree in Path("/sys/fs/cgroup").glob(f"**/nst-live.{self._process.pid}"):
            subprocess.run(["find", tree, "-depth", "-type", "d", "-delete"], check=False)
        self._process = None

    def call(self, script: str, *, user: str = "root", any_code: bool = False) -> str:
        """Run a script of bash inside; what it printed, errors included.

        Args:
            script: The script.
            user: The user who runs it, with the groups that this user has now.
            any_code: Do not raise if it fails.

        Raises:
            Failure: It failed, or the machine is off.
        """
        code, said = self.answer(script, user=user)
        if code and not any_code:
            raise Failure(f"`{script}` as {user} ended with {code}: {said.strip()[-2000:]}")
        return said

    def answer(self, script: str, *, user: str = "root") -> tuple[int, str]:
        """Run a script of bash inside; its exit code, and what it printed, errors included."""
        init = self._init()
        if not init:
            raise Failure("the machine is off")
        inside = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        runuser = [] if user == "root" else ["runuser", "-u", user, "--"]
        command = [
            *("nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--net", "--pid"),
            *("--cgroup", "--", "env", "-i", *inside, *runuser),
            *("bash", "-c", script),
        ]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def path(self, inside: str) -> Path:
        """Where a file of the machine is for us. Not for /tmp, /run and what is bound."""
        return self.root / inside.lstrip("/")

    def unpack(self, archive: bytes, folder: str) -> None:
        """Unpack a tar archive into a folder of the machine, which is emptied first."""
        path = self.path(folder)
        _remove(path)
        path.mkdir(parents=True)
        subprocess.run(["tar", "-x", "--no-same-owner", "-C", path], input=archive, check=True)

    def _init(self) -> int | None:
        """The id, on this machine, of the systemd inside."""
        if self._process is None:
            return None
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            if _number_inside(pid) == "1":
                return pid
            waiting += _children(pid)
        return None


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:  # it has ended
        return []


def _number_inside(pid: int) -> str:
    """The id of a process in the innermost namespace, if it is not ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended
        return ""
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    return numbers[-1] if name == "systemd" and int(numbers[0]) != os.getpid() else ""


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
