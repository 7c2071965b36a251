"""What several commands share: options, and reading the configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst_daemon import rights
from nst_daemon.config import Config, load, place_variables
from nst_daemon.names import printable
from nst_daemon.ops import completion, failures, streams
from nst_daemon.ops.layout import terminal_width
from nst_daemon.overlaps import check_separate

if TYPE_CHECKING:
    from nst_daemon.report.rerun_command import RerunCommand

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file, or the folder that contains it. Default: see `nst-daemon config path`.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
InputsOption = Annotated[
    list[Path] | None,
    typer.Option("--input", help="Folder to search for inputs; may be repeated."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting of `nst-daemon settings`; may be repeated.",
        autocompletion=completion.assignments,
    ),
]
ContentMaskOption = Annotated[
    Path | None,
    typer.Option("--content-mask", help="Mask of CONTENT: each region in one flat colour."),
]
StyleMaskOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--style-mask",
        help="Mask of a STYLE, in the colours of --content-mask. Without --content-mask: white where "
        "the STYLE applies in CONTENT. Repeat it for each STYLE, in the same order.",
    ),
]


def configured(path: Path | None) -> Config:
    """The configuration of a command. Its warning is printed."""
    loaded = load(path)
    failures.log_folders[:] = [loaded.folders.logs]
    streams.named_config[:] = [printable(str(path))] if path else []
    for warning in loaded.warnings:
        streams.notice(f"warning: {warning}", level=4)
    return loaded


def for_drops(path: Path | None) -> Config:
    """The configuration of a command that writes into the inbox."""
    loaded = configured(path)
    check_separate(loaded)
    rights.share_with_group(loaded.folders)
    rights.check_inbox(loaded.folders.inbox)
    return loaded


def show(text: Callable[[int | None], str], document: object, as_json: bool) -> None:
    """Print JSON, or the text for the width of the terminal (see `layout.terminal_width`)."""
    print(json.dumps(document, indent=2) if as_json else text(terminal_width()))


def rerun_command(config: Config, inputs: Sequence[Path]) -> RerunCommand:
    """The command that paints a result of this configuration again, from any folder."""
    from nst_daemon.report.rerun_command import RerunCommand

    options = ("--config", str(config.source)) if config.source else ()
    named = [path.resolve() for path in inputs]
    return RerunCommand(place_variables(config, os.environ), options, named)
