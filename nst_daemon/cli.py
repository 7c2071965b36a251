"""The commands. Only `main` turns exceptions into exit codes.

Heavy libraries (torch, onnxruntime) are imported inside the commands that need them. This keeps `--help` fast and the
daemon's process small.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from nst_daemon import __version__, cli_model, machine, rights
from nst_daemon.cli_model import JsonOption
from nst_daemon.cli_options import (
    ConfigOption,
    ContentMaskOption,
    InputsOption,
    SetOption,
    StyleMaskOption,
    configured,
    for_drops,
    show,
)
from nst_daemon.cli_stylize import stylize
from nst_daemon.config import Config, load
from nst_daemon.errors import InputError, UsageError
from nst_daemon.job_settings import resolve_job
from nst_daemon.jobs import JobState
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import composed, printable
from nst_daemon.ops import failures, logs, streams
from nst_daemon.ops.arguments import assignments
from nst_daemon.overlaps import check_separate

if TYPE_CHECKING:
    from nst_daemon.intake.expansion import Expansion
    from nst_daemon.ops.requests import Verb

app = typer.Typer(
    name="nst-daemon",
    help="Neural style transfer as a service: drop a photo and a style into a folder; the picture appears in results/.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_model.app, name="model")


def main() -> None:
    """Run a command and exit with its code. No exception leaves this function."""
    failures.run(app)


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

    Exit code 0: all done; 1: some jobs failed; 6: a daemon is already running on this root.
    """
    if _serve(configured(config), drain=True, wait=wait, reload=lambda: load(config)):
        raise typer.Exit(1)


@app.command()
def batch(
    file: Annotated[
        Path, typer.Argument(help="Batch file with contents, styles and a sweep; see README.")
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Paint every content in every style with every setting of a sweep, skip existing pictures, then exit.

    Exit code 0: all pictures exist; 1: some are missing; 6: a daemon is running on this root: drop the file into
    its inbox.
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
    show(batch_table(summary), summary, as_json)
    if summary["missing"]:
        raise typer.Exit(1)


def _serve(
    config: Config,
    *,
    drain: bool,
    wait: float = 120.0,
    reload: Callable[[], Config] | None = None,
    batch: Expansion | None = None,
) -> int:
    """Run the daemon with the configured executor. Returns the number of failed jobs."""
    from nst_daemon.ops.progress_bars import Bars
    from nst_daemon.service.loop import serve
    from nst_daemon.workers.executor import make_executor
    from nst_daemon.workers.picture_check import DecodingCheck

    logs.setup(config.log.format, config.log.level)
    executor = make_executor(config)
    with Bars(enabled=drain and sys.stderr.isatty()) as bars:
        return serve(
            config,
            executor,
            DecodingCheck.on_this_machine(config.folders.logs),
            drain=drain,
            patience=wait,
            observer=bars,
            reload=reload,
            batch=batch,
        )


def _show(config: Config, expansion: Expansion, roots: Sequence[Path]) -> None:
    """Write the contact sheet and the gallery of a batch; only this command knows the folders of its contents."""
    from nst_daemon.report import batch_sheet, gallery

    folder, places = config.folders.results / expansion.name, _places(config, roots)
    if not folder.is_dir():
        return
    if config.outputs.contact_sheet:
        try:
            said = str(batch_sheet.write(folder, places, config.limits))
        except InputError as error:  # no results, or too many: the summary still shows the batch
            said = str(error)
        streams.notice(printable(said), level=6)
    if config.outputs.gallery:
        gallery.write(config.folders.results, places, _options(config, roots), config.limits)


app.command()(stylize)


@app.command()
def submit(  # noqa: PLR0917 (a command line, not a call)
    content: Annotated[Path, typer.Argument(help="The content picture.")],
    style: Annotated[
        list[str],
        typer.Argument(help="Style pictures, folders of them, or names of library styles."),
    ],
    content_mask: ContentMaskOption = None,
    style_mask: StyleMaskOption = None,
    name: Annotated[
        str, typer.Option(help="Name of the result. Default: the name of CONTENT.")
    ] = "",
    settings: SetOption = None,
    priority: Annotated[
        int,
        typer.Option(min=-1000, max=1000, help="Jobs with a higher priority are painted first."),
    ] = 0,
    config: ConfigOption = None,
) -> None:
    """Copy pictures into the inbox under the right names, and print the name of the job."""
    from nst_daemon.intake.library import list_styles, merge_settings
    from nst_daemon.intake.submit import drop, job_parts, styles_and_names

    loaded = for_drops(config)
    wanted = assignments(settings or [])
    library = list_styles(loaded.folders.styles, loaded.limits.max_bytes)
    pictures, names = styles_and_names(style, library)
    named = [library[composed(style_name)] for style_name in names]
    resolve_job(loaded, merge_settings(named, wanted, own=len(pictures)))
    if names:
        wanted["style"] = names
    if priority:
        wanted["priority"] = priority
    if (content_mask or style_mask) and names:
        raise UsageError(
            f"the library style {names[0]} cannot have a mask",
            remedy="name its picture as a file, with a --style-mask",
        )
    parts = job_parts(content, pictures, content_mask, style_mask or ())
    formats = loaded.limits.formats
    print(drop(loaded.folders.inbox, name or content.stem, parts, wanted, formats))


@app.command()
def rerun(
    result: Annotated[Path, typer.Argument(help="A result, or its .json file.")],
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", help="Picture, or folder to search for pictures; may be repeated."),
    ] = None,
    other_weights: Annotated[
        bool,
        typer.Option(
            "--other-weights", help="Continue even if the weights are not those of the picture."
        ),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Submit the job that made a picture again. Its inputs are found by their contents."""
    from nst_daemon.intake.submit import drop, recipe_parts
    from nst_daemon.report import sidecar
    from nst_daemon.weights_file import configured_weights

    loaded = for_drops(config)
    beside = result.with_suffix(".json")
    recipe = sidecar.read(beside if beside.is_file() else result)
    weights = configured_weights(loaded.model, loaded.folders.cache)
    if weights.warning:
        streams.notice(printable(weights.warning), level=6)
    if weights.sha256 != recipe.weights_sha256:
        said = (
            f"{printable(result.name)} was painted with the weights {recipe.weights}, "
            f"and the configured weights are {weights.description} ({weights.sha256[:12]})"
        )
        if not other_weights:
            raise UsageError(
                said, remedy="set model.weights to the same file, or use --other-weights"
            )
        streams.notice(said, level=4)
    settings = {**recipe.settings, **recipe.outputs}
    resolve_job(loaded, settings)
    parts = recipe_parts(recipe.inputs, _places(loaded, inputs or []))
    name, formats = recipe.name.replace("/", "-"), loaded.limits.formats
    print(drop(loaded.folders.inbox, name, parts, settings, formats))


@app.command()
def status(
    config: ConfigOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the current painting, the queue and recent failures. With --watch and --json, print one line per second."""
    from nst_daemon.ops import status as report
    from nst_daemon.ops import tables

    folders = configured(config).folders
    if not watch:
        found = report.gather(folders)
        show(tables.status_page(found), found.as_json(), as_json)
    elif as_json:
        report.follow(lambda: print(json.dumps(report.gather(folders).as_json()), flush=True))
    elif not sys.stdout.isatty():
        report.follow(lambda: Console().print(tables.status_page(report.gather(folders))))
    else:
        with Live(auto_refresh=False) as live:
            report.follow(
                lambda: live.update(tables.status_page(report.gather(folders)), refresh=True)
            )


@app.command()
def history(  # noqa: PLR0917 (a command line, not a call)
    job: Annotated[
        str, typer.Argument(help="Job id, id prefix or name: show everything about this job.")
    ] = "",
    state: Annotated[
        list[JobState] | None, typer.Option(help="Only jobs in this state; may be repeated.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Only jobs with this name; * and ? are wildcards.")
    ] = "*",
    since: Annotated[
        str, typer.Option(help="Only jobs that changed since: 90m, 12h, 7d, or a date and time.")
    ] = "",
    limit: Annotated[int, typer.Option(min=-1, max=2**31, help="Show at most N; -1 for all.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, latest first, or show everything that happened to one job."""
    from nst_daemon.ops import status as report
    from nst_daemon.ops import tables

    with LedgerReader.attach(configured(config).folders.ledger) as ledger:
        if job:
            found = report.find_job(ledger, job)
            events = ledger.events(found.id)
            show(tables.story(found, events), report.story(found, events), as_json)
        else:
            moment = report.parse_since(since)
            jobs = ledger.history(*(state or []), since=moment, name=name, limit=limit)
            show(tables.history(jobs), [report.brief(j) for j in jobs], as_json)


@app.command()
def retry(
    jobs: Annotated[list[str] | None, typer.Argument(help="Job ids, id prefixes or names.")] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All jobs that failed or were quarantined.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Retry jobs that failed or were cancelled (if no daemon is running, at its next start)."""
    if failed == bool(jobs):
        raise UsageError("name the jobs to retry, or use --failed")
    states = (JobState.FAILED, JobState.QUARANTINED)
    _request("retry", jobs or [], configured(config), states if failed else ())


@app.command()
def cancel(
    jobs: Annotated[list[str], typer.Argument(help="Job ids, id prefixes or names.")],
    config: ConfigOption = None,
) -> None:
    """Cancel jobs that are waiting or being painted (if no daemon is running, at its next start)."""
    _request("cancel", jobs, configured(config))


def _request(verb: Verb, named: list[str], config: Config, states: Sequence[JobState] = ()) -> None:
    """Store requests in the ledger, and print the jobs."""
    from nst_daemon.ops.requests import request
    from nst_daemon.ops.status import served

    with LedgerReader.attach(config.folders.ledger) as ledger:
        jobs = request(ledger, verb, named, states)
    for job in jobs:
        print(f"{verb}: {printable(job.name)} ({job.id[:8]})")
    if jobs and not served(config.folders.state):
        streams.notice("no daemon is running; the next one to start does it", level=6)


@app.command()
def presets(as_json: JsonOption = False) -> None:
    """List the named sets of settings and their sources."""
    from nst_daemon.engine.presets import PRESETS
    from nst_daemon.ops.tables import plain_table

    rows = [(name, preset.summary, preset.source) for name, preset in PRESETS.items()]
    show(
        plain_table(("preset", "description", "source"), rows),
        {name: asdict(preset) for name, preset in PRESETS.items()},
        as_json,
    )


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
    print(write(folder, _places(loaded, inputs or []), loaded.limits))


def _places(config: Config, first: Sequence[Path]) -> list[Path]:
    """The folders that `rerun`, the gallery and contact sheets search for inputs, in this order."""
    folders = config.folders
    return [*first, folders.done, folders.styles, *config.batch_roots, folders.failed]


def _options(config: Config, inputs: Sequence[Path]) -> list[str]:
    """The options with which `rerun` finds the same inputs from any folder."""
    options = ["--config", str(config.source)] if config.source else []
    return options + [word for path in inputs for word in ("--input", str(path.resolve()))]


@app.command()
def gallery(
    inputs: InputsOption = None,
    config: ConfigOption = None,
) -> None:
    """Write results/index.html, a page with every result, its time-lapse, loss curve and settings."""
    from nst_daemon.report.gallery import write

    loaded, folders = configured(config), inputs or []
    rights.share_with_group(loaded.folders)
    places, options = _places(loaded, folders), _options(loaded, folders)
    print(write(loaded.folders.results, places, options, loaded.limits))


@app.command()
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check packages, device, weights, folders and limits, and say what to fix.

    Exit code 0: no errors; 1: at least one error.
    """
    from nst_daemon.ops.doctor import diagnose

    findings = diagnose(configured(config))
    if as_json:
        print(json.dumps([f.__dict__ for f in findings], indent=2))
    else:
        print(*findings, sep="\n")
    if any(f.level == "bad" for f in findings):
        raise typer.Exit(1)


@app.command()
def export(config: ConfigOption = None) -> None:
    """Write the ONNX file for the configured network and compare it with torch."""
    machine.wait_passively()  # before torch is imported

    from nst_daemon.export.parity import TOLERANCE, require_parity
    from nst_daemon.ops.tables import plain_table
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
        (r.output, "{} × {}".format(*r.size), f"{r.error:.1e}", "ok" if r.passed else "too large")
        for r in found
    ]
    print(f"onnxruntime compared with torch: relative error (at most {TOLERANCE:.0e})")
    Console().print(plain_table(("output", "height × width", "error", ""), rows))
    require_parity(found)
    print(path)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Folder to work in; it is kept.")] = Path("demo"),
    size: Annotated[int, typer.Option(help="Longer side of the picture in pixels.")] = 384,
) -> None:
    """Drop a sample photo and a sample painting into an inbox and let the daemon paint them.

    It uses the defaults: no configuration file, no variables.
    """
    from nst_daemon.samples import lay_out

    place = str(folder.absolute())
    config = load(None, {"NST_FOLDERS__ROOT": place, "NST_RENDER__SIZE": str(size)}, search=())
    failures.log_folders[:] = [config.folders.logs]
    check_separate(config)
    content, style = lay_out(config.folders.inbox)
    streams.notice(f"dropped {content.name} and {style.name} into {folder / 'inbox'}", level=6)
    failed = _serve(config, drain=True)
    made = sorted(
        config.folders.results.glob("riverside*.json"), key=lambda p: p.stat().st_mtime_ns
    )
    if failed or not made:
        raise typer.Exit(1)
    print(folder / "results" / made[-1].with_suffix(".png").name)
