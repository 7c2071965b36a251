"""A renderer that paints in milliseconds and misbehaves on demand, for workers: `renderer="tests.fakes:Renderer"`.

What it does with a job stands in the job's content file, as JSON, or as JSON in the text "script" of a PNG file
(anything else is a picture to be painted well):

    iterations: 20            how many steps
    seconds: 0.0              how long each takes
    at, do                    in iteration `at` (0: while it is prepared, "save": while it is written) it does `do`
                              (see `MISCHIEF`)
    once: PATH                … only where this file does not exist yet, and makes it
    gate: PATH, gate_at: 1    in iteration `gate_at` (or 0, or "save") it waits until this file exists

The picture is a function of the content, the settings and the number of steps, whether it was interrupted or not.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import math
import mmap
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from nst_daemon.config import Outputs
from nst_daemon.engine.settings import RenderSettings
from nst_daemon.errors import (
    DeviceError,
    ModelError,
    NoDevice,
    NstError,
    OutOfMemory,
    PaintingError,
    StorageError,
)
from nst_daemon.jobs import JobInput, Role
from nst_daemon.workers.messages import Provisioning, Task, WorkerOptions
from nst_daemon.workers.process.protocols import Report


@dataclass
class Step:
    """One iteration; `digest` is the whole state."""

    iteration: int
    iterations: int
    digest: str
    loss: float
    size: tuple[int, int] = (1, 1)
    scale: int = 1
    events: tuple[str, ...] = ()

    @property
    def last(self) -> bool:
        return self.iteration >= self.iterations

    @property
    def losses(self) -> Mapping[str, float]:
        return {"total": self.loss}


@dataclass
class Prepared:
    """A job that can be painted."""

    script: dict[str, Any]
    settings: RenderSettings
    digest: str
    size: tuple[int, int] = (1, 1)
    calibration: tuple[dict[str, float], ...] = ({"tv": 3.0},)
    notes: tuple[str, ...] = ("a fake",)


@dataclass
class Rendering:
    """A finished picture of one pixel."""

    script: dict[str, Any]
    settings: RenderSettings
    rgb: bytes
    losses: Mapping[str, float]
    iterations: tuple[int, int]
    notes: tuple[str, ...]

    def save(self, path: Path, outputs: Outputs, inputs: Sequence[JobInput]) -> None:
        _obey(self.script, "save")
        path.write_bytes(_png(self.rgb))


def hang() -> None:
    """Stay in one operator for ever, as a stuck kernel does; other threads go on."""
    while True:
        time.sleep(60)


def allocate() -> None:
    """Ask for more memory than any limit of a test allows."""
    bytearray(1 << 42)


def grow() -> None:
    """Use one GiB of memory that a process's own limits do not count."""
    with mmap.mmap(-1, 1 << 30) as shared:
        for position in range(0, len(shared), mmap.PAGESIZE):
            shared[position] = 1


def raise_(error: Exception) -> Callable[[], None]:
    """What raises `error`."""

    def act() -> None:
        raise error

    return act


MISCHIEF: Mapping[str, Callable[[], object]] = {
    "hang": hang,
    "allocate": allocate,
    "grow": grow,
    "segv": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "raise": raise_(RuntimeError("a fault in the engine")),
    "rant": raise_(RuntimeError("a fault\n" + "and more\n" * 10**5)),
    "device": raise_(DeviceError("the fake device fell off the bus", remedy="push it back")),
    "memory": raise_(OutOfMemory("the fake device is full", remedy="choose a smaller size")),
    "nan": lambda: None,
    "touch": lambda: None,  # `once` has done it
}


class Renderer:
    """The fake `RendererProtocol`."""

    def __init__(self, options: WorkerOptions, device: str, report: Report) -> None:
        self.options, self.device = options, device

    @staticmethod
    def provisioning(options: WorkerOptions, report: Report) -> Provisioning:
        """Its own source in the place of a model, so that a file travels; the weights `missing` are not there."""
        if options.weights == "missing":
            raise ModelError("the fake weights are not there", remedy="fetch them")
        digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        return Provisioning(options.weights, {"fake/model": (__file__, digest)})

    def info(self) -> Mapping[str, object]:
        return {
            "device": self.device,
            "device_name": "fake",
            "threads": self.options.threads,
            "network": "fake",
            "weights": "fake",
            "weights_sha256": "0" * 64,
            "weights_description": "no weights at all",
            "versions": {},
        }

    def prepare(self, task: Task) -> Prepared:
        content = next(i for i in task.inputs if i.role is Role.CONTENT)
        data = (task.spool / content.spooled).read_bytes()
        digest = hashlib.sha256(repr((data, task.settings)).encode()).hexdigest()
        prepared = Prepared(_script(data), task.settings, digest)
        _obey(prepared.script, 0)
        return prepared

    def paint(self, prepared: Prepared, state: bytes | memoryview | None) -> Generator[Step]:
        script = prepared.script
        total = int(script.get("iterations", 20))
        done, digest = json.loads(bytes(state)) if state else (0, prepared.digest)
        for i in range(done + 1, total + 1):
            _obey(script, i)
            time.sleep(script.get("seconds", 0.0))
            digest = hashlib.sha256(digest.encode()).hexdigest()
            bad = script.get("do") == "nan" and i >= script["at"]
            yield Step(i, total, digest, math.nan if bad else 1 / i)

    def dump(self, step: Step) -> bytes:
        return json.dumps([step.iteration, step.digest]).encode()

    def finish(self, prepared: Prepared, step: Step) -> Rendering:
        if not math.isfinite(step.loss):
            raise PaintingError("the fake painting has no finite loss")
        rgb = bytes.fromhex(step.digest)[:3]
        done = step.iteration, step.iterations
        return Rendering(prepared.script, prepared.settings, rgb, step.losses, done, prepared.notes)

    def sketch(self, prepared: Prepared, step: Step, side: int) -> Image.Image:
        return Image.new("RGB", (side, side // 2), "#" + step.digest[:6])

    def memory(self) -> int:
        return 1234

    def explain(self, error: BaseException) -> NstError | None:
        return OutOfMemory("the fake memory is full") if isinstance(error, MemoryError) else None


class Slow(Renderer):
    """One that takes its time over every picture, whatever is in it."""

    def prepare(self, task: Task) -> Prepared:
        prepared = super().prepare(task)
        prepared.script = {"iterations": 20, "seconds": 0.03}
        return prepared


def no_renderer(options: WorkerOptions, device: str, report: Report) -> Renderer:
    """A factory whose weights are not there."""
    raise ModelError("the fake weights are not there", remedy="fetch them")


def no_device_renderer(options: WorkerOptions, device: str, report: Report) -> Renderer:
    """A factory whose device is not there."""
    raise NoDevice(f"{device} cannot be used: found no driver", remedy="name another device")


def no_space_renderer(options: WorkerOptions, device: str, report: Report) -> Renderer:
    """A factory that finds no space for its files."""
    raise StorageError("cache: No space left on device", remedy="free some space")


def crashing_renderer(options: WorkerOptions, device: str, report: Report) -> Renderer:
    """A factory that takes its process down."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def hanging_renderer(options: WorkerOptions, device: str, report: Report) -> Renderer:
    """A factory that never ends."""
    report("waiting for the fake")
    hang()
    raise AssertionError


def _script(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(_text_of(data) if data.startswith(b"\x89PNG") else data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text_of(png: bytes) -> str:
    with Image.open(io.BytesIO(png)) as image:
        return str(image.info.get("script", ""))


def _obey(script: Mapping[str, Any], iteration: int | str) -> None:
    """Do what the script says for this iteration."""
    if "gate" in script and script.get("gate_at", 1) == iteration:
        while not Path(script["gate"]).exists():
            time.sleep(0.002)
    if "do" in script and script["at"] == iteration:
        if once := script.get("once"):
            try:
                Path(once).touch(exist_ok=False)
            except FileExistsError:
                return
        MISCHIEF[script["do"]]()


def _png(rgb: bytes) -> bytes:
    """A picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00" + rgb)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
