"""A real Prometheus that scrapes the real daemon, with the rules of monitoring/alerts.yaml."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Daemon

ROOT = Path(__file__).parents[2]
PROMETHEUS = shutil.which("prometheus")


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """Prometheus as a process, which looks every second and fires at once."""

    def __init__(self, folder: Path, target: int) -> None:
        rules = yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())
        for rule in rules["groups"][0]["rules"]:
            rule.pop("for", None)  # `promtool test rules` looks at the times
        (folder / "alerts.yaml").write_text(yaml.safe_dump(rules))
        job = {"job_name": "nst-daemon", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [job],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        self._port = free_port()
        assert PROMETHEUS is not None
        self.process = subprocess.Popen(
            [
                PROMETHEUS,
                "--config.file=prometheus.yml",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, what: str) -> dict[str, list[dict[str, object]]]:
        """What its API answers; nothing before it listens."""
        assert self.process.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/{what}") as answer:
                found: dict[str, list[dict[str, object]]] = json.load(answer)["data"]
                return found
        except OSError:
            return {}

    def scrapes(self) -> bool:
        """Whether the daemon has answered."""
        return [target["health"] for target in self.ask("targets").get("activeTargets", [])] == [
            "up"
        ]

    def firing(self) -> dict[str, str]:
        """The descriptions of the alerts that fire, by their names."""
        found = {}
        for alert in self.ask("alerts").get("alerts", []):
            labels, texts = alert["labels"], alert["annotations"]
            assert isinstance(labels, dict)
            assert isinstance(texts, dict)
            found[str(labels["alertname"])] = str(texts["description"])
        return found


@pytest.fixture
def prometheus(tmp_path_factory: pytest.TempPathFactory, daemon: Daemon) -> Iterator[Prometheus]:
    """Scrapes the daemon, which has not been started."""
    port = free_port()
    daemon.environment["NST_METRICS__PORT"] = str(port)
    made = Prometheus(tmp_path_factory.mktemp("prometheus"), port)
    yield made
    made.process.kill()
    made.process.wait()


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus")
def test_prometheus_tells_of_a_pause_and_of_the_end(daemon: Daemon, prometheus: Prometheus) -> None:
    """NstPaused names a folder that is missing and ends when it is back; NstGone follows when the daemon is killed."""
    daemon.start()
    daemon.until(prometheus.scrapes, "a scrape")
    daemon.until(lambda: "NstGone" not in prometheus.firing(), "end of the alert before the start")
    assert prometheus.firing().keys() <= {"NstDiskFilling"}, "it predicts from a few seconds"
    results = daemon.root / "results"
    results.rename(daemon.root / "away")
    daemon.until(lambda: "NstPaused" in prometheus.firing(), "NstPaused")
    assert prometheus.firing()["NstPaused"].startswith(f"{results} does not exist; mount it")
    (daemon.root / "away").rename(results)
    daemon.until(lambda: "NstPaused" not in prometheus.firing(), "end of the pause")
    assert "NstGone" not in prometheus.firing()
    daemon.end(signal.SIGKILL)
    daemon.process = prometheus.process  # the one that must live from now on
    daemon.until(lambda: "NstGone" in prometheus.firing(), "NstGone")
