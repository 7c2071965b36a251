"""Slows down clients that try tokens, and logs them without filling the log."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nst_daemon.units import duration

log = logging.getLogger(__name__)

#: Length of a period in seconds.
PERIOD = 60.0
#: Wrong tokens of an address in a period: so many are answered at once, later ones after `SLOW_SECONDS`, and after
#: the larger number with status 429.
AT_ONCE, SLOW = 5, 20
SLOW_SECONDS = 1.0
#: Limits of the addresses in memory, and of log lines in a period.
MAX_ADDRESSES, MAX_LINES = 2000, 20


@dataclass(slots=True)
class _Tries:
    """Wrong tokens of one address. Times are those of the clock."""

    first: float
    started: float
    total: int = 0
    recent: int = 0  # since the period started


class WrongTokens:
    """Counts wrong tokens by address. Right tokens are never refused, whatever their address did before.

    Args:
        clock: monotonic seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._tries: OrderedDict[str, _Tries] = OrderedDict()
        self._lines, self._lines_since = 0, -math.inf

    def __len__(self) -> int:
        return len(self._tries)

    async def slow_down(self, client: str) -> int:
        """Count a wrong token and wait a little.

        Args:
            client: IP address.

        Returns:
            Seconds after which the client may try again; 0: this try was not too early.
        """
        address, now = network_of(client), self._clock()
        tries = self._tries.pop(address, None) or _Tries(now, now)
        self._tries[address] = tries  # the last one is the latest
        if len(self._tries) > MAX_ADDRESSES:
            self._tries.popitem(last=False)
        if now - tries.started >= PERIOD:
            tries.started, tries.recent = now, 0
        tries.total += 1
        tries.recent += 1
        if tries.recent == 1:
            self._log(address, tries, now)
        if tries.recent > SLOW:
            return math.ceil(tries.started + PERIOD - now)
        if tries.recent > AT_ONCE:
            await self._sleep(SLOW_SECONDS)
        return 0

    def _log(self, address: str, tries: _Tries, now: float) -> None:
        if now - self._lines_since >= PERIOD:
            self._lines, self._lines_since = 0, now
        self._lines += 1
        if self._lines > MAX_LINES:
            return
        more = f" ({tries.total} within {duration(now - tries.first)})" if tries.total > 1 else ""
        rest = "; further addresses are not logged now" if self._lines == MAX_LINES else ""
        log.warning("wrong token from %s%s%s", address, more, rest)


def network_of(client: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 network of an IPv6 address, which one client has."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
