"""Reloads, kills, hangs, stops and reboots while pictures are painted."""

from __future__ import annotations

from tests.live.machine import until
from tests.live.service import CONFIGURATION, DATA, MINUTE, Service, check, step

#: Restarts without the 30 seconds of the unit.
SOON = "[Service]\nRestartSec=1s\n"


@step(300)
def reload_good(service: Service) -> None:
    """A reload takes over the new settings without a restart, and the next picture is painted with them."""
    service.begin()
    before, log = service.pid(), service.mark()
    service.configure({"render": {"iterations": 7}})
    service.call("systemctl reload nst-daemon")
    until(lambda: "using the new configuration" in log(), "the line of the log")
    service.drop("seven")
    service.until_done("seven")
    check(service.result("seven")["settings"]["iterations"] == [7], "not the new setting")
    check(service.pid() == before, "the daemon was restarted")


@step(300)
def reload_bad(service: Service) -> None:
    """A reload with a duplicate key keeps the old settings and logs the line; a restart fails once, with code 3."""
    service.begin()
    before, log = service.pid(), service.mark()
    service.configure(text="render:\n  iterations: 9\n")
    service.call("systemctl reload nst-daemon")
    until(lambda: "the new configuration is not used" in log(), "the line of the log")
    check(CONFIGURATION in log() and "line" in log(), f"log: {log()}")
    service.drop("old")
    sidecar = service.machine.path(f"{DATA}/results/old.json")
    until(sidecar.exists, "the picture")  # no command reads this configuration
    check(service.result("old")["settings"]["iterations"] == [20], "not the old setting")
    check(service.pid() == before and service.show("ActiveState") == "active", "not active")
    # A start with it fails, is not repeated, and says what to correct.
    service.call("systemctl restart nst-daemon", any_code=True)
    until(lambda: service.show("ActiveState") == "failed", "the failure of the start")
    check(service.show("ExecMainStatus") == "3", f"exit code {service.show('ExecMainStatus')}")
    service.configure()
    service.call("systemctl start nst-daemon")
    check(service.show("ActiveState") == "active", "not active after the correction")


@step(300)
def kill_worker(service: Service) -> None:
    """A worker that is killed is replaced, and the picture is painted in a second attempt, by the same daemon."""
    service.begin()
    before = service.pid()
    service.drop("struck", iterations=MINUTE)
    service.until_painting("struck")
    service.call(f"kill -KILL {service.worker()}")
    service.until_done("struck")
    (job,) = service.jobs()
    check(job["attempts"] == 2, f"attempts: {job['attempts']}")
    service.check_resumed("struck")
    check(service.pid() == before, "the daemon was restarted")


@step(300)
def kill_daemon(service: Service) -> None:
    """systemd starts a daemon that was killed again after 30 s; its worker has ended, and the picture continues."""
    service.begin()
    service.drop("orphan", iterations=MINUTE)
    service.until_painting("orphan")
    daemon, worker = service.pid(), service.worker()
    service.call(f"kill -KILL {daemon}")
    until(lambda: service.pid() not in {0, daemon}, "another daemon")
    gone = service.machine.answer(f"test -e /proc/{worker}")[0]
    check(gone, "the worker outlived its daemon")
    check(service.show("NRestarts") == "1", f"restarts: {service.show('NRestarts')}")
    service.until_done("orphan")
    service.check_resumed("orphan")


@step(300)
def watchdog(service: Service) -> None:
    """A daemon that hangs is ended by systemd's watchdog and started again, and the picture continues."""
    service.begin(start=False)
    service.drop_in("soon.conf", "nst-daemon.service", SOON + "WatchdogSec=10s\n")
    service.call("systemctl start nst-daemon")
    service.drop("hung", iterations=MINUTE)
    service.until_painting("hung")
    log, daemon = service.mark(), service.pid()
    service.call(f"kill -STOP {daemon}")
    until(lambda: service.pid() not in {0, daemon}, "another daemon")
    check("Watchdog timeout" in log(), f"log: {log()}")
    service.until_done("hung")
    service.check_resumed("hung")


@step(300)
def hanging_worker(service: Service) -> None:
    """A worker that hangs is replaced after service.stall_seconds, without the watchdog, and the picture continues."""
    service.begin({"service": {"stall_seconds": 15}})
    service.drop("stuck", iterations=MINUTE)
    service.until_painting("stuck")
    before, worker = service.pid(), service.worker()
    service.call(f"kill -STOP {worker}")
    until(lambda: service.worker() not in {0, worker}, "another worker")
    service.until_done("stuck")
    check(service.pid() == before, "the daemon was restarted")
    service.check_resumed("stuck")


@step(300)
def stop_and_go_on(service: Service) -> None:
    """`systemctl stop` ends cleanly within its limit; after the next start the picture continues where it was."""
    service.begin()
    service.drop("paused", iterations=MINUTE)
    service.until_painting("paused")
    service.call("systemctl stop nst-daemon")
    check(service.show("Result") == "success", f"the stop: {service.show('Result')}")
    check(not service.call("pgrep -u nst", any_code=True).strip(), "processes of nst are left")
    (job,) = service.jobs()
    check(job["state"] == "queued", f"the job is {job['state']}")
    service.call("systemctl start nst-daemon")
    service.until_done("paused")
    service.check_resumed("paused")


@step(400)
def reboot(service: Service) -> None:
    """A machine that reboots while it paints starts the service by itself, and the picture continues."""
    service.begin()
    service.drop("night", iterations=MINUTE)
    service.until_painting("night")
    service.machine.reboot()
    until(lambda: service.show("ActiveState") == "active", "the service after the boot")
    service.until_done("night")
    service.check_resumed("night")
