"""nst-daemon: a watched folder that paints."""

from importlib.metadata import version

__version__ = version("nst-daemon")
