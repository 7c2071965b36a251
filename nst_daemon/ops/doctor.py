"""`nst-daemon doctor`: check everything that painting needs, and name a remedy for each problem.

Checks that need torch run in another process (`nst_daemon.probe`).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from nst_daemon import __version__, extras, rights, tokens
from nst_daemon.config import Config, Folders
from nst_daemon.errors import ConfigError, NstError, StorageError
from nst_daemon.files import nearest
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.managed_process import child_environment, own_module
from nst_daemon.mounts import free_bytes, network_file_system
from nst_daemon.names import printable
from nst_daemon.notify_process import unusable
from nst_daemon.ops.layout import wrapped
from nst_daemon.ops.status import read_live
from nst_daemon.overlaps import overlaps
from nst_daemon.units import count, duration, size
from nst_daemon.web.options import PageOptions, missing_packages

Level = Literal["good", "warning", "bad"]

#: Time limit of the probe in seconds; most of it is loading torch from a cold disk.
PROBE_SECONDS = 300
#: The packages that contain the module onnxruntime: for the CPU, and for NVIDIA's GPUs.
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_SYSCTL = Path("/proc/sys/fs/inotify")


@dataclass(frozen=True)
class Finding:
    """A result of one check. `remedy` is empty if nothing has to be done."""

    level: Level
    subject: str
    message: str
    remedy: str = ""


def report(findings: Sequence[Finding], width: int | None) -> str:
    """The findings for people: one line each in a pipe (`width` None), else as wide as the terminal."""
    lines = []
    for found in findings:
        label = f"{found.level:<8} {found.subject + ':':<14} "
        indent = " " * (len(label) if width is None or width >= 60 else 4)
        lines.append(wrapped(printable(found.message), width, label, indent))
        if found.remedy:
            lines.append(wrapped(printable(found.remedy), width, f"{indent}→ ", f"{indent}  "))
    return "\n".join(lines)


def diagnose(config: Config, *, mounts: str | None = None) -> list[Finding]:
    """Run all checks.

    Args:
        config: the configuration.
        mounts: the text of a mount table; /proc/self/mounts is read if None.
    """
    return [
        check_program(),
        check_configuration(config),
        *check_packages(requires("nst-daemon") or []),
        *probe(config),
        *(Finding("bad", "folders", *overlap) for overlap in overlaps(config)),
        *check_folders(config.folders),
        check_others(config.folders),
        *check_ledger(config.folders.ledger),
        *check_file_systems(config.folders, config.service.rescan_seconds, mounts),
        check_watching(config.folders.inbox),
        check_disk(config.folders.state, config.limits.min_free_disk),
        *check_status_page(PageOptions.of(config, serve=True), missing_packages()),
        *check_notifications(config.notify.urls),
        *check_executor(config.executor, extras.missing("ray")),
        *check_daemon(config.folders),
    ]


def installed_version(name: str) -> str:
    """The version of an installed package; empty if it is not installed."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return ""


def check_program() -> Finding:
    """Report the versions of nst-daemon and of Python. (It cannot be installed into a Python that is too old.)"""
    message = f"{__version__}, Python {platform.python_version()} at {sys.executable}"
    return Finding("good", "nst-daemon", message)


def check_configuration(config: Config) -> Finding:
    """Report which file was read. The command has refused an invalid one already."""
    message = (
        f"{config.source} is valid" if config.source else "no file is read; the defaults are used"
    )
    return Finding("good", "configuration", message)


def check_packages(
    requirements: Iterable[str], installed: Callable[[str], str] = installed_version
) -> Iterator[Finding]:
    """Check the versions of installed packages.

    Args:
        requirements: lines of package metadata, such as `torch<2.12,>=2.9`; extras are skipped.
        installed: the version of a package, empty if it is not installed.
    """
    wanted = [Requirement(line) for line in requirements]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [complaint for r in needed if (complaint := _complaint(r, _found(r.name, installed)))]
    for complaint in wrong:
        yield Finding("bad", "packages", complaint, "install nst-daemon again into its environment")
    runtimes = [name for name in _RUNTIMES if _present(name, installed)]
    if not wrong:
        versions = ", ".join(f"{name} {installed(name)}" for name in ("torch", *runtimes))
        yield Finding("good", "packages", f"all {len(needed)} are installed, {versions}")
    if len(runtimes) > 1:
        yield Finding(
            "warning",
            "packages",
            "onnxruntime and onnxruntime-gpu are both installed and share one module, so either may be used",
            f"`{sys.executable} -m pip uninstall {' '.join(_RUNTIMES)}`, then install nst-daemon again",
        )


def _present(name: str, installed: Callable[[str], str]) -> str:
    """The version of a package; empty for the empty package that takes the place of onnxruntime-gpu."""
    version = installed(name)
    return "" if name == "onnxruntime-gpu" and version.endswith("+cpu") else version


def _found(name: str, installed: Callable[[str], str]) -> str:
    """The version of a package; either onnxruntime will do, because without a GPU both do the same."""
    names = [name, *_RUNTIMES] if name in _RUNTIMES else [name]
    return next((version for each in names if (version := _present(each, installed))), "")


def _complaint(requirement: Requirement, found: str) -> str:
    if not found:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} is {found}, and {requirement.specifier} is needed"
    return ""


def probe(
    config: Config, python: str = sys.executable, seconds: float = PROBE_SECONDS
) -> list[Finding]:
    """Check the formats of image files, devices, onnxruntime, weights and the ONNX file in a separate process.

    Args:
        config: the configuration.
        python: the interpreter of that process.
        seconds: its time limit.
    """
    asked = {
        "network": config.model.network,
        "weights": str(config.model.weights),
        "devices": config.devices,
        "threads": config.threads,
        "cache_dir": str(config.folders.cache),
        "render": dict(config.render),
        "formats": config.limits.formats,
    }
    try:
        done = subprocess.run(  # noqa: S603 (our own program)
            [python, *own_module("nst_daemon.probe")[1:]],
            input=json.dumps(asked),
            capture_output=True,
            env=child_environment(),
            encoding="utf-8",
            errors="backslashreplace",
            timeout=seconds,
            check=False,
        )
        return [Finding(*row) for row in json.loads(done.stdout)]
    except subprocess.TimeoutExpired:
        cause = f"no answer within {duration(seconds)}"
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        cause = f"ended with status {done.returncode}: {last}"
    remedy = "run `python -m nst_daemon.probe </dev/null` to see the error of torch or the driver"
    return [Finding("bad", "torch", f"the probe of torch and onnxruntime failed: {cause}", remedy)]


def check_folders(folders: Folders) -> Iterator[Finding]:
    """Check that the daemon's user can use the folders and the files that it needs, or create missing folders."""
    wrong = False
    for name in ("root", "inbox", "styles", "results", "done", "failed", "state"):
        place = nearest(getattr(folders, name))
        if not place.is_dir():
            wrong = True
            remedy = f"move it, or set folders.{name}"
            yield Finding("bad", "folders", f"{name}: {place} is not a folder", remedy)
    for message, remedy in rights.no_files(folders.state / "lock", folders.ledger):
        wrong = True
        yield Finding("bad", "folders", message, remedy)
    if paths := rights.blocked(folders):
        wrong = True
        yield Finding("bad", "folders", *rights.describe(folders, paths))
    elif left := rights.left_by_others(folders):
        wrong = True
        yield Finding("warning", "folders", *rights.describe(folders, left))
    if not wrong:
        user = rights.user_name(rights.daemon_user(folders))
        message = f"{user} can read and write everything under {folders.root}"
        yield Finding("good", "folders", message)


def check_others(folders: Folders) -> Finding:
    """Check what users outside the group can read: nothing, or only the results, in a root that a group shares."""
    opened = rights.open_to_others(folders)
    if not opened:
        return Finding("good", "rights", f"other users can read nothing under {folders.root}")
    if rights.is_shared(folders) and opened == [folders.results]:
        return Finding("good", "rights", f"other users can read {folders.results} and nothing else")
    message = f"other users can read {', '.join(str(path) for path in opened)}"
    remedy = rights.closing(folders, opened)
    if not rights.is_shared(folders):
        # The umask of a person who paints alone is that person's choice.
        return Finding("good", "rights", message, f"to close: {remedy}")
    if folders.results in opened:
        remedy += f"; leave out {folders.results} if others shall read the results"
    return Finding("warning", "rights", message, remedy)


def check_ledger(path: Path) -> Iterator[Finding]:
    """Read the ledger, if there is one and this user may read it."""
    if not os.access(path, os.R_OK) or not path.is_file():
        return
    try:
        with LedgerReader.attach(path) as ledger:
            number = sum(ledger.counts().values())
    except NstError as error:
        yield Finding("bad", "ledger", error.message, error.remedy)
    else:
        yield Finding("good", "ledger", f"it can be read and has {number} jobs")


def check_file_systems(
    folders: Folders, rescan_seconds: float, mounts: str | None = None
) -> Iterator[Finding]:
    """Check for network file systems: inotify misses changes there, and SQLite's write-ahead log is not safe."""
    state = network_file_system(nearest(folders.state), mounts)
    if state:
        yield Finding(
            "bad",
            "state",
            f"{folders.state} is on a network file system ({state}), where the ledger is not safe",
            "set folders.state to a local disk",
        )
    inbox = network_file_system(nearest(folders.inbox), mounts)
    if inbox:
        yield Finding(
            "warning",
            "inbox",
            f"{folders.inbox} is on {inbox}: changes from other machines cause no events here",
            f"files are found every {duration(rescan_seconds)}; to find them sooner, lower service.rescan_seconds",
        )
    if not state and not inbox:
        yield Finding("good", "file systems", "inbox and state are on local disks")


def check_watching(
    inbox: Path, sysctl: Path = _SYSCTL, make_observer: Callable[[], BaseObserver] = Observer
) -> Finding:
    """Watch the inbox for a moment, as the daemon does, and compare the number of folders with the kernel's limit.

    Args:
        inbox: the folder to watch.
        sysctl: the folder with the kernel's limits.
        make_observer: makes what watches the folder.
    """
    # A folder that this user may not reach counts as missing; another check reports it.
    exists = nearest(inbox) == inbox and inbox.is_dir()
    folders = 1 + sum(len(names) for _, names, _ in os.walk(inbox)) if exists else 1
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)  # events after its end are no problem
    observer = make_observer()
    try:
        if exists:
            observer.schedule(FileSystemEventHandler(), str(inbox), recursive=True)
        observer.start()
    except OSError as error:
        limit = {errno.EMFILE: "max_user_instances", errno.ENOSPC: "max_user_watches"}
        name = limit.get(error.errno or 0, "")
        return Finding(
            "warning",
            "inotify",
            f"the inbox cannot be watched ({error.strerror}): files are found only by scanning",
            f"raise fs.inotify.{name} with sysctl" if name else "read the kernel log (dmesg)",
        )
    else:
        observer.stop()
        observer.join()
    watches = _number(sysctl / "max_user_watches")
    if watches is not None and watches < 2 * folders:
        return Finding(
            "warning",
            "inotify",
            f"the inbox has {folders} folders, and the kernel allows {watches} watches in total",
            f"sysctl fs.inotify.max_user_watches={max(8192, 4 * folders)}",
        )
    allowed = "an unknown number" if watches is None else f"{watches:,}"
    return Finding("good", "inotify", f"folders to watch: {folders}, allowed: {allowed}")


def check_disk(folder: Path, least: int) -> Finding:
    """Check free space. `least`: number of free bytes below which the queue is paused."""
    try:
        free = free_bytes(nearest(folder))
    except StorageError as error:
        return Finding("bad", "disk", error.message, error.remedy)
    total = shutil.disk_usage(nearest(folder)).total
    message = f"{size(free)} of {size(total)} is free at {folder}"
    if free < least:
        wait = f"the queue pauses below {size(least)} (limits.min_free_disk)"
        return Finding("bad", "disk", f"{message}; {wait}", "free some space")
    if free < 2 * least:
        return Finding("warning", "disk", message, "free some space before the queue pauses")
    return Finding("good", "disk", message)


def check_status_page(page: PageOptions, missing: Sequence[str]) -> Iterator[Finding]:
    """Check that a configured status page can be served. `missing`: packages that are not installed."""
    if not page.address:
        return
    if missing:
        message = f"status_page {page.address} needs packages that are not installed: {', '.join(missing)}"
        yield Finding("bad", "status page", message, extras.install("web"))
        return
    try:
        page.check()
    except ConfigError as error:
        # A warning: the service may get the token from an environment file that this user may not read.
        yield Finding("warning", "status page", error.message, error.remedy)
        return
    yield Finding("good", "status page", f"at http://{page.address}/ while the daemon runs")
    yield from _check_tokens(page)


def _check_tokens(page: PageOptions) -> Iterator[Finding]:
    """Check the file of the tokens, if there is one and this user may read it."""
    path = tokens.path_of(page.folders)
    if problem := rights.private_problem(page.folders, path):
        yield Finding("bad", "tokens", *problem)
        return
    if not os.access(path, os.R_OK) and os.path.lexists(path):
        return  # another user than the daemon's
    try:
        found = tokens.read(path)
    except StorageError as error:
        yield Finding("bad", "tokens", f"{error.message}: the page refuses everybody", error.remedy)
        return
    if found:
        yield Finding("good", "tokens", f"{len(found)} in {path}")
    elif found is not None and not page.config.status_page_token:
        message = "every token was revoked: the page refuses everybody"
        yield Finding(
            "warning", "tokens", message, "create one with `nst-daemon token create NAME`"
        )


def check_notifications(urls: Sequence[str]) -> Iterator[Finding]:
    """Check that the URLs of `notify.urls` can be used. They are secrets, so only their places are named."""
    if not urls:
        return
    try:
        wrong = [f"{index + 1} ({urls[index].partition('://')[0]})" for index in unusable(urls)]
    except ConfigError as error:
        yield Finding("bad", "notifications", error.message, error.remedy)
        return
    if wrong:
        message = f"Apprise does not understand these entries of notify.urls: {', '.join(wrong)}"
        remedy = "write them as https://github.com/caronc/apprise/wiki describes their service"
        yield Finding("bad", "notifications", message, remedy)
    else:
        remedy = "`nst-daemon notify test` sends a message"
        yield Finding("good", "notifications", f"{count(len(urls), 'URL')}; {remedy}")


def check_executor(executor: str, missing: Sequence[str]) -> Iterator[Finding]:
    """Check that Ray is installed if it is used. missing: packages that are not installed."""
    if executor == "ray" and missing:
        message = "executor: ray needs Ray, which is not installed"
        yield Finding("bad", "executor", message, extras.install("ray"))


def check_daemon(folders: Folders) -> Iterator[Finding]:
    """Report what a running daemon says about itself, and why it is paused; nothing if none runs."""
    live = read_live(folders)
    if live is None:
        return
    if live.state in {"paused", "lost"}:
        remedy = "fix that; the daemon then continues"
        yield Finding("bad", "daemon", f"{live.state}: {live.reason}", remedy)
    else:
        yield Finding("good", "daemon", live.headline)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
