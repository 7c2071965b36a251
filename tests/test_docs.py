"""The documentation against the program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from nst_daemon import errors
from nst_daemon.cli import app
from tests.test_imports import modules

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its whole name ("model list")."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    """README's table has a row for each command, with each of its options."""
    row = re.search(rf"(?m)^\| `nst-daemon {name}\b.*$", README)
    assert row, f"README has no row for {name}"
    for parameter in COMMANDS[name].params:
        options = [o for o in parameter.opts if o.startswith("--")]
        if options and options != ["--config"]:
            assert any(option in row[0] for option in (*parameter.opts,)), options


def test_readme_invents_no_command_or_option() -> None:
    """Each `nst-daemon …` line of README's transcripts names a command and options that exist."""
    lines = re.findall(r"(?m)^\$ nst-daemon (.*?)(?:\s+#.*)?$", README)
    assert len(lines) >= 4
    for line in lines:
        words = line.split()
        name = next(n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS)
        known = {o for parameter in COMMANDS[name].params for o in parameter.opts}
        assert {w for w in words if w.startswith("-")} <= known, line


def test_exit_codes_are_documented() -> None:
    """README's table of exit codes lists the code of each exception, and no other."""

    def codes(cls: type[errors.NstError]) -> set[int]:
        return {cls.exit_code}.union(*(codes(sub) for sub in cls.__subclasses__()))

    table = README[README.index("| code | meaning |") :].split("\n\n")[0]
    assert {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", table)} == codes(
        errors.NstError
    ) | {0}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link and picture of a page exists."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_readme_example_paints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python example of README runs as it stands, on small pictures."""
    from benchmarks.drawings import draw_painting, draw_scene

    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    draw_scene(64, 48).save(tmp_path / "dog.jpg")
    draw_painting(64, 48).save(tmp_path / "hokusai.jpg")
    monkeypatch.chdir(tmp_path)
    # The only change: a size, and a number of iterations, that do not take a minute.
    exec(example.replace("size=512", "size=48, iterations=2"), {})
    assert (tmp_path / "painted.png").stat().st_size > 1000


def test_make_targets_exist() -> None:
    """Each `make TARGET` that a page names is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    found = set()
    for page in PAGES:
        named = set(re.findall(r"`?\bmake ([a-z-]+)`", page.read_text(encoding="utf-8")))
        named |= set(re.findall(r"(?m)^\$ make ([a-z-]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, page
        found |= named
    assert {"demo", "install"} <= found


OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_metric_is_documented() -> None:
    """The table of metrics names each metric with its labels, and no other."""
    from nst_daemon.config import Metrics as Options
    from nst_daemon.service.metrics import PrometheusMetrics

    metrics = vars(PrometheusMetrics(Options())).values()
    kinds = {
        m._name + "_total" * (m._type == "counter"): m._labelnames
        for m in metrics
        if hasattr(m, "_labelnames")
    }
    table = OPERATIONS[OPERATIONS.index("| metric |") :].split("\n\n")[0]
    found = {
        name: tuple(labels.split(",")) if labels else ()
        for name, labels in re.findall(r"`(nst_\w+)(?:\{(\w+)\})?`", table)
    }
    assert found == {name: tuple(labels) for name, labels in kinds.items()}


def test_every_variable_of_a_hook_is_documented() -> None:
    """Each JOB_ variable that a hook gets is in operations.md and in config.yaml, and no other."""
    source = (ROOT / "nst_daemon" / "service" / "hooks.py").read_text(encoding="utf-8")
    variables = set(re.findall(r'"(JOB_[A-Z]+)"', source))
    assert len(variables) >= 5
    for page in (OPERATIONS, (ROOT / "config.yaml").read_text(encoding="utf-8")):
        assert set(re.findall(r"JOB_[A-Z]+", page)) == variables


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_configuration_keys_exist(page: Path) -> None:
    """Each `section.key` and each NST_ variable that a page names is in the configuration."""
    from nst_daemon.config import documented_keys

    keys = {name for name, _, _ in documented_keys()}
    sections = "|".join({name.partition(".")[0] for name in keys if "." in name})
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)[:`]", text))
    named -= {module for module, _ in modules()}  # `service.loop` is a module, not a key
    named |= {v.lower().replace("__", ".") for v in re.findall(r"NST_([A-Z]+__[A-Z_]+)=", text)}
    assert named <= keys, page


def test_every_key_of_a_batch_is_documented() -> None:
    """README's batch file, together with the text of the module, names each key that a batch may hold."""
    from nst_daemon.intake import batch

    (example,) = re.findall(r"\$ cat night\.batch\.yaml\n(.*?)\$ nst", README, re.DOTALL)
    shown = set(re.findall(r"(?m)^(\w+):", example))
    assert shown | {"priority"} == set(batch.KEYS)
    assert "`priority` in" in OPERATIONS


def test_every_lock_is_documented() -> None:
    """CONTRIBUTING names each lock or condition of the package, by its name or its module."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pattern = r"(\w+)(?:: [\w.]+)? = (?:threading|asyncio)\.(?:R?Lock|Condition)\("
    found = [
        (name, str(path.relative_to(ROOT / "nst_daemon")))
        for path in sorted((ROOT / "nst_daemon").rglob("*.py"))
        for name in re.findall(pattern, path.read_text(encoding="utf-8"))
    ]
    assert len(found) >= 5
    assert not [(name, path) for name, path in found if name not in text and path not in text]
