"""What Valkey has to do for partitions that are opened, or only kept: it serves others meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from support.store.valkey import Server, valkey_engine
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.engines.valkey import membership, scripts
from socketcluster_store.engines.valkey.engine import BEGUN_AT_ONCE, LOADED_BYTES, OPENED_AT_ONCE
from socketcluster_store.engines.valkey.servers import CONNECTIONS
from socketcluster_store.executor import ExecutorOptions

pytestmark = pytest.mark.valkey

PARTITIONS = 2 * OPENED_AT_ONCE
VALUE = msgspec.msgpack.encode("x" * 60_000)
VALUES = 80
SMALL = 3000


async def test_much_data_is_read_in_portions_and_few_partitions_at_a_time(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    calls: Counter[int] = Counter()
    reading: set[bytes] = set()
    most = 0
    async with valkey_engine(valkey, ExecutorOptions(1 << 20)) as engine:
        partitions = [await engine.open(number) for number in range(PARTITIONS)]
        for partition in partitions:
            sets = [Command(store_pb2.VERB_SET, b"s", (f"k{number}",), VALUE) for number in range(VALUES)]
            sets += [Command(store_pb2.VERB_SET, b"t", (f"k{number}",), b"\x01") for number in range(SMALL)]
            await partition.apply(sets)
        for partition in partitions:
            await partition.close()
        real = engine._servers.call

        async def call(key: bytes, script: scripts.Script, *args: Any, **options: Any) -> Any:
            nonlocal most
            if script is scripts.LOAD and args[2] != b"0":
                reading.add(key)
                most = max(most, len(reading))
            reply = await real(key, script, *args, **options)
            if script is scripts.LOAD:
                calls[args[-1]] += 1
                sizes.append(sum(map(len, reply[1])))
                if reply[0] == b"0":
                    reading.discard(key)
            return reply

        monkeypatch.setattr(engine._servers, "call", call)
        partitions = list(await asyncio.gather(*map(engine.open, range(PARTITIONS))))
        assert most == OPENED_AT_ONCE
        assert max(sizes) < 3 * LOADED_BYTES
        assert max(calls) > 100  # small ones are not read one by one
        for partition in partitions:
            (last,) = await partition.apply([Command(store_pb2.VERB_GET, b"s", (f"k{VALUES - 1}",))])
            assert last == VALUE
            (count,) = await partition.apply([Command(store_pb2.VERB_COUNT, b"t")])
            assert count == msgspec.msgpack.encode(SMALL)
            await partition.close()


async def test_a_partition_that_waits_to_be_opened_is_not_freed_for_who_asks_for_it(valkey: Server) -> None:
    async with valkey_engine(valkey, ExecutorOptions(1 << 20)) as engine:
        for _ in range(BEGUN_AT_ONCE):
            await engine._beginning.acquire()  # others are opened
        opening = asyncio.create_task(engine.open(7))
        await asyncio.sleep(0)
        engine._answer(7)
        for _ in range(BEGUN_AT_ONCE):
            engine._beginning.release()
        partition = await opening
        while engine._tasks:
            await asyncio.wait(engine._tasks)
        (done,) = await partition.apply([Command(store_pb2.VERB_SET, b"s", ("k",), VALUE)])
        assert done == b""
        await partition.close()


async def test_a_store_that_cannot_listen_asks_for_no_partition_each_time_it_tries(
    own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a connection for calls is made all partitions are looked at: the server may have lost something."""
    monkeypatch.setattr(membership, "LISTEN_AGAIN", 0.001)
    async with valkey_engine(own, ExecutorOptions(1 << 20)) as engine:
        members: Any = engine.membership(5, lambda: None)
        await members.join()
        for _ in range(CONNECTIONS + 1):
            members._listens.clear()
            own.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(members._listens.is_set)
        assert engine._servers.breaks <= CONNECTIONS  # each of those for calls was made once
