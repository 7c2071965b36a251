"""Which weights, where they lie on this machine, and what is in them. Nothing here downloads anything."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError
from torch import Tensor

from nst_daemon.digests import sha256_file
from nst_daemon.engine.networks import NETWORKS
from nst_daemon.errors import ModelError, StorageError
from nst_daemon.files import write_atomic

#: torchvision's own file names; the eight digits are the first of the file's SHA-256.
IMAGENET_FILES: Mapping[str, str] = MappingProxyType(
    {name: network.weights for name, network in NETWORKS.items()}
)
#: The networks whose weights come with the package.
BUNDLED_FILES: Mapping[str, str] = MappingProxyType({"vgg19": "vgg19-tinyimagenet.safetensors"})


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that lie on this machine.

    name: `imagenet`, `bundled`, or the stem of a file of the user's own; sha256: hex digest of the whole file;
    description: half a line for people.
    """

    name: str
    path: Path
    sha256: str
    network: str
    description: str


@dataclass(frozen=True, slots=True)
class Model:
    """A row of `nst-daemon model list`.

    path: where the weights are, or would be looked for; sha256: hex digest, empty where there is no file; automatic:
    true for the one that `weights: auto` takes.
    """

    name: str
    network: str
    path: Path
    present: bool
    sha256: str
    automatic: bool
    note: str


def resolve(weights: str | Path = "auto", network: str = "vgg19") -> Weights:
    """Find the weights on this machine and take their digest.

    weights: `auto` (ImageNet's where they are, else the bundled ones), `imagenet`, `bundled` or a file in
    torchvision's layout (.pth, .safetensors). Raises ModelError where they are missing, or where torchvision's file
    is not the one that its name promises.
    """
    _check_network(network)
    match str(weights):
        case "auto":
            return resolve(_automatic(network), network)
        case "imagenet":
            return _imagenet(network)
        case "bundled":
            return _bundled(network)
        case _:
            return _file(Path(weights).expanduser(), network)


def load(weights: Weights) -> dict[str, Tensor]:
    """The tensors of the convolutions, in torchvision's layout: `features.<i>.weight`, `.bias`.

    They keep the file's precision (float16 in the bundled ones). Nothing in the file is executed. Raises ModelError
    where the file cannot be read or holds something else.
    """
    tensors = read_tensors(weights.path)
    features = {k: v for k, v in tensors.items() if k.startswith("features.")}
    if not features:
        found = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise ModelError(
            f"the weights {weights.path} hold no `features.…` (they hold {found})",
            remedy="files in other layouts are converted by `nst-daemon model import`",
        )
    if weights.name == "imagenet":
        _record(weights)
    return features


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every named tensor of a .safetensors or .pth file. Nothing in the file is executed. Raises ModelError."""
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"cannot read the weights {path}: {_first_line(error)}",
            remedy="a .safetensors or a .pth file of tensors is needed; this one is damaged or of another kind",
        ) from error


def list_models() -> list[Model]:
    """Every network's weights that this program knows of, present or not."""
    rows = []
    for network in IMAGENET_FILES:
        for name, path in (("imagenet", imagenet_path(network)), ("bundled", _packaged(network))):
            if path is not None:
                rows.append(_model(name, network, path))
    return rows


def _model(name: str, network: str, path: Path) -> Model:
    try:
        found = resolve(name, network)
    except ModelError as error:
        return Model(name, network, path, path.exists(), "", False, str(error))
    automatic = name == _automatic(network)
    return Model(name, network, path, True, found.sha256, automatic, found.description)


def imagenet_path(network: str) -> Path:
    """Where torchvision keeps this network's weights (TORCH_HOME and XDG_CACHE_HOME move it)."""
    from torch import hub  # noqa: PLC0415 (only this question needs it)

    _check_network(network)
    return Path(hub.get_dir()) / "checkpoints" / IMAGENET_FILES[network]


def _check_network(network: str) -> None:
    if network not in IMAGENET_FILES:
        known = ", ".join(IMAGENET_FILES)
        raise ModelError(f"unknown network {network!r}", remedy=f"known are: {known}")


def _automatic(network: str) -> str:
    """What `auto` means here: ImageNet's weights, unless only bundled ones are on the machine."""
    here = (imagenet_path(network)).exists()
    return "imagenet" if here or network not in BUNDLED_FILES else "bundled"


def _imagenet(network: str) -> Weights:
    path = imagenet_path(network)
    if not path.is_file():
        raise ModelError(
            f"ImageNet's weights for {network} are not on this machine ({path})",
            remedy=f"`nst-daemon model fetch --network {network}` downloads them",
        )
    digest = _digest(path)
    promised = _recorded(path) or path.stem.rpartition("-")[2]
    if not digest.startswith(promised):
        raise ModelError(
            f"{path} is damaged: its SHA-256 is {digest} and should begin with {promised}",
            remedy=f"remove it and run `nst-daemon model fetch --network {network}`",
        )
    return Weights("imagenet", path, digest, network, f"{network} trained on ImageNet, torchvision")


def _recorded(path: Path) -> str:
    """The whole digest that the file had at its first use, if anybody wrote it down; its name has eight digits."""
    try:
        return _record_of(path).read_text().partition(" ")[0]
    except OSError:
        return ""


def _record(weights: Weights) -> None:
    """Write the digest down beside the file, as sha256sum would, where that can be done."""
    if not _recorded(weights.path):
        with suppress(StorageError):
            line = f"{weights.sha256}  {weights.path.name}\n"
            write_atomic(_record_of(weights.path), line.encode())


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _bundled(network: str) -> Weights:
    path = _packaged(network)
    if path is None:
        raise ModelError(
            f"no weights for {network} come with the package",
            remedy=f"run `nst-daemon model fetch --network {network}`",
        )
    description = f"{network} trained on Tiny ImageNet, bundled"
    return Weights("bundled", path, _digest(path), network, description)


def _file(path: Path, network: str) -> Weights:
    if not path.is_file():
        raise ModelError(
            f"there are no weights at {path}",
            remedy="`weights` takes auto, imagenet, bundled or the path of a file",
        )
    return Weights(path.stem, path, _digest(path), network, f"{network} from {path.name}")


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise ModelError(
            f"cannot read the weights {path}: {error.strerror}",
            remedy="check the file's and its folders' rights",
        ) from error


def _packaged(network: str) -> Path | None:
    if network not in BUNDLED_FILES:
        return None
    return Path(str(resources.files("nst_daemon.weights") / BUNDLED_FILES[network]))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415

    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _read_pth(path: Path) -> dict[str, Tensor]:
    import torch  # noqa: PLC0415

    # weights_only refuses every pickled global but tensors and plain containers.
    content = torch.load(path, map_location="cpu", weights_only=True)
    return dict(_tensors(content))


def _tensors(content: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, Tensor):
                yield key, value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
