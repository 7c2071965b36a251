"""Numbers for Prometheus."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nst_daemon.config import Metrics as Options
from nst_daemon.config import load
from nst_daemon.errors import ConfigError
from nst_daemon.service import housekeeping
from nst_daemon.service.live_status import STATES, LiveStatus
from nst_daemon.service.metrics import PrometheusMetrics
from nst_daemon.service.state import make_metrics
from nst_daemon.workers.messages import Died, Failed, Progress, Retry
from tests.bench import Bench


def numbers(text: str) -> dict[str, float]:
    """Every sample, as Prometheus reads them: name and labels → value."""
    return {
        f"{s.name}{''.join(f' {v}' for v in s.labels.values())}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_a_job_leaves_its_numbers(tmp_path: Path) -> None:
    """Jobs by state and outcome, seconds of stages, speed, memory, retries, queue age and free disk are in the file."""
    file = tmp_path / "nst.prom"
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=file))
    bench.drop("dog")
    first = bench.executor.tasks[0]
    for done in (10, 20):
        bench.executor.events.append(Progress("fake", first.job_id, done, 260, 0.5, memory=7))
        bench.step(5)
    found = numbers(file.read_text())
    assert found["nst_jobs running"] == 1
    assert found["nst_iterations_per_second fake"] == 2.0
    assert found["nst_device_memory_bytes fake"] == 0, "it has no process"
    assert found["nst_workers painting"] == 1
    assert found["nst_free_disk_bytes results"] > 0
    assert found["nst_min_free_disk_bytes"] == 0, "as the bench sets it"
    bench.drop("cat")
    bench.drop("owl")
    bench.step(10)
    assert numbers(file.read_text())["nst_queue_age_seconds"] >= 10
    (first.stage / "picture.json").write_text(json.dumps({"seconds": {"paint": 4.0, "save": 0.5}}))
    real = bench.executor.paint

    def keep_json() -> None:
        before = (first.stage / "picture.json").read_text()
        real()
        (first.stage / "picture.json").write_text(before)

    keep_json()
    bench.step(1)
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.LATER, "again"))
    bench.step(1)
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "no"))
    bench.step(1, times=3)
    found = numbers(file.read_text())
    assert found["nst_stage_seconds_sum paint"] == 4.0
    assert found["nst_stage_seconds_count save"] == 1
    assert found["nst_stage_seconds_bucket 3.0 paint"] == 0
    assert found["nst_stage_seconds_bucket 10.0 paint"] == 1
    assert found["nst_jobs_ended_total done"] == 1
    assert found["nst_jobs_ended_total failed"] == 1
    assert found["nst_jobs_ended_total quarantined"] == 0
    assert found["nst_retries_total transient"] == 1
    assert found["nst_paused"] == 0
    bench.folders.results.rename(tmp_path / "gone")
    bench.step(1, times=2)
    found = numbers(file.read_text())
    assert found["nst_paused"] == 1, "although the free space of results/ is unknown"
    assert "nst_free_disk_bytes results" not in found
    assert {p.name for p in tmp_path.iterdir()} == {"nst.prom", "nst", "gone"}, "no temporary file"


def test_the_state_is_one_of_all(tmp_path: Path) -> None:
    """`nst_state` is 1 for the state of the status and 0 for every other; the time of the report is told."""
    file = tmp_path / "nst.prom"
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=file))

    def states() -> dict[str, float]:
        found = numbers(file.read_text())
        assert found["nst_report_timestamp_seconds"] == bench.now.wall
        return {state: found[f"nst_state {state}"] for state in STATES}

    bench.step(1)
    assert states() == {state: float(state == "idle") for state in STATES}
    bench.drop("dog")
    assert states() == {state: float(state == "painting") for state in STATES}
    bench.change(limits={"min_free_disk": 1 << 60})
    bench.step(1)
    assert states() == {state: float(state == "paused") for state in STATES}
    found = numbers(file.read_text())
    assert found["nst_min_free_disk_bytes"] == 1 << 60
    assert [name for name in found if name.startswith("nst_paused_since_timestamp_seconds")]


def test_a_full_disk_is_one_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label with the reason of a pause is the same for each amount of free space."""
    file = tmp_path / "nst.prom"
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=file))
    bench.change(limits={"min_free_disk": 1000})
    reasons = set()
    for free in (999, 500, 0):
        monkeypatch.setattr(housekeeping, "free_bytes", lambda _, free=free: free)
        bench.step(1)
        found = numbers(file.read_text())
        reasons |= {name for name in found if name.startswith("nst_paused_since_timestamp_")}
    assert len(reasons) == 1


def test_progress_is_an_iteration_or_a_picture(tmp_path: Path) -> None:
    """The time of progress is the start's, then that of the last iteration or picture; a job that fails is none."""
    file = tmp_path / "nst.prom"
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=file))
    began = bench.now.wall

    def progress() -> float:
        return numbers(file.read_text())["nst_progress_timestamp_seconds"]

    bench.drop("dog")
    assert progress() == began
    task = bench.executor.tasks[0]
    bench.executor.events.append(Progress("fake", task.job_id, 10, 260, 0.5))
    bench.step(5)
    assert progress() == (painted := bench.now.wall)
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "no"))
    bench.step(5)
    assert progress() == painted
    bench.drop("cat")
    bench.executor.paint()
    bench.step(5)
    assert progress() == bench.now.wall


def test_deaths_of_workers_are_counted(tmp_path: Path) -> None:
    """The end of a worker counts with and without a job, from 0 on; the end of a job without one does not."""
    file = tmp_path / "nst.prom"
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=file))
    bench.drop("dog")

    def deaths() -> float:
        return numbers(file.read_text())["nst_worker_deaths_total fake"]

    assert deaths() == 0
    bench.executor.events.append(Died("fake", None, "was killed by signal 9 (SIGKILL)"))
    bench.step(1)
    assert deaths() == 1
    bench.executor.answer(lambda task: Died("fake", task.job_id, "was killed"))
    bench.step(1, times=2)
    assert deaths() == 2
    bench.executor.answer(lambda task: Failed("fake", task.job_id, Retry.NEVER, "no"))
    bench.step(1)
    assert deaths() == 2


def test_the_metrics_tell_of_a_disk_that_is_too_full_for_the_status(tmp_path: Path) -> None:
    """A pause is in the metrics even if status.json cannot be written."""
    file = tmp_path / "nst.prom"
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=file))
    bench.step(1)
    bench.folders.status.unlink()
    bench.folders.status.mkdir()  # so that it cannot be replaced by a file
    bench.folders.results.rename(tmp_path / "gone")
    bench.step(1)
    assert bench.supervisor.paused
    assert numbers(file.read_text())["nst_paused"] == 1


def test_a_value_that_stays_is_never_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the gauges are set again, the port would at no moment serve less than before."""
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=tmp_path / "nst.prom"))
    bench.drop("dog")
    metrics = bench.supervisor._state.metrics
    assert metrics is not None
    labels, remove, clear = Gauge.labels, Gauge.remove, Gauge.clear
    seen = []

    def look() -> None:
        names = numbers(generate_latest(metrics.registry).decode())
        seen.append({name for name in names if name.startswith("nst_workers")})

    def looking(change: Callable[..., object]) -> Callable[..., object]:
        def changed(self: Gauge, *values: str) -> object:
            found = change(self, *values)
            look()
            return found

        return changed

    look()
    for name, change in (("labels", labels), ("remove", remove), ("clear", clear)):
        monkeypatch.setattr(Gauge, name, looking(change))
    bench.step(1)
    assert len(seen) > 10
    assert all(names == {"nst_workers painting"} for names in seen)


def test_the_last_numbers_are_those_of_the_end(tmp_path: Path) -> None:
    """After the end the file holds the final counts, no worker and `nst_running` 0; the status is `stopped`."""
    file = tmp_path / "nst.prom"
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=file))
    bench.drop("dog")
    bench.step(1)
    assert numbers(file.read_text())["nst_running"] == 1
    bench.executor.paint()
    bench.supervisor.step(bench.now, woken=False)  # no housekeeping is due in this round
    bench.supervisor.stop(bench.now)
    found = numbers(file.read_text())
    assert found["nst_jobs done"] == found["nst_jobs_ended_total done"] == 1
    assert found["nst_running"] == found["nst_jobs running"] == 0
    assert not [name for name in found if name.startswith("nst_workers")]
    live = LiveStatus.read(bench.folders.status)
    assert live is not None
    assert (live.state, live.headline, live.workers) == ("stopped", "stopped", [])


def test_the_port_is_local(tmp_path: Path) -> None:
    """Where a port is asked for it answers on 127.0.0.1 and nowhere else."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bench = Bench(tmp_path, metrics=Options(port=port))
    bench.step(1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert numbers(answer.read().decode())["nst_jobs queued"] == 0
    listening = Path("/proc/net/tcp").read_text()
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening
    with pytest.raises(ConfigError, match=str(port)):
        PrometheusMetrics(Options(port=port))


def test_nothing_is_imported_unless_asked_for(tmp_path: Path) -> None:
    """Without a file and a port there are no metrics, and their library is not loaded."""
    bench = Bench(tmp_path)
    assert make_metrics(bench.config, bench.now) is None


def test_other_users_read_the_textfile(tmp_path: Path) -> None:
    """node_exporter can read the file whatever the umask of the daemon is, and no other file is left beside it."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    bench = Bench(tmp_path / "nst", metrics=Options(textfile=folder / "nst.prom"))
    before = os.umask(0o077)
    try:
        bench.step(1)
    finally:
        os.umask(before)
    assert [path.name for path in folder.iterdir()] == ["nst.prom"]
    assert (folder / "nst.prom").stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A textfile in a folder that is not there is complained about once, and painting goes on."""
    bench = Bench(tmp_path, metrics=Options(textfile=tmp_path / "no" / "nst.prom"))
    bench.drop()
    bench.step(1, times=5)
    assert len(bench.executor.tasks) == 1
    assert not bench.supervisor.paused
    assert len([line for line in caplog.messages if "nst.prom cannot be written" in line]) == 1


@pytest.mark.parametrize("name", ["state/ledger.sqlite", "state/lock", "/dev/null", "nst.prom.txt"])
def test_only_prom_files_are_written(name: str) -> None:
    """A textfile that would replace the ledger, a device or a file that is not for node_exporter is refused."""
    with pytest.raises(ConfigError, match=r"metrics\.textfile: .* does not end with \.prom"):
        load(None, {"NST_METRICS__TEXTFILE": name}, search=())


def test_the_textfile_is_relative_to_the_configuration(tmp_path: Path) -> None:
    """Like every path of the configuration."""
    path = tmp_path / "config.yaml"
    path.write_text("metrics: {textfile: nst.prom}")
    assert load(path, {}).metrics.textfile == tmp_path / "nst.prom"
