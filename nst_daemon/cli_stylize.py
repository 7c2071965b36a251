"""The command `nst-daemon stylize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nst_daemon import machine
from nst_daemon.cli_options import (
    ConfigOption,
    ContentMaskOption,
    SetOption,
    StyleMaskOption,
    configured,
)
from nst_daemon.errors import Cancelled
from nst_daemon.job_settings import resolve_job
from nst_daemon.jobs import Role
from nst_daemon.names import printable
from nst_daemon.ops import completion, streams
from nst_daemon.ops.arguments import assignments, input_record, saved_pipe, with_output_file


def stylize(  # noqa: PLR0917 (a command line, not a call)
    content: Annotated[Path, typer.Argument(help="The content picture.")],
    style: Annotated[
        list[Path],
        typer.Argument(help="Style pictures, or folders of them; several are blended."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write; its suffix chooses the format: .png, .jpg, .webp, .tif, .avif or .jxl.",
        ),
    ],
    size: Annotated[
        str | None,
        typer.Option(
            help="Longer side in pixels, `original` or `auto`.", autocompletion=completion.sizes
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Named set of settings; see `nst-daemon presets`.",
            autocompletion=completion.presets,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    settings: SetOption = None,
    content_mask: ContentMaskOption = None,
    style_mask: StyleMaskOption = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda or cuda:N. Default: the first of `devices`.",
            autocompletion=completion.devices,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace OUTPUT if it exists.")] = False,
    config: ConfigOption = None,
) -> None:
    """Paint one picture without the daemon."""
    from nst_daemon.engine.device_names import first_device
    from nst_daemon.intake.submit import style_pictures

    loaded = configured(config)
    named = {"size": size, "preset": preset, "seed": seed}
    wanted = assignments(settings or []) | {k: v for k, v in named.items() if v is not None}
    resolved, outputs = resolve_job(loaded, with_output_file(wanted, output, overwrite=overwrite))
    limit = loaded.limits.max_bytes
    content, *styles = (saved_pipe(p, limit) for p in (content, *style_pictures(style)))
    content_mask = saved_pipe(content_mask, limit) if content_mask else None
    style_mask = [saved_pipe(path, limit) for path in style_mask or ()]

    machine.wait_passively()  # before torch is imported

    from nst_daemon.ops.progress_bars import Bars
    from nst_daemon.painter import Painter
    from nst_daemon.pictures.destination import Destination

    threads = machine.threads_per_worker() if loaded.threads == "auto" else loaded.threads
    painter = Painter(
        loaded.model.network,
        loaded.model.weights,
        device=device or first_device(loaded.devices),
        threads=threads,
    )
    prepared = painter.prepare(
        content,
        styles,
        resolved,
        content_mask=content_mask,
        style_masks=style_mask,
        limits=loaded.limits,
        destination=Destination(output, outputs.format, outputs.depth),
    )
    step = None
    with Bars(enabled=True) as bars:
        try:
            for step in painter.paint(prepared):
                bars.update("", output.name, step.iteration, step.iterations)
        except KeyboardInterrupt:
            if step is None:
                raise
            # Save what was painted so far; the exit code says that it is not finished.
            output = output.with_stem(f"{output.stem}.partial")
    assert step is not None
    rendering = painter.finish(prepared, step)
    inputs = [
        input_record(Role.CONTENT, content),
        *(input_record(Role.STYLE, path) for path in styles),
    ]
    inputs += [input_record(Role.CONTENT_MASK, content_mask)] if content_mask else []
    inputs += [input_record(Role.STYLE_MASK, path) for path in style_mask]
    rendering.save(output, outputs, inputs)
    for note in rendering.notes:
        streams.notice(printable(note), level=6)
    print(output)
    if step.iteration < step.iterations and output.stem.endswith(".partial"):
        raise Cancelled(f"interrupted after {step.iteration} of {step.iterations} iterations")
