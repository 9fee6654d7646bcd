"""What Valkey lost of what it had acknowledged: one line for all partitions, a count, and a gap for subscribers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from support.store.running import LinkWorker, StartStore
from support.store.valkey import Server, valkey_engine
from support.worker.running import until

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command
from socketcluster_store.data.channel_rules import parse_rule
from socketcluster_store.engines.valkey import scripts
from socketcluster_store.errors import FencedError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store_client.partitioning import PARTITION_COUNT, partition_of

pytestmark = pytest.mark.valkey

Line = MutableMapping[str, Any]
LOST = "Valkey lost what it had acknowledged; its partitions go on with what it has, in new epochs"
ONE = msgspec.msgpack.encode(1)
SESSIONS = [f"session{number}" for number in range(300)]
KEPT = (parse_rule("kept:*: 100, 3600"),)


def setting(key: str) -> Command:
    return Command(store_pb2.VERB_SET, b"s", [key], ONE)


def reported(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["event"] == LOST]


def store_partitions(store: Any) -> float:
    """Return how many partitions a store owns."""
    return float(store.lifecycle.metrics.get_sample_value("socketcluster_store_partitions"))


def bad(lines: list[Line]) -> set[str]:
    """Return what the store complains of; the worker, in the same process, says that operations fail."""
    levels = ("error", "critical")
    return {line["event"] for line in lines if line["log_level"] in levels and "worker" not in line["event"]}


@pytest.mark.parametrize("how", ["FLUSHALL", "empty restart", "empty after it was away"])
async def test_all_partitions_that_are_emptied_are_told_of_and_counted(
    own: Server, start_store: StartStore, link_worker: LinkWorker, how: str
) -> None:
    timeout = 2 if how == "empty after it was away" else 60
    store = await start_store(engine="valkey", valkey_url=own.url, channel_history=KEPT, valkey_timeout=timeout)
    worker = await link_worker(store.address)
    await asyncio.gather(*(worker.set(session, "k", value=ONE) for session in SESSIONS))
    position = msgspec.msgpack.decode(await worker.client.subscribe("kept:a"))
    assert position["epoch"] == 0
    before = await worker.publish("kept:a", "before")
    assert (await worker.channel_messages.get())[2:] == (before[1], before[0])
    calls: list[asyncio.Task[None]] = []
    with capture_logs() as lines:
        if how == "FLUSHALL":
            own.ask("FLUSHALL")
        else:
            own.end(signal.SIGKILL)
            for path in (own.folder / "appendonlydir").iterdir():
                path.unlink()
            if how == "empty after it was away":
                calls = [asyncio.create_task(worker.set(session, "l", value=ONE)) for session in SESSIONS]
                await until(lambda: not store_partitions(store))
            await asyncio.to_thread(own.start)
        await until(lambda: reported(lines))
        assert await worker.get(SESSIONS[0], "k") == b"\xc0"
        after = await worker.publish("kept:a", "after")
        assert after[0] > before[0]
        gap = await worker.gaps.get()
        assert gap.channel == "kept:a"
    (line,) = reported(lines)
    assert line["partitions"] == line["emptied"] == list(range(PARTITION_COUNT))
    assert line["lost_writes"] == len(SESSIONS) + 1
    assert line["exact"]
    assert line["lost_keys"] > len(SESSIONS)
    assert bad(lines) - {"Valkey does not answer", "Valkey is loading its data"} == {LOST}
    await asyncio.gather(*calls, return_exceptions=True)
    value = store.lifecycle.metrics.get_sample_value
    assert value("socketcluster_store_lost_writes_total") == len(SESSIONS) + 1
    assert value("socketcluster_store_lost_partitions_total") == PARTITION_COUNT


async def test_a_partition_that_is_evicted_is_the_only_one_told_of(
    own: Server, start_store: StartStore, link_worker: LinkWorker
) -> None:
    store = await start_store(engine="valkey", valkey_url=own.url)
    worker = await link_worker(store.address)
    await asyncio.gather(*(worker.set(session, "k", value=ONE) for session in SESSIONS))
    evicted = partition_of(SESSIONS[0])
    gone = sum(partition_of(session) == evicted for session in SESSIONS)
    with capture_logs() as lines:
        own.ask("DEL", scripts.partition_key("socketcluster", evicted))
        assert await worker.get(SESSIONS[0], "k") == b"\xc0"
        await until(lambda: reported(lines))
    (line,) = reported(lines)
    assert line["partitions"] == line["emptied"] == [evicted]
    assert line["lost_writes"] == gone
    assert bad(lines) == {LOST}


async def test_what_a_server_lacks_is_counted_to_the_write(valkey: Server) -> None:
    async with valkey_engine(valkey, ExecutorOptions(1 << 20), app_name="lacks") as engine:
        partition = await engine.open(7)
        key = scripts.partition_key("lacks", 7)
        await partition.apply([setting("a")])
        older = valkey.ask("DUMP", key)
        await partition.apply([setting("b"), setting("c"), Command(store_pb2.VERB_GET, b"s", ["a"])])
        await partition.apply([setting("d")])
        valkey.ask("RESTORE", key, 0, older, "REPLACE")
        with pytest.raises(FencedError, match="it has 1 of 3") as lost:
            await partition.apply([setting("e")])
        assert lost.value.told
        assert (engine.lost_writes, engine.lost_partitions) == (3, 1)
        await partition.close()


async def test_a_state_from_before_the_opening_is_a_loss_and_begins_new_epochs(valkey: Server) -> None:
    async with valkey_engine(valkey, ExecutorOptions(1 << 20), app_name="before") as engine:
        key = scripts.partition_key("before", 7)
        first: Any = await engine.open(7)
        await first.apply([setting("a")])
        older = valkey.ask("DUMP", key)
        await first.close()
        second: Any = await engine.open(7)
        assert second.life == first.life  # nothing was lost
        await second.apply([setting("b"), setting("c")])
        valkey.ask("RESTORE", key, 0, older, "REPLACE")
        with pytest.raises(FencedError, match="lost it"):
            await second.apply([setting("d")])
        assert engine.lost_writes == 2
        await second.close()
        third: Any = await engine.open(7)
        assert third.life != first.life
        await third.close()


async def test_a_partition_that_another_store_takes_is_no_loss(valkey: Server) -> None:
    async with (
        valkey_engine(valkey, ExecutorOptions(1 << 20), app_name="taken") as one,
        valkey_engine(valkey, ExecutorOptions(1 << 20), app_name="taken", store_id="two-2") as two,
    ):
        partition = await one.open(7)
        await partition.apply([setting("a")])
        taken = await two.take(7, "one-1")
        with pytest.raises(FencedError, match="taken over by two-2") as taken_over:
            await partition.apply([setting("b")])
        assert not taken_over.value.told
        assert one.lost_partitions == 0
        await taken.close()
        await partition.close()


async def test_what_others_take_after_a_loss_is_put_down_to_it(valkey: Server) -> None:
    async with (
        valkey_engine(valkey, ExecutorOptions(1 << 20), app_name="after") as one,
        valkey_engine(valkey, ExecutorOptions(1 << 20), app_name="after", store_id="two-2") as two,
    ):
        lost, kept = await one.open(3), await one.open(7)
        await lost.apply([setting("a")])
        valkey.ask("DEL", scripts.partition_key("after", 3))
        with pytest.raises(FencedError, match="lost all of it"):
            await lost.apply([setting("b")])
        taken = await two.take(7, "one-1")
        with pytest.raises(FencedError, match="taken over by two-2") as told:
            await kept.apply([setting("a")])
        assert told.value.told
        for partition in (taken, kept, lost):
            await partition.close()
