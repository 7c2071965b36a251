"""Lists of jobs in parts: what is wanted, and where a part begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nst_daemon.jobs import JobState
from nst_daemon.names import composed


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are wanted.

    Attributes:
        states: Any of these; all if it is empty.
        part: Of the name; case is ignored.
        batch: The name of the batch.
        group: The folder of the inbox, or the name of the batch.
        with_result: Only jobs with a picture in results/.
        since, before: Of the latest change, in seconds since the epoch; `before` is not included.
    """

    states: Sequence[JobState] = ()
    part: str = ""
    batch: str = ""
    group: str = ""
    with_result: bool = False
    since: float = -math.inf
    before: float = math.inf

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values."""
        terms: list[str] = []
        values: list[Any] = []

        def add(term: str, *given: Any) -> None:
            terms.append(term)
            values.extend(given)

        if self.states:
            add(f"state IN ({', '.join('?' * len(self.states))})", *self.states)
        if part := composed(self.part):
            if part.isascii():  # LIKE ignores the case of ASCII letters only
                escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
                add("name LIKE ? ESCAPE '\\'", f"%{escaped}%")
            else:
                add("instr(casefold(name), ?)", part.casefold())
        if self.batch:
            add("\"group\" = ? AND source = 'batch'", self.batch)
        if self.group:
            add('"group" = ?', self.group)
        if self.with_result:
            add("result <> ''")
        if self.since > -math.inf:
            add("updated >= ?", self.since)
        if self.before < math.inf:
            add("updated < ?", self.before)
        return " AND ".join(terms) or "TRUE", values
