"""Addresses of servers: HOST:PORT."""

from __future__ import annotations

import errno
import ipaddress
import os
import re

from nst_daemon.errors import ConfigError

LAST_PORT = 65535
#: What helps if a server cannot listen.
_REMEDIES = {
    errno.EADDRINUSE: "choose another port, or stop the program that uses it",
    errno.EADDRNOTAVAIL: "choose an address of this machine",
    errno.EACCES: "choose a port above 1023",
    # What RestrictAddressFamilies= of a unit causes.
    errno.EAFNOSUPPORT: "allow the systemd service to use the network by status-page.conf, see docs/operations.md",
}


def split_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT or [IPv6]:PORT into host and port. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    number = int(port) if re.fullmatch(r"[1-9]\d{0,4}", port, re.ASCII) else 0
    if not bare or (":" in bare and bare == host) or not 0 < number <= LAST_PORT:
        raise ConfigError(
            f"status_page {text!r} is not HOST:PORT", remedy="write 127.0.0.1:8787 or [::1]:8787"
        )
    return bare, number


def not_available(place: str, error: OSError) -> ConfigError:
    """The error of a server that cannot listen. place: the key and the address."""
    number = error.errno or 0
    cause = os.strerror(number) if number in errno.errorcode else error.strerror or str(error)
    remedy = _REMEDIES.get(number, "choose another address")
    return ConfigError(f"{place} is not available: {cause}", remedy=remedy)


def is_local(host: str) -> bool:
    """True if only this machine can reach a server that listens on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
