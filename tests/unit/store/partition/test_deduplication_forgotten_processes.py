"""A process's record stays as long as something of it may be under way, and goes when nobody can need it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.store.data import Clock

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data.applied_log import PAGE_RESULTS
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import EngineError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition import deduplication as deduplication_module
from socketcluster_store.partition.deduplication import KEPT_SECONDS
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of
from socketcluster_worker.settings import WorkerSettings

ADD, GET = store_pb2.VERB_ADD, store_pb2.VERB_GET
SESSION = "s"
NUMBER = partition_of(SESSION)
encode = msgspec.msgpack.encode


class Waiting:
    """The memory engine's partition, whose batches wait where the test says so."""

    def __init__(self, real: EnginePartition) -> None:
        self._real = real
        self.go = asyncio.Event()
        self.go.set()
        self.error: EngineError | None = None
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def apply_now(self, batch: Sequence[Command]) -> list[Outcome] | Awaitable[list[Outcome]]:
        return self._real.apply_now(batch) if self.go.is_set() else self.apply(batch)

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        await self.go.wait()
        self.sizes.append(len(batch))
        if self.error is not None:
            raise self.error
        return await self._real.apply(batch)


class Store:
    """A partition and the processes that are linked."""

    def __init__(self, engine: Any, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self.linked: set[str] = set()
        self.partition = Partition(
            engine,
            session_timeout=1e9,
            max_value_bytes=1 << 20,
            channel_rules=ChannelRules(()),
            message_id_window=300,
            tell_workers=lambda _: None,
            on_fenced=lambda _: None,
            turns=asyncio.Semaphore(1),
            linked=lambda: self.linked,
        )

    async def add(self, process: str, number: int, *, count: int = 1) -> list[Outcome]:
        """Append the numbers from one on, in one request on a new link."""
        operations = [
            Operation(each, ADD, SESSION, ("l",), value=encode(f"{process}{each}"), behind=each - 1)
            for each in range(number, number + count)
        ]
        outcomes = self.partition.apply(WorkerLink(process, "1", 1 << 20), operations)
        return outcomes if isinstance(outcomes, list) else await outcomes

    async def stored(self) -> list[str]:
        outcomes = self.partition.apply(WorkerLink("r", "1", 1 << 20), [Operation(1, GET, SESSION, ("l",))])
        (outcome,) = outcomes if isinstance(outcomes, list) else await outcomes
        assert isinstance(outcome, bytes)
        found: list[str] = msgspec.msgpack.decode(outcome)
        return found

    async def keep_up(self) -> None:
        """Do what the timer does."""
        await self.partition._deadlines._keep_up()

    async def processes(self) -> set[str]:
        """Return of which processes something is kept."""
        return {key.rpartition(b"/")[0].decode()[-3:] for key, _ in await self.engine.applied()}

    @property
    def known(self) -> set[str]:
        return {name.removesuffix("/1") for name in self.partition._deduplication._processes}


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened = await MemoryEngine(tmp_path, ExecutorOptions(1 << 20, clock=clock)).open(NUMBER)
    made = Store(Waiting(opened), clock)
    await made.partition.load()
    yield made
    await made.partition.close()


async def test_an_operation_under_way_keeps_the_record(store: Store) -> None:
    await store.add("one", 1)
    store.clock.now += KEPT_SECONDS + 100
    store.engine.go.clear()
    under_way = asyncio.create_task(store.add("one", 2))
    await asyncio.sleep(0)
    other = asyncio.create_task(store.add("two", 1))  # writes for the first time
    upkeep = asyncio.create_task(store.keep_up())
    await asyncio.sleep(0)
    store.engine.go.set()
    answers = await under_way
    await asyncio.gather(other, upkeep)
    assert await store.add("one", 2) == answers  # the answer was lost
    assert await store.stored() == ["one1", "one2", "two1"]


async def test_a_link_keeps_the_record(store: Store) -> None:
    answers = await store.add("one", 1)
    store.linked = {"one/1"}
    store.clock.now += 10 * KEPT_SECONDS
    await store.add("two", 1)
    await store.keep_up()
    assert await store.add("one", 1) == answers
    assert await store.stored() == ["one1", "two1"]


async def test_a_record_of_which_nothing_can_come_goes_though_nobody_writes(store: Store) -> None:
    await store.add("one", 1, count=3 * PAGE_RESULTS)
    assert await store.stored()
    store.clock.now += KEPT_SECONDS
    await store.keep_up()
    assert (await store.processes(), store.known) == ({"one"}, {"one", "r"})
    store.clock.now += 1
    await store.keep_up()
    assert (await store.processes(), store.known) == (set(), set())


async def test_many_go_a_few_in_a_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplication_module, "FORGOTTEN_AT_ONCE", 2)
    for name in ("one", "two", "six", "ten", "fox"):
        await store.add(name, 1)
    store.engine.sizes.clear()
    store.clock.now += KEPT_SECONDS + 1
    await store.keep_up()
    assert (await store.processes(), store.known) == (set(), set())
    assert store.engine.sizes == [2, 2, 1]


async def test_what_comes_while_its_record_goes_waits_and_is_remembered(store: Store) -> None:
    await store.add("one", 1)
    store.clock.now += KEPT_SECONDS + 1
    store.engine.go.clear()
    upkeep = asyncio.create_task(store.keep_up())
    await asyncio.sleep(0)
    coming = asyncio.create_task(store.add("one", 2))
    await asyncio.sleep(0)
    store.engine.go.set()
    answers = await coming
    await upkeep
    assert (await store.add("one", 2), await store.processes()) == (answers, {"one"})
    assert await store.stored() == ["one1", "one2"]


async def test_what_cannot_be_forgotten_is_remembered(store: Store) -> None:
    answers = await store.add("one", 1)
    store.clock.now += KEPT_SECONDS + 1
    store.engine.error = EngineError("the disk is full")
    await store.keep_up()
    store.engine.error = None
    assert await store.add("one", 1) == answers
    store.clock.now += 1
    await store.keep_up()
    assert await store.processes() == set()


def test_no_worker_sends_anything_again_once_its_record_may_be_gone() -> None:
    (longest,) = (each.le for each in WorkerSettings.model_fields["store_timeout"].metadata if hasattr(each, "le"))
    assert longest < KEPT_SECONDS
