"""Uploads to a real page process: clients that disconnect, many at once, and a process that is killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nst_daemon.ops.status import resident
from tests.web.page_process import DEADLINE, PageProcess
from tests.web.test_uploads import png

MiB = 1 << 20
#: An image file of 5 MiB that is not compressible: PNG allows data after its end.
PICTURE = png((64, 64)) + bytes(5 * MiB)


def request(server: PageProcess, length: int) -> bytes:
    """The header of an upload."""
    return (
        b"POST /api/v1/uploads?name=dog.png HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        + server.authorized
        + f"Content-Length: {length}\r\n\r\n".encode()
    )


def arriving(server: PageProcess) -> list[str]:
    """The files of uploads that are arriving."""
    folder = server.options.folders.uploads
    return [path.name for path in folder.glob("*.part")] if folder.exists() else []


def until(condition: Callable[[], object]) -> None:
    """Wait for something."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_uploads_of_clients_that_disconnect_leave_nothing(server: PageProcess) -> None:
    """Connections that end in the middle of an upload leave no file, and the page goes on."""
    before = set(server.options.folders.uploads.glob("*"))
    connections = [server.connect() for _ in range(10)]
    for connection in connections:
        connection.sendall(request(server, len(PICTURE)) + PICTURE[: 2 * MiB])
    until(lambda: len(arriving(server)) == 10)
    assert server.answers()
    for connection in connections:
        connection.close()
    until(lambda: not arriving(server))
    assert set(server.options.folders.uploads.glob("*")) == before


def test_many_uploads_at_once(server: PageProcess) -> None:
    """50 uploads side by side are all stored, others are served meanwhile, and the memory stays small."""

    def send(_: int) -> str:
        said = server.ask(request(server, len(PICTURE)) + PICTURE)
        assert said.startswith(b"HTTP/1.1 201 "), said[:500]
        return str(json.loads(said.partition(b"\r\n\r\n")[2])["id"])

    with ThreadPoolExecutor(50) as pool:
        futures = [pool.submit(send, number) for number in range(50)]
        assert server.answers()
        found = {future.result() for future in futures}
    assert len(found) == 50
    assert resident(server.process.pid) < 250 * MiB
    for upload_id in found:
        stored = server.options.folders.uploads / f"{upload_id}.png"
        assert stored.stat().st_size == len(PICTURE)


def test_uploads_survive_a_killed_process(server: PageProcess) -> None:
    """After the process was killed during an upload, the next one has the complete uploads and nothing else."""
    kept = json.loads(server.ask(request(server, len(PICTURE)) + PICTURE).partition(b"\r\n\r\n")[2])
    with server.connect() as connection:
        connection.sendall(request(server, len(PICTURE)) + PICTURE[: 2 * MiB])
        until(lambda: len(arriving(server)) == 1)
        server.end()
    assert len(arriving(server)) == 1
    server.start()
    assert server.answers()
    assert not arriving(server)
    said = server.ask(
        f"GET /api/v1/uploads/{kept['id']} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
        + server.authorized
        + b"\r\n"
    )
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == kept


def test_a_process_that_is_asked_to_end_leaves_no_incomplete_upload(server: PageProcess) -> None:
    """At SIGTERM an upload that is arriving is removed, without a traceback in the log."""
    logged = len(server.log.read_text())
    with server.connect() as connection:
        connection.sendall(request(server, len(PICTURE)) + PICTURE[: 2 * MiB])
        until(lambda: len(arriving(server)) == 1)
        server.process.terminate()
        server.process.wait(DEADLINE)
    assert not arriving(server)
    assert "Traceback" not in server.log.read_text()[logged:]
