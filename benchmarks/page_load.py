"""How fast does the page answer, and how much memory does it take, with many open pages and uploads?

    python -m benchmarks.page_load [--pages 200] [--uploads 50] [--megabytes 5] [--seconds 30] [--picture 10]

A real daemon with a fake painter (`tests.fakes`) paints a picture every 10 seconds. Each open page is an event stream
with the requests that the page sends at the start and after each change. Each upload sends a PNG file of random pixels
again and again, and deletes it. A process of its own asks for /status and /jobs in turn and measures each answer:
first alone, then beside the open pages, then beside pages and uploads, then alone again. Memory is the resident
memory of the page's process; the largest value of each phase is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import resource
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import quantiles

from rich.console import Console
from rich.table import Table

from nst_daemon.ops.status import resident
from tests.service.conftest import Served
from tests.service.test_status_page import answer, free_port, page_of

API = "/api/v1"
PROBED = (f"{API}/status", f"{API}/jobs?limit=50")
QUEUED = "&".join(f"state={name}" for name in ("claimed", "queued", "retrying"))
AT_START = ("/", f"{API}/session", f"{API}/settings", f"{API}/limits", f"{API}/styles")
AT_CHANGE = (f"{API}/jobs?order=queue&limit=8&{QUEUED}", f"{API}/jobs?result=true&limit=12")
PROBE_PAUSE = 0.05


@dataclass
class Load:
    """What the open pages and the uploads have done."""

    port: int
    stopping: bool = False
    events: int = 0
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    uploaded: int = 0

    async def request(
        self, path: str, method: str = "GET", body: bytes = b"", kind: str = "application/json"
    ) -> bytes:
        """A request on a connection of its own. Anything but status 2xx is a failure."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n" if body else ""
            writer.write(head.encode() + b"\r\n")
            for start in range(0, len(body), 1 << 16):
                writer.write(body[start : start + (1 << 16)])
                await writer.drain()
            said = await reader.read()
        except OSError as error:
            said = str(error).encode()
        finally:
            writer.close()
        self.requests += 1
        if not said.startswith(b"HTTP/1.1 2"):
            self.failures.append(f"{method} {path}: {said[:300]!r}")
        return said.partition(b"\r\n\r\n")[2]

    async def page(self) -> None:
        """An open page, until it is cancelled."""
        for path in AT_START:
            await self.request(path)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        changed = None
        try:
            writer.write(f"GET {API}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            while line := await reader.readline():
                if not line.startswith(b"data: {"):
                    continue
                self.events += 1
                latest = json.loads(line[6:])["changed"]
                if latest != changed:
                    changed = latest
                    await asyncio.gather(*map(self.request, AT_CHANGE))
            self.failures.append("an event stream ended")
        finally:
            writer.close()

    async def upload(self, number: int, body: bytes) -> None:
        """Upload a picture again and again, until it is cancelled."""
        path = f"{API}/uploads?name=picture-{number}.png"
        while True:
            said = await self.request(path, "POST", body, "application/octet-stream")
            if not said.startswith(b"{"):
                await asyncio.sleep(1)
                continue
            self.uploaded += 1
            await self.request(f"{API}/uploads/{json.loads(said)['id']}", "DELETE")


def picture(megabytes: float) -> bytes:
    """A PNG file of about this size, of random pixels."""
    side = int((megabytes * 1e6 / 3) ** 0.5)
    rows = b"".join(b"\0" + os.urandom(3 * side) for _ in range(side))

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + checksum

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def probe(port: int, stop: Event, results: multiprocessing.Queue[dict[str, list[float]]]) -> None:
    """Measure answers until `stop` is set: milliseconds by path."""
    taken: dict[str, list[float]] = {path: [] for path in PROBED}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not stop.is_set():
        for path in PROBED:
            began = time.perf_counter()
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                taken[path].append(1000 * (time.perf_counter() - began))
        time.sleep(PROBE_PAUSE)
    results.put(taken)


async def phase(
    load: Load, pid: int, seconds: float, pages: int, bodies: Sequence[bytes]
) -> tuple[dict[str, list[float]], int]:
    """Measure beside so many pages and these uploads. Returns milliseconds by path, and the most bytes of memory."""
    tasks = [asyncio.create_task(load.page()) for _ in range(pages)]
    if pages:
        while load.events < pages:
            await asyncio.sleep(0.1)
    tasks += [asyncio.create_task(load.upload(*item)) for item in enumerate(bodies)]
    stop, results = multiprocessing.Event(), multiprocessing.Queue()
    measuring = multiprocessing.Process(target=probe, args=(load.port, stop, results))
    measuring.start()
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.25)
        most = max(most, resident(pid) or 0)
    stop.set()
    taken = await asyncio.to_thread(results.get)
    measuring.join()
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return taken, most


@contextlib.contextmanager
def daemon(root: Path, seconds: float) -> Iterator[tuple[Served, int]]:
    """A daemon that paints a picture in so many seconds, and the port of its page."""
    served, port = Served(root), free_port()
    served.environment |= {
        "NST_STATUS_PAGE": f"127.0.0.1:{port}",
        "NST_OUTPUTS__LOSS_PLOT": "false",
        "NST_OUTPUTS__PROGRESS": "false",
    }
    served.start()
    try:
        served.until(lambda: answer(port, f"{API}/health") == 200, "page")
        served.pair("first")
        for number in range(400):
            served.pair(f"picture-{number}", iterations=100, seconds=seconds / 100)
        served.until(lambda: any((root / "results").glob("*.png")), "picture")
        yield served, port
    finally:
        assert served.process is not None
        served.process.kill()
        served.process.wait()


async def measure(args: argparse.Namespace) -> None:
    """Measure all phases, and print the table."""
    table = Table("", *(f"{path.split('?')[0]}, ms" for path in PROBED), "page, MB", "requests/s")
    body, failures, uploaded = picture(args.megabytes), [], 0
    with (
        tempfile.TemporaryDirectory() as folder,
        daemon(Path(folder), args.picture) as (served, port),
    ):
        assert served.process is not None
        pid = page_of(served.process.pid)
        for name, pages, uploads in (
            ("before", 0, 0),
            (f"{args.pages} pages", args.pages, 0),
            (f"{args.pages} pages, {args.uploads} uploads", args.pages, args.uploads),
            ("after", 0, 0),
        ):
            load = Load(port)
            taken, most = await phase(load, pid, args.seconds, pages, [body] * uploads)
            cells = []
            for path in PROBED:
                cut = quantiles(taken[path], n=100)
                cells.append(" / ".join(f"{cut[p - 1]:.0f}" for p in (50, 95, 99)))
            table.add_row(name, *cells, f"{most / 1e6:.0f}", f"{load.requests / args.seconds:.0f}")
            failures += load.failures
            uploaded += load.uploaded
    Console(width=120).print(table)
    print(
        "latencies: median / 95 % / 99 %;",
        f"uploads: {uploaded} of {len(body) / 1e6:.1f} MB;",
        end=" ",
    )
    print(f"failures: {len(failures)}", *failures[:3], sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--uploads", type=int, default=50)
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--picture", type=float, default=10, help="seconds to paint a picture")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    asyncio.run(measure(args))


if __name__ == "__main__":
    main()
