"""A worker's operations between two stores that take a partition from each other, break and hang at every point.

The client, its links, the partition and the links' store ends are the real ones; only streams, which the test moves on
bit by bit, and the moves of the partition are the test's. Whatever happens: what is acknowledged was applied once, in
the order of the calls, its answer is its own, and all is answered once an owner answers.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.store_client.links import HandLink, make_client

from socketcluster_proto.v1 import store_pb2
from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data.channel_rules import ChannelRules, HistoryRule
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.memory import MemoryEngine
from socketcluster_store.errors import FencedError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.links import WorkerLink
from socketcluster_store.partition.deduplication import NOT_OWNED
from socketcluster_store.partition.partition import Partition
from socketcluster_store.servicer import _portions, _results
from socketcluster_store_client import client as client_module
from socketcluster_store_client.client import StoreClient
from socketcluster_store_client.errors import StoreUnavailableError
from socketcluster_store_client.messages import Operation
from socketcluster_store_client.partitioning import partition_of
from socketcluster_store_client.routes import clock

ADD, GET = store_pb2.VERB_ADD, store_pb2.VERB_GET
PUBLISH, HISTORY = store_pb2.VERB_CHANNEL_PUBLISH, store_pb2.VERB_CHANNEL_HISTORY
KEY = "list"
PARTITION = partition_of(KEY)
CHANNEL = next(name for number in itertools.count() if partition_of(name := f"channel{number}") == PARTITION)
RULES = ChannelRules([HistoryRule("*", 1000, 3600, 1 << 20)])
NOT_KNOWN = {"epoch": 0, "offset": 0}
"""The answer to a publication whose place is not known any more."""
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class Data:
    """The partition's data, whoever has it."""

    def __init__(self, engine: EnginePartition) -> None:
        self.engine = engine
        self.opening: Opening | None = None
        self.epoch = 0
        self._epochs = itertools.count(1000)
        self._low = itertools.count(999, -1)

    async def open(self, low: bool, on_fenced: Callable[[int], None]) -> Partition:
        """Open the partition with another epoch, as a rule a higher one; who has it open has it no more."""
        self.epoch = next(self._low if low else self._epochs)
        self.opening = Opening(self, self.epoch)
        partition = Partition(
            self.opening,  # type: ignore[arg-type]
            session_timeout=1200,
            max_value_bytes=1 << 20,
            channel_rules=RULES,
            message_id_window=300,
            tell_workers=lambda _: None,
            on_fenced=on_fenced,
            turns=asyncio.Semaphore(1),
        )
        await partition.load()
        return partition


class Opening:
    """The partition as one owner has it."""

    def __init__(self, data: Data, epoch: int) -> None:
        self._data = data
        self.epoch = epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data.engine, name)

    @property
    def fenced(self) -> bool:
        return self._data.opening is not self

    def apply_now(self, batch: Sequence[Command]) -> list[Outcome] | Awaitable[list[Outcome]]:
        if self.fenced:
            raise FencedError("another store has it")
        return self._data.engine.apply_now(batch)

    async def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        outcomes = self.apply_now(batch)
        return outcomes if isinstance(outcomes, list) else await outcomes


class Store:
    """A store, and the streams between it and the worker, one after the other."""

    def __init__(self, client: StoreClient, name: str) -> None:
        self.link = HandLink(client, name)
        self.partition: Partition | None = None
        self.link_up()

    def link_up(self) -> None:
        """Have the worker link."""
        self.end = WorkerLink("worker01", "incarnation", 1 << 20)
        self.requests: deque[list[Operation]] = deque()  # on their way to the store
        self.replies: deque[bytes] = deque()  # on their way to the worker
        self.announce()

    def announce(self) -> None:
        owned = [] if self.partition is None else [(PARTITION, self.partition.epoch)]
        self.end.announce(
            store_pb2.Announcement(
                store_id=self.link.address,
                partitions=[store_pb2.Ownership(partition=number, epoch=epoch) for number, epoch in owned],
            )
        )

    def fenced(self, _number: int) -> None:
        """Know that another store took the partition."""
        self.partition = None
        self.announce()

    def write(self, count: int) -> None:
        """Have the worker write some of what waits for the store."""
        if self.link.waiting:
            self.requests.append(self.link.write(count))

    async def read(self) -> None:
        """Have the store carry a request out."""
        if self.requests:
            for some in _portions(self.requests.popleft(), 2):
                self.end.answer(_results(some, await self._apply(some)))

    async def _apply(self, operations: list[Operation]) -> list[Outcome]:
        if self.partition is None:
            return [NOT_OWNED] * len(operations)
        outcomes = self.partition.apply(self.end, operations)
        return outcomes if isinstance(outcomes, list) else await outcomes

    def send(self) -> None:
        """Have the store write what waits for the worker."""
        if self.end._items:
            reply, size, answer_size = self.end._gather()
            self.end._bytes -= size
            self.end._answer_bytes -= answer_size
            self.replies.append(reply)

    def deliver(self) -> None:
        """Have the worker get a reply."""
        if self.replies:
            self.link.reply(self.replies.popleft())

    async def break_(self, read: int) -> None:
        """Break the stream, after the store has read some more of it; the worker links again."""
        for _ in range(read):
            await self.read()
        self.link.break_()
        self.link_up()


class World:
    """Everything, and what is expected of it."""

    def __init__(self, engine: EnginePartition) -> None:
        self.client = make_client()
        self.stores = [Store(self.client, "a:1"), Store(self.client, "b:1")]
        self.data = Data(engine)
        self.slept = 0.0
        self.adds: list[asyncio.Future[bytes]] = []
        self.reads: list[tuple[asyncio.Future[bytes], int]] = []
        self.publications: list[asyncio.Future[bytes]] = []

    def add(self) -> None:
        self.adds.append(self.client.call(ADD, keys=[KEY], value=encode(len(self.adds))))

    def publish(self, with_id: bool) -> None:
        number = len(self.publications)
        message_id = f"id{number}" if with_id else ""
        self.publications.append(self.client.call(PUBLISH, name=CHANNEL, value=encode(number), message_id=message_id))

    def read(self) -> None:
        acknowledged = sum(add.done() and not add.exception() for add in self.adds)
        self.reads.append((self.client.call(GET, keys=[KEY]), acknowledged))

    async def move(self, place: int, former_hangs: bool = False, low: bool = False) -> None:
        """Give the partition to a store, which may have had it before; one that hangs does not know that it lost it."""
        for store in self.stores:
            if store.partition is not None and not former_hangs:
                store.fenced(PARTITION)
        self.stores[place].partition = await self.data.open(low, self.stores[place].fenced)
        self.stores[place].announce()

    def release(self) -> None:
        """Have the owner give the partition up; one that hung before may not know yet that it lost it."""
        for store in self.stores:
            if store.partition is not None and store.partition.epoch == self.data.epoch:
                store.fenced(PARTITION)
        self.data.opening = None

    async def restart_links(self) -> None:
        """End the streams that the worker wants to begin anew."""
        for store in self.stores:
            if store.link.restarting:
                await store.break_(0)

    async def do(self, step: tuple[str, int, int]) -> None:
        await self.restart_links()
        action, place, number = step
        store = self.stores[place]
        match action:
            case "add":
                self.add()
            case "publish":
                self.publish(with_id=place == 1)
            case "get":
                self.read()
            case "write":
                store.write(number + 1)
            case "read":
                await store.read()
            case "reply":
                store.send()
                for _ in range(number):
                    store.deliver()
            case "move":
                await self.move(place, former_hangs=number == 0, low=number == 3)
            case "release":
                self.release()
            case "break":
                await store.break_(number)
            case "sleep":
                self.slept += 4.0 * number
                if place:
                    self.client._on_timer()

    async def settle(self, place: int, low: bool) -> None:
        """Have a store own the partition and answer everything."""
        await self.move(place, low=low)
        while any(each.link.waiting or each.requests or each.end._items or each.replies for each in self.stores):
            for each in self.stores:
                each.write(1_000_000)
                await each.read()
                each.send()
                each.deliver()
            await self.restart_links()

    async def check(self, place: int) -> None:
        owner = self.stores[place]
        route = self.client._routes[PARTITION]
        assert route.owner is owner.link
        assert not route.parked
        assert not route.in_flight
        assert not any(store.link.stale for store in self.stores)
        assert owner.partition is not None
        (found,) = await owner._apply([Operation(1 << 40, GET, keys=(KEY,), partition=PARTITION)])
        assert isinstance(found, bytes)
        stored = decode(found) if found != encode(None) else []
        assert stored == sorted(set(stored))
        for token, add in enumerate(self.adds):
            assert add.done()
            if (error := add.exception()) is None:
                assert stored[decode(add.result())] == token
            else:
                assert isinstance(error, StoreUnavailableError)
                assert self.slept
        await self.check_publications(owner)
        for read, acknowledged in self.reads:
            assert read.done()
            if read.exception() is None:
                seen = decode(read.result()) or []
                assert seen == stored[: len(seen)]
                assert len(seen) >= acknowledged

    async def check_publications(self, owner: Store) -> None:
        """All that were acknowledged are kept, once, in the order of their calls, at the place that was told."""
        asked = Operation((1 << 40) + 1, HISTORY, name=CHANNEL, value=encode({"limit": 1000}), partition=PARTITION)
        (found,) = await owner._apply([asked])
        assert isinstance(found, bytes)
        history = decode(found)
        kept = [decode(message) for message in history["messages"]]
        assert kept == sorted(set(kept))
        for number, publication in enumerate(self.publications):
            assert publication.done()
            if (error := publication.exception()) is not None:
                assert isinstance(error, StoreUnavailableError)
                assert self.slept
            else:
                place = decode(publication.result())
                assert place in ({"epoch": history["epoch"], "offset": kept.index(number) + 1}, NOT_KNOWN)


ACTIONS = (
    ["add"] * 4
    + ["publish"] * 3
    + ["get"]
    + ["write"] * 4
    + ["read"] * 4
    + ["reply"] * 5
    + ["move"] * 3
    + ["release"] * 2
    + ["break", "sleep"]
)
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1), st.integers(0, 3)), min_size=20, max_size=80
)  # fmt: skip


async def play(steps: list[tuple[str, int, int]], last: int, low: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = await MemoryEngine(Path(folder), ExecutorOptions(1 << 20)).open(PARTITION)
        world = World(engine)
        monkeypatch.setattr(client_module, "clock", lambda: clock() + world.slept)
        for step in steps:
            await world.do(step)
        await world.settle(last, low)
        await world.check(last)
        await world.client.close()
        await engine.close()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(STEPS, st.integers(0, 1), st.booleans())
def test_what_is_acknowledged_was_applied_once_in_order(
    steps: list[tuple[str, int, int]], last: int, low: bool
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(play(steps, last, low, monkeypatch))


async def test_a_former_owner_whose_turn_comes_again_while_it_hangs_refuses_nothing_that_it_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It answers out of its memory what it was sent twice; another one had the partition in between."""
    applied = [("move", 0, 1), ("reply", 0, 3), ("add", 0, 0), ("write", 0, 3), ("read", 0, 0)]
    taken = [("move", 1, 0), ("reply", 1, 3), ("release", 0, 0), ("reply", 1, 3)]
    await play([*applied, *taken, ("write", 0, 3), ("read", 0, 0), ("reply", 0, 3)], 1, False, monkeypatch)
