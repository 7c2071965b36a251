"""nst-daemon: a watched folder that paints.

`stylize` and `RenderSettings` are the importable API; they load torch when they are first asked for.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nst_daemon.engine.settings import RenderSettings
    from nst_daemon.painter import stylize

__version__ = version("nst-daemon")
__all__ = ["RenderSettings", "__version__", "stylize"]


def __getattr__(name: str) -> Any:
    if name == "stylize":
        from nst_daemon.painter import stylize  # noqa: PLC0415 (torch, only for those who paint)

        return stylize
    if name == "RenderSettings":
        from nst_daemon.engine.settings import RenderSettings  # noqa: PLC0415

        return RenderSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
