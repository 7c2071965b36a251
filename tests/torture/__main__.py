"""All that `make torture` does: `python -m tests.torture [--quick]`.

Kills (`kills`), strange drops (`fuzz`, `fuzz_daemon`), disks that fail, refuse or lose their power. Each part prints
its figures; they come once more at the end. As root, with libfuse2, the package mfusepy and the tools for ext4 and FAT
nothing is skipped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from tests.torture.disks import TORTURE

DISKS = [
    "tests/torture/test_file_systems.py",
    "tests/torture/test_power_cut.py",
    "tests/torture/test_storage.py",
]
#: The tests of DISKS that `--quick` leaves.
FEW = "2 or full_disk or (characters and archives) or (EIO and results)"


def parts(seed: int, *, quick: bool) -> dict[str, list[str]]:
    """The arguments of Python for each part. The whole takes about 20 minutes on two cores; quick: three."""
    kills, real, drops, pictures = (40, 4, 1500, 60) if quick else (300, 20, 12_000, 300)
    chance = ["--seed", str(seed)]
    return {
        "kills": ["-m", "tests.torture.kills", "--fake", str(kills), "--real", str(real), *chance],
        "fuzz": ["-m", "tests.torture.fuzz", "--drops", str(drops), *chance],
        "fuzz with file errors": [
            "-m",
            "tests.torture.fuzz",
            "--errors",
            "--drops",
            str(drops),
            *chance,
        ],
        "fuzz of the program": [
            "-m",
            "tests.torture.fuzz_daemon",
            "--drops",
            str(pictures),
            *chance,
        ],
        "every point": [
            "-m",
            "pytest",
            "-q",
            "tests/torture/test_faults.py",
            *(["-k", "pair"] if quick else []),
        ],
        "disks": ["-m", "pytest", "-q", "-rs", *DISKS, *(["-k", FEW] if quick else [])],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes of everything")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all chance")
    options = parser.parse_args()
    said, failed = [], []
    for name, arguments in parts(options.seed, quick=options.quick).items():
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, TORTURE: "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
        said.append(f"{name}: {last}")
        if process.wait():
            failed.append(name)
    print("", *said, sep="\n")
    print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
