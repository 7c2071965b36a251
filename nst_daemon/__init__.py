"""nst-daemon: a watched folder that paints.

The Python API: `stylize` and `Stylizer` paint pictures, and return a `Result`. Its errors are kinds of `NstError`. The
names are loaded, with torch, when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nst_daemon.api.result import Result
    from nst_daemon.api.stylizer import Stylizer, stylize
    from nst_daemon.engine.settings import RenderSettings
    from nst_daemon.errors import (
        DeviceError,
        InputError,
        ModelError,
        NstError,
        OutOfMemory,
        PaintingError,
        PictureError,
        SettingsError,
        StorageError,
        UsageError,
    )

__version__ = version("nst-daemon")
_MODULES = {
    "nst_daemon.api.result": ("Result",),
    "nst_daemon.api.stylizer": ("Stylizer", "stylize"),
    "nst_daemon.engine.settings": ("RenderSettings",),
    "nst_daemon.errors": (
        "DeviceError",
        "InputError",
        "ModelError",
        "NstError",
        "OutOfMemory",
        "PaintingError",
        "PictureError",
        "SettingsError",
        "StorageError",
        "UsageError",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [  # noqa: RUF022 (constants first)
    "__version__",
    "DeviceError",
    "InputError",
    "ModelError",
    "NstError",
    "OutOfMemory",
    "PaintingError",
    "PictureError",
    "RenderSettings",
    "Result",
    "SettingsError",
    "StorageError",
    "Stylizer",
    "UsageError",
    "stylize",
]


if not TYPE_CHECKING:  # a checker that knew of it would accept every name

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(_HOME[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
