"""Clients whose processes are killed and paused, one after the other and all of a kind: what they were told is true."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from support.clients.appenders import Appender
from support.cluster.local import LocalCluster

CONTROLLER = Path(__file__).parents[1] / "controllers" / "scenario" / "controller.py"
CLIENTS = 12
CHANNELS = 3


@pytest.mark.timeout(240)
async def test_no_acknowledged_write_is_lost_or_doubled_by_kills_and_pauses(tmp_path: Path) -> None:
    options = (
        *("--stores", "2", "--balancers", "2", "--channel-history", "load*: 100000, 3600"),
        *("--heartbeat-interval", "2", "--heartbeat-timeout", "2", "--store-hang-timeout", "1"),
    )
    async with LocalCluster(CONTROLLER, tmp_path / "data", *options) as cluster:
        await cluster.serving_workers(at_least=2)
        clients = [Appender(cluster, number, f"load{number % CHANNELS}") for number in range(CLIENTS)]
        stop = asyncio.Event()
        running = [asyncio.create_task(client.go_on(stop)) for client in clients]

        async def all_go_on() -> None:
            before = [len(client.acknowledged) for client in clients]
            while any(len(client.acknowledged) < then + 3 for client, then in zip(clients, before, strict=True)):
                assert not any(task.done() for task in running)
                await asyncio.sleep(0.02)

        try:
            await all_go_on()
            for fault in _faults(cluster, all_go_on):
                await fault()
                await all_go_on()
        finally:
            stop.set()
            await asyncio.gather(*running)
        wrong = {number: found for number, client in enumerate(clients) if (found := await client.check())}
        assert not wrong
        assert all(client.connections > 1 for client in clients)  # workers were killed, all of them


def _faults(cluster: LocalCluster, all_go_on: Callable[[], Awaitable[None]]) -> list[Callable[[], Awaitable[None]]]:
    """Return what is done to the cluster, in order."""

    async def kill(service: str, *names: str) -> None:
        for name in names:
            await cluster.kill(service, name)

    async def pause(service: str, name: str) -> None:
        """Stop a process until all others do without it."""
        with cluster.paused(service, name):
            await all_go_on()

    async def pause_for_a_moment(service: str) -> None:
        """Stop all of a kind, and let them go on once they are."""
        processes = cluster.children(service)
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        while any(process.status() != psutil.STATUS_STOPPED for process in processes):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for process in processes:
            process.send_signal(signal.SIGCONT)

    return [
        lambda: kill("store", "store-0"),
        lambda: kill("worker", "worker-0"),
        lambda: kill("balancer", "balancer-0"),
        lambda: pause("store", "store-1"),
        lambda: pause("worker", "worker-1"),
        lambda: pause_for_a_moment("store"),
        lambda: pause_for_a_moment("worker"),
        lambda: kill("store", "store-0", "store-1"),
        lambda: kill("worker", "worker-0", "worker-1"),
        lambda: kill("balancer", "balancer-0", "balancer-1"),
        lambda: kill("store", "store-1"),
    ]
