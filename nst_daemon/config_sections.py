"""The sections of the configuration: every key with its default and its help text.

`config.Config` puts them together, and adds the keys that belong to no section. `make config` writes config.yaml from
them, and a test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BeforeValidator, ByteSize, ConfigDict

from nst_daemon.key_types import DayCount, PositiveMinutes, PositiveSeconds, Seconds
from nst_daemon.pictures.formats import NAMES, checked_names
from nst_daemon.pictures.output_formats import (
    OUTPUT_KEYS,
    Depth,
    OutputName,
    named_format,
    output_format,
)

MiB = 1024 * 1024
#: The smallest limits.max_memory. Measured with one picture of 64 px and 2 threads (VmData, torch 2.9): a worker needs
#: 1.4 GiB to export its network at its first start, and 1.1 GiB later.
MINIMUM_MEMORY = ByteSize(1536 * MiB)


def setting(default: Any, help: str, allowed: str = "") -> Any:
    """A key with its default and its help text. allowed: describes its values, if the type does not."""
    metadata = {"help": help, "allowed": allowed}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class Section:
    """Unknown keys are errors, so that a misspelt key is not ignored."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Folders(Section):
    """Folders. Each is inside `root` unless it is an absolute path. `root` is relative to the folder of this file."""

    root: Path = setting(Path("nst"), "the folder that contains the others")
    inbox: Path = setting(Path("inbox"), "drop pictures here")
    styles: Path = setting(
        Path("styles"), "the style library; each style gets a folder in the inbox"
    )
    results: Path = setting(Path("results"), "finished pictures")
    done: Path = setting(Path("done"), "inputs of finished jobs")
    failed: Path = setting(Path("failed"), "inputs of failed jobs, each with an error.txt")
    state: Path = setting(
        Path("state"), "ledger, spool, checkpoints and caches; must be on a local disk"
    )

    @property
    def ledger(self) -> Path:
        """The ledger's database file."""
        return self.state / "ledger.sqlite"

    @property
    def status(self) -> Path:
        """The live status of the running daemon, read by `nst-daemon status`."""
        return self.state / "status.json"

    @property
    def spool(self) -> Path:
        """The inputs of each job that has not ended, in a folder named after its id."""
        return self.state / "spool"

    @property
    def stage(self) -> Path:
        """The files that a worker has written for a job, in a folder named after its id."""
        return self.state / "stage"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints of interrupted paintings, in files named after the job's id."""
        return self.state / "checkpoints"

    @property
    def uploads(self) -> Path:
        """Pictures that were uploaded to the page, until they expire."""
        return self.state / "uploads"

    @property
    def batches(self) -> Path:
        """The pictures that were uploaded for batches, in folders named after them."""
        return self.state / "batches"

    @property
    def logs(self) -> Path:
        """The output of each worker since its last start."""
        return self.state / "logs"

    @property
    def previews(self) -> Path:
        """The previews of current paintings; a hidden folder."""
        return self.results / ".preview"

    @property
    def cache(self) -> Path:
        """ONNX files and style statistics."""
        return self.state / "cache"


@dataclass(frozen=True)
class Model(Section):
    """The feature network."""

    network: Literal["vgg19", "vgg16", "efficientnet_b0"] = setting(
        "vgg19",
        "the network; only the weights of vgg19 are included: `nst-daemon model fetch --network NAME` downloads others",
    )
    weights: str = setting(
        "auto",
        "auto uses the ImageNet weights if they are on this machine, and the bundled ones otherwise",
        "auto, imagenet, bundled or a path",
    )


@dataclass(frozen=True)
class Service(Section):
    """Waiting, monitoring and retrying. Times are in seconds, or have a unit: 90s, 5m, 2h, 7d."""

    settle_seconds: Seconds = setting(
        2.0, "a file is picked up when it has not changed for this long"
    )
    rescan_seconds: PositiveSeconds = setting(
        30.0, "the inbox is scanned at least this often, even if the kernel reports no change"
    )
    pair_timeout: Seconds = setting(
        3600.0, "an incomplete pair waits this long for its missing files, then moves to failed/"
    )
    pair_by_order: bool = setting(
        False,
        "true: two pictures without roles, alone in a folder of the inbox, are a pair; the first to arrive is the "
        "content; of two that arrive within a second, the one whose name comes first; no effect with default_style",
    )
    truncated_grace: Seconds = setting(
        60.0,
        "an incomplete file, or a file that a program has open for writing, is picked up when it has not changed for "
        "this long; free_style.jpg waits this long for the rest of a pair before it uses default_style",
    )
    checkpoint_seconds: PositiveSeconds = setting(
        30.0, "the time between checkpoints; a crash loses at most this much painting"
    )
    stall_seconds: PositiveSeconds = setting(
        300.0, "a worker that makes no progress for this long is replaced"
    )
    stop_seconds: PositiveSeconds = setting(
        20.0, "when the daemon stops, its workers have this long to write their checkpoints"
    )
    max_attempts: Annotated[int, Ge(1)] = setting(3, "a job fails after this many attempts")
    active_hours: str = setting(
        "",
        "the hours in which pictures are painted; at other times files are picked up, nothing is painted, and the "
        "devices are released; the default time zone is that of the system; empty: always",
        "hours such as Mon-Fri 22:00-06:00, Sat-Sun 00:00-24:00 Europe/Berlin",
    )

    @property
    def order_window(self) -> float | None:
        """Seconds within which two pictures must arrive to be paired by their order; None if they are not paired."""
        return self.pair_timeout if self.pair_by_order else None


def _enough_memory(limit: ByteSize) -> ByteSize:
    if 0 < limit < MINIMUM_MEMORY:
        raise ValueError(
            f"a worker needs at least {MINIMUM_MEMORY.human_readable()}; write that or more, or 0 for no limit"
        )
    return limit


@dataclass(frozen=True)
class Limits(Section):
    """Limits for inputs, jobs and resources."""

    max_bytes: ByteSize = setting(ByteSize(256 * MiB), "the largest input file")
    max_pixels: Annotated[int, Ge(1)] = setting(150_000_000, "the largest input picture, in pixels")
    max_side: Annotated[int, Ge(16)] = setting(
        30_000, "the longest side of an input picture, in pixels"
    )
    formats: Annotated[tuple[str, ...], AfterValidator(checked_names)] = setting(
        NAMES,
        "the formats of image files that are read; a file of another format fails",
        f"a list of formats among {', '.join(NAMES)}",
    )
    max_job_minutes: PositiveMinutes = setting(
        240.0, "an attempt at a job fails after this many minutes"
    )
    min_free_disk: ByteSize = setting(
        ByteSize(512 * MiB), "the queue pauses while less disk space than this is free"
    )
    max_memory: Annotated[ByteSize, AfterValidator(_enough_memory)] = setting(
        ByteSize(0),
        "the memory of each worker process on the CPU; a picture that does not fit is painted in tiles; decoding a "
        "file may take half of it; 0: no limit but that of the machine or the control group",
        "0, or a size of at least 1.5GiB",
    )


@dataclass(frozen=True)
class Outputs(Section):
    """The files of a result."""

    format: Annotated[OutputName, BeforeValidator(named_format)] = setting(
        "png", "the format of pictures"
    )
    depth: Depth = setting(
        8, "bits per channel: 8 for all formats, 16 for png, tiff and jxl, 10 for avif"
    )
    quality: Annotated[int, Ge(1), Le(100)] = setting(92, "the quality of jpg, webp, avif and jxl")
    loss_plot: bool = setting(True, "write NAME.loss.png, the loss curve")
    progress: bool = setting(True, "write NAME.progress.webp, a time-lapse of the painting")
    preview: bool = setting(
        True, "update results/.preview/NAME.jpg every few seconds during painting"
    )
    gallery: bool = setting(
        False, "write results/index.html again after each result; see `nst-daemon gallery`"
    )
    contact_sheet: bool = setting(
        True, "write contact-sheet.jpg into a batch's folder when the batch ends"
    )
    overwrite: bool = setting(
        False,
        "true: a new result replaces an older one of the same name; false: it is called NAME-2",
    )

    @property
    def picture(self) -> dict[str, object]:
        """Format, depth and, where it applies, quality: what else than the painting decides the picture's file."""
        keys = OUTPUT_KEYS if output_format(self.format).quality else OUTPUT_KEYS[:-1]
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Keep(Section):
    """How long files are kept, in days; null: for ever."""

    done_days: DayCount | None = setting(None, "the inputs of finished jobs, in done/")
    failed_days: DayCount | None = setting(None, "the inputs of failed jobs, in failed/")
    previews_days: DayCount | None = setting(
        7.0, "the last previews of jobs that ended without a picture, in results/.preview/"
    )
    ledger_days: DayCount | None = setting(
        None,
        "the history of ended jobs; not less than done_days and failed_days; after that, the inputs of a job are "
        "kept, and a batch that needs its picture paints it again",
    )


@dataclass(frozen=True)
class Ray(Section):
    """The Ray cluster of `executor: ray`; see docs/scaling.md."""

    address: str = setting(
        "auto",
        "the head of the cluster: auto or HOST:PORT if this machine is a node of the cluster, ray://HOST:PORT if not",
        "auto, HOST:PORT or ray://HOST:PORT",
    )
    gpus_per_job: Annotated[float, Ge(0), Le(1)] = setting(
        1.0, "GPUs for each worker; a fraction shares a GPU; 0 paints on CPUs"
    )
    cpus_per_job: Annotated[float, Gt(0)] = setting(
        2.0, "CPUs for each worker, and the number of its threads"
    )
    max_in_flight: Annotated[int, Ge(1)] = setting(
        64,
        "at most this many jobs are handed to the cluster; each worker paints one and prepares another",
    )


@dataclass(frozen=True)
class Cache(Section):
    """The cache of style statistics."""

    max_bytes: ByteSize = setting(
        ByteSize(1024 * MiB), "the oldest entries are removed if the cache exceeds this size"
    )


@dataclass(frozen=True)
class Metrics(Section):
    """Metrics for Prometheus."""

    textfile: Path | None = setting(
        None,
        "a file for node_exporter's textfile collector; null: none",
        "a path that ends with .prom, or null",
    )
    port: Annotated[int, Ge(0), Le(65535)] = setting(0, "the HTTP port of the metrics; 0: none")
    address: str = setting("127.0.0.1", "the address of that port; there is no password")


@dataclass(frozen=True)
class Hooks(Section):
    """Commands that run after a job, as lists of arguments. Their environment has JOB_ID, JOB_NAME, JOB_STATE,
    JOB_RESULT, JOB_INPUTS and JOB_ERROR."""

    done: list[str] = setting(
        [], "runs after a result", "a command such as [/usr/local/bin/notify, --quiet]"
    )
    failed: list[str] = setting(
        [],
        "runs after a job failed or was quarantined",
        "a command such as [/usr/local/bin/notify, --quiet]",
    )
    timeout: PositiveSeconds = setting(60.0, "a command that takes longer is killed")
    pass_environment: list[str] = setting(
        [],
        "the tokens, keys and passwords in the daemon's environment that commands get; all others are removed",
        "a list of variables such as [SMTP_PASSWORD]",
    )


#: What a message can be about.
NotifyEvent = Literal["done", "failed", "batch", "paused", "resumed"]
#: The number of `notify.urls`, and the characters of each: what a message needs must fit into a pipe.
MOST_URLS, URL_CHARACTERS = 30, 1000


def _words(value: object) -> object:
    """Words in a text, as a variable has them, become a list."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _lines(value: object) -> object:
    """A single URL, or several with spaces between them, become a list."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        return value
    return [url for text in found for url in text.split()]


def _checked_urls(urls: list[str]) -> list[str]:
    # No message may contain a URL: it is a secret.
    if len(urls) > MOST_URLS:
        raise ValueError(f"at most {MOST_URLS} URLs are possible")
    for number, url in enumerate(urls, 1):
        if len(url) > URL_CHARACTERS:
            raise ValueError(f"URL {number} has more than {URL_CHARACTERS} characters")
        if not re.fullmatch(r"[A-Za-z][\w+.-]*://[!-~]+", url, re.ASCII):
            raise ValueError(f"URL {number} is not SCHEME://…; write it as Apprise documents it")
    return urls


@dataclass(frozen=True)
class Notify(Section):
    """Messages by mail, chat, push services and webhooks, with the extra `notify`; see docs/notifications.md."""

    urls: Annotated[list[str], BeforeValidator(_lines), AfterValidator(_checked_urls)] = setting(
        [],
        "where messages go, as URLs of Apprise; they contain passwords and keys, so better set them as the variable "
        "NST_NOTIFY__URLS, with spaces between them; empty: no messages",
        "a list of URLs such as [mailtos://NAME:PASSWORD@example.org, ntfy://TOPIC]",
    )
    events: Annotated[list[NotifyEvent], BeforeValidator(_words)] = setting(
        ["done", "failed", "batch", "paused", "resumed"],
        "what messages are about: a painted picture, a failed job, the end of a batch (its pictures get no messages of "
        "their own then), the queue paused, the queue resumed",
        "a list among done, failed, batch, paused, resumed",
    )
    interval: Seconds = setting(
        60.0,
        "what happens within this time after a message becomes one message; while messages follow each other without "
        "a break the time doubles, up to an hour",
    )
    attach_picture: bool = setting(
        True, "attach a reduced copy of the picture to a message about a single picture"
    )


@dataclass(frozen=True)
class Log(Section):
    """The log on standard error."""

    format: Literal["auto", "text", "journal", "json"] = setting(
        "auto", "the format of log lines; auto is journal under systemd, and text otherwise"
    )
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "lines below this level are left out"
    )
