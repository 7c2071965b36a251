"""Everything that needs a GPU, in a few minutes: tests, a picture by each way of painting, speed, memory, a profile.

    make gpu                                      # all parts
    python -m benchmarks.gpu --parts tests speed  # some of them
    make gpu WHEELS=FOLDER                        # into the Python that runs it, without a network (CONTRIBUTING.md)

Each part is a process with a time limit of its own. Its output is in OUT/PART.txt, and its last lines are printed.
Parts that measure nothing run at the same time, before the others. A part that fails does not end the run; the exit
code is 1 then.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import nst_daemon

SAMPLES = Path(nst_daemon.__file__).parent / "samples"
PAIR = (str(SAMPLES / "riverside.png"), str(SAMPLES / "swirls.png"))
#: Lines of a part's output that are printed.
SHOWN = 200


@dataclass(frozen=True)
class Part:
    """A command and its limit.

    Attributes:
        name: Of the part and of its output file.
        limit: Seconds after which it is killed.
        words: The arguments of Python; `{out}` stands for the folder of the outputs.
        alone: It measures time or memory, so nothing else may run.
    """

    name: str
    limit: float
    words: tuple[str, ...]
    alone: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a part ended. The exit code is None if it was killed."""

    part: Part
    code: int | None
    seconds: float
    output: Path

    def __str__(self) -> str:
        end = {0: "ok", None: "killed at its limit"}.get(self.code, f"exit code {self.code}")
        return f"{self.part.name:14} {self.seconds:6.1f} s  {end}"


def _stylize(name: str, size: str, *, alone: bool = True) -> Part:
    words = ("-m", "nst_daemon", "stylize", *PAIR, "--size", size, "-o", f"{{out}}/{name}.png")
    return Part(name, 60, (*words, "--overwrite"), alone)


def _benchmark(name: str, limit: float, module: str, *words: str) -> Part:
    return Part(name, limit, ("-m", f"benchmarks.{module}", *words))


PARTS = (
    Part("doctor", 60, ("-m", "nst_daemon", "doctor"), alone=False),
    Part("tests", 120, ("-m", "pytest", "-m", "gpu", "-n", "4", "tests/engine", "tests/export"), alone=False),
    Part("demo", 90, ("-m", "nst_daemon", "demo", "--folder", "{out}/demo"), alone=False),
    _stylize("picture-512", "512", alone=False),
    _benchmark("speed", 60, "throughput", "--sizes", "256", "512", "1024", "2048", "--ways", "graph", "direct"),
    _benchmark("pictures", 60, "pictures", "--sizes", "256", "512", "1280", "--ways", "graph", "direct"),
    _benchmark("profile", 45, "throughput", "--sizes", "512", "1024", "--ways", "direct", "--profile"),
    _stylize("picture-1280", "1280"),
    _benchmark(
        "peers", 60, "peers", "--sizes", "512", "--evaluations", "500", "--peers", "classic, from content",
        *("--out", "{out}/peers"),
    ),
    _benchmark("float32", 45, "throughput", "--sizes", "512", "1024", "--precisions", "float32"),
    _benchmark("large", 60, "throughput", "--sizes", "4096", "8192"),
)  # fmt: skip


def run(part: Part, out: Path) -> Outcome:
    """Run a part, and print its end and its last lines."""
    output = out / f"{part.name}.txt"
    command = [sys.executable, *(word.replace("{out}", str(out)) for word in part.words)]
    began = perf_counter()
    with output.open("w") as file:
        process = subprocess.Popen(  # noqa: S603 (the commands above)
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(part.limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    outcome = Outcome(part, code, perf_counter() - began, output)
    lines = output.read_text(errors="replace").splitlines()
    print("\n".join([f"=== {outcome}", *lines[-SHOWN:]]), flush=True)
    return outcome


def main() -> None:
    """Run the parts and print how each ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in PARTS if part.name in args.parts]
    with ThreadPoolExecutor(len(PARTS)) as pool:
        together = [part for part in chosen if not part.alone]
        outcomes = list(pool.map(lambda part: run(part, args.out), together))
    outcomes += [run(part, args.out) for part in chosen if part.alone]
    print("\n".join(map(str, outcomes)))
    sys.exit(any(outcome.code != 0 for outcome in outcomes))


if __name__ == "__main__":
    main()
