"""The configuration: config.yaml and the NST_… variables, read and validated.

The dataclasses below define every key with its default and its help text. `make config` writes config.yaml from them,
and a test compares the two. The settings of a picture (`render`) are defined in `engine.settings.RenderSettings`.

Later sources win: defaults, then the file, then the environment. `NST_SERVICE__SETTLE_SECONDS=5` sets
`service.settle_seconds`; `variables` reads them.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from nst_daemon import active_hours, strict_yaml, variables
from nst_daemon.addresses import split_address
from nst_daemon.config_paths import base_of, located
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.errors import ConfigError, SettingsError
from nst_daemon.names import printable
from nst_daemon.pictures.formats import NAMES, checked_names
from nst_daemon.pictures.output_formats import (
    OUTPUT_KEYS,
    Depth,
    OutputName,
    depth_problem,
    formats_with,
    named_format,
    output_format,
)

#: The files that are tried, in this order, if no configuration file is named.
SEARCH = (Path("config.yaml"), Path("/etc/nst-daemon/config.yaml"))
#: Minimum length of the status page's token, in characters.
TOKEN_LENGTH = 16
NAMED_WEIGHTS = ("auto", "imagenet", "bundled")
#: Keys whose values are never shown or passed to another process.
SECRETS = frozenset({("status_page_token",)})

MiB = 1024 * 1024
#: The smallest limits.max_memory. Measured with one picture of 64 px and 2 threads (VmData, torch 2.9): a worker needs
#: 1.4 GiB to export its network at its first start, and 1.1 GiB later.
MINIMUM_MEMORY = ByteSize(1536 * MiB)

Seconds = Annotated[float, Field(ge=0)]
Days = Annotated[float, Field(ge=0)] | None


def _key(default: Any, help: str) -> Any:
    """A key with its default and its help text."""
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


class _Strict:
    """Unknown keys are errors, so that a misspelt key is not ignored."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Folders(_Strict):
    """Folders. Each is inside `root` unless it is an absolute path; `root` is relative to this file."""

    root: Path = _key(Path("nst"), "the folder that contains the others")
    inbox: Path = _key(Path("inbox"), "drop pictures here")
    styles: Path = _key(Path("styles"), "the style library; each style gets a folder in the inbox")
    results: Path = _key(Path("results"), "finished pictures")
    done: Path = _key(Path("done"), "inputs of finished jobs")
    failed: Path = _key(Path("failed"), "inputs of failed jobs, each with an error.txt")
    state: Path = _key(
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
class Model(_Strict):
    """The feature network."""

    network: Literal["vgg19", "vgg16", "efficientnet_b0"] = _key(
        "vgg19",
        "vgg19, vgg16 or efficientnet_b0; only VGG19's weights are included, the others need "
        "`nst-daemon model fetch --network NAME`",
    )
    weights: str = _key(
        "auto", "auto (ImageNet if present, else bundled), imagenet, bundled, or a file"
    )


@dataclass(frozen=True)
class Service(_Strict):
    """Waiting, monitoring and retrying. Times are in seconds."""

    settle_seconds: Seconds = _key(2.0, "a file is picked up once it has not changed for this long")
    rescan_seconds: Annotated[float, Field(gt=0)] = _key(
        30.0, "the inbox is scanned at least this often, even if the kernel reports no change"
    )
    pair_timeout: Seconds = _key(3600.0, "how long an incomplete pair waits for its missing files")
    truncated_grace: Seconds = _key(
        60.0,
        "an incomplete file, or one that a program still has open for writing, is picked up once it has not changed "
        "for this long; free_style.jpg waits as long for the rest of a pair before it takes default_style",
    )
    checkpoint_seconds: Annotated[float, Field(gt=0)] = _key(
        30.0, "time between checkpoints; a crash loses at most this much painting"
    )
    stall_seconds: Annotated[float, Field(gt=0)] = _key(
        300.0, "a worker that makes no progress for this long is replaced"
    )
    stop_seconds: Annotated[float, Field(gt=0)] = _key(
        20.0, "how long workers may take to write their checkpoints when the daemon stops"
    )
    max_attempts: Annotated[int, Field(ge=1)] = _key(
        3, "how many times a job is attempted before it fails"
    )
    active_hours: str = _key(
        "",
        "when to paint, such as Mon-Fri 22:00-06:00, Sat-Sun 00:00-24:00 Europe/Berlin; the default zone is the "
        "system's; at other times files are picked up, nothing is painted and the devices are released; empty: always",
    )


def _enough_memory(limit: ByteSize) -> ByteSize:
    if 0 < limit < MINIMUM_MEMORY:
        raise ValueError(
            f"a worker needs at least {MINIMUM_MEMORY.human_readable()}; 0 means no limit of its own"
        )
    return limit


@dataclass(frozen=True)
class Limits(_Strict):
    """Limits for inputs, jobs and resources."""

    max_bytes: ByteSize = _key(ByteSize(256 * MiB), "largest input file")
    max_pixels: Annotated[int, Field(ge=1)] = _key(150_000_000, "largest input picture, in pixels")
    max_side: Annotated[int, Field(ge=16)] = _key(
        30_000, "longest side of an input picture, in pixels"
    )
    formats: Annotated[tuple[str, ...], AfterValidator(checked_names)] = _key(
        NAMES, "formats of image files that are read; a file of another format fails"
    )
    max_job_minutes: Annotated[float, Field(gt=0)] = _key(
        240.0, "longest time for one attempt at a job, in minutes"
    )
    min_free_disk: ByteSize = _key(
        ByteSize(512 * MiB), "the queue pauses if less disk space than this is free"
    )
    max_memory: Annotated[ByteSize, AfterValidator(_enough_memory)] = _key(
        ByteSize(0),
        "memory limit of each worker process on the CPU, at least 1.5GiB; a picture that does not fit is painted in "
        "tiles, and decoding one file may take half of it; 0: all memory of the machine or its control group",
    )


@dataclass(frozen=True)
class Outputs(_Strict):
    """The files of a result."""

    format: Annotated[OutputName, BeforeValidator(named_format)] = _key(
        "png", "picture format: png, jpg, webp, tiff, avif or jxl"
    )
    depth: Depth = _key(8, "bits per channel: 8, 16 for png, tiff and jxl, or 10 for avif")
    quality: Annotated[int, Field(ge=1, le=100)] = _key(
        92, "quality of jpg, webp, avif and jxl, 1 to 100"
    )
    loss_plot: bool = _key(True, "write NAME.loss.png, the loss curve")
    progress: bool = _key(True, "write NAME.progress.webp, a time-lapse of the painting")
    preview: bool = _key(True, "update results/.preview/NAME.jpg every few seconds during painting")
    gallery: bool = _key(
        False, "rewrite results/index.html after each result; see `nst-daemon gallery`"
    )
    contact_sheet: bool = _key(
        True, "write contact-sheet.jpg into a batch's folder when the batch ends"
    )
    overwrite: bool = _key(
        False,
        "true: a new result replaces an older one of the same name; false: it is called NAME-2",
    )

    @property
    def picture(self) -> dict[str, object]:
        """Format, depth and, where it applies, quality: what else than the painting decides the picture's file."""
        keys = OUTPUT_KEYS if output_format(self.format).quality else OUTPUT_KEYS[:-1]
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Keep(_Strict):
    """Retention in days; null keeps files for ever."""

    done_days: Days = _key(None, "inputs of finished jobs in done/")
    failed_days: Days = _key(None, "inputs of failed jobs in failed/")
    previews_days: Days = _key(
        7.0, "last previews of jobs that ended without a picture, in results/.preview/"
    )
    ledger_days: Days = _key(
        None,
        "history of ended jobs; must not be less than done_days and failed_days; inputs of a job that was removed from "
        "the history are kept, and a batch that needs its picture paints it again",
    )


@dataclass(frozen=True)
class Ray(_Strict):
    """The Ray cluster of `executor: ray`; see docs/scaling.md."""

    address: str = _key(
        "auto",
        "auto or HOST:PORT of the head if this machine is a node of the cluster, ray://HOST:PORT if it is not",
    )
    gpus_per_job: Annotated[float, Field(ge=0, le=1)] = _key(
        1.0, "GPUs for each worker; a fraction shares a GPU; 0 paints on CPUs"
    )
    cpus_per_job: Annotated[float, Field(gt=0)] = _key(
        2.0, "CPUs for each worker, and the number of its threads"
    )
    max_in_flight: Annotated[int, Field(ge=1)] = _key(
        64,
        "maximum number of jobs handed to the cluster; each worker paints one and prepares another",
    )


@dataclass(frozen=True)
class Cache(_Strict):
    """The cache of style statistics."""

    max_bytes: ByteSize = _key(
        ByteSize(1024 * MiB), "the oldest entries are removed if the cache exceeds this size"
    )


@dataclass(frozen=True)
class Metrics(_Strict):
    """Metrics for Prometheus."""

    textfile: Path | None = _key(
        None, "a file NAME.prom for node_exporter's textfile collector; null: none"
    )
    port: Annotated[int, Field(ge=0, le=65535)] = _key(0, "HTTP port of the metrics; 0: none")
    address: str = _key("127.0.0.1", "address of that port; there is no password")


@dataclass(frozen=True)
class Hooks(_Strict):
    """Commands that run after a job, as lists of arguments. Their environment has JOB_ID, JOB_NAME, JOB_STATE,
    JOB_RESULT, JOB_INPUTS and JOB_ERROR."""

    done: list[str] = _key([], "after a result, such as [/usr/local/bin/notify, --quiet]")
    failed: list[str] = _key([], "after a job failed or was quarantined")
    timeout: Annotated[float, Field(gt=0)] = _key(
        60.0, "a command is killed after this many seconds"
    )
    pass_environment: list[str] = _key(
        [],
        "variables of the daemon that commands get although they hold secrets, such as [SMTP_PASSWORD]; all other "
        "tokens, keys and passwords are removed from their environment",
    )


@dataclass(frozen=True)
class Log(_Strict):
    """The log on standard error."""

    format: Literal["auto", "text", "journal", "json"] = _key(
        "auto", "auto (journal under systemd, else text), text, journal or json"
    )
    level: Literal["debug", "info", "warning", "error"] = _key(
        "info", "debug, info, warning or error"
    )


@dataclass(frozen=True)
class Config(_Strict):
    """The whole configuration."""

    folders: Folders = field(default_factory=Folders)
    model: Model = field(default_factory=Model)
    devices: Literal["auto", "cpu"] | list[str] = _key(
        "auto",
        "auto (all GPUs, or the CPU if there is none), cpu, or a list such as [cuda:0, cuda:1]",
    )
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = _key(
        "auto",
        "maximum number of pictures of one size that a device paints at the same time: auto (several on a GPU, one on "
        "a CPU) or a number up to 16",
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = _key(
        "auto",
        "CPU threads of each worker on this machine, and of stylize: a number, or auto (OMP_NUM_THREADS if it is set, "
        "else the CPUs within the affinity and the control group's quota, divided by the number of workers)",
    )
    executor: Literal["local", "ray"] = _key(
        "local", "local (the devices of this machine) or ray (a Ray cluster)"
    )
    ray: Ray = field(default_factory=Ray)
    default_style: str = _key("", "the library style for single pictures; empty: none")
    batch_roots: list[Path] = _key(
        [], "folders, besides styles/, that a batch file in the inbox may read"
    )
    render: dict[str, Any] = _key({}, "the defaults of each job; see RenderSettings")
    service: Service = field(default_factory=Service)
    limits: Limits = field(default_factory=Limits)
    outputs: Outputs = field(default_factory=Outputs)
    keep: Keep = field(default_factory=Keep)
    cache: Cache = field(default_factory=Cache)
    metrics: Metrics = field(default_factory=Metrics)
    log: Log = field(default_factory=Log)
    hooks: Hooks = field(default_factory=Hooks)
    status_page: str = _key(
        "", "address of the status page, such as 127.0.0.1:8787; empty: no page"
    )
    status_page_token: str = _key(
        "",
        "token of the status page, at least 16 characters; needed if other machines can reach the page; best set as "
        "NST_STATUS_PAGE_TOKEN",
    )
    source: Path | None = field(default=None, metadata={"internal": True})
    warning: str = field(default="", metadata={"internal": True}, compare=False)

    def render_settings(self, *overrides: Mapping[str, object]) -> RenderSettings:
        """The settings of a job: `render`, then each of the overrides; later ones win."""
        return resolve(self.render, *overrides, network=self.model.network)


_ADAPTER = TypeAdapter(Config)


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    search: Sequence[Path] = SEARCH,
) -> Config:
    """Read the configuration. `Config.warning` names variables that look like settings and are none.

    Args:
        path: The file. None tries $NST_CONFIG and then the files of `search` in this order; none of them has to exist.
        environ: The environment variables; None means those of this process.
        search: Files.

    Raises:
        ConfigError: The configuration is invalid. The message names the file and the key.
    """
    environ = os.environ if environ is None else environ
    found = _find(path, environ, search)
    written = _read(found) if found else {}
    given = variables.read(environ, Config, render=RenderSettings)
    _merge(written, given.values)
    where = str(found) if found else "the environment"
    config = _validate(written, where, found, given.names)
    return dataclasses.replace(config, warning=given.warning)


def setting_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are settings, without secrets: for commands of this program that the daemon starts."""
    given = variables.read(environ, Config, render=RenderSettings).names
    return {name: environ[name] for key, name in given.items() if key not in SECRETS}


def documented_keys() -> Iterator[tuple[str, Any, str]]:
    """Every key as (dotted name, default, help text)."""
    for name, f in _fields(Config()).items():
        if dataclasses.is_dataclass(section := getattr(Config(), name)):
            for key, leaf in _fields(section).items():
                yield f"{name}.{key}", getattr(section, key), leaf.metadata["help"]
        else:
            yield name, getattr(Config(), name), f.metadata["help"]


def _fields(section: Any) -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(section) if not f.metadata.get("internal")}


def _find(path: Path | None, environ: Mapping[str, str], search: Sequence[Path]) -> Path | None:
    named = environ.get(variables.CONFIG_FILE)
    path = path or (Path(named) if named else None)
    if path is None:
        return next((p for p in search if _is_present(p)), None)
    if not os.path.lexists(path):
        raise ConfigError(
            f"the configuration file {path} does not exist",
            remedy="name an existing file, or none to use the defaults",
        )
    return path


def _is_present(path: Path) -> bool:
    """True for a file, and for one of the system that this user may not look for: it would hold other settings."""
    try:
        return path.is_file()
    except PermissionError:
        return path.is_absolute()


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.is_fifo() and path.parts[1:2] != ("dev",):  # `--config <(…)` is /dev/fd/63
            raise ConfigError(f"{path} is a named pipe", remedy="name a file")
        return strict_yaml.parse_mapping(path.read_bytes(), str(path))
    except OSError as error:
        remedy = "check its permissions" if path.is_file() else "name a file"
        raise ConfigError(f"{path} cannot be read: {error.strerror}", remedy=remedy) from error
    except SettingsError as error:
        raise ConfigError(error.message, remedy="see config.yaml for its form") from error


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _validate(
    written: dict[str, Any], where: str, source: Path | None, names: Mapping[variables.Key, str]
) -> Config:
    """The configuration with absolute paths. names: the variables, by the keys that they set."""
    for f in dataclasses.fields(Config):
        if f.name in written and "internal" in f.metadata:
            raise ConfigError(f"{where}: {f.name} is not a setting", remedy="remove it")
    # A section that contains only comments is null in YAML. It means the defaults.
    written = {k: v for k, v in written.items() if v is not None}
    try:
        config = _ADAPTER.validate_python(written)
    except ValidationError as error:
        raise _as_config_error(error, where, names) from error
    for key in config.render.keys() & set(OUTPUT_KEYS):
        raise ConfigError(f"{where}: render.{key} is not a setting", remedy=f"write outputs.{key}")
    try:
        config.render_settings()
    except SettingsError as error:
        raise ConfigError(f"{where}: render: {error.message}", remedy=error.remedy) from error
    _check_keep(config.keep, where)
    _check_textfile(config.metrics.textfile, where)
    _check_page(config.status_page, config.status_page_token, where)
    _check_depth(config.outputs, where)
    active_hours.parse(config.service.active_hours)
    return _with_absolute_paths(config, source)


def _with_absolute_paths(config: Config, source: Path | None) -> Config:
    base = base_of(source)
    root = located(base, config.folders.root, "folders.root", resolve=True)
    folders = {
        f.name: located(root, getattr(config.folders, f.name), f"folders.{f.name}")
        for f in dataclasses.fields(Folders)
    }
    weights, textfile = config.model.weights, config.metrics.textfile
    if weights not in NAMED_WEIGHTS:
        weights = str(located(base, Path(weights), "model.weights", resolve=True))
    if textfile:
        textfile = located(base, textfile, "metrics.textfile")
    return dataclasses.replace(
        config,
        folders=Folders(**{**folders, "root": root}),
        model=dataclasses.replace(config.model, weights=weights),
        batch_roots=[located(base, p, "batch_roots", resolve=True) for p in config.batch_roots],
        metrics=dataclasses.replace(config.metrics, textfile=textfile),
        source=source and base / source.name,
    )


def _check_depth(outputs: Outputs, where: str) -> None:
    if problem := depth_problem(outputs.format, outputs.depth):
        raise ConfigError(
            f"{where}: outputs.format {problem}",
            remedy=f"change outputs.depth, or set outputs.format to {formats_with(outputs.depth)}",
        )


def _check_textfile(file: Path | None, where: str) -> None:
    """Other names may be those of files that are in use, or of devices."""
    if file and file.suffix != ".prom":
        said = f"{where}: metrics.textfile {printable(str(file))} does not end in .prom"
        raise ConfigError(said, remedy="choose such a name: node_exporter reads no other files")


def _check_keep(keep: Keep, where: str) -> None:
    """The ledger lists the files in done/ and failed/ that the daemon may remove, so its entries must live longer."""
    if keep.ledger_days is None:
        return
    for name, days in (("done_days", keep.done_days), ("failed_days", keep.failed_days)):
        if days is not None and days > keep.ledger_days:
            raise ConfigError(
                f"{where}: keep.ledger_days ({keep.ledger_days:g}) is less than keep.{name} ({days:g})",
                remedy=f"set keep.ledger_days to {days:g} or more",
            )


def _check_page(address: str, token: str, where: str) -> None:
    """Check the address, and the token if there is one.

    `service.status_page` checks that a needed token is set: only the daemon has to know it, and the commands that other
    people run must work without it.
    """
    if token and not re.fullmatch(rf"[!-~]{{{TOKEN_LENGTH},}}", token):
        raise ConfigError(
            f"{where}: status_page_token is too short: use at least {TOKEN_LENGTH} ASCII characters without spaces",
            remedy="create one with `openssl rand -hex 16`",
        )
    if address:
        split_address(address)


def _as_config_error(
    error: ValidationError, where: str, names: Mapping[variables.Key, str]
) -> ConfigError:
    """The first validation error in one line."""
    first, *others = error.errors(include_url=False)
    # The end of a location may name a branch of a union ("list[str]"), which is not a key.
    parts = tuple(str(part) for part in first["loc"] if "[" not in str(part))
    where = next((names[parts[:n]] for n in (2, 1) if parts[:n] in names), where)
    key, remedy = ".".join(parts), "see config.yaml for every key"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return ConfigError(f"{where}: {key} is not a setting", remedy=remedy)
    if first["type"] in ("string_type", "path_type"):
        # YAML reads yes and 007 as other things than text.
        remedy = "write it in quotes"
    got = "" if parts in SECRETS else f", got {first['input']!r}"
    alike = [e for e in (first, *others) if e["loc"][: len(parts)] == first["loc"][: len(parts)]]
    allowed = [e["msg"] for e in alike]
    said = " or ".join(dict.fromkeys(allowed)).replace(" or Input should be ", " or ")
    said = f"{where}: {key}: {said.removeprefix('Value error, ')}{got}"
    return ConfigError(said, remedy=remedy)
