"""The doctor: each check finds its problem, states it in one line and names the remedy."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from watchdog.observers.api import BaseObserver, EventEmitter

from nst_daemon import rights, tokens
from nst_daemon.config import Config, load
from nst_daemon.errors import StorageError
from nst_daemon.ledger import Ledger
from nst_daemon.ops import doctor
from nst_daemon.ops.doctor import Finding, report
from nst_daemon.web.options import PageOptions
from tests.bench import Bench
from tests.users import User, needs_root

GIB = 1 << 30


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The default configuration over an empty root."""
    return load(None, {"NST_FOLDERS__ROOT": str(tmp_path / "nst"), "NST_DEVICES": "cpu"})


def mounts(*lines: tuple[Path, str]) -> str:
    """A mount table: the root on ext4, and these."""
    return "/dev/sda / ext4 rw 0 0\n" + "".join(f"x {at} {kind} rw 0 0\n" for at, kind in lines)


def only(findings: object) -> Finding:
    (finding,) = findings  # type: ignore[misc]
    assert isinstance(finding, Finding)
    return finding


@pytest.mark.slow
def test_a_sound_machine_has_nothing_bad(config: Config) -> None:
    """On a working machine there is no bad finding, and every check has reported."""
    findings = doctor.diagnose(config)
    assert [f for f in findings if f.level == "bad"] == []
    subjects = {f.subject for f in findings}
    assert subjects >= {
        "nst-daemon", "packages", "device", "onnxruntime", "weights", "onnx file", "folders", "file systems",
        "inotify", "disk", "formats",
    }  # fmt: skip
    assert next(f for f in findings if f.subject == "onnx file").level == "good"
    assert not config.folders.root.exists(), "the doctor changes nothing"


@pytest.mark.slow
def test_a_missing_onnx_file_that_takes_long_to_make_is_a_warning(config: Config) -> None:
    """Where the package does not have the graph, the doctor advises to export it before the first picture."""
    found = {f.subject: f for f in doctor.probe(replace(config, render={"padding": "zeros"}))}
    assert (found["onnx file"].level, found["onnx file"].remedy) == (
        "warning",
        "run `nst-daemon export` once",
    )


@pytest.mark.slow
def test_the_probe_holds_an_exported_file_against_torch(config: Config, model_cache: Path) -> None:
    """The parity of an existing ONNX file is measured, and missing weights do not hide the other findings."""
    config.folders.cache.parent.mkdir(parents=True)
    config.folders.cache.symlink_to(model_cache)
    found = {f.subject: f for f in doctor.probe(config)}
    assert found["onnx file"].level == "good"
    assert "agree within" in found["onnx file"].message
    lost = replace(config, model=replace(config.model, weights="/nowhere/lost.pth"))
    found = {f.subject: f for f in doctor.probe(lost)}
    assert found["weights"].level == "bad"
    assert "lost.pth" in found["weights"].message
    assert found["device"].level == "good"


@pytest.mark.slow
def test_the_formats_that_can_be_read_are_told(config: Config) -> None:
    """One line has the formats of limits.formats that can be read, and those that it does not list."""
    few = replace(config, limits=replace(config.limits, formats=("jpeg", "heif")))
    (finding,) = (f for f in doctor.probe(few) if f.subject == "formats")
    assert finding.level == "good"
    assert finding.message.startswith(
        "JPEG and HEIC can be read; limits.formats does not list png, "
    )


def test_a_probe_that_dies_is_a_finding(config: Config) -> None:
    """A probe that ends without an answer is one bad finding with its exit status, and no traceback."""
    finding = only(doctor.probe(config, python="/bin/false"))
    assert finding.level == "bad"
    assert "status 1" in finding.message


def test_a_probe_that_hangs_is_a_finding(config: Config) -> None:
    """A probe that does not answer in time is one bad finding."""
    finding = only(doctor.probe(config, seconds=0.1))
    assert finding.level == "bad"
    assert "no answer within 0.1 s" in finding.message


def test_missing_and_wrong_packages_are_named() -> None:
    """A missing package and a wrong version are named; packages of extras and of other systems are not."""
    lines = [
        "no-such-package>=1",
        "pillow>=900",
        "numpy",
        "also-missing; extra == 'dev'",
        "not-here; platform_machine == 'vax'",
    ]
    findings = list(doctor.check_packages(lines))
    assert [f.level for f in findings] == ["bad", "bad"]
    assert "no-such-package is not installed" in findings[0].message
    assert "pillow" in findings[1].message
    assert ">=900" in findings[1].message


def test_two_onnxruntimes_are_a_warning() -> None:
    """The CPU and the GPU package of onnxruntime installed together is a warning."""
    findings = list(doctor.check_packages([], installed=lambda name: "1.23.0"))
    assert [f.level for f in findings] == ["good", "warning"]
    assert "pip uninstall onnxruntime onnxruntime-gpu" in findings[1].remedy


@pytest.mark.parametrize("needed", ["onnxruntime", "onnxruntime-gpu"])
@pytest.mark.parametrize(
    "versions",
    [
        {"onnxruntime": "1.27.0"},
        {"onnxruntime-gpu": "1.27.0"},
        {"onnxruntime": "1.27.0", "onnxruntime-gpu": "9999+cpu"},
    ],
)
def test_either_onnxruntime_meets_the_requirement(needed: str, versions: dict[str, str]) -> None:
    """One onnxruntime of the right version is good, and named; the empty package does not count."""
    for line, level in ((f"{needed}>=1.27", "good"), (f"{needed}>=1.28", "bad")):
        found = only(doctor.check_packages([line], lambda name: versions.get(name, "")))
        assert found.level == level
        assert f"{next(iter(versions))} " in found.message or level == "bad"
        assert "9999" not in found.message


def test_the_empty_package_alone_is_no_onnxruntime() -> None:
    """The package in the place of onnxruntime-gpu without onnxruntime is a missing requirement."""
    found = doctor.check_packages(
        ["onnxruntime-gpu>=1.27"], lambda name: "9999+cpu" if name.endswith("gpu") else ""
    )
    assert only(found).message == "onnxruntime-gpu is not installed"


@pytest.mark.parametrize(
    ("device_type", "hip", "said"),
    [("cpu", None, ""), ("cuda", None, ""), ("cuda", "7.1", "ROCm 7.1"), ("mps", None, "Apple")],
)
def test_untested_devices_are_told(device_type: str, hip: str | None, said: str) -> None:
    """GPUs of AMD and Apple are named as untested, a CPU and NVIDIA's are not."""
    from nst_daemon.probe import untested

    assert untested(device_type, hip) == "" if not said else said in untested(device_type, hip)


def test_folders_that_can_be_used_are_good(config: Config) -> None:
    """Folders that exist, and folders that can be created, are good."""
    assert only(doctor.check_folders(config.folders)).level == "good"
    config.folders.inbox.mkdir(parents=True)
    assert only(doctor.check_folders(config.folders)).level == "good"


@pytest.mark.parametrize("name", ["lock", "ledger.sqlite", "ledger.sqlite-wal"])
def test_what_is_in_the_place_of_a_file_is_bad(config: Config, name: str) -> None:
    """A folder or a named pipe in the place of the lock, the ledger or its log is named, as at the start."""
    path = config.folders.state / name
    for make, kind in ((Path.mkdir, "a folder"), (os.mkfifo, "a named pipe")):
        config.folders.state.mkdir(parents=True, exist_ok=True)
        make(path)
        found = [f for f in doctor.check_folders(config.folders) if f.level == "bad"]
        assert found[0].message == f"{path} is {kind} and not a file"
        with pytest.raises(StorageError, match=f"{kind} and not a file"):
            rights.check_start(config.folders)
        shutil.rmtree(config.folders.state)


@pytest.mark.parametrize(
    ("version", "told"), [(99, "a newer version"), (1, "an older version"), (0, "good")]
)
def test_a_ledger_of_another_version_is_bad(config: Config, version: int, told: str) -> None:
    """A ledger that this program cannot read is named, with what to do."""
    config.folders.state.mkdir(parents=True)
    Ledger.open(config.folders.ledger).close()
    with contextlib.closing(sqlite3.connect(config.folders.ledger)) as database:
        if version:
            database.execute(f"PRAGMA user_version = {version}")
    finding = only(doctor.check_ledger(config.folders.ledger))
    assert told in f"{finding.level}: {finding.message}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_folder_without_rights_is_bad(config: Config) -> None:
    """A folder that this user cannot write to is bad, and the finding has its path."""
    config.folders.results.mkdir(parents=True)
    config.folders.results.chmod(0o500)
    finding = only(doctor.check_folders(config.folders))
    assert finding.level == "bad"
    assert str(config.folders.results) in finding.message


def test_a_file_in_a_folders_place_is_bad(config: Config) -> None:
    """A file in place of a folder is bad, and the finding has its key and path."""
    config.folders.root.mkdir()
    config.folders.results.write_text("in the way")
    finding = only(doctor.check_folders(config.folders))
    assert finding.level == "bad"
    assert finding.message == f"results: {config.folders.results} is not a folder"


def test_network_file_systems_are_told(config: Config) -> None:
    """An inbox on NFS is a warning that names the scan; a state folder there is bad; local disks are good."""
    folders = config.folders
    folders.inbox.mkdir(parents=True)
    assert only(doctor.check_file_systems(folders, 30, mounts())).level == "good"
    inbox = only(doctor.check_file_systems(folders, 30, mounts((folders.inbox, "nfs4"))))
    assert inbox.level == "warning"
    assert "nfs4" in inbox.message
    assert "30 s" in inbox.remedy
    levels = [
        f.level for f in doctor.check_file_systems(folders, 30, mounts((folders.root, "cifs")))
    ]
    assert levels == ["bad", "warning"]


def test_watches_that_do_not_suffice_are_told(tmp_path: Path) -> None:
    """If the folders need more than half of the kernel's watches, the finding names the sysctl."""
    inbox, sysctl = tmp_path / "inbox", tmp_path / "sys"
    sysctl.mkdir()
    for name in "abc":
        (inbox / name / "deep").mkdir(parents=True)
    (sysctl / "max_user_watches").write_text("14\n")
    assert doctor.check_watching(inbox, sysctl).level == "good"
    (sysctl / "max_user_watches").write_text("13\n")
    finding = doctor.check_watching(inbox, sysctl)
    assert finding.level == "warning"
    assert "7 folders" in finding.message
    assert finding.remedy == "sysctl fs.inotify.max_user_watches=8192"


class Refused(BaseObserver):
    """An observer that gets no inotify instance."""

    def __init__(self) -> None:
        super().__init__(EventEmitter)

    def start(self) -> None:
        """Fail as inotify_init does."""
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_an_inbox_that_cannot_be_watched_is_a_warning(tmp_path: Path) -> None:
    """If the kernel refuses an inotify instance, the finding names the limit to raise."""
    finding = doctor.check_watching(tmp_path, make_observer=Refused)
    assert finding.level == "warning"
    assert "Too many open files" in finding.message
    assert "max_user_instances" in finding.remedy


def test_the_disk_is_measured_against_the_limit(tmp_path: Path) -> None:
    """Free space below the limit is bad, below twice the limit a warning, else good, even for a missing folder."""
    free = os.statvfs(tmp_path)
    free_bytes = free.f_bavail * free.f_frsize
    nowhere = tmp_path / "not" / "yet"
    assert doctor.check_disk(nowhere, 0).level == "good"
    assert doctor.check_disk(nowhere, free_bytes * 3 // 4).level == "warning"
    assert doctor.check_disk(nowhere, free_bytes + GIB).level == "bad"


def test_a_paused_daemon_is_told_with_its_reason(tmp_path: Path) -> None:
    """A daemon that is paused is a bad finding with the reason and the time; one that has stopped is no finding."""
    bench = Bench(tmp_path)
    bench.change(limits={"min_free_disk": 2**62})
    bench.step(2)
    assert list(doctor.check_daemon(bench.folders)) == []
    with (bench.folders.state / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finding = only(doctor.check_daemon(bench.folders))
        assert (finding.level, finding.subject) == ("bad", "daemon")
        assert "min_free_disk" in finding.message
        assert "since 20" in finding.message
        bench.change()
        bench.step(2, times=2)
        assert only(doctor.check_daemon(bench.folders)).message == "idle"


def test_a_finding_is_printed_with_its_remedy() -> None:
    """A line has level, subject and message, the next line the remedy, and control characters are escaped."""
    assert report([Finding("good", "disk", "fine")], None) == "good     disk:          fine"
    text = report([Finding("bad", "folders", "a\x1b[31mb", "fix it")], None)
    assert "\x1b" not in text
    assert text.endswith("→ fix it")


@pytest.mark.parametrize("width", [40, 60, 80])
def test_findings_fit_the_terminal(width: int) -> None:
    """Messages and remedies are wrapped at words, and nothing is cut."""
    words = " ".join(["word"] * 60)
    text = report([Finding("warning", "file systems", words, words)], width)
    assert all(len(line) <= width for line in text.splitlines())
    assert text.split().count("word") == 120


def test_the_doctor_stays_light() -> None:
    """Importing the doctor loads neither torch nor onnxruntime."""
    code = "import sys, json, nst_daemon.ops.doctor; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not {"torch", "onnxruntime", "onnx"} & set(json.loads(done.stdout))


def page_at(address: str, token: str = "", root: Path = Path("/nonexistent")) -> PageOptions:
    config = load(None, {"NST_FOLDERS__ROOT": str(root)}, search=())
    config = replace(config, status_page=address, status_page_token=token)
    return PageOptions.of(config, serve=True)


def test_the_extra_of_the_status_page() -> None:
    """If a status page is configured, a missing package is bad, and the command that installs it is the remedy."""
    assert list(doctor.check_status_page(page_at(""), ["uvicorn"])) == []
    assert only(doctor.check_status_page(page_at("127.0.0.1:8787"), [])).level == "good"
    finding = only(doctor.check_status_page(page_at("127.0.0.1:8787"), ["uvicorn"]))
    assert (finding.level, "uvicorn" in finding.message) == ("bad", True)
    assert "pip install 'fastapi>=" in finding.remedy


def test_the_extra_of_ray() -> None:
    """A missing Ray is bad only if it is used, and the command that installs it is the remedy."""
    assert list(doctor.check_executor("local", ["ray"])) == []
    assert list(doctor.check_executor("ray", [])) == []
    finding = only(doctor.check_executor("ray", ["ray"]))
    assert (finding.level, "pip install 'ray[client]>=" in finding.remedy) == ("bad", True)


def test_the_token_of_the_status_page() -> None:
    """A page for other machines without a token is a warning that names the variable; with a token it is good."""
    finding = only(doctor.check_status_page(page_at("0.0.0.0:8787"), []))
    assert (finding.level, "NST_STATUS_PAGE_TOKEN" in finding.remedy) == ("warning", True)
    assert only(doctor.check_status_page(page_at("0.0.0.0:8787", "a" * 16), [])).level == "good"


def test_the_urls_of_notifications() -> None:
    """Without URLs nothing is checked; one that Apprise does not understand is bad, and only its scheme is shown."""
    assert list(doctor.check_notifications([])) == []
    assert only(doctor.check_notifications(["json://localhost/x"])).level == "good"
    finding = only(doctor.check_notifications(["json://localhost/x", "nonsense://hunter2"]))
    assert (finding.level, "2 (nonsense)" in finding.message) == ("bad", True)
    assert "hunter2" not in finding.message + finding.remedy


def test_the_tokens_of_the_status_page(tmp_path: Path) -> None:
    """A file of tokens is counted, one that is damaged is bad, and one without tokens is a warning."""
    page = page_at("0.0.0.0:8787", root=tmp_path)
    page.folders.state.mkdir()
    assert only(doctor.check_status_page(page, [])).level == "warning"
    tokens.create(page.folders, "phone", "full")
    _, finding = doctor.check_status_page(page, [])
    assert (finding.level, finding.message[:2]) == ("good", "1 ")
    tokens.revoke(page.folders, "phone")
    _, finding = doctor.check_status_page(page_at("127.0.0.1:8787", root=tmp_path), [])
    assert (finding.level, "token create" in finding.remedy) == ("warning", True)
    tokens.path_of(page.folders).write_text("{")
    _, finding = doctor.check_status_page(page, [])
    assert (finding.level, "damaged" in finding.message) == ("bad", True)
    tokens.path_of(page.folders).chmod(0o644)
    _, finding = doctor.check_status_page(page, [])
    assert (finding.level, "chmod 600" in finding.remedy) == ("bad", True)


@needs_root
def test_tokens_of_another_user(tmp_path: Path) -> None:
    """A file of tokens that the daemon's user does not own is bad, and the command that repairs it is the remedy."""
    page = page_at("127.0.0.1:8787", root=tmp_path)
    page.folders.state.mkdir()
    tokens.create(page.folders, "phone", "full")
    os.chown(page.folders.state, 12345, 12345)
    _, finding = doctor.check_status_page(page, [])
    assert (finding.level, "chown 12345:12345" in finding.remedy) == ("bad", True)


@needs_root
def test_an_inbox_that_may_not_be_reached_counts_as_missing(tmp_path: Path) -> None:
    """Watching and the ledger are checked without an error for a user who may not enter a parent folder."""
    (tmp_path / "closed" / "inbox").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)

    def part() -> None:
        assert doctor.check_watching(tmp_path / "closed" / "inbox").level == "good"
        assert list(doctor.check_ledger(tmp_path / "closed" / "inbox")) == []

    User(12345, 12345).run(part)


@pytest.mark.parametrize(
    ("problem", "level"), [("", "good"), ("Failed to find C compiler.", "warning")]
)
def test_kernels_that_cannot_be_compiled_are_said(
    monkeypatch: pytest.MonkeyPatch, problem: str, level: str
) -> None:
    """On an NVIDIA GPU the probe says whether the fused kernels are compiled, why not, and what to install."""
    from nst_daemon import probe
    from nst_daemon.engine import fused

    monkeypatch.setattr(probe, "_device_names", lambda options: ["cuda:0"])
    monkeypatch.setattr(probe, "find_device", torch.device)
    monkeypatch.setattr(fused, "problem", lambda: problem)
    ((found, subject, message, remedy),) = probe._fused_kernels({})
    assert (found, subject) == (level, "fused kernels")
    assert problem in message
    assert ("python3-dev" in remedy) is bool(problem)
