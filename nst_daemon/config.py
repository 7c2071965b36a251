"""config.yaml and NST_… variables → validated settings.

The dataclasses below are the one home of every key, its default and its explanation; config.yaml and the
documentation are held against them by a test. What a job looks like (`render`) has its own home,
`engine.settings.RenderSettings`.

Later sources win: defaults, then the file, then the environment. `NST_SERVICE__SETTLE_SECONDS=5` sets
`service.settle_seconds`; values are written as in YAML.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ByteSize, ConfigDict, Field, TypeAdapter, ValidationError

from nst_daemon import active_hours
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.errors import ConfigError, SettingsError
from nst_daemon.strict_yaml import PlainLoader, one_line

#: Where a configuration is looked for when none is named.
SEARCH = (Path("config.yaml"), Path("/etc/nst-daemon/config.yaml"))
ENV_PREFIX = "NST_"
#: Characters of the status page's token, at least.
TOKEN_LENGTH = 16
#: Kinds of picture files that hold 16 bits a channel.
DEEP_FORMATS = ("png", "tiff")
NAMED_WEIGHTS = ("auto", "imagenet", "bundled")

Seconds = Annotated[float, Field(ge=0)]
Days = Annotated[float, Field(ge=0)] | None
MiB = 1024 * 1024


def _key(default: Any, help: str) -> Any:
    """A key with its default and its explanation."""
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


class _Strict:
    """Unknown keys are errors: a misspelt one must not be silently a default."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Folders(_Strict):
    """Where everything lies. All are below `root` unless set; relative ones are relative to the file."""

    root: Path = _key(Path("nst"), "the folder that holds all others")
    inbox: Path = _key(Path("inbox"), "where people drop pictures")
    styles: Path = _key(Path("styles"), "the library of styles; each gets a folder in the inbox")
    results: Path = _key(Path("results"), "where pictures appear")
    done: Path = _key(Path("done"), "the inputs of finished jobs")
    failed: Path = _key(Path("failed"), "the inputs of failed jobs, each with error.txt")
    state: Path = _key(Path("state"), "ledger, spool, checkpoints and caches; a local disk")

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.state / "ledger.sqlite"

    @property
    def status(self) -> Path:
        """What the running daemon says of itself, for `nst-daemon status`."""
        return self.state / "status.json"

    @property
    def spool(self) -> Path:
        """Holds the inputs of each job that has not ended, in a folder named by its id."""
        return self.state / "spool"

    @property
    def stage(self) -> Path:
        """Holds what a worker has made for a job, in a folder named by its id."""
        return self.state / "stage"

    @property
    def checkpoints(self) -> Path:
        """Holds the interrupted paintings, in files named by their job's id."""
        return self.state / "checkpoints"

    @property
    def logs(self) -> Path:
        """Holds what each worker has printed since its last start."""
        return self.state / "logs"

    @property
    def previews(self) -> Path:
        """Holds what is being painted as it looks now; hidden, and no result."""
        return self.results / ".preview"

    @property
    def cache(self) -> Path:
        """Where ONNX files and style statistics are kept."""
        return self.state / "cache"


@dataclass(frozen=True)
class Model(_Strict):
    """Which network looks at the pictures."""

    network: Literal["vgg19", "vgg16", "efficientnet_b0"] = _key(
        "vgg19",
        "the feature extractor: vgg19, vgg16 or efficientnet_b0; only VGG19's weights come along, the others need "
        "`nst-daemon model fetch --network NAME`",
    )
    weights: str = _key(
        "auto", "auto (ImageNet's where present, else bundled), imagenet, bundled or a file"
    )


@dataclass(frozen=True)
class Service(_Strict):
    """How the daemon waits, watches and retries."""

    settle_seconds: Seconds = _key(2.0, "a file must be quiet for this long before it is taken")
    rescan_seconds: Annotated[float, Field(gt=0)] = _key(
        30.0, "the inbox is scanned at least this often, whatever the kernel reports"
    )
    pair_timeout: Seconds = _key(3600.0, "how long one half of a pair waits for the other")
    truncated_grace: Seconds = _key(
        60.0, "how long a picture that ends too early may go on arriving"
    )
    checkpoint_seconds: Annotated[float, Field(gt=0)] = _key(
        30.0, "a crash costs at most this much painting"
    )
    stall_seconds: Annotated[float, Field(gt=0)] = _key(
        300.0, "a worker without progress for this long is replaced"
    )
    stop_seconds: Annotated[float, Field(gt=0)] = _key(
        20.0, "how long workers may take to write their checkpoints at the end"
    )
    max_attempts: Annotated[int, Field(ge=1)] = _key(
        3, "how often a job is tried before it has failed"
    )
    active_hours: str = _key(
        "",
        "when to paint, such as Mon-Fri 22:00-06:00, Sat-Sun 00:00-24:00 Europe/Berlin; at other times files are "
        "taken in and devices are let go; without a zone the system's; empty: always",
    )


@dataclass(frozen=True)
class Limits(_Strict):
    """What is refused, and when the queue waits."""

    max_bytes: ByteSize = _key(ByteSize(256 * MiB), "largest file that is taken from the inbox")
    max_pixels: Annotated[int, Field(ge=1)] = _key(150_000_000, "largest picture that is decoded")
    max_side: Annotated[int, Field(ge=16)] = _key(30_000, "longest side that is decoded, in pixels")
    max_job_minutes: Annotated[float, Field(gt=0)] = _key(
        240.0, "longest time for one attempt at a job"
    )
    min_free_disk: ByteSize = _key(
        ByteSize(512 * MiB), "with less free space than this the queue waits"
    )
    max_memory: ByteSize = _key(
        ByteSize(0),
        "memory that each worker on the CPU may use, from its start on; what does not fit is painted in tiles; 0: all "
        "that the machine has",
    )


@dataclass(frozen=True)
class Outputs(_Strict):
    """What a result looks like."""

    format: Literal["png", "jpg", "webp", "tiff"] = _key(
        "png", "the kind of picture file: png, jpg, webp or tiff"
    )
    depth: Literal[8, 16] = _key(8, "bits a channel: 8, or 16 for png and tiff")
    quality: Annotated[int, Field(ge=1, le=100)] = _key(92, "for jpg and webp, 1 to 100")
    loss_plot: bool = _key(True, "write NAME.loss.png: how the loss fell")
    progress: bool = _key(True, "write NAME.progress.webp: a time-lapse of the painting")
    preview: bool = _key(
        True, "show what is being painted in results/.preview/NAME.jpg, every few seconds"
    )
    gallery: bool = _key(
        False, "rewrite results/index.html after each result; see `nst-daemon gallery`"
    )
    contact_sheet: bool = _key(
        True, "write contact-sheet.jpg into the folder of a batch when it has ended"
    )
    overwrite: bool = _key(
        False, "true: a new result replaces one of the same name; false: it becomes NAME-2"
    )


@dataclass(frozen=True)
class Keep(_Strict):
    """How long what is over is kept, in days; null keeps it for ever."""

    done_days: Days = _key(None, "inputs of finished jobs in done/")
    failed_days: Days = _key(None, "inputs of failed jobs in failed/")
    previews_days: Days = _key(
        7.0, "the last preview of jobs that ended without a picture, in results/.preview/"
    )
    ledger_days: Days = _key(
        None,
        "the history of ended jobs, no less than done_days and failed_days where they are set; inputs whose job is "
        "forgotten stay, and a batch that asks for a forgotten picture paints it again",
    )


@dataclass(frozen=True)
class Ray(_Strict):
    """A Ray cluster to paint on, for `executor: ray`; see docs/scaling.md."""

    address: str = _key(
        "auto",
        "auto (this machine is one of its nodes), HOST:PORT of its head (likewise), or ray://HOST:PORT from outside",
    )
    gpus_per_job: Annotated[float, Field(ge=0, le=1)] = _key(
        1.0, "what each worker takes of a node's GPUs; a fraction shares one; 0 paints on CPUs"
    )
    cpus_per_job: Annotated[float, Field(gt=0)] = _key(
        2.0, "what each worker takes of a node's CPUs, and its threads"
    )
    max_in_flight: Annotated[int, Field(ge=1)] = _key(
        64, "at most so many jobs are with the cluster; each worker paints one and prepares one"
    )


@dataclass(frozen=True)
class Cache(_Strict):
    """Style statistics that were computed before."""

    max_bytes: ByteSize = _key(ByteSize(1024 * MiB), "the oldest are dropped beyond this size")


@dataclass(frozen=True)
class Metrics(_Strict):
    """Numbers for Prometheus."""

    textfile: Path | None = _key(
        None, "a file for node_exporter's textfile collector, NAME.prom; null: none"
    )
    port: Annotated[int, Field(ge=0, le=65535)] = _key(
        0, "a port that serves them by HTTP; 0: none"
    )
    address: str = _key("127.0.0.1", "where that port listens; there is no password")


@dataclass(frozen=True)
class Hooks(_Strict):
    """Commands after a job, as lists of arguments, with JOB_ID, JOB_NAME, JOB_STATE, JOB_RESULT, JOB_INPUTS and
    JOB_ERROR in their environment."""

    done: list[str] = _key([], "after a result, such as [/usr/local/bin/tell, --quietly]")
    failed: list[str] = _key([], "after a failure or a quarantine")
    timeout: Annotated[float, Field(gt=0)] = _key(
        60.0, "seconds after which such a command is killed"
    )


@dataclass(frozen=True)
class Log(_Strict):
    """What the daemon writes to standard error."""

    format: Literal["auto", "text", "journal", "json"] = _key(
        "auto", "auto (journal under systemd, else text), text, journal or json"
    )
    level: Literal["debug", "info", "warning", "error"] = _key(
        "info", "debug, info, warning or error"
    )


@dataclass(frozen=True)
class Config(_Strict):
    """Everything that config.yaml may say."""

    folders: Folders = field(default_factory=Folders)
    model: Model = field(default_factory=Model)
    devices: Literal["auto", "cpu"] | list[str] = _key(
        "auto", "auto (every GPU, else the CPU), cpu, or a list such as [cuda:0, cuda:1]"
    )
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = _key(
        "auto",
        "how many pictures of one size a device paints at the same time, at most: auto (on a GPU as many as should "
        "fill it, on a CPU one) or a number up to 16",
    )
    executor: Literal["local", "ray"] = _key(
        "local", "local (the devices of this machine) or ray (those of a cluster)"
    )
    ray: Ray = field(default_factory=Ray)
    default_style: str = _key("", "the library style for pictures that come alone; empty: none")
    batch_roots: list[Path] = _key(
        [], "folders outside styles/ that a batch file in the inbox may read"
    )
    render: dict[str, Any] = _key({}, "the defaults of each job: see RenderSettings")
    service: Service = field(default_factory=Service)
    limits: Limits = field(default_factory=Limits)
    outputs: Outputs = field(default_factory=Outputs)
    keep: Keep = field(default_factory=Keep)
    cache: Cache = field(default_factory=Cache)
    metrics: Metrics = field(default_factory=Metrics)
    log: Log = field(default_factory=Log)
    hooks: Hooks = field(default_factory=Hooks)
    status_page: str = _key(
        "", "where a page about all of this is served, such as 127.0.0.1:8787; empty: nowhere"
    )
    status_page_token: str = _key(
        "",
        "what that page asks of its visitors, at least 16 characters; needed beyond 127.0.0.1, and best set as "
        "NST_STATUS_PAGE_TOKEN",
    )
    source: Path | None = field(default=None, metadata={"internal": True})

    def render_settings(self, *overrides: Mapping[str, object]) -> RenderSettings:
        """The settings of a job: `render` first, then each of the overrides."""
        return resolve(self.render, *overrides, network=self.model.network)


_ADAPTER = TypeAdapter(Config)


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration.

    path: the file, or None to look at $NST_CONFIG, ./config.yaml and /etc/nst-daemon/config.yaml in this order
    (none of them has to be there). Raises ConfigError, naming the file and the key.
    """
    environ = os.environ if environ is None else environ
    found = _find(path, environ)
    written = _read(found) if found else {}
    _merge(written, _from_environment(environ))
    base = found.parent.resolve() if found else Path.cwd()
    where = str(found) if found else "the environment"
    return _validate(written, base, where, found)


def documented_keys() -> Iterator[tuple[str, Any, str]]:
    """Every key as (dotted name, default, explanation)."""
    for name, f in _fields(Config()).items():
        if dataclasses.is_dataclass(section := getattr(Config(), name)):
            for key, leaf in _fields(section).items():
                yield f"{name}.{key}", getattr(section, key), leaf.metadata["help"]
        else:
            yield name, getattr(Config(), name), f.metadata["help"]


def _fields(section: Any) -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(section) if not f.metadata.get("internal")}


def _find(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = path or (Path(environ["NST_CONFIG"]) if environ.get("NST_CONFIG") else None)
    if named is None:
        return next((p for p in SEARCH if p.is_file()), None)
    if not named.is_file():
        raise ConfigError(
            f"there is no configuration file {named}",
            remedy="name an existing file, or leave it away to use the defaults",
        )
    return named


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, Loader=PlainLoader)  # noqa: S506 (derived from the safe loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path} cannot be read: {one_line(error)}", remedy="mend the file"
        ) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a mapping of keys", remedy="see config.yaml for its form")
    return document


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """NST_A__B=value → {"a": {"b": value}}."""
    out: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(ENV_PREFIX) or name == "NST_CONFIG":
            continue
        *sections, key = name.removeprefix(ENV_PREFIX).lower().split("__")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{name} is not valid YAML: {one_line(error)}") from error
        place = out
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return out


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _validate(written: dict[str, Any], base: Path, where: str, source: Path | None) -> Config:
    if "source" in written:
        raise ConfigError(f"{where}: source is not a setting", remedy="remove it")
    # A section with nothing but comments under it is null in YAML, and means its defaults.
    written = {k: v for k, v in written.items() if v is not None}
    try:
        config = _ADAPTER.validate_python(written)
    except ValidationError as error:
        raise ConfigError(
            f"{where}: {_explain(error)}", remedy="see config.yaml for every key"
        ) from error
    try:
        config.render_settings()
    except SettingsError as error:
        raise ConfigError(f"{where}: render: {error.message}", remedy=error.remedy) from error
    _check_keep(config.keep, where)
    _check_page(config.status_page, config.status_page_token, where)
    _check_depth(config.outputs, where)
    active_hours.parse(config.service.active_hours)
    return dataclasses.replace(
        config,
        folders=_absolute(config.folders, base),
        model=dataclasses.replace(config.model, weights=_weights(config.model.weights, base)),
        batch_roots=[(base / p).resolve() for p in config.batch_roots],
        metrics=dataclasses.replace(
            config.metrics, textfile=config.metrics.textfile and base / config.metrics.textfile
        ),
        source=source.resolve() if source else None,
    )


def _check_depth(outputs: Outputs, where: str) -> None:
    if outputs.depth == 16 and outputs.format not in DEEP_FORMATS:
        raise ConfigError(
            f"{where}: outputs.format {outputs.format} holds 8 bits a channel, not 16",
            remedy=f"set outputs.depth to 8, or outputs.format to {' or '.join(DEEP_FORMATS)}",
        )


def _check_keep(keep: Keep, where: str) -> None:
    """The ledger knows which files in done/ and failed/ are the daemon's to remove; so it forgets last."""
    if keep.ledger_days is None:
        return
    for name, days in (("done_days", keep.done_days), ("failed_days", keep.failed_days)):
        if days is not None and days > keep.ledger_days:
            raise ConfigError(
                f"{where}: keep.ledger_days ({keep.ledger_days:g}) is less than keep.{name} ({days:g})",
                remedy="keep the ledger's history at least as long as the files it knows of",
            )


def _check_page(address: str, token: str, where: str) -> None:
    """An address that is one, and no token that could be guessed. That there is one, `ops.status_page` sees to: only
    the daemon may have it, in its environment, and what others run must work without."""
    if token and not re.fullmatch(rf"[!-~]{{{TOKEN_LENGTH},}}", token):
        raise ConfigError(
            f"{where}: status_page_token is too easily guessed: it needs {TOKEN_LENGTH} or more of ASCII's characters",
            remedy="make one with `openssl rand -hex 16`",
        )
    if address:
        split_address(address)


def split_address(text: str) -> tuple[str, int]:
    """HOST:PORT or [IPv6]:PORT → host and port. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare and bare == host) or not re.fullmatch(r"[1-9]\d{0,4}", port):
        raise ConfigError(
            f"status_page {text!r} is not HOST:PORT", remedy="write 127.0.0.1:8787 or [::1]:8787"
        )
    return bare, int(port)


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _absolute(folders: Folders, base: Path) -> Folders:
    root = (base / folders.root.expanduser()).resolve()
    rest = {
        f.name: root / getattr(folders, f.name).expanduser() for f in dataclasses.fields(folders)
    }
    return Folders(**{**rest, "root": root})


def _weights(named: str, base: Path) -> str:
    """A file is relative to the configuration, like every path in it; the words stand for themselves."""
    if named in NAMED_WEIGHTS:
        return named
    return str((base / Path(named).expanduser()).resolve())


def _explain(error: ValidationError) -> str:
    """The first problem of several in one line."""
    first = error.errors(include_url=False)[0]
    # The tail of a location may name a branch of a union ("list[str]"): keys are what people wrote.
    key = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key} is not a setting"
    return f"{key}: {first['msg']}, got {first['input']!r}"
