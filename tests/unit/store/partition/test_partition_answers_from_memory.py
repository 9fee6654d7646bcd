"""What a store answers out of its memory, without a word of its data: it must still own the partition then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_hex

import msgspec
import pytest
from support.store.valkey import valkey_engine

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Outcome
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engine import Engine
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.deduplication import NOT_OWNED
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of

SESSION = "somebody"
PARTITION = partition_of(SESSION)
CHANNEL = next(name for name in (f"news{number}" for number in range(1000)) if partition_of(name) == PARTITION)
ATTACH = store_pb2.VERB_SESSION_ATTACH
QUESTIONS = (
    Operation(verb=store_pb2.VERB_SESSION_CHECK, value=msgspec.msgpack.encode([SESSION])),
    Operation(verb=ATTACH, session_id=SESSION),
    Operation(verb=store_pb2.VERB_SESSION_EMIT, session_id=SESSION, name="greet", value=msgspec.msgpack.encode([])),
    Operation(verb=store_pb2.VERB_CHANNEL_SUBSCRIBE, name=CHANNEL),
    Operation(verb=store_pb2.VERB_CHANNEL_UNSUBSCRIBE, name=CHANNEL),
    Operation(verb=store_pb2.VERB_CHANNEL_HISTORY, name=CHANNEL, value=msgspec.msgpack.encode({"limit": 1})),
)


@pytest.fixture(params=["memory", pytest.param("valkey", marks=pytest.mark.valkey)])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    """The engines of two stores that share their data."""
    options = ExecutorOptions(1 << 20)
    if request.param == "memory":
        yield MemoryEngine(tmp_path, options, store_id="former-1"), MemoryEngine(tmp_path, options, store_id="taker-1")
        return
    valkey, app_name = request.getfixturevalue("valkey"), token_hex(8)
    async with AsyncExitStack() as stack:
        former = await stack.enter_async_context(valkey_engine(valkey, options, app_name=app_name, store_id="former-1"))
        taker = await stack.enter_async_context(valkey_engine(valkey, options, app_name=app_name, store_id="taker-1"))
        yield former, taker


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: store_pb2.Verb.Name(each.verb))
async def test_a_store_that_was_fenced_answers_nothing_out_of_its_memory(
    stores: tuple[Engine, Engine], question: Operation
) -> None:
    former, taker = stores
    fenced: list[int] = []
    partition = Partition(
        await former.open(PARTITION),
        session_timeout=1200,
        max_value_bytes=1 << 20,
        channel_rules=ChannelRules(()),
        message_id_window=300,
        tell_workers=lambda _events: None,
        on_fenced=fenced.append,
        turns=asyncio.Semaphore(1),
    )
    await partition.load()
    link = WorkerLink("worker01", "1", 1 << 20)
    numbered = msgspec.structs.replace(question, id=2, partition=PARTITION, epoch=partition.epoch)
    held = Operation(id=1, verb=ATTACH, session_id=SESSION, partition=PARTITION, epoch=partition.epoch)
    assert await answers(partition, link, held) == [b"\xc2"]
    assert isinstance((await answers(partition, link, numbered))[0], bytes)
    taken = await taker.take(PARTITION, "former-1")
    assert await answers(partition, link, msgspec.structs.replace(numbered, id=3)) == [NOT_OWNED]
    assert fenced == [PARTITION]
    await partition.close()
    await taken.close()


async def answers(partition: Partition, link: WorkerLink, operation: Operation) -> list[Outcome]:
    outcomes = partition.apply(link, [operation])
    return outcomes if isinstance(outcomes, list) else await outcomes
