"""The tensors in a weights file. Nothing in the file is executed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from nst_daemon.errors import ModelError, first_line
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
    """Every named tensor of a .safetensors or .pth file. Nothing in the file is executed. Raises ModelError."""
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"cannot read the weights {path}: {first_line(error)}",
            remedy="use an undamaged .safetensors or .pth file of tensors",
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415

    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _read_pth(path: Path) -> dict[str, Tensor]:
    import torch  # noqa: PLC0415

    # weights_only refuses all pickled objects except tensors and plain containers.
    content = torch.load(path, map_location="cpu", weights_only=True)
    return dict(_tensors(content))


def _tensors(content: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, Tensor):
                yield key, value
