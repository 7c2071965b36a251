"""Decode files of the corpus that were damaged by chance: `python -m tests.torture.pictures --files N --seed S`.

Each file must become a picture with finite colours in [0, 1], or an error that names its cause. A crash, another
exception, more time or memory than is allowed, a descriptor that stays open and an import of torch are findings.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import select
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from nst_daemon.errors import NstError, OutOfMemory
from nst_daemon.intake.completeness import looks_whole
from nst_daemon.pictures.decode import decode_file
from tests.pictures.corpus.case import CONTAINERS, cases_of

#: For each file: seconds of CPU time, of other time, of the walk of its structure, and bytes over those at the start.
CPU_SECONDS, WALL_SECONDS, WALK_SECONDS, MEMORY = 10, 120.0, 1.0, 700 << 20

#: What the lengths and counts of hostile files are.
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

#: With an exception of these classes a parser did not expect what it found.
ACCIDENTS = (*(AssertionError, AttributeError, NameError, RecursionError, TypeError),)


@dataclass(frozen=True)
class Limits:
    """Such that a picture within the limits fits into `MEMORY`."""

    max_bytes: int = 256 << 20
    max_pixels: int = 4_000_000
    max_side: int = 30_000
    formats: tuple[str, ...] = (
        *("jpeg", "png", "webp", "tiff", "avif", "heif", "jxl", "jpeg2000", "bmp", "gif", "raw"),
        "psd",
    )


@dataclass(frozen=True)
class Sample:
    """A file of the corpus."""

    container: str
    name: str
    data: bytes


def samples(containers: Sequence[str]) -> dict[str, list[Sample]]:
    """The files of the corpus by module, without the large ones."""
    found: dict[str, list[Sample]] = {}
    for container in containers:
        made = (Sample(container, case.name, case.make()) for case in cases_of(container))
        found[container] = [sample for sample in made if len(sample.data) < 1 << 20]
    return found


def damaged(data: bytes, other: bytes, chance: Random) -> bytes:
    """A file with one to four damages. other: a file to take pieces from."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(DAMAGES)(bytearray(data), other, chance)
    return data


def _place(data: bytes, chance: Random) -> int:
    """A place in a file; half of them are in its header."""
    return min(chance.randrange(len(data) + 1), chance.choice((64, 512, 1 << 30, 1 << 30)))


def _flip(data: bytearray, _: bytes, chance: Random) -> bytes:
    for _ in range(chance.choice((1, 1, 4, 30))):
        place = _place(data, chance)
        data[place : place + 1] = bytes([chance.randrange(256)])
    return bytes(data)


def _cut(data: bytearray, _: bytes, chance: Random) -> bytes:
    return bytes(data[: _place(data, chance)])


def _remove(data: bytearray, _: bytes, chance: Random) -> bytes:
    start = _place(data, chance)
    del data[start : start + chance.choice((1, 4, 12, chance.randrange(1000)))]
    return bytes(data)


def _insert(data: bytearray, other: bytes, chance: Random) -> bytes:
    start, length = _place(other, chance), chance.choice((1, 4, 12, chance.randrange(1000)))
    place = _place(data, chance)
    data[place:place] = other[start : start + length]
    return bytes(data)


def _repeat(data: bytearray, _: bytes, chance: Random) -> bytes:
    start = _place(data, chance)
    part = data[start : start + chance.choice((1, 2, 4, 8, 12, chance.randrange(1, 300)))]
    data[start:start] = part * chance.choice((1, 2, 10, 1000, 10000))
    return bytes(data[: 4 << 20])


def _number(data: bytearray, _: bytes, chance: Random) -> bytes:
    place, size = _place(data, chance), chance.choice((1, 2, 4, 4))
    number = chance.choice(NUMBERS) & (1 << 8 * size) - 1
    data[place : place + size] = number.to_bytes(size, chance.choice(("little", "big")))
    return bytes(data)


def _near(data: bytearray, _: bytes, chance: Random) -> bytes:
    """A number of the file that is a little larger or smaller."""
    place, size = _place(data, chance), chance.choice((1, 2, 4))
    order = chance.choice(("little", "big"))
    number = int.from_bytes(data[place : place + size], order) + chance.choice((-8, -1, 1, 2, 8))
    data[place : place + size] = (number & (1 << 8 * size) - 1).to_bytes(size, order)
    return bytes(data)


def _splice(data: bytearray, other: bytes, chance: Random) -> bytes:
    return bytes(data[: _place(data, chance)]) + other[_place(other, chance) :]


def _swap(data: bytearray, _: bytes, chance: Random) -> bytes:
    first, middle, last = sorted(_place(data, chance) for _ in range(3))
    return bytes(data[:first] + data[middle:last] + data[first:middle] + data[last:])


def _zeros(data: bytearray, _: bytes, chance: Random) -> bytes:
    start = _place(data, chance)
    end = min(len(data), start + chance.choice((4, 64, 100000)))
    data[start:end] = bytes(end - start)
    return bytes(data)


DAMAGES = (
    *(_flip, _flip, _cut, _remove, _insert, _repeat, _number, _number, _number, _near),
    *(_splice, _swap, _zeros),
)


def made(corpus: dict[str, list[Sample]], seed: int, number: int) -> tuple[Sample, bytes]:
    """The damaged file of this number, and from what it was made."""
    chance = Random(f"{seed} {number}")
    files = corpus[chance.choice(sorted(corpus))]
    sample, other = chance.choice(files), chance.choice(files)
    return sample, damaged(sample.data, other.data, chance)


def tried(path: Path) -> str:
    """What is wrong with the reading of a file: "" for nothing; "refused" if it was refused as it must be."""
    began, descriptors = time.process_time(), len(os.listdir("/proc/self/fd"))
    with path.open("rb") as file:
        looks_whole(file.fileno(), path.stat().st_size)
    if time.process_time() - began > WALK_SECONDS:
        return f"the walk took {time.process_time() - began:.1f} s"
    wrong = ""
    try:
        found = decode_file(path, Limits(), name="picture")
    except OutOfMemory as error:
        return f"memory: {error}"
    except NstError as error:
        cause = error.__cause__
        wrong = "refused"
        if isinstance(cause, ACCIDENTS):
            wrong = f"accident: {type(cause).__name__}: {cause}{_where(cause)}"
        del error, cause
    else:
        for values in (found.colours, found.alpha):
            if values is not None and not bool(np.all((values >= 0) & (values <= 1))):
                wrong = "values are not in [0, 1]"
    if len(os.listdir("/proc/self/fd")) != descriptors:
        return "a descriptor stays open"
    return "torch was imported" if "torch" in sys.modules else wrong


def _where(error: BaseException) -> str:
    """The place of an exception."""
    step = error.__traceback__
    while step and step.tb_next:
        step = step.tb_next
    return f" ({Path(step.tb_frame.f_code.co_filename).name}:{step.tb_lineno})" if step else ""


def _data_bytes() -> int:
    """What RLIMIT_DATA limits."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmData:")[1].split()[0]) << 10


def _child(corpus: dict[str, list[Sample]], seed: int, numbers: range, pipe: int) -> None:
    """Try these files; write each number before, and what is wrong after."""
    warnings.simplefilter("always", ResourceWarning)
    unclosed: list[str] = []
    warnings.showwarning = lambda message, *_, **__: unclosed.append(str(message))
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)
    os.dup2(sys.stderr.fileno(), 2)
    limit = _data_bytes() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        for number in numbers:
            path.write_bytes(made(corpus, seed, number)[1])
            os.write(pipe, f"{number}\n".encode())
            until = math.ceil(time.process_time()) + CPU_SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
            try:
                said = tried(path)
            except BaseException as error:  # noqa: BLE001 (that is what is looked for)
                said = f"{type(error).__name__}: {error}{_where(error)}"
            if unclosed and any("unclosed" in message for message in unclosed):
                said = unclosed[0]
            unclosed.clear()
            os.write(pipe, f"{number} {' '.join(said.split())[:300]}\n".encode())


def _run_child(
    corpus: dict[str, list[Sample]], seed: int, numbers: range
) -> tuple[dict[int, str], int]:
    """What is wrong with each file, up to one that ends the process; and the next number."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os.close(ours)
            _child(corpus, seed, numbers, theirs)
        os._exit(0)
    os.close(theirs)
    text = b""
    ended = ""
    with open(ours, "rb", buffering=0) as file:
        while True:
            if not select.select([file], [], [], WALL_SECONDS)[0]:
                os.kill(child, signal.SIGKILL)
                ended = f"it hung for {WALL_SECONDS:.0f} s"
            if not (part := file.read(1 << 16)):
                break
            text += part
    status = os.waitpid(child, 0)[1]
    said: dict[int, str] = {}
    last = numbers.start - 1
    for line in text.decode(errors="replace").splitlines():
        number, *words = line.split(" ", 1)
        last = int(number)
        if words:
            said[last] = words[0]
    if last not in said and last >= numbers.start:
        cause = os.waitstatus_to_exitcode(status)
        name = signal.Signals(-cause).name if cause < 0 else f"exit {cause}"
        said[last] = ended or f"the process ended by {name}"
    return said, max(last, numbers.start) + 1


def fuzz(
    corpus: dict[str, list[Sample]], files: int, seed: int, keep: Path | None = None
) -> Counter[str]:
    """Try so many files. Prints the findings and returns the figures. keep: a folder for the files that are wrong."""
    figures: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    start = 0
    while start < files:
        said, start = _run_child(corpus, seed, range(start, files))
        for number, wrong in said.items():
            sample, data = made(corpus, seed, number)
            figures[f"{sample.container} files"] += 1
            if wrong in {"", "refused"}:
                figures[f"{sample.container} {wrong or 'read'}"] += 1
                continue
            figures["findings"] += 1
            kind = f"{sample.container}: {wrong}"
            seen[kind] += 1
            if seen[kind] <= 2:
                print(f"{number}: {kind} (from {sample.name})", flush=True)
                if keep:
                    (keep / f"{sample.container}-{seed}-{number}").write_bytes(data)
    return figures


def main() -> int:
    """Try damaged files. Returns 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000, help="how many files to try")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all chance")
    parser.add_argument("--keep", type=Path, help="a folder for the files that are wrong")
    parser.add_argument("formats", nargs="*", default=CONTAINERS, help="modules of the corpus")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    figures = fuzz(samples(options.formats), options.files, options.seed, options.keep)
    for name in options.formats:
        print(
            f"{name:12}{figures[f'{name} files']:>8} files{figures[f'{name} read']:>8} read"
            f"{figures[f'{name} refused']:>8} refused"
        )
    print(f"{figures['findings']} findings, {time.monotonic() - began:.0f} s")
    return bool(figures["findings"])


if __name__ == "__main__":
    sys.exit(main())
