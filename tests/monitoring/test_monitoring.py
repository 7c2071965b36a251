"""The alert rules and the dashboard in monitoring/ against the metrics that the daemon exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nst_daemon.config import Metrics as Options
from nst_daemon.workers.messages import Failed, Retry
from tests.bench import Bench

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "monitoring" / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: Labels that Prometheus itself adds.
ADDED = {"job", "instance"}
PROMTOOL = shutil.which("promtool")


def expressions() -> Iterator[tuple[str, str]]:
    """Every text with a query, or with a label that is shown, and where it is."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
        yield rule["alert"], " ".join(rule["annotations"].values())
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable.get("definition", "")


def exported(folder: Path) -> dict[str, dict[str, set[str]]]:
    """Every sample of a daemon that is paused and had a job: name → label → its values."""
    bench = Bench(folder, metrics=Options(textfile=folder / "nst.prom"))
    bench.drop("dog")
    task = bench.executor.tasks[0]
    metrics = bench.supervisor._state.metrics
    assert metrics is not None
    metrics._seconds.labels("paint").observe(1.0)
    bench.step(1)
    running = generate_latest(metrics.registry).decode()
    bench.executor.answer(lambda _: Failed("fake", task.job_id, Retry.NEVER, "no"))
    bench.folders.results.rename(folder / "gone")
    bench.step(1, times=2)
    found: dict[str, dict[str, set[str]]] = {}
    for text in (running, generate_latest(metrics.registry).decode()):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def wrong_names(query: str, known: dict[str, dict[str, set[str]]]) -> list[str]:
    """The metrics, labels and values of labels in a query that the daemon does not export."""
    wrong = [name for name in re.findall(r"\bnst_\w+", query) if name not in known]
    for name, matchers in re.findall(r"\b(nst_\w+)\{([^}]*)\}", query):
        for label, sign, text in re.findall(r"(\w+)(!?=~?)\"?([^\",}]*)", matchers):
            values = known.get(name, {}).get(label)
            if label in ADDED:
                continue
            if values is None:
                wrong.append(f"{name}{{{label}}}")
            elif (
                label == "state" and name != "nst_workers"
            ):  # the states that others are compared with
                wrong += [f"{label}{sign}{v}" for v in text.split("|") if v not in values]
    return wrong


def test_every_query_names_what_is_exported(tmp_path: Path) -> None:
    """Metrics, labels and states in the rules and the dashboard are those of the daemon."""
    known = exported(tmp_path)
    found = [(where, wrong_names(text, known)) for where, text in expressions()]
    assert len(found) > 40
    assert not [(where, wrong) for where, wrong in found if wrong]


@pytest.mark.parametrize(
    "query",
    [
        "nst_pause == 1",
        "increase(nst_jobs_ended[1h])",
        'nst_jobs{stat="queued"}',
        'nst_jobs{state=~"queued|runing"}',
        'sum(nst_state{instance="a",state!="rest"})',
    ],
)
def test_a_misspelt_name_is_found(query: str, tmp_path: Path) -> None:
    """A wrong metric, label or state in a query is noticed."""
    assert len(wrong_names(query, exported(tmp_path))) == 1


def test_workers_states_are_documented() -> None:
    """The states of workers in queries are in the table of the metrics."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    (row,) = re.findall(r"(?m)^\| `nst_workers\{state\}` \| (.*) \|$", page)
    queries = " ".join(text for _, text in expressions())
    states = re.findall(r'nst_workers\{state="(\w+)"', queries)
    assert "lost" in states
    assert set(states) <= set(re.findall(r"\w+", row))


def test_every_alert_is_documented_and_tested() -> None:
    """docs/metrics.md has a row for each alert, and the tests of the rules let each one fire; neither has others."""
    names = {rule["alert"] for rule in RULES}
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"(?m)^\| `(Nst\w+)` \|", page)) == names
    tests = (ROOT / "tests" / "monitoring" / "alerts.test.yaml").read_text()
    assert set(re.findall(r"\bNst\w+", tests)) == names
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_dashboard_has_what_grafana_needs() -> None:
    """Panels have ids of their own and do not overlap; each target asks the data source that the user chooses."""
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD, "Grafana gives the number; a dashboard with one is not imported"
    source = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    (variable,) = [v for v in DASHBOARD["templating"]["list"] if v["name"] == "DS_PROMETHEUS"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at: dict[str, Any] = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for panel in PANELS:
        assert panel["datasource"] == source, panel["title"]
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["datasource"] == source for target in panel["targets"])
        assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])


def promtool(*arguments: str) -> None:
    """Run promtool; fail with its output."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool")
def test_the_rules_are_valid() -> None:
    """`promtool check rules` accepts the rules."""
    promtool("check", "rules", "--lint-fatal", "monitoring/alerts.yaml")


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool")
def test_each_alert_fires_when_it_should() -> None:
    """`promtool test rules`: each alert fires for its fault after its time, and not before or for anything else."""
    promtool("test", "rules", "tests/monitoring/alerts.test.yaml")
