"""The device that pictures are painted on: a CPU or an NVIDIA GPU."""

from __future__ import annotations

import getpass
import os
import platform
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch

from nst_daemon.errors import DeviceError
from nst_daemon.machine import useful_threads


def all_devices() -> tuple[str, ...]:
    """The name of every GPU that torch can use, else the CPU's."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(f"cuda:{i}" for i in range(count)) or ("cpu",)


def use_threads(number: int) -> None:
    """Set the CPU threads of this process, within reason."""
    torch.set_num_threads(useful_threads(number))


def find_device(name: str = "auto") -> torch.device:
    """The device of this name.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, …; `auto` is the first GPU that torch can use, else the CPU.

    Raises:
        DeviceError: There is no such device.
    """
    _name_user()
    if name == "auto":
        return torch.device(all_devices()[0])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"unknown device {name!r}", remedy="devices are auto, cpu, cuda, cuda:1, …"
        ) from error
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"there is no {device}: torch sees {count} NVIDIA GPUs",
                remedy="check nvidia-smi and `nst-daemon doctor`, or use another device",
            )
    elif device.type != "cpu":
        raise DeviceError(f"{name} is not supported", remedy="use cpu or an NVIDIA GPU (cuda)")
    return device


def _name_user() -> None:
    """Give a user without a name one: torch names a folder after the user, and could not be used otherwise."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # KeyError until Python 3.12
        os.environ["LOGNAME"] = str(os.getuid())


def device_name(device: torch.device) -> str:
    """The product name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU this thread's current one, for operations that take it implicitly: streams, graphs, DLPack."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
