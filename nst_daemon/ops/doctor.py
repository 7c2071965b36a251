"""`nst-daemon doctor`: everything that painting needs, looked at, with the remedy where something is amiss.

What needs torch is looked at by `nst_daemon.probe` in another process.
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

from nst_daemon.config import Config, Folders
from nst_daemon.errors import StorageError
from nst_daemon.mounts import free_bytes, network_file_system
from nst_daemon.names import printable
from nst_daemon.service.status_page import INSTALL, missing_packages

Level = Literal["good", "warning", "bad"]

#: Seconds that the probe may take; loading torch from a cold disk is most of it.
PROBE_SECONDS = 300
_SYSCTL = Path("/proc/sys/fs/inotify")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's page. remedy: empty where nothing has to be done."""

    level: Level
    subject: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.subject + ':':<14} {printable(self.message)}"
        return f"{line}\n{'':23} → {printable(self.remedy)}" if self.remedy else line


def diagnose(config: Config, *, mounts: str | None = None) -> list[Finding]:
    """Look at everything, in the order of the page.

    mounts: the text of a mount table as in /proc/self/mounts, which is read where it is None.
    """
    return [
        check_python(),
        *check_packages(requires("nst-daemon") or []),
        *probe(config),
        *check_folders(config.folders),
        *check_file_systems(config.folders, config.service.rescan_seconds, mounts),
        check_watching(config.folders.inbox),
        check_disk(config.folders.state, config.limits.min_free_disk),
        *check_status_page(config.status_page),
    ]


def check_python() -> Finding:
    """Which Python this is; the package does not install into one that is too old."""
    return Finding("good", "Python", f"{platform.python_version()} at {sys.executable}")


def check_packages(requirements: Iterable[str]) -> Iterator[Finding]:
    """requirements: lines as in package metadata, such as `torch<2.12,>=2.9`; extras are left out."""
    wanted = [Requirement(line) for line in requirements]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [complaint for r in needed if (complaint := _complaint(r))]
    for complaint in wrong:
        yield Finding("bad", "packages", complaint, "install nst-daemon again into its environment")
    if not wrong:
        yield Finding("good", "packages", f"all {len(needed)} are there, torch {version('torch')}")
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        yield Finding(
            "warning",
            "packages",
            "onnxruntime and onnxruntime-gpu are both installed, and one hides the other",
            "pip uninstall both, then install onnxruntime-gpu",
        )


def _complaint(requirement: Requirement) -> str:
    found = _installed(requirement.name)
    if not found:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} is {found}, and {requirement.specifier} is needed"
    return ""


def _installed(name: str) -> str:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return ""


def probe(config: Config) -> list[Finding]:
    """Devices, onnxruntime, weights and the ONNX file, looked at in a process of their own."""
    asked = {
        "network": config.model.network,
        "weights": str(config.model.weights),
        "devices": config.devices,
        "cache_dir": str(config.folders.cache),
        "render": dict(config.render),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "nst_daemon.probe"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        return [Finding(*row) for row in json.loads(done.stdout)]
    except subprocess.TimeoutExpired:
        cause = f"no answer within {PROBE_SECONDS} s"
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        cause = f"ended with status {done.returncode}: {last}"
    remedy = "run `python -m nst_daemon.probe </dev/null` to see where torch or a driver fails"
    return [Finding("bad", "torch", f"the probe of torch and onnxruntime failed: {cause}", remedy)]


def check_folders(folders: Folders) -> Iterator[Finding]:
    """Can this user read and write what the daemon must? Folders that are missing are created at start."""
    user = getpass.getuser()
    wrong = False
    for name in ("root", "inbox", "styles", "results", "done", "failed", "state"):
        folder: Path = getattr(folders, name)
        there = _nearest(folder)
        if not there.is_dir():
            message, remedy = f"{name}: {there} is not a folder", "move it away or set another"
        elif not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            verb = "use" if there == folder else f"create {folder} in"
            message = f"{name}: {user} cannot {verb} {there}"
            remedy = f"give {user} the right to read and write there"
        else:
            continue
        wrong = True
        yield Finding("bad", "folders", message, remedy)
    if not wrong:
        yield Finding(
            "good", "folders", f"{user} can read and write everything under {folders.root}"
        )


def check_file_systems(
    folders: Folders, rescan_seconds: float, mounts: str | None = None
) -> Iterator[Finding]:
    """Network file systems hide changes from inotify, and SQLite's log does not work on them."""
    state = network_file_system(_nearest(folders.state), mounts)
    if state:
        yield Finding(
            "bad",
            "state",
            f"{folders.state} is on a network file system ({state}), where the ledger is not safe",
            "set folders.state to a local disk",
        )
    inbox = network_file_system(_nearest(folders.inbox), mounts)
    if inbox:
        yield Finding(
            "warning",
            "inbox",
            f"{folders.inbox} is on {inbox}: changes from other machines raise no events here",
            f"nothing, if finding files every {rescan_seconds:g} s is soon enough; else lower service.rescan_seconds",
        )
    if not state and not inbox:
        yield Finding("good", "file systems", "inbox and state are on local disks")


def check_watching(inbox: Path, sysctl: Path = _SYSCTL) -> Finding:
    """Watch the inbox for a moment, as the daemon would, and say how many folders could be watched."""
    folders = (
        1 + sum(len(names) for _, names, _ in os.walk(_nearest(inbox))) if inbox.is_dir() else 1
    )
    observer = Observer()
    try:
        if inbox.is_dir():
            observer.schedule(FileSystemEventHandler(), str(inbox), recursive=True)
        observer.start()
    except OSError as error:
        limit = {errno.EMFILE: "max_user_instances", errno.ENOSPC: "max_user_watches"}
        name = limit.get(error.errno or 0, "")
        return Finding(
            "warning",
            "inotify",
            f"the inbox cannot be watched ({error.strerror}): files are found only by the scan",
            f"raise fs.inotify.{name} with sysctl" if name else "look into the kernel's log",
        )
    else:
        observer.stop()
        observer.join()
    watches = _number(sysctl / "max_user_watches")
    if watches is not None and watches < 2 * folders:
        return Finding(
            "warning",
            "inotify",
            f"{folders} folders are watched and the kernel allows {watches} in all",
            f"sysctl fs.inotify.max_user_watches={max(8192, 4 * folders)}",
        )
    allowed = "an unknown number" if watches is None else f"{watches:,}"
    return Finding("good", "inotify", f"folders to watch: {folders}, allowed: {allowed}")


def check_disk(folder: Path, least: int) -> Finding:
    """Is there room to work? least: bytes below which the queue waits."""
    try:
        free = free_bytes(_nearest(folder))
    except StorageError as error:
        return Finding("bad", "disk", error.message, error.remedy)
    total = shutil.disk_usage(_nearest(folder)).total
    message = f"{free / 2**30:.1f} of {total / 2**30:.0f} GiB are free at {folder}"
    if free < least:
        wait = f"the queue waits below {least / 2**30:.1f} GiB (limits.min_free_disk)"
        return Finding("bad", "disk", f"{message}; {wait}", "free some space")
    if free < 2 * least:
        return Finding("warning", "disk", message, "free some space before the queue has to wait")
    return Finding("good", "disk", message)


def check_status_page(address: str) -> Iterator[Finding]:
    """Can the page be served, where one is asked for?"""
    if not address:
        return
    if missing := missing_packages():
        message = f"status_page is {address}, and {', '.join(missing)} is not installed"
        yield Finding("bad", "status page", message, INSTALL)
    else:
        yield Finding("good", "status page", f"at http://{address}/ while the daemon runs")


def _nearest(path: Path) -> Path:
    """The path itself, or the first parent that exists."""
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
