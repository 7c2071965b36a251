"""A pipe with files in a Ray actor: it runs one worker process and passes packets and files through.

The worker process is the one that paints on a single machine, so a crash in native code costs that process and not the
actor. Nothing is shared with the daemon's machine: a task's inputs and checkpoint arrive as bytes and are written into
a folder of this machine; results, checkpoints and previews leave as bytes. The actor supervises nothing: the daemon
does (`supervised`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from nst_daemon import __version__, files
from nst_daemon.digests import sha256_file
from nst_daemon.errors import ModelError, NstError, Retry, StorageError
from nst_daemon.workers import messages
from nst_daemon.workers.local import WORKER_MODULE, LocalTransport
from nst_daemon.workers.messages import Answer, Ended, Failed, Hello, Provisioning, Staged, Task

log = logging.getLogger(__name__)

#: Seconds between two looks for new checkpoints and previews.
LOOK_SECONDS = 1.0
#: Seconds that a folder of another actor must be old before it may be removed: a new one is not locked yet.
SWEEP_SECONDS = 60.0
#: The files of a job that change while it is painted.
CHANGING = ("checkpoint", "preview")
#: A packet, as `messages` encodes it, and files: by "JOB/checkpoint", "JOB/preview", "JOB/stage/NAME" from a worker, by
#: "checkpoint" and "spool/NAME" with a task.
Parcel = tuple[bytes, dict[str, bytes]]


@dataclass(slots=True)
class _Order:
    """A job that was sent here."""

    folder: Path
    sent: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # file → its identity as it was sent

    def changed(self) -> Iterator[tuple[str, bytes]]:
        """The checkpoint and the preview, where they are newer than what was sent."""
        for name in CHANGING:
            path = self.folder / name
            with suppress(OSError):  # none yet
                identity = _identity(path)
                if self.sent.get(name) != identity:
                    data = path.read_bytes()
                    self.sent[name] = identity
                    yield name, data


class PipeActor:
    """The actor. The driver calls its methods, several at a time.

    Args:
        hello: The worker's `Hello`; this machine's folders and weights are filled in here.
        version: The daemon's version.
        provisioning: A `Provisioning`.
        boxes: For each of its files a list with a reference to the bytes, which is fetched only where it is needed.
    """

    def __init__(
        self, hello: bytes, version: str, provisioning: bytes, boxes: Mapping[str, Sequence[Any]]
    ) -> None:
        found, needed = messages.decode(hello), messages.decode(provisioning)
        assert isinstance(found, Hello)
        assert isinstance(needed, Provisioning)
        self._hello, self._needed, self._boxes = found, needed, boxes
        self._version = version
        self._changed = threading.Condition()  # guards what follows
        self._outbox: list[Parcel] = []
        self._inbox: list[Parcel] = []
        self._over = False
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._orders: dict[str, _Order] = {}  # only the thread touches it
        # A worker process ends with the thread that started it, so that thread lives as long as this process.
        self._thread = threading.Thread(target=self._serve, name="pipe", daemon=True)
        self._thread.start()

    # What the driver calls

    def news(self, seconds: float) -> list[Parcel] | None:
        """Everything since the last call; waits at most so long for the first. None: the worker's life is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._outbox or self._over, seconds)
            parcels, self._outbox = self._outbox, []
            return parcels if parcels or not self._over else None

    def take(self, packet: bytes, attached: dict[str, bytes]) -> None:
        """Pass a packet to the worker; `attached`: the files of a task."""
        with self._changed:
            self._inbox.append((packet, attached))
        self._wake.send(b".")

    # The thread

    def _serve(self) -> None:
        try:
            last = self._provision_and_run()
        except Exception as error:
            log.exception("no worker can run here")
            permanent = isinstance(error, NstError) and error.retry is Retry.NEVER
            self._say(messages.Leaving(f"cannot paint: {error}", permanent))
            self._say(Ended("ended without a reason"))
        else:
            self._say(*last)
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _provision_and_run(self) -> tuple[Ended, dict[str, bytes]]:
        """Run the worker; how it ended, and the last files."""
        cache = files.default_cache_dir()
        work = cache / "work"
        work.mkdir(parents=True, exist_ok=True)
        _sweep(work)
        with (
            tempfile.TemporaryDirectory(dir=work) as folder,
            (Path(folder) / ".lock").open("w") as lock,
        ):
            files.lock(lock, wait=True)
            self._work = Path(folder)
            hello = self._provision(cache)
            process = LocalTransport(WORKER_MODULE, hello, self._work / "worker.log")
            try:
                return self._pass_on(process)
            finally:
                process.kill()
                process.close(patience=1.0)

    def _provision(self, cache: Path) -> Hello:
        """Fetch what is not here yet; the `Hello` as it is on this machine. Raises ModelError, StorageError."""
        if self._version != __version__:
            raise ModelError(
                f"nst-daemon is {__version__} here and {self._version} where the daemon runs",
                remedy="install the same version on every machine",
            )
        for name, (_, digest) in self._needed.files.items():
            _fetch(cache / name, digest, self._boxes[name])
        os.environ["TORCH_HOME"] = str(cache / "torch")
        weights = self._needed.weights
        options = replace(
            self._hello.options,
            weights=str(cache / weights) if weights in self._needed.files else weights,
            cache_dir=cache,
        )
        return replace(self._hello, options=options)

    def _pass_on(self, process: LocalTransport) -> tuple[Ended, dict[str, bytes]]:
        """Pass packets and files on in both directions until the worker has ended."""
        look = 0.0
        while True:
            wait([*process.waitables(), self._woken], LOOK_SECONDS)  # type: ignore[list-item]
            for packet, attached in self._received():
                self._send(process, packet, attached)
            ended = process.ended()  # before draining: nothing follows this
            for message in process.messages():
                found: dict[str, bytes] = {}
                if time.monotonic() >= look or isinstance(message, Answer):
                    look = time.monotonic() + LOOK_SECONDS
                    found = self._new_files()
                if isinstance(message, Answer):
                    answer, result = self._result(message)
                    self._say(answer, found | result)
                else:
                    self._say(message, found)
            if ended is not None:
                return ended, self._new_files()

    def _received(self) -> list[Parcel]:
        with suppress(
            BlockingIOError
        ):  # before the inbox is taken: a wake-up that comes later is not lost
            self._woken.recv(4096)
        with self._changed:
            parcels, self._inbox = self._inbox, []
        return parcels

    def _send(self, process: LocalTransport, packet: bytes, attached: Mapping[str, bytes]) -> None:
        message = messages.decode(packet)
        assert not isinstance(message, messages.Addressed)
        if not isinstance(message, Task):
            process.send(message)
            return
        try:
            process.send(self._unpacked(message, attached))
        except (StorageError, ValueError) as error:
            said = f"the job could not be written there: {error}"
            failed = Failed(self._hello.worker, message.job_id, Retry.LATER, said)
            self._say(*self._result(failed))

    # Files

    def _unpacked(self, task: Task, attached: Mapping[str, bytes]) -> Task:
        """Write the files of a task; the task with the paths of this machine. Raises StorageError."""
        with files.storage(self._work):
            folder = Path(tempfile.mkdtemp(dir=self._work))
        here = replace(
            task,
            spool=folder / "spool",
            stage=folder / "stage",
            checkpoint=folder / "checkpoint",
            preview=task.preview and folder / "preview",
        )
        order = self._orders[task.job_id] = _Order(folder)
        with files.storage(folder):
            here.spool.mkdir()
            here.stage.mkdir()
            for name, data in attached.items():
                (folder / name).write_bytes(data)
            if "checkpoint" in attached:  # the driver has this one
                order.sent["checkpoint"] = _identity(here.checkpoint)
        return here

    def _new_files(self) -> dict[str, bytes]:
        """The checkpoints and previews that are newer than what was sent."""
        return {
            f"{job_id}/{name}": data
            for job_id, order in self._orders.items()
            for name, data in order.changed()
        }

    def _result(self, answer: Answer) -> tuple[Answer, dict[str, bytes]]:
        """The answer of a job that has ended, with its files; the job is forgotten here."""
        order = self._orders.pop(answer.job_id, None)
        if order is None:
            return answer, {}
        names = answer.files if isinstance(answer, Staged) else ()
        stage, found = order.folder / "stage", {}
        try:
            with files.storage(stage):
                for name in names:
                    found[f"{answer.job_id}/stage/{name}"] = (stage / name).read_bytes()
            files.remove_tree(order.folder)
        except StorageError as error:
            said = f"the result could not be read there: {error}"
            return Failed(answer.worker, answer.job_id, Retry.LATER, said), {}
        return answer, found

    def _say(self, message: messages.Message, attached: dict[str, bytes] | None = None) -> None:
        with self._changed:
            self._outbox.append((messages.encode(message), attached or {}))
            self._changed.notify_all()


def _identity(path: Path) -> tuple[int, int]:
    """What changes when a file is replaced. Raises OSError if there is none."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _fetch(path: Path, digest: str, box: Sequence[Any]) -> None:
    """Make sure that the file is here: each machine fetches it once from the cluster's store."""
    if path.is_file() and sha256_file(path) == digest:
        return
    import ray  # noqa: PLC0415 (an extra; and nothing else here needs it)

    data = ray.get(box[0])
    if hashlib.sha256(data).hexdigest() != digest:
        raise StorageError(f"{path.name} arrived damaged", remedy="check the network")
    files.make_folder(path.parent)
    files.write_atomic(path, data)


def _sweep(work: Path) -> None:
    """Remove what killed actors have left: the kernel has released their locks."""
    for folder in _old_folders(work.iterdir()):
        with suppress(OSError, StorageError), (folder / ".lock").open("w") as lock:
            if files.lock(lock):
                files.remove_tree(folder)


def _old_folders(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > SWEEP_SECONDS:
                yield path
