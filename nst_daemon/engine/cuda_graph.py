"""An evaluation captured as a CUDA graph: the GPU runs hundreds of kernels in a row without waiting for Python.

Only the evaluation is captured. The optimiser's few dozen operations are queued while the GPU still evaluates; without
them in the graph, step sizes, rollbacks and saved states stay simple.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from nst_daemon.engine.memory import exhausted
from nst_daemon.engine.pyramid import Evaluated
from nst_daemon.engine.vgg import VGG
from nst_daemon.errors import first_line

log = logging.getLogger(__name__)

Run = Callable[[], Evaluated]
#: The outputs of a captured run, and the function that replays it from and into the same memory.
Captured = tuple[Evaluated, Callable[[], object]]
Capture = Callable[[Run], Captured]

#: Held during a capture, and by operations that would spoil it from another thread: onnxruntime synchronises the whole
#: device when it makes a session.
CAPTURE_LOCK = threading.Lock()
#: Runs before a capture, in which libraries allocate what they allocate once.
WARM_UP = 2
#: The largest difference between a replay and the same kernels run directly, relative to the norm. Kernels that sum in
#: no fixed order differ by some percent in bfloat16; a replay that is wrong differs by its whole norm.
TOLERANCE = 0.1


#: An objective, or one objective for each picture of a batch.
S = TypeVar("S")


class CudaGraphEvaluation(Generic[S]):
    """An `Evaluation` that is captured at its first call and replayed afterwards.

    It is captured again for another network, objective or size. If that fails or its replay gives another
    result, the log says so and `evaluation` itself is used from then on. Results are copies.

    Args:
        evaluation: What is captured; its out-of-memory errors are raised.
        capture: Makes the graph, for tests without a GPU.
    """

    #: False on the class turns capturing off, for comparisons.
    usable = True

    def __init__(
        self, evaluation: Callable[[VGG, S, Tensor], Evaluated], capture: Capture | None = None
    ) -> None:
        self.evaluation = evaluation
        self._capture = capture or cuda_graph
        self._captured: Captured | None = None
        self._subject: tuple[VGG, S, torch.Size] | None = None

    def __call__(self, network: VGG, objective: S, image: Tensor) -> Evaluated:
        if not self.usable:
            return self.evaluation(network, objective, image)
        if self._captured is None or self._subject != (network, objective, image.shape):
            return self._first(network, objective, image)
        self._image.copy_(image)
        (values, total, gradient), replay = self._captured
        replay()
        return values.clone(), total.clone(), gradient.clone()

    def _first(self, network: VGG, objective: S, image: Tensor) -> Evaluated:
        """Evaluate directly, and capture the evaluation for the next call."""
        self._captured = None  # its memory is freed before another graph allocates
        self._subject = network, objective, image.shape
        self._image = image.detach().clone()

        def run() -> Evaluated:
            return self.evaluation(network, objective, self._image)

        with _tuned():
            expected = run()
            try:
                outputs, replay = self._capture(run)
                for tensor in outputs:
                    tensor.zero_()  # so that a replay without effect is noticed
                replay()
                cause = (
                    "" if all(map(_agree, outputs, expected)) else "its replay gives another result"
                )
            except Exception as error:  # noqa: BLE001 (painting continues without a graph)
                if memory_error := _memory_error(error):
                    try:
                        raise memory_error from None
                    finally:
                        # Its traceback refers to this frame: the cycle would keep alive all that filled the memory.
                        del memory_error
                cause = first_line(error)
        if cause:
            self.usable = False
            warn_once(f"painting without a CUDA graph: {cause}")
        else:
            self._captured = outputs, replay
        return expected


def cuda_graph(run: Run) -> Captured:
    """Capture a run as a CUDA graph. The run must not read values on the host, nor allocate except through torch."""
    current = torch.cuda.current_stream()
    stream = _capture_stream(current.device_index)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    current.wait_stream(stream)
    pool, graph = torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph()
    try:
        # thread_local: another thread prepares the next picture, with operations that are illegal in a capture.
        with (
            CAPTURE_LOCK,
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            outputs = run()
    except BaseException:
        _clean_up(current, pool)
        raise
    return outputs, graph.replay


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


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """The stream on which a device's graphs are captured: only one, because cuBLAS keeps memory for each stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def _tuned() -> Iterator[None]:
    """Let cuDNN time its algorithms for each layer and size, except in deterministic mode."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Within TOLERANCE. NaN matches anything: a non-finite picture is not the graph's fault."""
    difference = float((found - expected).norm())
    return not difference > TOLERANCE * float(expected.norm())


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
