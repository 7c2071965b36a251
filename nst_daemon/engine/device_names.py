"""The names of devices, as people write them in `devices`, NST_DEVICES and `--device`: without torch.

`auto`: all GPUs, or the CPU if there is none. `cuda` or `gpu`: all GPUs of NVIDIA or AMD; torch names both `cuda`.
`cuda:0`: one GPU. `mps`: Apple's GPU. `cpu`: the CPU. A single picture is painted on the first of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ALLOWED = "use auto, cpu, cuda (all NVIDIA or AMD GPUs), cuda:0, cuda:1, …, mps or a list of these"
#: Names that the worker replaces by those of the devices that it finds.
OPEN = ("auto", "cuda")


def device_name_of(text: str) -> str:
    """The name of a device in its usual form: `CUDA:0` and `gpu:0` are `cuda:0`. Raises ValueError."""
    name = re.sub(r"^gpu(?=:|$)", "cuda", text.strip().lower())
    if not re.fullmatch(r"auto|cpu|mps|cuda|cuda:(0|[1-9]\d{0,3})", name):
        raise ValueError(f"unknown device {text!r}: {ALLOWED}")
    return name


def checked_devices(value: object) -> object:
    """The value of `devices`: `auto`, `cpu` or a list of names. Raises ValueError; leaves other types as they are."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return value
    names = [device_name_of(text) for text in texts]
    if not names:
        raise ValueError(f"no device is named: {ALLOWED}")
    if len(names) > 1 and "auto" in names:
        raise ValueError("auto cannot be combined with other devices")
    if "cuda" in names and sum(name.startswith("cuda") for name in names) > 1:
        raise ValueError("cuda means all GPUs and cannot be combined with another GPU")
    return names[0] if names in (["auto"], ["cpu"]) else names


def first_device(devices: str | Sequence[str]) -> str:
    """The device for a single picture."""
    return devices if isinstance(devices, str) else devices[0]
