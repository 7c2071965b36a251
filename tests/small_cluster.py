"""A real Ray cluster on this machine, for tests and benchmarks: a head without room for jobs, and nodes of one CPU."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

log = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent
#: Seconds that a part of the cluster may take to start, and how often it is tried: on a busy machine a node's helpers
#: may miss the 15 s that Ray gives them.
PATIENCE, TRIES = 60, 3


class SmallCluster:
    """The cluster; cache: what its nodes share with each other and not with the daemon."""

    def __init__(self, folder: Path) -> None:
        from ray._private import services
        from ray._private.node import Node
        from ray.cluster_utils import Cluster

        self.cache = folder / "cache" / "nst-daemon"
        self._patches = ExitStack()
        self._latest: Node | None = None  # the node that was started last, also if its start failed
        start = Node.start_ray_processes

        def remembered(node: Node) -> None:
            self._latest = node
            start(node)

        for patch in (
            mock.patch.object(Node, "start_ray_processes", remembered),
            mock.patch.object(services, "get_node", patient(services.get_node)),
            # `--include-dashboard=false` leaves a process that takes long to start and does nothing here.
            mock.patch.object(Node, "start_api_server"),
        ):
            self._patches.enter_context(patch)
        self._cluster = Cluster()
        self._head = tried(self._start_head)
        self.address = self._cluster.address
        self.client_address = f"ray://127.0.0.1:{self._head['ray_client_server_port']}"

    def _start_head(self, **where: int) -> dict[str, int]:
        """Start a head, and nothing beside it that nobody here asks; where: its ports, by default free ones."""
        where = where or {key: free_port() for key in ("gcs_server_port", "ray_client_server_port")}
        try:
            self._cluster.add_node(
                num_cpus=0, no_monitor=True, include_log_monitor=False, **where, **ports()
            )
        except Exception:
            if self._latest:  # else what it has started keeps the ports from the next try
                self._latest.kill_all_processes(check_alive=False, allow_graceful=False)
            raise
        return where

    def add_node(self) -> None:
        """One more node, with room for one worker."""
        node = tried(lambda: self._cluster.add_node(wait=False, num_cpus=1, **ports()))
        self._cluster._wait_for_node(node, timeout=PATIENCE)

    def kill_a_node(self) -> None:
        """End all processes of a node, as a power cut does."""
        node = next(iter(self._cluster.worker_nodes))
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_the_head(self) -> None:
        """End all processes of the head; its nodes stay, and wait for it."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def start_again(self) -> None:
        """A new head where the old one was; it has forgotten the nodes, so they end, and there is a new one."""
        for node in list(self._cluster.worker_nodes):
            self._cluster.remove_node(node, allow_graceful=False)
        tried(lambda: self._start_head(**self._head))
        self.add_node()

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()
        self._patches.close()


@contextmanager
def small_cluster(folder: Path) -> Iterator[SmallCluster]:
    """A cluster without nodes, behind a token; folder: short, because sockets lie below it."""
    environ = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        "RAY_agent_register_timeout_ms": str(1000 * PATIENCE),
        "RAY_worker_register_timeout_seconds": str(PATIENCE),
        # By default whatever else a machine does comes before Ray's workers.
        "RAY_worker_niceness": "0",
        # A dead node is one that three times in a row does not answer; by default that takes half a minute. As long
        # as a living one takes five seconds at most for an answer, the death of another is known after three.
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "5000",
        "RAY_health_check_failure_threshold": "3",
        # Seconds after which whoever lives without a head ends.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    with mock.patch.dict(
        os.environ, environ
    ):  # read when ray is imported, and inherited by the nodes
        made = SmallCluster(folder)
        try:
            yield made
        finally:
            made.close()


def tried(make: Callable[[], Any]) -> Any:
    """What `make` makes, at the last try with what it raises."""
    for _ in range(TRIES - 1):
        try:
            return make()
        except Exception:
            log.exception("the cluster did not start; once more")
    return make()


def ports() -> dict[str, int]:
    """Ports for a node's helpers: where they choose their own, the node waits for 15 s and no longer to hear which."""
    keys = "metrics_agent_port", "metrics_export_port", "runtime_env_agent_port"
    return {key: free_port() for key in (*keys, "dashboard_agent_listen_port")}


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def patient(ask: Callable[..., Any]) -> Callable[..., Any]:
    """The same question, until there is an answer."""

    def again(*args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return ask(*args, **kwargs)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return again
