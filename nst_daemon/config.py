"""The configuration: config.yaml and the NST_… variables, read and validated.

`config_sections` and `Config` define every key with its default and its help text. The settings of a picture (`render`)
are defined in `engine.settings.RenderSettings`.

Later sources win: defaults, then the file, then the environment. `NST_SERVICE__SETTLE_SECONDS=5` sets
`service.settle_seconds`; `variables` reads them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Le
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from nst_daemon import active_hours, strict_yaml, variables
from nst_daemon.addresses import split_address
from nst_daemon.config_paths import base_of, located
from nst_daemon.config_problems import (
    ConfigKey,
    Origins,
    Problem,
    unknown_key,
    validation_problems,
)
from nst_daemon.config_search import NAMES as FILE_NAMES
from nst_daemon.config_search import SEARCH, SHARED_NAME, FileSearch, read
from nst_daemon.config_search import search as find
from nst_daemon.config_sections import (
    MINIMUM_MEMORY,
    Cache,
    Folders,
    Hooks,
    Keep,
    Limits,
    Log,
    Metrics,
    Model,
    Notify,
    Outputs,
    Ray,
    Section,
    Service,
    setting,
)
from nst_daemon.engine.device_names import checked_devices
from nst_daemon.engine.presets import PRESETS
from nst_daemon.engine.settings import RenderSettings, resolve, settings_problems
from nst_daemon.errors import ConfigError, SettingsError
from nst_daemon.key_types import bounds, choices, describe, kind_of, without_booleans
from nst_daemon.names import shortened
from nst_daemon.pictures.output_formats import OUTPUT_KEYS, depth_problem, formats_with

__all__ = [
    "MINIMUM_MEMORY",
    "Cache",
    "Config",
    "Folders",
    "Hooks",
    "Keep",
    "Limits",
    "Log",
    "Metrics",
    "Model",
    "Notify",
    "Outputs",
    "Ray",
    "Service",
    "load",
]

#: Minimum length of the status page's token, in characters.
TOKEN_LENGTH = 16
NAMED_WEIGHTS = ("auto", "imagenet", "bundled")
#: Keys whose values are never shown or passed to another process.
SECRETS = frozenset({("status_page_token",), ("notify", "urls")})


@dataclass(frozen=True)
class Config(Section):
    """The whole configuration."""

    folders: Folders = field(default_factory=Folders)
    model: Model = field(default_factory=Model)
    devices: Annotated[Literal["auto", "cpu"] | list[str], BeforeValidator(checked_devices)] = (
        setting(
            "auto",
            "the devices of this machine that paint; auto: all GPUs, or the CPU if there is no GPU; cuda: all GPUs; "
            "a device that is listed twice has two workers",
            "auto, cpu, cuda, mps (Apple), or a list such as [cuda:0, cuda:1]",
        )
    )
    threads: Literal["auto"] | Annotated[int, Ge(1), Le(1024)] = setting(
        "auto",
        "the CPU threads of each worker on this machine, and of `nst-daemon stylize`; auto: OMP_NUM_THREADS if it is "
        "set, otherwise the CPUs that the process may use, divided by the number of workers",
    )
    executor: Literal["local", "ray"] = setting(
        "local", "where pictures are painted: on the devices of this machine, or on a Ray cluster"
    )
    ray: Ray = field(default_factory=Ray)
    default_style: str = setting(
        "",
        "the library style for single pictures; empty: none",
        "the name of a library style",
    )
    batch_roots: list[Path] = setting(
        [], "folders that a batch file in the inbox may read, in addition to styles/"
    )
    render: dict[str, Any] = setting({}, "the defaults of each job; see RenderSettings")
    service: Service = field(default_factory=Service)
    limits: Limits = field(default_factory=Limits)
    outputs: Outputs = field(default_factory=Outputs)
    keep: Keep = field(default_factory=Keep)
    cache: Cache = field(default_factory=Cache)
    metrics: Metrics = field(default_factory=Metrics)
    log: Log = field(default_factory=Log)
    hooks: Hooks = field(default_factory=Hooks)
    notify: Notify = field(default_factory=Notify)
    status_page: str = setting(
        "",
        "the address of the status page, such as 127.0.0.1:8787; empty: no page",
        "HOST:PORT",
    )
    status_page_token: str = setting(
        "",
        "a token of the status page with full access, besides those of `nst-daemon token create`; better set it as the "
        "variable NST_STATUS_PAGE_TOKEN",
        f"at least {TOKEN_LENGTH} ASCII characters without spaces",
    )
    status_page_url: str = setting(
        "",
        "the address at which people open the status page, for links in messages; empty: that of status_page",
        "a URL such as https://pictures.example.org/",
    )
    source: Path | None = field(default=None, metadata={"internal": True})
    warnings: tuple[str, ...] = field(default=(), metadata={"internal": True}, compare=False)

    def render_settings(self, *overrides: Mapping[str, object]) -> RenderSettings:
        """The settings of a job: `render`, then each of the overrides; later ones win."""
        return resolve(self.render, *overrides, network=self.model.network)


_ADAPTER = TypeAdapter(Config)


@dataclass(frozen=True)
class Examined:
    """A configuration with its problems.

    Attributes:
        config: None if there are problems.
        problems: All that were found.
        search: Which file was read.
        origins: Where values come from.
    """

    config: Config | None
    problems: tuple[Problem, ...]
    search: FileSearch
    origins: Origins


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    search: Sequence[Path] = SEARCH,
) -> Config:
    """Read the configuration. `Config.warnings` are lines about what was ignored.

    Args:
        path: The file, or the folder that contains it. None tries $NST_CONFIG and then the files of `search` in this
            order; none of them has to exist.
        environ: The environment variables; None means those of this process.
        search: Files.

    Raises:
        ConfigError: The configuration is invalid. The message names the file and the key.
    """
    found = examine(path, environ, search=search)
    if found.config is None:
        raise found.problems[0].error()
    return found.config


def examine(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    search: Sequence[Path] = SEARCH,
) -> Examined:
    """As `load`, with every problem of the values. Raises ConfigError if the file or a variable is not YAML."""
    environ = os.environ if environ is None else environ
    found = find_file(path, environ, search)
    written, text = read(found.path) if found.path else ({}, "")
    given = variables.read(environ, Config, render=RenderSettings)
    origins = Origins(str(found.path or ""), strict_yaml.key_lines(text), given.names)
    _merge(written, given.values)
    config, problems = _validate(written)
    if config:
        try:
            config = _with_absolute_paths(config, found.path)
        except ConfigError as error:
            key = tuple(error.message.partition(":")[0].split("."))
            problems, config = [Problem(key, error.message, error.remedy)], None
    if found.path and found.path.name == SHARED_NAME and not found.named:
        note = f"; if the file belongs to another program, make {FILE_NAMES[0]} (it may be empty)"
        problems = [replace(p, remedy=p.remedy + note) if len(p.key) == 1 else p for p in problems]
    warnings = tuple(filter(None, (found.warning, given.warning)))
    return Examined(
        config and replace(config, warnings=warnings),
        tuple(replace(p, where=origins.of(p.key)) for p in problems),
        found,
        origins,
    )


def find_file(
    path: Path | None, environ: Mapping[str, str], search: Sequence[Path] = SEARCH
) -> FileSearch:
    """Find the file that `load` reads. Raises ConfigError."""
    return find(path, environ, search, _fields(Config()).keys())


def setting_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are settings, without secrets: for commands of this program that the daemon starts."""
    given = variables.read(environ, Config, render=RenderSettings).names
    return {name: environ[name] for key, name in given.items() if key not in SECRETS}


def place_variables(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with which a command finds the folders and the weights of a configuration from any folder.

    Args:
        config: The configuration that was read.
        environ: The variables that it was read with.
    """
    given = variables.read(environ, Config, render=RenderSettings).names
    sections: dict[str, Any] = {"folders": config.folders, "model": config.model}
    keys: set[variables.Key] = set()
    for section, *rest in given:
        if section in sections:
            names = rest or [f.name for f in dataclasses.fields(sections[section])]
            keys |= {(section, name) for name in names}
    if not config.source:
        keys.add(("folders", "root"))
    found = {variables.name_of(key): str(getattr(sections[key[0]], key[1])) for key in sorted(keys)}
    if ("batch_roots",) in given:
        found["NST_BATCH_ROOTS"] = json.dumps([str(path) for path in config.batch_roots])
    return found


@cache
def config_keys() -> Mapping[str, ConfigKey]:
    """Every key by its dotted name."""
    found: dict[str, ConfigKey] = {}
    for name, f in _fields(Config()).items():
        default = RenderSettings() if name == "render" else getattr(Config(), name)
        if dataclasses.is_dataclass(default):
            hints = get_type_hints(type(default), include_extras=True)
            for leaf, inner in _fields(default).items():
                key = f"{name}.{leaf}"
                found[key] = _described(key, getattr(default, leaf), hints[leaf], inner)
        else:
            kind = get_type_hints(Config, include_extras=True)[name]
            found[name] = _described(name, default, kind, f)
    return found


def _described(name: str, default: Any, kind: Any, f: dataclasses.Field[Any]) -> ConfigKey:
    allowed = f.metadata["allowed"] or describe(kind)
    secret = tuple(name.split(".")) in SECRETS
    words = tuple(PRESETS) if name == "render.preset" else choices(kind)
    form = (kind_of(kind) if name != "render.preset" else "choice", *bounds(kind))
    return ConfigKey(name, default, f.metadata["help"], allowed, words, secret, *form)


def _fields(section: Any) -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(section) if not f.metadata.get("internal")}


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _validate(written: dict[str, Any]) -> tuple[Config | None, list[Problem]]:
    """The configuration as it is written, or every problem of its values."""
    keys, known = config_keys(), _fields(Config())
    problems = [unknown_key((key,), keys) for key in written if key not in known]
    # A section that contains only comments is null in YAML. It means the defaults.
    written = {k: v for k, v in written.items() if v is not None and k in known}
    render = written.pop("render", {})
    if not isinstance(render, dict):
        said = f"render is a section, and {shortened(repr(render))} is not a mapping"
        problems.append(Problem(("render",), said, "write its keys below it"))
        render = {}
    written = without_booleans(written, Config)
    try:
        config = _ADAPTER.validate_python(written)
    except ValidationError as error:
        wrong = list(validation_problems(error, keys))
        problems += wrong
        # Without the values that are wrong, the others can be compared.
        config = _ADAPTER.validate_python(_without(written, [p.key for p in wrong]))
    config = replace(config, render=render)
    for key, refused in settings_problems(render, network=config.model.network):
        problems.append(_render_problem(key, refused))
    problems += contradictions(config)
    return (None, problems) if problems else (config, [])


def _without(written: dict[str, Any], wrong: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in written.items():
        if (name,) not in wrong:
            inner = isinstance(value, dict)
            kept[name] = (
                {k: v for k, v in value.items() if (name, k) not in wrong} if inner else value
            )
    return kept


def _render_problem(key: str, error: SettingsError) -> Problem:
    """A problem of the section `render`. key: of the settings; "" for several."""
    if key in OUTPUT_KEYS:
        return Problem(("render", key), f"render.{key} is not a setting", f"write outputs.{key}")
    if key and key not in {f.name for f in dataclasses.fields(RenderSettings)}:
        return unknown_key(("render", key), config_keys())
    message = f"render.{error.message}" if key else f"render: {error.message}"
    return Problem(("render", key) if key else ("render",), message, error.remedy)


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
    return replace(
        config,
        folders=Folders(**{**folders, "root": root}),
        model=replace(config.model, weights=weights),
        batch_roots=[located(base, p, "batch_roots", resolve=True) for p in config.batch_roots],
        metrics=replace(config.metrics, textfile=textfile),
        source=source and base / source.name,
    )


def contradictions(config: Config) -> Iterator[Problem]:
    """What is wrong with values that their types allow."""
    outputs, keep, file = config.outputs, config.keep, config.metrics.textfile
    if problem := depth_problem(outputs.format, outputs.depth):
        remedy = f"change outputs.depth, or set outputs.format to {formats_with(outputs.depth)}"
        yield Problem(("outputs", "depth"), f"outputs.format {problem}", remedy)
    # The ledger lists the files in done/ and failed/ that the daemon may remove, so its entries must live longer.
    for name, days in (("done_days", keep.done_days), ("failed_days", keep.failed_days)):
        if keep.ledger_days is not None and days is not None and days > keep.ledger_days:
            said = f"keep.ledger_days ({keep.ledger_days:g}) is less than keep.{name} ({days:g})"
            remedy = f"set keep.ledger_days to {days:g} or more"
            yield Problem(("keep", "ledger_days"), said, remedy)
    # Other names may be those of files that are in use, or of devices.
    if file and file.suffix != ".prom":
        said = f"metrics.textfile: {str(file)!r} does not end with .prom"
        remedy = "choose such a name: node_exporter reads no other files"
        yield Problem(("metrics", "textfile"), said, remedy)
    # `web.options` checks that a token which is needed is set: other commands must work without it.
    token = config.status_page_token
    if token and not re.fullmatch(rf"[!-~]{{{TOKEN_LENGTH},}}", token):
        said = f"status_page_token is too short: use at least {TOKEN_LENGTH} ASCII characters without spaces"
        yield Problem(("status_page_token",), said, "create one with `openssl rand -hex 16`")
    if config.status_page_url and not re.fullmatch(r"https?://[!-~]+", config.status_page_url):
        said = f"status_page_url: {shortened(config.status_page_url)} is not a URL"
        yield Problem(("status_page_url",), said, "write https://HOST/ or http://HOST:PORT/")
    for key, check, value in (
        (("status_page",), split_address, config.status_page),
        (("service", "active_hours"), active_hours.parse, config.service.active_hours),
    ):
        try:
            if value:
                check(value)
        except ConfigError as error:
            yield Problem(key, error.message, error.remedy)
