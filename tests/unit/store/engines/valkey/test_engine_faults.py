"""Store processes whose Valkey fails under load: restarted, paused, and replaced by its replica."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.store.processes import NAMES, History, Stores, spread
from support.store.running import LinkWorker, StoreProcesses
from support.store.valkey import Cluster, Server, valkey_options

pytestmark = pytest.mark.valkey


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[Cluster]:
    """A Cluster whose servers have a replica each."""
    cluster = Cluster(tmp_path / "valkey", replicas=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


async def test_a_server_that_is_killed_and_paused_under_load_loses_nothing(
    processes: StoreProcesses, link_worker: LinkWorker, folder: Path, own: Server
) -> None:
    stores = Stores(processes, folder, **valkey_options(own), SOCKETCLUSTER_VALKEY_TIMEOUT="1")
    await stores.start(*NAMES)
    worker = await link_worker(*stores.addresses, timeout=90)
    history = History(worker)
    async with history.going_on():
        await history.progress(3)
        await asyncio.to_thread(own.end, signal.SIGKILL)
        await asyncio.to_thread(own.start)
        await history.progress(3)
        await asyncio.to_thread(own.end, signal.SIGTERM)
        await asyncio.to_thread(own.start)
        await history.progress(3)
        own.send(signal.SIGSTOP)
        await asyncio.gather(*(given_up(stores, name) for name in NAMES))
        own.send(signal.SIGCONT)
        await history.progress(3)
    await history.check(await link_worker(*stores.addresses, worker_id="worker02"))
    await spread(stores, 21, 21, 22)


async def test_a_primary_that_is_killed_under_load_loses_nothing_that_its_replica_had_to_have(
    processes: StoreProcesses, link_worker: LinkWorker, folder: Path, replicated: Cluster
) -> None:
    stores = Stores(
        processes,
        folder,
        **valkey_options(replicated),
        SOCKETCLUSTER_VALKEY_WAIT_REPLICAS="1",
        SOCKETCLUSTER_VALKEY_TIMEOUT="20",
    )
    await stores.start("one", "two")
    worker = await link_worker(*stores.addresses, timeout=90)
    history = History(worker)
    async with history.going_on():
        await history.progress(3)
        replicated.primaries[1].end(signal.SIGKILL)
        await asyncio.to_thread(replicated.until_failed_over, 1)
        replicated.primaries[1].start()  # it is the replica now, without which nothing is acknowledged
        await history.progress(3)
    await history.check(await link_worker(*stores.addresses, worker_id="worker02"))
    await spread(stores, 32, 32)


async def given_up(stores: Stores, name: str) -> None:
    """Return when a store has given up partitions that were in use."""
    while len(await stores.owned(name)) >= 21:
        pass
