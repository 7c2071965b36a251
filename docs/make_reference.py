"""Write the API reference, one HTML page for each module, from the docstrings: `make docs`."""

from __future__ import annotations

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import nst_daemon
import nst_daemon.export

FOLDER = Path(__file__).parent.parent / "build" / "docs"


def write(folder: Path) -> None:
    """Render the package into a folder.

    Raises:
        UserWarning: pdoc cannot import a module, or cannot resolve an annotation or a name in `__all__`.
    """
    # The package loads its two public names on first use, and `__all__` lists no modules. pdoc needs both.
    for name in nst_daemon.__all__:
        vars(nst_daemon)[name] = getattr(nst_daemon, name)
    modules = {module.name for module in pkgutil.iter_modules(nst_daemon.__path__)}
    nst_daemon.__all__ = sorted({*nst_daemon.__all__, *modules, "export"})
    pdoc.render.configure(docformat="google", footer_text=f"nst-daemon {nst_daemon.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # pdoc resolves the annotations of a NamedTuple's generated constructor outside its module.
        warnings.filterwarnings("ignore", r"Error parsing type annotation ForwardRef.*__init__")
        pdoc.pdoc("nst_daemon", output_directory=folder)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    write(target)
    print(target / "index.html")
