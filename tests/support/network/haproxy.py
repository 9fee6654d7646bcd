"""HAProxy in front of a cluster: a load balancer that looks at no byte of what it passes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from support.cluster.cluster import until
from support.cluster.local import LocalCluster

CONFIGURATION = """\
defaults
    mode tcp
    balance roundrobin
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen tested
    bind fd@{fd}
"""


def program() -> str | None:
    """Return what starts HAProxy."""
    return shutil.which("haproxy", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


@asynccontextmanager
async def in_front_of(ports: Sequence[int], folder: Path, options: str = "") -> AsyncIterator[int]:
    """Run HAProxy in TCP mode, round robin, in front of ports of 127.0.0.1; yield its own.

    Args:
        ports: of the servers.
        folder: where its configuration is written.
        options: of each server, such as ``send-proxy-v2``.
    """
    found = program()
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:  # connections wait in it until HAProxy is there
        servers = [f"    server s{number} 127.0.0.1:{port} {options}\n" for number, port in enumerate(ports)]
        path = folder / "haproxy.cfg"
        path.write_text(CONFIGURATION.format(fd=listener.fileno()) + "".join(servers))
        process = await asyncio.create_subprocess_exec(
            *(found, "-db", "-q", "-f", str(path)), pass_fds=[listener.fileno()]
        )
        try:
            yield listener.getsockname()[1]
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@asynccontextmanager
async def second_balancer(cluster: LocalCluster) -> AsyncIterator[int]:
    """Run one more balancer of a cluster, on a port of its own, which it yields."""
    run_dir = cluster.run_dir
    workers = ",".join(f"unix:{path}" for path in sorted(run_dir.glob("worker-*.sock")))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("SOCKETCLUSTER_")} | {
            "SOCKETCLUSTER_WORKERS": workers,
            "SOCKETCLUSTER_LISTEN_FD": str(listener.fileno()),
            "SOCKETCLUSTER_SECRET_FILE": str(cluster.data_dir / "secret"),
            "SOCKETCLUSTER_NAME": "second",
        }
        with cluster.log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "socketcluster_balancer"),
                env=environ,
                stderr=log,
                pass_fds=[listener.fileno()],
            )
        try:
            yield listener.getsockname()[1]
        finally:
            if process.returncode is None:
                process.terminate()
            assert await process.wait() == 0


async def worker_ports(cluster: LocalCluster, count: int) -> list[int]:
    """Return the HTTP ports of the workers, once each of them serves."""
    names = await until(cluster.worker_names, lambda found: len(found) == count)
    urls = [await cluster.worker_url(name) for name in names]
    return [int(url.rpartition(":")[2]) for url in urls]
