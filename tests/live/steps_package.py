"""The Debian package, with `--deb FILE`: what `apt install`, its upgrade, `apt remove` and `apt purge` do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.live.machine import until
from tests.live.service import CONFIGURATION, DATA, MINUTE, SOURCE, Service, Step, check, sources
from tests.live.steps_setup import UNITS

APT = "apt-get -y --no-install-recommends"
CONFFILE = "# changed by the administrator\n"
PLACES = ("/usr/bin/nst-daemon", "/usr/lib/nst-daemon", "/usr/share/nst-daemon")


def steps(files: Sequence[Path]) -> list[Step]:
    """The steps for a package, in their order.

    Args:
        files: The package, or an older one and this one. A single one is also what it is upgraded to, which runs the
            same scripts.
    """
    first, last = files[0], files[-1]
    return [
        Step("package-install", 600, partial(_install, file=first), setup=True),
        Step("package-paint", 120, _paint, setup=True),
        Step("package-upgrade", 1200, partial(_upgrade, file=last)),
        Step("package-remove", 300, partial(_remove, file=last)),
        Step("package-purge", 120, _purge),
    ]


def _install(service: Service, file: Path) -> None:
    """The package creates user and folders, and starts the service; the nightly run stays off."""
    service.machine.unpack(sources(), SOURCE)  # for the sample pictures
    service.call(f"chmod -R a+rX {SOURCE}")
    _get(service, file)
    check(service.show("ActiveState") == "active", "the service is not active")
    check(service.show("UnitFileState") == "enabled", "the service is not enabled")
    check(service.show("UnitFileState", "nst-batch.timer") == "disabled", "the timer is enabled")
    said = service.call(f"systemd-analyze verify --man=no {' '.join(UNITS)}")
    check(not said, f"systemd-analyze verify: {said}")
    service.call("useradd -m alice && usermod -aG nst alice")
    service.call("nst-daemon --version && test -s /usr/share/man/man1/nst-daemon.1.gz")
    said = service.nst("doctor", user="nst")
    check("Traceback" not in said, said)


def _paint(service: Service) -> None:
    """A member drops a pair, and the picture is there."""
    service.begin()
    service.drop("first")
    service.until_done("first")
    service.result("first")


def _upgrade(service: Service, file: Path) -> None:
    """An upgrade in a painting restarts the service, which goes on with it, and keeps a changed conffile."""
    service.configure(text=CONFFILE)
    service.call("systemctl restart nst-daemon")
    # The service paints while apt unpacks the package, which takes most of a minute.
    service.drop("painting", iterations=20 * MINUTE)
    service.until_painting("painting")
    service.drop("waiting")
    until(lambda: "waiting" in service.states(), "the queue")
    before = service.pid()
    _get(service, file)
    check(service.pid() not in (0, before), f"the service was not restarted: {service.pid()}")
    service.until_done("painting", "waiting")
    service.check_resumed("painting")
    check(_kept(service), "the changed configuration was replaced")
    check(service.states()["first"] == "done", "the history")


def _remove(service: Service, file: Path) -> None:
    """`apt remove` leaves no file of the program, and a new installation finds pictures, history and configuration."""
    files = f"find {DATA} -type f ! -path '*/state/*' -exec sha256sum {{}} + | sort"
    before = service.call(files)
    service.call(f"{APT} remove nst-daemon")
    check(not service.pid(), "the service runs")
    left = service.call(f"find {' '.join(PLACES)}", any_code=True).splitlines()
    check(all("No such file" in line for line in left), f"left: {left}")
    check(_kept(service), "the configuration has gone")
    check(service.call(files) == before, "pictures have changed")
    _get(service, file)
    check(service.show("ActiveState") == "active", "the service is not active")
    check(service.call(files) == before, "the installation changed pictures")
    check(service.states()["first"] == "done", "the history")


def _purge(service: Service) -> None:
    """`apt purge` removes the configuration too, keeps pictures and user, and says how to remove them."""
    said = service.call(f"{APT} purge nst-daemon")
    check("userdel nst" in said, f"it does not say what is kept: {said}")
    check(not service.machine.path(CONFIGURATION).parent.exists(), "the configuration is there")
    check((service.machine.path(DATA) / "results/first.png").exists(), "the picture has gone")
    service.call("id nst")
    known = service.call(f"systemctl list-unit-files {' '.join(UNITS)} --no-legend", any_code=True)
    check(not known.strip(), f"units: {known}")


def _get(service: Service, file: Path) -> None:
    """Install a package as docs/install.md says."""
    copy = service.machine.path(f"/var/cache/{file.name}")
    shutil.copyfile(file, copy)
    service.call(f"{APT} install --reinstall /var/cache/{file.name}")
    copy.unlink()


def _kept(service: Service) -> bool:
    path = service.machine.path(CONFIGURATION)
    return path.exists() and path.read_text().endswith(CONFFILE)
