"""Members of the group nst, other users, and root before everybody else."""

from __future__ import annotations

import json
import re

from tests.live.machine import until
from tests.live.service import CONFIGURATION, DATA, MINUTE, SOURCE, Service, check, step

SAMPLES = f"{SOURCE}/nst_daemon/samples"
PAIR = f"{SAMPLES}/riverside.png {SAMPLES}/swirls.png"


@step(600)
def members(service: Service) -> None:
    """A member of the group can submit, follow, cancel, retry, reorder, repeat and delete jobs."""
    service.begin()
    said = service.nst(f"submit {PAIR} --name hers --wait")
    check(f"{DATA}/results/hers.png" in said, said)
    service.drop("long", iterations=10 * MINUTE)
    service.until_painting("long")
    service.nst(f"submit {PAIR} --name second")
    service.nst(f"submit {PAIR} --name third")
    until(lambda: {"second", "third"} <= service.states().keys(), "the claims")
    service.nst("priority 10 third")
    status = json.loads(service.nst("status --json"))
    check(status["running"] and status["jobs"]["running"], f"status: {status['jobs']}")
    until(
        lambda: {job["name"]: job["priority"] for job in service.jobs()}["third"] == 10,
        "the priority",
    )
    service.nst("cancel long")
    until(lambda: service.states()["long"] == "cancelled", "the cancellation")
    service.nst("retry long --set iterations=5")
    until(lambda: service.states()["long"] == "done", "the retry")
    check(service.result("long")["settings"]["iterations"] == [5], "not the setting of the retry")
    service.nst(f"rerun {DATA}/results/hers.png --wait")
    first = min(service.jobs(), key=lambda job: float(job["created"]))
    service.nst(f"delete {first['id']} --yes")
    until(lambda: not service.machine.path(f"{DATA}/results/hers.png").exists(), "the deletion")
    service.call(f"rm {DATA}/results/long.png", user="alice")
    owners = set(service.call(f"find {DATA} -printf '%u:%g\\n'").split())
    check(owners <= {"nst:nst", "alice:nst"}, f"owners: {owners}")


@step(300)
def members_before_the_service(service: Service) -> None:
    """What a member does while the service is stopped is done at its next start, and stops nothing."""
    service.begin(start=False)
    service.nst(f"submit {PAIR} --name early")
    service.nst("status")
    service.call("systemctl start nst-daemon")
    service.until_done("early")


@step(300)
def strangers(service: Service) -> None:
    """A user outside the group gets one line that names the group, and changes nothing."""
    service.begin()
    service.drop("ours")
    service.until_done("ours")
    for command in (f"submit {PAIR} --name his", "cancel ours", "delete ours --yes", "history"):
        said = service.refused(command, user="bob")
        check("usermod -aG nst bob" in said, f"`{command}` said {said}")
    code, said = service.machine.answer(f"touch {DATA}/inbox/x.png", user="bob")
    check(code, "bob can write into the inbox")
    check(set(service.states()) == {"ours"}, f"jobs: {service.states()}")


@step(400)
def unreadable_drop(service: Service) -> None:
    """A picture that only its owner can read ends in failed/ with a reason that says so."""
    service.begin()
    service.call(
        f"umask 077; for role in content style; do cp {SAMPLES}/swirls.png {DATA}/inbox/mine.$role.png; done",
        user="alice",
    )
    failed = service.machine.path(f"{DATA}/failed")
    until(lambda: any(failed.rglob("error.txt")), "error.txt")
    reason = next(failed.rglob("error.txt")).read_text()
    check("read" in reason, reason)


@step(300)
def root_first(service: Service) -> None:
    """If root made all folders, the start of the service and systemd-tmpfiles give them to nst and its group."""
    service.begin(start=False)
    service.call(f"rm -rf {DATA}")
    service.nst("once", user="root")
    service.call("systemctl start nst-daemon && systemd-tmpfiles --create")
    service.drop("after")
    service.until_done("after")
    owners = set(service.call(f"find {DATA} -printf '%u:%g\\n'").split())
    check(owners == {"nst:nst"}, f"owners: {owners}")


@step(400)
def files_of_root(service: Service) -> None:
    """If folders of nst belong to root, the journal and doctor name a command after which the service starts."""
    service.begin(start=False)
    service.call(f"chown -R root:root {DATA}/state {DATA}/results")
    log = service.mark()
    service.call("systemctl start nst-daemon", any_code=True)
    check(service.show("ActiveState") != "active", "the service uses folders of root")
    commands = re.findall(r"sudo (chown -R nst:nst [^;\n]+)", log())
    check(len(commands) >= 1, f"log: {log()}")
    said = service.machine.answer(f"nst-daemon doctor --config {CONFIGURATION}")[1]
    check(commands[0] in " ".join(said.split()), f"doctor: {said}")
    service.call(commands[0])
    until(lambda: service.show("ActiveState") == "active", "the start by itself")
    service.drop("later")
    service.until_done("later")


@step(300)
def root_beside(service: Service) -> None:
    """root cannot run a daemon in the service's folders; what its other commands leave does not stop the service."""
    service.begin()
    said = service.refused("once", user="root", code=2)
    check("sudo -u nst" in said, said)
    said = service.nst(f"submit {PAIR} --name roots --wait", user="root")
    check("roots.png" in said, said)
    service.nst("delete roots --yes", user="root")
    until(lambda: not service.machine.path(f"{DATA}/results/roots.png").exists(), "the deletion")
    service.call("systemctl restart nst-daemon")
    check(service.show("ActiveState") == "active", "not active")
