"""A partition that a store has lost, and opened again before all that was under way there had ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import NotOwnerError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.ownership.membership import Membership
from socketcluster_store.ownership.partitions import Partitions
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

SESSION = "s"
NUMBER = partition_of(SESSION)
CHANNEL = next(name for name in (f"c{number}" for number in range(1000)) if partition_of(name) == NUMBER)
ATTACH = Operation(1, store_pb2.VERB_SESSION_ATTACH, session_id=SESSION, partition=NUMBER)
SUBSCRIBE = Operation(2, store_pb2.VERB_CHANNEL_SUBSCRIBE, name=CHANNEL, partition=NUMBER)


async def make(folder: Path) -> Partition:
    made = Partition(
        await MemoryEngine(folder, ExecutorOptions(1 << 20)).open(NUMBER),
        session_timeout=1200,
        max_value_bytes=1 << 20,
        channel_rules=ChannelRules(()),
        message_id_window=300,
        tell_workers=lambda _events: None,
        on_fenced=lambda _number: None,
        turns=asyncio.Semaphore(1),
    )
    await made.load()
    return made


async def hold(partition: Partition, link: WorkerLink) -> None:
    outcomes = partition.apply(link, [ATTACH, SUBSCRIBE])
    for outcome in outcomes if isinstance(outcomes, list) else await outcomes:
        assert isinstance(outcome, bytes)


@pytest.fixture
async def link() -> WorkerLink:
    return WorkerLink("worker", "incarnation", 1 << 20)


@pytest.fixture
async def lost(tmp_path: Path) -> Partition:
    return await make(tmp_path / "lost")


@pytest.fixture
async def again(tmp_path: Path) -> AsyncIterator[Partition]:
    made = await make(tmp_path / "again")
    yield made
    await made.close()


async def test_what_a_link_holds_is_let_go_of_when_it_ends(lost: Partition, again: Partition, link: WorkerLink) -> None:
    await hold(lost, link)
    lost.lose()
    assert (link.sessions, link.channels) == (set(), set())
    await hold(again, link)
    await lost.close()  # after the link's worker has said everything anew
    assert (link.sessions, link.channels) == ({SESSION}, {CHANNEL})
    await again.release(link, link.sessions.copy())
    assert not again._sessions.attached(SESSION)


async def test_what_waited_for_its_turn_is_not_carried_out(lost: Partition, link: WorkerLink) -> None:
    await hold(lost, link)
    process = lost._deduplication.idle(link.process)
    assert process is not None
    async with process.lock:
        process.busy += 1
        waiting = asyncio.ensure_future(lost.apply(link, [ATTACH]))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        lost.lose()
        process.busy -= 1
    (outcome,) = await waiting
    assert isinstance(outcome, NotOwnerError)
    assert link.sessions == set()
    await lost.close()


async def test_a_former_opening_does_not_give_up_the_present_one(again: Partition, tmp_path: Path) -> None:
    class Nobody(Membership):
        async def join(self) -> None: ...
        async def leave(self) -> None: ...
        async def look(self) -> None: ...

    partitions = Partitions(
        MemoryEngine(tmp_path, ExecutorOptions(1 << 20)),
        lambda _opened: again,
        lambda: None,
        membership=lambda _changed: Nobody(),
        store_id="store-1",
        hang_timeout=3.0,
    )
    partitions.owned[NUMBER] = again
    partitions.fenced(NUMBER)  # says a batch that was under way in the former one
    assert partitions.owned == {NUMBER: again}


async def test_a_message_that_was_under_way_is_told_to_nobody(lost: Partition, link: WorkerLink) -> None:
    await hold(lost, link)
    lost.lose()
    message = Operation(3, store_pb2.VERB_CHANNEL_PUBLISH, name=CHANNEL, partition=NUMBER, value=b"\x01")
    lost._channels.finish(message, b"", 0.0)
    assert msgspec.msgpack.decode(lost._channels.finish(SUBSCRIBE, b"", 0.0))["offset"] == 1
    assert not link._items
    await lost.close()
