"""The life of the status page's process: beside the daemon, and never in its way."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nst_daemon import tokens
from nst_daemon.addresses import not_available
from nst_daemon.config import load
from nst_daemon.errors import ConfigError
from nst_daemon.ledger import Ledger
from nst_daemon.service.status_page import FIRST_RESTART_PAUSE, STOP_SECONDS, StatusPage
from nst_daemon.web.options import PageOptions
from tests.bench import Bench
from tests.service.conftest import DEADLINE, Served

TOKEN = "0123456789abcdef"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def answer(port: int, path: str = "/api/v1/status") -> int:
    """What the page answers; 0 where nobody does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE) as found:
            code: int = found.status
            return code
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def gone(pid: int) -> bool:
    """Whether a process has ended, even if nothing has waited for it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def until_gone(pid: int | None) -> None:
    """Wait for the end of a process."""
    assert pid is not None
    deadline = time.monotonic() + DEADLINE
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # another process is watched from outside: there is no clock to inject


def see_end(page: StatusPage, now: float) -> None:
    """Tend a page until it has noticed the end of its process."""
    first, deadline = page.pid, time.monotonic() + DEADLINE
    while page.pid == first:
        assert time.monotonic() < deadline
        page.tend(now)
        time.sleep(0.01)  # the kernel ends a process when it likes: there is no clock to inject


def end(page: StatusPage, now: float) -> None:
    """Kill the page's process."""
    assert page.pid is not None
    os.kill(page.pid, signal.SIGKILL)
    see_end(page, now)


def page_of(pid: int) -> int:
    """The process of the page that a daemon has started."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"nst_daemon.web" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("there is no page")


@pytest.fixture
def options(tmp_path: Path) -> PageOptions:
    """A page on a free port."""
    environment = {
        "NST_FOLDERS__ROOT": str(tmp_path),
        "NST_STATUS_PAGE": f"127.0.0.1:{free_port()}",
    }
    config = load(None, environment)
    config.folders.inbox.mkdir()
    config.folders.state.mkdir()
    Ledger.open(config.folders.ledger).close()
    return PageOptions.of(config, serve=True)


@pytest.fixture
def page(options: PageOptions) -> Iterator[StatusPage]:
    """A page that `tend` starts."""
    made = StatusPage(options)
    yield made
    made.close()


def port_of(options: PageOptions) -> int:
    """The port of its address."""
    return int(options.address.rpartition(":")[2])


def test_it_is_off_by_default(tmp_path: Path) -> None:
    """Nothing listens and no process is started unless the configuration says where; `once` never serves it."""
    bench = Bench(tmp_path)
    bench.step(1)
    assert bench.supervisor._page._socket is None
    assert bench.supervisor._page.pid is None
    config = replace(bench.config, status_page="127.0.0.1:1")
    assert PageOptions.of(config, serve=False).address == ""


def test_without_the_extra_it_is_refused(
    options: PageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a library is missing the start ends with the command that installs it."""
    monkeypatch.setitem(
        sys.modules, "uvicorn", None
    )  # Python's own mark of a module that is absent
    with pytest.raises(ConfigError, match=r"uvicorn.*-m pip install 'fastapi>=.*' 'uvicorn>="):
        StatusPage(options)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8787", "[::]:8787", "nas.local:8787", "192.168.1.2:8787"]
)
def test_other_machines_need_a_token(options: PageOptions, address: str) -> None:
    """A page that other machines could reach is refused without a token, at the start and later, with the remedy."""
    far = replace(options, address=address)
    with pytest.raises(ConfigError, match="no token") as caught:
        StatusPage(far)
    assert "openssl rand" in str(caught.value.remedy)
    page = StatusPage(replace(options, address=""))
    with pytest.raises(ConfigError, match="no token"):
        page.change(far)


@pytest.mark.parametrize("address", ["127.0.0.1:8787", "[::1]:8787", "localhost:80", "127.8.0.1:1"])
def test_this_machine_needs_none(options: PageOptions, address: str) -> None:
    """What only this machine can reach is served without a token; with one anything is."""
    far = replace(options, address="0.0.0.0:80")
    replace(options, address=address).check()
    far.with_token(TOKEN).check()
    with pytest.raises(ConfigError):
        far.check()


def test_a_created_token_is_enough_for_other_machines(options: PageOptions) -> None:
    """A page for other machines starts with a created token, and not after the last one was revoked."""
    far = replace(options, address="0.0.0.0:80")
    tokens.create(options.folders, "phone", "read")
    far.check()
    tokens.revoke(options.folders, "phone")
    with pytest.raises(ConfigError, match="no token"):
        far.check()


def test_a_port_that_is_taken_is_refused(page: StatusPage, options: PageOptions) -> None:
    """A second page on the same port is an error at once, before anything is started."""
    with pytest.raises(ConfigError, match=options.address):
        StatusPage(options)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EADDRINUSE, "x"), "Address already in use; choose another port"),
        (OSError(errno.EAFNOSUPPORT, "x"), "Address family not supported .*status-page.conf"),
        (OSError(errno.EACCES, "x"), "Permission denied; choose a port above 1023"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known; choose"),
    ],
)
def test_the_remedy_belongs_to_the_cause(error: OSError, said: str) -> None:
    """An address at which the page cannot listen is refused with the remedy for that cause alone."""
    text = str(not_available("status_page nas:80", error))
    assert re.fullmatch(f"status_page nas:80 is not available: {said}.*", text)
    assert ("status-page.conf" in text) == (error.errno == errno.EAFNOSUPPORT)


def test_it_comes_back(page: StatusPage, options: PageOptions) -> None:
    """A page that is killed is started again after a pause, and visitors who come meanwhile wait for it."""
    page.tend(0)
    assert answer(port_of(options)) == 200
    end(page, 10)
    assert page.pid is None
    page.tend(10 + FIRST_RESTART_PAUSE / 2)
    assert page.pid is None, "not at once"
    page.tend(10 + FIRST_RESTART_PAUSE)
    assert answer(port_of(options)) == 200
    end(page, 20)
    page.tend(20 + FIRST_RESTART_PAUSE)
    assert page.pid is None, "each pause is longer"
    page.tend(20 + 2 * FIRST_RESTART_PAUSE)
    assert page.pid is not None


def test_it_changes_with_the_configuration(page: StatusPage, options: PageOptions) -> None:
    """A new token, another port and no port take effect; a port that is taken changes nothing."""
    page.tend(0)
    assert answer(port_of(options)) == 200
    asking = options.with_token(TOKEN)
    page.change(asking)
    see_end(page, 1)
    assert answer(port_of(options)) == 401
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError):
            page.change(replace(options, address=address))
    page.tend(2)
    assert answer(port_of(options)) == 401, "all is as it was"
    page.change(replace(options, address=""))
    see_end(page, 3)
    page.tend(1000)
    assert page.pid is None
    assert answer(port_of(options)) == 0


def test_one_that_does_not_end_is_killed(page: StatusPage, options: PageOptions) -> None:
    """Where the old page hangs it is ended by force, so that the new one can begin."""
    page.tend(0)
    assert answer(port_of(options)) == 200
    assert page.pid is not None
    os.kill(page.pid, signal.SIGSTOP)
    page.change(options.with_token(TOKEN))
    page.tend(1)
    assert not gone(page.pid)
    page.tend(1 + STOP_SECONDS)
    see_end(page, 2 + STOP_SECONDS)
    assert answer(port_of(options)) == 401


@pytest.fixture
def serving(served: Served) -> int:
    """A daemon that serves its page; the port."""
    port = free_port()
    served.environment["NST_STATUS_PAGE"] = f"127.0.0.1:{port}"
    served.start()
    served.until(lambda: answer(port) == 200, "page")
    return port


def test_a_crash_of_the_page_is_nothing_to_the_daemon(served: Served, serving: int) -> None:
    """The daemon paints on while its page is killed, replaces it, and ends in time with it."""
    assert served.process is not None
    first = page_of(served.process.pid)
    os.kill(first, signal.SIGKILL)
    served.pair("dog")
    served.until((served.root / "results" / "dog.png").exists, "picture")
    assert answer(serving) == 200
    second = page_of(served.process.pid)
    assert second != first
    began = time.monotonic()
    assert served.end() == 0
    assert time.monotonic() - began < 30
    assert gone(second)
    assert answer(serving) == 0
    assert "the process of the status page was killed by signal 9 (SIGKILL)" in served.text()


def test_the_page_ends_with_a_daemon_that_is_killed(served: Served, serving: int) -> None:
    """Where the daemon dies without a word its page ends too, and leaves the port to the next one."""
    assert served.process is not None
    child = page_of(served.process.pid)
    served.process.kill()
    served.process.wait()
    until_gone(child)
    assert answer(serving) == 0


def test_the_daemon_stays_small(served: Served, serving: int) -> None:
    """With its page the daemon's own process stays under 100 MB, and the page's too."""
    from nst_daemon.ops.status import resident

    assert served.process is not None
    for pid in (served.process.pid, page_of(served.process.pid)):
        size = resident(pid)
        assert size is not None
        assert size < 100 * 10**6


def test_the_memory_of_the_page_is_limited(served: Served, serving: int) -> None:
    """The page's process can allocate at most 2 GiB, so that no thumbnail takes the memory of painting."""
    assert served.process is not None
    limits = Path(f"/proc/{page_of(served.process.pid)}/limits").read_text()
    (soft,) = re.findall(r"Max data size +(\d+)", limits)
    assert int(soft) <= 2 << 30


def test_a_reload_changes_the_page(served: Served) -> None:
    """On SIGHUP the page of the new configuration is served, and the old one is not any more."""
    first, second = free_port(), free_port()
    file = served.root / "config.yaml"
    file.write_text(f"status_page: 127.0.0.1:{first}\n")
    served.environment["NST_CONFIG"] = str(file)
    served.start()
    served.until(lambda: answer(first) == 200, "page")
    file.write_text(f"status_page: 127.0.0.1:{second}\n")
    assert served.process is not None
    served.process.send_signal(signal.SIGHUP)
    served.until(lambda: answer(second) == 200, "page at its new place")
    served.until(lambda: answer(first) == 0, "end of the old one")
