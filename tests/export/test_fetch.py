"""Fetching weights from a server that interrupts, sends wrong data or is missing."""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nst_daemon import weights_file
from nst_daemon.cli import app
from nst_daemon.errors import BusyError, ModelError, StorageError
from nst_daemon.export import fetch as module
from nst_daemon.export.fetch import fetch
from nst_daemon.weights_file import WeightsFile, find_weights

BODY = bytes(range(256)) * 5000  # 1.28 MB: more than one chunk
NAME = f"vgg19-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


class Server(ThreadingHTTPServer):
    """Sends BODY. What is to go wrong is taken from `plan`, one item for each request; then all goes well."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[
            int | str
        ] = []  # a status, "ignore ranges", or a number of bytes after which it breaks off
        self.requests: list[str] = []  # the Range of each
        self.paths: list[str] = []
        self.body = BODY

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connections that the test interrupts."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.requests.append(wanted)
        self.server.paths.append(self.path)
        todo = self.server.plan.pop(0) if self.server.plan else len(self.server.body)
        if isinstance(todo, int) and 400 <= todo < 600:
            self.send_error(todo)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if todo == "ignore ranges":
            start, todo = 0, len(self.server.body)
        if start >= len(self.server.body) and wanted:
            self.send_error(416)
            return
        rest = self.server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        assert isinstance(todo, int)
        self.wfile.write(rest[:todo])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file is to go, under a name that holds the digest of BODY."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights_file, "IMAGENET_FILES", {"vgg19": NAME})
    return weights_file.imagenet_path("vgg19")


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def get(server: Server, pauses: list[float]) -> Callable[..., WeightsFile]:
    """`fetch` from the server, with pauses that take no time."""
    return lambda **more: fetch("vgg19", server.address, sleep=pauses.append, **more)


def part(target: Path) -> Path:
    return target.with_name(NAME + ".part")


def test_it_comes_and_is_found(
    server: Server, target: Path, get: Callable[..., WeightsFile]
) -> None:
    """The file lies where torchvision looks for it, whole, is what `auto` takes, and progress ends at its size."""
    seen: list[tuple[int, int]] = []
    found = get(progress=lambda done, total: seen.append((done, total)))
    assert found.path == target
    assert target.read_bytes() == BODY
    assert find_weights("auto") == found
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert server.paths == [f"/models/{NAME}"]
    assert not part(target).exists()


def test_what_is_there_is_not_fetched_again(
    server: Server, target: Path, get: Callable[..., WeightsFile]
) -> None:
    """A file that is there already is checked and left, without a request."""
    target.parent.mkdir(parents=True)
    target.write_bytes(BODY)
    assert get().sha256 == hashlib.sha256(BODY).hexdigest()
    assert server.requests == []


def test_interruptions_are_resumed(
    server: Server, target: Path, get: Callable[..., WeightsFile], pauses: list[float]
) -> None:
    """A connection that breaks off goes on at the byte where it broke, and only what is missing is asked for."""
    server.plan = [300_000, 503, 400_000]
    get()
    assert target.read_bytes() == BODY
    assert server.requests == ["", "bytes=300000-", "bytes=300000-", "bytes=700000-"]
    assert pauses == [1.0, 2.0, 1.0]


def test_a_later_run_goes_on(server: Server, target: Path, get: Callable[..., WeightsFile]) -> None:
    """What an earlier run has left is continued."""
    target.parent.mkdir(parents=True)
    part(target).write_bytes(BODY[:12345])
    get()
    assert server.requests == ["bytes=12345-"]
    assert target.read_bytes() == BODY


def test_a_server_without_ranges_begins_anew(
    server: Server, target: Path, get: Callable[..., WeightsFile]
) -> None:
    """A server that answers a request for the rest with the whole file does not end in a mixture."""
    server.plan = [100_000, "ignore ranges"]
    get()
    assert target.read_bytes() == BODY


def test_a_whole_part_is_recognised(
    server: Server, target: Path, get: Callable[..., WeightsFile]
) -> None:
    """A run that ended between the last byte and the renaming is finished without another byte."""
    target.parent.mkdir(parents=True)
    part(target).write_bytes(BODY)
    get()
    assert target.read_bytes() == BODY


def test_other_contents_are_refused(
    server: Server, target: Path, get: Callable[..., WeightsFile]
) -> None:
    """Contents whose digest is not the one in the name are removed and refused, and the next fetch can succeed."""
    server.body = BODY[:-1] + b"?"
    with pytest.raises(ModelError, match=rf"is not {NAME}"):
        get()
    assert not target.exists()
    server.body = BODY
    get()
    assert target.read_bytes() == BODY


def test_giving_up_keeps_what_has_come(
    server: Server, target: Path, get: Callable[..., WeightsFile], pauses: list[float]
) -> None:
    """Where nothing more comes, it gives up after some tries, names the address, and keeps what it has."""
    server.plan = [500_000, *[503] * 20]
    with pytest.raises(ModelError, match=rf"cannot fetch {server.address}/{NAME}: .*is kept"):
        get()
    assert part(target).read_bytes() == BODY[:500_000]
    assert len(server.requests) == 1 + module.MAX_FAILURES
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_a_refusal_is_final(
    server: Server, target: Path, get: Callable[..., WeightsFile], pauses: list[float]
) -> None:
    """A server that does not have the file is asked once."""
    server.plan = [404]
    with pytest.raises(ModelError, match="404"):
        get()
    assert len(server.requests) == 1
    assert pauses == []


def test_an_unreachable_server_is_a_model_error(target: Path, pauses: list[float]) -> None:
    """An address without a server is a ModelError."""
    with pytest.raises(ModelError, match=r"cannot fetch http://127\.0\.0\.1:9/"):
        fetch("vgg19", "http://127.0.0.1:9", sleep=pauses.append)


def test_a_file_that_was_brought_along(target: Path, tmp_path: Path) -> None:
    """A path of a file is taken in place of an address, and checked alike."""
    brought = tmp_path / "from-a-usb-stick.bin"
    brought.write_bytes(BODY)
    assert fetch("vgg19", str(brought)).path == target
    assert target.read_bytes() == BODY
    target.unlink()
    brought.write_bytes(b"something else")
    with pytest.raises(ModelError, match="is not"):
        fetch("vgg19", str(brought))
    assert not target.exists()


@pytest.mark.parametrize("source", ["/nowhere/file.pth", "file:///etc/passwd", "ftp://host/x"])
def test_other_sources_are_refused(target: Path, source: str) -> None:
    """What is neither a file nor an http address is refused by name."""
    with pytest.raises(ModelError, match=source):
        fetch("vgg19", source)


def test_two_at_once_are_refused(target: Path, get: Callable[..., WeightsFile]) -> None:
    """While another process fetches the same file, a second one says so and ends."""
    target.parent.mkdir(parents=True)
    with part(target).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another process"):
            get()


def test_a_full_disk_is_said_before(
    server: Server,
    target: Path,
    get: Callable[..., WeightsFile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the file does not fit onto the disk, that is said before it is fetched."""
    monkeypatch.setattr(module, "free_bytes", lambda folder: 1000)
    with pytest.raises(StorageError, match=r"1\.3 MiB is needed"):
        get()
    assert part(target).stat().st_size == 0


def test_the_address_is_torchvisions() -> None:
    """Without a mirror the address is the one that torchvision itself uses."""
    import torchvision

    for network, name in weights_file.IMAGENET_FILES.items():
        url = torchvision.models.get_model_weights(network).IMAGENET1K_V1.url
        assert module.download_address(None, name) == url


def test_another_network_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`model fetch --network` brings that network's file; until then its absence is told with this very command."""
    name = NAME.replace("vgg19", "efficientnet_b0")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights_file, "IMAGENET_FILES", {"efficientnet_b0": name})
    with pytest.raises(ModelError, match="model fetch --network efficientnet_b0"):
        find_weights("auto", "efficientnet_b0")
    ran = CliRunner().invoke(
        app, ["model", "fetch", f"{server.address}/{NAME}", "--network", "efficientnet_b0"]
    )
    assert ran.exit_code == 0
    assert find_weights("auto", "efficientnet_b0").path.name == name
