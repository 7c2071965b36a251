"""Decode the corpus and print a table: `python -m tests.pictures.corpus [--second] [FORMAT …]`.

`--second` also lists the files that libvips decodes differently.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic

from tests.pictures.corpus.case import CONTAINERS, cases_of, judge
from tests.pictures.corpus.second import disagreements


def main(arguments: list[str]) -> int:
    """Print what is wrong, then the numbers. Returns 1 if anything is wrong."""
    containers = [name for name in arguments if name != "--second"] or CONTAINERS
    rows: list[tuple[str, Counter[str], float]] = []
    for container in containers:
        began = monotonic()
        with tempfile.TemporaryDirectory() as folder:
            verdicts = [judge(case, Path(folder)) for case in cases_of(container)]
        rows.append((container, Counter(v.kind for v in verdicts), monotonic() - began))
        for verdict in verdicts:
            if verdict.kind == "wrong":
                print(f"{container}: {verdict.case.name}: {verdict.why}")
    if "--second" in arguments:
        for container in containers:
            for case, said in disagreements(cases_of(container)):
                print(f"{container}: {case.name}: {said}")
    print(f"{'format':12}{'files':>8}{'right':>8}{'refused':>9}{'wrong':>7}{'seconds':>9}")
    total = sum((counts for _, counts, _ in rows), Counter())
    for name, counts, seconds in [*rows, ("all", total, sum(row[2] for row in rows))]:
        right, refused, wrong = counts["right"], counts["refused"], counts["wrong"]
        print(f"{name:12}{counts.total():>8}{right:>8}{refused:>9}{wrong:>7}{seconds:>9.1f}")
    return int(total["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
