"""The service in the live machine: install it, configure it, drop pictures, and see what becomes of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tests.live.machine import Failure, Machine, until

CHECKOUT = Path(__file__).parent.parent.parent
SOURCE = "/usr/src/nst-daemon"
DATA = "/var/lib/nst-daemon"
CONFIGURATION = "/etc/nst-daemon/config.yaml"
#: Puts packages before those of an environment whose path names the program. The pip of a new environment is its own.
SITECUSTOMIZE = """import sys
if "nst-daemon" in sys.prefix and "ensurepip" not in sys.orig_argv:
    first = next(n for n, path in enumerate(sys.path) if path.startswith(sys.prefix))
    sys.path[first:first] = {paths}
"""
#: Small pictures, little patience, and a checkpoint each second.
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "render": {"size": 64, "iterations": 20},
    "service": {"settle_seconds": 0.5, "checkpoint_seconds": 1},
}
#: So many iterations for each of three scales take seconds to a minute, in which something happens to the service.
MINUTE = 150


class Service:
    """nst-daemon as an administrator and its users see it.

    Args:
        machine: The machine, which is on.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.call = machine.call

    # What an administrator does.

    def install(self, archive: bytes) -> str:
        """`make install` of the sources in an archive, with root's umask at its narrowest; what it printed."""
        self.machine.unpack(archive, SOURCE)
        options = ""
        if self.machine.packages:
            self._use_packages()
            options = "--no-index --no-build-isolation"
        return self.call(
            f"cd {SOURCE} && umask 077 && make install EXTRAS=web,notify PIP_OPTIONS='{options}'"
        )

    def _use_packages(self) -> None:
        """Let the program's environment see the packages that are bound; pip then finds that nothing is missing."""
        text = SITECUSTOMIZE.format(paths=json.dumps(list(self.machine.packages)))
        self.call(
            f"for folder in /usr/lib/python3.*; do echo '{text}' > $folder/sitecustomize.py; done"
        )

    def configure(self, *more: Mapping[str, Mapping[str, object]], text: str = "") -> None:
        """Write the configuration. more: sections beside or instead of SETTINGS. text: the end of the file."""
        sections: dict[str, dict[str, object]] = {"folders": {"root": DATA}}
        for name, values in chain.from_iterable(part.items() for part in (SETTINGS, *more)):
            sections[name] = {**sections.get(name, {}), **values}
        lines = [
            f"{name}:\n"
            + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in values.items())
            for name, values in sections.items()
        ]
        path = self.machine.path(CONFIGURATION)
        path.write_text("".join(lines) + text)
        path.chmod(0o644)

    def begin(
        self, *more: Mapping[str, Mapping[str, object]], text: str = "", start: bool = True
    ) -> None:
        """Bring the service back to its first state: no pictures, no history, no drop-ins, these settings.

        The cache stays, because it takes time to compute. The arguments are those of `configure`.
        """
        self.call("systemctl stop nst-daemon.service nst-batch.timer nst-batch.service")
        self.call("systemctl reset-failed; rm -rf /etc/systemd/system/nst-*.d", any_code=True)
        self.call("systemctl daemon-reload")
        keep = "! -path '*/state' ! -path '*/state/cache*'"
        self.call(f"mkdir -p {DATA}; find {DATA} -mindepth 1 {keep} -delete", any_code=True)
        self.call(f"systemd-tmpfiles --create; chown -R nst:nst {DATA}", any_code=True)
        self.configure(*more, text=text)
        if start:
            self.call("systemctl start nst-daemon")

    def drop_in(self, name: str, unit: str, text: str | None = None) -> None:
        """Install a drop-in for a unit: the one of this name that is installed, or this text."""
        folder = f"/etc/systemd/system/{unit}.d"
        if text is None:
            self.call(f"install -D -m 644 -t {folder} /usr/local/share/nst-daemon/{name}")
        else:
            self.machine.path(folder).mkdir(parents=True, exist_ok=True)
            (self.machine.path(folder) / name).write_text(text)
        self.call("systemctl daemon-reload")

    # What users do.

    def drop(self, name: str, *, user: str = "alice", **settings: object) -> None:
        """Drop a pair, and its settings, as a user does: by copying files."""
        inbox = f"{DATA}/inbox"
        commands = ["umask 002"]
        if settings:
            commands.append(f"echo '{json.dumps(settings)}' > {inbox}/{name}.yaml")
        for role, sample in (("content", "riverside"), ("style", "swirls")):
            source = f"{SOURCE}/nst_daemon/samples/{sample}.png"
            commands.append(f"cp {source} {inbox}/{name}.{role}.png")
        self.call("; ".join(commands), user=user)

    def nst(self, command: str, *, user: str = "alice") -> str:
        """Run a command of the program on the service's folders; what it printed."""
        return self.call(_program(command), user=user)

    def refused(self, command: str, *, user: str, code: int = 0) -> str:
        """Run a command that must fail; what it printed.

        Args:
            command: The command of the program.
            user: Who runs it.
            code: Its exit code; 0: any but 0.
        """
        got, said = self.machine.answer(_program(command), user=user)
        check(got == code if code else got, f"{command} as {user} ended with {got}: {said}")
        check("Traceback" not in said, said)
        return said

    # What can be seen.

    def show(self, what: str, unit: str = "nst-daemon.service") -> str:
        """A property of a unit."""
        return self.call(f"systemctl show --value --property={what} {unit}").strip()

    def pid(self) -> int:
        """The process of the daemon; 0 if there is none."""
        return int(self.show("MainPID"))

    def worker(self) -> int:
        """The process of the worker that paints; 0 if there is none."""
        found = self.call(
            f"pgrep -P {self.pid()} -f nst_daemon.workers.process.main", any_code=True
        )
        return int(found.split()[0]) if found.strip() else 0

    def journal(self, unit: str = "nst-daemon", options: str = "") -> str:
        """What a unit has logged since it was installed, one message a line, without times."""
        return self.call(f"journalctl --no-pager --output=cat --unit={unit} {options}")

    def mark(self) -> Callable[[], str]:
        """A function that returns what the service has logged since now."""
        cursor = self.call("journalctl --lines=0 --show-cursor").split("cursor: ")[-1].strip()
        return lambda: self.journal(options=f"--after-cursor='{cursor}'")

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs of the ledger, newest first."""
        return list(json.loads(self.nst("history --json")))

    def states(self) -> dict[str, str]:
        """The state of each job by its name."""
        return {job["name"]: job["state"] for job in self.jobs()}

    def until_done(self, *names: str) -> None:
        """Wait until these jobs have their pictures.

        Raises:
            Failure: One of them has failed.
        """

        def ended() -> bool:
            failed = self.machine.path(f"{DATA}/failed")
            bad = [name for name in names if (failed / name).exists()]
            check(not bad, f"failed: {bad and self.nst('history ' + bad[0])}")
            return all((self.machine.path(f"{DATA}/done") / name).exists() for name in names)

        until(ended, f"the end of {', '.join(names)}")
        until(
            lambda: all(self.states().get(name) == "done" for name in names),
            f"{', '.join(names)} in the history",
        )

    def until_painting(self, name: str, iterations: int = 30) -> None:
        """Wait until so many iterations of a job are painted, and at least one checkpoint is on the disk."""
        live = self.machine.path(f"{DATA}/state/status.json")
        checkpoints = self.machine.path(f"{DATA}/state/checkpoints")

        def painting() -> bool:
            if not live.exists() or not any(checkpoints.glob("*")):
                return False
            paintings = json.loads(live.read_text()).get("paintings", [])
            return any(p["name"] == name and p["done"] >= iterations for p in paintings)

        until(painting, f"{iterations} iterations of {name} and a checkpoint")

    def result(self, name: str) -> dict[str, Any]:
        """The sidecar of a result, whose picture is there."""
        folder = self.machine.path(f"{DATA}/results")
        check((folder / f"{name}.png").stat().st_size > 1000, f"{name}.png is nearly empty")
        return dict(json.loads((folder / f"{name}.json").read_text()))

    def check_resumed(self, name: str) -> None:
        """Raise Failure unless the painting of a result was resumed from its checkpoint."""
        resumed_after = self.result(name)["iterations"]["resumed_after"]
        check(resumed_after, "it did not continue from its checkpoint")


def _program(command: str) -> str:
    """A command line of the program with the service's configuration."""
    return f"nst-daemon {command} --config {CONFIGURATION}"


def check(condition: object, message: str) -> None:
    """Raise Failure with this message unless the condition holds."""
    if not condition:
        raise Failure(message)


def sources(revision: str = "") -> bytes:
    """A tar archive of the checkout as it is now, new files included, or of a revision."""
    if revision:
        return _output(["git", "archive", revision])
    listed = _output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    names = [
        name for name in listed.split(b"\0") if name and (CHECKOUT / os.fsdecode(name)).exists()
    ]
    return _output(["tar", "-c", "--null", "--files-from=-"], b"\0".join(names))


def _output(command: Sequence[str], given: bytes = b"") -> bytes:
    return subprocess.run(
        command, cwd=CHECKOUT, input=given, stdout=subprocess.PIPE, check=True
    ).stdout


@dataclass(frozen=True)
class Step:
    """A part of the suite.

    Attributes:
        name: What `--only` takes.
        seconds: Its time limit.
        run: The step itself. What is wrong is a Failure.
        setup: Whether all others need it, so that it runs with each of them.
    """

    name: str
    seconds: float
    run: Callable[[Service], None]
    setup: bool = False


#: All steps in the order in which they run.
STEPS: list[Step] = []


def step(
    seconds: float, *, setup: bool = False
) -> Callable[[Callable[[Service], None]], Callable[[Service], None]]:
    """Make a function a step of this time limit; its name is the function's."""

    def register(function: Callable[[Service], None]) -> Callable[[Service], None]:
        STEPS.append(Step(function.__name__.replace("_", "-"), seconds, function, setup))
        return function

    return register
