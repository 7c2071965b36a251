"""The commands `nst-daemon model …`: list, download and convert the weights of the network."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nst_daemon.cli_help import Commands
from nst_daemon.cli_options import JsonOption, show
from nst_daemon.ops import completion

app = Commands(help="List, download and convert the weights of the network.", no_args_is_help=True)

NetworkOption = Annotated[
    str, typer.Option(help="vgg19, vgg16 or efficientnet_b0.", autocompletion=completion.networks)
]


@app.command("list")
def model_list(as_json: JsonOption = False) -> None:
    """List the weights, and mark those that `weights: auto` uses."""

    from nst_daemon.ops.layout import Row, table
    from nst_daemon.weights_file import list_models

    models = list_models()
    rows = [
        Row(
            (
                model.name,
                model.network,
                "yes" if model.automatic else "",
                model.sha256[:12],
                model.note if model.present else "not on this machine",
                model.path,
            )
        )
        for model in models
    ]
    headings = ("weights", "network", "used by auto", "SHA-256", "note", "file")
    show(
        partial(table, headings, rows),
        [{**asdict(model), "path": str(model.path)} for model in models],
        as_json,
    )


@app.command("fetch")
def model_fetch(
    source: Annotated[
        str | None,
        typer.Argument(help="URL of a mirror, or a file. Default: torchvision's URL."),
    ] = None,
    network: NetworkOption = "vgg19",
) -> None:
    """Download the ImageNet weights into torchvision's cache. An interrupted download is resumed."""
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    from nst_daemon.export.fetch import fetch
    from nst_daemon.weights_file import check_network

    check_network(network)  # before a progress bar is shown
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(network, total=None)
        found = fetch(
            network,
            source,
            progress=lambda done, total: bar.update(task, completed=done, total=total or None),
        )
    print(found.path)


@app.command("import")
def model_import(
    file: Annotated[Path, typer.Argument(help="A .pth, .safetensors, .mat or .h5 file.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write. Default: the name of FILE with .safetensors, in the current folder.",
        ),
    ] = None,
    network: NetworkOption = "vgg19",
    layout: Annotated[
        str,
        typer.Option(
            help="auto, torchvision or caffe: the layout of a file with keys `features.…`."
        ),
    ] = "auto",
) -> None:
    """Convert weights of other programs to a file for `model.weights` in the configuration."""
    from nst_daemon.export.layouts import import_weights

    target = output or Path(file.with_suffix(".safetensors").name)
    print(import_weights(file, target, network=network, layout=layout).path)
