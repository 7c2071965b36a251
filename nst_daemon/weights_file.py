"""Which weights are in use, where their file is, and its digest: without torch, and without a network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from nst_daemon.digests import sha256_file
from nst_daemon.engine.networks import NETWORKS
from nst_daemon.errors import ModelError, StorageError
from nst_daemon.files import fingerprint, make_folder, read_file, write_atomic
from nst_daemon.suggestions import did_you_mean
from nst_daemon.units import size

#: torchvision's file names; the eight digits are the first of the file's SHA-256.
IMAGENET_FILES: Mapping[str, str] = MappingProxyType(
    {name: network.weights for name, network in NETWORKS.items()}
)
#: The networks whose weights are part of the package.
BUNDLED_FILES: Mapping[str, str] = MappingProxyType({"vgg19": "vgg19-tinyimagenet.safetensors"})
#: No weights of these networks are larger, in double precision and with the classifier.
MAX_BYTES = 4 << 30
#: The file in the cache folder that holds the digests of unchanged weights.
DIGESTS = "weights.json"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A weights file on this machine.

    Attributes:
        name: `imagenet`, `bundled`, or the stem of the user's own file.
        path: the file.
        sha256: hex digest of the whole file.
        network: the network that the weights belong to.
        description: a short description for people.
        warning: one line if `auto` selected these weights because ImageNet's file cannot be used; else empty.
    """

    name: str
    path: Path
    sha256: str
    network: str
    description: str
    warning: str = ""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A row of `nst-daemon model list`.

    Attributes:
        path: where the file is, or where it is expected.
        sha256: hex digest, empty if there is no valid file.
        automatic: true for the weights that `weights: auto` selects.
        note: a description, or what is wrong with the file.
    """

    name: str
    network: str
    path: Path
    present: bool
    sha256: str
    automatic: bool
    note: str


class ModelChoice(Protocol):
    """The part of the configuration that selects a model: `config.Model`."""

    @property
    def network(self) -> str: ...

    @property
    def weights(self) -> str: ...


def configured_weights(model: ModelChoice, cache: Path) -> WeightsFile:
    """Find the weights that the configuration selects now.

    Args:
        model: network and weights, as configured.
        cache: the cache folder. The digest is read from there while the file is unchanged.

    Raises:
        ModelError: the weights are missing or damaged.
    """
    return find_weights(model.weights, model.network, cache=cache)


def find_weights(
    weights: str | Path = "auto", network: str = "vgg19", *, cache: Path | None = None
) -> WeightsFile:
    """Find weights on this machine and compute their digest.

    Args:
        weights: `auto` (ImageNet's if their file is present and undamaged, else the bundled ones), `imagenet`,
            `bundled`, or a file in torchvision's layout (.pth, .safetensors).
        network: a name in `engine.networks`.
        cache: a folder that keeps digests of unchanged files; without it the whole file is read.

    Raises:
        ModelError: the weights are missing, or torchvision's file has another digest than its name states.
    """
    check_network(network)
    match str(weights):
        case "auto":
            return _automatic(network, cache)
        case "imagenet":
            return _imagenet(network, cache)
        case "bundled":
            return _bundled(network, cache)
        case _:
            return _own_file(Path(os.path.expanduser(weights)), network, cache)  # noqa: PTH111


def list_models() -> list[ModelRow]:
    """List the weights of every known network, present or not."""
    rows = []
    for network in IMAGENET_FILES:
        for name, path in (("imagenet", imagenet_path(network)), ("bundled", _packaged(network))):
            if path is not None:
                rows.append(_row(name, network, path))
    return rows


def _row(name: str, network: str, path: Path) -> ModelRow:
    try:
        found = find_weights(name, network)
    except ModelError as error:
        return ModelRow(name, network, path, os.path.lexists(path), "", False, str(error))
    automatic = name == _automatic(network, None).name
    return ModelRow(name, network, path, True, found.sha256, automatic, found.description)


def imagenet_path(network: str) -> Path:
    """Where torchvision keeps this network's weights: `torch.hub.get_dir()`, computed without importing torch."""
    check_network(network)
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    # Unlike Path.expanduser, this does not raise for users without a home folder.
    home = os.path.expanduser(os.environ.get("TORCH_HOME", f"{cache}/torch"))  # noqa: PTH111
    return Path(home) / "hub" / "checkpoints" / IMAGENET_FILES[network]


def check_network(network: str) -> None:
    """Raise ModelError if the network is unknown."""
    if network not in IMAGENET_FILES:
        known = ", ".join(IMAGENET_FILES)
        hint = did_you_mean(network, IMAGENET_FILES)
        remedy = f"known networks: {known}" + (f" ({hint})" if hint else "")
        raise ModelError(f"unknown network {network!r}", remedy=remedy)


def record_digest(weights: WeightsFile) -> None:
    """Write the digest of ImageNet's weights beside the file, in the format of sha256sum, where that is possible.

    From then on the file is compared with its whole digest; its name holds only the first eight digits.
    """
    if weights.name == "imagenet" and not _recorded(weights.path):
        with suppress(StorageError):
            line = f"{weights.sha256}  {weights.path.name}\n"
            write_atomic(_record_of(weights.path), line.encode())


def _automatic(network: str, cache: Path | None) -> WeightsFile:
    """The weights that `auto` selects: ImageNet's; the bundled ones if ImageNet's file is missing or damaged."""
    if network not in BUNDLED_FILES:
        return _imagenet(network, cache)
    if not os.path.lexists(imagenet_path(network)):
        return _bundled(network, cache)
    try:
        return _imagenet(network, cache)
    except ModelError as error:
        warning = f"{error.message}; the bundled weights are used instead; {error.remedy}"
        return replace(_bundled(network, cache), warning=warning)


def _imagenet(network: str, cache: Path | None) -> WeightsFile:
    path = imagenet_path(network)
    fetch = f"`nst-daemon model fetch --network {network}`"
    if not os.path.lexists(path):
        raise ModelError(
            f"ImageNet's weights for {network} are not on this machine ({path})",
            remedy=f"{fetch} downloads them",
        )
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises for folders without permission)
        raise ModelError(f"{path} is not a file", remedy=f"remove it and run {fetch}")
    digest = _digest(path, cache)
    expected = _recorded(path) or path.stem.rpartition("-")[2]
    if not digest.startswith(expected):
        raise ModelError(
            f"{path} is damaged: its SHA-256 is {digest} and should begin with {expected}",
            remedy=f"remove it and run {fetch}",
        )
    description = f"{network} trained on ImageNet, torchvision"
    return WeightsFile("imagenet", path, digest, network, description)


def _recorded(path: Path) -> str:
    """The whole digest that was recorded when the file was first used, or an empty string."""
    try:
        return read_file(_record_of(path)).decode().partition(" ")[0]
    except (OSError, UnicodeDecodeError):
        return ""


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _bundled(network: str, cache: Path | None) -> WeightsFile:
    path = _packaged(network)
    if path is None:
        raise ModelError(
            f"the package has no weights for {network}",
            remedy=f"run `nst-daemon model fetch --network {network}`",
        )
    description = f"{network} trained on Tiny ImageNet, bundled"
    return WeightsFile("bundled", path, _digest(path, cache), network, description)


def _packaged(network: str) -> Path | None:
    if network not in BUNDLED_FILES:
        return None
    return Path(str(resources.files("nst_daemon.weights") / BUNDLED_FILES[network]))


def _own_file(path: Path, network: str, cache: Path | None) -> WeightsFile:
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises for folders without permission)
        raise ModelError(
            f"there is no weights file at {path}",
            remedy="`weights` is auto, imagenet, bundled or the path of a file",
        )
    description = f"{network} from {path.name}"
    return WeightsFile(path.stem, path, _digest(path, cache), network, description)


def check_size(path: Path) -> None:
    """Raise ModelError for a file that is too large to be weights: to read it could take hours."""
    found = path.stat().st_size
    if found > MAX_BYTES:
        raise ModelError(
            f"{path} is not a weights file: it has {size(found)}, and weights have at most {size(MAX_BYTES)}",
            remedy="get the file again",
        )


def _digest(path: Path, cache: Path | None) -> str:
    """The SHA-256 of a file; with a cache folder, the file is read again only after its fingerprint has changed."""
    try:
        check_size(path)
        if cache is None:
            return sha256_file(path)
        version = list(fingerprint(path.stat()))
        known = _read_digests(cache / DIGESTS)
        entry = known.get(str(path))
        if isinstance(entry, dict) and entry.get("fingerprint") == version:
            return str(entry["sha256"])
        digest = sha256_file(path)
    except OSError as error:
        raise ModelError(
            f"cannot read the weights {path}: {error.strerror}",
            remedy="check the permissions of the file and of its folders",
        ) from error
    known[str(path)] = {"fingerprint": version, "sha256": digest}
    with suppress(StorageError):  # without a writable cache, the file is read again next time
        make_folder(cache)
        write_atomic(cache / DIGESTS, json.dumps(known).encode())
    return digest


def _read_digests(path: Path) -> dict[str, object]:
    """The cached digests; empty if the file is missing or damaged."""
    try:
        known = json.loads(read_file(path))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
