"""A worker has no descriptor left for another client."""

from __future__ import annotations

import resource
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.clients.raw import RawClient, connect, upgrade
from support.cluster.cluster import until
from support.cluster.local import LocalCluster

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"
ROOM = 40
"""Descriptors that a worker may open beyond those that it has."""
OUT = "out of descriptors: new clients are refused"


@pytest.mark.parametrize("handoff", ["true", "false"])
async def test_clients_of_full_workers_are_told_at_once_and_served_as_soon_as_others_leave(
    tmp_path: Path, handoff: str
) -> None:
    options = ("--worker-wait", "600", "--handoff", handoff)
    async with LocalCluster(CONTROLLER, tmp_path / "data", *options) as cluster, AsyncExitStack() as stack:
        await cluster.serving_workers(at_least=2)
        port = int(cluster.url.rpartition(":")[2])
        for worker in cluster.children("worker"):
            most = worker.num_fds() + ROOM
            worker.rlimit(resource.RLIMIT_NOFILE, (most, most))

        async def ask() -> tuple[RawClient, int]:
            client = await connect(port)
            stack.callback(client.close)
            await client.send(upgrade())
            answer = await client.answer()
            assert answer.status_code == 101 or answer.headers["retry-after"] == "1"
            return client, answer.status_code

        asked = [await ask() for _ in range(3 * ROOM)]
        served = [client for client, status in asked if status == 101]
        assert {status for _, status in asked} == {101, 503}
        assert len(served) >= ROOM  # of two workers, each of which keeps some to itself
        assert (await cluster.log()).count(f"{OUT} ") == 2
        for client in served:
            client.close()
        await until(ask, lambda asked: asked[1] == 101)
        assert await cluster.serving_workers(at_least=2)
        log = await cluster.log()
        assert log.count(f"{OUT} ") == 2
        assert "Traceback" not in log
