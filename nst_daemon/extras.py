"""Optional packages: which are missing, and the command that installs those of an extra of this package."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import requires
from importlib.util import find_spec


def missing(*modules: str) -> list[str]:
    """Those of these modules that are not installed."""
    return [name for name in modules if not _installed(name)]


def install(extra: str) -> str:
    """The remedy for a missing module of an extra.

    The command names the packages, and not the extra of nst-daemon: it then also works where nst-daemon was installed
    from a checkout, a file or a system package that pip does not find.
    """
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    if missing("pip"):  # environments of uv
        pip = f"uv pip install --python {shlex.quote(sys.executable)}"
    wanted = packages(extra, requires("nst-daemon") or [])
    return f"install the extra {extra}: {pip} {' '.join(shlex.quote(name) for name in wanted)}"


def packages(extra: str, requirements: Iterable[str]) -> Iterator[str]:
    """The packages that an extra adds, such as `uvicorn>=0.34`.

    Args:
        extra: its name.
        requirements: lines of package metadata, such as `uvicorn>=0.34; extra == "web"`.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 (the client should import little)

    for requirement in map(Requirement, requirements):
        marker, requirement.marker = requirement.marker, None
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield str(requirement)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # sys.modules has None for it
        return False
