"""Requests made from the OpenAPI description by schemathesis, against the application with a prepared root.

`python -m tests.web.fuzz --examples 200` runs longer than the tests do, and prints each failure with its request.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from nst_daemon.config import load
from nst_daemon.jobs import JobInput, Role
from nst_daemon.ledger import Ledger
from nst_daemon.web.app import API, make_app
from nst_daemon.web.options import PageOptions
from tests.web.conftest import HOST, add, client, picture

#: How a request is refused: those of the first four also if it has the form of the description.
REFUSED = (400, 401, 403, 404, 405, 409, 415, 422, 429)


@dataclass
class Report:
    """What a run has found.

    Attributes:
        operations: The number of requests of each operation.
        statuses: The number of responses with each status code.
        failures: A description of each different failure.
        seconds: How long it took.
    """

    operations: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        requests = self.operations.total()
        statuses = ", ".join(f"{code}: {number}" for code, number in sorted(self.statuses.items()))
        return (
            f"{requests:,} requests, {len(self.operations)} operations, {len(self.failures)} failures, "
            f"{self.seconds:.0f} s ({statuses})"
        )


def prepare(root: Path) -> PageOptions:
    """A root with a job in each state, results, styles and uploads."""
    environment = {"NST_FOLDERS__ROOT": str(root), "NST_STATUS_PAGE": HOST}
    options = PageOptions.of(load(None, environment, search=()), serve=True)
    folders = options.folders
    for name in ("inbox", "styles", "results", "state", "done", "failed"):
        getattr(folders, name).mkdir(parents=True)
    Ledger.open(folders.ledger).close()
    picture(folders.styles / "starry.png", (80, 60))
    picture(folders.styles / "monet" / "a.png", (80, 60))
    picture(folders.styles / "monet" / "b.png", (80, 60))
    for name in ("dog", "cat"):
        for suffix in (".png", ".loss.png", ".progress.webp"):
            picture(folders.results / f"{name}{suffix}", (120, 80))
        (folders.results / f"{name}.json").write_text("{}")
        picture(folders.done / name / f"{name}.content.png", (80, 60))
        given = JobInput(Role.CONTENT, f"{name}.content.png", f"{name}.content.png", "0" * 64, 99)
        add(options, name, result=f"{name}.png", archive=name, inputs=(given,))
    add(options, "bad", error="bad.png is damaged; send it again", archive="bad")
    for number in range(3):
        add(options, f"waiting{number}")
    limits = replace(options.config.limits, max_bytes=10_000, min_free_disk=0)
    return replace(options, config=replace(options.config, limits=limits))


def known_ids(options: PageOptions) -> list[str]:
    """Ids of jobs and uploads of the root."""
    visitor = client(options)
    body = (options.folders.styles / "starry.png").read_bytes()
    uploads = [
        visitor.post(f"{API}/uploads?name=dog{n}.png", content=body).json()["id"] for n in range(3)
    ]
    with Ledger.open(options.folders.ledger) as ledger:
        return [*ledger.ids(), *uploads]


def run(root: Path, *, examples: int, seconds: int, seed: int = 1, quick: bool = False) -> Report:
    """Send requests, and check the responses.

    Args:
        root: An empty folder.
        examples: The most generated requests of each operation.
        seconds: The longest time.
        seed: Of the requests.
        quick: Leave out the shrinking of failures and chains of requests.
    """
    options = prepare(root)
    ids = known_ids(options)
    config = SchemathesisConfig.from_dict(
        {
            "base-url": f"http://{HOST}",
            "seed": seed,
            # With a time limit the engine goes on until it is over.
            **({} if quick else {"max-time": seconds}),
            "continue-on-failure": True,
            "generation": {
                "mode": "all",
                "max-examples": examples,
                "no-shrink": quick,
                "database": "none",
            },
            "checks": {
                # Unknown settings, names in use and the like are refused by the program, not by the description.
                "positive_data_acceptance": {
                    "expected-statuses": ["2xx", 409, 411, 413, 416, 503, *REFUSED[:4]]
                },
                "negative_data_rejection": {"expected-statuses": [*REFUSED, 411, 413]},
                "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 503]},
            },
            "phases": {"stateful": {"enabled": not quick}},
        }
    )
    app = make_app(options)
    schema = schemathesis.openapi.from_dict(app.openapi(), config=config)
    schema.app = app
    schema = schema.exclude(path_regex="/events$")
    install(schema, ids)
    report, began = Report(), time.monotonic()
    for event in from_schema(schema).execute():
        note(event, report)
    report.seconds = time.monotonic() - began
    return report


def install(schema: Any, ids: list[str]) -> None:
    """Use ids that exist in half of the requests, and do not wait long."""

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: Any) -> Any:
        return known(path_parameters, ids) if path_parameters else path_parameters

    @schema.hook
    def map_body(context: Any, body: Any) -> Any:
        return known(body, ids)

    @schema.hook
    def map_query(context: Any, query: Any) -> Any:
        if query and isinstance(query.get("wait"), int | float) and 0 <= query["wait"] <= 60:
            query["wait"] = min(query["wait"], 0.1)
        return known(query, ids) if query else query


def known(value: Any, ids: list[str]) -> Any:
    """The value with ids that exist in the place of half of those that are generated."""
    if isinstance(value, dict):
        return {key: known(inner, ids) for key, inner in value.items()}
    if isinstance(value, list):
        return [known(inner, ids) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value):
        number = int(value, 16)
        return ids[number // 2 % len(ids)] if number % 2 == 0 else value
    return value


def note(event: Any, report: Report) -> None:
    """Count what an event tells."""
    if isinstance(event, events.NonFatalError | events.FatalError):
        shown = getattr(event, "info", None) or event.exception  # type: ignore[union-attr]
        report.failures.setdefault(f"error: {shown}", str(shown))
    recorder = getattr(event, "recorder", None)
    if recorder is None:
        return
    for case in recorder.cases.values():
        operation = case.value.operation
        report.operations[f"{operation.method.upper()} {operation.path}"] += 1
    for interaction in recorder.interactions.values():
        if interaction.response is not None:
            report.statuses[interaction.response.status_code] += 1
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                case = recorder.cases[case_id].value
                failure = check.failure_info.failure
                key = f"{case.operation.method.upper()} {case.operation.path}: {check.name}: {failure.title}"
                detail = f"{failure.message}\n{check.failure_info.code_sample}"
                response = recorder.interactions[case_id].response
                if response is not None:
                    detail += f"\n→ {response.status_code} {response.content[:400]!r}"
                report.failures.setdefault(key, detail)


def main() -> None:
    """Run for a while, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        report = run(
            Path(folder) / "nst",
            examples=asked.examples,
            seconds=asked.seconds,
            seed=asked.seed,
            quick=asked.quick,
        )
    for key, detail in report.failures.items():
        print(f"## {key}\n{detail}\n")
    print(f"seed {asked.seed}: {report}")
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
