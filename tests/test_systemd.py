"""The units, and what `make install` puts in place."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nst_daemon import config
from tests.test_package import tracked

ROOT = Path(__file__).parent.parent
UNITS = ("nst-daemon.service", "nst-batch.service", "nst-batch.timer", "nst-nvidia.service")
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that exists, so that `verify` has nothing to say about that."""
    for name in UNITS:
        text = (ROOT / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/local/bin/nst-daemon", "/bin/true"))
    return tmp_path


def analyze(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on units in a folder."""
    assert ANALYZE is not None
    command = [ANALYZE, "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def section(text: str, first: str) -> str:
    """A unit from the line that begins with `first` to the end of its service."""
    return text[text.index(first) :].partition("\n[Install]")[0].strip()


@needs_systemd
def test_units_are_clean(units: Path) -> None:
    """`systemd-analyze verify` accepts every unit and says nothing."""
    done = analyze("verify", "--man=no", *(f"./{name}" for name in UNITS), cwd=units)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("unit", ["nst-daemon.service", "nst-batch.service"])
@pytest.mark.parametrize(("drop_in", "most"), [(None, 1.6), ("cpu-only.conf", 1.2)])
def test_services_are_confined(units: Path, unit: str, drop_in: str | None, most: float) -> None:
    """The exposure is at most 1.6 with the GPU left possible, and at most 1.2 with the drop-in for CPUs."""
    if drop_in:
        (units / f"{unit}.d").mkdir()
        shutil.copy(ROOT / "systemd" / drop_in, units / f"{unit}.d")
    threshold = f"--threshold={10 * most:.0f}"
    done = analyze("security", "--offline=true", threshold, f"./{unit}", cwd=units)
    assert done.returncode == 0, done.stdout
    assert ("✗ PrivateDevices=" in done.stdout) == (drop_in is None)
    strict = analyze("security", "--offline=true", "--threshold=1", f"./{unit}", cwd=units)
    assert strict.returncode != 0, "the threshold is really looked at"


@needs_systemd
@pytest.mark.parametrize("unit", ["nst-daemon.service", "nst-batch.service"])
def test_results_for_everybody_are_a_drop_in(units: Path, unit: str) -> None:
    """A service closes its root to other users; the drop-in opens it, and systemd accepts it without a complaint."""
    text = (units / unit).read_text()
    assert {"UMask=0007", "StateDirectoryMode=2750"} <= set(text.splitlines())
    (units / f"{unit}.d").mkdir()
    shutil.copy(ROOT / "systemd" / "public-results.conf", units / f"{unit}.d")
    done = analyze("verify", "--man=no", f"./{unit}", cwd=units)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_status_page_opens_little(units: Path) -> None:
    """The drop-in for the status page is clean, lets this machine's own addresses in, and costs at most 0.8."""
    folder = units / "nst-daemon.service.d"
    folder.mkdir()
    shutil.copy(ROOT / "systemd" / "status-page.conf", folder)
    done = analyze("verify", "--man=no", "./nst-daemon.service", cwd=units)
    assert (done.returncode, done.stderr) == (0, "")
    done = analyze(
        "security", "--offline=true", "--threshold=24", "./nst-daemon.service", cwd=units
    )
    assert done.returncode == 0, done.stdout
    for line in ("✗ PrivateNetwork=", "✗ RestrictAddressFamilies=~AF_(INET|INET6)"):
        assert line in done.stdout


def examples() -> list[tuple[str, str]]:
    """The variables of systemd/environment and of the drop-ins, with the values that they show."""
    text = (ROOT / "systemd" / "environment").read_text()
    lines = [line[1:] for line in text.splitlines() if re.match(r"#[A-Z_]+=", line)]
    for path in sorted((ROOT / "systemd").glob("*.conf")):
        lines += re.findall(r"^#?Environment=(.+)$", path.read_text(), re.MULTILINE)
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


@pytest.mark.parametrize(("name", "value"), examples())
def test_each_example_of_the_environment_works(name: str, value: str, tmp_path: Path) -> None:
    """Each variable that the examples show is a setting, and `run` accepts its value as it stands."""
    root = {"NST_FOLDERS__ROOT": str(tmp_path)}
    loaded = config.load(ROOT / "config.yaml", {**root, name: value})
    assert not loaded.warnings
    plain = config.load(ROOT / "config.yaml", root)
    assert loaded != plain or value == ""
    command = [sys.executable, "-m", "nst_daemon", "once", "--config", str(ROOT / "config.yaml")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NST_")}
    done = subprocess.run(
        command,
        env={**environment, **root, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if " warning " in line]


def test_the_examples_are_found() -> None:
    """The test above sees the variables of the environment file and of the drop-in for machines without a GPU."""
    names = [name for name, _ in examples()]
    assert names == [
        "NST_DEVICES",
        "NST_LOG__LEVEL",
        "NST_STATUS_PAGE_TOKEN",
        "NST_NOTIFY__URLS",
        "NST_DEVICES",
    ]


def test_extras_are_installed_on_request() -> None:
    """`make install EXTRAS=web` asks pip for that extra, and without it for none."""
    for variables, wanted in (((), '"."'), (("EXTRAS=web",), '".[web]"')):
        command = ["make", "--dry-run", "install", *variables]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert re.search(rf"program\.sh install .* --quiet +{re.escape(wanted)}\n", said)


def test_both_services_are_confined_alike() -> None:
    """Limits, folders, devices and hardening of the nightly service are those of the daemon."""
    daemon, batch = ((ROOT / "systemd" / name).read_text() for name in UNITS[:2])
    assert section(daemon, "KillMode=") == section(batch, "KillMode=")


@pytest.mark.parametrize("unit", ["nst-daemon.service", "nst-batch.service"])
def test_starts_by_hand_are_not_limited(unit: str) -> None:
    """No number of starts locks a service; memory is limited, and a worker that is killed does not stop the service."""
    lines = (ROOT / "systemd" / unit).read_text().splitlines()
    assert "StartLimitIntervalSec=0" in lines[: lines.index("[Service]")]
    assert not [line for line in lines if line.startswith(("StartLimitBurst=", "MemoryHigh="))]
    assert {"MemoryMax=90%", "OOMPolicy=continue", "OOMScoreAdjust=-100"} <= set(lines)


def test_only_mistakes_of_the_administrator_prevent_a_restart() -> None:
    """The daemon is restarted after every error except wrong usage and an invalid configuration."""
    lines = (ROOT / "systemd" / "nst-daemon.service").read_text().splitlines()
    assert {"Restart=on-failure", "RestartSec=30s", "RestartPreventExitStatus=2 3"} <= set(lines)


def test_what_breaks_painting_is_not_asked_for() -> None:
    """No unit and no drop-in sets what PyTorch or NVIDIA's driver cannot live with."""
    files = list((ROOT / "systemd").glob("*"))
    assert {path.name for path in files} >= set(UNITS)
    for path in files:
        lines = path.read_text().splitlines()
        assert not [
            line for line in lines if line.startswith(("MemoryDenyWriteExecute=", "ProcSubset="))
        ], path.name
        assert sum(line.startswith("ReadWritePaths=") for line in lines) == 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DESTDIR that `make install` has filled from a copy of the tree; the dependencies are borrowed."""
    folder = tmp_path_factory.mktemp("install")
    for path in tracked():
        copy = folder / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)
    command = ["make", "install", f"DESTDIR={folder}/dest", "PREFIX=/opt/nst"]
    done = subprocess.run(
        [*command, f"PYTHON={sys.executable}", "PIP_OPTIONS=--no-deps"],
        cwd=folder / "source",
        capture_output=True,
        text=True,
        check=False,
        umask=0o077,
    )
    assert done.returncode == 0, done.stderr
    (site,) = (folder / "dest/opt/nst/lib/nst-daemon/lib").glob("python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("-packages")]
    (site / "borrowed.pth").write_text("\n".join(libraries))
    return folder / "dest"


def test_an_installation_leaves_nothing_in_the_checkout(installed: Path) -> None:
    """After `make install` the checkout has the files that it had: others would be root's, and stop `make test`."""
    source = installed.parent / "source"
    left = {path.relative_to(source) for path in source.rglob("*") if not path.is_dir()}
    assert left == {path.relative_to(ROOT) for path in tracked()}


def test_the_installed_program_starts(installed: Path, tmp_path: Path) -> None:
    """The launcher below DESTDIR runs the installed package, also after everything was moved somewhere else."""
    moved = tmp_path / "moved"
    shutil.copytree(installed, moved, symlinks=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["NST_FOLDERS__ROOT"] = str(tmp_path / "nst")
    for place in (installed, moved):
        done = subprocess.run(
            [place / "opt/nst/bin/nst-daemon", "status", "--json"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**environment, "NST_CONFIG": str(place / "etc/nst-daemon/config.yaml")},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["running"] is False
        python = place / "opt/nst/lib/nst-daemon/bin/python"
        code = "import nst_daemon; print(nst_daemon.__file__)"
        where = subprocess.run(
            [python, "-P", "-c", code], capture_output=True, text=True, env=environment, check=True
        )
        assert where.stdout.startswith(str(place))


def test_everything_is_in_place(installed: Path) -> None:
    """Units name the prefix, the configuration the system's folder; a second install keeps what was changed."""
    unit = (installed / "opt/nst/lib/systemd/system/nst-daemon.service").read_text()
    assert "ExecStart=/opt/nst/bin/nst-daemon run --config /etc/nst-daemon/config.yaml" in unit
    assert "/usr/local" not in unit
    assert (
        "\n  root: /var/lib/nst-daemon\n" in (installed / "etc/nst-daemon/config.yaml").read_text()
    )
    there = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()}
    assert there >= {
        *(f"opt/nst/lib/systemd/system/{unit}" for unit in UNITS),
        "opt/nst/lib/sysusers.d/nst-daemon.conf",
        "opt/nst/lib/tmpfiles.d/nst-daemon.conf",
        "opt/nst/share/nst-daemon/alerts.yaml",
        "opt/nst/share/nst-daemon/cpu-only.conf",
        "opt/nst/share/nst-daemon/grafana.json",
        "opt/nst/share/nst-daemon/notify.conf",
        "opt/nst/share/nst-daemon/public-results.conf",
        "opt/nst/share/nst-daemon/status-page.conf",
        "etc/nst-daemon/environment",
    }


def test_all_users_can_read_what_is_installed(installed: Path) -> None:
    """An installation with umask 077 can be read by every user, except the file for secrets."""
    made = [path for top in ("opt", "etc") for path in (installed / top).rglob("*")]
    closed = [p for p in made if p.stat().st_mode & 0o004 == 0 and p.name != "borrowed.pth"]
    assert [str(path.relative_to(installed)) for path in closed] == ["etc/nst-daemon/environment"]


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="there is no systemd-sysusers")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and their folders")
def test_users_and_folders(installed: Path, tmp_path: Path) -> None:
    """systemd makes the user, and folders that only the group can enter and that hand it on; opened results stay."""
    lib, system = installed / "opt/nst/lib", tmp_path / "usr/lib"
    (tmp_path / "etc").mkdir()
    for kind in ("sysusers", "tmpfiles"):
        (system / f"{kind}.d").mkdir(parents=True)
        shutil.copy(lib / f"{kind}.d/nst-daemon.conf", system / f"{kind}.d")
    create = ["systemd-tmpfiles", f"--root={tmp_path}", "--create"]
    for command in (["systemd-sysusers", f"--root={tmp_path}"], create):
        subprocess.run(command, check=True, capture_output=True)
    assert "nst:" in (tmp_path / "etc/passwd").read_text()
    root = tmp_path / "var/lib/nst-daemon"
    closed = dict.fromkeys(("inbox", "styles", "results", "done", "failed", "state"), 0o2770)
    assert {p.name: p.stat().st_mode & 0o7777 for p in root.iterdir()} == closed
    assert root.stat().st_mode & 0o7777 == 0o2750
    (root / "results").chmod(0o2775)
    (root / "inbox").chmod(0o755)  # as root makes it
    subprocess.run(create, check=True, capture_output=True)  # as at each boot
    assert (root / "inbox").stat().st_mode & 0o7777 == 0o2770
    assert (root / "results").stat().st_mode & 0o7777 == 0o2775


def allowed_calls(unit: str) -> set[str]:
    """The system calls that a unit's SystemCallFilter lets through."""
    assert ANALYZE is not None

    def members(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        command = [ANALYZE or "", "--no-pager", "syscall-filter", name]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        words = [line.strip() for line in listed.splitlines()[1:]]
        return set().union(*(members(w) for w in words if w and not w.startswith("#")))

    found: set[str] = set()
    for line in unit.splitlines():
        if line.startswith("SystemCallFilter="):
            word = line.partition("=")[2]
            found = found - members(word[1:]) if word.startswith("~") else found | members(word)
    return found


@needs_systemd
@pytest.mark.slow
@pytest.mark.timeout(900)  # each call is looked at twice
@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_the_filter_lets_the_daemon_work(tmp_path: Path, model_cache: Path) -> None:
    """Every system call of a real run, painting included, is one that the unit allows, and none goes to the network."""
    from benchmarks.drawings import draw_painting, draw_scene

    inbox = tmp_path / "inbox"
    inbox.mkdir()
    draw_scene(64, 48).save(inbox / "dog.content.png")
    draw_painting(64, 48).save(inbox / "dog.style.png")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "cache").symlink_to(model_cache)
    settings = {
        "NST_FOLDERS__ROOT": str(tmp_path),
        "NST_RENDER__SIZE": "48",
        "NST_RENDER__ITERATIONS": "2",
        "NST_SERVICE__SETTLE_SECONDS": "0.1",
        "NST_DEVICES": "cpu",
    }
    silencers = (
        "ORT_DISABLE_TELEMETRY",
        "CI",
    )  # what keeps onnxruntime from reporting to its maker
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "--signal=none", "-o", str(trace)]
    done = subprocess.run(
        [*command, sys.executable, "-m", "nst_daemon", "once"],
        env={k: v for k, v in os.environ.items() if k not in silencers} | settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip("nothing can be traced here")
    assert done.returncode == 0, done.stderr
    text = trace.read_text(errors="replace")
    used = set(re.findall(r"(?m)^\d+ +([a-z_0-9]+)\(", text))
    unit = (ROOT / "systemd" / "nst-daemon.service").read_text()
    # SQLite gives its files to the owner of the folder, and only where it runs as root.
    assert used - allowed_calls(unit) <= ({"fchown"} if os.geteuid() == 0 else set())
    assert len(used) > 50
    assert set(re.findall(r"socket\((AF_\w+)", text)) <= {"AF_UNIX"}
