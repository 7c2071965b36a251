"""A repeated function as a CUDA graph: the GPU runs hundreds of kernels in a row without waiting for Python."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

import torch

from nst_daemon.engine.memory import exhausted
from nst_daemon.errors import first_line

log = logging.getLogger(__name__)

Run = Callable[[], object]
#: Captures a function and returns what repeats it.
Capture = Callable[[Run], Run]

#: Held during a capture, and by operations that would spoil it from another thread: onnxruntime synchronises the whole
#: device when it makes a session.
CAPTURE_LOCK = threading.Lock()
#: Calls before the capture, in which libraries allocate what they allocate once for each size.
WARM_UP = 1


class Repeated:
    """A function that works in place on the same memory at each call: after the first call it is captured and replayed.

    If the capture fails, the log says so and the function itself is called from then on.

    Args:
        run: Must not read values on the host, nor allocate except through torch. Its out-of-memory errors are raised.
        capture: Makes the graph, for tests without a GPU.
    """

    #: False on the class turns capturing off, for comparisons.
    usable = True

    def __init__(self, run: Run, capture: Capture | None = None) -> None:
        self._run, self._capture = run, capture or cuda_graph
        self._calls = 0

    def __call__(self) -> None:
        if self._calls == WARM_UP and self.usable:
            self._run = self._captured()
        self._calls += 1
        self._run()

    def _captured(self) -> Run:
        """What replays the function, or the function itself."""
        try:
            return self._capture(self._run)
        except Exception as error:  # noqa: BLE001 (painting continues without a graph)
            if memory_error := _memory_error(error):
                try:
                    raise memory_error from None
                finally:
                    # Its traceback refers to this frame: the cycle would keep alive all that filled the memory.
                    del memory_error
            warn_once(f"painting without a CUDA graph: {first_line(error)}")
            return self._run


def cuda_graph(run: Run) -> Run:
    """Capture a function as a CUDA graph; it is not run."""
    current = torch.cuda.current_stream()
    stream = _capture_stream(current.device_index)
    pool, graph = torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph()
    try:
        # thread_local: another thread prepares the next picture, with operations that are illegal in a capture.
        with (
            CAPTURE_LOCK,
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            run()
    except BaseException:
        _clean_up(current, pool)
        raise
    return graph.replay


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """The stream on which a device's graphs are captured: only one, because cuBLAS keeps memory for each stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _clean_up(stream: torch.cuda.Stream, pool: Any) -> None:
    """After a failed capture: restore the stream and the generator, and return the pool to the allocator.

    If the end of a capture fails, torch 2.11 leaves the thread on the other stream and the allocator bound to the
    pool, so that it would never return unused memory. There is no public function for the second.
    """
    torch.cuda.set_stream(stream)
    with suppress(RuntimeError, AttributeError):  # the capture may have released it by itself
        torch._C._cuda_endAllocateToPool(stream.device_index, pool)
        torch._C._cuda_releasePool(stream.device_index, pool)
    # The generator would refuse to make numbers: it is still marked as being captured.
    generator = torch.cuda.default_generators[stream.device_index]
    generator.graphsafe_set_state(generator.clone_state())


def _memory_error(error: BaseException) -> BaseException | None:
    """The out-of-memory error in a chain of exceptions: after one, the end of a capture fails with another error."""
    found: BaseException | None = error
    while found is not None and not exhausted(found):
        found = found.__context__
    return found


@lru_cache(maxsize=16)
def warn_once(text: str) -> None:
    """Log a warning the first time it occurs."""
    log.warning("%s", text)
