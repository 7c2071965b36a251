"""Decode the whole corpus and print a table: `python -m tests.pictures.corpus [CONTAINER …]`."""

from __future__ import annotations

import sys
from collections import Counter

from tests.pictures.corpus.case import CONTAINERS, cases_of, judge


def main(containers: list[str]) -> int:
    """Print what is wrong, then the numbers. Returns 1 if anything is wrong."""
    rows: list[tuple[str, Counter[str]]] = []
    for container in containers or CONTAINERS:
        verdicts = [judge(case) for case in cases_of(container)]
        for verdict in verdicts:
            if verdict.kind == "wrong":
                print(f"{container}: {verdict.case.name}: {verdict.why}")
        rows.append((container, Counter(v.kind for v in verdicts)))
    print(f"{'format':12}{'files':>8}{'right':>8}{'refused':>9}{'wrong':>7}")
    for name, counts in [*rows, ("all", sum((counts for _, counts in rows), Counter()))]:
        right, refused, wrong = counts["right"], counts["refused"], counts["wrong"]
        print(f"{name:12}{counts.total():>8}{right:>8}{refused:>9}{wrong:>7}")
    return int(any(counts["wrong"] for _, counts in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
