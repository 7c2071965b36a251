"""Optional packages: which are missing, and the command that installs an extra of this package."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def missing(*modules: str) -> list[str]:
    """Those of these modules that are not installed."""
    return [name for name in modules if not _installed(name)]


def install(extra: str) -> str:
    """The remedy for a missing module of an extra."""
    return f"install it: {sys.executable} -m pip install 'nst-daemon[{extra}]'"


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # sys.modules has None for it
        return False
