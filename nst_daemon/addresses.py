"""Addresses of servers: HOST:PORT."""

from __future__ import annotations

import ipaddress
import re

from nst_daemon.errors import ConfigError

LAST_PORT = 65535


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


def is_local(host: str) -> bool:
    """True if only this machine can reach a server that listens on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
