"""The commands. Only `main` turns exceptions into exit codes.

Heavy libraries (torch, onnxruntime) are imported inside the commands that need them. This keeps `--help` fast and the
daemon's process small.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst_daemon import (
    __version__,
    cli_config,
    cli_jobs,
    cli_model,
    cli_notify,
    cli_token,
    machine,
    rights,
)
from nst_daemon.cli_help import Commands, NumberCommand
from nst_daemon.cli_options import (
    ConfigOption,
    InputsOption,
    JsonOption,
    configured,
    rerun_command,
    show,
)
from nst_daemon.cli_stylize import StylizeCommand, stylize
from nst_daemon.config import Config, find_file, load
from nst_daemon.config_search import NAMES
from nst_daemon.errors import LEFT_OVER, Cancelled, InputError
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import printable
from nst_daemon.ops import completion, failures, logs, streams
from nst_daemon.ops.input_places import input_places
from nst_daemon.ops.layout import Row, table, terminal_width
from nst_daemon.overlaps import check_separate

if TYPE_CHECKING:
    from nst_daemon.intake.expansion import Expansion
    from nst_daemon.service.loop import Served

app = Commands(
    name="nst-daemon",
    help="Neural style transfer as a service: drop a photo and a style into a folder; the picture appears in results/.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_model.app, name="model")
app.add_typer(cli_config.app, name="config")
app.add_typer(cli_notify.app, name="notify")
app.add_typer(cli_token.app, name="token")


def main() -> None:
    """Run a command and exit with its code. No exception leaves this function."""
    completion.join_assignments(os.environ)
    failures.run(
        partial(
            failures.usage_in_one_line, partial(app, prog_name="nst-daemon", standalone_mode=False)
        )
    )


def _version(wanted: bool) -> None:
    if wanted:
        print(f"nst-daemon {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Neural style transfer as a service."""


app.command()(cli_config.init)


@app.command()
def run(config: ConfigOption = None) -> None:
    """Watch the inbox and paint what is dropped into it, until SIGTERM or Ctrl-C."""
    _serve(configured(config), drain=False, reload=lambda: load(config))


@app.command()
def once(
    config: ConfigOption = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for files that are still arriving.")
    ] = 120.0,
) -> None:
    """Paint everything in the inbox, then exit. For cron and timers.

    At the end it lists what is left in the inbox, and what to do about it.

    Exit code 0: all done; 1: some jobs failed; 6: a daemon is already running on this root; 11: no job failed, and
    something is left in the inbox.
    """
    loaded = configured(config)
    served = _serve(loaded, drain=True, wait=wait, reload=lambda: load(config))
    if served.inbox.left_over:
        print("left in the inbox:", *served.inbox.lines(), sep="\n")
    elif not served.ended:
        inbox = printable(str(loaded.folders.inbox))
        streams.notice(f"nothing to paint: {inbox} is empty", level=6)
    if served.failures or served.inbox.left_over:
        raise typer.Exit(1 if served.failures else LEFT_OVER)


@app.command()
def batch(
    file: Annotated[
        Path,
        typer.Argument(
            help="Batch file with contents, styles and a sweep; see docs/batches.md.",
            autocompletion=completion.batch_files,
        ),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Paint every content in every style with every setting of a sweep, skip existing pictures, then exit.

    Exit code 0: all pictures exist or were cancelled; 1: others are missing; 6: a daemon is running on this root: drop
    the file into its inbox.
    """
    from nst_daemon.intake.batch import name_of, read
    from nst_daemon.intake.expansion import Expansion
    from nst_daemon.ops.status import batch_summary
    from nst_daemon.ops.tables import batch_table
    from nst_daemon.service.batches import batch_reach

    loaded, began = configured(config), time.time()
    reach = batch_reach(loaded, [file.resolve().parent, *loaded.batch_roots])
    expansion = Expansion(name_of(file), read(file), reach, since=began)
    _serve(loaded, drain=True, batch=expansion, reload=lambda: load(config))
    with LedgerReader.attach(loaded.folders.ledger) as ledger:
        painted = ledger.batch(expansion.name, since=began)
        skipped = [ledger.get(job_id) for job_id in expansion.skipped.values()]
    _show(loaded, expansion, reach.roots)
    asked, passed_over = len(expansion.combinations), expansion.passed_over
    summary = batch_summary(expansion.name, asked, painted, skipped, passed_over)
    show(partial(batch_table, summary), summary, as_json)
    if summary["missing"]:
        raise typer.Exit(1)


def _serve(
    config: Config,
    *,
    drain: bool,
    wait: float = 120.0,
    reload: Callable[[], Config] | None = None,
    batch: Expansion | None = None,
) -> Served:
    """Run the daemon with the configured executor. Raises Cancelled if Ctrl-C ends it before the inbox is empty."""
    from nst_daemon.ops.progress_bars import Bars
    from nst_daemon.service.loop import serve
    from nst_daemon.workers.executor import make_executor
    from nst_daemon.workers.picture_check import DecodingCheck

    logs.setup(config.log.format, config.log.level)
    executor = make_executor(config, await_device=not drain)
    with Bars(enabled=drain and sys.stderr.isatty()) as bars:
        served = serve(
            config,
            executor,
            DecodingCheck.on_this_machine(config.folders.logs),
            drain=drain,
            patience=wait,
            observer=bars,
            reload=reload,
            batch=batch,
        )
    if drain and served.interrupted:
        raise Cancelled("interrupted", remedy="the next start continues what is not finished")
    return served


def _show(config: Config, expansion: Expansion, roots: Sequence[Path]) -> None:
    """Write the contact sheet and the gallery of a batch; only this command knows the folders of its contents."""
    from nst_daemon.report import batch_sheet, gallery

    folder, places = config.folders.results / expansion.name, input_places(config, roots)
    if not folder.is_dir():
        return
    if config.outputs.contact_sheet:
        try:
            said = str(batch_sheet.write(folder, places, config.limits))
        except InputError as error:  # no results, or too many: the summary still shows the batch
            said = str(error)
        streams.notice(printable(said), level=6)
    if config.outputs.gallery:
        gallery.write(config.folders.results, places, rerun_command(config, roots), config.limits)
    else:
        gallery.remember_inputs(config.folders.results, [path.resolve() for path in roots])


app.command(cls=StylizeCommand)(stylize)
for command in (
    cli_jobs.submit,
    cli_jobs.rerun,
    cli_jobs.status,
    cli_jobs.history,
    cli_jobs.retry,
    cli_jobs.cancel,
):
    app.command()(command)
app.command(cls=NumberCommand)(cli_jobs.priority)
app.command()(cli_jobs.delete)


app.command()(cli_config.settings)
app.command()(cli_config.presets)


@app.command("contact-sheet")
def contact_sheet(
    folder: Annotated[Path, typer.Argument(help="Folder of results, such as results/night.")],
    inputs: InputsOption = None,
    config: ConfigOption = None,
) -> None:
    """Write contact-sheet.jpg into a folder of results, with contents, styles and swept settings along the margins."""
    from nst_daemon.report.batch_sheet import write

    loaded = configured(config)
    rights.share_with_group(loaded.folders)
    print(write(folder, input_places(loaded, inputs or []), loaded.limits))


@app.command()
def gallery(
    inputs: InputsOption = None,
    config: ConfigOption = None,
) -> None:
    """Write results/index.html, a page with every result, its time-lapse, loss curve and settings."""
    from nst_daemon.report.gallery import write

    loaded, folders = configured(config), inputs or []
    rights.share_with_group(loaded.folders)
    places, command = input_places(loaded, folders), rerun_command(loaded, folders)
    print(write(loaded.folders.results, places, command, loaded.limits))


@app.command()
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check packages, device, weights, folders and limits, and say what to fix.

    Exit code 0: no errors; 1: at least one error.
    """
    from nst_daemon.ops.doctor import diagnose, report

    findings = diagnose(cli_config.checked(config)[1])
    show(partial(report, findings), [asdict(f) for f in findings], as_json)
    if any(f.level == "bad" for f in findings):
        raise typer.Exit(1)


@app.command()
def health(config: ConfigOption = None) -> None:
    """Check whether a daemon serves the root and writes its status. For containers and monitoring.

    Exit code 0: it does; 1: no daemon is running, or it has not written its status for a minute.
    """
    from nst_daemon.ops.status import check_health

    state, line = check_health(configured(config).folders)
    print(f"{state}: {printable(line)}")
    if state != "ok":
        raise typer.Exit(1)


@app.command()
def export(config: ConfigOption = None) -> None:
    """Write the ONNX file for the configured network and compare it with torch."""
    machine.wait_briefly()  # before torch is imported

    from nst_daemon.export.parity import TOLERANCE, require_parity
    from nst_daemon.painter import Painter

    loaded = configured(config)
    logs.setup(loaded.log.format, loaded.log.level)
    model, settings = loaded.model, loaded.render_settings()
    painter = Painter(
        model.network,
        model.weights,
        cache_dir=loaded.folders.cache,
        cache_bytes=loaded.cache.max_bytes,
    )
    path = painter.export(settings)
    found = painter.parity(settings)
    rows = [
        Row(
            (
                r.output,
                "{} × {}".format(*r.size),
                f"{r.error:.1e}",
                "ok" if r.passed else "too large",
            )
        )
        for r in found
    ]
    print(f"onnxruntime compared with torch: relative error (at most {TOLERANCE:.0e})")
    print(table(("output", "height × width", "error", "verdict"), rows, terminal_width()))
    require_parity(found)
    print(path)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Folder to work in; it becomes a root.")] = Path(
        "demo"
    ),
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Longer side of the picture in pixels. Default: 384."),
    ] = None,
) -> None:
    """Let the daemon paint a sample photo in the style of a sample painting.

    The folder becomes a normal root with a configuration. Variables apply, such as NST_DEVICES=cpu,
    NST_RENDER__SIZE=256 and NST_MODEL__WEIGHTS=bundled, but not NST_CONFIG or NST_FOLDERS__….
    """
    from nst_daemon.samples import lay_out

    config = _demo_configuration(folder, size)
    failures.log_folders[:] = [config.folders.logs]
    check_separate(config)
    picture = _demo_picture(config)
    if picture:
        streams.notice(
            f"the sample is painted already; remove {printable(str(picture))} to paint it again",
            level=6,
        )
    else:
        content, style = lay_out(config.folders.inbox)
        streams.notice(f"dropped {content.name} and {style.name} into {folder / 'inbox'}", level=6)
        failed = _serve(config, drain=True).failures
        picture = _demo_picture(config)
        if failed or not picture:
            raise typer.Exit(1)
    program = "nst-daemon" if shutil.which("nst-daemon") else sys.argv[0]
    option = shlex.quote(printable(str(folder)))
    for line in (
        "now your own pictures:",
        f"  {program} run -c {option}",
        f"  {program} submit PHOTO PAINTING -c {option}     # in another terminal",
    ):
        streams.notice(line, level=6)
    print(folder / "results" / picture.name)


def _demo_configuration(folder: Path, size: int | None) -> Config:
    """That of the folder, which is made if it is missing, with the variables that do not name folders."""
    from nst_daemon.new_root import make_root

    here = find_file(None, {}, [folder / name for name in NAMES]).path
    source = here or make_root(folder).config
    environ = {
        name: value
        for name, value in os.environ.items()
        if name != "NST_CONFIG" and not name.startswith("NST_FOLDERS__")
    }
    config = load(source, environ)
    if size is not None or "size" not in config.render:
        config = load(source, {**environ, "NST_RENDER__SIZE": str(size or 384)})
    return config


def _demo_picture(config: Config) -> Path | None:
    """The latest picture of the sample with these settings and weights."""
    from nst_daemon.report import sidecar
    from nst_daemon.weights_file import configured_weights

    settings = json.loads(json.dumps(asdict(config.render_settings())))
    weights = configured_weights(config.model, config.folders.cache).sha256
    for path in sorted(config.folders.results.glob("riverside*.json"), reverse=True):
        recipe, picture = sidecar.read(path), path.with_suffix(f".{config.outputs.format}")
        if recipe.settings == settings and recipe.weights_sha256 == weights and picture.is_file():
            return picture
    return None
