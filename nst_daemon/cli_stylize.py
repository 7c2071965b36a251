"""The command `nst-daemon stylize`."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args

import typer

from nst_daemon import machine
from nst_daemon.cli_help import Command
from nst_daemon.cli_options import (
    ConfigOption,
    ContentMaskOption,
    SetOption,
    StyleMaskOption,
    configured,
)
from nst_daemon.config import Config, Outputs
from nst_daemon.engine.settings import RenderSettings, StartName
from nst_daemon.errors import (
    Cancelled,
    InputError,
    NstError,
    OutOfMemory,
    PaintingError,
    PathError,
    UsageError,
)
from nst_daemon.files import check_local
from nst_daemon.job_settings import resolve_job
from nst_daemon.names import composed, printable
from nst_daemon.ops import completion, streams
from nst_daemon.ops.arguments import assignments, with_output_file
from nst_daemon.ops.output_names import (
    Extras,
    OutputFiles,
    is_folder,
    name_outputs,
    partial,
)
from nst_daemon.units import count, duration

if TYPE_CHECKING:
    from nst_daemon.api.result import Result
    from nst_daemon.api.stylizer import Stylizer
    from nst_daemon.engine.stylize import Step

#: The options whose file may be left out, with the suffix of that file.
OPTIONAL_FILES = {"--loss-plot": ".png", "--time-lapse": ".webp"}
#: The initial images that have a name.
STARTS = tuple(name for name in get_args(StartName) if name != "given")


class StylizeCommand(Command):
    """Options whose file may be left out take it only after "=", as GNU programs do: `--loss-plot=curve.png`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError for a word that may be meant as the file."""
        end = args.index("--") if "--" in args else len(args)
        for i, option in enumerate(args[:end]):
            if option in OPTIONAL_FILES:
                following = args[i + 1] if i + 1 < len(args) else "-"
                if (
                    not following.startswith("-")
                    and Path(following).suffix.lower() == OPTIONAL_FILES[option]
                ):
                    raise UsageError(
                        f"{option} is followed by {printable(following)}",
                        remedy=f"write {option}={following} for that file, or move {option} to the end",
                    )
                args[i] = f"{option}="
        return super().parse_args(ctx, args)


def stylize(  # noqa: PLR0917 (a command line, not a call)
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="CONTENT STYLE",
            help="The content picture, then the style pictures. With --style, all of them are contents. A folder "
            "stands for the pictures in it; a STYLE may also be the name of a style in the library.",
            show_default=False,
        ),
    ],
    style: Annotated[
        list[str] | None,
        typer.Option(
            "--style",
            "-s",
            metavar="STYLE",
            help="A style, for one or several contents; repeat it to blend several styles.",
            autocompletion=completion.styles,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write; its suffix chooses the format: .png, .jpg, .webp, .tif, .avif or .jxl. Or a folder, "
            "which is created. Default: CONTENT.STYLE.png in the current folder.",
        ),
    ] = None,
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
    start: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The initial image: a picture, or content, noise, mix, style or grey.",
        ),
    ] = None,
    style_weight: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            help="The share of a STYLE in a blend; repeat it for each STYLE, in their order.",
        ),
    ] = None,
    settings: SetOption = None,
    content_mask: ContentMaskOption = None,
    style_mask: StyleMaskOption = None,
    format: Annotated[
        str | None, typer.Option(help="Picture format where -o names no file.")
    ] = None,
    loss_plot: Annotated[
        str | None,
        typer.Option(metavar="[=FILE]", help="Also write the loss curve. Default: NAME.loss.png."),
    ] = None,
    time_lapse: Annotated[
        str | None,
        typer.Option(
            metavar="[=FILE]",
            help="Also write a time-lapse of the painting. Default: NAME.progress.webp.",
        ),
    ] = None,
    sidecar: Annotated[
        bool,
        typer.Option("--sidecar", help="Also write NAME.json, everything that made the picture."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print a JSON object for each picture, on one line."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and no notes.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:N or mps. Default: the first of `devices`.",
            autocompletion=completion.devices,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    config: ConfigOption = None,
) -> None:
    """Paint pictures without the daemon, and print their paths.

    One picture: nst-daemon stylize dog.jpg hokusai.jpg -o dog.png

    Several: nst-daemon stylize photos/*.jpg --style hokusai.jpg -o out/

    In a folder, a picture has the name of its content, with a number if a file of that name exists. Exit code 1: some
    of several pictures failed.
    """
    loaded = configured(config)
    contents, styles = _contents_and_styles(pictures, style or [])
    chosen = {"size": size, "preset": preset, "seed": seed, "format": format}
    wanted = assignments(settings or []) | {k: v for k, v in chosen.items() if v is not None}
    _check_start(start, wanted)
    if (content_mask or style_mask) and len(contents) > 1:
        raise UsageError("masks belong to one content", remedy="name one content")
    if output == "-":
        raise UsageError("pictures are not written to the standard output", remedy="name a file")
    references, wanted = _styles(loaded, styles, wanted, style_weight or [])
    if output is not None and not is_folder(output, contents):
        wanted = with_output_file(wanted, Path(output))
    resolved, outputs = resolve_job(loaded, wanted)
    others = [*references, *(style_mask or []), *([content_mask] if content_mask else [])]
    others += [Path(start)] if start is not None and start not in STARTS else []
    named = name_outputs(
        contents,
        output,
        f".{outputs.format}",
        styles=styles,
        extras=Extras(loss_plot, time_lapse, sidecar),
        inputs=[*contents, *others],
        overwrite=overwrite,
    )
    how = _How(
        resolved,
        outputs,
        references,
        content_mask,
        style_mask or [],
        start,
        overwrite,
        as_json,
        quiet,
    )
    for path in [*contents, *others]:
        if path.is_fifo() and path.parts[1:2] not in {("dev",), ("proc",)}:
            how.note(f"reading the pipe {path}: it waits for the program that writes into it")
    _paint_all(_stylizer(loaded, device), named, how)


@dataclass(frozen=True)
class _How:
    """What applies to every picture of a command."""

    settings: RenderSettings
    outputs: Outputs
    styles: Sequence[Path]
    content_mask: Path | None
    style_masks: Sequence[Path]
    start: str | None
    overwrite: bool
    as_json: bool
    quiet: bool

    def note(self, text: str) -> None:
        """Print a line on standard error, unless --quiet."""
        if not self.quiet:
            streams.notice(printable(text), level=6)


def _contents_and_styles(
    pictures: Sequence[str], styles: Sequence[str]
) -> tuple[list[Path], list[str]]:
    """What the command line names: contents, and styles as they are named there."""
    from nst_daemon.intake.submit import pictures_in

    if not styles:
        pictures, styles = pictures[:1], pictures[1:]
    if not styles:
        raise UsageError(
            "no style was named",
            remedy="write nst-daemon stylize CONTENT STYLE, or name the style with --style",
        )
    contents: list[Path] = []
    for name in pictures:
        path = Path("/dev/stdin" if name == "-" else name)
        check_local(path)
        inside = pictures_in(path) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"there is no image file in {printable(name)}", remedy="name others")
        contents += inside
    if "-" in pictures and sys.stdin.isatty():
        raise UsageError("- is the standard input, a terminal", remedy="name a file, or use a pipe")
    return contents, list(styles)


def _check_start(start: str | None, wanted: Mapping[str, object]) -> None:
    if start is None:
        if wanted.get("start") == "given":
            raise UsageError("start=given names no picture", remedy="use --start FILE")
        return
    given = start if start in STARTS else "given"
    if wanted.get("start", given) != given:
        raise UsageError(
            f"--start {printable(start)} and --set start={wanted['start']} contradict each other",
            remedy="remove one of them",
        )
    if given == "given" and not Path(start).exists():
        check_local(Path(start))
        raise UsageError(
            f"{printable(start)} does not exist",
            remedy=f"name a picture, or one of {', '.join(STARTS)}",
        )


def _styles(
    config: Config, styles: Sequence[str], wanted: dict[str, Any], weights: Sequence[float]
) -> tuple[list[Path], dict[str, Any]]:
    """The style pictures, and the settings with those of the styles. weights: one for each style, or none."""
    from nst_daemon.intake.library import list_styles, merge_settings
    from nst_daemon.intake.submit import styles_and_names

    library = list_styles(config.folders.styles, config.limits.max_bytes)
    if not library:
        for style in styles:
            check_local(Path(style))
            if not Path(style).exists():
                raise UsageError(
                    f"{printable(style)} does not exist", remedy="name a style picture"
                )
    paths, names = styles_and_names(styles, library)
    used = [library[composed(name)] for name in names]
    pictures = [config.folders.styles / drop.path for one in used for drop in one.pictures]
    if weights:
        if "style_weights" in wanted or len(weights) != len(styles):
            raise UsageError(
                f"--style-weight is given {len(weights)} times for {count(len(styles), 'style')}",
                remedy="give one for each STYLE, and no --set style_weights",
            )
        # Own pictures come first, then those of the library.
        shares: tuple[list[float], list[float]] = ([], [])
        for style, weight in zip(styles, weights, strict=True):
            own, named = styles_and_names([style], library)
            inside = [1.0] * len(own)
            for name in named:
                found = library[composed(name)]
                given = found.settings.get("style_weights") or [1.0] * len(found.pictures)
                inside = [float(share) for share in given]  # type: ignore[attr-defined]
            shares[bool(named)].extend(weight * share / sum(inside) for share in inside)
        wanted = {**wanted, "style_weights": shares[0] + shares[1]}
    return [*paths, *pictures], merge_settings(used, wanted, own=len(paths))


def _stylizer(config: Config, device: str | None) -> Stylizer:
    """The engine, loaded as the configuration says."""
    machine.wait_briefly()  # before torch is imported
    machine.keep_freed_memory()

    from nst_daemon.api.stylizer import Stylizer
    from nst_daemon.engine.device_names import first_device

    stylizer = Stylizer(
        network=config.model.network,
        weights=config.model.weights,
        device=device or first_device(config.devices),
        threads=machine.threads_per_worker() if config.threads == "auto" else config.threads,
        limits=config.limits,
    )
    if stylizer.device.type == "cpu":
        machine.limit_memory(config.limits.max_memory)
    return stylizer


def _paint_all(stylizer: Stylizer, named: Sequence[OutputFiles], how: _How) -> None:
    """Paint every picture. One that fails does not stop the others, unless they would fail too."""
    began, failed, done = time.monotonic(), [], 0
    several = len(named) > 1
    named[0].picture.parent.mkdir(parents=True, exist_ok=True)
    try:
        for number, files in enumerate(named, 1):
            label = printable(files.content.name)
            try:
                _paint_one(
                    stylizer, files, how, f"{number}/{len(named)} {label}" if several else label
                )
                done += 1
            except NstError as error:
                if how.as_json:
                    about = {"content": str(files.content), "error": str(error)}
                    print(json.dumps({**about, "exit_code": error.exit_code}), flush=True)
                if not several or not _concerns_one_picture(error):
                    raise
                failed.append(label)
                streams.notice(printable(str(error)))
    finally:
        if several:
            took = duration(time.monotonic() - began)
            said = f"painted {done} of {count(len(named), 'picture')} in {took}"
            how.note(f"{said}; failed: {', '.join(failed)}" if failed else said)
    if failed:
        raise typer.Exit(1)


def _concerns_one_picture(error: NstError) -> bool:
    return isinstance(error, InputError | PaintingError | OutOfMemory | PathError | UsageError)


def _paint_one(stylizer: Stylizer, files: OutputFiles, how: _How, label: str) -> None:
    """Paint one picture and write its files. Ctrl-C writes the picture so far."""
    from nst_daemon.ops.progress_bars import StepProgress
    from nst_daemon.pictures.destination import Destination

    bar = StepProgress(label, say=how.note)
    with _Interrupt() as interrupt:

        def watch(step: Step) -> bool:
            if not interrupt.painting:
                interrupt.painting = True
                if not how.quiet:
                    bar.start(how.settings)
            if not how.quiet:
                bar.update(step)
            return not interrupt.asked

        try:
            result = stylizer.stylize(
                files.content,
                how.styles,
                settings=how.settings,
                start=how.start if how.start in STARTS or how.start is None else Path(how.start),
                content_mask=how.content_mask,
                style_masks=how.style_masks,
                progress=watch,
                time_lapse=files.time_lapse is not None,
                destination=Destination(files.picture, how.outputs.format, how.outputs.depth),
            )
        finally:
            bar.stop()
    done, planned = result.iterations
    if interrupt.asked and done < planned:
        unfinished = partial(files.picture)
        result.save(unfinished, outputs=how.outputs)
        print(unfinished, flush=True)
        raise Cancelled(
            f"interrupted after {done} of {planned} iterations; the picture so far is {unfinished}"
        )
    _write(result, files, how)


def _write(result: Result, files: OutputFiles, how: _How) -> None:
    from nst_daemon.pictures.destination import write_output
    from nst_daemon.report import sidecar

    overwrite = how.overwrite
    result.save(files.picture, outputs=how.outputs, overwrite=overwrite)
    if files.loss_plot:
        result.save_loss_plot(files.loss_plot, overwrite=overwrite)
    if files.time_lapse:
        result.save_time_lapse(files.time_lapse, overwrite=overwrite)
    document = result.document(files.picture, outputs=how.outputs)
    if files.sidecar:
        write_output(files.sidecar, sidecar.encode(document), overwrite=overwrite)
    for note in result.notes:
        how.note(note)
    if how.as_json:
        others = {
            "loss_plot": files.loss_plot,
            "time_lapse": files.time_lapse,
            "sidecar": files.sidecar,
        }
        paths = {"output": str(files.picture)} | {k: str(v) for k, v in others.items() if v}
        long = ("loss_history", "calibration")
        print(json.dumps(paths | {k: v for k, v in document.items() if k not in long}), flush=True)
    else:
        print(files.picture, flush=True)


class _Interrupt:
    """Ctrl-C during a painting ends it after the iteration; a second one, or one at another time, ends the command."""

    def __init__(self) -> None:
        self.painting = self.asked = False
        self._before: Callable[[int, FrameType | None], Any] | int | None = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.painting:
            raise KeyboardInterrupt
        self.asked = True
