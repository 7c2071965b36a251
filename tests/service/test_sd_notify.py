"""A test that plays systemd."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nst_daemon.service.admission import Admission
from nst_daemon.service.live_status import LiveStatus
from nst_daemon.service.sd_notify import Notifier
from nst_daemon.workers.executor import WorkerStatus
from tests.bench import Bench
from tests.service.conftest import DEADLINE, Served

pytestmark = pytest.mark.timeout(180)


class Systemd:
    """The receiving end of $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.path = path

    def hear(self, seconds: float) -> dict[str, str]:
        """The next message as a mapping; empty where none comes in time."""
        self.socket.settimeout(seconds)
        try:
            text = self.socket.recv(65536).decode()
        except TimeoutError:
            return {}
        return dict(line.split("=", 1) for line in text.splitlines())

    def until(self, wanted: Callable[[dict[str, str]], object]) -> list[dict[str, str]]:
        """Everything up to the message that is wanted."""
        heard: list[dict[str, str]] = []
        while not heard or not wanted(heard[-1]):
            heard.append(self.hear(DEADLINE))
            assert heard[-1], f"nothing more after {heard}"
        return heard


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    """A socket with a short path: pytest's are too long for one."""
    with tempfile.TemporaryDirectory() as folder:
        made = Systemd(Path(folder, "notify"))
        yield made
        made.socket.close()


@pytest.mark.parametrize("usec", ["", "soon", "-1", "1e6"])
def test_a_watchdog_without_a_time_is_none(usec: str) -> None:
    """A value that systemd does not set turns the watchdog off and is no error."""
    assert Notifier({"WATCHDOG_USEC": usec}).watchdog == 0


def test_a_service_tells_its_life(served: Served, systemd: Systemd) -> None:
    """READY once it serves, STATUS while it paints, WATCHDOG again and again, RELOADING and READY, STOPPING."""
    served.environment |= {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "2000000"}
    served.start()
    first = systemd.until(lambda message: "READY" in message)
    assert all("WATCHDOG" not in message for message in first)
    assert "serving" in served.text()
    served.pair("dog", iterations=10_000, seconds=0.01)
    said = systemd.until(lambda message: "painting dog" in message.get("STATUS", ""))
    signs = [m for m in said if m.get("WATCHDOG") == "1"]
    signs += [m for m in (systemd.hear(DEADLINE) for _ in range(6)) if "WATCHDOG" in m]
    assert len(signs) >= 3
    assert served.process is not None
    served.process.send_signal(signal.SIGHUP)
    (*_, reloading) = systemd.until(lambda message: "RELOADING" in message)
    assert int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    systemd.until(lambda message: message.get("READY") == "1")
    served.process.send_signal(signal.SIGTERM)
    systemd.until(lambda message: message.get("STOPPING") == "1")
    assert served.process.wait(DEADLINE) == 0


@pytest.mark.slow
def test_a_stuck_worker_stops_the_pings(served: Served, systemd: Systemd) -> None:
    """While a worker is frozen there is no WATCHDOG=1, and the status says which; thawed, the pings go on."""
    served.environment |= {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "4000000"}
    served.start()
    systemd.until(lambda message: "WATCHDOG" in message)
    served.pair(
        "cold", iterations=200, seconds=0.01, do="freeze", at=3, once=str(served.root / "x")
    )
    systemd.until(lambda message: "worker cpu has not answered" in message.get("STATUS", ""))
    silence_until = time.monotonic() + 4.0
    while (left := silence_until - time.monotonic()) > 0:
        assert "WATCHDOG" not in systemd.hear(left), "a ping although a worker is frozen"
    assert served.process is not None
    assert served.process.poll() is None
    live = LiveStatus.read(served.root / "state" / "status.json")
    assert live is not None
    os.kill(live.workers[0]["pid"], signal.SIGCONT)
    systemd.until(lambda message: "WATCHDOG" in message)


def test_what_is_not_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that end early, a scan that does not come and a silent worker are ailments; a pause is none."""
    bench = Bench(tmp_path)
    bench.step(1)
    assert bench.supervisor.ailment(bench.now, 10) == ""
    bench.time += 11
    assert "ledger" in bench.supervisor.ailment(bench.now, 10)
    bench.step(0)
    assert bench.supervisor.ailment(bench.now, 10) == ""
    monkeypatch.setattr(Admission, "take_in", lambda self, now: None)
    bench.step(41)
    assert "inbox" in bench.supervisor.ailment(bench.now, 10)
    bench.folders.inbox.rmdir()
    bench.step(1)
    assert bench.supervisor.paused
    assert bench.supervisor.ailment(bench.now, 10) == ""
    silent = WorkerStatus("cuda:0", "painting", 7, (), 11.0, {})
    monkeypatch.setattr(bench.executor, "status", lambda now: [silent])
    assert "cuda:0" in bench.supervisor.ailment(bench.now, 10)


def test_nothing_is_sent_elsewhere(systemd: Systemd) -> None:
    """Without NOTIFY_SOCKET there is no message, and a watchdog for another process is not fed."""
    Notifier({}).ready()
    other = Notifier(
        {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    )
    other.alive(1.0)
    other.status("a\nREADY=1")
    assert systemd.hear(5) == {"STATUS": "a\\x0aREADY=1"}
    assert systemd.hear(0.01) == {}
