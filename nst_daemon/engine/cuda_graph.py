"""An evaluation as one CUDA graph: the GPU runs hundreds of kernels in a row without waiting for Python between them.

Only the evaluation is recorded. The optimiser's few dozen operations can be queued while the GPU still evaluates;
without them in the graph, step sizes, rollbacks and saved states stay as simple as they are.
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

from nst_daemon.engine.evaluation import Found
from nst_daemon.engine.memory import exhausted
from nst_daemon.engine.vgg import VGG

log = logging.getLogger(__name__)

Run = Callable[[], Found]
#: What a run has found, and how to run it again, from and into the same memory.
Recording = tuple[Found, Callable[[], object]]
Recorder = Callable[[Run], Recording]

#: Held while a graph is recorded, and by what must not happen meanwhile, in whichever thread: onnxruntime waits for the
#: whole device where it makes a session, which would spoil the recording.
RECORDING = threading.Lock()
#: Runs before one is recorded, in which libraries allocate what they need only once.
WARM_UP = 2
#: The largest difference, to the norm, between what was recorded and what the same kernels found unrecorded.
TOLERANCE = 1e-3


#: What a picture is held against: an objective, or one for each picture of a batch.
S = TypeVar("S")


class Recorded(Generic[S]):
    """An `Evaluation` that is recorded when it is first called, and then replayed.

    It is recorded anew for another network, objective or size. Where that fails, or the replay disagrees, a line in the
    log says so and `evaluation` itself is used from then on. Raises what says that memory has ended, as `evaluation`
    would. What is returned is the caller's own.
    """

    #: False on the class switches recording off, for comparison.
    usable = True

    def __init__(
        self, evaluation: Callable[[VGG, S, Tensor], Found], recorder: Recorder | None = None
    ) -> None:
        self.evaluation = evaluation
        self._recorder = recorder or cuda_graph
        self._recording: Recording | None = None
        self._subject: tuple[VGG, S, torch.Size] | None = None

    def __call__(self, network: VGG, objective: S, image: Tensor) -> Found:
        if not self.usable:
            return self.evaluation(network, objective, image)
        if self._recording is None or self._subject != (network, objective, image.shape):
            return self._record(network, objective, image)
        self._image.copy_(image)
        (values, total, gradient), replay = self._recording
        replay()
        return values.clone(), total.clone(), gradient.clone()

    def _record(self, network: VGG, objective: S, image: Tensor) -> Found:
        """Evaluate in the ordinary way, and make ready for the next time."""
        self._recording = None  # its memory goes before another takes its own
        self._subject = network, objective, image.shape
        self._image = image.detach().clone()

        def run() -> Found:
            return self.evaluation(network, objective, self._image)

        with _tuned():
            wanted = run()
            try:
                found, replay = self._recorder(run)
                for tensor in found:
                    tensor.zero_()  # a replay that did nothing would be found out
                replay()
                cause = "" if all(map(_agree, found, wanted)) else "it finds something else"
            except Exception as error:  # noqa: BLE001 (whatever it is, painting goes on without)
                if ended := _end_of_memory(error):
                    try:
                        raise ended from None
                    finally:
                        del ended  # its traceback leads here: a cycle, in which all that filled the memory would stay
                cause = str(error).partition("\n")[0] or type(error).__name__
        if cause:
            self.usable = False
            _say(f"painting without a CUDA graph: {cause}")
        else:
            self._recording = found, replay
        return wanted


def cuda_graph(run: Run) -> Recording:
    """A `Recorder` by CUDA graphs. The run must neither read values nor allocate other than by torch."""
    current = torch.cuda.current_stream()
    aside = _aside(current.device_index)
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            run()
    current.wait_stream(aside)
    pool, graph = torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph()
    try:
        # thread_local: another thread prepares the next picture, and may do what is forbidden in here.
        with (
            RECORDING,
            torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"),
        ):
            found = run()
    except BaseException:
        _clean_up(current, pool)
        raise
    return found, graph.replay


def _clean_up(stream: torch.cuda.Stream, pool: Any) -> None:
    """After a recording that failed: back to the stream, and the pool to the allocator.

    Where the end of a capture fails, torch 2.11 leaves the thread on the other stream and the allocator bound to the
    pool, so that it would never again give unused memory back. There is no public way to mend the second.
    """
    torch.cuda.set_stream(stream)
    with suppress(RuntimeError, AttributeError):  # it came far enough to be mended by itself
        torch._C._cuda_endAllocateToPool(stream.device_index, pool)
        torch._C._cuda_releasePool(stream.device_index, pool)


@cache
def _aside(device: int) -> torch.cuda.Stream:
    """The stream on which a device's graphs are recorded: one, for cuBLAS keeps memory for each that it has seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def _tuned() -> Iterator[None]:
    """cuDNN measures the algorithms for each layer, once for each size, unless all has to be repeatable."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _agree(found: Tensor, wanted: Tensor) -> bool:
    """Within TOLERANCE; numbers that are none agree with any: what the picture is then is not the graph's doing."""
    difference = float((found - wanted).norm())
    return not difference > TOLERANCE * float(wanted.norm())


def _end_of_memory(error: BaseException) -> BaseException | None:
    """The error that says so, of this one and those behind it: the end of a failed recording fails as well."""
    found: BaseException | None = error
    while found is not None and not exhausted(found):
        found = found.__context__
    return found


@lru_cache(maxsize=16)
def _say(text: str) -> None:
    """Into the log, once."""
    log.warning("%s", text)
