"""A store that is taken for hung while it opens a partition: it has lost it to another store, and nothing is broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.worker.running import until

from socketcluster_store.commands import Command, Outcome
from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.engine import EnginePartition
from socketcluster_store.engines.lmdb import files
from socketcluster_store.engines.lmdb.engine import LmdbEngine
from socketcluster_store.errors import EngineError, PartitionLockedError
from socketcluster_store.executor import ExecutorOptions
from socketcluster_store.ownership.membership import Membership
from socketcluster_store.ownership.partitions import Partitions
from socketcluster_store.partition.partition import Partition
from socketcluster_store_client.partitioning import PARTITION_COUNT

TAKEN = 5


class Alone(Membership):
    """One store that sees no other."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.live = frozenset({"slow-1"})
        self._changed = changed

    async def join(self) -> None:
        self._changed()

    async def leave(self) -> None:
        pass

    async def look(self) -> None:
        pass


class Store:
    """The partitions of a store, and what it announced as broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = LmdbEngine(folder, ExecutorOptions(1 << 20), store_id="slow-1")
        self.broken: list[dict[int, str]] = []
        self.partitions = Partitions(
            self.engine, self._make, self._changed, membership=Alone, store_id="slow-1", hang_timeout=3.0
        )
        self.taken: set[int] = set()
        self.free: set[int] = set()
        self.on_opened: Callable[[int, EnginePartition], None] = lambda _number, _opened: None
        self.running: asyncio.Task[None] | None = None
        self._open, self.engine.open = self.engine.open, self._open_slowly  # type: ignore[method-assign]

    def serve(self) -> asyncio.Task[None]:
        self.running = asyncio.create_task(self.partitions.run())
        return self.running

    def take(self, number: int = TAKEN) -> None:
        """Have another store take a partition, as from a store that hangs; it is that one's until it is free again."""
        if number not in self.taken:
            self.taken.add(number)
            with (self.folder / f"{number:02}" / "1" / "owner.lock").open("r+b") as lock:
                lock.write(b"\1")

    async def _open_slowly(self, number: int) -> EnginePartition:
        if number in self.taken and number not in self.free:
            raise PartitionLockedError("the taker has it", "taker-1")
        opened = await self._open(number)
        self.on_opened(number, opened)
        return opened

    def _make(self, opened: EnginePartition) -> Partition:
        return Partition(
            opened,
            session_timeout=1200,
            max_value_bytes=1 << 20,
            channel_rules=ChannelRules(()),
            message_id_window=300,
            tell_workers=lambda _events: None,
            on_fenced=self.partitions.fenced,
            turns=asyncio.Semaphore(1),
        )

    def _changed(self) -> None:
        broken = {each.partition: each.reason for each in self.partitions.announcement().broken}
        if broken:
            self.broken.append(broken)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(tmp_path)
    yield made
    if made.running is not None:
        await made.partitions.close()


async def opens_it_later(store: Store) -> None:
    """Make sure that the store waits for the taker, and opens what that gives up."""
    await until(lambda: len(store.partitions.owned) == PARTITION_COUNT - 1)
    assert not store.partitions.settled.is_set()
    store.free.add(TAKEN)
    await store.partitions.settled.wait()
    assert TAKEN in store.partitions.owned
    assert store.broken == []
    assert store.running is not None
    assert not store.running.done()


async def test_between_opening_and_loading(store: Store) -> None:
    store.on_opened = lambda number, _opened: store.take() if number == TAKEN else None
    store.serve()
    await opens_it_later(store)


@pytest.mark.parametrize("error", [EngineError("a page is gone"), KeyError("a page is gone")])
async def test_whatever_the_error_is_that_reading_what_was_taken_ends_in(store: Store, error: Exception) -> None:
    def take(number: int, opened: EnginePartition) -> None:
        async def fail(_batch: Sequence[Command]) -> list[Outcome]:
            raise error

        if number == TAKEN and not store.taken:
            store.take()
            opened.apply = fail  # type: ignore[assignment, method-assign]

    store.on_opened = take
    store.serve()
    await opens_it_later(store)


async def test_while_its_files_are_opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.open_files

    def open_slowly(folder: Path, *args: Any) -> files.Opened:
        if folder.parent.name == f"{TAKEN:02}" and not store.taken:
            store.take()
            raise FileNotFoundError("the taker removed the files")
        return real(folder, *args)

    monkeypatch.setattr(files, "open_files", open_slowly)
    store.serve()
    await opens_it_later(store)


async def test_a_store_that_starts_goes_on_though_all_that_it_opens_is_taken(store: Store) -> None:
    store.on_opened = lambda number, _opened: store.take(number)
    store.serve()
    await until(lambda: len(store.taken) == PARTITION_COUNT)
    assert not store.partitions.owned
    store.free |= store.taken - {TAKEN}
    await opens_it_later(store)


async def test_an_engine_that_fails_in_closing_what_was_taken(store: Store) -> None:
    def take(number: int, opened: EnginePartition) -> None:
        if number != TAKEN or store.taken:
            return
        store.take()
        close = opened.close

        async def fail() -> None:
            await close()
            raise EngineError("the files are gone")

        opened.close = fail  # type: ignore[method-assign]

    store.on_opened = take
    store.serve()
    await opens_it_later(store)


async def test_what_a_store_does_by_itself_shows_that_a_partition_was_taken(store: Store) -> None:
    store.serve()
    await store.partitions.settled.wait()
    store.partitions.settled.clear()
    partition = store.partitions.owned[TAKEN]
    store.take()
    await partition._deadlines._note_time()
    assert store.partitions.owned.get(TAKEN) is not partition
    await opens_it_later(store)


async def test_a_partition_of_which_nothing_is_asked_is_missed_all_the_same(store: Store) -> None:
    store.serve()
    await store.partitions.settled.wait()
    partition = store.partitions.owned[TAKEN]
    store.take()
    await until(lambda: TAKEN not in store.partitions.owned)
    store.free.add(TAKEN)
    await until(lambda: TAKEN in store.partitions.owned)
    assert store.partitions.owned[TAKEN] is not partition
