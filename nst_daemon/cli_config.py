"""The commands for configuration and settings: init, config …, settings, presets."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nst_daemon.cli_help import Commands
from nst_daemon.cli_options import ConfigOption, JsonOption, show
from nst_daemon.config import Config, Examined, examine, find_file
from nst_daemon.config_problems import EVERY_KEY, ConfigKey
from nst_daemon.config_report import (
    KeyValue,
    as_yaml,
    entries,
    plain,
    preset_values,
    setting_keys,
)
from nst_daemon.engine.presets import PRESETS
from nst_daemon.errors import UsageError
from nst_daemon.job_settings import EVERY_SETTING
from nst_daemon.names import printable
from nst_daemon.ops import completion, failures, streams
from nst_daemon.ops.layout import Row, table, wrapped
from nst_daemon.overlaps import check_separate
from nst_daemon.suggestions import did_you_mean, question, similar_keys

app = Commands(help="Show and check the configuration.", no_args_is_help=True)

PresetOption = Annotated[
    str,
    typer.Option(
        help="Show the values of this preset; see `nst-daemon presets`.",
        autocompletion=completion.presets,
    ),
]


def init(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder to create or to use.", show_default=False),
    ] = Path(),
) -> None:
    """Make a root: a folder with an inbox, a style library, results and a configuration to edit."""
    from nst_daemon.new_root import make_root

    made = make_root(folder)
    print(f"made {printable(str(made.root))}:")
    for name, purpose in made.created:
        print(f"  {printable(name):<16} {purpose}")
    for path, reason in made.kept:
        streams.notice(f"{printable(path)} {reason}", level=6)
    if made.closing:
        print(f"other users of this machine can read it; to close: {made.closing}")
    here = made.root.samefile(Path.cwd())
    option = "" if here else f" -c {shlex.quote(printable(str(folder)))}"
    print("next:")
    print(f"  nst-daemon doctor{option}")
    print(f"  nst-daemon run{option}")
    print(f"  nst-daemon submit PHOTO PAINTING{option}     # in another terminal")
    configured = examine(made.config)
    if configured.config and configured.config.folders.root != made.root.resolve():
        setter = configured.origins.setter(("folders", "root"))
        root = printable(str(configured.config.folders.root))
        streams.notice(f"warning: {setter} sets another root: {root}", level=4)


@app.command("show")
def config_show(
    key: Annotated[
        str,
        typer.Argument(
            help="Key or section, such as render or render.size. Default: all.",
            autocompletion=completion.config_keys,
        ),
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the values in use, and where each comes from: the default, FILE:LINE, a variable or a preset."""
    examined, loaded = checked(config)
    found = _selected(entries(examined, loaded), key)
    show(
        lambda width: _as_document(found, key),
        {name: entry.as_json() for name, entry in found.items()},
        as_json,
    )


@app.command("check")
def config_check(
    file: Annotated[
        Path | None,
        typer.Argument(help="File, or folder that contains it. Default: the file that is read."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check the configuration, and list every problem with its line. Exit code 3 if there is one."""
    _, loaded = checked(file or config)
    check_separate(loaded)
    source = printable(str(loaded.source)) if loaded.source else "no file is read: the defaults"
    print(f"{source}: no problems")


@app.command("path")
def config_path(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the path of the configuration file that is read. Standard error says why, and what was looked for."""
    found = find_file(config, os.environ)
    path = str(found.path.absolute()) if found.path else None
    if as_json:
        looked = [{"path": str(c.path.absolute()), "outcome": c.outcome} for c in found.candidates]
        print(json.dumps({"path": path, "reason": found.reason, "candidates": looked}, indent=2))
        return
    streams.notice(found.reason if path else f"{found.reason}: the defaults are used", level=6)
    for candidate in found.candidates:
        streams.notice(printable(f"{candidate.path}: {candidate.outcome}"), level=6)
    if path:
        print(printable(path))


def checked(path: Path | None) -> tuple[Examined, Config]:
    """The configuration with its origins, after its warnings were printed.

    Raises:
        ConfigError: There is a problem. If there are several, all but the last are printed.
    """
    examined = examine(path)
    if examined.config:
        failures.log_folders[:] = [examined.config.folders.logs]
    else:
        *others, last = examined.problems
        for problem in others:
            streams.notice(str(problem.error()))
        raise last.error()
    for warning in examined.config.warnings:
        streams.notice(f"warning: {warning}", level=4)
    return examined, examined.config


def _selected(found: dict[str, KeyValue], key: str) -> dict[str, KeyValue]:
    """The entries of a key, of a section, or all."""
    chosen = {n: e for n, e in found.items() if key in {"", n, n.partition(".")[0]}}
    if not chosen:
        sections = {name.partition(".")[0] for name in found if "." in name}
        hint = question(similar_keys(key, [*found, *sections])) or EVERY_KEY
        raise UsageError(f"{printable(key)} is not a key of the configuration", remedy=hint)
    return chosen


def _as_document(found: dict[str, KeyValue], key: str) -> str:
    """YAML with the origins as comments."""
    if key in found:
        return f"{key}: {as_yaml(found[key].value)}  # {found[key].origin}"
    lines, above = [], ""
    width = max(len(entry.line) + 2 * ("." in name) for name, entry in found.items())
    width = min(width, 44)
    for name, entry in found.items():
        section = name.rpartition(".")[0]
        lines += [f"{section}:"] if section and section != above else []
        above = section
        line = ("  " if section else "") + entry.line
        lines.append(f"{line:<{width}}  # {printable(entry.origin)}")
    return "\n".join(lines)


def settings(
    key: Annotated[
        list[str] | None,
        typer.Argument(help="Settings. Default: all.", autocompletion=completion.setting_names),
    ] = None,
    preset: PresetOption = "painting",
    as_json: JsonOption = False,
) -> None:
    """List the settings that --set, job files, styles and batches take: value, range and meaning."""
    keys = setting_keys()
    for name in key or []:
        if name not in keys:
            raise UsageError(
                f"unknown setting {printable(repr(name))}",
                remedy=did_you_mean(name, keys) or EVERY_SETTING,
            )
    values = preset_values(preset)
    chosen = {name: keys[name] for name in key or keys}
    show(
        lambda width: "\n".join(
            _setting(n, k, values.get(n, k.default), width) for n, k in chosen.items()
        ),
        {name: _setting_json(k, values.get(name, k.default)) for name, k in chosen.items()},
        as_json,
    )


def _setting(name: str, key: ConfigKey, value: object, width: int | None) -> str:
    """A setting as text: its value with the preset, its allowed values and its meaning."""
    default = "" if value == key.default else f"  (default: {as_yaml(key.default)})"
    return "\n".join(
        [
            f"{name}: {as_yaml(value)}{default}",
            wrapped(f"{key.help.rstrip('.')}.", width, "    ", "    "),
            wrapped(f"Allowed: {key.allowed}.", width, "    ", "    "),
        ]
    )


def _setting_json(key: ConfigKey, value: object) -> dict[str, Any]:
    return {
        "value": plain(value),
        "default": plain(key.default),
        "allowed": key.allowed,
        "choices": list(key.choices),
        "help": key.help,
    }


def presets(
    name: Annotated[
        str,
        typer.Argument(help="Show the values of this preset.", autocompletion=completion.presets),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List the named sets of settings and their sources, or show the values of one."""
    if not name:
        rows = [Row((n, preset.summary, preset.source)) for n, preset in PRESETS.items()]
        document = {n: asdict(preset) for n, preset in PRESETS.items()}
        show(partial(table, ("preset", "description", "source"), rows), document, as_json)
        return
    values = {"preset": name, **preset_values(name)}
    preset = PRESETS[str(values["preset"])]
    told = {"summary": preset.summary, "source": preset.source, "values": values}
    lines = [f"# {name}: {preset.summary} ({preset.source})"]
    lines += [f"{setting}: {as_yaml(value)}" for setting, value in values.items()]
    show(lambda width: "\n".join(lines), {k: plain(v) for k, v in told.items()}, as_json)
