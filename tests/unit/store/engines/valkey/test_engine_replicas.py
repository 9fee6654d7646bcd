"""What the engine valkey promises with ``valkey_wait_replicas``, and a primary that is cut off from all others."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
import pytest
from support.store.valkey import Server, until_replicated, valkey_engine

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.valkey.engine import ValkeyEngine
from socketcluster_store.errors import EngineError, FencedError
from socketcluster_store.executor import ExecutorOptions

pytestmark = pytest.mark.valkey

NUMBER = 7
encode = msgspec.msgpack.encode


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A primary and its replica."""
    primary = Server(tmp_path / "primary", "--repl-diskless-sync-delay", "0")
    replica = Server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}")
    for server in (primary, replica):
        server.start()
    until_replicated(primary, replica)
    yield primary, replica
    for server in (primary, replica):
        server.end()


@pytest.fixture
async def stores() -> AsyncIterator[Any]:
    """Makes engines of one application whose batches a replica must have."""
    app_name = token_hex(8)
    async with AsyncExitStack() as stack:

        async def make(store_id: str, server: Server, replicas: int) -> ValkeyEngine:
            options = ExecutorOptions(1 << 20)
            engine = valkey_engine(
                server, options, app_name=app_name, store_id=store_id, timeout=1.5, replicas=replicas
            )
            return await stack.enter_async_context(engine)

        yield make


def setting(value: Any) -> Command:
    return Command(store_pb2.VERB_SET, b"s", ["a"], encode(value))


GETTING = Command(store_pb2.VERB_GET, b"s", ["a"])


async def get(partition: EnginePartition) -> Any:
    (outcome,) = await partition.apply([GETTING])
    assert isinstance(outcome, bytes)
    return msgspec.msgpack.decode(outcome)


def has_heard_of_all(primary: Server) -> bool:
    """Has its replica said that it has everything?"""
    reply = primary.ask("ROLE")
    assert isinstance(reply, list)
    _role, offset, [(_host, _port, heard)] = reply
    return int(heard) >= int(offset)


async def test_a_primary_that_is_cut_off_answers_no_reads_of_what_its_replica_has_changed(
    pair: tuple[Server, Server], stores: Any
) -> None:
    primary, replica = pair
    cut_off = await (await stores("one-1", primary, 1)).open(NUMBER)
    await cut_off.apply([setting("before")])
    assert await get(cut_off) == "before"
    replica.ask("REPLICAOF", "NO", "ONE")  # the majority elected it
    taken = await (await stores("two-2", replica, 0)).take(NUMBER, "one-1")
    await taken.apply([setting("after")])
    with pytest.raises(FencedError, match="did not answer"):
        await get(cut_off)
    assert await get(taken) == "after"
    await taken.close()
    await cut_off.close()


async def test_a_read_does_not_show_what_no_replica_has(pair: tuple[Server, Server], stores: Any) -> None:
    primary, replica = pair
    partition = await (await stores("one-1", primary, 1)).open(NUMBER)
    await partition.apply([setting("before")])
    replica.ask("REPLICAOF", "NO", "ONE")
    writing = asyncio.create_task(partition.apply([setting("after")]))
    await asyncio.sleep(0)
    reading = asyncio.create_task(get(partition))
    for task in (writing, reading):
        with pytest.raises(FencedError):
            await task
    await partition.close()


async def test_a_read_waits_for_an_answer_that_the_replica_gives_after_it(
    pair: tuple[Server, Server], stores: Any
) -> None:
    """What the replica had before, it had before it may have become a primary."""
    primary, replica = pair
    partition = await (await stores("one-1", primary, 1)).open(NUMBER)
    await partition.apply([setting("before")])
    assert await get(partition) == "before"
    while not has_heard_of_all(primary):  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.01)
    replica.send(signal.SIGSTOP)
    with pytest.raises(FencedError, match="did not answer"):
        await get(partition)
    replica.send(signal.SIGCONT)
    await partition.close()


async def test_what_is_removed_is_confirmed_as_what_is_set(pair: tuple[Server, Server], stores: Any) -> None:
    primary, replica = pair
    partition = await (await stores("one-1", primary, 1)).open(NUMBER)
    await partition.apply([setting("value")])
    await partition.apply([Command(store_pb2.VERB_REMOVE, b"s", ["a"])])
    assert await get(partition) is None
    replica.ask("REPLICAOF", "NO", "ONE")
    assert await (await stores("two-2", replica, 0)).take(NUMBER, "one-1")
    with pytest.raises(FencedError):
        await partition.apply([Command(store_pb2.VERB_REMOVE, b"s", ["a"])])
    await partition.close()


async def test_reads_go_on_while_there_is_no_memory_and_a_partition_is_released(
    pair: tuple[Server, Server], stores: Any
) -> None:
    primary, _replica = pair
    partition = await (await stores("one-1", primary, 1)).open(NUMBER)
    await partition.apply([setting("before")])
    primary.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(EngineError, match="maxmemory"):
        await partition.apply([setting("after")])
    assert await get(partition) == "before"
    await partition.close()
    other = await stores("two-2", primary, 1)
    with pytest.raises(EngineError, match="maxmemory"):
        await other.open(NUMBER)
    primary.ask("CONFIG", "SET", "maxmemory", 0)
    next_owner = await other.open(NUMBER)
    assert await get(next_owner) == "before"
    await next_owner.close()
