"""What shells complete: presets, settings, jobs, styles, devices, keys and batch files.

A completion never fails and prints no message: without a configuration, a library or a ledger it finds nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import typer

from nst_daemon import config
from nst_daemon.config import Config
from nst_daemon.config_report import setting_keys
from nst_daemon.engine.presets import PRESETS
from nst_daemon.intake.library import list_styles, usable
from nst_daemon.jobs import Job
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.ops.requests import actions, possible
from nst_daemon.tokens import listed

Found = list[tuple[str, str]]
#: The variable in which a shell says which completion it wants; see typer's documentation.
VARIABLE = "_NST_DAEMON_COMPLETE"
#: At most so many jobs are looked up, the newest first.
_MOST_JOBS = 300
#: A ledger that is busy for longer has nothing to complete.
_BUSY_SECONDS = 0.2
#: The KEY of an assignment of which bash completes only the VALUE.
_KEY = "_NST_DAEMON_COMPLETE_KEY"


def join_assignments(environ: MutableMapping[str, str]) -> None:
    """Put KEY, = and VALUE together again: bash divides the words of a command line at every "="."""
    if environ.get(VARIABLE) != "complete_bash":
        return
    try:
        words, current = environ["COMP_WORDS"].split("\n"), int(environ["COMP_CWORD"])
    except (KeyError, ValueError):
        return
    words += [""] * (current + 1 - len(words))
    joined: list[str] = []
    position = current
    for number, word in enumerate(words[: current + 1]):
        if joined and (word == "=" or words[number - 1] == "="):
            joined[-1] += word
            position -= 1
        else:
            joined.append(word)
    if position < current and "=" in words[current - 1 :][:2]:
        # Bash replaces only what follows the sign.
        environ[_KEY], _, joined[-1] = joined[-1].partition("=")
    environ["COMP_WORDS"], environ["COMP_CWORD"] = "\n".join(joined), str(position)


def _silent(
    find: Callable[[typer.Context, str], Iterator[tuple[str, str]]],
) -> Callable[[typer.Context, str], Found]:
    """A completion from a function that yields all words and their descriptions."""

    def complete(ctx: typer.Context, incomplete: str) -> Found:
        try:
            return [pair for pair in find(ctx, incomplete) if pair[0].startswith(incomplete)]
        except Exception:  # noqa: BLE001 (a traceback would stand in the middle of a command line)
            return []

    return complete


def _loaded(ctx: typer.Context) -> Config:
    named: Any = ctx.params.get("config")
    return config.load(Path(named) if named else None)


@_silent
def tokens(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of the tokens of the page."""
    yield from ((token.name, "") for token in listed(_loaded(ctx).folders))


@_silent
def presets(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of presets."""
    return ((name, preset.summary) for name, preset in PRESETS.items())


@_silent
def setting_names(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of settings."""
    return ((name, key.help) for name, key in setting_keys().items())


@_silent
def assignments(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """KEY= and KEY=VALUE of `--set`."""
    if name := os.environ.get(_KEY):
        return ((word, "") for word in setting_keys()[name].choices)
    name, sign, _ = incomplete.partition("=")
    if not sign:
        return ((f"{key}=", info.help) for key, info in setting_keys().items())
    return ((f"{name}={word}", "") for word in setting_keys()[name].choices)


@_silent
def config_keys(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Sections and keys of the configuration."""
    keys = config.config_keys()
    sections = dict.fromkeys(name.partition(".")[0] for name in keys if "." in name)
    yield from ((section, "a section") for section in sections)
    yield from ((name, key.help) for name, key in keys.items())


@_silent
def devices(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Devices of this machine, without loading a driver."""
    yield from (("auto", "a GPU if there is one"), ("cpu", ""))
    numbers = sorted(
        int(p.name[6:]) for p in Path("/dev").glob("nvidia[0-9]*") if p.name[6:].isdigit()
    )
    yield from (("cuda", "the first GPU"),) if numbers else ()
    yield from ((f"cuda:{number}", "") for number in numbers)


@_silent
def networks(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of networks."""
    return ((name, "") for name in config.config_keys()["model.network"].choices)


@_silent
def sizes(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Words among the sizes."""
    return iter(
        [("auto", "at most 1280 px on a GPU, 512 px on a CPU"), ("original", "the content's")]
    )


@_silent
def styles(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of library styles. Shells complete files if no name fits."""
    loaded = _loaded(ctx)
    library = list_styles(loaded.folders.styles, loaded.limits.max_bytes)
    return ((name, "a library style") for name in usable(library))


@_silent
def batch_files(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Batch files, and the folders on the way to them."""
    above = incomplete.rpartition("/")[0] + "/" if "/" in incomplete else ""
    for entry in sorted(os.scandir(above or "."), key=lambda e: e.name):
        if entry.is_dir() and not entry.name.startswith("."):
            yield f"{above}{entry.name}/", "a folder"
        elif re.search(r"\.batch\.ya?ml$", entry.name, re.IGNORECASE):
            yield above + entry.name, "a batch"


@_silent
def jobs(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of jobs."""
    return _jobs(ctx, incomplete, lambda job: True)


@_silent
def jobs_to_retry(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of jobs that have ended without a picture."""
    return _jobs(ctx, incomplete, partial(possible, "retry"))


@_silent
def jobs_to_cancel(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of jobs that have not ended."""
    return _jobs(ctx, incomplete, lambda job: not job.state.terminal)


@_silent
def jobs_to_delete(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of jobs that have ended and have files."""
    return _jobs(ctx, incomplete, lambda job: "delete" in actions(job))


def _jobs(
    ctx: typer.Context, incomplete: str, wanted: Callable[[Job], bool]
) -> Iterator[tuple[str, str]]:
    """Names, and beginnings of ids if something is written already."""
    ledger = _loaded(ctx).folders.ledger
    if not ledger.is_file():
        return
    with LedgerReader.attach(ledger, busy_seconds=_BUSY_SECONDS) as reader:
        found = [job for job in reader.history(limit=_MOST_JOBS) if wanted(job)]
    seen: set[str] = set()
    for job in found:
        if job.name not in seen:
            seen.add(job.name)
            yield job.name, f"{job.state}, {job.short_id}"
    if incomplete:
        yield from ((job.short_id, f"{job.state}, {job.name}") for job in found)
