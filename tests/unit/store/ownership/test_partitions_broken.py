"""A partition that cannot be opened: the others serve, its operations fail by name, and it comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from support.store.running import LinkWorker, StartStore

from socketcluster_proto.v1 import store_pb2
from socketcluster_runtime.sockets import descriptors
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.ownership import partitions
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.errors import PartitionUnavailableError, StoreUnavailableError
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of

BROKEN = partition_of("s")
ONE = msgspec.msgpack.encode(1)
TWO = msgspec.msgpack.encode(2)
CHANNEL = next(name for name in (f"c{number}" for number in range(1000)) if partition_of(name) == BROKEN)


@pytest.fixture(autouse=True)
def pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "BROKEN_PAUSE", 0.05)


def damage(folder: Path, name: str) -> Callable[[], object]:
    """Put garbage in the place of a file; return what puts it right."""
    path = folder / "data" / "socketcluster" / "partitions" / f"{BROKEN:02}" / "1" / name
    whole = path.read_bytes()
    path.write_bytes(b"garbage" * 1000)
    return lambda: path.write_bytes(whole)


@pytest.mark.parametrize("name", ["journal.0", "data.mdb"])
async def test_a_damaged_partition_fails_by_name_and_comes_back(
    start_store: StartStore, link_worker: LinkWorker, folder: Path, name: str
) -> None:
    address = f"unix:{folder}/same"
    store = await start_store(listen=address)
    early = await link_worker(address)
    await early.client.attach("s")
    await early.client.subscribe(CHANNEL)
    await early.set("s", "k", value=ONE)
    await early.set("t", "k", value=TWO)
    await store.stop()
    mend = damage(folder, name)
    waiting = early.client.call(store_pb2.VERB_GET, session_id="s", keys=["k"])  # while there is no store
    await start_store(listen=address)
    with pytest.raises(PartitionUnavailableError) as failed:
        await waiting
    late = await link_worker(address, worker_id="worker02")  # it gets ready
    with pytest.raises(StoreUnavailableError) as refused:
        await late.set("s", "k", value=TWO)
    for error in (failed.value, refused.value):
        assert isinstance(error, PartitionUnavailableError)
        assert error.partition == BROKEN
        assert f"partition {BROKEN} is unavailable: " in str(error)
        assert f"/partitions/{BROKEN:02}/1" in str(error)
    for worker in (early, late):
        assert worker.client.ready
        assert await worker.get("t", "k") == TWO
    mend()
    while True:
        try:
            assert await late.get("s", "k") == ONE
            break
        except PartitionUnavailableError:
            await asyncio.sleep(0.01)
    assert await late.get("t", "k") == TWO
    await late.publish(CHANNEL, 5)
    assert (await early.channel_messages.get())[:2] == (CHANNEL, msgspec.msgpack.encode(5))  # it subscribed again


async def test_a_partition_whose_content_cannot_be_read_stops_no_store(
    start_store: StartStore, link_worker: LinkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Partition.load

    async def fail(self: Partition) -> None:
        if self.number == BROKEN:
            raise msgspec.DecodeError("a page of another book")
        await load(self)

    monkeypatch.setattr(Partition, "load", fail)
    store = await start_store()
    worker = await link_worker(store.address)
    with pytest.raises(PartitionUnavailableError, match=r"cannot be read: .*a page of another book"):
        await worker.get("s", "k")
    await worker.set("t", "k", value=TWO)
    monkeypatch.undo()
    while True:
        try:
            await worker.set("s", "k", value=ONE)
            break
        except PartitionUnavailableError:
            await asyncio.sleep(0.01)


async def test_a_broken_partition_is_the_matter_of_the_store_whose_share_it_is(
    start_store: StartStore, link_worker: LinkWorker, folder: Path
) -> None:
    first = await start_store()
    worker = await link_worker(first.address)
    await worker.set("s", "k", value=ONE)
    await first.stop()
    mend = damage(folder, "data.mdb")
    one = await start_store()
    two = await start_store()
    both = await link_worker(one.address, two.address, worker_id="worker02")
    for store in (one, two):
        with pytest.raises(PartitionUnavailableError):
            await both.get("s", "k")
        if store is one:
            await one.stop()
    mend()
    while True:
        try:
            assert await both.get("s", "k") == ONE
            break
        except PartitionUnavailableError:
            await asyncio.sleep(0.01)


async def test_a_store_opens_no_more_partitions_than_it_has_descriptors_for(
    start_store: StartStore, link_worker: LinkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = descriptors.OWN_OF_STORE + (PARTITION_COUNT - 1) * LmdbEngine.descriptors
    monkeypatch.setattr(descriptors, "raise_limit", lambda: limit)
    store = await start_store()
    worker = await link_worker(store.address)  # it gets ready
    refused = []
    for number in range(PARTITION_COUNT):
        session = next(name for name in (f"s{each}" for each in range(10_000)) if partition_of(name) == number)
        try:
            await worker.set(session, "k", value=ONE)
        except PartitionUnavailableError as error:
            refused.append(str(error))
    assert len(refused) == 1
    assert f"descriptors for {PARTITION_COUNT - 1} partitions only" in refused[0]


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_an_open_partition_has_the_descriptors_that_are_counted_for_it(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path / "p", ExecutorOptions(1 << 20))
    before = open_descriptors()
    partition = await engine.open(0)
    await partition.sync()
    assert open_descriptors() - before == LmdbEngine.descriptors
    await partition.close()
