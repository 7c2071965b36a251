"""The commands. Exceptions become exit codes in `main`, and nowhere else.

Everything heavy (torch, onnxruntime) is imported inside the command that needs it, so that `--help` is quick and the
daemon's own process stays small.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table

from nst_daemon import __version__
from nst_daemon.config import DEEP_FORMATS, Config, load
from nst_daemon.digests import sha256_file
from nst_daemon.errors import Cancelled, InputError, NstError, UsageError
from nst_daemon.jobs import TRANSITIONS, JobInput, JobState, Role
from nst_daemon.ledger import Ledger
from nst_daemon.names import printable
from nst_daemon.ops import logs

OUTPUT_KINDS = ("png", "jpg", "jpeg", "webp", "tiff")

if TYPE_CHECKING:
    from nst_daemon.intake.batch import Expansion
    from nst_daemon.painter import Painter

app = typer.Typer(
    name="nst-daemon",
    help="A watched folder that paints: drop a photo and a style, and a painting appears in results/.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
model_app = typer.Typer(help="The weights of the network.", no_args_is_help=True)
app.add_typer(model_app, name="model")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration; else $NST_CONFIG, ./config.yaml, /etc/nst-daemon/config.yaml.",
    ),
]
InputsOption = Annotated[
    list[Path] | None,
    typer.Option("--input", help="A folder to look for inputs; may be repeated."),
]
ContentMaskOption = Annotated[
    Path | None,
    typer.Option("--content-mask", help="Regions of CONTENT, each in one flat colour."),
]
StyleMaskOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--style-mask",
        help="The same colours on a STYLE, or without --content-mask white where in CONTENT it "
        "goes; once for each STYLE, in their order.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


def main() -> None:
    """Run a command; end with its exit code."""
    try:
        app()
    except NstError as error:
        sys.exit(_complain(str(error), error.exit_code))
    except KeyboardInterrupt:
        sys.exit(_complain("interrupted", Cancelled.exit_code))
    except BrokenPipeError:
        # Whoever read our output has left (`nst-daemon … | head`); the flush at exit must not fail again.
        sys.stderr.close()
        sys.exit(0)


def _print(table: RenderableType, document: object, as_json: bool) -> None:
    """A table for people, or JSON for programs."""
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        Console().print(table)


def _complain(message: str, code: int) -> int:
    print(f"nst-daemon: {printable(message)}", file=sys.stderr)
    return code


def _version(wanted: bool) -> None:
    if wanted:
        print(f"nst-daemon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which this is.")
    ] = False,
) -> None:
    """A watched folder that paints."""


@app.command()
def run(config: ConfigOption = None) -> None:
    """Watch the inbox and paint what is dropped there, until SIGTERM or Ctrl-C."""
    _serve(config, drain=False)


@app.command()
def once(
    config: ConfigOption = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for files that are still arriving.")
    ] = 120.0,
) -> None:
    """Paint what is in the inbox, then end: for cron and timers.

    Exit code 0: all done; 1: some jobs failed; 6: a daemon serves this root already.
    """
    if _serve(config, drain=True, wait=wait):
        raise typer.Exit(1)


@app.command()
def batch(
    file: Annotated[Path, typer.Argument(help="Contents, styles and a sweep; see README.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Paint every content in every style with every setting of a sweep, but for what is there already; then end.

    Exit code 0: every picture is there; 1: some are not; 6: a daemon serves this root: drop the file into its inbox.
    """
    from nst_daemon.intake.batch import Expansion, name_of, parse, read_file
    from nst_daemon.ops.status import batch_summary, batch_table
    from nst_daemon.service.supervisor import batch_reach

    loaded, began = load(config), time.time()
    reach = batch_reach(loaded, [file.resolve().parent, *loaded.batch_roots])
    asked = parse(read_file(file), file.name)
    expansion = Expansion(name_of(file), asked, reach, since=began)
    _serve(config, drain=True, batch=expansion)
    with Ledger.attach(loaded.folders.ledger) as ledger:
        painted = ledger.batch(expansion.name, since=began)
        skipped = [ledger.get(job_id) for job_id in expansion.skipped.values()]
    _show(loaded, expansion, reach.roots)
    summary = batch_summary(expansion.name, len(expansion.combinations), painted, skipped)
    _print(batch_table(summary), summary, as_json)
    if summary["missing"]:
        raise typer.Exit(1)


def _serve(
    path: Path | None,
    *,
    drain: bool,
    wait: float = 120.0,
    environ: Mapping[str, str] | None = None,
    batch: Expansion | None = None,
) -> int:
    """Run the supervisor with the configured executor; the number of jobs that failed."""
    from nst_daemon.ops.progress_bars import Bars
    from nst_daemon.service.loop import serve
    from nst_daemon.workers.executor import make_executor

    config = load(path, environ)
    logs.setup(config.log.format, config.log.level)
    executor = make_executor(config)
    with Bars(enabled=drain and sys.stderr.isatty()) as bars:
        return serve(
            config,
            executor,
            drain=drain,
            patience=wait,
            observer=bars,
            reload=lambda: load(path, environ),
            batch=batch,
        )


def _show(config: Config, expansion: Expansion, roots: Sequence[Path]) -> None:
    """Contact sheet and gallery of a batch that was painted here: only we know where its contents are."""
    from nst_daemon.report import batch_sheet, gallery

    folder, places = config.folders.results / expansion.name, _places(config, roots)
    if not folder.is_dir():
        return
    if config.outputs.contact_sheet:
        try:
            said = str(batch_sheet.write(folder, places))
        except InputError as error:
            said = str(error)  # nothing to show, or too much: the summary says how the batch went
        print(f"nst-daemon: {printable(said)}", file=sys.stderr)
    if config.outputs.gallery:
        gallery.write(config.folders.results, places)


@app.command()
def stylize(  # noqa: PLR0917 (a command line, not a call)
    content: Annotated[Path, typer.Argument(help="The picture to be painted.")],
    style: Annotated[
        list[Path],
        typer.Argument(help="One or more pictures to paint it like, or folders of them: blended."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the painting goes.")],
    size: Annotated[
        str | None, typer.Option(help="Longer side in pixels, `original`, or `auto`.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A named set of settings.")] = None,
    seed: Annotated[int | None, typer.Option(help="The start of all randomness.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any render setting; may be repeated."),
    ] = None,
    content_mask: ContentMaskOption = None,
    style_mask: StyleMaskOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace OUTPUT where it exists.")] = False,
    config: ConfigOption = None,
) -> None:
    """Paint one picture here and now, without the daemon."""
    from nst_daemon.intake.submit import style_pictures

    loaded = load(config)
    named = {"size": size, "preset": preset, "seed": seed}
    wanted = _assignments(settings or []) | {k: v for k, v in named.items() if v is not None}
    resolved = loaded.render_settings(wanted)
    kind = _check_output(output, loaded.outputs.depth, overwrite=overwrite)
    styles = style_pictures(style)

    from nst_daemon.engine.images import save_picture
    from nst_daemon.ops.progress_bars import Bars
    from nst_daemon.painter import Painter
    from nst_daemon.report import sidecar

    painter = Painter(loaded.model.network, loaded.model.weights, device=device)
    prepared = painter.prepare(
        content,
        styles,
        resolved,
        content_mask=content_mask,
        style_masks=style_mask or (),
        max_pixels=loaded.limits.max_pixels,
        max_side=loaded.limits.max_side,
    )
    step = None
    with Bars(enabled=True) as bars:
        try:
            for step in painter.paint(prepared):
                bars.update("", output.name, step.iteration, step.iterations)
        except KeyboardInterrupt:
            if step is None:
                raise
            # Hours of painting are not thrown away: what is there is saved, and the exit code says the rest.
            output = output.with_stem(f"{output.stem}.partial")
    assert step is not None
    picture = prepared.picture(step)
    inputs = [_input(Role.CONTENT, content), *(_input(Role.STYLE, path) for path in styles)]
    inputs += [_input(Role.CONTENT_MASK, content_mask)] if content_mask else []
    inputs += [_input(Role.STYLE_MASK, path) for path in style_mask or ()]
    save_picture(
        picture.rgb,
        output,
        format=kind,
        quality=loaded.outputs.quality,
        depth=loaded.outputs.depth,
        alpha=picture.alpha,
        metadata=picture.metadata,
        about=sidecar.embed(inputs, asdict(resolved), painter.info()),
    )
    for note in picture.notes:
        print(f"nst-daemon: {printable(note)}", file=sys.stderr)
    print(output)
    if step.iteration < step.iterations and output.stem.endswith(".partial"):
        raise Cancelled(f"interrupted after {step.iteration} of {step.iterations} iterations")


def _input(role: Role, path: Path) -> JobInput:
    """A file that stays where it is, for the record."""
    return JobInput(role, path.name, path.name, sha256_file(path), path.stat().st_size)


def _check_output(path: Path, depth: int, *, overwrite: bool) -> str:
    """The format that a path asks for. Raises UsageError, before any work, where the picture could not be written."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in OUTPUT_KINDS:
        raise UsageError(
            f"{path} does not say which kind of picture it is",
            remedy=f"end it in {', '.join(OUTPUT_KINDS)}",
        )
    if depth == 16 and kind not in DEEP_FORMATS:
        raise UsageError(
            f"{kind} holds 8 bits a channel, and outputs.depth is 16",
            remedy=f"end {path} in {' or '.join(DEEP_FORMATS)}, or set outputs.depth to 8",
        )
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists", remedy="choose another name, or give --overwrite")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"{path.parent} is not a folder that can be written to", remedy="create it"
        )
    return kind


def _assignments(pairs: list[str]) -> dict[str, Any]:
    """["tv_weight=0.1"] → {"tv_weight": 0.1}, values as in YAML."""
    out = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {pair} is not KEY=VALUE", remedy="for example --set seed=3")
        try:
            out[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {pair}: the value is not valid YAML") from error
    return out


@app.command()
def submit(  # noqa: PLR0917 (a command line, not a call)
    content: Annotated[Path, typer.Argument(help="The picture to be painted.")],
    style: Annotated[
        list[str],
        typer.Argument(help="One or more pictures, folders of them, or styles of the library."),
    ],
    content_mask: ContentMaskOption = None,
    style_mask: StyleMaskOption = None,
    name: Annotated[str, typer.Option(help="What the result is called; else like CONTENT.")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any render setting; may be repeated."),
    ] = None,
    priority: Annotated[
        int, typer.Option(min=-1000, max=1000, help="Higher ones are painted first.")
    ] = 0,
    config: ConfigOption = None,
) -> None:
    """Copy pictures into the inbox, properly named; the name of the job is printed."""
    from nst_daemon.intake.submit import Part, drop, mask_parts, numbered_styles, styles_and_names

    loaded = load(config)
    wanted = _assignments(settings or [])
    loaded.render_settings(wanted)
    pictures, names = styles_and_names(style, loaded.folders.styles)
    if names:
        wanted["style"] = names
    if priority:
        wanted["priority"] = priority
    masks = mask_parts(content_mask, style_mask or (), len(pictures))
    if masks and names:
        raise UsageError(
            f"the style {names[0]} of the library has no mask",
            remedy="give its picture as a file, and a --style-mask for it",
        )
    parts = [Part(Role.CONTENT, content), *numbered_styles(pictures), *masks]
    print(drop(loaded.folders.inbox, name or content.stem, parts, wanted))


@app.command()
def rerun(
    result: Annotated[Path, typer.Argument(help="A result, or the .json that lies beside it.")],
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", help="A picture, or a folder to look for them; may be repeated."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Put the job that made a picture into the inbox again; its inputs are found by their contents."""
    from nst_daemon.intake.submit import drop, recipe_parts
    from nst_daemon.report import sidecar

    loaded = load(config)
    beside = result.with_suffix(".json")
    recipe = sidecar.read(beside if beside.is_file() else result)
    loaded.render_settings(recipe.settings)
    places = [*_places(loaded, inputs or []), loaded.folders.failed]
    parts = recipe_parts(recipe.inputs, places)
    print(drop(loaded.folders.inbox, recipe.name.replace("/", "-"), parts, recipe.settings))


@app.command()
def status(
    config: ConfigOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, once a second.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What is being painted, what waits, what has failed; with --watch and --json a line each second."""
    from nst_daemon.ops import status as page

    folders = load(config).folders
    if not watch:
        found = page.gather(folders)
        _print(page.page(found), found.as_json(), as_json)
    elif as_json:
        page.follow(lambda: print(json.dumps(page.gather(folders).as_json()), flush=True))
    else:
        with Live(auto_refresh=False) as live:
            page.follow(lambda: live.update(page.page(page.gather(folders)), refresh=True))


@app.command()
def history(  # noqa: PLR0917 (a command line, not a call)
    job: Annotated[str, typer.Argument(help="An id, its beginning or a name: all about it.")] = "",
    state: Annotated[
        list[JobState] | None, typer.Option(help="Only jobs in this state; may be repeated.")
    ] = None,
    name: Annotated[str, typer.Option(help="Only these names; * and ? are wildcards.")] = "*",
    since: Annotated[
        str, typer.Option(help="Only what changed since: 90m, 12h, 7d, or a date and time.")
    ] = "",
    limit: Annotated[int, typer.Option(min=-1, help="At most so many; -1 for all.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What has become of jobs, the latest first; of one job everything that happened to it."""
    from nst_daemon.ops import status as page

    with Ledger.attach(load(config).folders.ledger) as ledger:
        if job:
            found = page.find_job(ledger, job)
            events = ledger.events(found.id)
            _print(page.story(found, events), page.story_json(found, events), as_json)
        else:
            moment = page.parse_since(since)
            jobs = ledger.history(*(state or []), since=moment, name=name, limit=limit)
            _print(page.history(jobs), [page.brief(j) for j in jobs], as_json)


@app.command()
def retry(
    jobs: Annotated[
        list[str] | None, typer.Argument(help="Ids, their beginnings or names.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Everything that failed or was quarantined.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Paint jobs again that have ended without a picture; where no daemon runs, once one starts."""
    if failed == bool(jobs):
        raise UsageError("name jobs to retry, or give --failed")
    states = (JobState.FAILED, JobState.QUARANTINED)
    _ask("retry", jobs or [], load(config), states if failed else ())


@app.command()
def cancel(
    jobs: Annotated[list[str], typer.Argument(help="Ids, their beginnings or names.")],
    config: ConfigOption = None,
) -> None:
    """End jobs that wait or are being painted; where no daemon runs, once one starts."""
    _ask("cancel", jobs, load(config))


def _ask(verb: str, named: list[str], config: Config, states: Sequence[JobState] = ()) -> None:
    """Leave a request for each job in the ledger: only the daemon moves jobs."""
    from nst_daemon.ops.status import find_job, served

    with Ledger.attach(config.folders.ledger) as ledger:
        found = [find_job(ledger, text) for text in named]
        found += ledger.jobs(*states) if states else []
        for job in found:
            ended = job.state.terminal
            possible = TRANSITIONS[job.state] and ended if verb == "retry" else not ended
            if not possible:
                raise UsageError(
                    f"{job.name} is {job.state}, and there is nothing to {verb}",
                    remedy=f"`nst-daemon history {job.id[:8]}` tells all about it",
                )
        for job in found:
            ledger.request(job.id, verb, now=time.time())
            print(f"{verb}: {printable(job.name)} ({job.id[:8]})")
    if found and not served(config.folders.state):
        print("nst-daemon: no daemon runs here; it is done when one starts", file=sys.stderr)


@app.command()
def presets(as_json: JsonOption = False) -> None:
    """The named sets of settings, and where each is from."""
    from nst_daemon.engine.presets import PRESETS

    table = Table(box=None)
    for heading in ("preset", "what it is", "source"):
        table.add_column(heading, overflow="fold")
    for name, preset in PRESETS.items():
        table.add_row(name, preset.summary, preset.source)
    _print(table, {name: asdict(preset) for name, preset in PRESETS.items()}, as_json)


@app.command("contact-sheet")
def contact_sheet(
    folder: Annotated[Path, typer.Argument(help="Of a batch, such as results/night.")],
    inputs: InputsOption = None,
    config: ConfigOption = None,
) -> None:
    """Write contact-sheet.jpg into a folder of results: contents, styles and swept settings along the margins."""
    from nst_daemon.report.batch_sheet import write

    print(write(folder, _places(load(config), inputs or [])))


def _places(config: Config, first: Sequence[Path]) -> list[Path]:
    """Where inputs are looked for."""
    folders = config.folders
    return [*first, folders.done, folders.styles, *config.batch_roots]


@app.command()
def gallery(
    inputs: InputsOption = None,
    config: ConfigOption = None,
) -> None:
    """Write results/index.html: every result on one page, with search, slider, time-lapse and settings."""
    from nst_daemon.report.gallery import write

    loaded = load(config)
    print(write(loaded.folders.results, _places(loaded, inputs or [])))


@app.command()
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look at everything that painting needs, and say what to mend.

    Exit code 0: nothing bad was found; 1: something was.
    """
    from nst_daemon.ops.doctor import diagnose

    findings = diagnose(load(config))
    if as_json:
        print(json.dumps([f.__dict__ for f in findings], indent=2))
    else:
        for finding in findings:
            print(finding)
    if any(f.level == "bad" for f in findings):
        raise typer.Exit(1)


@app.command()
def export(config: ConfigOption = None) -> None:
    """Write the ONNX file that the configuration needs, and hold it against torch."""

    from nst_daemon.export.parity import TOLERANCE, require_parity

    loaded = load(config)
    logs.setup(loaded.log.format, loaded.log.level)
    painter, settings = _painter(loaded), loaded.render_settings()
    path = painter.export(settings)
    rows = painter.parity(settings)
    table = Table(title=f"onnxruntime against torch, relative error (allowed {TOLERANCE:.0e})")
    for heading in ("output", "height × width", "error", ""):
        table.add_column(heading)
    for row in rows:
        height, width = row.size
        verdict = "ok" if row.passed else "too far"
        table.add_row(row.output, f"{height} × {width}", f"{row.error:.1e}", verdict)
    Console().print(table)
    require_parity(rows)
    print(path)


def _painter(config: Config, device: str = "auto") -> Painter:
    """The engine as the daemon would use it, with the daemon's own cache."""
    from nst_daemon.painter import Painter

    return Painter(
        config.model.network,
        config.model.weights,
        device=device,
        cache_dir=config.folders.cache,
        cache_bytes=config.cache.max_bytes,
    )


@model_app.command("list")
def model_list(as_json: JsonOption = False) -> None:
    """Which weights there are, and which of them `weights: auto` takes."""

    from nst_daemon.weights_file import list_models

    models = list_models()
    if as_json:
        print(json.dumps([asdict(m) for m in models], default=str, indent=2))
        return
    table = Table(box=None)
    for heading in ("", "network", "weights", "SHA-256", "", ""):
        table.add_column(heading, overflow="fold")
    for model in models:
        chosen = "auto →" if model.automatic else ""
        said = model.note if model.present else "not on this machine"
        table.add_row(chosen, model.network, model.name, model.sha256[:12], said, str(model.path))
    Console().print(table)


@model_app.command("fetch")
def model_fetch(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A mirror's address, or a file; torchvision's own address if left out."
        ),
    ] = None,
    network: Annotated[str, typer.Option(help="vgg19, vgg16 or efficientnet_b0.")] = "vgg19",
) -> None:
    """Download ImageNet's weights to where torchvision looks for them; goes on where it was interrupted."""
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    from nst_daemon.export.fetch import fetch

    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(network, total=None)
        found = fetch(
            network,
            source,
            progress=lambda done, total: bar.update(task, completed=done, total=total or None),
        )
    print(found.path)


@model_app.command("import")
def model_import(
    file: Annotated[Path, typer.Argument(help="A .pth, .safetensors, .mat or .h5 file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Else FILE's name with .safetensors, here."),
    ] = None,
    network: Annotated[str, typer.Option(help="vgg19, vgg16 or efficientnet_b0.")] = "vgg19",
    layout: Annotated[
        str, typer.Option(help="auto, or what a file with `features.…` holds: torchvision, caffe.")
    ] = "auto",
) -> None:
    """Convert weights that other programs use, for `model.weights` in the configuration."""
    from nst_daemon.export.layouts import import_weights

    target = output or Path(file.with_suffix(".safetensors").name)
    print(import_weights(file, target, network=network, layout=layout).path)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where to work; it is kept.")] = Path("demo"),
    size: Annotated[int, typer.Option(help="Longer side of the painting in pixels.")] = 256,
) -> None:
    """Drop a sample photo and a sample painting into an inbox, and let the daemon paint them."""
    from nst_daemon.samples import lay_out

    inbox = folder / "inbox"
    content, style = lay_out(inbox)
    print(f"dropped {content.name} and {style.name} into {inbox}", file=sys.stderr)
    environment = {"NST_FOLDERS__ROOT": str(folder.resolve()), "NST_RENDER__SIZE": str(size)}
    failed = _serve(None, drain=True, environ=environment)
    if failed:
        raise typer.Exit(1)
    newest = max((folder / "results").glob("harbour*.json"), key=lambda p: p.stat().st_mtime_ns)
    print(newest.with_suffix(".png"))
