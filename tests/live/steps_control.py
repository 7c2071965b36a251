"""The timer, the nightly batch, drop-ins, the page and its tokens."""

from __future__ import annotations

import json
from typing import Any

from tests.live.machine import until
from tests.live.service import CONFIGURATION, DATA, MINUTE, SOURCE, Service, check, step

PAGE = "127.0.0.1:8787"
API = f"http://{PAGE}/api/v1"
BATCH = "nst-batch.service"
TIMER = "nst-batch.timer"
#: The timer without its random delay.
AT_ONCE = "[Timer]\nRandomizedDelaySec=0\nAccuracySec=1s\n"
#: The drop-in of docs/operations.md for folders in another place.
ELSEWHERE = """[Unit]
RequiresMountsFor=/srv/nst
[Service]
StateDirectory=
WorkingDirectory=/srv/nst
ReadWritePaths=/srv/nst
"""


@step(400)
def timer(service: Service) -> None:
    """The timer runs at the time that a drop-in gives it, and its service paints the inbox and ends."""
    service.begin(start=False)
    service.drop("evening")
    service.drop_in("time.conf", TIMER, AT_ONCE + "OnCalendar=\nOnCalendar=*-*-* *:*:00/10\n")
    service.call(f"systemctl enable --now {TIMER}")
    service.until_done("evening")
    service.call(f"systemctl disable --now {TIMER}")
    until(lambda: service.show("ActiveState", BATCH) != "activating", "the end of the batch")
    check(service.show("Result", BATCH) == "success", service.show("Result", BATCH))
    check(not service.call("pgrep -u nst", any_code=True).strip(), "processes of nst are left")


@step(400)
def missed_night(service: Service) -> None:
    """If the machine was off at 22:00, the batch runs when the timer is started again."""
    service.begin(start=False)
    service.drop("missed")
    service.drop_in("soon.conf", TIMER, AT_ONCE)
    stamp = "/var/lib/systemd/timers/stamp-nst-batch.timer"
    service.call(f"mkdir -p {stamp.rpartition('/')[0]}; touch -d '3 days ago' {stamp}")
    service.call(f"systemctl enable --now {TIMER}")
    service.until_done("missed")
    service.call(f"systemctl disable --now {TIMER}")
    until(lambda: service.show("ActiveState", BATCH) != "activating", "the end of the batch")


@step(400)
def batch_beside_service(service: Service) -> None:
    """Beside the service the batch ends with 6, which is no failure; the service waits for the end of a batch."""
    service.begin()
    service.call(f"systemctl start {BATCH}")
    check(service.show("Result", BATCH) == "success", service.show("Result", BATCH))
    check(service.show("ExecMainStatus", BATCH) == "6", service.show("ExecMainStatus", BATCH))
    service.begin(start=False)
    service.drop_in("soon.conf", "nst-daemon.service", "[Service]\nRestartSec=2s\n")
    service.drop("first", iterations=MINUTE)
    service.call(f"systemctl start --no-block {BATCH}")
    service.until_painting("first")
    service.call("systemctl start nst-daemon", any_code=True)
    until(lambda: int(service.show("NRestarts")) > 0, "a refused start of the service")
    check("already serves" in service.journal(), "another reason in the journal")
    service.until_done("first")
    until(lambda: service.show("ActiveState") == "active", "the service after the batch")
    check(service.show("Result", BATCH) == "success", service.show("Result", BATCH))


@step(300)
def drop_in_cpu_only(service: Service) -> None:
    """With cpu-only.conf the service sees no device but the harmless ones, and paints."""
    service.begin(start=False)
    for unit in ("nst-daemon.service", BATCH):
        service.drop_in("cpu-only.conf", unit)
    service.call("systemctl start nst-daemon")
    check(service.show("PrivateDevices") == "yes", "PrivateDevices")
    service.drop("plain")
    service.until_done("plain")
    devices = service.call(f"nsenter --target={service.pid()} --mount ls /dev").split()
    harmless = {
        "char",
        "core",
        "fd",
        "full",
        "hugepages",
        "log",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
    }
    harmless |= {"shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
    check(set(devices) <= harmless, f"devices: {devices}")


@step(300)
def drop_in_notify(service: Service) -> None:
    """Messages need notify.conf: with it a webhook on the network gets the name of the picture, without it nothing."""
    server = f"{SOURCE}/tests/live/webhook.py"
    messages = service.machine.path("/root/messages")
    environment = service.machine.path("/etc/nst-daemon/environment")
    before = environment.read_text()
    service.begin(start=False)
    environment.write_text("NST_NOTIFY__URLS=json://127.0.0.1:8901/hook\n")
    service.call(f"python3 {server} 8901 /root/messages >/dev/null 2>&1 &")
    try:
        log = service.mark()
        service.call("systemctl start nst-daemon")
        service.drop("silent")
        service.until_done("silent")
        until(
            lambda: "notify.urls 1 (json)" in log(), "the line about the message that was not sent"
        )
        check(not messages.exists(), "a message passed without the drop-in")
        service.drop_in("notify.conf", "nst-daemon.service")
        service.call("systemctl restart nst-daemon")
        service.drop("told")
        until(lambda: messages.exists() and "told" in messages.read_text(), "the message")
    finally:
        environment.write_text(before)
        service.call(f"pkill -f {server}", any_code=True)


@step(300)
def drop_in_public_results(service: Service) -> None:
    """With public-results.conf every user can read results, also new ones, and nothing else; without it nothing."""
    service.begin()
    service.drop("private")
    service.until_done("private")
    for path in ("results/private.png", "done/private", "results", "inbox", "state"):
        check(service.machine.answer(f"ls {DATA}/{path}", user="bob")[0], f"bob can read {path}")
    for unit in ("nst-daemon.service", BATCH):
        service.drop_in("public-results.conf", unit)
    service.call(f"chmod -R o+rX {DATA}/results && systemctl restart nst-daemon")
    service.drop("public")
    service.until_done("public")
    service.call(f"cat {DATA}/results/p*.png {DATA}/results/p*.json", user="bob")
    for path in ("done/public", "inbox", "state", "styles", "failed", ""):
        check(service.machine.answer(f"ls {DATA}/{path}", user="bob")[0], f"bob can read {path}")


@step(300)
def other_place(service: Service) -> None:
    """The documented steps move the folders to /srv/nst; the service paints there and cannot write to the old ones."""
    service.begin(start=False)
    service.call(
        "install -d -m 2750 -o nst -g nst /srv/nst"
        " && install -d -m 2770 -o nst -g nst /srv/nst/{inbox,styles,results,done,failed,state}"
    )
    service.configure({"folders": {"root": "/srv/nst"}})
    for unit in ("nst-daemon.service", BATCH):
        service.drop_in("override.conf", unit, ELSEWHERE)
    service.call("systemctl start nst-daemon")
    samples = f"{SOURCE}/nst_daemon/samples"
    said = service.nst(f"submit {samples}/riverside.png {samples}/swirls.png --name moved --wait")
    check("/srv/nst/results/moved.png" in said, said)
    writable = service.call(f"awk '$4 ~ /^rw/ {{print $5}}' /proc/{service.pid()}/mountinfo")
    check(DATA not in writable.split(), "the old folders are writable")


@step(400)
def page(service: Service) -> None:
    """With status-page.conf the page takes a picture over HTTP and gives it back painted."""
    _begin_with_page(service)
    first = _get(service, f"http://{PAGE}/")
    check(first.startswith("200") and "<html" in first, first[:200])
    uploads = [
        json.loads(
            _get(service, f"{API}/uploads?name={name}.png", f"--data-binary @{path}", body=True)
        )
        for name, path in (
            ("town", f"{SOURCE}/nst_daemon/samples/riverside.png"),
            ("strokes", f"{SOURCE}/nst_daemon/samples/swirls.png"),
        )
    ]
    content, style = ({"upload": upload["id"]} for upload in uploads)
    wanted = json.dumps({"contents": [content], "styles": [style]})
    submitted: dict[str, Any] = json.loads(
        _get(service, f"{API}/jobs", f"--json '{wanted}'", body=True)
    )
    job = submitted["jobs"][0]["id"]
    until(
        lambda: (
            json.loads(_get(service, f"{API}/jobs/{job}?wait=20", body=True))["state"] == "done"
        ),
        "the job of the page",
    )
    service.call(f"curl -sf -o /root/painted.png {API}/jobs/{job}/result")
    check(service.machine.path("/root/painted.png").read_bytes()[:4] == b"\x89PNG", "no PNG")


@step(400)
def token(service: Service) -> None:
    """The first token closes the page to requests without one; a read-only one cannot act, a revoked one is refused."""
    _begin_with_page(service)
    check(_get(service, f"{API}/status").startswith("200"), "closed without tokens")
    full = _token(service, "phone")
    check(_get(service, f"{API}/status").startswith("401"), "open without a token")
    check(_get(service, f"{API}/status", _bearer(full)).startswith("200"), "closed with a token")
    reader = _token(service, "wall --read-only")
    check(_get(service, f"{API}/status", _bearer(reader)).startswith("200"), "read-only: status")
    pause = '--json \'{"action": "cancel", "ids": []}\''
    refused = _get(service, f"{API}/jobs/actions", f"{_bearer(reader)} {pause}")
    check(refused.startswith("403"), f"read-only: {refused[:80]}")
    service.call(f"sudo -u nst nst-daemon token revoke phone --config {CONFIGURATION}")
    check(_get(service, f"{API}/status", _bearer(full)).startswith("401"), "open after revoking")
    files = service.call(f"stat -c %U:%a {DATA}/state/tokens.json").strip()
    check(files == "nst:600", f"tokens.json is {files}")


def _begin_with_page(service: Service) -> None:
    """Switch on the page as docs/operations.md says, and wait for it."""
    service.begin(text=f"status_page: {PAGE}\n", start=False)
    service.drop_in("status-page.conf", "nst-daemon.service")
    service.call("systemctl start nst-daemon")
    until(lambda: not service.machine.answer(f"curl -sf {API}/health")[0], "the page")


def _get(service: Service, url: str, options: str = "", *, body: bool = False) -> str:
    """Make a request; the status and the body, or only the body."""
    said = service.call(f"curl -s -w '\\n%{{http_code}}' {options} '{url}'")
    text, _, code = said.rpartition("\n")
    if body:
        check(code.startswith("2"), f"{url}: {code} {text[:300]}")
        return text
    return f"{code} {text}"


def _token(service: Service, options: str) -> str:
    said = service.call(f"sudo -u nst nst-daemon token create {options} --config {CONFIGURATION}")
    return next(word for word in said.split() if word.startswith("nst_"))


def _bearer(value: str) -> str:
    return f"--header 'Authorization: Bearer {value}'"
