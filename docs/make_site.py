"""The hook of mkdocs.yml: pages that are generated from the code, and pages that are not in docs/.

Links are written for the repository, so that they work on GitHub. `on_page_markdown` translates them for the site.
"""

from __future__ import annotations

import inspect
import logging
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import nst_daemon
from docs.make_config import OBVIOUS
from nst_daemon.cli import app
from nst_daemon.config import Config, config_keys
from nst_daemon.config_problems import ConfigKey
from nst_daemon.config_report import as_yaml
from tests.test_imports import modules

log = logging.getLogger("mkdocs.hooks.make_site")

ROOT = Path(__file__).parent.parent
#: Pages that are not in docs/, by their path in the repository.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "measurements.md",
    "benchmarks/NOTES.md": "speed.md",
    "nst_daemon/weights/README.md": "weights-card.md",
}
#: Links to these files lead to the page that is generated from them.
GENERATED = {
    "config.yaml": "reference/configuration.md",
    "nst_daemon/cli.py": "reference/commands.md",
    "nst_daemon/engine/settings.py": "reference/settings.md",
}
SETTINGS = """\
# Settings of a picture

These settings decide how a picture looks: `--set KEY=VALUE` of `stylize` and `submit`, the keys of `dog.yaml`,
`job.yaml`, `styles/NAME.yaml` and batches, and those of `render:` in the configuration. The defaults are those of the
preset `painting`. [The objective](../objective.md) explains them with formulas and pictures.

Files and `--set` also accept `format`, `depth` and `quality`, which decide [how the picture is
written](../images.md#output).
"""
CONFIGURATION = """\
# Configuration keys

[config.yaml](../files/config.yaml) has the same text. Each key is also an environment variable:
`NST_SERVICE__SETTLE_SECONDS=5` sets `service.settle_seconds`. [The configuration](../configuration.md) has the rules.
The section `render` contains the [settings of a picture](settings.md).
"""
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the modules to the navigation."""
    (reference,) = (entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    reference.append({"Modules": [{Path(page).stem: page} for page in module_pages()]})
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, the generated pages, and the files that pages link to."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    for page, text in generated_pages().items():
        files.append(File.generated(config, page, content=text))
    files.append(
        File.generated(config, "files/config.yaml", abs_src_path=str(ROOT / "config.yaml"))
    )
    for file in list(files.documentation_pages()):
        source = source_of(file)
        for path in linked(file.content_string, source) if source else ():
            if site_path(path) not in files.src_uris and (ROOT / path).is_file():
                copy = File.generated(config, site_path(path), abs_src_path=str(ROOT / path))
                files.append(copy)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translate links between files of the repository into links between files of the site."""
    source = source_of(page.file)
    if source is None:
        return markdown
    here = posixpath.dirname(page.file.src_uri)
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]  # there is only one page in its section

    def translated(match: re.Match[str]) -> str:
        if ":" in match[1]:
            log.info("external link, not checked: %s in %s", match[1], source)
            return match[1]
        return posixpath.relpath(site_path(resolved(match[1], source)), here or ".")

    return LINK.sub(translated, markdown)


def source_of(file: File) -> str | None:
    """The path of a page in the repository; None if the page is generated."""
    path = file.abs_src_path
    return Path(path).relative_to(ROOT).as_posix() if path else None


def linked(text: str, source: str) -> Iterator[str]:
    """The files of the repository to which a page links."""
    for target in LINK.findall(text):
        if ":" not in target:
            yield resolved(target, source)


def resolved(target: str, source: str) -> str:
    """The path in the repository to which a page's link leads."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def site_path(path: str) -> str:
    """Where a file of the repository is in the site."""
    page = PAGES.get(path) or GENERATED.get(path)
    return page or (path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}")


def generated_pages() -> Mapping[str, str]:
    """The text of every page that is made from the code."""
    return {
        "reference/commands.md": "\n".join(commands_page()),
        "reference/settings.md": "\n".join(settings_page()),
        "reference/configuration.md": "\n".join(configuration_page()),
        "reference/api.md": "\n".join(api_page()),
        **module_pages(),
    }


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its whole name, such as "model list"."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        elif not command.hidden:
            yield prefix + name, command


def commands_page() -> Iterator[str]:
    """Each command with its arguments, options and defaults."""
    yield "# Commands\n"
    yield "`nst-daemon COMMAND --help` prints the same text."
    yield "All commands use the same [exit codes](../exit-codes.md).\n"
    for name, command in commands():
        context = command.make_context(name, [], resilient_parsing=True)
        pieces = " ".join(command.collect_usage_pieces(context)).upper()
        yield f"## `{name}`\n"
        yield f"{inspect.cleandoc(command.help or '')}\n"
        yield f"```\nnst-daemon {name} {re.sub('[{}]', '', pieces)}\n```\n"
        rows = [parameter_row(*p.get_help_record(context)) for p in command.params]
        if rows:
            yield "| argument or option | meaning | default |\n|---|---|---|"
            yield from rows
            yield ""


def parameter_row(declaration: str, text: str) -> str:
    """The row of one argument or option, from what `--help` shows of it."""
    plain = re.sub(r"<(?:list\[)?(\w+)[^>]*>", lambda kind: kind[1].upper(), declaration)
    text, _, extra = text.partition("  [")
    default, _, limits = extra.rstrip("]").removeprefix("default: ").partition("; ")
    shown = f"`{default}`" if default not in ("", "required") else default
    return row(f"`{plain}`", text + (f" ({limits})" if limits else ""), shown)


def settings_page() -> Iterator[str]:
    """Each setting of a picture, in the order of objective.md, with its values, its default and its meaning."""
    yield SETTINGS
    keys = config_keys()
    objective = (ROOT / "docs" / "objective.md").read_text(encoding="utf-8")
    for level, title in re.findall(r"(?m)^(##+) (.*)$", objective):
        names = [
            n for n in re.findall(r"`(\w+)`", title) if level == "###" and f"render.{n}" in keys
        ]
        if level == "##":
            section = f"## {title}\n"
        for name in names:
            yield section
            section = ""
            key = keys[f"render.{name}"]
            anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
            yield f"### `{name}`\n\n{key.help}\n"
            yield f"- Values: {key.allowed}\n- Default: `{as_yaml(key.default)}`"
            yield f"- [Details](../objective.md#{anchor})\n"


def configuration_page() -> Iterator[str]:
    """Each key of the configuration with its values, its default and its meaning."""
    yield CONFIGURATION
    sections: dict[str, list[ConfigKey]] = {}
    for key in config_keys().values():
        sections.setdefault(key.name.rpartition(".")[0], []).append(key)
    for section, keys in sections.items():
        if section != "render":
            about = type(getattr(Config(), section)).__doc__ if section else ""
            yield f"## {f'`{section}`' if section else 'Keys without a section'}\n\n{about}\n"
            yield "| key | default | meaning |\n|---|---|---|"
            for key in keys:
                meaning = key.help + (f" ({key.allowed})" if key.allowed not in OBVIOUS else "")
                yield row(f"`{key.name}`", f"`{as_yaml(key.default)}`", meaning)
            yield ""


def api_page() -> Iterator[str]:
    """The public names of the package."""
    yield "# Python API\n"
    for name in nst_daemon.__all__:
        if not name.startswith("__"):
            yield f"::: nst_daemon.{name}\n"
            if name == "RenderSettings":  # its signature would be a page of types
                yield "    options: {show_signature: false, members: false}\n"
                yield "[Settings of a picture](settings.md) describes the arguments.\n"
    yield "## The client of the REST API\n"
    yield "[The Python client](../client.md) has examples.\n"
    yield "::: nst_daemon.client.Client\n    options: {inherited_members: true}\n"
    yield "::: nst_daemon.client.ApiError\n"


def module_pages() -> dict[str, str]:
    """One page for each folder of the package, with its modules, and one for the modules at the top."""
    texts: dict[str, list[str]] = {}
    for name, path in modules():
        if path.name not in ("__init__.py", "__main__.py"):
            page = name.rpartition(".")[0] or "nst_daemon"
            # The sources of `nst_daemon.export` are in export/.
            module = name if name.startswith("export.") else f"nst_daemon.{name}"
            texts.setdefault(page, [f"# {page}\n"]).append(f"::: {module}\n")
    return {f"reference/modules/{page}.md": "\n".join(lines) for page, lines in texts.items()}


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
