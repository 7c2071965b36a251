"""All that `make live` does: `python -m tests.live [--only STEP …]`.

The service is installed into a Debian with systemd as process 1, and each step does to it what administrators, users
and accidents do: reloads, kills, reboots, an upgrade, its removal. Needs root and the Debian packages debootstrap
and systemd-container, and only Python's standard library. The first run makes the Debian, later ones copy it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.live import (
    steps_control,
    steps_package,
    steps_running,
    steps_setup,
    steps_users,
    steps_versions,
)
from tests.live.machine import Failure, Machine, OverdueError
from tests.live.service import STEPS, Service, Step

#: The modules of the steps, in their order.
MODULES = (steps_setup, steps_running, steps_control, steps_users, steps_versions)
ORDERED = [s for module in MODULES for s in STEPS if s.run.__module__ == module.__name__]
BOOT_SECONDS = 900
WIDTH = 160


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--only", nargs="+", metavar="STEP", choices=[s.name for s in ORDERED], default=[]
    )
    which.add_argument(
        "--deb",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="test this Debian package instead of `make install`; with two, the upgrade from the first",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the steps")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("/var/tmp/nst-live"),
        help="of the Debian; %(default)s; remove it to make a new one",
    )
    parser.add_argument(
        "--packages",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="the site-packages of an environment of Python 3.11 with the program's packages, the extras "
        "web and notify (all also for the release before), setuptools and setuptools-scm; they are bound read-only, "
        "and the machine has no network. Without it pip downloads them, as on any other machine",
    )
    options = parser.parse_args()
    if options.list:
        print("\n".join(s.name for s in ORDERED))
        return 0
    missing = [name for name in ("debootstrap", "systemd-nspawn") if not shutil.which(name)]
    if os.geteuid() or missing:
        parser.error("needs root, and: apt-get install debootstrap systemd-container")
    machine = Machine(options.folder, [path.resolve() for path in options.packages])
    signal.signal(signal.SIGALRM, _overdue)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the machine is switched off
    try:
        if options.deb:
            failed = _run(machine, steps_package.steps(options.deb))
        else:
            only = options.only
            failed = _run(machine, [s for s in ORDERED if s.setup or not only or s.name in only])
    finally:
        machine.off()
    return 1 if failed else 0


def _run(machine: Machine, steps: Sequence[Step]) -> int:
    """Run the steps and print a line for each; the number of those that failed."""
    service = Service(machine)
    width = max(len(s.name) for s in steps) + 2
    failed = 0
    for step in (Step("boot", BOOT_SECONDS, _boot, setup=True), *steps):
        began = time.monotonic()
        problem = _problem(step, service)
        seconds = time.monotonic() - began
        print(f"{step.name:<{width}}{seconds:6.1f} s  {_shortened(problem) or 'ok'}", flush=True)
        if problem:
            failed += 1
            _keep(problem, step, service)
            if step.setup:
                print("the other steps need this one")
                break
    print(
        f"{failed} of {len(steps) + 1} steps failed" if failed else f"all {len(steps) + 1} steps ok"
    )
    return failed


def _problem(step: Step, service: Service) -> str:
    """Run a step; what is wrong, or nothing."""
    signal.setitimer(signal.ITIMER_REAL, step.seconds)
    try:
        step.run(service)
    except (Failure, OverdueError, OSError, KeyError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def _boot(service: Service) -> None:
    service.machine.make()
    service.machine.boot()


def _shortened(problem: str) -> str:
    """What fits into one line of the table."""
    line = " ".join(problem.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _keep(problem: str, step: Step, service: Service) -> None:
    """Keep the whole problem and what the machine has logged."""
    said = (
        service.machine.answer("journalctl --no-pager --lines=400")[1]
        if service.machine.on()
        else ""
    )
    path = service.machine.folder / f"{step.name}.log"
    path.write_text(f"{problem}\n\n{said}")
    print(f"  more in {path}")


def _overdue(number: int, frame: object) -> None:
    raise OverdueError("time is over")


if __name__ == "__main__":
    sys.exit(main())
