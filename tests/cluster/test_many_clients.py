"""The balancer under many clients that come at once, at a small scale: ``make bench-balancer`` is the large one."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import psutil
import pytest
from support.cluster.cluster import until
from support.cluster.local import ROOT, LocalCluster
from support.network import certificates

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"
CLIENTS = 200


@pytest.mark.parametrize("way", ["handed over", "copied", "copied from TLS"])
async def test_clients_that_come_at_once_are_all_served_and_leave_nothing_at_the_balancer(
    tmp_path: Path, way: str
) -> None:
    files = certificates.make(tmp_path, "many")
    options = {
        "handed over": (),
        "copied": ("--handoff", "false"),
        "copied from TLS": ("--tls-cert", str(files.cert), "--tls-key", str(files.key)),
    }[way]
    async with LocalCluster(CONTROLLER, tmp_path / "data", *options) as cluster:
        await until(lambda: _joined(cluster), lambda joined: joined == 2)
        (balancer,) = cluster.children("balancer")
        workers = cluster.children("worker")
        before, served_before = await _descriptors(balancer), await _descriptors(*workers)
        authority = (str(files.cert),) if cluster.url.startswith("https") else ()
        clients = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.idle", cluster.url.rpartition(":")[2], str(CLIENTS), "127.0.1.1"),
            *authority,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        try:
            assert clients.stdout is not None
            assert json.loads(await clients.stdout.readline()) == {"open": CLIENTS, "errors": {}}
            kept = 0 if way == "handed over" else CLIENTS  # the others, to the workers on this host, are Unix sockets
            assert await until(lambda: _connections(balancer), lambda count: count == kept) == kept
            # One connection to each of two workers more, perhaps: the sockets that clients are handed over by.
            least = before + 2 * kept
            await until(lambda: _descriptors(balancer), lambda count: least <= count <= least + 2)
            await until(lambda: _descriptors(*workers), lambda count: count >= served_before + CLIENTS)
        finally:
            said, _ = await clients.communicate(b"")
        assert json.loads(said) == {"lost": 0}
        assert await clients.wait() == 0
        assert await until(lambda: _connections(balancer), lambda count: count == 0) == 0
        # A connection is seen gone before all that belonged to it is closed.
        await until(lambda: _descriptors(balancer), lambda count: before <= count <= before + 2)


async def _descriptors(*processes: psutil.Process) -> int:
    """Return how many descriptors processes have open."""
    return sum(process.num_fds() for process in processes)


async def _connections(process: psutil.Process) -> int:
    """Return how many TCP connections a process has open."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))


async def _joined(cluster: LocalCluster) -> int:
    """Return how many workers the balancer has its connections to."""
    return cluster.log_path.read_text().count("worker joined")
