"""Which part of the package may import which, and which modules must not load heavy libraries.

`python -m docs.make_design` writes the tables of docs/design.md from `ALLOWED`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nst_daemon"
HEAVY = (
    "torch",
    "torchvision",
    "onnxruntime",
    "onnx",
    "matplotlib",
    "PIL",
    "numpy",
    "ray",
    "triton",
)

LEAVES = {"errors", "extras", "jobs", "machine", "names", "units"}
#: The modules with which every part may read and write files.
FILES = {"digests", "files", "mounts", "publishing"}
#: What each part of the package may import of ours. A module belongs to the part with the longest matching prefix.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "jobs": set(),
    "machine": set(),
    "names": set(),
    "extras": set(),
    "units": set(),
    "unexpected": {"errors", "names"},
    "files": LEAVES | {"names"},
    "digests": {"files", "intake.ignore"},
    "identity": {"engine.settings", "jobs"},
    "publishing": LEAVES | {"digests", "files", "names", "pictures.output_formats"},
    "mounts": {"files"},
    "strict_yaml": {"errors", "names", "units"},
    "ledger_file": LEAVES | FILES,
    "rights": {"config", "errors", "files", "ledger_file", "names"},
    "ledger_reader": LEAVES | FILES | {"ledger_file", "rights"},
    "ledger_figures": {"jobs", "ledger_reader"},
    "ledger_listing": {"jobs", "ledger_reader", "names"},
    "tokens": {"config", "errors", "files", "names", "rights"},
    "ledger": LEAVES | FILES | {"ledger_file", "ledger_reader"},
    "intake.ignore": set(),
    "intake": LEAVES
    | FILES
    | {
        "strict_yaml",
        "identity",
        "engine.settings",
        "intake",
        "pictures.camera_raw",
        "pictures.formats",
        "pictures.jxl.frames",
        "pictures.output_formats",
        "pictures.tiff.entries",
        "suggestions",
        "unexpected",
    },
    "active_hours": {"errors"},
    "suggestions": set(),
    "key_types": {"pictures.output_formats", "units"},
    "variables": {"config_problems", "errors", "key_types", "names", "strict_yaml", "suggestions"},
    "config_paths": {"errors", "names"},
    "config_problems": {
        "errors",
        "key_types",
        "names",
        "pictures.output_formats",
        "suggestions",
    },
    "config_search": {"errors", "names", "strict_yaml", "suggestions", "variables"},
    "config_sections": {"key_types", "pictures.formats", "pictures.output_formats"},
    "config": {
        "active_hours",
        "addresses",
        "config_paths",
        "config_problems",
        "config_search",
        "config_sections",
        "engine.device_names",
        "engine.presets",
        "engine.settings",
        "errors",
        "key_types",
        "names",
        "pictures.output_formats",
        "strict_yaml",
        "variables",
    },
    "config_report": {
        "config",
        "config_problems",
        "engine.presets",
        "engine.settings",
        "pictures.output_formats",
    },
    "new_root": {"config", "config_search", "errors", "files", "names", "rights"},
    "addresses": {"errors"},
    "job_settings": {
        "config",
        "engine.settings",
        "errors",
        "names",
        "pictures.output_formats",
        "suggestions",
        "units",
    },
    "pictures.formats": {"suggestions"},
    "pictures.output_formats": {"errors", "names"},
    "pictures": LEAVES | FILES | {"pictures", "suggestions"},
    "overlaps": {"config", "errors", "mounts", "names"},
    "engine": LEAVES | FILES | {"engine", "key_types", "pictures", "suggestions"},
    "weights_file": LEAVES | FILES | {"engine.networks", "suggestions"},
    "export": LEAVES | FILES | {"engine", "export", "managed_process", "pictures", "weights_file"},
    "painter": LEAVES
    | FILES
    | {"config", "engine", "export", "pictures", "report.sidecar", "weights_file"},
    "api": LEAVES
    | FILES
    | {
        "api",
        "config",
        "engine",
        "intake.submit",
        "job_settings",
        "ops.progress_bars",
        "painter",
        "pictures",
        "report",
        "suggestions",
        "workers.process.recorder",
    },
    "weights": set(),
    "probe": {
        "errors",
        "engine",
        "export",
        "machine",
        "painter",
        "pictures",
        "units",
        "unexpected",
        "weights_file",
    },
    "samples": set(),
    "report": LEAVES | FILES | {"pictures", "report"},
    "ops": LEAVES
    | FILES
    | {
        "intake.batch",
        "intake.dropped",
        "ledger_figures",
        "ledger_listing",
        "ledger_reader",
        "report.sidecar",
        "rights",
        "config",
        "config_report",
        "engine.presets",
        "engine.settings",
        "intake.archived",
        "intake.drops",
        "intake.expansion",
        "intake.library",
        "intake.pairing",
        "intake.settle",
        "intake.submit",
        "job_settings",
        "managed_process",
        "notify_process",
        "overlaps",
        "ops",
        "pictures.destination",
        "pictures.formats",
        "pictures.output_formats",
        "pictures.proportions",
        "service.live_status",
        "service.progress_estimate",
        "strict_yaml",
        "suggestions",
        "tokens",
        "unexpected",
        "weights_file",
        "web.options",
    },
    "managed_process": set(),
    "notify_process": {"errors", "extras", "managed_process", "names", "report"},
    "workers.messages": LEAVES | {"config", "engine.settings"},
    "workers.executor": LEAVES | {"config", "workers"},
    "workers.supervised": LEAVES | {"workers.executor", "workers.messages"},
    "workers.local": LEAVES
    | {"engine.device_names", "managed_process", "workers.messages", "workers.supervised"},
    "workers.picture_check": LEAVES
    | {"config", "workers.local", "workers.messages", "workers.supervised"},
    # What runs on the daemon's side of a cluster and in its actors: as light as the daemon, and where torch is needed
    # it starts a process.
    "workers.ray": LEAVES
    | FILES
    | {
        "config",
        "managed_process",
        "workers.executor",
        "workers.messages",
        "workers.local",
        "workers.ray",
        "workers.supervised",
    },
    "workers": LEAVES
    | FILES
    | {
        "config",
        "managed_process",
        "painter",
        "engine",
        "export",
        "pictures",
        "report",
        "unexpected",
        "workers",
    },
    "client": {"client", "errors", "extras", "jobs", "names", "web.models"},
    "web.options": {"addresses", "config", "errors", "extras", "tokens"},
    "web": LEAVES
    | FILES
    | {
        "ledger",
        "ledger_figures",
        "ledger_listing",
        "ledger_reader",
        "addresses",
        "config",
        "config_report",
        "intake",
        "ops",
        "job_settings",
        "engine.presets",
        "engine.settings",
        "key_types",
        "pictures",
        "report",
        "service.live_status",
        "suggestions",
        "tokens",
        "unexpected",
        "weights_file",
        "web",
    },
    "service": LEAVES
    | FILES
    | {
        "ledger",
        "ledger_file",
        "ledger_reader",
        "rights",
        "config",
        "active_hours",
        "addresses",
        "intake",
        "ops",
        "service",
        "managed_process",
        "notify_process",
        "overlaps",
        "unexpected",
        "workers.picture_check",
        "workers.executor",
        "weights_file",
        "web.options",
        "identity",
        "job_settings",
        "engine.settings",
        "workers.messages",
    },
}
#: The entry points may import everything, but heavy parts only inside functions.
ENTRY = {
    "cli",
    "cli_config",
    "cli_help",
    "cli_jobs",
    "cli_model",
    "cli_notify",
    "cli_options",
    "cli_stylize",
    "cli_token",
    "__main__",
    "__init__",
}
LAZY_IN_ENTRY = ("api", "engine", "export", "painter", "report", "samples", "workers", "ops.doctor")
LIGHT = [
    "client",
    "engine.device_names",
    "cli",
    "cli_config",
    "cli_model",
    "config",
    "engine.presets",
    "engine.settings",
    "errors",
    "files",
    "identity",
    "intake.claim",
    "intake.expansion",
    "intake.pairing",
    "intake.settle",
    "intake.watch",
    "jobs",
    "ledger",
    "ledger_reader",
    "machine",
    "managed_process",
    "service.loop",
    "service.status_page",
    "service.supervisor",
    "workers.picture_check",
    "workers.executor",
    "weights_file",
    "workers.local",
    "workers.messages",
    "workers.ray.actor",
    "workers.ray.driver",
    "workers.ray.executor",
]


def modules() -> list[tuple[str, Path]]:
    """Every module of ours as (name without `nst_daemon.`, file)."""
    found = []
    for base, prefix in ((PACKAGE, ""), (ROOT / "export", "export.")):
        for path in sorted(base.rglob("*.py")):
            name = prefix + ".".join(path.relative_to(base).with_suffix("").parts)
            found.append((name.removesuffix(".__init__") or "__init__", path))
    return found


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules of ours that a file imports, without the leading `nst_daemon.`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {n.removeprefix("nst_daemon.") for n in names if n.startswith("nst_daemon.")}


def within(name: str, part: str) -> bool:
    """True if `name` is the part, or a module in it."""
    return name == part or name.startswith(part + ".")


def part_of(name: str) -> str:
    """The key of ALLOWED that a module belongs to."""
    parts = [part for part in ALLOWED if within(name, part)]
    assert parts, f"{name} belongs to no part: add one to ALLOWED in {__name__}"
    return max(parts, key=len)


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_run_one_way(name: str, path: Path) -> None:
    """No module imports from a part that its own part may not import."""
    if name in ENTRY:
        heavy = {i for i in imported(path, top_level_only=True) if i.startswith(LAZY_IN_ENTRY)}
        # The settings are torch-free, and the command line shows them.
        assert not {i for i in heavy if not i.startswith(("engine.settings", "engine.presets"))}
        return
    allowed = ALLOWED[part_of(name)] | {"__version__"}
    wrong = {i for i in imported(path) if not any(within(i, part) for part in allowed)}
    assert not wrong, f"{name} must not import {sorted(wrong)}"


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_stay_light(name: str) -> None:
    """Importing a module of the daemon's process loads neither torch nor any other heavy library."""
    code = f"import sys, nst_daemon.{name}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_check_of_pictures_needs_no_torch() -> None:
    """The process that decodes the pictures of drops does not load torch: it starts fast and stays small."""
    code = "import sys, nst_daemon.workers.process.picture_check\nprint({'torch', 'onnxruntime'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    """Importing all modules prints nothing, writes no file and starts no thread."""
    names = [f"nst_daemon.{name}" for name, _ in modules() if name not in ENTRY] + ["nst_daemon"]
    code = (
        "import importlib, os, threading\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert threading.active_count() == 1, (name, threading.enumerate())\n"
        "    assert os.listdir('.') == [], (name, os.listdir('.'))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_onnxruntime_is_imported_in_one_place() -> None:
    """Only `load_onnxruntime`, which first tells it to report nothing to its maker, imports onnxruntime."""
    named = [path.name for _, path in modules() if "import onnxruntime" in path.read_text("utf-8")]
    assert named == ["onnx_session.py"]
    code = (
        "import os, sys\n"
        "os.environ.pop('ORT_DISABLE_TELEMETRY', None)\n"
        "from nst_daemon.engine.onnx_session import load_onnxruntime\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "load_onnxruntime()\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"


def test_image_files_are_decoded_in_one_place() -> None:
    """Only nst_daemon.pictures calls decoders: limits, colours and orientation are the same for every file."""
    libraries = "imagecodecs|tifffile|pillow_heif|rawpy|cv2|imageio"
    decoders = re.compile(
        rf"Image\.open\(|ImageFile\b|^\s*(import|from) ({libraries})\b", re.MULTILINE
    )
    others = [path for name, path in modules() if not within(name, "pictures")]
    assert not [path for path in others if decoders.search(path.read_text(encoding="utf-8"))]


def test_files_and_classes_stay_small() -> None:
    """No module has more than 600 lines, and no class more than 350."""
    large = []
    for name, path in modules():
        text = path.read_text(encoding="utf-8")
        large += [name] if text.count("\n") > 600 else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= 350:
                large.append(f"{name}.{node.name}")
    assert not large


def test_class_names_are_unique() -> None:
    """No two classes of the package have the same name."""
    places: dict[str, set[str]] = {}
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, set()).add(name)
    assert not {name: found for name, found in places.items() if len(found) > 1}
