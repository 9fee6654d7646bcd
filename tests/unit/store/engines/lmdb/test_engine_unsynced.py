"""With ``fsync=always`` nothing is told that a power cut could take back: not what was written, nor what was read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.engines.lmdb.journal import Journal
from socketcluster_store.errors import SessionOverError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

SESSION = "s"
NUMBER = partition_of(SESSION)
encode = msgspec.msgpack.encode


class Disk:
    """A disk that takes its time."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.syncs = 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()
    sync = Journal.sync

    def wait_and_sync(journal: Journal) -> None:
        made.go.wait()
        made.syncs += 1
        sync(journal)

    monkeypatch.setattr(Journal, "sync", wait_and_sync)
    yield made
    made.go.set()


@pytest.fixture
async def partition(tmp_path: Path, disk: Disk) -> AsyncIterator[Partition]:
    opened = await LmdbEngine(tmp_path, ExecutorOptions(1 << 20), sync_each_commit=True).open(NUMBER)
    made = Partition(
        opened,
        session_timeout=1200,
        max_value_bytes=1 << 20,
        channel_rules=ChannelRules(()),
        message_id_window=300,
        tell_workers=lambda _: None,
        on_fenced=lambda _: None,
        turns=asyncio.Semaphore(1),
    )
    await made.load()
    yield made
    disk.go.set()  # a failed test leaves it as it is
    await made.close()


def link(name: str) -> WorkerLink:
    return WorkerLink(name, f"incarnation of {name}", 1 << 20)


def operation(number: int, verb: int, session_id: str = SESSION, *keys: str, value: bytes = b"") -> Operation:
    return Operation(number, verb, session_id=session_id, keys=keys, value=value, partition=NUMBER, behind=1)


async def apply(partition: Partition, link: WorkerLink, operations: Sequence[Operation]) -> list[object]:
    outcomes = partition.apply(link, operations)
    return list(outcomes if isinstance(outcomes, list) else await outcomes)


READS = {
    "get": (operation(2, store_pb2.VERB_GET, SESSION, "k"), encode("new")),
    "exists": (operation(2, store_pb2.VERB_EXISTS, SESSION, "k"), encode(True)),
    "attach": (operation(2, store_pb2.VERB_SESSION_ATTACH), encode(True)),
    "check": (operation(2, store_pb2.VERB_SESSION_CHECK, "", value=encode([SESSION])), encode([])),
}


@pytest.mark.parametrize("name", READS)
async def test_what_is_not_on_the_disk_is_not_read(partition: Partition, disk: Disk, name: str) -> None:
    read, expected = READS[name]
    writer, reader = link("writer"), link("reader")
    await apply(partition, writer, [operation(1, store_pb2.VERB_SESSION_ATTACH)])
    await apply(partition, reader, [operation(1, store_pb2.VERB_SET, SESSION, "other", value=encode(0))])
    if name == "attach":
        holder = link("holder")
        await apply(partition, holder, [operation(1, store_pb2.VERB_SESSION_ATTACH)])
    disk.go.clear()
    writing = asyncio.create_task(
        apply(partition, writer, [operation(2, store_pb2.VERB_SET, SESSION, "k", value=encode("new"))])
    )
    await asyncio.sleep(0)
    reading = asyncio.create_task(apply(partition, reader, [read]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not writing.done()
    assert not reading.done()
    before = disk.syncs
    disk.go.set()
    assert await writing == [b""]
    assert await reading == [expected]
    assert disk.syncs == before + 1  # it is the writer's that the reader waits for
    outcomes = partition.apply(reader, [read])
    assert outcomes == [expected]  # at once: everything is on the disk


async def test_what_is_written_while_the_disk_syncs_waits_for_another_sync(partition: Partition, disk: Disk) -> None:
    """The one that is under way may have passed it by."""
    one, two = link("one"), link("two")
    for number, each in enumerate((one, two)):
        await apply(partition, each, [operation(1, store_pb2.VERB_SET, SESSION, f"k{number}", value=encode(0))])
    disk.go.clear()
    before = disk.syncs
    first = asyncio.create_task(
        apply(partition, one, [operation(2, store_pb2.VERB_SET, SESSION, "k0", value=encode(1))])
    )
    for _ in range(10):
        await asyncio.sleep(0)  # it syncs
    second = asyncio.create_task(
        apply(partition, two, [operation(2, store_pb2.VERB_SET, SESSION, "k1", value=encode(1))])
    )
    for _ in range(10):
        await asyncio.sleep(0)
    disk.go.set()
    assert await first == await second == [b""]
    assert disk.syncs == before + 2


async def test_a_session_whose_end_is_not_on_the_disk_is_not_said_to_be_over(partition: Partition, disk: Disk) -> None:
    ending, other = link("ending"), link("other")
    await apply(partition, ending, [operation(1, store_pb2.VERB_SET, SESSION, "k", value=encode(1))])
    disk.go.clear()
    end = asyncio.create_task(apply(partition, ending, [operation(2, store_pb2.VERB_SESSION_END)]))
    await asyncio.sleep(0)
    late = asyncio.create_task(apply(partition, other, [operation(1, store_pb2.VERB_GET, SESSION, "k")]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not late.done()
    disk.go.set()
    await end
    (refused,) = await late
    assert isinstance(refused, SessionOverError)


async def test_a_watcher_is_not_told_of_what_is_not_on_the_disk(partition: Partition, disk: Disk) -> None:
    writer, watcher = link("writer"), link("watcher")
    await apply(partition, watcher, [operation(1, store_pb2.VERB_WATCH, SESSION, "k", value=b"\1")])
    told: list[object] = []
    watcher.tell = told.append  # type: ignore[method-assign,assignment]
    disk.go.clear()
    write = operation(1, store_pb2.VERB_SET, SESSION, "k", value=encode(1))
    writing = asyncio.create_task(apply(partition, writer, [write]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not told
    disk.go.set()
    await writing
    assert len(told) == 1
