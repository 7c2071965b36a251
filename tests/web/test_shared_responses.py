"""Responses that are computed once for many clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message, Receive, Scope, Send

from nst_daemon.web.shared_responses import SharedResponses

PATH = "/list"


class Counter:
    """An application that answers with a number; it reads the number when the computation begins."""

    def __init__(self) -> None:
        self.value = self.computed = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.computed += 1
        text = b"%d" % self.value
        await self.gate.wait()
        if self.error:
            raise self.error
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"1")]})
        await send({"type": "http.response.body", "body": text[:1], "more_body": True})
        await send({"type": "http.response.body", "body": text[1:]})


async def get(
    app: SharedResponses, path: str = PATH, query: bytes = b"", method: str = "GET"
) -> bytes:
    """The body of a response."""
    found: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"].append((b"seen", b"once"))
            assert len(message["headers"]) == 2, "another client's header"
        found.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    await app(scope, receive, send)
    return b"".join(message.get("body", b"") for message in found)


def run(test: Callable[[Counter, SharedResponses], Awaitable[None]]) -> None:
    """Run a test in an event loop."""

    async def main() -> None:
        counter = Counter()
        await test(counter, SharedResponses(counter, paths=frozenset({PATH})))

    asyncio.run(main())


async def settle() -> None:
    """Let every task get as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_many_clients_share_a_response() -> None:
    """Of 200 requests during a computation, all share the next one."""

    async def test(counter: Counter, app: SharedResponses) -> None:
        first = asyncio.create_task(get(app))
        await settle()
        others = [asyncio.create_task(get(app)) for _ in range(200)]
        await settle()
        counter.gate.set()
        assert set(await asyncio.gather(first, *others)) == {b"0"}
        assert counter.computed == 2

    run(test)


def test_nobody_sees_an_older_state() -> None:
    """A request that arrives after a change gets a response that was computed after it."""

    async def test(counter: Counter, app: SharedResponses) -> None:
        first = asyncio.create_task(get(app))
        await settle()
        counter.value = 12
        second = asyncio.create_task(get(app))
        await settle()
        counter.gate.set()
        assert (await first, await second) == (b"0", b"12")
        counter.value = 13
        assert await get(app) == b"13"

    run(test)


@pytest.mark.parametrize(
    "other",
    [{"query": b"q=x"}, {"path": "/other"}, {"method": "POST"}, {"method": "HEAD"}],
)
def test_different_requests_share_nothing(other: dict[str, str]) -> None:
    """Another query, another path and another method have a computation of their own."""

    async def test(counter: Counter, app: SharedResponses) -> None:
        tasks = [asyncio.create_task(get(app)), asyncio.create_task(get(app, **other))]  # type: ignore[arg-type]
        await settle()
        assert counter.computed == 2
        counter.gate.set()
        await asyncio.gather(*tasks)

    run(test)


def test_a_client_that_leaves_ends_it_only_for_itself() -> None:
    """When the first of two clients leaves, the other gets the response, and the next one too."""

    async def test(counter: Counter, app: SharedResponses) -> None:
        first, second = asyncio.create_task(get(app)), asyncio.create_task(get(app))
        await settle()
        first.cancel()
        await settle()
        counter.gate.set()
        assert await second == b"0"
        counter.value = 1
        assert await get(app) == b"1"
        assert counter.computed == 2

    run(test)


def test_an_error_is_shared_and_forgotten() -> None:
    """An exception reaches all who share it, and the next request is computed again."""

    async def test(counter: Counter, app: SharedResponses) -> None:
        counter.error = ValueError("no")
        tasks = [asyncio.create_task(get(app)) for _ in range(3)]
        counter.gate.set()
        assert all(
            isinstance(one, ValueError)
            for one in await asyncio.gather(*tasks, return_exceptions=True)
        )
        counter.error = None
        assert await get(app) == b"0"

    run(test)
