"""The commands for jobs: submit, rerun, status, history, retry, cancel, priority, delete."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.text import Text

from nst_daemon.cli_options import (
    ConfigOption,
    ContentMaskOption,
    JsonOption,
    SetOption,
    StyleMaskOption,
    configured,
    for_drops,
    show,
)
from nst_daemon.config import Config
from nst_daemon.errors import Cancelled, InputError, UsageError
from nst_daemon.intake.drops import MAX_PRIORITY
from nst_daemon.job_settings import resolve_job
from nst_daemon.jobs import Job, JobState, short_id
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.names import printable
from nst_daemon.ops import completion, requests, retry_check, streams
from nst_daemon.ops.arguments import assignments
from nst_daemon.ops.input_places import input_places
from nst_daemon.ops.job_names import MOST_LISTED, find_job
from nst_daemon.ops.layout import terminal_width
from nst_daemon.units import count

if TYPE_CHECKING:
    from nst_daemon.intake.submit import DroppedJob
    from nst_daemon.ledger_reader import Verb

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for the picture, and print its path.")
]
JOBS_HELP = "Job ids, id prefixes, names, or names with the wildcards * and ?."
UnfinishedJobs = Annotated[
    list[str] | None,
    typer.Argument(help=JOBS_HELP, autocompletion=completion.jobs_to_cancel),
]
QueuedOption = Annotated[bool, typer.Option("--queued", help="All jobs that no worker paints yet.")]


def submit(  # noqa: PLR0917 (a command line, not a call)
    content: Annotated[Path, typer.Argument(help="The content picture.")],
    style: Annotated[
        list[str],
        typer.Argument(
            help="Style pictures, folders of them, or names of library styles.",
            autocompletion=completion.styles,
        ),
    ],
    content_mask: ContentMaskOption = None,
    style_mask: StyleMaskOption = None,
    name: Annotated[
        str, typer.Option(help="Name of the result. Default: the name of CONTENT.")
    ] = "",
    settings: SetOption = None,
    priority: Annotated[
        int,
        typer.Option(
            min=-MAX_PRIORITY,
            max=MAX_PRIORITY,
            help="Jobs with a higher priority are painted first.",
        ),
    ] = 0,
    wait: WaitOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy pictures into the inbox under the right names, and print the name of the job.

    With --wait, print the path of the picture. With --json, print the id and the name of the job, and with --wait
    the path of the picture. Exit code 0: the job was submitted, or with --wait its picture is there; 1: the job
    failed; 130: it was cancelled, or the waiting was interrupted, and the job continues.
    """
    from nst_daemon.intake.library import list_styles
    from nst_daemon.ops import submission

    loaded = for_drops(config)
    library = list_styles(loaded.folders.styles, loaded.limits.max_bytes)
    jobs = submission.NewJobs(
        [submission.JobContent(name or content.stem, content, content_mask)],
        submission.style_choices(style, library, style_mask or (), masked=bool(content_mask)),
        assignments(settings or []),
        priority,
    )
    for problem in submission.problems(loaded, library, jobs):
        raise problem.error
    (dropped,) = submission.submit(loaded, library, jobs)
    _submitted(loaded, dropped, wait=wait, as_json=as_json)


def rerun(  # noqa: PLR0917 (a command line, not a call)
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
    wait: WaitOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit the job that made a picture again. Its inputs are found by their contents."""
    from nst_daemon.intake.library import list_styles
    from nst_daemon.ops import rerun as again
    from nst_daemon.ops import submission
    from nst_daemon.publishing import THUMBNAILS
    from nst_daemon.report import sidecar
    from nst_daemon.report.rerun_command import noted_inputs
    from nst_daemon.weights_file import configured_weights

    loaded = for_drops(config)
    beside = result.with_suffix(".json")
    requests.check_not_deleted(loaded.folders, beside)
    recipe = sidecar.read(beside if beside.is_file() else result)
    weights = configured_weights(loaded.model, loaded.folders.cache)
    if weights.warning:
        streams.notice(printable(weights.warning), level=6)
    if said := again.weights_difference(recipe, weights, printable(str(result))):
        if not other_weights:
            raise UsageError(
                said, remedy="set model.weights to the same file, or use --other-weights"
            )
        streams.notice(said, level=4)
    resolve_job(loaded, {**recipe.settings, **recipe.outputs})
    noted = noted_inputs(loaded.folders.results / THUMBNAILS).values()
    jobs = again.prepare(recipe, input_places(loaded, inputs or []), noted)
    library = list_styles(loaded.folders.styles, loaded.limits.max_bytes)
    for problem in submission.problems(loaded, library, jobs):
        raise problem.error
    (dropped,) = submission.submit(loaded, library, jobs)
    _submitted(loaded, dropped, wait=wait, as_json=as_json)


def _submitted(config: Config, dropped: DroppedJob, *, wait: bool, as_json: bool) -> None:
    """Print the name of a job that was dropped; or wait for it, and print the path of its picture."""
    from nst_daemon.ops.status import served
    from nst_daemon.ops.wait import wait_for

    folders, shown = config.folders, printable(dropped.name)
    identity = {"id": dropped.id, "name": dropped.name}
    if not wait:
        print(json.dumps(identity) if as_json else dropped.name)
        if not served(folders.state):
            streams.notice(
                "no daemon is running; `nst-daemon once` paints what is in the inbox", level=6
            )
        return
    streams.notice(f"submitted as {shown} ({short_id(dropped.id)})", level=6)
    try:
        job = wait_for(
            folders,
            dropped.id,
            dropped.name,
            lambda reason: streams.notice(printable(reason), level=6),
        )
    except KeyboardInterrupt as error:
        if not served(folders.state):
            raise Cancelled(
                f"stopped waiting; no daemon is running, and {shown} stays in the inbox",
                remedy="`nst-daemon run` or `nst-daemon once` paints it",
            ) from error
        raise Cancelled(
            f"stopped waiting; {shown} goes on",
            remedy=f"see nst-daemon history {short_id(dropped.id)}",
        ) from error
    if job.state is JobState.CANCELLED:
        raise Cancelled(f"{shown} was cancelled")
    if job.state is JobState.DONE and not job.result:
        raise InputError(f"the files of {shown} were deleted by request")
    if job.state is not JobState.DONE:
        streams.notice(f"{shown} {job.state}: {printable(job.error)}")
        raise typer.Exit(1)
    result = folders.results / job.result
    print(json.dumps({**identity, "result": str(result)}) if as_json else result)


def status(
    config: ConfigOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the current painting, the queue, recent failures, and what waits in the inbox and why.

    With --watch and --json, print one line per second.
    """
    from nst_daemon.ops import status as report
    from nst_daemon.ops import tables
    from nst_daemon.ops.estimates import QueueEstimate
    from nst_daemon.service.inbox_now import inbox_now

    loaded = configured(config)
    queue = QueueEstimate(loaded.folders)

    def gathered() -> report.Status:
        found = report.gather(loaded.folders).looking_at(partial(inbox_now, loaded))
        return replace(found, queue_seconds=queue.seconds(found))

    def page() -> str:
        return tables.status_page(gathered(), terminal_width())

    if not watch:
        found = gathered()
        show(partial(tables.status_page, found), found.as_json(), as_json)
    elif as_json:
        report.follow(lambda: print(json.dumps(gathered().as_json()), flush=True))
    elif not sys.stdout.isatty():
        report.follow(lambda: print(page(), end="\n\n", flush=True))
    else:
        with Live(auto_refresh=False, vertical_overflow="crop") as live:
            report.follow(lambda: live.update(Text(page(), overflow="fold"), refresh=True))


def history(  # noqa: PLR0917 (a command line, not a call)
    job: Annotated[
        str,
        typer.Argument(
            help="Job id, id prefix or name: show everything about this job.",
            autocompletion=completion.jobs,
        ),
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
            found = find_job(ledger, job)
            events = ledger.events(found.id)
            show(partial(tables.story, found, events), report.story(found, events), as_json)
        else:
            moment = report.parse_since(since)
            jobs = ledger.history(*(state or []), since=moment, name=name, limit=limit)
            if jobs or as_json:
                show(partial(tables.history, jobs), [report.brief(j) for j in jobs], as_json)
            else:
                matching = " that match" if state or since or name != "*" else ""
                streams.notice(f"there are no jobs{matching}", level=6)


def retry(  # noqa: PLR0917 (a command line, not a call)
    jobs: Annotated[
        list[str] | None,
        typer.Argument(help=JOBS_HELP, autocompletion=completion.jobs_to_retry),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All jobs that failed or were quarantined.")
    ] = False,
    settings: SetOption = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="Ignore this key of the job's settings file; may be repeated."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Named set of settings; see `nst-daemon presets`.")
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(min=-MAX_PRIORITY, max=MAX_PRIORITY, help="New priority in the queue."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Retry jobs that failed or were cancelled, also with other settings (if no daemon is running, at its next start).

    With --set and the like, the settings are checked at once and kept with the job. A job that would be refused again
    is not retried.

    Exit code 0: requested; 2: a job is unknown or has a picture; 4: a job would be refused again.
    """
    if failed == bool(jobs):
        raise UsageError("name the jobs to retry, or use --failed")
    loaded = configured(config)
    written = assignments(settings or []) | ({} if preset is None else {"preset": preset})
    changes = retry_check.changes_of(written, unset or (), priority)
    states = (JobState.FAILED, JobState.QUARANTINED) if failed else ()
    with LedgerReader.attach(loaded.folders.ledger) as ledger:
        found = requests.selected(ledger, "retry", jobs or [], states, loaded.folders.results)
        problems = retry_check.refused(loaded, ledger, found, changes)
        if problems and not failed:
            raise next(iter(problems.values()))
        possible = [job for job in found if job.id not in problems]
        useless = {job.id: retry_check.not_set(loaded, job, changes) for job in possible}
        requests.store(ledger, "retry", possible, changes)
    _tell("retry", possible, loaded, str(changes))
    _tell_none("to retry", found)
    for job in possible:
        if keys := useless[job.id]:
            keys_text = printable(", ".join(keys))
            streams.notice(
                f"{printable(job.name)} does not set {keys_text}: --unset changes nothing there",
                level=4,
            )
    for job in found:
        if job.id in problems:
            streams.notice(printable(str(problems[job.id])), level=4)
    if problems:
        raise typer.Exit(InputError.exit_code)


def cancel(
    jobs: UnfinishedJobs = None,
    queued: QueuedOption = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All jobs that have not ended.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Cancel jobs that are waiting or being painted (if no daemon is running, at its next start).

    The pictures of cancelled jobs go to failed/, where `retry` finds them. Exit code 0: requested, or cancelled
    before; 2: a job is unknown, or has ended otherwise.
    """
    if bool(jobs) + queued + everything != 1:
        raise UsageError("name the jobs to cancel, or use --queued or --all")
    loaded = configured(config)
    states = requests.QUEUED if queued else requests.UNFINISHED if everything else ()
    with LedgerReader.attach(loaded.folders.ledger) as ledger:
        found = requests.selected(ledger, "cancel", jobs or [], states, loaded.folders.results)
        requests.store(ledger, "cancel", found)
    _tell("cancel", _not_before("cancel", found), loaded)
    _tell_none("to cancel", found)


def priority(
    value: Annotated[
        int,
        typer.Argument(metavar="N", min=-MAX_PRIORITY, max=MAX_PRIORITY, help="The new priority."),
    ],
    jobs: UnfinishedJobs = None,
    queued: QueuedOption = False,
    config: ConfigOption = None,
) -> None:
    """Change the priority of jobs that have not ended (if no daemon is running, at its next start).

    Jobs with a higher priority are painted first; N is from -1000 to 1000, and 0 is the priority of a job that names
    none. Jobs of equal priority keep their order. Exit code 0: requested; 2: a job is unknown, or has ended.
    """
    if bool(jobs) == queued:
        raise UsageError("name the jobs, or use --queued")
    loaded = configured(config)
    states = requests.QUEUED if queued else ()
    with LedgerReader.attach(loaded.folders.ledger) as ledger:
        found = requests.selected(ledger, "priority", jobs or [], states, loaded.folders.results)
        requests.store(ledger, "priority", found, requests.priority_of(value))
    _tell("priority", found, loaded, str(value))
    _tell_none("in the queue", found)


def delete(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(help=JOBS_HELP, autocompletion=completion.jobs_to_delete),
    ] = None,
    state: Annotated[
        list[JobState] | None,
        typer.Option(help="All jobs that have ended in this state; may be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Delete the files of jobs that have ended: pictures, and inputs in done/ or failed/ (if no daemon is running, at
    its next start).

    The jobs stay in the history. Files that are not a job's own any more are left alone. The command asks before,
    unless --yes is given. Exit code 0: requested, or deleted before; 2: a job is unknown or has not ended, or --yes is
    missing where nothing can be asked; 130: the answer was no.
    """
    states = state or []
    if bool(jobs) == bool(states):
        raise UsageError("name the jobs to delete, or use --state")
    if running := [s for s in states if not s.terminal]:
        raise UsageError(
            f"jobs in the state {running[0]} have not ended", remedy="cancel them first"
        )
    loaded = configured(config)
    with LedgerReader.attach(loaded.folders.ledger) as ledger:
        found = requests.selected(ledger, "delete", jobs or [], states, loaded.folders.results)
        new = _not_before("delete", found)
        if new and not yes:
            _confirm_deletion(new)
        requests.store(ledger, "delete", new)
    _tell("delete", new, loaded)
    _tell_none("to delete", found)


def _tell_none(what: str, found: Sequence[Job]) -> None:
    if not found:
        streams.notice(f"there are no jobs {what}", level=6)


def _confirm_deletion(jobs: Sequence[Job]) -> None:
    """Ask on the terminal. Raises Cancelled for no, UsageError without a terminal."""
    if not sys.stdin.isatty():
        raise UsageError("files cannot be restored once they are deleted", remedy="add --yes")
    for job in jobs[:MOST_LISTED]:
        print(f"{printable(job.name)} ({job.short_id}), {job.state}")
    if (more := len(jobs) - MOST_LISTED) > 0:
        print(f"and {more} more")
    if not typer.confirm(f"Delete the files of {count(len(jobs), 'job')}?"):
        raise Cancelled("nothing was deleted")


def _not_before(verb: Verb, jobs: Sequence[Job]) -> list[Job]:
    """The jobs of which something is requested for the first time; the others are named."""
    what, new = "cancelled" if verb == "cancel" else "deleted", []
    for job in jobs:
        if requests.done_before(verb, job):
            streams.notice(f"{printable(job.name)} ({job.short_id}) was {what} before", level=6)
        else:
            new.append(job)
    return new


def _tell(verb: Verb, jobs: Sequence[Job], config: Config, how: str = "") -> None:
    """Print the jobs of which something is requested."""
    from nst_daemon.ops.status import served

    for job in jobs:
        print(
            f"{verb}: {printable(job.name)} ({job.short_id})"
            + (f", {printable(how)}" if how else "")
        )
        if verb == "retry" and job.state is JobState.QUARANTINED:
            streams.notice(
                f"{printable(job.name)} ended its worker {job.deaths} times, and is tried again from the beginning",
                level=6,
            )
    if jobs and not served(config.folders.state):
        streams.notice("no daemon is running; the next one to start does it", level=6)
