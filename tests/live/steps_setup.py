"""Install, users, folders, the first start, the first picture."""

from __future__ import annotations

from tests.live.machine import until
from tests.live.service import CONFIGURATION, DATA, SOURCE, Service, check, sources, step

UNITS = ("nst-daemon.service", "nst-batch.service", "nst-batch.timer", "nst-nvidia.service")
FOLDERS = ("inbox", "styles", "results", "done", "failed", "state")
#: Where the service may write.
WRITABLE = (DATA, "/var/cache/nst-daemon", "/tmp", "/var/tmp", "/dev", "/proc")


@step(1800, setup=True)
def install(service: Service) -> None:
    """`make install` puts everything in its place, also with a umask of 077, and systemd accepts the units."""
    service.install(sources())
    service.call("nst-daemon --version")
    said = service.call(f"systemd-analyze verify --man=no {' '.join(UNITS)}")
    check(not said, f"systemd-analyze verify: {said}")
    check(service.show("FragmentPath").startswith("/usr/local/"), "the unit is not found")
    check(f"root: {DATA}" in service.machine.path(CONFIGURATION).read_text(), "folders.root")
    service.call("cp -a /etc/nst-daemon /root/etc-as-installed")


@step(120, setup=True)
def users(service: Service) -> None:
    """systemd-sysusers and systemd-tmpfiles make the user and the folders; a second time they change nothing."""
    for _ in range(2):
        service.call("systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload")
        made = service.call(
            f"cd {DATA} && stat -c '%n %U:%G %a' . {' '.join(FOLDERS)}"
        ).splitlines()
        wanted = [". nst:nst 2750", *(f"{name} nst:nst 2770" for name in FOLDERS)]
        check(made == wanted, f"folders: {made}")
    service.call("useradd -m alice && usermod -aG nst alice && useradd -m bob")
    service.call(f"chmod -R a+rX {SOURCE}")
    said = service.call(f"sudo -u nst nst-daemon doctor --config {CONFIGURATION}")
    check("Traceback" not in said, said)


@step(300, setup=True)
def start(service: Service) -> None:
    """The service starts with the configuration as installed, says that it is ready, and is confined."""
    service.call("systemctl enable --now nst-daemon")
    check(service.show("ActiveState") == "active", "not active")
    check(service.show("StatusText"), "no status line")
    until(service.worker, "the worker")
    inside = service.call("readlink /proc/1/ns/net").strip()
    for pid in (service.pid(), service.worker()):
        status = service.call(f"cat /proc/{pid}/status")
        facts = {
            line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()
        }
        uid = service.call("id -u nst").strip()
        check(facts["Uid"] == [uid] * 4, f"user {facts['Uid']}")
        for name, wanted in (("CapEff", "0" * 16), ("NoNewPrivs", "1"), ("Seccomp", "2")):
            check(facts[name] == [wanted], f"{name} of {pid} is {facts[name]}")
        network = service.call(f"readlink /proc/{pid}/ns/net").strip()
        check(network != inside, f"{pid} has the machine's network")
        writable = service.call(f"awk '$4 ~ /^rw/ {{print $5}}' /proc/{pid}/mountinfo").split()
        open_paths = [p for p in writable if not p.startswith(WRITABLE)]
        check(not open_paths, f"{pid} may write to {open_paths}")


@step(300)
def paint(service: Service) -> None:
    """A member drops a pair; the picture and its three other files are there, and the log has no warning."""
    service.begin()
    log = service.mark()
    service.drop("first")
    service.until_done("first")
    record = service.result("first")
    check(record["settings"]["iterations"] == [20], f"settings: {record['settings']}")
    names = service.call(f"cd {DATA}/results && stat -c '%n %U:%G %a' first*").splitlines()
    check(len(names) == 4, f"results: {names}")
    check(all(line.endswith(" nst:nst 660") for line in names), f"rights: {names}")
    inputs = service.call(f"ls {DATA}/done/first; ls -A {DATA}/inbox").split()
    check(inputs == ["first.content.png", "first.style.png"], f"inputs: {inputs}")
    bad = [line for line in log().splitlines() if " warning " in line or " error " in line]
    check(not bad, f"the log has {bad}")
