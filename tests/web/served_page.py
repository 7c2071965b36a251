"""The process of the page with short time limits: `python -m tests.web.served_page DESCRIPTOR`."""

from __future__ import annotations

from nst_daemon.web.__main__ import main
from nst_daemon.web.connections import ConnectionLimits

LIMITS = ConnectionLimits(
    header_seconds=1.5,
    idle_seconds=3.0,
    body_seconds=1.5,
    drain_seconds=1.0,
    send_seconds=2.0,
    sweep_seconds=0.2,
)

if __name__ == "__main__":
    main(LIMITS)
