"""The documentation against the program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
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
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "RESULTS.md",
    ROOT / "benchmarks" / "NOTES.md",
    ROOT / "nst_daemon" / "weights" / "README.md",
]
#: Suffixes of files with text for people, or with commands.
TEXTS = {
    "",
    ".cff",
    ".conf",
    ".html",
    ".js",
    ".json",
    ".md",
    ".py",
    ".service",
    ".sh",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
}
#: Words that come before the name of a program in a shell command.
BEFORE = re.compile(r"(?:(?:sudo(?: -u \w+| -\w+)*|nice|time|\w+=\S*) +)*")


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its whole name ("model list")."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


COMMANDS = dict(commands())


def called(text: str) -> Iterator[str]:
    """The arguments of each call of nst-daemon in a page: in blocks of commands, and in code between backticks."""
    blocks = re.findall(r"(?ms)^ *```(?:console|cron|sh|bash)\n(.*?)^ *```", text)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for code in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
        for part in re.split(r"\||&&|;| #", code):
            command = re.sub(r"^\$ |^[\d*][\d* ]+ \w+ +", "", part.strip())
            if found := re.match(r"(?:\S*/)?nst-daemon (.*)", BEFORE.sub("", command, count=1)):
                yield found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    """README's table names each command."""
    table = README[README.index("## Commands") : README.index("## Documentation")]
    assert re.search(rf"`nst-daemon {name}\b", table), f"README does not name {name}"


def test_commands_of_pages_are_found() -> None:
    """Calls are found in blocks and between backticks, with or without sudo, in pipes and in lines of cron."""
    page = "```console\n$ sudo -u nst -H nst-daemon a -x  # why\n$ ls | nst-daemon b\n```\n`nst-daemon c`"
    assert list(called(page)) == ["a -x", "b", "c"]
    assert list(called("```cron\n0 22 * * *  nst  nst-daemon once || true\n```")) == ["once"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_invent_no_command_or_option(page: Path) -> None:
    """Each call of nst-daemon in a page names a command and options that exist."""
    for line in called(page.read_text(encoding="utf-8")):
        words = line.replace("'", " ").split()
        if words[0].startswith("-") or words[0] in ("COMMAND", "…") or "…" in words[1:2]:
            continue
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), None)
        assert name, f"there is no command: {line}"
        parameters = COMMANDS[name].params
        known = {o for p in parameters for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        options = {w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)}
        assert options <= known, line


def test_exit_codes_are_documented() -> None:
    """The page of exit codes lists the code of each exception, 0 and that of `once`, and no other."""

    def codes(cls: type[errors.NstError]) -> set[int]:
        return {cls.exit_code}.union(*(codes(sub) for sub in cls.__subclasses__()))

    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    table = page[page.index("| code | meaning |") :].split("\n\n")[0]
    assert {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", table)} == codes(
        errors.NstError
    ) | {0, errors.LEFT_OVER}


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text(encoding="utf-8"))
    found: list[str] = []
    for heading in re.findall(r"(?m)^#+ +(.*?) *$", text):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
        found.append(f"{slug}-{count}" if count else slug)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link and picture of a page exists, and so does the heading that it names."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if target.startswith(("http:", "https:", "mailto:")):
            assert re.match(r"https://[\w.-]+\.\w+(/|$)", target), link
            continue
        file = page.parent / target if target else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_lists_and_tables_look_the_same_on_github_and_in_the_site(page: Path) -> None:
    """Lists follow an empty line or a heading, and what is inside of an item is indented by four spaces."""
    text = re.sub(r"(?ms)^( *)```.*?^ *```", r"\1```", page.read_text(encoding="utf-8"))
    lines = ["", *text.splitlines()]
    item = re.compile(r" *([-*]|\d+\.) ")
    for before, line in pairwise(lines):
        inside = re.match(r" +(?=[-*] |\d+\. |\||```|!\[)", line)
        assert not inside or len(inside[0]) % 4 == 0, line
        if item.match(line) and before.strip() and not item.match(before):
            assert before.startswith(("#", " ")), line
        if line.startswith("|") and not before.startswith("|"):
            assert not before.strip() or before.startswith(("#", "<!--")), line


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs.yml names each page in docs/."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in navigation, f"add {page.name} to nav in mkdocs.yml"


#: An installer that is given our name, or our name with an extra.
FROM_PYPI = re.compile(
    r"(?:pip3?|pipx|uv tool) install\b(?:(?!--no-index)[^\n`|;&#])*"
    r"(?<!--reinstall-package)[ '\"]nst[-_]daemon(?![\w/.*-])"
    r"|\bnst[-_]daemon\[[a-z]"
)


def test_commands_that_install_from_pypi_are_found() -> None:
    """A command that takes our name from an index is found; paths, files and folders of wheels are not."""
    for command in (
        "pip install nst-daemon",
        "pip3 install -U 'nst-daemon'",
        "python -m pip install 'nst-daemon[web]'",
        "pipx install nst-daemon==1.0",
        "uv tool install --with onnxruntime nst-daemon",
    ):
        assert FROM_PYPI.search(command), command
    for command in (
        "pip install ./nst-daemon",
        "pip install nst_daemon-1.0-py3-none-any.whl",
        "pip install --no-index --find-links wheels nst-daemon",
        "uv tool install --reinstall-package nst-daemon ./",
        "pip install . && nst-daemon doctor",
    ):
        assert not FROM_PYPI.search(command), command


def test_nothing_says_to_install_our_name_from_pypi() -> None:
    """No page, message, unit or recipe installs `nst-daemon` from PyPI, where the name is not ours yet."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    allowed = {"pyproject.toml", "tests/test_docs.py"}  # its extra `dev` has the other extras
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or name in allowed or path.suffix not in TEXTS or not path.is_file():
            continue
        found = FROM_PYPI.search(path.read_text(encoding="utf-8", errors="replace"))
        assert not found, f"{name}: {found[0]}"


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
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = page[page.index("| metric |") :].split("\n\n")[0]
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
    from nst_daemon.config import config_keys

    keys = set(config_keys())
    sections = "|".join({name.partition(".")[0] for name in keys if "." in name})
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)[:`]", text))
    named -= {module for module, _ in modules()}  # `service.loop` is a module, not a key
    named |= {v.lower().replace("__", ".") for v in re.findall(r"NST_([A-Z]+__[A-Z_]+)=", text)}
    assert named <= keys, page


def test_every_key_of_a_batch_is_documented() -> None:
    """The table of batch keys lists each key that a batch may have, and the example uses only those."""
    from nst_daemon.intake import batch

    page = (ROOT / "docs" / "job-files.md").read_text(encoding="utf-8")
    table = page[page.index("## Batch files") :]
    assert re.findall(r"(?m)^\| `(\w+)` \|", table) == list(batch.KEYS)
    example = (ROOT / "docs" / "batches.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"\$ cat night\.batch\.yaml\n(.*?)\$ nst", example, re.DOTALL)
    assert set(re.findall(r"(?m)^(\w+):", shown)) <= set(batch.KEYS)


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


def test_the_pictures_of_pages_do_not_wait_for_a_daemon_that_has_ended() -> None:
    """`make docs-images` ends with a message if its daemon cannot start."""
    from docs.make_pages import wait_for

    with subprocess.Popen(["false"]) as ended:
        ended.wait()
        with pytest.raises(SystemExit, match="the daemon ended with status 1"):
            wait_for(lambda: False, ended)
