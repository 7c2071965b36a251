"""The upgrade from the release before, the way back, and the removal."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.live.machine import until
from tests.live.service import DATA, MINUTE, SOURCE, Service, check, sources, step
from tests.live.steps_setup import UNITS

#: The release before, until there is one: the last commit with version 8 of the ledger.
BEFORE = "ab5552d^"
LEDGER = f"{DATA}/state/ledger.sqlite"
QUEUE = ("waiting-1", "waiting-2")


@step(600)
def uninstall(service: Service) -> None:
    """`make uninstall` removes only the program and its units; a new installation finds pictures and history."""
    service.begin()
    service.drop("kept")
    service.until_done("kept")
    files = f"find {DATA} /etc/nst-daemon -type f ! -path '*/state/*' -exec sha256sum {{}} + | sort"
    service.call("systemctl disable --now nst-daemon nst-batch.timer")
    before = service.call(files)
    service.call(f"cd {SOURCE} && make uninstall && systemctl daemon-reload")
    check(service.call(files) == before, "pictures or the configuration have changed")
    left = service.call("find /usr/local -name '*nst*'").split()
    check(not left, f"left: {left}")
    known = service.call(f"systemctl list-unit-files {' '.join(UNITS)} --no-legend", any_code=True)
    check(not known.strip(), f"units: {known}")
    service.install(sources())
    service.call("systemctl daemon-reload && systemctl enable --now nst-daemon")
    check(service.call(files) == before, "the installation changed pictures or the configuration")
    check(service.states() == {"kept": "done"}, f"history: {service.states()}")


@step(2400)
def upgrade(service: Service) -> None:
    """A release that is stopped in a painting is replaced by the new one, which paints the queue."""
    _install_before(service)
    old = _version(service)
    service.drop("old")
    service.until_done("old")
    service.drop("painting", iterations=MINUTE)
    service.until_painting("painting")
    for name in QUEUE:
        service.drop(name)
    until(lambda: set(QUEUE) <= service.states().keys(), "the queue")
    # docs/maintenance.md, "Upgrade"
    service.call("systemctl stop nst-daemon")
    service.call(
        f"cd {DATA}/state && sudo -u nst sqlite3 ledger.sqlite '.backup ledger.sqlite.old'"
    )
    service.install(sources())
    service.call("systemctl daemon-reload && systemctl start nst-daemon")
    service.until_done("painting", *QUEUE)
    new = _version(service)
    check(new > old, f"the ledger had version {old} and has {new}")
    kept = service.machine.path(f"{LEDGER}.version-{old}")
    check(kept.exists(), f"{kept.name} is missing")
    check(service.states()["old"] == "done", "the history")
    owner = service.call(f"stat -c %U:%G {LEDGER}").strip()
    check(owner == "nst:nst", f"the ledger belongs to {owner}")


@step(2400)
def downgrade(service: Service) -> None:
    """The release before refuses the new ledger with code 10, and runs after the backup was restored as documented."""
    _install_before(service)
    service.drop("old")
    service.until_done("old")
    service.call("systemctl stop nst-daemon")
    service.call(
        f"cd {DATA}/state && sudo -u nst sqlite3 ledger.sqlite '.backup ledger.sqlite.old'"
    )
    service.install(sources())
    service.call("systemctl daemon-reload && systemctl start nst-daemon")
    service.drop("new")
    service.until_done("new")
    # docs/maintenance.md, "Downgrade"
    service.call(f"systemctl stop nst-daemon && make -C {SOURCE} uninstall")
    service.install(sources(BEFORE))
    service.call("systemctl daemon-reload; systemctl start nst-daemon", any_code=True)
    check(service.show("ExecMainStatus") == "10", f"exit code {service.show('ExecMainStatus')}")
    service.call("systemctl stop nst-daemon")
    restore = "rm -f ledger.sqlite-* && cp ledger.sqlite.old ledger.sqlite"
    service.call(f"sudo -u nst sh -c 'cd {DATA}/state && {restore}'")
    service.call("systemctl start nst-daemon")
    service.drop("back")
    service.until_done("back")
    check(service.states()["old"] == "done", "the history")
    service.call("systemctl stop nst-daemon")
    service.install(sources())
    service.call("systemctl daemon-reload")


def _install_before(service: Service) -> None:
    """Replace everything by the release before, in empty folders, and start it."""
    service.begin(start=False)
    service.call(f"rm -rf {DATA} /usr/local/lib/nst-daemon")
    service.install(sources(BEFORE))
    service.call("systemd-tmpfiles --create && systemctl daemon-reload")
    service.call(f"chmod -R a+rX {SOURCE} && systemctl start nst-daemon")


def _version(service: Service) -> int:
    """The version of the ledger's schema."""
    path = service.machine.path(LEDGER)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])
