"""Who sent a request that a proxy on this machine has passed on."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Scope

from nst_daemon.addresses import is_local
from nst_daemon.web.wrong_tokens import network_of


def resolve(scope: Scope) -> bool:
    """Set the client and the scheme of a request to those that a proxy on this machine has reported.

    Only peers with a loopback address are believed. The last address of X-Forwarded-For that is not this machine's is
    the client: the proxy has added it, and what stands before it comes from the client itself.

    Returns:
        Whether the client is another machine according to the proxy.
    """
    if not scope.get("client") or not is_local(network_of(scope["client"][0])):
        return False
    headers = Request(scope).headers
    scheme = headers.getlist("x-forwarded-proto")[-1:]
    if scheme and scheme[0].rpartition(",")[2].strip().lower() == "https":
        scope["scheme"] = "https"
    addresses = ",".join(headers.getlist("x-forwarded-for")).split(",")
    for given in reversed(addresses):
        host = _host(given.strip())
        if host and not is_local(network_of(host)):
            scope["client"] = (host, 0)
            return True
    return False


def _host(address: str) -> str:
    """An address without its port: 192.0.2.1:80, [2001:db8::1]:80 or 2001:db8::1."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
