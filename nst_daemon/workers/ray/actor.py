"""A place in a cluster where pictures are painted: a Ray actor that holds a `LocalExecutor` and is fed by value.

The executor on this machine does here what it does beside the daemon: a resident model in a process of its own, the
next job prepared beside the painting, deadlines, deaths explained. A crash in native code therefore costs that process
and not the actor. What this adds is that nothing is shared: inputs and checkpoints arrive as bytes and are laid down in
a folder of this machine; results, checkpoints and previews leave as bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from nst_daemon import __version__, files
from nst_daemon.digests import sha256_file
from nst_daemon.errors import ModelError, NstError, Retry, StorageError
from nst_daemon.workers import messages
from nst_daemon.workers.local import LocalExecutor
from nst_daemon.workers.messages import (
    DeviceLost,
    Died,
    Event,
    Failed,
    Staged,
    Stopped,
    Task,
    WorkerOptions,
)

log = logging.getLogger(__name__)

#: Seconds between two looks for a new checkpoint or preview.
LOOK = 1.0
#: Which job it is about, by the number of its order (0: none); a message, as `messages` encodes it; files by name.
Parcel = tuple[int, bytes, dict[str, bytes]]


@dataclass(slots=True)
class _Order:
    """A task that was sent here. number: of this handing over, so that nobody takes an answer for another's."""

    number: int
    task: Task
    folder: Path
    submitted: bool = False
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)  # kind → the file as it was sent


class Easel:
    """The actor. Its methods are called by `cluster.Driver`, several at a time.

    hello: a `Hello` with this place's name, device and options; version: the daemon's; outfit: an `Outfit`;
    boxes: for each of its files a list with a reference to the bytes, which is fetched only where it is needed.
    """

    def __init__(
        self, hello: bytes, version: str, outfit: bytes, boxes: Mapping[str, Sequence[Any]]
    ) -> None:
        self._hello, self._outfit, self._boxes = (
            messages.decode(hello),
            messages.decode(outfit),
            boxes,
        )
        self._version = version
        self._changed = threading.Condition()  # guards what follows
        self._outbox: list[Parcel] = []
        self._inbox: list[Callable[[], None]] = []
        self._ended = False
        self._stopping: float | None = None
        self._woken, self._wake = socket.socketpair()
        self._orders: dict[str, _Order] = {}  # only the thread touches it
        # The workers end with the thread that started them, so it is one that lives as long as this process.
        self._thread = threading.Thread(target=self._serve, name="easel", daemon=True)
        self._thread.start()

    # What the driver calls

    def news(self, seconds: float) -> list[Parcel] | None:
        """Everything since the last call; waits at most so long for the first. None: nothing will come any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._outbox or self._ended, seconds)
            parcels, self._outbox = self._outbox, []
            return parcels if parcels or not self._ended else None

    def give(
        self, number: int, task: bytes, inputs: dict[str, bytes], checkpoint: bytes | None
    ) -> None:
        """Take a task, with its inputs by their names in the spool. Raises NstError."""
        found = messages.decode(task)
        assert isinstance(found, Task)
        folder = self._work / str(number)
        here = replace(
            found,
            spool=folder / "spool",
            stage=folder / "stage",
            checkpoint=folder / "checkpoint",
            preview=found.preview and folder / "preview",
        )
        order = _Order(number, here, folder)
        with files.storage(folder):
            here.spool.mkdir(parents=True)
            here.stage.mkdir()
            for name, data in inputs.items():
                (here.spool / name).write_bytes(data)
            if checkpoint is not None:
                here.checkpoint.write_bytes(checkpoint)
                order.sent["checkpoint"] = _identity(here.checkpoint)  # the driver has that one
        self._do(lambda: self._accept(order))

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job."""
        self._do(lambda: self._cancel(job_id))

    def stop(self, grace: float) -> None:
        """Checkpoint what is painted, then end; `news` has the rest. Returns when all is over."""
        self._stopping = grace
        self._do(lambda: None)
        self._thread.join(2 * grace)

    def _do(self, act: Callable[[], None]) -> None:
        """Let the thread do it."""
        with self._changed:
            self._inbox.append(act)
        self._wake.send(b".")

    # The thread

    def _serve(self) -> None:
        try:
            self._furnish_and_paint()
        except Exception as error:
            log.exception("this place cannot paint")
            permanent = isinstance(error, NstError) and error.retry is Retry.NEVER
            self._say(messages.Leaving(f"cannot paint: {error}", permanent))
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _furnish_and_paint(self) -> None:
        cache = files.default_cache_dir()
        work = cache / "work"
        work.mkdir(parents=True, exist_ok=True)
        _sweep(work)
        with (
            tempfile.TemporaryDirectory(dir=work) as folder,
            (Path(folder) / ".lock").open("w") as lock,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._work = Path(folder)
            hello = self._hello
            assert isinstance(hello, messages.Hello)
            options = self._furnish(cache, hello.options)
            self._executor = LocalExecutor((hello.device,), options)
            self._paint()

    def _furnish(self, cache: Path, options: WorkerOptions) -> WorkerOptions:
        """Lay down what is not here yet; the options as they are on this machine. Raises ModelError, StorageError."""
        outfit = self._outfit
        assert isinstance(outfit, messages.Outfit)
        if self._version != __version__:
            raise ModelError(
                f"nst-daemon is {__version__} here and {self._version} where the daemon runs",
                remedy="install the same version on every machine",
            )
        for name, (_, digest) in outfit.files.items():
            _lay_down(cache / name, digest, self._boxes[name])
        os.environ["TORCH_HOME"] = str(cache / "torch")
        weights = str(cache / outfit.weights) if outfit.weights in outfit.files else outfit.weights
        return replace(options, weights=weights, cache_dir=cache, logs=self._work / "logs")

    def _paint(self) -> None:
        """Serve until told to stop."""
        executor = self._executor
        executor.start()
        look = time.monotonic()
        while self._stopping is None:
            wait([*executor.waitables(), self._woken], LOOK)  # type: ignore[list-item]
            self._obey()
            for event in executor.poll(time.monotonic()):
                self._tell(event)
            self._submit()
            if time.monotonic() >= look:
                look = time.monotonic() + LOOK
                for order in self._orders.values():
                    self._send_new(order)
        for event in executor.stop(self._stopping):
            self._tell(event)
        self._give_back()

    def _obey(self) -> None:
        """Do what the driver asked for."""
        with self._changed:
            acts, self._inbox = self._inbox, []
        if acts:
            self._woken.recv(4096)
        for act in acts:
            act()

    def _accept(self, order: _Order) -> None:
        self._orders[order.task.job_id] = order

    def _submit(self) -> None:
        """Hand over what waits: while a worker is replaced there is no room for a moment."""
        for order in self._orders.values():
            if not order.submitted and self._executor.capacity():
                order.submitted = True
                self._executor.submit(order.task)

    def _cancel(self, job_id: str) -> None:
        order = self._orders.get(job_id)
        if order is None:
            return
        if order.submitted:
            self._executor.cancel(job_id)
        else:
            self._tell(Stopped("", job_id, cancelled=True))

    def _give_back(self) -> None:
        """Answer what was never begun, without blame."""
        for job_id in list(self._orders):
            self._tell(Stopped("", job_id))

    # Speaking

    def _tell(self, event: Event) -> None:
        """Send an event, with the files that belong to it."""
        order = self._orders.get(getattr(event, "job_id", None) or "")
        if order is None:
            self._say(event)
            if isinstance(event, DeviceLost):
                self._give_back()
            return
        if not isinstance(event, Staged | Failed | Stopped | Died):
            self._say(event, order.number)
            return
        self._send_new(order)
        staged = event.files if isinstance(event, Staged) else ()
        self._say(event, order.number, {n: (order.task.stage / n).read_bytes() for n in staged})
        del self._orders[order.task.job_id]
        files.remove_tree(order.folder)

    def _send_new(self, order: _Order) -> None:
        """Send the job's checkpoint and preview, where there are newer ones."""
        for kind in ("checkpoint", "preview"):
            path = order.folder / kind
            with suppress(OSError):  # none yet
                identity = _identity(path)
                if order.sent.get(kind) != identity:
                    data = path.read_bytes()
                    order.sent[kind] = identity
                    self._say(
                        messages.Attached(order.task.job_id, kind), order.number, {kind: data}
                    )

    def _say(
        self, message: messages.Message, number: int = 0, attached: dict[str, bytes] | None = None
    ) -> None:
        with self._changed:
            self._outbox.append((number, messages.encode(message), attached or {}))
            self._changed.notify_all()


def _identity(path: Path) -> tuple[int, int]:
    """What changes when a file is replaced. Raises OSError where there is none."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _lay_down(path: Path, digest: str, box: Sequence[Any]) -> None:
    """Make sure that the file is here: once per machine it is fetched from the cluster's store."""
    if path.is_file() and sha256_file(path) == digest:
        return
    import ray  # noqa: PLC0415 (an extra; and nothing else here needs it)

    data = ray.get(box[0])
    if hashlib.sha256(data).hexdigest() != digest:
        raise StorageError(f"{path.name} arrived damaged", remedy="look into the network")
    files.make_folder(path.parent)
    files.write_atomic(path, data)


def _sweep(work: Path) -> None:
    """Remove what places that were killed have left: the kernel has let go of their locks."""
    for folder in _folders(work.iterdir()):
        with suppress(OSError, StorageError), (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files.remove_tree(folder)


def _folders(paths: Iterable[Path]) -> Iterator[Path]:
    """Those among them that nobody has just made, and not locked yet."""
    for path in paths:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 60.0:
                yield path
