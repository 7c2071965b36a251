"""The tensors in a weights file. Nothing in the file is executed."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from nst_daemon.engine.memory import exhausted
from nst_daemon.errors import ModelError, NstError, OutOfMemory
from nst_daemon.weights_file import WeightsFile, record_digest


def load(weights: WeightsFile) -> dict[str, Tensor]:
    """The tensors of the convolutions, in torchvision's layout: `features.<i>.weight`, `.bias`.

    They keep the file's precision (float16 in the bundled file). Nothing in the file is executed.

    Raises:
        ModelError: The file cannot be read, or has another layout.
    """
    tensors = read_tensors(weights.path)
    features = {k: v for k, v in tensors.items() if k.startswith("features.")}
    if not features:
        found = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise ModelError(
            f"the weights {weights.path} have no `features.…` (they have {found})",
            remedy="`nst-daemon model import` converts other layouts",
        )
    record_digest(weights)
    return features


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every named tensor of a .safetensors or .pth file. Nothing in the file is executed.

    Raises:
        ModelError: The file cannot be read.
        OutOfMemory: It does not fit into the free memory.
    """
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    except Exception as error:
        raise unreadable(path, error) from error


#: The formats of weights files, by suffix; a file with another suffix is read as .pth.
_SUFFIXES = (".pth", ".pt", ".safetensors", ".mat", ".h5")


def unreadable(path: Path, error: Exception) -> NstError:
    """The error for a weights file that a library cannot read.

    The libraries' own texts are not passed on: torch's advises to load the file with `weights_only=False`, which
    executes code in it.
    """
    if exhausted(error):
        return OutOfMemory(
            f"there is not enough memory to read the weights {path}", remedy="free some memory"
        )
    if isinstance(error, OSError) and error.strerror:
        cause, remedy = error.strerror, "check the file and its permissions"
    elif isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
        cause = "it contains objects other than tensors, which may execute code and are not loaded"
        remedy = "get a file from which only tensors were saved (a state_dict)"
    elif path.suffix in _SUFFIXES:
        cause, remedy = f"it is damaged, or not a {path.suffix} file", "get the file again"
    else:
        cause = "it is not a file of weights"
        remedy = f"name a file that ends with {', '.join(_SUFFIXES)}"
    return ModelError(f"cannot read the weights {path}: {cause}", remedy=remedy)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415

    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _read_pth(path: Path) -> dict[str, Tensor]:
    import torch  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about TorchScript archives, which are then refused
        # weights_only refuses all pickled objects except tensors and plain containers.
        content = torch.load(path, map_location="cpu", weights_only=True)
    return dict(_tensors(content))


def _tensors(content: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, Tensor):
                yield key, value
