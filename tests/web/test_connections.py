"""Attacks on a real server process by real sockets: each is refused in time, and others are still served."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from nst_daemon import tokens
from nst_daemon.ops.status import resident
from nst_daemon.web.connections import ConnectionLimits
from nst_daemon.web.wrong_tokens import SLOW
from tests.web.page_process import DEADLINE, SOON, STATUS, PageProcess, until_closed
from tests.web.served_page import LIMITS


def code(said: bytes) -> int:
    """The status code of a response; 0 if there is none."""
    return int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.1 ") else 0


def seconds(action: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """A page with a token and short time limits."""
    made = PageProcess(tmp_path_factory.mktemp("page"))
    assert made.answers()
    yield made
    made.end()


@pytest.fixture(autouse=True)
def still_answers(server: PageProcess) -> Iterator[None]:
    """After each attack the page answers, and its log has no traceback."""
    yield
    assert server.answers()
    assert "Traceback" not in server.log.read_text()


def test_a_header_that_does_not_end_is_given_up(server: PageProcess) -> None:
    """Connections that send nothing, half a header, or a header byte by byte are closed in time."""

    def slowly(start: bytes) -> float:
        with server.connect() as connection:
            connection.sendall(start)
            connection.settimeout(0.2)
            began = time.monotonic()
            with suppress(ConnectionError):
                while time.monotonic() - began < DEADLINE:
                    with suppress(TimeoutError):
                        if not connection.recv(1):
                            break
                    connection.sendall(b"x" if start else b"")
            return time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        took = list(pool.map(slowly, [b"", b"G", STATUS, STATUS + b"X-Long: "]))
    assert all(LIMITS.header_seconds - 0.5 < one < LIMITS.header_seconds + SOON for one in took)


def test_the_second_request_has_a_limit_too(server: PageProcess) -> None:
    """After a response an idle connection is closed, and so is one whose next header does not end."""
    for start, limit in ((b"", LIMITS.idle_seconds), (STATUS, LIMITS.header_seconds)):
        with server.connect() as connection:
            connection.sendall(STATUS + server.authorized + b"\r\n")
            assert code(connection.recv(1 << 16)) == 200
            connection.sendall(start)
            took = seconds(lambda c=connection: until_closed(c))
            assert limit - 0.5 < took < limit + SOON


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/session", "/api/v1/uploads?name=a.png"])
def test_a_body_that_stalls_is_given_up(server: PageProcess, path: str) -> None:
    """A connection whose body does not arrive is closed, with and without a token, also for uploads."""
    for line in (b"", server.authorized):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n".encode() + line
        request = head + b"Content-Type: application/json\r\n\r\nabc"
        assert seconds(lambda r=request: server.ask(r)) < LIMITS.body_seconds + SOON


def test_a_client_that_does_not_read_is_given_up(server: PageProcess) -> None:
    """A connection whose client sends requests and does not read the responses is dropped."""
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /static/x/app.js HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.settimeout(LIMITS.send_seconds + SOON)
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            for _ in range(1_000_000):  # more than the buffers of both sides hold
                connection.sendall(request)
        assert time.monotonic() - began < LIMITS.send_seconds + SOON


@pytest.mark.parametrize("sent", [b"", b"GET / HT", STATUS])
def test_idle_connections_do_not_shut_the_page_out(server: PageProcess, sent: bytes) -> None:
    """1,000 connections of one address that send nothing, or half a header, leave room for it and for others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        with ExitStack() as stack:
            for _ in range(1000):
                with suppress(ConnectionError):
                    stack.enter_context(server.connect("127.0.0.2")).sendall(sent)
            assert server.answers("127.0.0.2")
            assert server.answers("127.0.0.3")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_200_open_pages_of_one_address_work(server: PageProcess) -> None:
    """200 event streams of one address stay open and receive, even under 1,000 idle connections, in bounded memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    request = b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n" + server.authorized + b"\r\n"
    try:
        with ExitStack() as stack:
            streams = [stack.enter_context(server.connect()) for _ in range(200)]
            for stream in streams:
                stream.sendall(request)
            for stream in streams:
                said = b""
                while b"event: status" not in said:
                    said += (more := stream.recv(1 << 16))
                    assert more, said
            for _ in range(1000):
                stack.enter_context(server.connect())
            assert server.answers()
            for stream in streams:
                stream.settimeout(0.01)
                with suppress(TimeoutError):
                    while True:
                        assert stream.recv(1 << 16), "a stream was closed for idle connections"
            size = resident(server.process.pid)
            assert size is not None
            assert size < 250 * 10**6
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_stream_ends_when_its_token_is_revoked(server: PageProcess) -> None:
    """An open event stream ends within seconds after its token was revoked."""
    secret = tokens.create(server.options.folders, "phone", "read")
    with server.connect() as stream:
        head = b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n"
        stream.sendall(head + f"Authorization: Bearer {secret}\r\n\r\n".encode())
        assert code(stream.recv(1 << 16)) == 200
        tokens.revoke(server.options.folders, "phone")
        assert seconds(lambda: stream.recv(1 << 16) and until_closed(stream)) < SOON


def test_pipelined_requests_are_answered_in_order(server: PageProcess) -> None:
    """Requests that are sent without waiting are answered one after the other, up to the last one."""
    one = STATUS + server.authorized + b"\r\n"
    last = STATUS + server.authorized + b"Connection: close\r\n\r\n"
    said = server.ask(one * 20 + last)
    assert said.count(b"HTTP/1.1 200") == 21


def test_a_half_closed_connection_ends(server: PageProcess) -> None:
    """A client that closes its side, with or without a complete request, does not keep the connection."""
    for request in (STATUS, STATUS + b"Content-Length: 5\r\n\r\nab", b"", STATUS + b"\r\n"):
        with server.connect() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            assert seconds(lambda c=connection: until_closed(c)) < SOON


HEAD = b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "codes"),
    [
        (STATUS + b"X: " + b"a" * 20_000 + b"\r\n\r\n", {431}),
        (STATUS + b"X: " + b"a" * 1_000_000, {431}),
        (STATUS + b"".join(b"X-%d: 1\r\n" % n for n in range(101)) + b"\r\n", {431}),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414}),
        (b"GET /api/v1/jobs?q=" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {414}),
        (b"GET /" + b"a" * 200_000, {431}),
        (b"GET http://evil.example/api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (b"GET api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", {401, 405}),
        (b"GET / HTTP/1.1\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", {400}),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", {505}),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", {400}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, {400}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {505}),
        (b"hello\r\n\r\n", {400}),
        (HEAD + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n", {400}),
        (HEAD + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n", {400}),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", {400}),
        (HEAD + b"Content-Length: +5\r\n\r\nabcde", {400}),
        (HEAD + b"Content-Length: -5\r\n\r\nabcde", {400}),
        (HEAD + b"Content-Length: 5, 6\r\n\r\nabcde", {400}),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {400, 501}),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", {400, 501}),
        (HEAD + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", {400, 501}),
        (HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", {400}),
        (HEAD.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n", {400}),
        (HEAD + CHUNKED + b"\r\nzz\r\n", {400, 401}),
    ],
)
def test_invalid_requests_are_refused(
    server: PageProcess, request_bytes: bytes, codes: set[int]
) -> None:
    """What is too long, ambiguous or not HTTP is refused once, soon, and the connection is closed."""
    began = time.monotonic()
    said = server.ask(request_bytes)
    assert time.monotonic() - began < SOON
    # A client that still sends when the connection is closed may not see the response.
    assert code(said) in codes | ({0} if len(request_bytes) > 100_000 else set())
    assert said.count(b"HTTP/1.1 ") <= 1
    if code(said) in {400, 414, 431, 501, 505}:
        assert json.loads(said.partition(b"\r\n\r\n")[2])["cause"]


def test_a_bad_chunk_after_the_response_is_not_logged(server: PageProcess) -> None:
    """A body that becomes invalid after the response ends the connection without an error in the log."""
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    before = server.log.read_text()
    for _ in range(3):
        with server.connect() as connection:
            connection.sendall(head)
            assert code(connection.recv(1 << 16)) == 401
            connection.sendall(b"zz\r\n")
            until_closed(connection)
    assert server.log.read_text() == before


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"[" * 500_000,
            b'{"a":' * 100_000,
            b"1" * 500_000,
            b'{"token": "\\ud800"}',
            b"\xff\xfe{",
        ),
        *(b"null", b"NaN", b"1e999", b'{"contents": 1e999}', b'{"\\ud800": 1}', b""),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/jobs/check", "/api/v1/session"])
def test_strange_json_is_refused(server: PageProcess, path: str, body: bytes) -> None:
    """JSON that is nested too deep, too long, not UTF-8 or of another type is refused without a server error."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
    lines = b"Content-Type: application/json\r\nConnection: close\r\n" + server.authorized
    assert code(server.ask(head + lines + b"\r\n" + body)) in {400, 401, 413, 422}


def test_a_stream_with_a_body_that_does_not_arrive(server: PageProcess) -> None:
    """An event stream whose announced body does not arrive ends without an error in the log."""
    head = b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + server.authorized
    assert seconds(lambda: server.ask(head + b"\r\nab")) < LIMITS.body_seconds + SOON


def test_an_upload_needs_its_length(server: PageProcess) -> None:
    """A chunked upload is refused: its size is not known before it has arrived."""
    head = b"POST /api/v1/uploads?name=a.png HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert (
        code(server.ask(head + server.authorized + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n")) == 411
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/v1/status"),
        ("PUT", "/api/v1/jobs"),
        ("PATCH", "/"),
        ("BREW", "/api/v1/jobs"),
    ],
)
def test_wrong_methods_are_refused(server: PageProcess, method: str, path: str) -> None:
    """A method that a path does not have is refused with a reason."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
    said = server.ask(head + server.authorized + b"\r\n")
    assert code(said) == 405
    assert json.loads(said.partition(b"\r\n\r\n")[2])["cause"]


def test_wrong_tokens_do_not_shut_out_the_right_one(server: PageProcess) -> None:
    """While one address tries tokens on many connections, the right token of the same address is answered soon."""
    wrong = STATUS + b"Authorization: Bearer nst_wrong\r\nConnection: close\r\n\r\n"
    with ThreadPoolExecutor(16) as pool:
        tries = [pool.submit(server.ask, wrong) for _ in range(100)]
        assert server.answers()
        codes = [code(one.result()) for one in tries]
    assert codes.count(429) >= 100 - 2 * SLOW
    assert set(codes) == {401, 429}
    assert server.log.read_text().count("wrong token") <= 2


def test_fewer_files_allow_fewer_connections() -> None:
    """A small limit of open files lowers the number of connections, in total and of one address."""
    few = ConnectionLimits().within(256)
    assert (few.total, few.per_address) == (64, 32)
    assert ConnectionLimits().within(8192) == ConnectionLimits()
