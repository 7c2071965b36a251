"""What several rooms' tests share."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Tests that import onnxruntime by themselves report nothing either (see `engine.onnx_session.load_onnxruntime`).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# OpenMP's threads wait for each other spinning, which on a machine that others use too makes an iteration of the
# painting several times slower (4.1 s against 1.1 s at a load of 7 on two cores). Read when torch is loaded, here and
# in every process that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Container images often set this variable. Each of the thousand processes that the tests start would then compile the
# program anew, which is half of the 1.2 s that a command takes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: processes that share the files should not wait for one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write no file of more bytes, as on a disk that becomes full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def reachable() -> Iterator[Path]:
    """An empty folder that every user can reach, which is not so for `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="nst-reachable-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is not a file system of its own")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the ONNX file of the default settings, which is made from the package's graph.

    It is called `nst-daemon`, so its parent serves as XDG_CACHE_HOME.
    """
    from nst_daemon.engine.settings import resolve
    from nst_daemon.painter import Painter

    folder = tmp_path_factory.mktemp("cache") / "nst-daemon"
    assert (
        Painter(device="cpu", cache_dir=folder, cache_bytes=0).targets(resolve({})).file.is_file()
    )
    return folder


@pytest.fixture(scope="session")
def statistics_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that computes the statistics of five layers, and the map of another."""
    from nst_daemon.engine.settings import resolve
    from nst_daemon.painter import Painter

    painter = Painter(device="cpu", cache_dir=tmp_path_factory.mktemp("cache"), cache_bytes=0)
    five = {f"relu{i}_1": 0.2 for i in range(1, 6)}
    chosen = {"style_loss": "gram", "style_layers": five, "content_layers": {"relu4_2": 1.0}}
    return painter.targets(resolve(chosen)).file
